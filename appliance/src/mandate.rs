//! The policy quorum's leave: a statement with enough good signatures under it. To begin a log anew, and to restore a backup.

use casemate_attest::{Approval, Text, recovery, restoration};
use casemate_policy::TrustAnchors;
use casemate_policy::signers::{Endorsed, GivenSignature, NotEndorsed, Principal};
use casemate_wire::Digest32;
use jiff::Timestamp;

/// What a quorum may sign.
pub trait Statement: Sized {
    /// Why a text is no such statement, or does not fit what is found.
    type Refused: std::error::Error + 'static;

    /// Reads its exact text.
    ///
    /// # Errors
    /// Says what is wrong with it.
    fn read(text: &[u8]) -> Result<Self, Self::Refused>;
}

impl Statement for recovery::Statement {
    type Refused = recovery::StatementError;

    fn read(text: &[u8]) -> Result<Self, Self::Refused> {
        Self::read(text)
    }
}

impl Statement for restoration::Statement {
    type Refused = restoration::RestorationError;

    fn read(text: &[u8]) -> Result<Self, Self::Refused> {
        Self::read(text)
    }
}

/// A statement that the policy quorum signed. Only [`Mandate::of`] makes one.
#[derive(Debug)]
pub struct Mandate<S> {
    statement: S,
    text: Vec<u8>,
    signatures: Vec<GivenSignature>,
    endorsed: Endorsed,
}

/// Why there is no mandate.
#[derive(Debug, thiserror::Error)]
pub enum MandateError<E: std::error::Error + 'static> {
    /// The statement is none, or is about something else.
    #[error("the signed statement is refused: {0}")]
    Statement(#[source] E),
    /// Too few people signed it.
    #[error(transparent)]
    NotEndorsed(#[from] NotEndorsed),
}

impl<S: Statement> Mandate<S> {
    /// Reads a statement's exact text and checks the signatures under it. Whether it fits what is found is another matter.
    ///
    /// # Errors
    /// [`MandateError`].
    pub fn of(
        text: Vec<u8>,
        signatures: Vec<GivenSignature>,
        anchors: &TrustAnchors,
        now: Timestamp,
    ) -> Result<Self, MandateError<S::Refused>> {
        let statement = <S as Statement>::read(&text).map_err(MandateError::Statement)?;
        let endorsed = anchors.endorse_recovery(&text, &signatures, now)?;
        Ok(Self { statement, text, signatures, endorsed })
    }

    /// What was signed.
    pub fn statement(&self) -> &S {
        &self.statement
    }

    /// Its exact text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The SHA-256 of the text: what the leaf names.
    pub fn digest(&self) -> Digest32 {
        self.endorsed.statement()
    }

    /// All signatures that were given.
    pub fn signatures(&self) -> &[GivenSignature] {
        &self.signatures
    }

    /// Who signed, by name.
    pub fn signers(&self) -> Vec<&str> {
        self.endorsed.signers().iter().map(Principal::as_str).collect()
    }

    /// Who signed, as the leaf names them.
    pub(crate) fn approvals(&self) -> Vec<Approval> {
        let statement = self.digest();
        let approval = |signer: &Principal| Approval {
            name: Text::fitted(signer.as_str()),
            org: Text::fitted(signer.org()),
            statement,
        };
        self.endorsed.signers().iter().map(approval).collect()
    }
}
