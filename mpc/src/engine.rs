//! The threads on which protocol sessions run.
//!
//! Each `mpc-*` thread drives many sessions, one step at a time; a session goes to the thread with the fewest. The
//! threads run below the daemon's priority, so that a long proof never delays a health check. A panic ends the session
//! in which it happens and nothing else.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use casemate_wire::stack;
use futures::FutureExt;
use futures::future::{LocalBoxFuture, poll_fn};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use crate::aux::{self, AuxInfo, AuxSetup};
use crate::compute::Compute;
use crate::error::MpcError;
use crate::gmp_wipe;
use crate::io::{Limits, Wiring};
use crate::levels::Level;
use crate::reshare::{self, ReshareParams, Resharing};

/// How much the protocol threads yield to the daemon's other threads, as a nice value.
const NICE: i32 = 5;

type Job = Box<dyn FnOnce() -> LocalBoxFuture<'static, ()> + Send>;

/// The protocol threads. One per daemon.
pub struct Engine {
    workers: Vec<Worker>,
    compute: Compute,
}

impl Engine {
    /// Makes GMP wipe what it frees, and starts `threads` protocol threads and as many for [`Compute`]; `None` means as many as there are cores.
    ///
    /// # Errors
    /// [`MpcError::Threads`] if the system refuses the threads.
    pub fn start(threads: Option<usize>) -> Result<Self, MpcError> {
        let count = threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1);
        gmp_wipe::install();
        let compute = Compute::start(count)?;
        let workers = (0..count).map(Worker::start).collect::<Result<_, _>>()?;
        Ok(Self { workers, compute })
    }

    /// Starts a session on the least loaded thread. `protocol` is called on that thread, so its future need not be
    /// `Send`; it gets the engine's [`Compute`] for its long computations.
    ///
    /// The session ends with [`MpcError::SessionTimeout`] after `limit`, with [`MpcError::Panicked`] if it panics, and is
    /// cancelled at its next await when the returned [`Session`] is dropped.
    pub fn run<T, P, F>(&self, limit: Duration, protocol: P) -> Session<T>
    where
        T: Send + 'static,
        P: FnOnce(Compute) -> F + Send + 'static,
        F: Future<Output = Result<T, MpcError>> + 'static,
    {
        let (done, outcome) = oneshot::channel();
        let (alive, cancelled) = oneshot::channel::<()>();
        let session = Session { outcome, _alive: alive };
        let Some(worker) = self.workers.iter().min_by_key(|worker| worker.load.load(Ordering::Relaxed)) else {
            return session;
        };
        let ticket = Ticket::take(&worker.load);
        let compute = self.compute.clone();
        let job: Job = Box::new(move || {
            let body = async move { protocol(compute).await };
            async move {
                let ticket = ticket;
                let guarded = AssertUnwindSafe(tokio::time::timeout(limit, body)).catch_unwind();
                tokio::select! {
                    biased;
                    _ = cancelled => {}
                    ended = guarded => {
                        let result = match ended {
                            Ok(Ok(result)) => result,
                            Ok(Err(_)) => Err(MpcError::SessionTimeout { limit }),
                            Err(_) => {
                                tracing::error!(event = "session_panicked", "a protocol session panicked and has ended");
                                Err(MpcError::Panicked)
                            }
                        };
                        drop(ticket);
                        // Whoever waited may be gone; then the result is not wanted.
                        drop(done.send(result));
                    }
                }
            }
            .boxed_local()
        });
        worker.submit(job);
        session
    }

    /// Starts a run of the auxiliary-information protocol; see [`aux::generate`].
    pub fn aux_info<L: Level>(&self, setup: AuxSetup, limits: Limits, wiring: Wiring) -> Session<AuxInfo<L>> {
        self.run(limits.session, move |compute| async move { aux::generate(setup, limits, wiring, &compute).await })
    }

    /// Starts a redistribution of a key to a new committee; see [`reshare::redistribute`].
    pub fn reshare<L: Level>(&self, params: ReshareParams<L>, limits: Limits, wiring: Wiring) -> Session<Resharing> {
        self.run(limits.session, move |_| reshare::redistribute(params, limits, wiring))
    }

    /// The pool for long computations.
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// Sessions that are running now.
    pub fn sessions(&self) -> usize {
        self.workers.iter().map(|worker| worker.load.load(Ordering::Relaxed)).sum()
    }

    /// Ends all sessions with [`MpcError::Stopped`] and joins the protocol threads. Blocks for at most one step of each
    /// running session. Dropping the engine does the same.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.jobs = None;
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take()
                && thread.join().is_err()
            {
                tracing::error!(event = "protocol_thread_panicked", "a protocol thread had panicked");
            }
        }
    }
}

