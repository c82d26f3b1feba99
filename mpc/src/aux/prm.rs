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
    let nonces: Vec<Arc<Secret>> =
        (0..REPETITIONS).map(|_| Arc::new(Secret(random_below(&phi.0, &mut OsRng)))).collect();
    let (owner, t) = (Arc::clone(crt), claim.numbers.t.clone());
    let commitments =
        spread(compute, nonces.clone(), PIECE, move |nonce| owner.pow(&t, &owner.exponent(&nonce.0))).await?;
    let responses = challenge(claim, &commitments)
        .into_iter()
        .zip(&nonces)
        .map(|(bit, nonce)| if bit { Integer::from(&nonce.0 + &lambda.0) % &phi.0 } else { nonce.0.clone() })
        .collect();
    Ok(Proof { commitments, responses })
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
    if !complete || !proof.commitments.iter().chain(&proof.responses).all(in_range) {
        return Ok(Err(Rejected));
    }
    let bits = challenge(claim, &proof.commitments);
    let (base, n) = (t.clone(), modulus.clone());
    let table = compute.run(move || FixedBase::new(&base, &n, n.significant_bits())).await?;
    let (s, n) = (Arc::new(s.clone()), Arc::new(modulus.clone()));
    let items = bits.into_iter().zip(proof.commitments).zip(proof.responses).collect();
    let held = spread(compute, items, PIECE, move |((bit, commitment), response)| {
        let expected = if bit { commitment * &*s % &*n } else { commitment };
        table.pow(&response) == Some(expected)
    })
    .await?;
    Ok(if held.into_iter().all(|held| held) { Ok(()) } else { Err(Rejected) })
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
    digest.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)).take(REPETITIONS).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::super::fixtures::{compute, execution, own};
    use super::super::protocol::OwnNumbers;
    use super::*;

    fn claim<'a>(execution_id: &'a ExecutionId, own: &'a OwnNumbers) -> Claim<'a> {
        Claim { execution_id, prover: 1, numbers: own.numbers() }
    }

    async fn verdict(claim: Claim<'_>, proof: &Proof) -> Result<(), Rejected> {
        verify(&compute(), claim, proof.clone()).await.unwrap()
    }

    #[tokio::test]
    async fn a_prover_who_knows_lambda_convinces() {
        let (own, id) = (own(0), execution(1));
        let proof = prove(&compute(), claim(&id, &own), &own.crt, &own.lambda).await.unwrap();
        assert_eq!(verdict(claim(&id, &own), &proof).await, Ok(()));
    }

    #[tokio::test]
    async fn a_prover_without_lambda_does_not_convince() {
        let (mut own, id) = (own(0), execution(1));
        // -s is no power of t: t is a square and -1 is not, modulo primes that are 3 mod 4.
        own.s = Integer::from(own.crt.modulus() - &own.s);
        for _ in 0..4 {
            let proof = prove(&compute(), claim(&id, &own), &own.crt, &own.lambda).await.unwrap();
            assert_eq!(verdict(claim(&id, &own), &proof).await, Err(Rejected));
        }
        own.s = random_below(own.crt.modulus(), &mut OsRng);
        let proof = prove(&compute(), claim(&id, &own), &own.crt, &own.lambda).await.unwrap();
        assert_eq!(verdict(claim(&id, &own), &proof).await, Err(Rejected));
    }

    #[tokio::test]
    async fn every_challenge_bit_is_set_about_half_the_time() {
        let (own, id) = (own(0), execution(1));
        let runs = 400u32;
        let mut set = [0; REPETITIONS];
        for run in 1..=runs {
            let bits = challenge(claim(&id, &own), &vec![Integer::from(run); REPETITIONS]);
            assert_eq!(bits.len(), REPETITIONS);
            set.iter_mut().zip(bits).for_each(|(count, bit)| *count += u32::from(bit));
        }
        for (position, count) in set.iter().enumerate() {
            assert!((runs / 4..runs * 3 / 4).contains(count), "bit {position} was set {count} times of {runs}");
        }
    }

    /// A cheat guesses bits: `A = t^z` answers a 0, `A = t^z / s` a 1, without knowing λ. It passes only with all 128
    /// guesses right; here it even has those of the first 127 for nothing.
    #[tokio::test]
    async fn guessing_all_bits_but_one_does_not_convince() {
        let (own, id) = (own(0), execution(1));
        let (n, claim) = (own.crt.modulus(), claim(&id, &own));
        let mut proof = prove(&compute(), claim, &own.crt, &own.lambda).await.unwrap();
        let bit = challenge(claim, &proof.commitments)[REPETITIONS - 1];
        let answer = random_below(n, &mut OsRng);
        let power = own.t.clone().pow_mod(&answer, n).unwrap();
        let guessed = if bit { power } else { power * own.s.clone().invert(n).unwrap() % n };
        proof.commitments[REPETITIONS - 1] = guessed;
        proof.responses[REPETITIONS - 1] = answer;
        assert_eq!(verdict(claim, &proof).await, Err(Rejected));
    }

    #[tokio::test]
    async fn challenge_bits_do_not_depend_on_each_other() {
        let (own, id) = (own(0), execution(1));
        let samples: Vec<Vec<bool>> =
            (1u32..=200).map(|seed| challenge(claim(&id, &own), &vec![Integer::from(seed); REPETITIONS])).collect();
        for i in 0..REPETITIONS {
            for j in 0..i {
                let equal = samples.iter().filter(|bits| bits[i] == bits[j]).count();
                assert!((40..160).contains(&equal), "bits {i} and {j} agree in {equal} of 200");
            }
        }
    }

    #[tokio::test]
    async fn every_part_of_the_statement_moves_the_challenge() {
        let (own, other, id, other_id) = (own(0), super::super::fixtures::own(1), execution(1), execution(2));
        let commitments = vec![Integer::from(5); REPETITIONS];
        let base = claim(&id, &own);
        let of = |claim| challenge(claim, &commitments);
        let numbers = |modulus, s, t| PartyNumbers { modulus, s, t };
        let variants = [
            Claim { execution_id: &other_id, ..base },
            Claim { prover: 2, ..base },
            Claim { numbers: numbers(other.crt.modulus(), &own.s, &own.t), ..base },
            Claim { numbers: numbers(own.crt.modulus(), &other.s, &own.t), ..base },
            Claim { numbers: numbers(own.crt.modulus(), &own.s, &other.t), ..base },
            Claim { numbers: numbers(own.crt.modulus(), &own.t, &own.s), ..base },
        ];
        for variant in variants {
            assert_ne!(of(variant), of(base));
        }
        for position in 0..REPETITIONS {
            let mut changed = commitments.clone();
            changed[position] += 1;
            assert_ne!(challenge(base, &changed), of(base), "commitment {position}");
        }
    }

    #[tokio::test]
    async fn a_proof_serves_neither_another_run_nor_another_prover() {
        let (own, id) = (own(0), execution(1));
        let proof = prove(&compute(), claim(&id, &own), &own.crt, &own.lambda).await.unwrap();
        let elsewhere = Claim { execution_id: &execution(2), ..claim(&id, &own) };
        assert_eq!(verdict(elsewhere, &proof).await, Err(Rejected));
        let somebody = Claim { prover: 0, ..claim(&id, &own) };
        assert_eq!(verdict(somebody, &proof).await, Err(Rejected));
    }

    #[tokio::test]
    async fn a_proof_with_any_element_altered_missing_or_added_is_rejected() {
        let (own, id) = (own(0), execution(1));
        let n = own.crt.modulus().clone();
        let proof = prove(&compute(), claim(&id, &own), &own.crt, &own.lambda).await.unwrap();
        let again = prove(&compute(), claim(&id, &own), &own.crt, &own.lambda).await.unwrap();
        for position in 0..2 * REPETITIONS {
            let pick = |proof: &Proof| proof.commitments.iter().chain(&proof.responses).nth(position).unwrap().clone();
            let (old, foreign) = (pick(&proof), pick(&again));
            for new in [&n - old.clone(), old.clone() + 1u32, old.clone() + &n, -old, Integer::new(), foreign] {
                let mut altered = proof.clone();
                let Proof { commitments, responses } = &mut altered;
                *commitments.iter_mut().chain(responses).nth(position).unwrap() = new;
                assert_eq!(verdict(claim(&id, &own), &altered).await, Err(Rejected), "element {position}");
            }
        }
        for list in 0..2 {
            for longer in [false, true] {
                let mut altered = proof.clone();
                let list = if list == 0 { &mut altered.commitments } else { &mut altered.responses };
                if longer {
                    list.push(Integer::from(1));
                } else {
                    list.pop();
                }
                assert_eq!(verdict(claim(&id, &own), &altered).await, Err(Rejected));
            }
        }
    }
}
