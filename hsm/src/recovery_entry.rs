//! A DEK that is encrypted to a recovery HSM's public key (FORMATS.md, "A share at rest").

use casemate_wire::{IdentityKey, RecoveryKey};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::HsmError;
use crate::secret::Secret32;

/// Bytes of an RSA-3072 ciphertext.
pub(crate) const BLOB_LEN: usize = 384;
/// `CKM_RSA_PKCS_OAEP`.
pub(crate) const CKM_RSA_PKCS_OAEP: u64 = 0x9;
/// What the signature begins with, so that it is no other signature of the identity key.
const DOMAIN: &[u8] = b"casemate/recovery-entry/v1\0";

/// How an entry is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecoveryAlgorithm {
    /// RSA-3072 with OAEP (RFC 8017), hash and mask by SHA-1, no label: all that SoftHSM 2.6 does. OAEP does not rest on
    /// SHA-1 being free of collisions.
    #[serde(rename = "rsa-3072-oaep-sha1")]
    OaepSha1,
}

impl RecoveryAlgorithm {
    /// The name in stored entries.
    pub fn name(self) -> &'static str {
        match self {
            Self::OaepSha1 => "rsa-3072-oaep-sha1",
        }
    }
}

/// A 256-bit key encrypted to a recovery HSM, bound to the context it was encrypted for, and signed by the identity key of
/// the host that did it: anybody can encrypt to a public key, so the signature is what tells a host's entry from a forged one.
///
/// Stored as CBOR. Nothing in it is secret, and all of it is foreign until [`crate::RecoveryHsm::open`] has accepted it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryEntry {
    /// How it is encrypted.
    pub alg: RecoveryAlgorithm,
    /// The PKCS#11 mechanism's number, a hint for whoever restores with other tools.
    pub ckm: u64,
    /// Fingerprint of the recovery key: SHA-256 of its SubjectPublicKeyInfo.
    pub key: ByteArray<32>,
    /// The ciphertext of the key (32 bytes) and of what the entry is bound to (32 bytes).
    pub blob: ByteArray<BLOB_LEN>,
    /// ECDSA P-256 over SHA-256, `r ‖ s`, by the sealing host's identity key.
    pub signature: ByteArray<64>,
}

impl RecoveryEntry {
    /// Whether it is for this recovery key.
    pub fn is_for(&self, key: &RecoveryKey) -> bool {
        *self.key == key.fingerprint().0
    }

    /// Whether this identity signed it for this context.
    pub fn is_signed_by(&self, identity: &IdentityKey, context: &[u8]) -> bool {
        let signed = |bound| identity.verifies(&statement(&bound, &self.blob), &self.signature);
        self.ckm == CKM_RSA_PKCS_OAEP && binding(self.alg, &self.key, context).is_ok_and(signed)
    }
}

/// `SHA-256(u64_be(len(context)) ‖ context ‖ CBOR [alg, ckm, key])`, as for a wrapped key.
pub(crate) fn binding(alg: RecoveryAlgorithm, key: &[u8; 32], context: &[u8]) -> Result<[u8; 32], HsmError> {
    let mut fields = Vec::new();
    ciborium::into_writer(&(alg.name(), CKM_RSA_PKCS_OAEP, serde_bytes::Bytes::new(key)), &mut fields)
        .map_err(|_| HsmError::Encoding("the fields of a recovery entry"))?;
    let mut hash = Sha256::new();
    hash.update((context.len() as u64).to_be_bytes());
    hash.update(context);
    hash.update(&fields);
    Ok(hash.finalize().into())
}

/// What the identity key signs.
pub(crate) fn statement(bound: &[u8; 32], blob: &[u8; BLOB_LEN]) -> Vec<u8> {
    [DOMAIN, bound, blob].concat()
}

/// What is encrypted.
pub(crate) fn plain(key: &Secret32, bound: &[u8; 32]) -> Zeroizing<[u8; 64]> {
    let mut plain = Zeroizing::new([0; 64]);
    for (to, from) in plain.iter_mut().zip(key.expose().iter().chain(bound)) {
        *to = *from;
    }
    plain
}

/// The key in what was decrypted, if it is bound to this.
pub(crate) fn key_in(plain: &[u8], bound: &[u8; 32]) -> Result<Secret32, HsmError> {
    let key = plain.strip_suffix(bound.as_slice()).ok_or(HsmError::Rejected)?;
    Secret32::from_slice(key).ok_or(HsmError::Rejected)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_recorded_name_is_the_bound_name() {
        let recorded = ciborium::Value::serialized(&RecoveryAlgorithm::OaepSha1).unwrap();
        assert_eq!(recorded.as_text(), Some(RecoveryAlgorithm::OaepSha1.name()));
    }

    #[test]
    fn an_entry_is_bound_to_context_and_recipient() {
        let bound = |key, context: &[u8]| binding(RecoveryAlgorithm::OaepSha1, &[key; 32], context).unwrap();
        assert_ne!(bound(1, b"a"), bound(2, b"a"));
        assert_ne!(bound(1, b"a"), bound(1, b"b"));
    }

    #[test]
    fn a_key_comes_out_only_with_what_it_is_bound_to() {
        let key = Secret32::fill(|bytes| bytes.fill(7));
        let plain = plain(&key, &[1; 32]);
        assert_eq!(key_in(plain.as_slice(), &[1; 32]).unwrap().expose(), key.expose());
        assert!(key_in(plain.as_slice(), &[2; 32]).is_err());
        assert!(key_in(&[], &[1; 32]).is_err());
        assert!(key_in(&[&[0], plain.as_slice()].concat(), &[1; 32]).is_err());
    }
}
