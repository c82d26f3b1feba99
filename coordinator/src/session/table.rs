//! The sessions that run now, how many may, and how they are told to stop.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use casemate_wire::{Code, Problem, SessionId};
use jiff::Timestamp;
use tokio::sync::watch;

use super::{Event, Session};
use crate::account::AccountId;

/// Why a running session is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Its time is up.
    Expired,
    /// The process ends.
    Interrupted,
}

impl From<Stop> for Event {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Expired => Self::Expired,
            Stop::Interrupted => Self::Failed(interrupted()),
        }
    }
}

/// What a session is told that did not outlive the process.
pub(crate) fn interrupted() -> Problem {
    let detail = "the coordinator stopped while the session ran; convene it again";
    Problem::new(Code::Interrupted, detail)
}

/// The sessions that run now.
pub(crate) struct Table {
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    closed: bool,
    running: HashMap<SessionId, Entry>,
}

struct Entry {
    progress: watch::Receiver<Session>,
    stop: watch::Sender<Option<Stop>>,
}

/// The place of one running session; dropping it frees the place.
pub(crate) struct Seat {
    table: Arc<Table>,
    id: SessionId,
    progress: watch::Sender<Session>,
    stop: watch::Receiver<Option<Stop>>,
}

impl Table {
    /// At most `limit` sessions at once.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, inner: Mutex::default() })
    }

    /// Gives a session a place.
    ///
    /// # Errors
    /// `overloaded`: there are too many, or the process is about to end. `session_conflict`: it is a rotation, and one of
    /// the same account runs.
    pub(crate) fn admit(self: &Arc<Self>, session: &Session) -> Result<Seat, Problem> {
        let mut inner = self.lock();
        if inner.closed {
            let detail = "the coordinator is shutting down; ask again once it is back";
            return Err(Problem::new(Code::Overloaded, detail));
        }
        if inner.running.len() >= self.limit {
            let detail = format!("{} sessions are running, as many as may; ask again later", self.limit);
            return Err(Problem::new(Code::Overloaded, detail));
        }
        if let Some(other) = inner.running.values().find_map(|entry| same_rotation(session, entry)) {
            let detail = format!("a rotation of this account runs already, in session {other}; wait for its end");
            return Err(Problem::new(Code::SessionConflict, detail).with("session_id", other.to_string()));
        }
        let (progress, watched) = watch::channel(session.clone());
        let (stop, stopped) = watch::channel(None);
        let id = session.id().clone();
        inner.running.insert(id.clone(), Entry { progress: watched, stop });
        Ok(Seat { table: Arc::clone(self), id, progress, stop: stopped })
    }

    /// The progress of a running session.
    pub(crate) fn find(&self, id: &SessionId) -> Option<watch::Receiver<Session>> {
        self.lock().running.get(id).map(|entry| entry.progress.clone())
    }

    /// Whether a rotation of this account runs.
    pub(crate) fn rotates(&self, account: AccountId) -> bool {
        let of_account = |session: &Session| session.new_shares().is_some_and(|new| new.account_id == account);
        self.lock().running.values().any(|entry| of_account(&entry.progress.borrow()))
    }

    /// How many run.
    pub(crate) fn len(&self) -> usize {
        self.lock().running.len()
    }

    /// Tells those to stop whose time is up.
    pub(crate) fn sweep(&self, now: Timestamp) {
        for entry in self.lock().running.values() {
            if entry.progress.borrow().is_due(now) {
                entry.stop.send_replace(Some(Stop::Expired));
            }
        }
    }

    /// Admits no more.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    /// Tells all to stop because the process ends.
    pub(crate) fn interrupt(&self) {
        for entry in self.lock().running.values() {
            entry.stop.send_replace(Some(Stop::Interrupted));
        }
    }

    // Nothing panics while it holds the lock, and every single change leaves the map whole.
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The session of a running rotation of the same account.
fn same_rotation(session: &Session, entry: &Entry) -> Option<SessionId> {
    let account = session.new_shares()?.account_id;
    let running = entry.progress.borrow();
    let same = running.new_shares().is_some_and(|other| other.account_id == account);
    (same && !running.is_over()).then(|| running.id().clone())
}

impl Seat {
    /// Shows the session's present state to those who watch it.
    pub(crate) fn publish(&self, session: &Session) {
        self.progress.send_replace(session.clone());
    }

    /// A view of the session's progress that stays when the seat is gone.
    pub(crate) fn watch(&self) -> watch::Receiver<Session> {
        self.progress.subscribe()
    }

    /// Waits until the session is told to stop.
    pub(crate) async fn stopped(&mut self) -> Stop {
        let told = self.stop.wait_for(Option::is_some).await;
        // The table holds the other end for as long as the seat exists.
        told.ok().and_then(|stop| *stop).unwrap_or(Stop::Interrupted)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.table.lock().running.remove(&self.id);
    }
}
