//! The key that signs attestation tokens.

use std::fmt;
use std::str::FromStr;

use casemate_wire::{Digest32, IdentityKey};
use serde::{Deserialize, Serialize};

use crate::key::AuditKey;

/// A party's attest key: the P-256 public key of the pair `attest` in its HSM. Text form: hex of the DER
/// SubjectPublicKeyInfo.
///
/// A type of its own, so that no identity or audit key can stand where an attest key must. A TPM's attestation key has
/// the same form.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AttestKey(IdentityKey);

/// Why something is not an attest key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the attest key is not valid: {0}; `casemate hsm status` prints the right one on its host")]
pub struct InvalidAttestKey(&'static str);

impl AttestKey {
    /// Takes a DER SubjectPublicKeyInfo of a P-256 key, in its one canonical (uncompressed) form.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn from_spki(spki: &[u8]) -> Result<Self, InvalidAttestKey> {
        let key = IdentityKey::from_spki(spki);
        key.map(Self).map_err(|_| InvalidAttestKey("it is not the canonical SubjectPublicKeyInfo of a P-256 key"))
    }

    /// The DER SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        self.0.spki()
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what people compare, and the `kid` of a token.
    pub fn fingerprint(&self) -> Digest32 {
        self.0.fingerprint()
    }

    /// Whether the same key is also this identity, which it must not be: each key has one purpose.
    pub fn is_identity(&self, identity: &IdentityKey) -> bool {
        self.0 == *identity
    }

    /// Whether the same key is also this audit key, which it must not be either.
    pub fn is_audit(&self, audit: &AuditKey) -> bool {
        audit.is(&self.0)
    }

    /// Verifies an ECDSA P-256 / SHA-256 signature (`r ‖ s`) over `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verifies(message, signature)
    }
}

impl FromStr for AttestKey {
    type Err = InvalidAttestKey;
    fn from_str(text: &str) -> Result<Self, InvalidAttestKey> {
        let spki = hex::decode(text.trim()).map_err(|_| InvalidAttestKey("it is not hex"))?;
        Self::from_spki(&spki)
    }
}
impl fmt::Display for AttestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Debug for AttestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AttestKey({})", self.fingerprint())
    }
}
impl TryFrom<String> for AttestKey {
    type Error = InvalidAttestKey;
    fn try_from(text: String) -> Result<Self, InvalidAttestKey> {
        text.parse()
    }
}
impl From<AttestKey> for String {
    fn from(key: AttestKey) -> Self {
        key.to_string()
    }
}
