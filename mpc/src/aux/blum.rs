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
pub(crate) async fn prove(
    compute: &Compute,
    context: [u8; 32],
    crt: &Arc<Crt>,
) -> Result<Proof, MpcError> {
    let n = crt.modulus();
    let w = loop {
        let candidate = random_below(n, &mut OsRng);
        if candidate.jacobi(n) == -1 {
            break candidate;
        }
    };
    let inverse = n
        .clone()
        .invert(&crt.phi().0)
        .map_err(|_| MpcError::Internal {
            step: "inverting N modulo φ(N)",
        })?;
    let roots = Arc::new(Roots {
        nth: crt.exponent(&inverse),
        fourth: crt.exponent_by(fourth_root_exponent),
        crt: Arc::clone(crt),
        w: w.clone(),
    });
    let points = spread(compute, challenges(&context, n, &w), PIECE, move |y| {
        roots.answer(&y)
    })
    .await?;
    let points = points
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .ok_or(MpcError::Internal {
            step: "taking fourth roots modulo N",
        })?;
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
        && proof.w.jacobi(modulus) == -1
        && proof.points.iter().all(|point| {
            in_range(&point.x, &half) && in_range(&point.z, modulus) && point.z != *modulus
        });
    if !shaped {
        return Ok(Err(Rejected));
    }
    let data = Arc::new(crate_mod::Data { n: modulus.clone() });
    let commitment = Arc::new(crate_mod::Commitment { w: proof.w.clone() });
    let items: Vec<_> = challenges(&context, modulus, &proof.w)
        .into_iter()
        .zip(proof.points)
        .collect();
    let pieces = items.chunks(PIECE).map(<[_]>::to_vec).collect();
    let held = spread(compute, pieces, 1, move |piece| {
        verify_piece(&data, &commitment, piece)
    })
    .await?;
    Ok(held.into_iter().collect())
}

fn verify_piece(
    data: &crate_mod::Data,
    commitment: &crate_mod::Commitment,
    piece: Vec<(Integer, ProofPoint)>,
) -> Result<(), Rejected> {
    let (ys, points): (Vec<_>, Vec<_>) = piece.into_iter().unzip();
    let challenge = crate_mod::Challenge::<PIECE> {
        ys: ys.try_into().map_err(|_| Rejected)?,
    };
    let proof = crate_mod::Proof::<PIECE> {
        points: points.try_into().map_err(|_| Rejected)?,
    };
    crate_mod::interactive::verify(data, commitment, &challenge, &proof).map_err(|_| Rejected)
}

fn challenges(context: &[u8; 32], modulus: &Integer, w: &Integer) -> Vec<Integer> {
    let data = crate_mod::Data { n: modulus.clone() };
    let commitment = crate_mod::Commitment { w: w.clone() };
    crate_mod::non_interactive::challenge::<REPETITIONS, Sha256>(context, &data, &commitment)
        .ys
        .into()
}

/// Two principal square roots in one exponent: `((p + 1) / 4)²`, reduced.
fn fourth_root_exponent(prime: &Integer) -> Integer {
    Integer::from(prime + 1u32)
        .div_exact(&Integer::from(4))
        .square()
        % Integer::from(prime - 1u32)
}

struct Roots {
    crt: Arc<Crt>,
    w: Integer,
    nth: CrtExponent,
    fourth: CrtExponent,
}

impl Roots {
    /// The answer to challenge `y`: its N-th root z, and a fourth root x of the one of ±y, ±wy that is a square.
    fn answer(&self, y: &Integer) -> Option<ProofPoint> {
        let n = self.crt.modulus();
        let z = self.crt.pow(y, &self.nth);
        let twisted = Integer::from(y * &self.w) % n;
        let (a, b, square) =
            [(false, y.clone()), (true, twisted)]
                .into_iter()
                .find_map(|(b, candidate)| {
                    let symbol = candidate.jacobi(self.crt.p());
                    (symbol != 0 && symbol == candidate.jacobi(self.crt.q())).then(|| {
                        if symbol == 1 {
                            (false, b, candidate)
                        } else {
                            (true, b, n - candidate)
                        }
                    })
                })?;
        let root = self.crt.pow(&square, &self.fourth);
        let negative = Integer::from(n - &root);
        Some(ProofPoint {
            x: root.min(negative),
            a,
            b,
            z,
        })
    }
}
