//! Checkpoints: what a log commits to at one size, signed by the HSM's `audit` key.
//!
//! The form is C2SP's tlog-checkpoint in a signed note (c2sp.org/tlog-checkpoint, c2sp.org/signed-note), with the note's
//! ECDSA signature type: P-256 over the SHA-256 of the note's text, in DER; the key id is the first four bytes of the
//! SHA-256 of the key's SubjectPublicKeyInfo. The key's name is the log's name.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use casemate_wire::Digest32;
use serde::{Deserialize, Serialize};

use crate::head::Head;
use crate::key::AuditKey;
use crate::rules::MAX_INTEGER;
use crate::text::LogId;

/// The longest note that is read, in bytes: 16 signatures of 5 kB fit, which the note's form asks of every reader.
pub const MAX_NOTE: usize = 128 * 1024;
/// The most signatures of one note that are looked at; others than the log's own are ignored.
const MAX_SIGNATURES: usize = 64;

/// Where a log stands: its size, and the root that commits to all of its leaves.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The log.
    pub log: LogId,
    /// How many leaves it has.
    pub size: u64,
    /// The tree's root at that size.
    pub root: Digest32,
}

/// Why a note is not a checkpoint of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not a signed note with a checkpoint in it.
    #[error("it is not a checkpoint in a signed note: {0}")]
    Malformed(&'static str),
    /// The key that is known has not signed it.
    #[error("it has no signature by the known audit key; another key signed it, or the log's name differs")]
    Unsigned,
    /// A signature that says it is the known key's does not verify.
    #[error("its signature does not verify: the text was changed after it was signed")]
    BadSignature,
}

impl Checkpoint {
    /// What a log's head commits to.
    pub fn of(head: &Head) -> Self {
        Self { log: head.log().clone(), size: head.size(), root: head.root() }
    }

    /// The note's text: what the audit key signs, ECDSA P-256 over its SHA-256.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.log, self.size, STANDARD.encode(self.root.0))
    }

    /// Puts the signature (`r ‖ s` over [`Checkpoint::text`]) to it.
    ///
    /// # Errors
    /// The signature is not this key's over this text.
    pub fn signed(self, key: &AuditKey, signature: &[u8; 64]) -> Result<SignedCheckpoint, CheckpointError> {
        let text = self.text();
        if !key.verifies(text.as_bytes(), signature) {
            return Err(CheckpointError::BadSignature);
        }
        let der = p256::ecdsa::Signature::from_slice(signature).map_err(|_| CheckpointError::BadSignature)?.to_der();
        let mut bytes = key_id(key).to_vec();
        bytes.extend_from_slice(der.as_bytes());
        let note = format!("{text}\n\u{2014} {} {}\n", self.log, STANDARD.encode(bytes));
        Ok(SignedCheckpoint { checkpoint: self, note })
    }

    /// Reads a note's text, which must have no extension lines.
    fn parse(text: &str) -> Result<Self, CheckpointError> {
        let bad = CheckpointError::Malformed;
        let lines = text.strip_suffix('\n').ok_or(bad("its text does not end with a line"))?;
        let mut lines = lines.split('\n');
        let mut next = || lines.next().filter(|line| !line.is_empty());
        let (Some(log), Some(size), Some(root)) = (next(), next(), next()) else {
            return Err(bad("it lacks its name, size or root"));
        };
        let log = log.parse().map_err(|_| bad("its name is none of a log"))?;
        let number: u64 = size.parse().map_err(|_| bad("its size is no number"))?;
        if number.to_string() != size || number > MAX_INTEGER {
            return Err(bad("its size is not written as a size is"));
        }
        let bytes = STANDARD.decode(root).map_err(|_| bad("its root is not base64"))?;
        let root = bytes.try_into().map(Digest32).map_err(|_| bad("its root has another length than SHA-256"))?;
        if lines.next().is_some() {
            return Err(bad("it has extension lines, which no appliance writes"));
        }
        Ok(Self { log, size: number, root })
    }
}

/// A checkpoint with its log's signature. It comes from [`Checkpoint::signed`] or [`SignedCheckpoint::verify`].
#[derive(Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: String,
}

impl SignedCheckpoint {
    /// Reads a note, and checks that `key` has signed it under the name of the log that it speaks of. Other signatures are
    /// ignored, as the note's form asks for.
    ///
    /// # Errors
    /// Says why it is not a checkpoint of the key's owner.
    pub fn verify(note: &str, key: &AuditKey) -> Result<Self, CheckpointError> {
        let bad = CheckpointError::Malformed;
        if note.len() > MAX_NOTE {
            return Err(bad("it is too long"));
        }
        if note.chars().any(|c| c < ' ' && c != '\n') {
            return Err(bad("it holds control characters"));
        }
        let end = note.rfind("\n\n").ok_or(bad("it has no blank line before its signatures"))?;
        let (text, signatures) = note.split_at(end + 1);
        let checkpoint = Checkpoint::parse(text)?;
        let signatures = signatures.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n'));
        let signatures = signatures.ok_or(bad("its signatures do not end with a line"))?;
        let mut good = false;
        for (count, line) in signatures.split('\n').enumerate() {
            if count >= MAX_SIGNATURES {
                return Err(bad("it has too many signatures"));
            }
            let line = line.strip_prefix("\u{2014} ").ok_or(bad("a signature line is none"))?;
            let (name, signature) = line.split_once(' ').ok_or(bad("a signature line is none"))?;
            if name.is_empty() || name.contains(|c: char| c == '+' || c.is_whitespace()) {
                return Err(bad("the name of a key is none"));
            }
            let bytes = STANDARD.decode(signature).map_err(|_| bad("a signature is not base64"))?;
            let (id, der) = bytes.split_at_checked(4).ok_or(bad("a signature has no key id"))?;
            if name != checkpoint.log.as_str() || id != key_id(key) {
                continue;
            }
            let signature = p256::ecdsa::Signature::from_der(der).map_err(|_| CheckpointError::BadSignature)?;
            if !key.verifies(text.as_bytes(), &signature.to_bytes().into()) {
                return Err(CheckpointError::BadSignature);
            }
            good = true;
        }
        if good { Ok(Self { checkpoint, note: note.to_owned() }) } else { Err(CheckpointError::Unsigned) }
    }

    /// What is signed.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The whole note, to be kept and handed over as it is.
    pub fn note(&self) -> &str {
        &self.note
    }
}

impl fmt::Debug for SignedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.checkpoint, f)
    }
}

/// The id of an ECDSA key in a signed note.
fn key_id(key: &AuditKey) -> [u8; 4] {
    let [a, b, c, d, ..] = key.fingerprint().0;
    [a, b, c, d]
}
