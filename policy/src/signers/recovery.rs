//! Whether enough people signed that an appliance may go on in a new audit log: the quorum of the policy's signers.

use std::collections::{BTreeMap, BTreeSet};

use casemate_wire::Digest32;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{Namespace, Principal, SignatureError, TrustAnchors, verify};

/// A signature over a recovery statement, as it was given.
#[derive(Debug, Clone)]
pub struct GivenSignature {
    /// What it is called in messages: its file.
    pub name: String,
    /// The armored SSHSIG.
    pub armored: Vec<u8>,
}

/// A statement that the quorum signed. Only [`TrustAnchors::endorse_recovery`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endorsed {
    statement: Digest32,
    signers: BTreeSet<Principal>,
}

impl Endorsed {
    /// The SHA-256 of the text that was signed.
    pub fn statement(&self) -> Digest32 {
        self.statement
    }

    /// Who signed it: at least as many as the quorum asks for.
    pub fn signers(&self) -> &BTreeSet<Principal> {
        &self.signers
    }
}

/// Too few people signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} of {needed} needed people have signed the recovery statement{}{}", signed.len(), names(signed), reasons(ignored))]
pub struct NotEndorsed {
    /// How many must sign.
    pub needed: u16,
    /// Who did.
    pub signed: BTreeSet<Principal>,
    /// The signatures that do not count, by their names.
    pub ignored: Vec<(String, NotCounted)>,
}

/// Why a signature over a recovery statement does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCounted {
    /// By itself.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// By someone who is none of the people whom the quorum counts.
    #[error("{0} may not sign policy bundles, so is not one of the quorum's people")]
    Outsider(Principal),
}

impl TrustAnchors {
    /// Counts the people who signed a recovery statement, in the namespace `casemate-recovery`. They must be those who may
    /// sign policy bundles, and as many as a bundle needs.
    ///
    /// # Errors
    /// [`NotEndorsed`] names who signed, and why the other signatures do not count.
    ///
    /// # Security
    /// It says nothing about what stands in the statement. Keys must be valid at `now`.
    pub fn endorse_recovery(
        &self,
        statement: &[u8],
        signatures: &[GivenSignature],
        now: Timestamp,
    ) -> Result<Endorsed, NotEndorsed> {
        let people = self.signers().principals(Namespace::Policy);
        let mut signed = BTreeSet::new();
        let mut ignored = Vec::new();
        for GivenSignature { name, armored } in signatures {
            match verify(armored, statement, Namespace::Recovery, self.signers(), now) {
                Ok(key) if people.contains(key.principal()) => drop(signed.insert(key.principal().clone())),
                Ok(key) => ignored.push((name.clone(), NotCounted::Outsider(key.principal().clone()))),
                Err(why) => ignored.push((name.clone(), why.into())),
            }
        }
        let needed = self.quorum().needed();
        if signed.len() < usize::from(needed) {
            return Err(NotEndorsed { needed, signed, ignored });
        }
        Ok(Endorsed { statement: Digest32(Sha256::digest(statement).into()), signers: signed })
    }
}

fn names(signed: &BTreeSet<Principal>) -> String {
    let names: Vec<&str> = signed.iter().map(Principal::as_str).collect();
    if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
}

fn reasons(ignored: &[(String, NotCounted)]) -> String {
    // One file given twice has one reason.
    let distinct: BTreeMap<&str, &NotCounted> = ignored.iter().map(|(name, why)| (name.as_str(), why)).collect();
    distinct.iter().fold(String::new(), |text, (name, why)| format!("{text}; {name}: {why}"))
}
