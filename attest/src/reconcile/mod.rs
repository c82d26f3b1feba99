//! Comparing what all parties' logs say: that each signature has its t allowed decisions, that all tell the same story of
//! each session, and that each log is the one that the others have seen.
//!
//! Pure: it takes logs that an [`Auditor`](crate::verify::Auditor) has found good, one [`Account`] each, and gives
//! [`Findings`].
//!
//! | file | what it holds |
//! |---|---|
//! | `account.rs` | what one log says |
//! | `finding.rs` | what can be amiss |
//! | `thresholds.rs` | how many decisions a key's signature needs, and who says so |
//! | `stories.rs` | one session as all tell it |
//! | `signatures.rs` | signatures in the logs and outside |
//! | `witnesses.rs` | checkpoints that parties recorded of each other |

mod account;
mod finding;
mod signatures;
mod stories;
mod thresholds;
mod witnesses;

use std::collections::BTreeMap;

use casemate_wire::{Digest32, EcdsaSignature, PartyId, PublicKey, SessionId, Threshold};
use serde::{Deserialize, Serialize};

pub use account::{Account, Recorder};
pub use finding::{Finding, FindingKind, Weight};

use crate::text::{LogId, Text};

/// A signature that was released, as whoever holds it gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Released {
    /// The key that it verifies under: a threshold key, or a child of one.
    pub public_key: PublicKey,
    /// The 32 bytes that were signed.
    pub message_hash: Digest32,
    /// The signature.
    pub signature: EcdsaSignature,
}

/// What is compared.
#[derive(Debug, Default)]
pub struct Given {
    /// All logs of all parties.
    pub accounts: Vec<Account>,
    /// All signatures that are known outside the logs; `None` if only the logs are compared with each other.
    pub released: Option<Vec<Released>>,
    /// Thresholds that are known from elsewhere: from key certificates, or from whoever asks.
    pub thresholds: BTreeMap<PublicKey, Threshold>,
    /// What it means that a log was compared with no checkpoint.
    pub unwitnessed: Unwitnessed,
}

/// What a log weighs that was compared with no signed checkpoint: its end may have been cut off, and all of it written anew,
/// except as far as others saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unwitnessed {
    /// Something is amiss.
    #[default]
    Amiss,
    /// Whoever asks knows that there is none.
    Noted,
}

/// What the comparison found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Findings {
    /// Each signature with the decisions behind it.
    pub signatures: Vec<Justified>,
    /// Everything that is amiss, and what was not looked at.
    pub findings: Vec<Finding>,
    /// How many sessions were compared.
    pub sessions: u64,
    /// How many checkpoints that parties recorded of each other were found on the logs that they speak of.
    pub checkpoints_found: u64,
}

impl Findings {
    /// Whether anything is amiss.
    pub fn verdict(&self) -> Verdict {
        let amiss = self.findings.iter().any(|finding| finding.weight == Weight::Amiss);
        if amiss { Verdict::Amiss } else { Verdict::Reconciled }
    }
}

/// The comparison in one word.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was given fits together.
    Reconciled,
    /// Something does not.
    Amiss,
}

/// A signature and the decisions that allowed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Justified {
    /// The session that made it.
    pub session: SessionId,
    /// The threshold key.
    pub key: PublicKey,
    /// The key that it verifies under: the same, or a child.
    pub signer: PublicKey,
    /// What was signed.
    pub message_hash: Digest32,
    /// The signature.
    pub signature: EcdsaSignature,
    /// How many allowed decisions it needs; `None` where nobody says.
    pub needed: Option<u16>,
    /// One for each party that allowed it.
    pub decisions: Vec<Allowed>,
}

/// One party's decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Allowed {
    /// Who.
    pub party: PartyId,
    /// In which log.
    pub log: LogId,
    /// At which place.
    pub seq: u64,
    /// By which policies.
    pub policies: Vec<Text>,
    /// Of which bundle.
    pub bundle: Option<Digest32>,
}

/// Compares all that is given.
pub fn reconcile(given: &Given) -> Findings {
    let mut findings = Findings::default();
    let thresholds = thresholds::collect(given, &mut findings);
    let sessions = stories::sessions(&given.accounts);
    findings.sessions = sessions.len() as u64;
    for session in sessions.values() {
        stories::compare(session, given, &mut findings);
    }
    signatures::justify(sessions.values(), &thresholds, &mut findings);
    signatures::compare(given.released.as_deref(), &mut findings);
    witnesses::compare(&given.accounts, given.unwitnessed, &mut findings);
    findings
}
