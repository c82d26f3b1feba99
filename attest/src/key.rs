//! The key that signs what leaves the log: receipts, and later checkpoints.

use std::fmt;
use std::str::FromStr;

use casemate_wire::{Digest32, IdentityKey};
use p256::pkcs8::{DecodePublicKey, EncodePublicKey};
use serde::{Deserialize, Serialize};

/// A party's audit key: the P-256 public key of the pair `audit` in its HSM. Text form: hex of the DER
/// SubjectPublicKeyInfo; PEM is read as well.
///
/// A type of its own, so that no identity key can stand where an audit key must.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AuditKey(IdentityKey);

/// Why something is not an audit key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the audit key is not valid: {0}; `casemate hsm status` prints the right one on its host")]
pub struct InvalidKey(&'static str);

impl AuditKey {
    /// Takes a DER SubjectPublicKeyInfo of a P-256 key, in its one canonical (uncompressed) form.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn from_spki(spki: &[u8]) -> Result<Self, InvalidKey> {
        let key = IdentityKey::from_spki(spki);
        key.map(Self).map_err(|_| InvalidKey("it is not the canonical SubjectPublicKeyInfo of a P-256 key"))
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what people compare.
    pub fn fingerprint(&self) -> Digest32 {
        self.0.fingerprint()
    }

    /// Whether the same key is also this identity, which it must not be: each key has one purpose.
    pub fn is(&self, identity: &IdentityKey) -> bool {
        self.0 == *identity
    }

    /// Verifies an ECDSA P-256 / SHA-256 signature (`r ‖ s`) over `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verifies(message, signature)
    }
}

impl FromStr for AuditKey {
    type Err = InvalidKey;
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        if text.trim_start().starts_with("-----BEGIN") {
            let bad = |_| InvalidKey("it is not a PEM public key of P-256");
            let key = p256::PublicKey::from_public_key_pem(text.trim()).map_err(bad)?;
            let spki = key.to_public_key_der().map_err(bad)?;
            return Self::from_spki(spki.as_bytes());
        }
        let spki = hex::decode(text.trim()).map_err(|_| InvalidKey("it is neither PEM nor hex"))?;
        Self::from_spki(&spki)
    }
}
impl fmt::Display for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditKey({})", self.fingerprint())
    }
}
impl TryFrom<String> for AuditKey {
    type Error = InvalidKey;
    fn try_from(text: String) -> Result<Self, InvalidKey> {
        text.parse()
    }
}
impl From<AuditKey> for String {
    fn from(key: AuditKey) -> Self {
        key.to_string()
    }
}
