//! Proofs that anyone can check with a checkpoint alone: that a leaf stands in a log, and that one log continues another.
//!
//! Their JSON forms are `{size, seq, leaf, path: [hex]}` and `{from, to, from_root, to_root, path: [hex]}`. Verification
//! follows RFC 9162, sections 2.1.3.2 and 2.1.4.2, whose trees are those of RFC 6962.

use casemate_wire::Digest32;
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::text::LogId;
use crate::tree::{self, Nodes, node_hash};

/// A path has at most as many steps as a size has bits, and one more.
const MAX_PATH: usize = 65;

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Its numbers cannot be.
    #[error("the proof cannot be: {0}")]
    Numbers(&'static str),
    /// Its path has too many or too few steps.
    #[error("the proof's path does not fit its sizes")]
    Length,
    /// It leads to another root.
    #[error("the proof leads to another root than the checkpoint's: the log does not hold this, or was rewritten")]
    OtherRoot,
    /// It starts from another root.
    #[error("the proof starts from another root than the earlier checkpoint's: the log was rewritten before it")]
    OtherOldRoot,
    /// It is about other sizes than the checkpoints it is held against.
    #[error("the proof is about {proof} leaves, the checkpoint about {checkpoint}; make the proof for that size")]
    OtherSize {
        /// The proof's.
        proof: u64,
        /// The checkpoint's.
        checkpoint: u64,
    },
    /// The two checkpoints are of two logs.
    #[error("the checkpoints are of two logs, {0} and {1}")]
    OtherLog(LogId, LogId),
}

fn same_size(proof: u64, checkpoint: &Checkpoint) -> Result<(), ProofError> {
    if proof == checkpoint.size { Ok(()) } else { Err(ProofError::OtherSize { proof, checkpoint: checkpoint.size }) }
}

/// Why a proof cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProveError<E> {
    /// There is no such leaf or size in that log.
    #[error("there is nothing to prove: {0}")]
    Range(&'static str),
    /// A node of the tree cannot be read.
    #[error(transparent)]
    Nodes(E),
}

/// That a leaf stands at `seq` in the log of `size` leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InclusionProof {
    /// The log's size.
    pub size: u64,
    /// The leaf's place.
    pub seq: u64,
    /// The leaf hash.
    pub leaf: Digest32,
    /// The audit path, from the leaf up.
    pub path: Vec<Digest32>,
}

impl InclusionProof {
    /// Makes the proof.
    ///
    /// # Errors
    /// There is no such leaf, or a node cannot be read.
    pub fn make<N: Nodes>(seq: u64, size: u64, nodes: &N) -> Result<Self, ProveError<N::Error>> {
        if seq >= size {
            return Err(ProveError::Range("the leaf's place is not below the log's size"));
        }
        let leaf = nodes.node(tree::NodeId { level: 0, index: seq }).map_err(ProveError::Nodes)?;
        let path = tree::inclusion_path(seq, size, nodes).map_err(ProveError::Nodes)?;
        Ok(Self { size, seq, leaf, path })
    }

    /// Checks that the log of this checkpoint holds the leaf at its place. Whether the leaf is the one that is meant, the
    /// caller sees by its hash.
    ///
    /// # Errors
    /// Says why it proves nothing.
    pub fn holds_in(&self, checkpoint: &Checkpoint) -> Result<(), ProofError> {
        same_size(self.size, checkpoint)?;
        self.verify(&checkpoint.root)
    }

    /// Checks it against a root alone.
    ///
    /// # Security
    /// A root does not fix the size: one path can lead from other places in trees of other sizes to the same root. The
    /// caller must know that the root is that of `size` leaves; [`InclusionProof::holds_in`] sees to it.
    ///
    /// # Errors
    /// Says why it proves nothing.
    pub fn verify(&self, root: &Digest32) -> Result<(), ProofError> {
        if self.seq >= self.size {
            return Err(ProofError::Numbers("the leaf's place is not below the log's size"));
        }
        if self.path.len() > MAX_PATH {
            return Err(ProofError::Length);
        }
        let (mut place, mut last) = (self.seq, self.size - 1);
        let mut hash = self.leaf;
        for step in &self.path {
            if last == 0 {
                return Err(ProofError::Length);
            }
            if place & 1 == 1 || place == last {
                hash = node_hash(step, &hash);
                while place & 1 == 0 && place != 0 {
                    place >>= 1;
                    last >>= 1;
                }
            } else {
                hash = node_hash(&hash, step);
            }
            place >>= 1;
            last >>= 1;
        }
        match (last, hash == *root) {
            (0, true) => Ok(()),
            (0, false) => Err(ProofError::OtherRoot),
            _ => Err(ProofError::Length),
        }
    }
}

