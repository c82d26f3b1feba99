//! A finished signature.

use k256::ecdsa::signature::hazmat::PrehashVerifier;
use k256::ecdsa::{RecoveryId, Signature as Verified, VerifyingKey};

use crate::error::MpcError;

/// An ECDSA signature on secp256k1 with low `s` (BIP-62, EIP-2) and its recovery id. It has been verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    r: [u8; 32],
    s: [u8; 32],
    v: u8,
}

impl Signature {
    /// Takes `r` and `s` from the protocol, computes the recovery id, and verifies the result against `public_key` (33
    /// bytes, compressed) and the 32-byte message hash.
    ///
    /// # Errors
    /// [`MpcError::Unattributed`] if it is not a valid low-`s` signature of this hash under this key.
    pub fn verified(r: [u8; 32], s: [u8; 32], public_key: &[u8; 33], digest: &[u8; 32]) -> Result<Self, MpcError> {
        let invalid = || MpcError::unattributed(5, "the resulting signature is not valid");
        let key = VerifyingKey::from_sec1_bytes(public_key).map_err(|_| invalid())?;
        let signature = Verified::from_scalars(r, s).map_err(|_| invalid())?;
        if signature.normalize_s().is_some() {
            return Err(invalid());
        }
        key.verify_prehash(digest, &signature).map_err(|_| invalid())?;
        let recovery = RecoveryId::trial_recovery_from_prehash(&key, digest, &signature).map_err(|_| invalid())?;
        // An x-coordinate above the group order, which needs ids 2 and 3, has probability 2⁻¹²⁸.
        if recovery.is_x_reduced() {
            return Err(invalid());
        }
        Ok(Self { r, s, v: u8::from(recovery.is_y_odd()) })
    }

    /// The scalar `r`, big-endian.
    pub fn r(&self) -> &[u8; 32] {
        &self.r
    }

    /// The scalar `s`, big-endian, at most half the group order.
    pub fn s(&self) -> &[u8; 32] {
        &self.s
    }

    /// The recovery id: 0 or 1, the parity of the nonce point's y-coordinate.
    pub fn v(&self) -> u8 {
        self.v
    }

    /// The DER encoding of `(r, s)`.
    pub fn der(&self) -> Vec<u8> {
        Verified::from_scalars(self.r, self.s)
            .map_or_else(|_| Vec::new(), |signature| signature.to_der().as_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use k256::ecdsa::SigningKey;

    use super::*;

    fn sample() -> (SigningKey, [u8; 33], [u8; 32], [u8; 32], [u8; 32]) {
        let key = SigningKey::from_slice(&[7; 32]).expect("a scalar");
        let digest = [0x5A; 32];
        let (signature, _) = key.sign_prehash_recoverable(&digest).expect("signs");
        let public = key.verifying_key().to_encoded_point(true).as_bytes().try_into().expect("33 bytes");
        (key, public, digest, signature.r().to_bytes().into(), signature.s().to_bytes().into())
    }

    #[test]
    fn the_recovery_id_recovers_the_key() {
        let (key, public, digest, r, s) = sample();
        let signature = Signature::verified(r, s, &public, &digest).expect("valid");
        let recovered = VerifyingKey::recover_from_prehash(
            &digest,
            &Verified::from_der(&signature.der()).expect("DER"),
            RecoveryId::from_byte(signature.v()).expect("0 or 1"),
        );
        assert_eq!(recovered.as_ref().ok(), Some(key.verifying_key()));
    }

    #[test]
    fn an_invalid_signature_is_never_reported() {
        let (_, public, digest, r, s) = sample();
        let mut wrong = digest;
        wrong[31] ^= 1;
        assert!(Signature::verified(r, s, &public, &wrong).is_err(), "another hash");
        assert!(Signature::verified(s, r, &public, &digest).is_err(), "other scalars");
        assert!(Signature::verified([0; 32], s, &public, &digest).is_err(), "zero");
        let other = SigningKey::from_slice(&[8; 32]).expect("a scalar");
        let other = other.verifying_key().to_encoded_point(true).as_bytes().try_into().expect("33 bytes");
        assert!(Signature::verified(r, s, &other, &digest).is_err(), "another key");
    }

    #[test]
    fn a_high_s_is_never_reported() {
        let (_, public, digest, r, s) = sample();
        let scalar =
            Option::<k256::Scalar>::from(k256::elliptic_curve::PrimeField::from_repr(s.into())).expect("a scalar");
        let high: [u8; 32] = (-scalar).to_bytes().into();
        assert!(Signature::verified(r, high, &public, &digest).is_err());
    }
}
