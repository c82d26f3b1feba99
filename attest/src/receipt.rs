//! The refusal receipt: what whoever was refused can keep, and show to others who trust neither them nor the host.
//!
//! It says the same as the refusal's leaf, and names it. A receipt is made of a leaf and of nothing else, so the two
//! cannot disagree.
//!
//! # What is signed
//! The receipt's exact text, one line of canonical JSON (RFC 8785) that holds its own domain, by the HSM's `audit` key:
//! ECDSA P-256 over SHA-256. The other text that this key signs is a checkpoint, a signed note of several lines that
//! begins with a log's name. A receipt begins with `{`, which no log's name may hold, and has no line break, which every
//! note has, so neither can be taken for the other.

use casemate_wire::{Digest32, PartyId, PublicKey, SessionId};
use serde::{Deserialize, Serialize};

use crate::detail::Disclosure;
use crate::key::AuditKey;
use crate::leaf::{Effect, Leaf, Phase};
use crate::line::{Line, MAX_LINE};
use crate::rules::MAX_INTEGER;
use crate::text::{At, LogId, Text};

/// The one value of `domain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Domain {
    #[serde(rename = "casemate/refusal/v1")]
    Refusal,
}

/// What a refusal receipt says. It comes from [`Receipt::of`] a leaf, or from [`Receipt::verify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Receipt {
    domain: Domain,
    /// Who refused.
    pub party: PartyId,
    /// Its audit log.
    pub log: LogId,
    /// The place of the refusal in it.
    pub seq: u64,
    /// The refusal's leaf hash.
    pub leaf: Digest32,
    /// When, by that host's wall clock.
    pub at: At,
    /// The request, as the `x-request-id` of its answer.
    pub request: Text,
    /// The session that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The stable code of the answer.
    pub code: Text,
    /// The policies that decided, sorted; none where no permit matched, or no bundle was there.
    pub policies: Vec<Text>,
    /// The digest of the bundle that they stand in; absent when none was loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Digest32>,
    /// The key that was to act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PublicKey>,
    /// What was to be signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_hash: Option<Digest32>,
    /// The leaf's commitment to the refusal in words and to what was decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Digest32>,
}

/// A receipt as it is handed over: its exact text, and the signature over it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedReceipt {
    /// The text, to be hashed as it is.
    pub receipt: String,
    /// `r ‖ s`, 64 bytes in hex.
    #[serde(with = "hex::serde")]
    pub signature: [u8; 64],
    /// What the leaf withholds: the refusal in words, and what was decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disclosure: Option<Disclosure>,
}

/// Why a receipt proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The signature is not this key's over this text.
    #[error(
        "the signature does not verify: the text was changed, or the key is not the audit key of the appliance that signed it"
    )]
    BadSignature,
    /// The key signed it, but it is something else.
    #[error("it is not a refusal receipt: {0}")]
    NotAReceipt(String),
    /// Not in the one form that RFC 8785 gives it.
    #[error("it is not in canonical form, so no appliance wrote it")]
    NotCanonical,
    /// The reason that came with it is not the one that was signed.
    #[error("the reason beside the receipt is not what the receipt commits to: it was changed")]
    OtherDetail,
    /// The log does not say what the receipt says.
    #[error("the log does not bear it out: {0}")]
    OtherLeaf(&'static str),
}

impl Receipt {
    /// The receipt of a refusal that policy decided; `None` for every other line.
    ///
    /// # Security
    /// Sign it only once the line is durable: a receipt must never name a leaf that the log does not hold.
    pub fn of(party: &PartyId, line: &Line) -> Option<Self> {
        let leaf: &Leaf = line.leaf();
        let decision = leaf.decision.as_ref().filter(|decision| decision.effect == Effect::Deny)?;
        let outcome = leaf.outcome.as_ref().filter(|_| leaf.phase == Phase::Refusal)?;
        Some(Self {
            domain: Domain::Refusal,
            party: party.clone(),
            log: leaf.log.clone(),
            seq: leaf.seq,
            leaf: line.hash(),
            at: leaf.at,
            request: leaf.req.clone()?,
            session: leaf.session.clone(),
            code: outcome.code.clone()?,
            policies: decision.policies.clone(),
            bundle: decision.bundle,
            key: leaf.key,
            message_hash: leaf.tx.as_ref().map(|tx| tx.digest),
            detail: leaf.detail,
        })
    }

    /// The text to sign, and to hand over as it is.
    ///
    /// # Errors
    /// [`ReceiptError::NotAReceipt`] if it cannot be written, which no receipt of a leaf causes.
    pub fn to_text(&self) -> Result<String, ReceiptError> {
        serde_json_canonicalizer::to_string(self).map_err(|e| not_a_receipt(&e))
    }

    /// What a receipt says, once `key` is found to have signed exactly this text.
    ///
    /// # Errors
    /// Says what keeps it from being a receipt of the key's owner.
    ///
    /// # Security
    /// It proves what the appliance said, not that its log still holds it: compare with the log by
    /// [`Receipt::check_against`].
    pub fn verify(text: &str, signature: &[u8; 64], key: &AuditKey) -> Result<Self, ReceiptError> {
        if text.len() > MAX_LINE {
            return Err(ReceiptError::NotAReceipt(format!("it has more than {MAX_LINE} bytes")));
        }
        if !key.verifies(text.as_bytes(), signature) {
            return Err(ReceiptError::BadSignature);
        }
        let receipt: Self = serde_json::from_str(text).map_err(|e| not_a_receipt(&e))?;
        if receipt.seq > MAX_INTEGER {
            return Err(ReceiptError::NotAReceipt("its seq is above 2^53 - 1".into()));
        }
        if receipt.to_text()? == text { Ok(receipt) } else { Err(ReceiptError::NotCanonical) }
    }

    /// Whether this line, of a log that has been verified, is the one that the receipt names, and says the same.
    ///
    /// # Errors
    /// [`ReceiptError::OtherLeaf`] with the first difference.
    pub fn check_against(&self, line: &Line) -> Result<(), ReceiptError> {
        let leaf = line.leaf();
        if leaf.log != self.log {
            return Err(ReceiptError::OtherLeaf("it is another log than the receipt names"));
        }
        if leaf.seq != self.seq || line.hash() != self.leaf {
            return Err(ReceiptError::OtherLeaf("another leaf stands at that place: the log was rewritten"));
        }
        match Self::of(&self.party, line) {
            Some(own) if own == *self => Ok(()),
            Some(_) => Err(ReceiptError::OtherLeaf("the leaf says something else than the receipt")),
            None => Err(ReceiptError::OtherLeaf("the leaf is no refusal by policy")),
        }
    }
}

impl SignedReceipt {
    /// As [`Receipt::verify`]; a disclosure must be what the receipt commits to.
    ///
    /// # Errors
    /// As [`Receipt::verify`], and [`ReceiptError::OtherDetail`].
    pub fn verify(&self, key: &AuditKey) -> Result<Receipt, ReceiptError> {
        let receipt = Receipt::verify(&self.receipt, &self.signature, key)?;
        match &self.disclosure {
            None => Ok(receipt),
            Some(disclosure) if disclosure.commitment().ok().is_some_and(|found| receipt.detail == Some(found)) => {
                Ok(receipt)
            }
            Some(_) => Err(ReceiptError::OtherDetail),
        }
    }
}

/// Bounded and printable, since the parser quotes what it read.
fn not_a_receipt(error: &serde_json::Error) -> ReceiptError {
    ReceiptError::NotAReceipt(Text::fitted(&error.to_string()).to_string())
}
