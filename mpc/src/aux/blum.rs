//! Π_mod: N is the product of two primes that are 3 mod 4, and coprime to φ(N) (CGGMP, figure 16), non-interactive.
//!
//! The prover here works modulo each prime apart; challenge and verifier are those of `paillier-zk`, the verifier in
//! pieces. Of the four or more fourth roots that would do, a proof must hold one from the lower half of `1..N`, so that
//! its negative is not a second form of the same proof.

use std::sync::Arc;

use paillier_zk::paillier_blum_modulus as crate_mod;
use rand::rngs::OsRng;
use rug::Integer;
use sha2::Sha256;

use super::arith::{Crt, CrtExponent, random_below};
use super::spread::spread;
use crate::compute::Compute;
use crate::error::MpcError;

pub(crate) use crate_mod::ProofPoint;

/// Challenges in a proof.
pub(crate) const REPETITIONS: usize = 128;

/// Challenges that are proved or verified in one piece of work.
const PIECE: usize = 8;

/// The proof; `points` is [`REPETITIONS`] long.
#[derive(Clone)]
pub(crate) struct Proof {
    /// A number with Jacobi symbol -1 modulo N.
    pub(crate) w: Integer,
    pub(crate) points: Vec<ProofPoint>,
}

/// Why a proof does not convince.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proof that N is a product of two suitable primes (Π_mod) does not hold")]
pub(crate) struct Rejected;

/// Proves that the owner's modulus is well-formed. `context` binds the proof to its run and prover.
pub(crate) async fn prove(compute: &Compute, context: [u8; 32], crt: &Arc<Crt>) -> Result<Proof, MpcError> {
    let n = crt.modulus();
    let w = loop {
        let candidate = random_below(n, &mut OsRng);
        if candidate.jacobi(n) == -1 {
            break candidate;
        }
    };
    let inverse =
        n.clone().invert(&crt.phi().0).map_err(|_| MpcError::Internal { step: "inverting N modulo φ(N)" })?;
    let roots = Arc::new(Roots {
        nth: crt.exponent(&inverse),
        fourth: crt.exponent_by(fourth_root_exponent),
        crt: Arc::clone(crt),
        w: w.clone(),
    });
    let points = spread(compute, challenges(&context, n, &w), PIECE, move |y| roots.answer(&y)).await?;
    let points = points
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .ok_or(MpcError::Internal { step: "taking fourth roots modulo N" })?;
    Ok(Proof { w, points })
}

/// Verifies that `modulus`, whose size has been checked, is well-formed.
///
/// # Errors
/// An inner [`Rejected`] for a proof that does not hold; an outer error if the computation could not be done.
pub(crate) async fn verify(
    compute: &Compute,
    context: [u8; 32],
    modulus: &Integer,
    proof: Proof,
) -> Result<Result<(), Rejected>, MpcError> {
    let half = Integer::from(modulus >> 1u32);
    let in_range = |number: &Integer, top: &Integer| number.is_positive() && number <= top;
    let shaped = proof.points.len() == REPETITIONS
        && in_range(&proof.w, modulus)
        && proof
            .points
            .iter()
            .all(|point| in_range(&point.x, &half) && in_range(&point.z, modulus) && point.z != *modulus);
    if !shaped {
        return Ok(Err(Rejected));
    }
    let data = Arc::new(crate_mod::Data { n: modulus.clone() });
    let commitment = Arc::new(crate_mod::Commitment { w: proof.w.clone() });
    let items: Vec<_> = challenges(&context, modulus, &proof.w).into_iter().zip(proof.points).collect();
    let pieces = items.chunks(PIECE).map(<[_]>::to_vec).collect();
    let held = spread(compute, pieces, 1, move |piece| verify_piece(&data, &commitment, piece)).await?;
    Ok(held.into_iter().collect())
}

fn verify_piece(
    data: &crate_mod::Data,
    commitment: &crate_mod::Commitment,
    piece: Vec<(Integer, ProofPoint)>,
) -> Result<(), Rejected> {
    let (ys, points): (Vec<_>, Vec<_>) = piece.into_iter().unzip();
    let challenge = crate_mod::Challenge::<PIECE> { ys: ys.try_into().map_err(|_| Rejected)? };
    let proof = crate_mod::Proof::<PIECE> { points: points.try_into().map_err(|_| Rejected)? };
    crate_mod::interactive::verify(data, commitment, &challenge, &proof).map_err(|_| Rejected)
}

