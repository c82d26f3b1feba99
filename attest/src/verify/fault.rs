//! What is wrong with a log, and where.

use serde::Serialize;

use crate::line::LineError;

/// The first bad line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("line {line} (seq {seq}) is bad: {what}")]
pub struct Fault {
    /// The number of leaves before it, all of them good.
    pub seq: u64,
    /// Its place in the file, from 1.
    pub line: u64,
    /// What kind of fault, for scripts.
    pub kind: FaultKind,
    /// The fault in words.
    pub what: String,
}

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// No line at all.
    Empty,
    /// Longer than any leaf.
    TooLong,
    /// No leaf.
    Malformed,
    /// A leaf in another form than the canonical one.
    NotCanonical,
    /// A version that this release does not know.
    Version,
    /// Fields that do not fit the phase.
    Shape,
    /// A gap, a repeat or disorder in `seq`.
    Sequence,
    /// `prev` is not the hash of the line before.
    Chain,
    /// A line of another log.
    Log,
    /// Starts are not counted as they happened.
    Boot,
    /// An outcome that no intent announced.
    OutcomeWithoutIntent,
    /// An outcome that does not fit its intent.
    OutcomeMismatch,
    /// A second intent of one session.
    SecondIntent,
    /// A second outcome of one intent.
    SecondOutcome,
    /// An approval that had been used before.
    ApprovalUsedTwice,
    /// A release of spend that its intent did not reserve.
    ReleaseWithoutReservation,
    /// A guard changes in a way that what it said before does not allow.
    Guard,
    /// A snapshot of the guards that is not the one which the lines lead to, or rest on.
    Snapshot,
    /// The last line is torn.
    Unterminated,
    /// Not the log whose head is known.
    Head,
    /// A log that replaces another was not begun as the policy's signers said.
    Mandate,
    /// A detail is not the one that its leaf commits to.
    Detail,
    /// A recorded signature does not verify.
    Signature,
}

impl FaultKind {
    pub(super) fn of(error: &LineError) -> Self {
        match error {
            LineError::TooLong(_) => Self::TooLong,
            LineError::Malformed(_) => Self::Malformed,
            LineError::NotCanonical => Self::NotCanonical,
            LineError::Version(_) => Self::Version,
            LineError::Shape(_) => Self::Shape,
        }
    }
}

/// Why a log could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A line is bad.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The reader failed.
    #[error("the audit log could not be read: {0}")]
    Io(#[from] std::io::Error),
}
