//! Safe primes for Paillier and ring-Pedersen parameters.
//!
//! A party's modulus is the product of two safe primes (`p = 2p' + 1` with `p'` prime). They take seconds to make,
//! so the daemon makes them ahead of time on a thread of low priority and keeps them sealed; [`PrimePair`] is the unit
//! that such a pool holds, and that one run of the auxiliary-information protocol uses up.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::seq::SliceRandom;
use rand_core::{CryptoRng, RngCore};
use rug::Integer;
use rug::integer::{IsPrime, Order};
use zeroize::Zeroizing;

use crate::aux::arith::{random_bits, wipe};
use crate::levels::{Level, SecurityLevel128};

/// Length in bits of each prime at the level that signs real keys.
pub const PRIME_BITS: u32 = 1536;

/// Candidates are sieved by all primes below this bound before any costly test.
const SIEVE_BOUND: u32 = 1 << 20;
/// Candidates per sieved window; at 1536 bits a window holds about two safe primes.
const WINDOW: u32 = 1 << 18;
/// A safe prime above 7 has `p' = 5 mod 6`, so candidates for `p'` lie this far apart.
const STEP: u32 = 6;
/// Repetitions asked of GMP's test for a new prime: Baillie-PSW and 32 Miller-Rabin rounds with random bases.
const NEW_PRIME_TEST: u32 = 56;
/// Repetitions for a stored prime, which has passed [`NEW_PRIME_TEST`] before: Baillie-PSW and one round.
const STORED_PRIME_TEST: u32 = 25;
/// The primes of a pair must differ within this many leading bits, so that N does not yield to Fermat's method.
const CLOSE_BITS: u32 = 100;
/// First byte of the stored form.
const VERSION: u8 = 1;

/// Two distinct safe primes of the same length: one party's secret Paillier factors.
///
/// # Security
/// Whoever learns the pair opens every ciphertext under `N = pq`, and with it the party's share. A pair serves one
/// party in one run of the auxiliary-information protocol and is used up by it. Not `Clone`, printed redacted, wiped
/// on drop.
pub struct PrimePair {
    p: Integer,
    q: Integer,
}

/// Why a prime pair could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrimeError {
    /// The cancel flag was raised while primes were being made.
    #[error("making safe primes was cancelled")]
    Cancelled,
    /// Stored bytes are not a prime pair of the expected size.
    #[error("stored prime pair has a wrong length or version; discard it and let the pool make a new one")]
    Encoding,
    /// Stored numbers are not two distinct safe primes.
    #[error("stored numbers are not two distinct safe primes; discard them and let the pool make new ones")]
    NotSafePrimes,
}

impl PrimePair {
    /// Makes two [`PRIME_BITS`]-bit safe primes; takes a few seconds of one core.
    ///
    /// Meant for a thread of low priority. `cancel` is looked at before every probable-prime test, that is every few
    /// milliseconds.
    ///
    /// # Errors
    /// [`PrimeError::Cancelled`] once `cancel` is true.
    pub fn generate(rng: &mut (impl RngCore + CryptoRng), cancel: &AtomicBool) -> Result<Self, PrimeError> {
        Self::generate_sized(PRIME_BITS, rng, cancel)
    }

    pub(crate) fn generate_sized(
        bits: u32,
        rng: &mut (impl RngCore + CryptoRng),
        cancel: &AtomicBool,
    ) -> Result<Self, PrimeError> {
        let sieve = small_odd_primes(SIEVE_BOUND.min(1 << (bits / 2).min(31)));
        let p = safe_prime(bits, &sieve, rng, cancel)?;
        loop {
            let q = safe_prime(bits, &sieve, rng, cancel)?;
            if far_apart(&p, &q, bits) {
                return Ok(Self { p, q });
            }
        }
    }

