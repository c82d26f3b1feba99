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
pub(crate) fn prove<L: Level>(
    context: [u8; 32],
    crt: &Crt,
    verifier: &Aux,
) -> Result<Proof, MpcError> {
    let security = security::<L>();
    let n_root = crt.modulus().clone().sqrt();
    let data = crate_fac::Data {
        n: crt.modulus(),
        n_root: &n_root,
    };
    let secret = crate_fac::PrivateData {
        p: crt.p(),
        q: crt.q(),
    };
    let failed = |_| MpcError::Internal {
        step: "proving that N has no small factor",
    };
    let (commitment, nonces) =
        crate_fac::interactive::commit(verifier, data, secret, &security, &mut OsRng)
            .map_err(failed)?;
    let challenge = challenge(&context, verifier, data, &commitment, &security);
    let response =
        crate_fac::interactive::prove(secret, &commitment, &nonces, &challenge).map_err(failed)?;
    Ok(Proof {
        commitment,
        response,
    })
}

/// Verifies that `modulus`, whose size has been checked, has no small factor. `own` are the verifier's parameters.
///
/// # Errors
/// [`Rejected`] for a proof that does not hold.
pub(crate) fn verify<L: Level>(
    context: [u8; 32],
    own: &Aux,
    modulus: &Integer,
    proof: &Proof,
) -> Result<(), Rejected> {
    let Commitment { p, q, a, b, t, .. } = &proof.commitment;
    let in_group = |element: &Integer| {
        element.is_positive() && *element < own.rsa_modulo && coprime(element, &own.rsa_modulo)
    };
    if ![p, q, a, b, t].into_iter().all(in_group) {
        return Err(Rejected);
    }
    let security = security::<L>();
    let n_root = modulus.clone().sqrt();
    let data = crate_fac::Data {
        n: modulus,
        n_root: &n_root,
    };
    let challenge = challenge(&context, own, data, &proof.commitment, &security);
    crate_fac::interactive::verify(
        own,
        data,
        &proof.commitment,
        &security,
        &challenge,
        &proof.response,
    )
    .map_err(|_| Rejected)
}

/// The verifier's parameters as the library takes them, without the shortcuts of their owner.
pub(crate) fn public_aux(numbers: PartyNumbers<'_>) -> Aux {
    Aux {
        s: numbers.s.clone(),
        t: numbers.t.clone(),
        rsa_modulo: numbers.modulus.clone(),
        multiexp: None,
        crt: None,
    }
}

fn security<L: Level>() -> crate_fac::SecurityParams {
    crate_fac::SecurityParams {
        l: L::ELL,
        epsilon: L::EPSILON,
        q: L::q(),
    }
}

fn challenge(
    context: &[u8; 32],
    aux: &Aux,
    data: crate_fac::Data<'_>,
    commitment: &Commitment,
    security: &crate_fac::SecurityParams,
) -> Integer {
    let bound = LabelledHash::new("casemate/aux/fac/challenge/v1")
        .bytes(context)
        .integer(&commitment.sigma)
        .finish();
    crate_fac::non_interactive::challenge::<Sha256>(&bound, aux, data, commitment, security)
}
