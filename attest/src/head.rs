//! Where a log stands, and the only way to make the next line.

use casemate_wire::Digest32;
use jiff::Timestamp;

use crate::detail::InvalidDetail;
use crate::entry::Entry;
use crate::leaf::{Leaf, Phase, VERSION};
use crate::line::{Line, LineError};
use crate::rules::MAX_INTEGER;
use crate::text::{At, InvalidText, LogId};
use crate::tree::{Frontier, NodeId};

/// The end of a log: its size, the hash of its last leaf and the edge of its tree.
///
/// It comes from [`Head::genesis`], [`Head::append`], [`Head::advance`] or [`Head::resume`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    log: LogId,
    size: u64,
    hash: Digest32,
    boot: u64,
    tree: Frontier,
}

/// A line that was made, with all that becomes durable beside it.
#[derive(Debug, Clone)]
pub struct Appended {
    /// The line.
    pub line: Line,
    /// The tree's nodes that are complete from now on, the leaf's own first.
    pub nodes: Vec<(NodeId, Digest32)>,
    /// The log's head from now on.
    pub head: Head,
}

/// Why an entry did not become a line. Nothing was changed; without its leaf, the act must not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The entry's fields do not fit its phase, or do not fit into a line.
    #[error("the audit entry is not valid: {0}")]
    Entry(#[from] LineError),
    /// Its detail cannot be committed to.
    #[error(transparent)]
    Detail(#[from] InvalidDetail),
    /// The time cannot be written.
    #[error("the audit entry has no valid time: {0}")]
    Time(#[from] InvalidText),
    /// The log cannot count any further.
    #[error("the audit log has no numbers left; begin a new one")]
    Full,
}

impl Head {
    /// Begins a log with a [genesis](Entry::genesis).
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn genesis(log: LogId, entry: Entry, at: Timestamp) -> Result<Appended, AppendError> {
        let empty = Self { log, size: 0, hash: Digest32([0; 32]), boot: 0, tree: Frontier::default() };
        empty.append(entry, at)
    }

    /// Makes the next line. It counts once it is durable, in the same database transaction as what it guards; then the
    /// returned head is the log's.
    ///
    /// A boot entry raises the count of starts, and every later line carries it.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(&self, entry: Entry, at: Timestamp) -> Result<Appended, AppendError> {
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
            detail: entry.disclosure.map(|disclosure| disclosure.commitment()).transpose()?,
            recovery: entry.recovery,
            rewrap: entry.rewrap,
        })?;
        let (head, nodes) = self.advance(&line)?;
        Ok(Appended { line, nodes, head })
    }

    /// The head after one more line, which the caller has found to be the next one; and the nodes that are complete then.
    ///
    /// # Errors
    /// [`AppendError::Full`] if the log cannot count it.
    pub fn advance(&self, line: &Line) -> Result<(Self, Vec<(NodeId, Digest32)>), AppendError> {
        let mut tree = self.tree.clone();
        let nodes = tree.push(line.hash());
        let leaf = line.leaf();
        let head = Self { log: leaf.log.clone(), size: next(self.size)?, hash: line.hash(), boot: leaf.boot, tree };
        Ok((head, nodes))
    }

    /// The head of a log whose last stored line this is, and whose tree has this edge; `None` if they do not fit.
    pub fn resume(last: &Line, tree: Frontier) -> Option<Self> {
        let leaf = last.leaf();
        let size = next(leaf.seq).ok()?;
        (tree.size() == size).then(|| Self { log: leaf.log.clone(), size, hash: last.hash(), boot: leaf.boot, tree })
    }

    /// The head that a snapshot names.
    pub(crate) fn of_snapshot(log: LogId, hash: Digest32, boot: u64, tree: Frontier) -> Self {
        Self { log, size: tree.size(), hash, boot, tree }
    }

    /// Where no log can be read: no leaf, and the log `none`.
    pub fn none() -> Self {
        Self { log: LogId::none(), size: 0, hash: Digest32([0; 32]), boot: 0, tree: Frontier::default() }
    }

    /// What stands before the first line of a log.
    pub(crate) fn before(line: &Line) -> Self {
        let log = line.leaf().log.clone();
        Self { log, size: 0, hash: Digest32([0; 32]), boot: 0, tree: Frontier::default() }
    }

    /// The tree's root: what a checkpoint signs.
    pub fn root(&self) -> Digest32 {
        self.tree.root()
    }

    /// The tree's right edge.
    pub fn tree(&self) -> &Frontier {
        &self.tree
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

fn next(number: u64) -> Result<u64, AppendError> {
    number.checked_add(1).filter(|next| *next <= MAX_INTEGER).ok_or(AppendError::Full)
}
