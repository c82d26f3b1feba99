//! The threads that call the module: each with a session of its own, reopened when it is lost.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use casemate_wire::stack;
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use crate::config::HsmConfig;
use crate::error::{Fault, HsmError};
use crate::module::{Lease, Module};
use crate::profile::Profile;
use crate::queue::Queue;
use crate::session::OpenSession;
use crate::state::StateCell;

/// What all threads of one HSM share.
pub(crate) struct Shared {
    pub(crate) config: HsmConfig,
    pub(crate) module: Module,
    pub(crate) state: StateCell,
    pub(crate) queue: Queue<Box<dyn Job>>,
    /// Held by the one anchor call that is under way, until its thread is done with it.
    pub(crate) anchoring: Arc<AsyncMutex<()>>,
    profile: RwLock<Arc<Profile>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Shared {
    pub(crate) fn new(config: HsmConfig, module: Module, profile: Arc<Profile>) -> Self {
        Self {
            state: StateCell::new(profile.token.serial.clone(), config.threads),
            queue: Queue::new(config.queue),
            anchoring: Arc::default(),
            profile: RwLock::new(profile),
            threads: Mutex::new(Vec::new()),
            config,
            module,
        }
    }

    pub(crate) fn profile(&self) -> Arc<Profile> {
        Arc::clone(&self.profile.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_profile(&self, profile: Arc<Profile>) {
        *self.profile.write().unwrap_or_else(PoisonError::into_inner) = profile;
    }

    pub(crate) fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all threads to end; those inside a call end after it.
    pub(crate) fn close(&self) {
        self.state.close();
        self.queue.close();
    }

    /// How many threads have not ended yet; those that have are joined.
    pub(crate) fn join_ended(&self) -> usize {
        let mut threads = self.threads();
        for thread in threads.extract_if(.., |thread| thread.is_finished()) {
            // A panic was reported by the thread itself.
            let _panic = thread.join();
        }
        threads.len()
    }
}

/// One call, waiting for a thread.
pub(crate) trait Job: Send {
    fn run(self: Box<Self>, worker: &mut Worker);
    /// Whether the caller has stopped waiting.
    fn is_abandoned(&self) -> bool;
}

/// An operation in a session, and where its result goes. A result that nobody waits for any more is dropped, which
/// wipes it.
pub(crate) struct Call<F, T> {
    pub(crate) operation: F,
    pub(crate) reply: oneshot::Sender<Result<T, HsmError>>,
}

impl<F, T> Job for Call<F, T>
where
    F: Fn(&OpenSession) -> Result<T, HsmError> + Send,
    T: Send,
{
    fn run(self: Box<Self>, worker: &mut Worker) {
        if !self.is_abandoned() {
            let result = worker.perform(&self.operation);
            let _late = self.reply.send(result);
        }
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

/// A thread's own session.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    thread: usize,
    session: Option<(OpenSession, Arc<Profile>)>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, thread: usize) -> Self {
        Self { shared, thread, session: None }
    }

    /// The life of a worker thread: one call after another until the queue is closed.
    pub(crate) fn run(mut self) {
        let _alarm = PanicAlarm(Arc::clone(&self.shared));
        while let Some(job) = self.shared.queue.next() {
            self.shared.state.enter_call(self.thread);
            stack::wiped(|| job.run(&mut self));
            self.shared.state.leave_call(self.thread);
        }
        self.close();
    }

    /// Does one operation, in a new session if the one at hand is lost, but no more than twice.
    pub(crate) fn perform<T>(
        &mut self,
        operation: impl Fn(&OpenSession) -> Result<T, HsmError>,
    ) -> Result<T, HsmError> {
        let shared = Arc::clone(&self.shared);
        let mut retried = false;
        loop {
            // The state may have changed while the call waited. A thread at work is not stuck.
            shared.state.admit(Duration::MAX)?;
            let lease = shared.module.enter();
            let outcome = self.session(&shared, &lease).and_then(&operation);
            let error = match outcome {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if error.fault() == Fault::Request {
                return Err(error);
            }
            if let Some((session, _)) = self.session.take() {
                session.close(&lease);
            }
            if error.fault() == Fault::Token || retried {
                return Err(shared.state.lose(&error));
            }
            tracing::warn!(event = "hsm_session_lost", %error);
            retried = true;
        }
    }

    /// Closes the session, if there is one.
    pub(crate) fn close(&mut self) {
        if let Some((session, _)) = self.session.take() {
            session.close(&self.shared.module.enter());
        }
    }

    fn session(&mut self, shared: &Shared, lease: &Lease<'_>) -> Result<&OpenSession, HsmError> {
        let profile = shared.profile();
        if let Some((session, opened_for)) = self.session.take() {
            if session.is_of(lease) && Arc::ptr_eq(&opened_for, &profile) {
                return Ok(&self.session.insert((session, opened_for)).0);
            }
            session.close(lease);
        }
        let known = Some(profile.as_ref());
        let opened = OpenSession::log_in(&shared.module, lease, &shared.config, known)?;
        Ok(&self.session.insert((opened, profile)).0)
    }
}

/// A panic inside a call is a fault of the module or of this crate: nothing more is asked of it.
struct PanicAlarm(Arc<Shared>);

impl Drop for PanicAlarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(event = "hsm_thread_panicked");
            self.0.close();
        }
    }
}
