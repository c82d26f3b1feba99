//! Integer arithmetic of the protocol: uniform sampling, exponentiation by CRT for who knows the factors, and a
//! fixed-base table for who raises one public base to many powers.

use std::sync::Arc;

use rand_core::{CryptoRng, RngCore};
use rug::Integer;
use rug::integer::Order;
use zeroize::Zeroizing;

use crate::primes::PrimePair;

/// A uniform integer of at most `bits` bits.
pub(crate) fn random_bits(bits: u32, rng: &mut (impl RngCore + CryptoRng)) -> Integer {
    let length = usize::try_from(bits.div_ceil(8)).unwrap_or(0);
    let mut bytes = Zeroizing::new(vec![0u8; length]);
    rng.fill_bytes(&mut bytes);
    Integer::from_digits(&bytes, Order::Msf).keep_bits(bits)
}

/// A uniform integer in `0 .. bound`, by rejection; `bound` must be positive.
pub(crate) fn random_below(bound: &Integer, rng: &mut (impl RngCore + CryptoRng)) -> Integer {
    loop {
        let candidate = random_bits(bound.significant_bits(), rng);
        if candidate < *bound {
            return candidate;
        }
    }
}

/// A uniform element of the multiplicative group modulo `modulus`.
pub(crate) fn random_unit(modulus: &Integer, rng: &mut (impl RngCore + CryptoRng)) -> Integer {
    loop {
        let candidate = random_below(modulus, rng);
        if coprime(&candidate, modulus) {
            return candidate;
        }
    }
}

/// True where the greatest common divisor is one.
pub(crate) fn coprime(a: &Integer, b: &Integer) -> bool {
    Integer::from(a.gcd_ref(b)) == 1
}

/// Overwrites the limbs that hold `secret`'s value.
pub(crate) fn wipe(secret: &mut Integer) {
    for bit in 0..secret.significant_bits() {
        secret.set_bit(bit, false);
    }
}

/// An integer that is wiped on drop.
pub(crate) struct Secret(pub(crate) Integer);

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Exponentiation modulo `n = pq` for the owner of the factors: one exponentiation modulo each prime, in time that does
/// not depend on the exponent's bits, joined by Garner's formula.
///
/// # Security
/// Holds the factors; not `Debug`, wiped on drop.
pub(crate) struct Crt {
    p: Integer,
    q: Integer,
    n: Integer,
    q_inverse: Integer,
}

/// An exponent reduced modulo the order of each prime's group.
pub(crate) struct CrtExponent {
    mod_p: Secret,
    mod_q: Secret,
}

impl Crt {
    /// Precomputes for the factors of a pair.
    pub(crate) fn new(primes: &PrimePair) -> Self {
        let (p, q) = (primes.p().clone(), primes.q().clone());
        let n = Integer::from(&p * &q);
        let q_inverse = Integer::from(&q % &p).invert(&p).unwrap_or_default();
        Self { p, q, n, q_inverse }
    }

    pub(crate) fn modulus(&self) -> &Integer {
        &self.n
    }

    pub(crate) fn p(&self) -> &Integer {
        &self.p
    }

    pub(crate) fn q(&self) -> &Integer {
        &self.q
    }

    /// Euler's φ(n).
    pub(crate) fn phi(&self) -> Secret {
        Secret(Integer::from(&self.p - 1u32) * Integer::from(&self.q - 1u32))
    }

    /// Prepares a non-negative exponent.
    pub(crate) fn exponent(&self, exponent: &Integer) -> CrtExponent {
        CrtExponent {
            mod_p: Secret(exponent % Integer::from(&self.p - 1u32)),
            mod_q: Secret(exponent % Integer::from(&self.q - 1u32)),
        }
    }

    /// An exponent given by what it is for each prime.
    pub(crate) fn exponent_by(&self, exponent: impl Fn(&Integer) -> Integer) -> CrtExponent {
        CrtExponent { mod_p: Secret(exponent(&self.p)), mod_q: Secret(exponent(&self.q)) }
    }

    /// `base^exponent mod n` for a base coprime to n.
    pub(crate) fn pow(&self, base: &Integer, exponent: &CrtExponent) -> Integer {
        let by_p = pow_secret(base, &exponent.mod_p.0, &self.p);
        let by_q = pow_secret(base, &exponent.mod_q.0, &self.q);
        let step = ((by_p - &by_q) * &self.q_inverse).modulo(&self.p);
        step * &self.q + by_q
    }
}

impl Drop for Crt {
    fn drop(&mut self) {
        for secret in [&mut self.p, &mut self.q, &mut self.q_inverse] {
            wipe(secret);
        }
    }
}

