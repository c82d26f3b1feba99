//! Where a log stands, and the only way to make the next line.

use casemate_wire::Digest32;
use jiff::Timestamp;

use crate::entry::Entry;
use crate::leaf::{GuardChange, Leaf, Phase, VERSION};
use crate::line::{Line, LineError};
use crate::rules::MAX_INTEGER;
use crate::text::{At, InvalidText, LogId};

/// The end of a log: its size and the hash of its last leaf, which through `prev` commits to all of them.
///
/// It comes from [`Head::genesis`], [`Head::append`] or [`Head::after`] a stored line, never from loose values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    log: LogId,
    size: u64,
    hash: Digest32,
    boot: u64,
}

/// Why an entry did not become a line. Nothing was changed; without its leaf, the act must not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The entry's fields do not fit its phase, or do not fit into a line.
    #[error("the audit entry is not valid: {0}")]
    Entry(#[from] LineError),
    /// The time cannot be written.
    #[error("the audit entry has no valid time: {0}")]
    Time(#[from] InvalidText),
    /// The log cannot count any further.
    #[error("the audit log has no numbers left; begin a new one")]
    Full,
}

impl Head {
    /// Begins a log. `guards` are the rows that exist from the start.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn genesis(log: LogId, at: Timestamp, guards: Vec<GuardChange>) -> Result<(Line, Self), AppendError> {
        let empty = Self { log, size: 0, hash: Digest32([0; 32]), boot: 0 };
        empty.append(Entry::genesis().guarding(guards), at)
    }

    /// Makes the next line. It counts once it is durable, in the same database transaction as what it guards; then the
    /// returned head is the log's.
    ///
    /// A boot entry raises the count of starts, and every later line carries it.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(&self, entry: Entry, at: Timestamp) -> Result<(Line, Self), AppendError> {
        let next = |number: u64| number.checked_add(1).filter(|next| *next <= MAX_INTEGER).ok_or(AppendError::Full);
        let size = next(self.size)?;
        let boot = if entry.phase == Phase::Boot { next(self.boot)? } else { self.boot };
        let line = Line::of(Leaf {
            v: VERSION,
            log: self.log.clone(),
            seq: self.size,
            prev: self.hash,
            at: At::new(at)?,
            boot,
            op: entry.op,
            phase: entry.phase,
            req: entry.req,
            session: entry.session,
            actor: entry.actor,
            key: entry.key,
            tx: entry.tx,
            decision: entry.decision,
            approvals: entry.approvals,
            outcome: entry.outcome,
            guards: entry.guards,
            peers: entry.peers,
        })?;
        let head = Self { log: self.log.clone(), size, hash: line.hash(), boot };
        Ok((line, head))
    }

    /// The head of a log whose last stored line this is.
    ///
    /// # Errors
    /// [`AppendError::Full`] if no line can follow it.
    pub fn after(last: &Line) -> Result<Self, AppendError> {
        let leaf = last.leaf();
        Ok(Self {
            log: leaf.log.clone(),
            size: leaf.seq.checked_add(1).ok_or(AppendError::Full)?,
            hash: last.hash(),
            boot: leaf.boot,
        })
    }

    /// The log.
    pub fn log(&self) -> &LogId {
        &self.log
    }

    /// How many leaves it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The last leaf's hash.
    pub fn hash(&self) -> Digest32 {
        self.hash
    }

    /// How many times the daemon has started on it.
    pub fn boot(&self) -> u64 {
        self.boot
    }
}
