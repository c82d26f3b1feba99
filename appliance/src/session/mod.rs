//! Live sessions: those between their durable intent and their durable outcome.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | the registry: who may attach a stream, who waits for an end |
//! | `link.rs` | one session's stream: hello, signed messages, phases of a protocol |
//! | `body.rs` | the form of what is exchanged, one message each |
//! | `failure.rs` | why a session failed, as a stable code and in words |
//! | `withdrawal.rs` | what stops a session whose share is withdrawn |

mod body;
mod failure;
mod link;
mod withdrawal;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use casemate_wire::frame::Frame;
use casemate_wire::{Code, Problem, PublicKey, SessionId, SessionType};
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use body::{read_body, to_body};
pub use failure::Failure;
pub(crate) use link::{Link, Phase, finish};
pub use withdrawal::Withdrawal;

/// Frames that wait in each direction of a stream.
const STREAM_QUEUE: usize = 16;

/// The largest plain body of one message in a session of this type, in bytes. Frames are bounded by it too.
pub(crate) fn max_body(session_type: SessionType) -> usize {
    match session_type {
        SessionType::Keygen | SessionType::Rotate => 1024 * 1024,
        SessionType::Sign => 64 * 1024,
    }
}

/// The party's end of a message stream.
pub struct Stream {
    /// Frames from the coordinator; `None` at its end.
    pub incoming: mpsc::Receiver<Result<Frame, String>>,
    /// Frames to the coordinator.
    pub outgoing: mpsc::Sender<Frame>,
    /// Whether the session has to stop.
    pub withdrawal: Withdrawal,
}

impl Stream {
    /// The next frame from the coordinator.
    ///
    /// # Errors
    /// The share was withdrawn: the session stops here, whatever else is waiting.
    pub(crate) async fn next(&mut self) -> Result<Option<Result<Frame, String>>, Failure> {
        tokio::select! {
            biased;
            () = self.withdrawal.comes() => Err(Failure::withdrawn()),
            frame = self.incoming.recv() => Ok(frame),
        }
    }
}

/// The network's end of a message stream.
pub struct StreamEnd {
    /// Frames to the party.
    pub incoming: mpsc::Sender<Result<Frame, String>>,
    /// Frames from the party.
    pub outgoing: mpsc::Receiver<Frame>,
}

/// All live sessions; bounded.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Mutex<HashMap<SessionId, Arc<Live>>>>,
    limit: usize,
}

struct Live {
    attach: Mutex<Option<oneshot::Sender<Stream>>>,
    round: Arc<AtomicU16>,
    ended: watch::Receiver<()>,
    /// The key whose share it uses or makes, once that is known.
    key: Mutex<Option<PublicKey>>,
    withdraw: watch::Sender<bool>,
}

/// A place in the registry, held by the session's life; dropping it frees the place and wakes whoever waits.
pub struct Place {
    registry: Registry,
    session: SessionId,
    /// Gives the stream once it is attached.
    pub stream: oneshot::Receiver<Stream>,
    /// The protocol's round, for people.
    pub round: Arc<AtomicU16>,
    /// Whether the session has to stop.
    pub withdrawal: Withdrawal,
    _end: watch::Sender<()>,
}

/// Why a session got no place.
#[derive(Debug)]
pub enum NoPlace {
    /// Another call has it, or the session runs.
    Taken,
    /// All places are taken.
    Full(Problem),
}

impl Registry {
    /// A registry for at most `limit` sessions.
    pub fn new(limit: usize) -> Self {
        Self { inner: Arc::default(), limit }
    }

    /// Takes the one place of a session; `key` is the key that it is asked to use, if there is one yet.
    ///
    /// # Errors
    /// Somebody has it, or all places are taken.
    pub fn enter(&self, session: &SessionId, key: Option<PublicKey>) -> Result<Place, NoPlace> {
        let mut inner = self.lock();
        if inner.contains_key(session) {
            return Err(NoPlace::Taken);
        }
        if inner.len() >= self.limit {
            let detail = format!("{} sessions run already, as many as limits.sessions allows; try again", self.limit);
            return Err(NoPlace::Full(Problem::new(Code::Overloaded, detail)));
        }
        let (attach, stream) = oneshot::channel();
        let (end, ended) = watch::channel(());
        let round = Arc::new(AtomicU16::new(0));
        let (withdraw, withdrawal) = Withdrawal::channel();
        let live =
            Live { attach: Mutex::new(Some(attach)), round: round.clone(), ended, key: Mutex::new(key), withdraw };
        inner.insert(session.clone(), Arc::new(live));
        drop(inner);
        Ok(Place { registry: self.clone(), session: session.clone(), stream, round, withdrawal, _end: end })
    }

    /// Says which key a session makes, before its share is stored: from then on it can be withdrawn.
    pub fn makes(&self, session: &SessionId, key: PublicKey) {
        if let Some(live) = self.lock().get(session) {
            *live.key.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
        }
    }

