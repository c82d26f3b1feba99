//! Peers as witnesses: whether a peer's log continues what this party has seen of it.
//!
//! Before the first protocol message of a session every party gives a fresh signed checkpoint, with a proof that its log
//! begins with what each peer had seen of it, and with what its hello states. All hellos are part of one transcript, so the
//! parties of a session hold each log to one history up to its hello.

use casemate_wire::Digest32;

use crate::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use crate::key::AuditKey;
use crate::proof::{ConsistencyProof, ProofError};
use crate::text::LogId;

/// What a peer says of its log in a session.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// Where the log stood by the peer's hello.
    pub stated: &'a Checkpoint,
    /// The signed checkpoint that it gave after all hellos.
    pub note: &'a str,
}

/// Why a peer's log is not believed. Whatever the cause, the session must end before a share is opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// The checkpoint is none, or not by the peer's pinned audit key.
    #[error("its checkpoint cannot be used: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint is of another log than the hello.
    #[error("its hello speaks of the log {stated}, its signed checkpoint of {found}")]
    Restated {
        /// The hello's.
        stated: LogId,
        /// The checkpoint's.
        found: LogId,
    },
    /// The peer has begun another log, as a recovery or a wiped store does.
    #[error("it has begun another log: {found} in the place of {known}")]
    AnotherLog {
        /// The log that was seen before.
        known: LogId,
        /// The one that it shows now.
        found: LogId,
    },
    /// The log has fewer leaves than were seen before.
    #[error("its log has {found} leaves, but {known} were seen of it before: it was rolled back")]
    Shrunken {
        /// How many were seen.
        known: u64,
        /// How many it shows now.
        found: u64,
    },
    /// The checkpoint is older than the hello of the same session.
    #[error(
        "its signed checkpoint has {found} leaves, its hello speaks of {stated}: an old checkpoint was shown again"
    )]
    Stale {
        /// How many the hello speaks of.
        stated: u64,
        /// How many are signed.
        found: u64,
    },
    /// There is no proof from what was seen.
    #[error(
        "it gave no proof that its log still begins with the {from} leaves that were seen of it: it has another history, or hides it"
    )]
    Unproven {
        /// The size that was seen.
        from: u64,
    },
    /// The proof does not hold: the log was rewritten, or forked.
    #[error("its log does not begin with the {from} leaves that were seen of it ({why}): it was forked or rewritten")]
    Forked {
        /// The size that was seen.
        from: u64,
        /// What is wrong with the proof.
        why: ProofError,
    },
}

impl Claim<'_> {
    /// Holds a peer to what its hello stated and to all that was `known` of it. `path` gives the path of its consistency
    /// proof from a size to the size that is signed. Without anything known it is trusted, this first time.
    ///
    /// # Errors
    /// Says why the peer's log is not believed.
    pub fn judge(
        &self,
        key: &AuditKey,
        known: &[Checkpoint],
        path: impl Fn(u64) -> Option<Vec<Digest32>>,
    ) -> Result<SignedCheckpoint, Doubt> {
        let signed = SignedCheckpoint::verify(self.note, key)?;
        let found = signed.checkpoint();
        for Checkpoint { log, size, .. } in known {
            if *log != found.log {
                return Err(Doubt::AnotherLog { known: log.clone(), found: found.log.clone() });
            }
            if *size > found.size {
                return Err(Doubt::Shrunken { known: *size, found: found.size });
            }
        }
        let Checkpoint { log, size, .. } = self.stated;
        if *log != found.log {
            return Err(Doubt::Restated { stated: log.clone(), found: found.log.clone() });
        }
        if *size > found.size {
            return Err(Doubt::Stale { stated: *size, found: found.size });
        }
        for earlier in known.iter().chain([self.stated]) {
            continues(earlier, found, &path)?;
        }
        Ok(signed)
    }
}

/// Whether the log of `later` begins with that of `earlier`, which is not larger.
fn continues(
    earlier: &Checkpoint,
    later: &Checkpoint,
    path: &impl Fn(u64) -> Option<Vec<Digest32>>,
) -> Result<(), Doubt> {
    let from = earlier.size;
    let path = if from == later.size { Some(Vec::new()) } else { path(from) };
    let path = path.ok_or(Doubt::Unproven { from })?;
    let proof = ConsistencyProof { from, to: later.size, from_root: earlier.root, to_root: later.root, path };
    proof.joins(earlier, later).map_err(|why| Doubt::Forked { from, why })
}
