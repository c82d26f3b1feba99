//! The quorum's leave to restore a backup: a statement with enough good signatures under it.

use casemate_attest::restoration::{RestorationError, Scene, Statement};
use casemate_attest::{Approval, At, Text};
use casemate_policy::TrustAnchors;
use casemate_policy::signers::{Endorsed, GivenSignature, NotEndorsed};
use casemate_wire::Digest32;
use jiff::Timestamp;

/// A restore statement that the policy quorum signed. Only [`Mandate::of`] makes one.
#[derive(Debug)]
pub struct Mandate {
    statement: Statement,
    text: Vec<u8>,
    signatures: Vec<GivenSignature>,
    endorsed: Endorsed,
}

/// Why there is no mandate.
#[derive(Debug, thiserror::Error)]
pub enum MandateError {
    /// The statement is none, or is about something else.
    #[error("the restore statement is refused: {0}")]
    Statement(#[from] RestorationError),
    /// Too few people signed it.
    #[error(transparent)]
    NotEndorsed(#[from] NotEndorsed),
}

impl Mandate {
    /// Reads a statement's exact text and checks the signatures under it. Whether it fits is another matter.
    ///
    /// # Errors
    /// [`MandateError`].
    pub fn of(
        text: Vec<u8>,
        signatures: Vec<GivenSignature>,
        anchors: &TrustAnchors,
        now: Timestamp,
    ) -> Result<Self, MandateError> {
        let statement = Statement::read(&text)?;
        let endorsed = anchors.endorse_recovery(&text, &signatures, now)?;
        Ok(Self { statement, text, signatures, endorsed })
    }

    /// What was signed.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Its exact text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The SHA-256 of the text: what the restore's leaf names.
    pub fn digest(&self) -> Digest32 {
        self.endorsed.statement()
    }

    /// All signatures that were given.
    pub fn signatures(&self) -> &[GivenSignature] {
        &self.signatures
    }

    /// Who signed, by name.
    pub fn signers(&self) -> Vec<&str> {
        self.endorsed.signers().iter().map(casemate_policy::signers::Principal::as_str).collect()
    }

    pub(super) fn check(&self, scene: &Scene, now: At) -> Result<(), MandateError> {
        Ok(self.statement.check(scene, now)?)
    }

    /// Who signed, as the leaf names them.
    pub(super) fn approvals(&self) -> Vec<Approval> {
        let statement = self.digest();
        let approval = |signer: &casemate_policy::signers::Principal| Approval {
            name: Text::fitted(signer.as_str()),
            org: Text::fitted(signer.org()),
            statement,
        };
        self.endorsed.signers().iter().map(approval).collect()
    }
}
