//! Proofs of knowledge of a discrete logarithm (Schnorr 1991), made non-interactive by a hash over the whole statement
//! (Fiat and Shamir 1986).

use cggmp21::generic_ec::{Point, Scalar, SecretScalar};
use rand_core::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::aux::hashing::LabelledHash;
use crate::ecdsa::Curve;
use crate::ecdsa::public::{compressed, read_point};

/// What a proof is about and what it is bound to.
#[derive(Clone, Copy)]
pub(super) struct Claim<'a> {
    /// What kind of secret it is; proofs about one kind say nothing about another.
    pub(super) label: &'static str,
    /// Digest of everything that went before, with the execution id in it.
    pub(super) context: &'a [u8; 32],
    /// The prover's position.
    pub(super) prover: u16,
    /// The point whose logarithm the prover knows.
    pub(super) statement: &'a Point<Curve>,
}

/// A proof as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Proof {
    commitment: ByteArray<33>,
    response: ByteArray<32>,
}

impl Claim<'_> {
    /// Proves the claim; `secret` is the statement's logarithm.
    pub(super) fn prove(&self, secret: &SecretScalar<Curve>, rng: &mut (impl RngCore + CryptoRng)) -> Proof {
        let nonce = SecretScalar::<Curve>::random(rng);
        let commitment = compressed(&(Point::generator() * &nonce));
        let masked = SecretScalar::new(&mut (self.challenge(&commitment) * secret));
        // The response is public: the nonce hides the secret in it.
        let response: Scalar<Curve> = &nonce + masked.as_ref();
        let mut bytes = [0; 32];
        bytes.copy_from_slice(response.to_be_bytes().as_bytes());
        Proof { commitment: ByteArray::new(commitment), response: ByteArray::new(bytes) }
    }

    /// Whether `proof` proves the claim.
    pub(super) fn holds(&self, proof: &Proof) -> bool {
        let Some(commitment) = read_point(&proof.commitment) else {
            return false;
        };
        let Ok(response) = Scalar::<Curve>::from_be_bytes(proof.response.as_slice()) else {
            return false;
        };
        let challenge = self.challenge(&proof.commitment);
        Point::generator() * response == self.statement * challenge + commitment
    }

    fn challenge(&self, commitment: &[u8; 33]) -> Scalar<Curve> {
        let hash = LabelledHash::new("casemate/reshare/schnorr/v1")
            .bytes(self.label.as_bytes())
            .bytes(self.context)
            .party(self.prover)
            .bytes(&compressed(self.statement))
            .bytes(commitment)
            .finish();
        // The group order is within 2⁻¹²⁸ of 2²⁵⁶: the reduction is uniform for every purpose.
        Scalar::from_be_bytes_mod_order(hash)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::OsRng;

    use super::*;

    #[test]
    fn a_proof_convinces_for_its_own_claim_only() {
        let secret = SecretScalar::<Curve>::random(&mut OsRng);
        let statement = Point::generator() * &secret;
        let claim = Claim { label: "test", context: &[1; 32], prover: 3, statement: &statement };
        let proof = claim.prove(&secret, &mut OsRng);
        assert!(claim.holds(&proof));
        assert!(!Claim { label: "other", ..claim }.holds(&proof));
        assert!(!Claim { context: &[2; 32], ..claim }.holds(&proof));
        assert!(!Claim { prover: 4, ..claim }.holds(&proof));
        let other = statement + Point::generator();
        assert!(!Claim { statement: &other, ..claim }.holds(&proof));
    }

    #[test]
    fn who_does_not_know_the_secret_convinces_nobody() {
        let secret = SecretScalar::<Curve>::random(&mut OsRng);
        let statement = Point::generator() * &secret;
        let claim = Claim { label: "test", context: &[1; 32], prover: 0, statement: &statement };
        assert!(!claim.holds(&claim.prove(&SecretScalar::random(&mut OsRng), &mut OsRng)));
    }

    #[test]
    fn a_response_beyond_the_group_order_is_refused() {
        let claim = Claim { label: "test", context: &[1; 32], prover: 0, statement: &Point::zero() };
        let mut proof = claim.prove(&SecretScalar::zero(), &mut OsRng);
        assert!(claim.holds(&proof));
        proof.response = ByteArray::new([0xFF; 32]);
        assert!(!claim.holds(&proof));
    }
}
