//! Checks on the parties' public numbers, and the one encoding of integers on the wire.
//!
//! Peers' numbers are checked before anything is computed with them, and all of a committee's numbers again whenever
//! they are loaded.

use std::sync::LazyLock;

use cggmp21::key_share::PartyAux;
use rug::Integer;
use rug::integer::{IsPrime, Order};

use super::arith::coprime;
use crate::levels::Level;
use crate::primes::small_odd_primes;

/// Moduli with a factor below this bound are refused at once; larger ones are left to the proofs.
const SMALL_FACTOR_BOUND: u32 = 1 << 16;

static SMALL_PRIMES: LazyLock<Vec<u32>> = LazyLock::new(|| small_odd_primes(SMALL_FACTOR_BOUND));

/// A party's public auxiliary numbers: Paillier modulus N and ring-Pedersen parameters s and t.
#[derive(Debug, Clone, Copy)]
pub struct PartyNumbers<'a> {
    /// N, the Paillier and ring-Pedersen modulus.
    pub modulus: &'a Integer,
    /// s, a power of t modulo N.
    pub s: &'a Integer,
    /// t, a square modulo N.
    pub t: &'a Integer,
}

impl<'a> From<&'a PartyAux> for PartyNumbers<'a> {
    fn from(party: &'a PartyAux) -> Self {
        Self { modulus: &party.N, s: &party.s, t: &party.t }
    }
}

/// What is wrong with a party's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadNumber {
    /// N is zero or negative.
    #[error("N is not positive")]
    NotPositive,
    /// N is too short or too long for the security level.
    #[error("N has {bits} bits where {most} or one less are required")]
    Size {
        /// Bits of N.
        bits: u32,
        /// Most bits that the security level allows.
        most: u32,
    },
    /// N is even.
    #[error("N is even")]
    Even,
    /// N has a small prime factor.
    #[error("N has the factor {0}")]
    SmallFactor(u32),
    /// N is a perfect power.
    #[error("N is a perfect power")]
    PerfectPower,
    /// N is a prime.
    #[error("N is a prime")]
    Prime,
    /// s or t is not in `2 ..= N - 2`.
    #[error("s or t is 0, 1 or N - 1, or outside of 1..N")]
    Range,
    /// s or t has a factor in common with N.
    #[error("s or t is not coprime to N")]
    NotInvertible,
    /// s and t are the same.
    #[error("s equals t")]
    Equal,
}

/// What is wrong with a committee's numbers. Parties are positions in the committee's ordered list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NumbersFault {
    /// One party's numbers are wrong in themselves.
    #[error("party {party}: {why}")]
    Party {
        /// The party.
        party: u16,
        /// What is wrong.
        why: BadNumber,
    },
    /// Two parties' moduli are equal or share a factor.
    #[error("the moduli of parties {first} and {second} share a factor")]
    SharedFactor {
        /// The earlier party.
        first: u16,
        /// The later party.
        second: u16,
    },
}

/// Checks one party's numbers in themselves; takes about a millisecond at the real level.
///
/// # Errors
/// The first [`BadNumber`] met.
pub fn check_party<L: Level>(numbers: PartyNumbers<'_>) -> Result<(), BadNumber> {
    let PartyNumbers { modulus, s, t } = numbers;
    if !modulus.is_positive() {
        return Err(BadNumber::NotPositive);
    }
    let (bits, most) = (modulus.significant_bits(), L::MODULUS_BITS);
    if bits != most && bits + 1 != most {
        return Err(BadNumber::Size { bits, most });
    }
    if modulus.is_even() {
        return Err(BadNumber::Even);
    }
    if let Some(factor) = SMALL_PRIMES.iter().find(|&&prime| modulus.is_divisible_u(prime)) {
        return Err(BadNumber::SmallFactor(*factor));
    }
    if modulus.is_perfect_power() {
        return Err(BadNumber::PerfectPower);
    }
    let last = Integer::from(modulus - 1u32);
    if [s, t].into_iter().any(|number| *number <= 1 || *number >= last) {
        return Err(BadNumber::Range);
    }
    if !coprime(s, modulus) || !coprime(t, modulus) {
        return Err(BadNumber::NotInvertible);
    }
    if s == t {
        return Err(BadNumber::Equal);
    }
    Ok(())
}