    /// The stored form: a version byte, then both primes big-endian at full width. It must be sealed before it rests.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let width = self.p.significant_digits::<u8>().max(self.q.significant_digits::<u8>());
        let mut bytes = Zeroizing::new(vec![0; 1 + 2 * width]);
        if let Some((version, primes)) = bytes.split_first_mut() {
            *version = VERSION;
            let (p, q) = primes.split_at_mut(width);
            self.p.write_digits(p, Order::Msf);
            self.q.write_digits(q, Order::Msf);
        }
        bytes
    }

    /// Reads [`Self::to_bytes`] of a [`PRIME_BITS`]-bit pair and tests both primes again.
    ///
    /// # Errors
    /// [`PrimeError::Encoding`] or [`PrimeError::NotSafePrimes`]; the pair is of no use then.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PrimeError> {
        Self::from_bytes_at::<SecurityLevel128>(bytes)
    }

    /// [`Self::from_bytes`] for a pair of the level's size.
    ///
    /// # Errors
    /// As for [`Self::from_bytes`].
    pub fn from_bytes_at<L: Level>(bytes: &[u8]) -> Result<Self, PrimeError> {
        Self::from_bytes_sized(L::PRIME_BITS, bytes)
    }

    fn from_bytes_sized(bits: u32, bytes: &[u8]) -> Result<Self, PrimeError> {
        let width = usize::try_from(bits / 8).map_err(|_| PrimeError::Encoding)?;
        let Some((&VERSION, primes)) = bytes.split_first() else {
            return Err(PrimeError::Encoding);
        };
        if primes.len() != 2 * width {
            return Err(PrimeError::Encoding);
        }
        let (p, q) = primes.split_at(width);
        let read = |digits| Integer::from_digits(digits, Order::Msf);
        Self::from_primes(bits, read(p), read(q))
    }

    pub(crate) fn from_primes(bits: u32, p: Integer, q: Integer) -> Result<Self, PrimeError> {
        let pair = Self { p, q };
        let safe = |prime| is_safe_prime(prime, bits, STORED_PRIME_TEST);
        let sound = safe(&pair.p) && safe(&pair.q) && far_apart(&pair.p, &pair.q, bits);
        if sound { Ok(pair) } else { Err(PrimeError::NotSafePrimes) }
    }

    /// Any two numbers, for tests that attack with factors which no honest party would have.
    #[cfg(test)]
    pub(crate) fn unchecked(p: Integer, q: Integer) -> Self {
        Self { p, q }
    }

    pub(crate) fn p(&self) -> &Integer {
        &self.p
    }

    pub(crate) fn q(&self) -> &Integer {
        &self.q
    }

    /// Length in bits of each prime.
    pub fn bits(&self) -> u32 {
        self.p.significant_bits()
    }
}

impl Drop for PrimePair {
    fn drop(&mut self) {
        wipe(&mut self.p);
        wipe(&mut self.q);
    }
}

impl fmt::Debug for PrimePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrimePair(redacted)")
    }
}

/// Finds `p = 2p' + 1`: a random window of candidates for `p'` is sieved for both, and the survivors are tested in
/// random order, so that no prime is favoured for the gap before it.
fn safe_prime(
    bits: u32,
    sieve: &[u32],
    rng: &mut (impl RngCore + CryptoRng),
    cancel: &AtomicBool,
) -> Result<Integer, PrimeError> {
    let window = if bits >= PRIME_BITS { WINDOW } else { WINDOW / 64 };
    loop {
        let start = window_start(bits, rng);
        let mut survivors = survivors(&start, window, sieve);
        survivors.shuffle(rng);
        for offset in survivors {
            if cancel.load(Ordering::Relaxed) {
                return Err(PrimeError::Cancelled);
            }
            let half = Integer::from(&start + offset * STEP);
            if half.is_probably_prime(1) == IsPrime::No {
                continue;
            }
            let candidate = half * 2u32 + 1u32;
            if candidate.significant_bits() == bits && is_safe_prime(&candidate, bits, NEW_PRIME_TEST) {
                return Ok(candidate);
            }
        }
    }
}

/// A random number of `bits - 1` bits that is 5 mod 6.
fn window_start(bits: u32, rng: &mut (impl RngCore + CryptoRng)) -> Integer {
    let mut start = random_bits(bits - 1, rng);
    start.set_bit(bits - 2, true);
    let residue = start.mod_u(STEP);
    start + (STEP + 5 - residue) % STEP
}

/// Offsets (in steps of [`STEP`]) at which neither the candidate `c` nor `2c + 1` has a factor in `sieve`.
fn survivors(start: &Integer, window: u32, sieve: &[u32]) -> Vec<u32> {
    let mut composite = vec![false; usize::try_from(window).unwrap_or(0)];
    for &prime in sieve.iter().filter(|&&prime| prime > 3) {
        let (prime, residue) = (u64::from(prime), u64::from(start.mod_u(prime)));
        let step_inverse = invert_step(prime);
        // c = 0 and c = (prime - 1) / 2 are the two forbidden residues.
        for forbidden in [0, (prime - 1) / 2] {
            let first = (forbidden + prime - residue) % prime * step_inverse % prime;
            let (Ok(first), Ok(stride)) = (usize::try_from(first), usize::try_from(prime)) else {
                continue;
            };
            for mark in composite.iter_mut().skip(first).step_by(stride) {
                *mark = true;
            }
        }
    }
    (0..window).zip(composite).filter(|(_, composite)| !composite).map(|(offset, _)| offset).collect()
}

/// The inverse of [`STEP`] modulo a prime above 3: `k·prime = -1 mod 6` makes `(k·prime + 1) / 6` an integer.
fn invert_step(prime: u64) -> u64 {
    let k = if prime % 6 == 1 { 5 } else { 1 };
    (k * prime + 1) / 6 % prime
}

fn is_safe_prime(candidate: &Integer, bits: u32, repetitions: u32) -> bool {
    candidate.significant_bits() == bits
        && candidate.mod_u(4) == 3
        && Integer::from(candidate >> 1).is_probably_prime(repetitions) != IsPrime::No
        && candidate.is_probably_prime(repetitions) != IsPrime::No
}

