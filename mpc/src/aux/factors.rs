//! Π_fac: neither factor of N is small (CGGMP, figure 28), for one verifier, by `paillier-zk`.
//!
//! The challenge is made over the context, the statement and the whole first message, the sign of σ included.

use paillier_zk::no_small_factor as crate_fac;
use rand::rngs::OsRng;
use rug::Integer;
use sha2::Sha256;

use super::arith::{Crt, coprime};
use super::hashing::LabelledHash;
use super::numbers::PartyNumbers;
use crate::error::MpcError;
use crate::levels::Level;

pub(crate) use crate_fac::{Aux, Commitment, Proof as Response};

/// The proof: first message and response.
#[derive(Clone)]
pub(crate) struct Proof {
    pub(crate) commitment: Commitment,
    pub(crate) response: Response,
}

/// Why a proof does not convince.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proof that N has no small factor (Π_fac) does not hold")]
pub(crate) struct Rejected;

/// Proves to the owner of the ring-Pedersen parameters `verifier` ([`public_aux`]) that the prover's modulus has no small factor.
/// `context` binds the proof to its run, prover and verifier. Takes about 0.1 s at the real level.
pub(crate) fn prove<L: Level>(context: [u8; 32], crt: &Crt, verifier: &Aux) -> Result<Proof, MpcError> {
    let security = security::<L>();
    let n_root = crt.modulus().clone().sqrt();
    let data = crate_fac::Data { n: crt.modulus(), n_root: &n_root };
    let secret = crate_fac::PrivateData { p: crt.p(), q: crt.q() };
    let failed = |_| MpcError::Internal { step: "proving that N has no small factor" };
    let (commitment, nonces) =
        crate_fac::interactive::commit(verifier, data, secret, &security, &mut OsRng).map_err(failed)?;
    let challenge = challenge(&context, verifier, data, &commitment, &security);
    let response = crate_fac::interactive::prove(secret, &commitment, &nonces, &challenge).map_err(failed)?;
    Ok(Proof { commitment, response })
}

/// Verifies that `modulus`, whose size has been checked, has no small factor. `own` are the verifier's parameters.
///
/// # Errors
/// [`Rejected`] for a proof that does not hold.
pub(crate) fn verify<L: Level>(context: [u8; 32], own: &Aux, modulus: &Integer, proof: &Proof) -> Result<(), Rejected> {
    let Commitment { p, q, a, b, t, .. } = &proof.commitment;
    let in_group =
        |element: &Integer| element.is_positive() && *element < own.rsa_modulo && coprime(element, &own.rsa_modulo);
    if ![p, q, a, b, t].into_iter().all(in_group) {
        return Err(Rejected);
    }
    let security = security::<L>();
    let n_root = modulus.clone().sqrt();
    let data = crate_fac::Data { n: modulus, n_root: &n_root };
    let challenge = challenge(&context, own, data, &proof.commitment, &security);
    crate_fac::interactive::verify(own, data, &proof.commitment, &security, &challenge, &proof.response)
        .map_err(|_| Rejected)
}

/// The verifier's parameters as the library takes them, without the shortcuts of their owner.
pub(crate) fn public_aux(numbers: PartyNumbers<'_>) -> Aux {
    Aux { s: numbers.s.clone(), t: numbers.t.clone(), rsa_modulo: numbers.modulus.clone(), multiexp: None, crt: None }
}

fn security<L: Level>() -> crate_fac::SecurityParams {
    crate_fac::SecurityParams { l: L::ELL, epsilon: L::EPSILON, q: L::q() }
}

fn challenge(
    context: &[u8; 32],
    aux: &Aux,
    data: crate_fac::Data<'_>,
    commitment: &Commitment,
    security: &crate_fac::SecurityParams,
) -> Integer {
    let bound = LabelledHash::new("casemate/aux/fac/challenge/v1").bytes(context).integer(&commitment.sigma).finish();
    crate_fac::non_interactive::challenge::<Sha256>(&bound, aux, data, commitment, security)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::arith::random_bits;
    use super::super::fixtures::own;
    use super::super::protocol::OwnNumbers;
    use super::*;
    use crate::levels::ReducedLevel;
    use crate::primes::PrimePair;

    const CONTEXT: [u8; 32] = [1; 32];

    fn proved(prover: &OwnNumbers, verifier: &Aux) -> Proof {
        prove::<ReducedLevel>(CONTEXT, &prover.crt, verifier).unwrap()
    }

    fn verdict(verifier: &Aux, modulus: &Integer, proof: &Proof) -> Result<(), Rejected> {
        verify::<ReducedLevel>(CONTEXT, verifier, modulus, proof)
    }

    #[test]
    fn large_factors_convince() {
        let (prover, verifier) = (own(0), public_aux(own(1).numbers()));
        assert_eq!(verdict(&verifier, prover.crt.modulus(), &proved(&prover, &verifier)), Ok(()));
    }

    #[test]
    fn a_small_factor_does_not_convince() {
        let verifier = public_aux(own(1).numbers());
        let prime = |bits: u32| {
            let mut start = random_bits(bits, &mut OsRng);
            start.set_bit(bits - 1, true).next_prime_mut();
            start
        };
        for small in [20, 40, 60] {
            let crt = Crt::new(&PrimePair::unchecked(prime(small), prime(768 - small)));
            let proof = prove::<ReducedLevel>(CONTEXT, &crt, &verifier).unwrap();
            assert_eq!(verdict(&verifier, crt.modulus(), &proof), Err(Rejected), "a factor of {small} bits");
        }
    }

    #[test]
    fn a_proof_serves_no_other_context_modulus_or_verifier() {
        let (prover, verifier) = (own(0), public_aux(own(1).numbers()));
        let (other, modulus) = (public_aux(own(2).numbers()), prover.crt.modulus());
        let proof = proved(&prover, &verifier);
        assert_eq!(verify::<ReducedLevel>([2; 32], &verifier, modulus, &proof), Err(Rejected));
        assert_eq!(verdict(&other, modulus, &proof), Err(Rejected));
        assert_eq!(verdict(&verifier, &other.rsa_modulo, &proof), Err(Rejected));
    }

    #[test]
    fn a_proof_with_any_element_altered_is_rejected() {
        let (prover, verifier) = (own(0), public_aux(own(1).numbers()));
        let (proof, again) = (proved(&prover, &verifier), proved(&prover, &verifier));
        let n = &verifier.rsa_modulo;
        for index in 0..11 {
            let (old, foreign) =
                (element(&mut proof.clone(), index).clone(), element(&mut again.clone(), index).clone());
            let alterations = [
                Integer::from(n - &old),
                Integer::from(&old + 1u32),
                Integer::from(&old + n),
                Integer::from(-&old),
                Integer::new(),
                foreign,
            ];
            for (kind, new) in alterations.into_iter().enumerate() {
                let mut altered = proof.clone();
                *element(&mut altered, index) = new;
                assert_eq!(
                    verdict(&verifier, prover.crt.modulus(), &altered),
                    Err(Rejected),
                    "element {index} by {kind}"
                );
            }
        }
    }

    fn element(proof: &mut Proof, index: usize) -> &mut Integer {
        let Proof { commitment: first, response } = proof;
        let elements: [&mut Integer; 11] = [
            &mut first.p,
            &mut first.q,
            &mut first.a,
            &mut first.b,
            &mut first.t,
            &mut first.sigma,
            &mut response.z1,
            &mut response.z2,
            &mut response.w1,
            &mut response.w2,
            &mut response.v,
        ];
        elements.into_iter().nth(index).unwrap()
    }
}