/// Checks the numbers of all parties of a committee, in its order: each in itself, then that the moduli are pairwise
/// coprime (and so distinct).
///
/// # Errors
/// The first [`NumbersFault`] met.
pub fn check_parties<'a, L: Level>(parties: impl IntoIterator<Item = PartyNumbers<'a>>) -> Result<(), NumbersFault> {
    let mut earlier: Vec<(u16, &Integer)> = Vec::new();
    for (party, numbers) in (0u16..).zip(parties) {
        check_party::<L>(numbers).map_err(|why| NumbersFault::Party { party, why })?;
        if let Some((first, _)) = earlier.iter().find(|(_, modulus)| !coprime(modulus, numbers.modulus)) {
            return Err(NumbersFault::SharedFactor { first: *first, second: party });
        }
        earlier.push((party, numbers.modulus));
    }
    Ok(())
}

/// Refuses a prime modulus; one round of a probable-prime test, since the proofs cover what a crafted composite hides.
///
/// # Errors
/// [`BadNumber::Prime`].
pub(crate) fn check_composite(modulus: &Integer) -> Result<(), BadNumber> {
    match modulus.is_probably_prime(1) {
        IsPrime::No => Ok(()),
        IsPrime::Probably | IsPrime::Yes => Err(BadNumber::Prime),
    }
}

/// Why bytes are no integer of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadInteger {
    /// Longer than its field allows.
    #[error("an integer is longer than {0} bits")]
    TooLong(u32),
    /// Zero, a leading zero byte or an unknown sign byte.
    #[error("an integer is zero or not canonically encoded")]
    NotCanonical,
}

/// Reads a positive integer: big-endian, no leading zero byte. The length is checked before a number is made of it.
pub(crate) fn natural(bytes: &[u8], max_bits: u32) -> Result<Integer, BadInteger> {
    if bytes.len() > usize::try_from(max_bits.div_ceil(8)).unwrap_or(0) {
        return Err(BadInteger::TooLong(max_bits));
    }
    if bytes.first().is_none_or(|first| *first == 0) {
        return Err(BadInteger::NotCanonical);
    }
    let value = Integer::from_digits(bytes, Order::Msf);
    if value.significant_bits() > max_bits { Err(BadInteger::TooLong(max_bits)) } else { Ok(value) }
}

/// Reads a signed integer other than zero: a sign byte (0 positive, 1 negative), then its magnitude as [`natural`].
pub(crate) fn signed(bytes: &[u8], max_bits: u32) -> Result<Integer, BadInteger> {
    match bytes.split_first() {
        Some((0, magnitude)) => natural(magnitude, max_bits),
        Some((1, magnitude)) => natural(magnitude, max_bits).map(|value| -value),
        _ => Err(BadInteger::NotCanonical),
    }
}

/// Writes what [`natural`] reads: the magnitude.
pub(crate) fn encode_natural(value: &Integer) -> Vec<u8> {
    value.to_digits(Order::Msf)
}

