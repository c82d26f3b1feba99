//! Π_prm: the prover knows λ with `s = t^λ mod N` (CGGMP, eprint 2021/060, figure 17), non-interactive.
//!
//! The prover commits to 128 random powers of t. One SHA-256 over the execution id, the prover, the statement and all
//! commitments gives the 128 challenge bits, one for each; the response to a bit is the commitment's exponent, plus λ
//! where the bit is set.

use std::sync::Arc;

use rand::rngs::OsRng;
use rug::Integer;

use super::arith::{Crt, FixedBase, Secret, random_below};
use super::hashing::LabelledHash;
use super::numbers::PartyNumbers;
use super::spread::spread;
use crate::compute::Compute;
use crate::error::{ExecutionId, MpcError};

/// Commitments in a proof, and bits in its challenge: a prover without λ passes with probability 2^-128.
pub(crate) const REPETITIONS: usize = 128;

/// Exponentiations in one piece of work.
const PIECE: usize = 16;

/// What is proved, by whom and where.
#[derive(Clone, Copy)]
pub(crate) struct Claim<'a> {
    pub(crate) execution_id: &'a ExecutionId,
    pub(crate) prover: u16,
    pub(crate) numbers: PartyNumbers<'a>,
}

/// The proof; both lists are [`REPETITIONS`] long.
#[derive(Clone)]
pub(crate) struct Proof {
    pub(crate) commitments: Vec<Integer>,
    pub(crate) responses: Vec<Integer>,
}

/// Why a proof does not convince.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proof that s is a power of t (Π_prm) does not hold")]
pub(crate) struct Rejected;

/// Proves `claim` for the owner of the factors of N, who knows λ.
pub(crate) async fn prove(
    compute: &Compute,
    claim: Claim<'_>,
    crt: &Arc<Crt>,
    lambda: &Secret,
) -> Result<Proof, MpcError> {
    let phi = crt.phi();
    let nonces: Vec<Arc<Secret>> = (0..REPETITIONS)
        .map(|_| Arc::new(Secret(random_below(&phi.0, &mut OsRng))))
        .collect();
    let (owner, t) = (Arc::clone(crt), claim.numbers.t.clone());
    let commitments = spread(compute, nonces.clone(), PIECE, move |nonce| {
        owner.pow(&t, &owner.exponent(&nonce.0))
    })
    .await?;
    let responses = challenge(claim, &commitments)
        .into_iter()
        .zip(&nonces)
        .map(|(bit, nonce)| {
            if bit {
                Integer::from(&nonce.0 + &lambda.0) % &phi.0
            } else {
                nonce.0.clone()
            }
        })
        .collect();
    Ok(Proof {
        commitments,
        responses,
    })
}

/// Verifies `proof` for `claim`, whose numbers have been checked in themselves.
///
/// # Errors
/// An inner [`Rejected`] for a proof that does not hold; an outer error if the computation could not be done.
pub(crate) async fn verify(
    compute: &Compute,
    claim: Claim<'_>,
    proof: Proof,
) -> Result<Result<(), Rejected>, MpcError> {
    let PartyNumbers { modulus, s, t } = claim.numbers;
    let complete = proof.commitments.len() == REPETITIONS && proof.responses.len() == REPETITIONS;
    let in_range = |number: &Integer| !number.is_negative() && number < modulus;
    if !complete
        || !proof
            .commitments
            .iter()
            .chain(&proof.responses)
            .all(in_range)
    {
        return Ok(Err(Rejected));
    }
    let bits = challenge(claim, &proof.commitments);
    let (base, n) = (t.clone(), modulus.clone());
    let table = compute
        .run(move || FixedBase::new(&base, &n, n.significant_bits()))
        .await?;
    let (s, n) = (Arc::new(s.clone()), Arc::new(modulus.clone()));
    let items = bits
        .into_iter()
        .zip(proof.commitments)
        .zip(proof.responses)
        .collect();
    let held = spread(
        compute,
        items,
        PIECE,
        move |((bit, commitment), response)| {
            let expected = if bit {
                commitment * &*s % &*n
            } else {
                commitment
            };
            table.pow(&response) == Some(expected)
        },
    )
    .await?;
    Ok(if held.into_iter().all(|held| held) {
        Ok(())
    } else {
        Err(Rejected)
    })
}

/// The challenge: all 128 bits come from one hash over everything that the prover has fixed.
fn challenge(claim: Claim<'_>, commitments: &[Integer]) -> Vec<bool> {
    let digest = commitments
        .iter()
        .fold(
            LabelledHash::new("casemate/aux/prm/challenge/v1")
                .bytes(claim.execution_id.as_bytes())
                .party(claim.prover)
                .numbers(claim.numbers),
            LabelledHash::integer,
        )
        .finish();
    digest
        .iter()
        .flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1))
        .take(REPETITIONS)
        .collect()
}
