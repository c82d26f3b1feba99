//! The quorum's leave to begin a log anew: a statement with enough good signatures under it.

use casemate_attest::recovery::{Statement, StatementError};
use casemate_policy::TrustAnchors;
use casemate_policy::signers::{Endorsed, GivenSignature, NotEndorsed};
use casemate_wire::Digest32;
use jiff::Timestamp;

/// A statement that the policy quorum signed. Only [`Mandate::of`] makes one.
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
    /// The statement is none.
    #[error("the recovery statement is refused: {0}")]
    Statement(#[from] StatementError),
    /// Too few people signed it.
    #[error(transparent)]
    NotEndorsed(#[from] NotEndorsed),
}

impl Mandate {
    /// Reads a statement's exact text and checks the signatures under it. Whether it fits what is found is another matter.
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

    /// The SHA-256 of the text.
    pub fn digest(&self) -> Digest32 {
        self.endorsed.statement()
    }

    /// Who signed.
    pub fn endorsed(&self) -> &Endorsed {
        &self.endorsed
    }

    /// All signatures that were given.
    pub fn signatures(&self) -> &[GivenSignature] {
        &self.signatures
    }
}