    /// Stops every session that uses or makes a share of this key; says how many there were. They end as failed, by themselves.
    pub fn withdraw(&self, key: &PublicKey) -> usize {
        let concerned = |live: &&Arc<Live>| *live.key.lock().unwrap_or_else(PoisonError::into_inner) == Some(*key);
        let live: Vec<Arc<Live>> = self.lock().values().filter(concerned).cloned().collect();
        for one in &live {
            one.withdraw.send_replace(true);
        }
        live.len()
    }

    /// Attaches the message stream; `None` if the session does not run.
    ///
    /// # Errors
    /// `session_conflict` when a stream is attached already.
    pub fn attach(&self, session: &SessionId) -> Option<Result<StreamEnd, Problem>> {
        let live = self.lock().get(session).cloned()?;
        let taken = || Problem::new(Code::SessionConflict, format!("session {session} has its message stream already"));
        let sender = live.attach.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (to_party, incoming) = mpsc::channel(STREAM_QUEUE);
        let (outgoing, from_party) = mpsc::channel(STREAM_QUEUE);
        let withdrawal = Withdrawal::of(&live.withdraw);
        let attached = sender.is_some_and(|sender| sender.send(Stream { incoming, outgoing, withdrawal }).is_ok());
        Some(if attached { Ok(StreamEnd { incoming: to_party, outgoing: from_party }) } else { Err(taken()) })
    }

    /// The protocol's round; 0 if the session does not run.
    pub fn round(&self, session: &SessionId) -> u16 {
        self.lock().get(session).map_or(0, |live| live.round.load(Ordering::Relaxed))
    }

    /// Returns once the session does not run any more.
    pub async fn ended(&self, session: &SessionId) {
        let live = self.lock().get(session).cloned();
        if let Some(live) = live {
            let mut ended = live.ended.clone();
            drop(live);
            // An error means that the place is gone, which is what is waited for.
            while ended.changed().await.is_ok() {}
        }
    }

    /// How many sessions run.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Arc<Live>>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.session);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn id(text: &str) -> SessionId {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_bounded_and_freed() {
        let registry = Registry::new(1);
        let place = registry.enter(&id("a"), None).unwrap();
        assert!(matches!(registry.enter(&id("a"), None), Err(NoPlace::Taken)));
        let full = registry.enter(&id("b"), None);
        assert!(matches!(full, Err(NoPlace::Full(problem)) if problem.code == Code::Overloaded));
        drop(place);
        assert!(registry.enter(&id("b"), None).is_ok());
    }

    #[test]
    fn a_stream_is_attached_once_and_only_to_a_session_that_runs() {
        let registry = Registry::new(4);
        assert!(registry.attach(&id("a")).is_none());
        let _place = registry.enter(&id("a"), None).unwrap();
        assert!(registry.attach(&id("a")).unwrap().is_ok());
        let Some(Err(problem)) = registry.attach(&id("a")) else { panic!("attached twice") };
        assert_eq!(problem.code, Code::SessionConflict);
    }

    #[tokio::test]
    async fn whoever_waits_wakes_at_the_end() {
        let registry = Registry::new(4);
        registry.ended(&id("a")).await;
        let place = registry.enter(&id("a"), None).unwrap();
        let waiting = tokio::spawn({
            let registry = registry.clone();
            async move { registry.ended(&id("a")).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(place);
        waiting.await.unwrap();
    }

    fn key(text: &str) -> PublicKey {
        text.parse().unwrap()
    }

    const ONE: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    const TWO: &str = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";

    #[tokio::test]
    async fn a_withdrawal_stops_all_sessions_of_its_key_and_no_other() {
        let registry = Registry::new(4);
        let mut signs = registry.enter(&id("signs"), Some(key(ONE))).unwrap();
        let mut makes = registry.enter(&id("makes"), None).unwrap();
        let other = registry.enter(&id("other"), Some(key(TWO))).unwrap();
        registry.makes(&id("makes"), key(ONE));
        assert_eq!(registry.withdraw(&key(ONE)), 2);
        signs.withdrawal.comes().await;
        makes.withdrawal.comes().await;
        assert_eq!(other.withdrawal.check(), Ok(()));
    }

    #[tokio::test]
    async fn a_withdrawn_session_reads_no_further_frame_even_if_one_waits() {
        let registry = Registry::new(4);
        let mut place = registry.enter(&id("a"), Some(key(ONE))).unwrap();
        let end = registry.attach(&id("a")).unwrap().unwrap();
        let mut stream = (&mut place.stream).await.unwrap();
        end.incoming.send(Err("waits".into())).await.unwrap();
        end.incoming.send(Err("waits as well".into())).await.unwrap();
        assert_eq!(stream.next().await, Ok(Some(Err("waits".into()))));
        registry.withdraw(&key(ONE));
        assert_eq!(stream.next().await, Err(Failure::withdrawn()));
    }

    #[tokio::test]
    async fn a_session_that_has_left_the_registry_is_never_withdrawn() {
        let registry = Registry::new(4);
        let mut place = registry.enter(&id("a"), Some(key(ONE))).unwrap();
        registry.lock().clear();
        let waited = tokio::time::timeout(std::time::Duration::from_millis(50), place.withdrawal.comes()).await;
        assert!(waited.is_err(), "nobody has withdrawn it");
    }
}