/// GMP's exponentiation without secret-dependent branches; it takes positive exponents only.
fn pow_secret(base: &Integer, exponent: &Integer, prime: &Integer) -> Integer {
    if exponent.is_zero() {
        return Integer::from(1);
    }
    Integer::from(base % prime).secure_pow_mod(exponent, prime)
}

/// Rows of the table's exponent grid: a column of this many exponent bits costs one multiplication.
const ROWS: u32 = 8;
/// Blocks per row: each has its own table, so that this many columns share one squaring.
const BLOCKS: u32 = 4;

/// A table for raising one public base to many public powers (Lim and Lee, CRYPTO '94): about an eighth of the
/// multiplications of plain exponentiation.
#[derive(Clone)]
pub(crate) struct FixedBase {
    modulus: Arc<Integer>,
    tables: Arc<Vec<Vec<Integer>>>,
    width: u32,
    block: u32,
}

impl FixedBase {
    /// Precomputes for exponents of at most `bits` bits.
    pub(crate) fn new(base: &Integer, modulus: &Integer, bits: u32) -> Self {
        let block = bits.div_ceil(ROWS * BLOCKS).max(1);
        let width = block * BLOCKS;
        let mut power = Integer::from(base % modulus);
        let mut tables = vec![vec![Integer::from(1)]; usize::try_from(BLOCKS).unwrap_or(0)];
        for _row in 0..ROWS {
            for table in &mut tables {
                for index in 0..table.len() {
                    if let Some(entry) = table.get(index) {
                        let product = Integer::from(entry * &power) % modulus;
                        table.push(product);
                    }
                }
                for _ in 0..block {
                    power.square_mut();
                    power %= modulus;
                }
            }
        }
        Self { modulus: Arc::new(modulus.clone()), tables: Arc::new(tables), width, block }
    }

    /// `base^exponent mod modulus`; `None` for an exponent that is negative or longer than the table was made for.
    pub(crate) fn pow(&self, exponent: &Integer) -> Option<Integer> {
        if exponent.is_negative() || exponent.significant_bits() > self.width * ROWS {
            return None;
        }
        let mut result = Integer::from(1);
        for column in (0..self.block).rev() {
            result.square_mut();
            result %= &*self.modulus;
            for (offset, table) in (column..).step_by(usize::try_from(self.block).ok()?).zip(self.tables.iter()) {
                let index = (0..ROWS)
                    .filter(|row| exponent.get_bit(row * self.width + offset))
                    .fold(0usize, |index, row| index | 1 << row);
                if index != 0 {
                    result *= table.get(index)?;
                    result %= &*self.modulus;
                }
            }
        }
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;
    use rand::rngs::OsRng;

    use super::*;

    #[test]
    fn the_owner_of_the_factors_gets_the_same_powers() {
        let primes = PrimePair::generate_sized(256, &mut OsRng, &AtomicBool::new(false)).unwrap();
        let crt = Crt::new(&primes);
        let base = random_unit(crt.modulus(), &mut OsRng);
        for exponent in [Integer::new(), Integer::from(1), crt.phi().0.clone(), random_below(&crt.phi().0, &mut OsRng)]
        {
            let plain = base.clone().pow_mod(&exponent, crt.modulus()).unwrap();
            assert_eq!(crt.pow(&base, &crt.exponent(&exponent)), plain);
        }
    }

    #[test]
    fn wiping_clears_every_limb() {
        let mut secret = random_bits(1000, &mut OsRng);
        wipe(&mut secret);
        assert_eq!(secret, 0);
    }

    #[test]
    fn sampling_below_a_bound_reaches_all_of_it_and_nothing_else() {
        let bound = Integer::from(5);
        let mut seen = [false; 5];
        for _ in 0..400 {
            *seen.get_mut(random_below(&bound, &mut OsRng).to_usize().unwrap()).unwrap() = true;
        }
        assert_eq!(seen, [true; 5]);
    }

    proptest! {
        #[test]
        fn the_table_gives_plain_powers(base in 2u64.., modulus in 3u64.., exponent in proptest::collection::vec(any::<u8>(), 0..20)) {
            let (base, modulus) = (Integer::from(base), Integer::from(modulus | 1));
            let exponent = Integer::from_digits(&exponent, Order::Msf);
            let plain = base.clone().pow_mod(&exponent, &modulus).unwrap();
            prop_assert_eq!(FixedBase::new(&base, &modulus, 160).pow(&exponent), Some(plain));
        }
    }

    #[test]
    fn the_table_refuses_exponents_that_it_was_not_made_for() {
        let table = FixedBase::new(&Integer::from(7), &Integer::from(1009), 64);
        assert_eq!(table.pow(&Integer::from(-1)), None);
        assert_eq!(table.pow(&(Integer::from(1) << 64u32)), None);
        assert!(table.pow(&((Integer::from(1) << 64u32) - 1u32)).is_some());
    }
}