fn challenges(context: &[u8; 32], modulus: &Integer, w: &Integer) -> Vec<Integer> {
    let data = crate_mod::Data { n: modulus.clone() };
    let commitment = crate_mod::Commitment { w: w.clone() };
    crate_mod::non_interactive::challenge::<REPETITIONS, Sha256>(context, &data, &commitment).ys.into()
}

/// Two principal square roots in one exponent: `((p + 1) / 4)²`, reduced.
fn fourth_root_exponent(prime: &Integer) -> Integer {
    Integer::from(prime + 1u32).div_exact(&Integer::from(4)).square() % Integer::from(prime - 1u32)
}

struct Roots {
    crt: Arc<Crt>,
    w: Integer,
    nth: CrtExponent,
    fourth: CrtExponent,
}

impl Roots {
    /// The answer to a challenge: its N-th root z, and a fourth root x of the one of ±challenge, ±w·challenge that is a
    /// square.
    fn answer(&self, challenge: &Integer) -> Option<ProofPoint> {
        let modulus = self.crt.modulus();
        let twisted = Integer::from(challenge * &self.w) % modulus;
        let (negate, twist, square) =
            [(false, challenge.clone()), (true, twisted)].into_iter().find_map(|(twist, candidate)| {
                match (candidate.jacobi(self.crt.p()), candidate.jacobi(self.crt.q())) {
                    (1, 1) => Some((false, twist, candidate)),
                    (-1, -1) => Some((true, twist, modulus - candidate)),
                    _ => None,
                }
            })?;
        let root = self.crt.pow(&square, &self.fourth);
        let negative = Integer::from(modulus - &root);
        Some(ProofPoint { x: root.min(negative), a: negate, b: twist, z: self.crt.pow(challenge, &self.nth) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::super::arith::random_bits;
    use super::super::fixtures::{compute, factors, own};
    use super::*;
    use crate::primes::PrimePair;

    const CONTEXT: [u8; 32] = [1; 32];

    async fn verdict(context: [u8; 32], modulus: &Integer, proof: &Proof) -> Result<(), Rejected> {
        verify(&compute(), context, modulus, proof.clone()).await.unwrap()
    }

    /// Takes a proof's element, and the same one of another proof.
    type Alteration<'a> = dyn Fn(&Integer, Integer) -> Integer + 'a;

    /// A prime of `bits` bits with this residue modulo 4.
    fn prime(bits: u32, residue: u32) -> Integer {
        loop {
            let mut candidate = random_bits(bits, &mut OsRng);
            candidate.set_bit(bits - 1, true).set_bit(bits - 2, true);
            candidate.next_prime_mut();
            if candidate.mod_u(4) == residue && candidate.significant_bits() == bits {
                return candidate;
            }
        }
    }

    /// The best proof that somebody with these factors can give: right answers where there are any.
    fn best_effort(p: &Integer, q: &Integer) -> (Integer, Proof) {
        let crt = Arc::new(Crt::new(&PrimePair::unchecked(p.clone(), q.clone())));
        let n = crt.modulus().clone();
        let w = loop {
            let candidate = random_below(&n, &mut OsRng);
            if candidate.jacobi(&n) == -1 {
                break candidate;
            }
        };
        let nth = n.clone().invert(&crt.phi().0).unwrap_or_else(|_| Integer::from(1));
        let roots =
            Roots { nth: crt.exponent(&nth), fourth: crt.exponent_by(fourth_root_exponent_or_one), w: w.clone(), crt };
        let filler = ProofPoint { x: Integer::from(1), a: false, b: false, z: Integer::from(1) };
        let points =
            challenges(&CONTEXT, &n, &w).iter().map(|y| roots.answer(y).unwrap_or_else(|| filler.clone())).collect();
        (n, Proof { w, points })
    }

    fn fourth_root_exponent_or_one(prime: &Integer) -> Integer {
        if prime.mod_u(4) == 3 { fourth_root_exponent(prime) } else { Integer::from(1) }
    }

    #[tokio::test]
    async fn a_blum_modulus_convinces() {
        let own = own(0);
        let proof = prove(&compute(), CONTEXT, &own.crt).await.unwrap();
        assert_eq!(verdict(CONTEXT, own.crt.modulus(), &proof).await, Ok(()));
        let (p, q) = factors(0);
        let (n, proof) = best_effort(&p, &q);
        assert_eq!(verdict(CONTEXT, &n, &proof).await, Ok(()), "the cheat's prover is no weaker than it need be");
    }

    #[tokio::test]
    async fn a_modulus_with_a_prime_that_is_1_mod_4_does_not_convince() {
        for residues in [(1, 3), (3, 1), (1, 1)] {
            let (n, proof) = best_effort(&prime(384, residues.0), &prime(384, residues.1));
            assert_eq!(verdict(CONTEXT, &n, &proof).await, Err(Rejected), "primes {residues:?} mod 4");
        }
    }

    #[tokio::test]
    async fn a_prime_modulus_does_not_convince() {
        let n = prime(768, 3);
        let points = vec![ProofPoint { x: Integer::from(1), a: false, b: false, z: Integer::from(1) }; REPETITIONS];
        let w = (2..1000).map(Integer::from).find(|w: &Integer| w.jacobi(&n) == -1).unwrap();
        assert_eq!(verdict(CONTEXT, &n, &Proof { w, points }).await, Err(Rejected));
    }

    #[tokio::test]
    async fn a_modulus_that_shares_a_factor_with_its_phi_does_not_convince() {
        // q = 2pk + 1, so that p divides both N and φ(N).
        let p = prime(256, 3);
        let q = (1..100_000)
            .map(|k: u32| Integer::from(&p * 2u32) * k + 1u32)
            .find(|q| q.mod_u(4) == 3 && q.is_probably_prime(25) != rug::integer::IsPrime::No)
            .unwrap();
        let (n, proof) = best_effort(&p, &q);
        assert_eq!(verdict(CONTEXT, &n, &proof).await, Err(Rejected));
    }

    #[tokio::test]
    async fn a_proof_serves_no_other_context_and_no_other_modulus() {
        let (own, other) = (own(0), super::super::fixtures::own(1));
        let proof = prove(&compute(), CONTEXT, &own.crt).await.unwrap();
        assert_eq!(verdict([2; 32], own.crt.modulus(), &proof).await, Err(Rejected));
        assert_eq!(verdict(CONTEXT, other.crt.modulus(), &proof).await, Err(Rejected));
    }

    #[tokio::test]
    async fn a_proof_with_any_element_altered_missing_or_added_is_rejected() {
        let own = own(0);
        let n = own.crt.modulus().clone();
        let proof = prove(&compute(), CONTEXT, &own.crt).await.unwrap();
        let again = prove(&compute(), CONTEXT, &own.crt).await.unwrap();
        let alterations: [&Alteration; 6] = [
            &|old, _| Integer::from(&n - old),
            &|old, _| Integer::from(old + 1u32),
            &|old, _| Integer::from(old + &n),
            &|old, _| Integer::from(-old),
            &|_, _| Integer::new(),
            &|_, foreign| foreign,
        ];
        let reject = async |altered: Proof, what: String| {
            assert_eq!(verdict(CONTEXT, &n, &altered).await, Err(Rejected), "{what}");
        };
        for alter in alterations {
            let w = alter(&proof.w, again.w.clone());
            reject(Proof { w, ..proof.clone() }, "w".into()).await;
        }
        for (index, (old, foreign)) in proof.points.iter().zip(&again.points).enumerate() {
            // All alterations of some points, and one of each of the others.
            for (kind, alter) in
                alterations.iter().enumerate().filter(|(kind, _)| index % 16 == 0 || index % 6 == *kind)
            {
                let mut altered = proof.clone();
                altered.points[index].x = alter(&old.x, foreign.x.clone());
                reject(altered, format!("x {index} by {kind}")).await;
                let mut altered = proof.clone();
                altered.points[index].z = alter(&old.z, foreign.z.clone());
                reject(altered, format!("z {index} by {kind}")).await;
            }
            for (a, b) in [(!old.a, old.b), (old.a, !old.b), (!old.a, !old.b)] {
                let mut altered = proof.clone();
                (altered.points[index].a, altered.points[index].b) = (a, b);
                reject(altered, format!("signs {index}")).await;
            }
        }
        let mut short = proof.clone();
        short.points.pop();
        reject(short, "a point too few".into()).await;
        let mut long = proof.clone();
        long.points.push(proof.points[0].clone());
        reject(long, "a point too many".into()).await;
    }
}
