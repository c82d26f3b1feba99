//! Where the audit log's newest place is kept: out of reach of whoever restores the host's disk.

use casemate_attest::{Anchored, Place};
use casemate_hsm::{Anchor as Stored, HsmError};
use casemate_wire::Digest32;
use tokio::runtime::Handle;

use crate::vault::Vault;

/// Keeps the newest place of one audit log.
///
/// Both calls may block and are made from one thread at a time, never from a thread that runs tasks. The highest size
/// wins: after a failed, timed-out or interrupted [`Anchor::put`] either the place before stands or the new one, never
/// neither and never a third. A place that was put survives everything but the loss of what keeps it.
pub trait Anchor: Send {
    /// What stands there. That it contradicts itself or cannot be read is an answer, not an error.
    ///
    /// # Errors
    /// It cannot be asked now.
    fn place(&mut self) -> Result<Anchored, AnchorError>;

    /// Makes this the place that stands, if `expected` stands there now: what the caller put or found last, `None` for
    /// nothing. The very same place again is fine; so a failed call may be repeated.
    ///
    /// # Errors
    /// It cannot be kept now; or something else than `expected` stands there, or this may not follow it.
    fn put(&mut self, expected: Option<&Place>, place: &Place) -> Result<(), AnchorError>;

    /// Makes this the only place that stands, whatever is there: of another log, higher, contradicting. After a failed or
    /// interrupted call what stood before may still stand; it may be repeated.
    ///
    /// # Errors
    /// It cannot be kept now.
    ///
    /// # Security
    /// This forgets what proves a rollback: [`super::Stopped::recover`] calls it for what the policy quorum signed, and
    /// nothing else may.
    fn replace(&mut self, place: &Place) -> Result<(), AnchorError>;
}

/// Why a place is not kept, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// It cannot be kept or asked now; a later call may.
    #[error("{0}")]
    Unkept(String),
    /// Another place stands there than the caller's last one: somebody else puts places, or what keeps them was restored.
    /// No repetition helps.
    #[error("{0}")]
    Conflict(String),
}

impl From<HsmError> for AnchorError {
    fn from(error: HsmError) -> Self {
        match &error {
            HsmError::AnchorConflict { .. }
            | HsmError::AnchorsContradict { .. }
            | HsmError::AnchorWouldShrink { .. }
            | HsmError::AnchorForks { .. }
            | HsmError::AnchorOfAnotherLog { .. } => Self::Conflict(error.to_string()),
            _ => Self::Unkept(error.to_string()),
        }
    }
}

/// The anchor in the HSM.
pub struct HsmAnchor {
    hsm: Vault,
    runtime: Handle,
}

impl HsmAnchor {
    /// The anchor of this HSM. Its calls wait on `runtime`, each as long as the HSM's own time limit at most.
    pub fn new(hsm: Vault, runtime: Handle) -> Self {
        Self { hsm, runtime }
    }
}

impl Anchor for HsmAnchor {
    fn place(&mut self) -> Result<Anchored, AnchorError> {
        match self.runtime.block_on(self.hsm.anchor()) {
            Ok(None) => Ok(Anchored::Nothing),
            Ok(Some(stored)) => Ok(read(&stored)),
            Err(error @ (HsmError::AnchorDamaged { .. } | HsmError::AnchorsContradict { .. })) => {
                Ok(Anchored::Unusable(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn put(&mut self, expected: Option<&Place>, place: &Place) -> Result<(), AnchorError> {
        let (expected, anchor) = (expected.map(to_stored).transpose()?, to_stored(place)?);
        Ok(self.runtime.block_on(self.hsm.put_anchor(expected.as_ref(), &anchor))?)
    }

    fn replace(&mut self, place: &Place) -> Result<(), AnchorError> {
        let anchor = to_stored(place)?;
        Ok(self.runtime.block_on(self.hsm.replace_anchor(&anchor))?)
    }
}

/// A place in the form that the HSM keeps.
///
/// # Errors
/// The log's name does not fit, which no [`casemate_attest::LogId`] causes.
pub fn to_stored(place: &Place) -> Result<Stored, HsmError> {
    Stored::new(place.log.as_str(), place.size, place.root.0)
}

fn read(stored: &Stored) -> Anchored {
    match stored.log().parse() {
        Ok(log) => Anchored::At(Place { log, size: stored.size(), root: Digest32(*stored.root()) }),
        Err(error) => Anchored::Unusable(format!("the HSM's anchor is of no log of this release: {error}")),
    }
}