fn far_apart(p: &Integer, q: &Integer, bits: u32) -> bool {
    Integer::from(p - q).significant_bits() > bits.saturating_sub(CLOSE_BITS)
}

/// The odd primes below `bound`, by the sieve of Eratosthenes.
pub(crate) fn small_odd_primes(bound: u32) -> Vec<u32> {
    let mut composite = vec![false; usize::try_from(bound).unwrap_or(0)];
    let mut primes = Vec::new();
    for n in (3..bound).step_by(2) {
        let index = usize::try_from(n).unwrap_or(usize::MAX);
        if composite.get(index) == Some(&false) {
            primes.push(n);
            for mark in composite.iter_mut().skip(index.saturating_mul(index)).step_by(index) {
                *mark = true;
            }
        }
    }
    primes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::time::{Duration, Instant};

    use rand::rngs::OsRng;

    use super::*;

    fn pair(bits: u32) -> PrimePair {
        PrimePair::generate_sized(bits, &mut OsRng, &AtomicBool::new(false)).unwrap()
    }

    #[test]
    fn generated_primes_are_safe_distinct_and_of_the_asked_length() {
        let pair = pair(256);
        for prime in [pair.p(), pair.q()] {
            assert_eq!(prime.significant_bits(), 256);
            assert_ne!(prime.is_probably_prime(40), IsPrime::No);
            assert_ne!(Integer::from(prime >> 1).is_probably_prime(40), IsPrime::No);
        }
        assert_ne!(pair.p(), pair.q());
    }

    #[test]
    fn the_sieve_strikes_out_exactly_the_candidates_with_a_small_factor() {
        let start = window_start(128, &mut OsRng);
        let sieve = small_odd_primes(1000);
        let left = survivors(&start, 2000, &sieve);
        for offset in 0..2000 {
            let half = Integer::from(&start + offset * STEP);
            let whole = Integer::from(&half * 2u32) + 1u32;
            let clean = sieve.iter().all(|&r| !half.is_divisible_u(r) && !whole.is_divisible_u(r));
            assert_eq!(left.binary_search(&offset).is_ok(), clean, "offset {offset}");
        }
    }

    #[test]
    fn small_odd_primes_are_the_primes() {
        assert_eq!(small_odd_primes(30), [3, 5, 7, 11, 13, 17, 19, 23, 29]);
    }

    #[test]
    fn a_pair_survives_storage() {
        let pair = pair(256);
        let again = PrimePair::from_bytes_sized(256, &pair.to_bytes()).unwrap();
        assert_eq!((pair.p(), pair.q()), (again.p(), again.q()));
    }

    #[test]
    fn stored_pairs_that_are_not_safe_primes_are_refused() {
        let good = pair(256);
        let refuse = |p: Integer, q: Integer, why: &str| {
            assert_eq!(PrimePair::from_primes(256, p, q).unwrap_err(), PrimeError::NotSafePrimes, "{why}");
        };
        refuse(good.p().clone(), good.p().clone(), "p = q");
        refuse(good.p().clone(), Integer::from(good.q() + 2u32), "q composite or not safe");
        refuse(good.p().clone(), Integer::from(good.q() >> 1), "q too short");
        refuse(good.p().clone(), Integer::from(-good.q()), "q negative");
        refuse(Integer::new(), good.q().clone(), "p zero");
        let mut plain_prime = Integer::from(good.q().next_prime_ref());
        while plain_prime.mod_u(4) == 3 && is_safe_prime(&plain_prime, 256, STORED_PRIME_TEST) {
            plain_prime.next_prime_mut();
        }
        refuse(good.p().clone(), plain_prime, "prime, but not a safe one");
    }

    #[test]
    fn stored_bytes_of_wrong_length_or_version_are_refused() {
        let bytes = pair(256).to_bytes();
        for wrong in [&bytes[..bytes.len() - 1], &[], &[VERSION], &[&bytes[..], &[0]].concat()] {
            assert_eq!(PrimePair::from_bytes_sized(256, wrong).unwrap_err(), PrimeError::Encoding);
        }
        let mut other_version = bytes.to_vec();
        other_version[0] = VERSION + 1;
        assert_eq!(PrimePair::from_bytes_sized(256, &other_version).unwrap_err(), PrimeError::Encoding);
        assert_eq!(PrimePair::from_bytes(&bytes).unwrap_err(), PrimeError::Encoding, "256 bits are too short");
    }

    #[test]
    fn generation_stops_soon_after_it_is_cancelled() {
        let cancel = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| PrimePair::generate_sized(3072, &mut OsRng, &cancel));
            std::thread::sleep(Duration::from_millis(50));
            cancel.store(true, Ordering::Relaxed);
            let asked = Instant::now();
            assert_eq!(worker.join().unwrap().unwrap_err(), PrimeError::Cancelled);
            assert!(asked.elapsed() < Duration::from_secs(2), "took {:?}", asked.elapsed());
        });
    }

    #[test]
    fn debug_output_holds_no_digit_of_the_primes() {
        assert_eq!(format!("{:?}", pair(128)), "PrimePair(redacted)");
    }
}
