//! What is sensitive about a leaf: kept beside the log, bound to it by a salted hash, and withheld without breaking it.
//!
//! A leaf holds `SHA-256(domain ‖ salt ‖ canonical JSON)` of its detail (as SD-JWT, RFC 9901, does for claims). Whoever has
//! the salt and the detail can show that they belong to the leaf; whoever has the leaf alone learns nothing, not even by
//! trying likely amounts and addresses, since the salt has 256 random bits.

use casemate_wire::Digest32;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::line::MAX_LINE;
use crate::rules;

const DOMAIN: &[u8] = b"casemate/audit-detail/v1\0";

/// What a leaf only commits to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detail {
    /// The decoded fields of what was asked to be signed, as an object. Numbers in it are integers of at most 2^53 − 1;
    /// larger ones must be text, since canonical JSON has doubles only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoded: Option<Value>,
    /// Why something was refused, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A detail with its salt: what shows that it belongs to its leaf.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disclosure {
    /// 32 random bytes, never used for another leaf.
    #[serde(with = "hex::serde")]
    pub salt: [u8; 32],
    /// What the leaf commits to.
    pub detail: Detail,
}

/// A disclosure with the place of its leaf: one line of an exported file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisclosedLeaf {
    /// The leaf's place in the log.
    pub seq: u64,
    /// What it commits to.
    pub disclosure: Disclosure,
}

/// Why a detail cannot be committed to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the detail of an audit entry is not valid: {0}")]
pub struct InvalidDetail(String);

impl Disclosure {
    /// What the leaf holds.
    ///
    /// # Errors
    /// The decoded fields are no object, hold numbers that canonical JSON cannot carry exactly, or are too long.
    pub fn commitment(&self) -> Result<Digest32, InvalidDetail> {
        rules::decoded(self.detail.decoded.as_ref()).map_err(InvalidDetail)?;
        let text = serde_json_canonicalizer::to_string(&self.detail).map_err(|e| InvalidDetail(e.to_string()))?;
        if text.len() > MAX_LINE {
            return Err(InvalidDetail(format!("it has {} bytes of JSON; {MAX_LINE} are allowed", text.len())));
        }
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update(self.salt);
        hash.update(text.as_bytes());
        Ok(Digest32(hash.finalize().into()))
    }
}
