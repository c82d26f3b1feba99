//! An ECDSA signature over secp256k1, as it is reported to people and services.

use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::ids::{Digest32, PublicKey};

/// `r`, `s` (low, BIP-62) and the recovery id `v` (0 or 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EcdsaSignature {
    /// The x coordinate of the nonce point, 32 bytes big-endian.
    #[serde(with = "hex::serde")]
    pub r: [u8; 32],
    /// The scalar, 32 bytes big-endian, in the lower half of the group order.
    #[serde(with = "hex::serde")]
    pub s: [u8; 32],
    /// Parity of the nonce point's y coordinate.
    pub v: u8,
}

impl EcdsaSignature {
    /// The DER encoding (`SEQUENCE { INTEGER r, INTEGER s }`); `None` where `r` or `s` is no scalar.
    pub fn to_der(&self) -> Option<Vec<u8>> {
        Some(self.parse()?.to_der().as_bytes().to_vec())
    }

    /// Whether this is a low-s signature of `public_key` over the 32-byte `digest`, with the right recovery id.
    pub fn verifies(&self, public_key: &PublicKey, digest: &Digest32) -> bool {
        let Some(signature) = self.parse() else {
            return false;
        };
        let Some(recovery_id) = (self.v <= 1).then(|| RecoveryId::from_byte(self.v)).flatten() else {
            return false;
        };
        // Recovery yields the one key for which the signature holds, so equality is verification.
        signature.normalize_s().is_none()
            && VerifyingKey::recover_from_prehash(&digest.0, &signature, recovery_id)
                .is_ok_and(|key| key.to_encoded_point(true).as_bytes() == public_key.as_bytes())
    }

    fn parse(&self) -> Option<Signature> {
        Signature::from_scalars(self.r, self.s).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn signed() -> (PublicKey, Digest32, EcdsaSignature) {
        let key = k256::ecdsa::SigningKey::from_slice(&[9; 32]).unwrap();
        let digest = Digest32([3; 32]);
        let (signature, recovery_id) = key.sign_prehash_recoverable(&digest.0).unwrap();
        let public = PublicKey::from_bytes(key.verifying_key().to_encoded_point(true).as_bytes()).unwrap();
        let (r, s) = signature.split_bytes();
        (public, digest, EcdsaSignature { r: r.into(), s: s.into(), v: recovery_id.to_byte() })
    }

    #[test]
    fn a_signature_verifies_only_for_its_key_digest_and_recovery_id() {
        let (public, digest, signature) = signed();
        assert!(signature.verifies(&public, &digest));
        assert!(!signature.verifies(&public, &Digest32([4; 32])));
        assert!(!EcdsaSignature { v: signature.v ^ 1, ..signature }.verifies(&public, &digest));
        assert!(!EcdsaSignature { v: signature.v + 2, ..signature }.verifies(&public, &digest));
        assert!(!EcdsaSignature { r: [0; 32], ..signature }.verifies(&public, &digest));
    }

    #[test]
    fn a_high_s_twin_is_refused() {
        let (public, digest, signature) = signed();
        let s = -*k256::ecdsa::Signature::from_scalars(signature.r, signature.s).unwrap().s();
        let twin = EcdsaSignature { s: s.to_bytes().into(), v: signature.v ^ 1, ..signature };
        assert!(!twin.verifies(&public, &digest));
    }
}