/// A running protocol session. Await it for its result; drop it to cancel the session.
#[must_use = "dropping a session cancels it"]
pub struct Session<T> {
    outcome: oneshot::Receiver<Result<T, MpcError>>,
    _alive: oneshot::Sender<()>,
}

impl<T> Future for Session<T> {
    type Output = Result<T, MpcError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.outcome.poll_unpin(context).map(|outcome| outcome.unwrap_or(Err(MpcError::Stopped)))
    }
}

struct Worker {
    jobs: Option<mpsc::UnboundedSender<Job>>,
    load: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(index: usize) -> Result<Self, MpcError> {
        let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(MpcError::Threads)?;
        let thread = thread::Builder::new()
            .name(format!("mpc-{index}"))
            .spawn(move || {
                lower_priority();
                LocalSet::new().block_on(&runtime, async move {
                    while let Some(job) = queue.recv().await {
                        let mut session = job();
                        // Many sessions share this thread's stack, one step after the other.
                        tokio::task::spawn_local(poll_fn(move |context| stack::wiped(|| session.poll_unpin(context))));
                    }
                });
            })
            .map_err(MpcError::Threads)?;
        Ok(Self { jobs: Some(jobs), load: Arc::new(AtomicUsize::new(0)), thread: Some(thread) })
    }

    /// Hands the job to the thread. If the thread is gone, dropping the job drops the session's sender, and the session
    /// ends as stopped.
    fn submit(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            drop(jobs.send(job));
        }
    }
}

/// Counts one session on a thread for as long as it lives.
struct Ticket(Arc<AtomicUsize>);

impl Ticket {
    fn take(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lowers the calling thread's priority. Where the system refuses, the thread works on at the daemon's own.
pub(crate) fn lower_priority() {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
        tracing::warn!(event = "priority_not_lowered", %error, "protocol thread runs at the daemon's priority");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn engine() -> Engine {
        Engine::start(Some(1)).expect("threads")
    }

    #[tokio::test]
    async fn a_panic_ends_its_session_and_no_other() {
        let engine = engine();
        let (go, wait) = oneshot::channel::<()>();
        let other = engine.run(LONG, |_| async move {
            wait.await.map_err(|_| MpcError::Closed)?;
            Ok(7)
        });
        let failed: Result<(), _> = engine.run(LONG, |_| async { panic!("on purpose") }).await;
        assert!(matches!(failed, Err(MpcError::Panicked)));
        go.send(()).expect("the other session still waits");
        assert_eq!(other.await.expect("is unharmed"), 7);
    }

    #[tokio::test]
    async fn a_session_ends_at_its_limit() {
        let engine = engine();
        let outcome: Result<(), _> = engine.run(Duration::from_millis(30), |_| std::future::pending()).await;
        assert!(matches!(outcome, Err(MpcError::SessionTimeout { .. })));
        assert_eq!(engine.sessions(), 0);
    }

    #[tokio::test]
    async fn dropping_a_session_cancels_it() {
        let engine = engine();
        let (held, released) = oneshot::channel::<()>();
        let session: Session<()> = engine.run(LONG, |_| async move {
            let _held = held;
            std::future::pending().await
        });
        drop(session);
        assert!(released.await.is_err(), "what the session held is dropped with it");
    }

    #[tokio::test]
    async fn shutdown_ends_what_runs_and_joins() {
        let engine = engine();
        let session: Session<()> = engine.run(LONG, |_| std::future::pending());
        let begun = Instant::now();
        engine.shutdown();
        assert!(matches!(session.await, Err(MpcError::Stopped)));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn sessions_go_to_the_least_loaded_thread() {
        let engine = Engine::start(Some(2)).expect("threads");
        let name = || async {
            let name = thread::current().name().map(str::to_owned);
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(name)
        };
        let first = engine.run(LONG, move |_| name());
        let second = engine.run(LONG, move |_| name());
        assert_eq!(engine.sessions(), 2);
        let (first, second) = (first.await.expect("runs"), second.await.expect("runs"));
        assert_ne!(first, second);
        assert!(first.is_some_and(|name| name.starts_with("mpc-")));
    }
}
