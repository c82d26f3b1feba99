//! Hashes of the protocol: SHA-256 under a label of their own, over parts that cannot run into each other.

use rug::Integer;
use sha2::{Digest, Sha256};

use super::numbers::{PartyNumbers, encode_signed};

/// SHA-256 over a label and parts, each behind its length.
pub(crate) struct LabelledHash(Sha256);

impl LabelledHash {
    pub(crate) fn new(label: &str) -> Self {
        Self(Sha256::new()).bytes(label.as_bytes())
    }

    pub(crate) fn bytes(mut self, part: &[u8]) -> Self {
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
        self
    }

    pub(crate) fn party(self, party: u16) -> Self {
        self.bytes(&party.to_be_bytes())
    }

    pub(crate) fn integer(self, value: &Integer) -> Self {
        self.bytes(&encode_signed(value))
    }

    pub(crate) fn numbers(self, numbers: PartyNumbers<'_>) -> Self {
        self.integer(numbers.modulus).integer(numbers.s).integer(numbers.t)
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let split = |a: &[u8], b: &[u8]| LabelledHash::new("test").bytes(a).bytes(b).finish();
        assert_ne!(split(b"ab", b"c"), split(b"a", b"bc"));
        assert_ne!(LabelledHash::new("one").finish(), LabelledHash::new("other").finish());
    }

    #[test]
    fn the_sign_of_an_integer_counts() {
        let of = |value: i32| LabelledHash::new("test").integer(&Integer::from(value)).finish();
        assert_ne!(of(5), of(-5));
    }
}
