//! Whether the HSM can be used now, and since when not.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::error::HsmError;

/// Whether calls can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HsmState {
    /// Calls are taken.
    Ready,
    /// Calls are refused at once; the token is looked for in the background.
    Unavailable {
        /// Since when.
        since: SystemTime,
        /// Why, for the operator.
        reason: String,
    },
    /// The token refused the PIN, or its PIN is locked or about to be. Nothing is tried again in this process.
    PinRefused {
        /// Since when.
        since: SystemTime,
        /// What the token said, for the operator.
        reason: String,
    },
    /// The HSM was shut down.
    Closed,
}

/// What the watching thread was woken for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    Lost,
    Pause,
    Closed,
}

/// The state, shared by all threads of one HSM.
pub(crate) struct StateCell {
    serial: String,
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    state: HsmState,
    /// When the call that each thread is in began.
    calls: Vec<Option<Instant>>,
}

impl StateCell {
    pub(crate) fn new(serial: String, threads: usize) -> Self {
        let inner = Inner { state: HsmState::Ready, calls: vec![None; threads] };
        Self { serial, inner: Mutex::new(inner), changed: Condvar::new() }
    }

    /// The state, with threads that are stuck inside the module for longer than `limit` taken into account.
    pub(crate) fn now(&self, limit: Duration) -> HsmState {
        let inner = self.lock();
        match (&inner.state, stuck_since(&inner.calls, limit)) {
            (HsmState::Ready, Some(age)) => HsmState::Unavailable {
                since: SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH),
                reason: "every HSM thread is inside a call that does not end".into(),
            },
            (state, _) => state.clone(),
        }
    }

    /// How long every thread has been inside a call, if all of them are for longer than `limit`.
    pub(crate) fn stuck(&self, limit: Duration) -> Option<Duration> {
        stuck_since(&self.lock().calls, limit)
    }

    /// Lets a call through, or says why not.
    pub(crate) fn admit(&self, limit: Duration) -> Result<(), HsmError> {
        self.refusal(self.now(limit)).map_or(Ok(()), Err)
    }

    fn refusal(&self, state: HsmState) -> Option<HsmError> {
        match state {
            HsmState::Ready => None,
            HsmState::Unavailable { since, reason } => Some(HsmError::Unavailable { since, reason }),
            HsmState::PinRefused { .. } => Some(HsmError::PinRefused { serial: self.serial.clone() }),
            HsmState::Closed => Some(HsmError::Closed),
        }
    }

    /// Records what took the token away, and gives the error for whoever asked.
    pub(crate) fn lose(&self, error: &HsmError) -> HsmError {
        let mut inner = self.lock();
        let now = SystemTime::now();
        let next = match &inner.state {
            HsmState::Closed | HsmState::PinRefused { .. } => inner.state.clone(),
            _ if error.is_pin_refusal() => HsmState::PinRefused { since: now, reason: error.to_string() },
            HsmState::Unavailable { since, .. } => HsmState::Unavailable { since: *since, reason: error.to_string() },
            HsmState::Ready => {
                tracing::error!(event = "hsm_unavailable", %error);
                HsmState::Unavailable { since: now, reason: error.to_string() }
            }
        };
        inner.state = next.clone();
        drop(inner);
        self.changed.notify_all();
        // The state is not `Ready`, so there is always an error to give.
        self.refusal(next).unwrap_or(HsmError::Closed)
    }

    pub(crate) fn recover(&self) {
        let mut inner = self.lock();
        if let HsmState::Unavailable { since, .. } = &inner.state {
            let seconds = since.elapsed().unwrap_or_default().as_secs();
            tracing::info!(event = "hsm_available", seconds_away = seconds);
            inner.state = HsmState::Ready;
        }
    }

    pub(crate) fn close(&self) {
        self.lock().state = HsmState::Closed;
        self.changed.notify_all();
    }

    /// Sleeps until the token is lost, the HSM is closed, or `pause` is over. After a refused PIN there is nothing
    /// left to wake for but the closing.
    pub(crate) fn wait(&self, pause: Duration) -> Wake {
        let quiet = |inner: &mut Inner| matches!(inner.state, HsmState::Ready | HsmState::PinRefused { .. });
        self.wait_while(pause, quiet)
    }

    /// Sleeps until `pause` is over or the HSM is closed.
    pub(crate) fn back_off(&self, pause: Duration) -> Wake {
        self.wait_while(pause, |inner| inner.state != HsmState::Closed)
    }

    fn wait_while(&self, pause: Duration, condition: impl Fn(&mut Inner) -> bool) -> Wake {
        let waited = self.changed.wait_timeout_while(self.lock(), pause, condition);
        let (inner, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        match inner.state {
            HsmState::Closed => Wake::Closed,
            HsmState::Unavailable { .. } if !timeout.timed_out() => Wake::Lost,
            _ => Wake::Pause,
        }
    }

    pub(crate) fn enter_call(&self, thread: usize) {
        self.set_call(thread, Some(Instant::now()));
    }

    pub(crate) fn leave_call(&self, thread: usize) {
        self.set_call(thread, None);
    }

    fn set_call(&self, thread: usize, began: Option<Instant>) {
        if let Some(call) = self.lock().calls.get_mut(thread) {
            *call = began;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the youngest call lasts, if every thread is in one and all last longer than `limit`.
fn stuck_since(calls: &[Option<Instant>], limit: Duration) -> Option<Duration> {
    let ages: Option<Vec<_>> = calls.iter().map(|began| began.map(|b| b.elapsed())).collect();
    ages?.into_iter().min().filter(|age| *age > limit)
}