/// That the log of `to` leaves begins with the log of `from` leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyProof {
    /// The earlier size.
    pub from: u64,
    /// The later size.
    pub to: u64,
    /// The root at the earlier size.
    pub from_root: Digest32,
    /// The root at the later size.
    pub to_root: Digest32,
    /// The path.
    pub path: Vec<Digest32>,
}

impl ConsistencyProof {
    /// Makes the proof.
    ///
    /// # Errors
    /// The sizes cannot be, or a node cannot be read.
    pub fn make<N: Nodes>(from: u64, to: u64, nodes: &N) -> Result<Self, ProveError<N::Error>> {
        if from > to {
            return Err(ProveError::Range("the earlier size is above the later one"));
        }
        if from == 0 {
            return Err(ProveError::Range("every log continues an empty one"));
        }
        let made = || {
            Ok(Self {
                from,
                to,
                from_root: tree::root_at(from, nodes)?,
                to_root: tree::root_at(to, nodes)?,
                path: tree::consistency_path(from, to, nodes)?,
            })
        };
        made().map_err(ProveError::Nodes)
    }

    /// Checks that the log of `later` begins with that of `earlier`.
    ///
    /// # Errors
    /// Says why it proves nothing.
    pub fn joins(&self, earlier: &Checkpoint, later: &Checkpoint) -> Result<(), ProofError> {
        if earlier.log != later.log {
            return Err(ProofError::OtherLog(earlier.log.clone(), later.log.clone()));
        }
        same_size(self.from, earlier)?;
        same_size(self.to, later)?;
        self.verify(&earlier.root, &later.root)
    }

    /// Checks it against two roots alone. An empty log proves nothing, so `from` is at least 1 (RFC 9162, section 2.1.4).
    ///
    /// # Security
    /// The caller must know that the roots are those of `from` and `to` leaves; [`ConsistencyProof::joins`] sees to it.
    ///
    /// # Errors
    /// Says why it proves nothing.
    pub fn verify(&self, from_root: &Digest32, to_root: &Digest32) -> Result<(), ProofError> {
        if self.from_root != *from_root {
            return Err(ProofError::OtherOldRoot);
        }
        if self.to_root != *to_root {
            return Err(ProofError::OtherRoot);
        }
        let (from, to) = (self.from, self.to);
        if from > to {
            return Err(ProofError::Numbers("the earlier size is above the later one"));
        }
        if self.path.len() > MAX_PATH {
            return Err(ProofError::Length);
        }
        if from == 0 {
            return Err(ProofError::Numbers("every log continues an empty one, so there is nothing to prove"));
        }
        if from == to {
            return match (self.path.is_empty(), from_root == to_root) {
                (true, true) => Ok(()),
                (true, false) => Err(ProofError::OtherRoot),
                (false, _) => Err(ProofError::Length),
            };
        }
        self.walk(from_root, to_root)
    }

    /// For `0 < from < to`.
    fn walk(&self, from_root: &Digest32, to_root: &Digest32) -> Result<(), ProofError> {
        let mut path = self.path.iter();
        let (mut place, mut last) = (self.from - 1, self.to - 1);
        // A whole subtree is known to the verifier, and not part of the path.
        let first = if self.from.is_power_of_two() { *from_root } else { *path.next().ok_or(ProofError::Length)? };
        while place & 1 == 1 {
            place >>= 1;
            last >>= 1;
        }
        let (mut old, mut new) = (first, first);
        for step in path {
            if last == 0 {
                return Err(ProofError::Length);
            }
            if place & 1 == 1 || place == last {
                old = node_hash(step, &old);
                new = node_hash(step, &new);
                while place & 1 == 0 && place != 0 {
                    place >>= 1;
                    last >>= 1;
                }
            } else {
                new = node_hash(&new, step);
            }
            place >>= 1;
            last >>= 1;
        }
        if last != 0 {
            return Err(ProofError::Length);
        }
        if old != *from_root {
            return Err(ProofError::OtherOldRoot);
        }
        if new == *to_root { Ok(()) } else { Err(ProofError::OtherRoot) }
    }
}
