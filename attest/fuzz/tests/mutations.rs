//! The fuzz targets over seeds and a few thousand mutations of each: the same on every run, and without libFuzzer.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use casemate_attest_fuzz::{self as targets, Outcome};

/// Mutations of the seed.
const MUTATIONS: u64 = 1500;

/// A generator of numbers that is the same everywhere (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap();
        number % below.max(1)
    }

    /// Bytes that begin something in CBOR, or any.
    fn byte(&mut self) -> u8 {
        const TELLING: [u8; 10] = [0x00, 0x18, 0x1b, 0x40, 0x5f, 0x7f, 0x9f, 0xbf, 0xd2, 0xff];
        if self.next(2) == 0 { TELLING[self.next(TELLING.len())] } else { u8::try_from(self.next(256)).unwrap() }
    }
}

/// Changes, cuts, prolongs or repeats a part, up to four times.
fn mutate(seed: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.next(4) {
        let at = numbers.next(bytes.len());
        match numbers.next(5) {
            0 if !bytes.is_empty() => bytes[at] = numbers.byte(),
            1 if !bytes.is_empty() => drop(bytes.remove(at)),
            2 => bytes.insert(at, numbers.byte()),
            3 => bytes.truncate(at),
            _ => {
                let end = (at + numbers.next(40)).min(bytes.len());
                let part = bytes[at.min(end)..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

#[test]
fn attestation_tokens_keep_their_promises() {
    let seed = targets::seed();
    assert_eq!(targets::attestation_token(&seed), Outcome::Decoded);
    assert_eq!(targets::attestation_token(&[]), Outcome::Refused);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut decoded = 0;
    for _ in 0..MUTATIONS {
        decoded += u64::from(targets::attestation_token(&mutate(&seed, &mut numbers)) == Outcome::Decoded);
    }
    // Else the mutations are too coarse to get past the envelope.
    assert!(decoded > MUTATIONS / 50, "{decoded} of {MUTATIONS} were read");
}