/// Writes what [`signed`] reads.
pub(crate) fn encode_signed(value: &Integer) -> Vec<u8> {
    let mut bytes = vec![u8::from(value.is_negative())];
    bytes.extend(encode_natural(value));
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::super::fixtures::{factors, own};
    use super::*;
    use crate::levels::ReducedLevel;

    fn verdict(modulus: &Integer, s: &Integer, t: &Integer) -> Result<(), BadNumber> {
        check_party::<ReducedLevel>(PartyNumbers { modulus, s, t })
    }

    #[test]
    fn honest_numbers_pass() {
        let parties: Vec<_> = (0..4).map(own).collect();
        assert_eq!(check_parties::<ReducedLevel>(parties.iter().map(|party| party.numbers())), Ok(()));
        assert_eq!(check_composite(parties[0].crt.modulus()), Ok(()));
    }

    #[test]
    fn bad_moduli_are_refused() {
        let own = own(0);
        let (p, q) = factors(0);
        let n = own.crt.modulus();
        let of = |modulus: Integer| verdict(&modulus, &own.s, &own.t).unwrap_err();
        let size = |bits| BadNumber::Size { bits, most: 768 };
        assert_eq!(of(Integer::from(-n)), BadNumber::NotPositive);
        assert_eq!(of(Integer::new()), BadNumber::NotPositive);
        assert_eq!(of(Integer::from(n >> 2u32) | 1u32), size(n.significant_bits() - 2));
        assert_eq!(of(Integer::from(n << 2u32) | 1u32), size(n.significant_bits() + 2));
        assert_eq!(of(Integer::from(n + 1u32)), BadNumber::Even);
        let with_small = |small: u32| {
            let rest = (Integer::from(1) << 767u32) / small;
            rest.next_prime() * small
        };
        for small in [3, 5, 65521] {
            assert_eq!(of(with_small(small)), BadNumber::SmallFactor(small));
        }
        assert_eq!(of(p.clone().square()), BadNumber::PerfectPower);
        let cube_root = (Integer::from(3) << 254u32).next_prime();
        assert_eq!(of(cube_root.clone().square() * cube_root), BadNumber::PerfectPower);
        assert_eq!(check_composite(&(Integer::from(1) << 767u32).next_prime()), Err(BadNumber::Prime));
        assert_eq!(check_composite(&(p * q)), Ok(()));
    }

    #[test]
    fn moduli_at_both_allowed_lengths_pass_and_others_do_not() {
        let own = own(0);
        for (bits, allowed) in [(766, false), (767, true), (768, true), (769, false)] {
            let modulus = (Integer::from(1) << (bits - 1u32)).next_prime();
            let verdict = verdict(&modulus, &own.s, &own.t);
            assert_eq!(!matches!(verdict, Err(BadNumber::Size { .. })), allowed, "{bits} bits: {verdict:?}");
        }
    }

    #[test]
    fn bad_ring_pedersen_parameters_are_refused() {
        let own = own(0);
        let (p, _) = factors(0);
        let (n, s, t) = (own.crt.modulus(), &own.s, &own.t);
        let one = Integer::from(1);
        let outside =
            [Integer::new(), one.clone(), Integer::from(-t), Integer::from(n - &one), n.clone(), Integer::from(n + t)];
        for bad in &outside {
            assert_eq!(verdict(n, bad, t), Err(BadNumber::Range), "s = {bad}");
            assert_eq!(verdict(n, s, bad), Err(BadNumber::Range), "t = {bad}");
        }
        assert_eq!(verdict(n, &p, t), Err(BadNumber::NotInvertible));
        assert_eq!(verdict(n, s, &p), Err(BadNumber::NotInvertible));
        assert_eq!(verdict(n, t, t), Err(BadNumber::Equal));
    }

    #[test]
    fn moduli_that_share_a_factor_are_refused_and_both_parties_told() {
        let (first, second) = (own(0), own(1));
        let mixed = Integer::from(&factors(0).0 * &factors(1).0);
        let (s, t) = (Integer::from(&second.s % &mixed), Integer::from(&second.t % &mixed));
        let third = PartyNumbers { modulus: &mixed, s: &s, t: &t };
        let verdict = |parties: &[PartyNumbers<'_>]| check_parties::<ReducedLevel>(parties.iter().copied());
        let shared = |first, second| Err(NumbersFault::SharedFactor { first, second });
        assert_eq!(verdict(&[first.numbers(), second.numbers(), third]), shared(0, 2));
        assert_eq!(verdict(&[second.numbers(), third]), shared(0, 1));
        assert_eq!(verdict(&[second.numbers(), first.numbers(), second.numbers()]), shared(0, 2));
    }

    #[test]
    fn integers_have_one_encoding_each() {
        assert_eq!(natural(&[1, 0], 16), Ok(Integer::from(256)));
        assert_eq!(signed(&[1, 5], 16), Ok(Integer::from(-5)));
        for wrong in [&[][..], &[0], &[0, 1]] {
            assert_eq!(natural(wrong, 16), Err(BadInteger::NotCanonical));
        }
        for wrong in [&[][..], &[0], &[1], &[1, 0], &[0, 0, 1], &[2, 1], &[255, 1]] {
            assert_eq!(signed(wrong, 16), Err(BadInteger::NotCanonical));
        }
    }

    #[test]
    fn integers_longer_than_their_field_are_refused_by_length() {
        assert_eq!(natural(&[1; 3], 16), Err(BadInteger::TooLong(16)));
        assert_eq!(natural(&[0b10, 0], 9), Err(BadInteger::TooLong(9)), "ten bits where nine are allowed");
        assert_eq!(signed(&[1, 1, 1, 1], 16), Err(BadInteger::TooLong(16)));
        assert!(natural(&vec![255; 1 << 20], 3072).is_err());
    }

    proptest! {
        #[test]
        fn encodings_come_back(value in any::<i64>().prop_filter("zero has no encoding", |value| *value != 0)) {
            let value = Integer::from(value);
            prop_assert_eq!(signed(&encode_signed(&value), 64), Ok(value.clone()));
            let magnitude = value.abs();
            prop_assert_eq!(natural(&encode_natural(&magnitude), 64), Ok(magnitude));
        }

        #[test]
        fn whatever_decodes_encodes_to_the_same_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Ok(value) = natural(&bytes, 64) {
                prop_assert_eq!(encode_natural(&value), bytes.clone());
            }
            if let Ok(value) = signed(&bytes, 64) {
                prop_assert_eq!(encode_signed(&value), bytes);
            }
        }
    }
}
