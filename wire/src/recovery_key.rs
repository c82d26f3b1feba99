//! The public key of a recovery HSM.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::{Digest32, InvalidId, decode_hex};

/// Bytes of the modulus.
const MODULUS: usize = 384;

/// What stands before the modulus in the DER of every such key (RFC 8017, RFC 5280): SEQUENCE, rsaEncryption with NULL,
/// BIT STRING, SEQUENCE, INTEGER of 385 bytes whose first is 0.
const BEFORE: [u8; 33] = [
    0x30, 0x82, 0x01, 0xa2, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    0x03, 0x82, 0x01, 0x8f, 0x00, 0x30, 0x82, 0x01, 0x8a, 0x02, 0x82, 0x01, 0x81, 0x00,
];

/// What stands after it: the exponent 65537.
const AFTER: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];

/// A recovery HSM's public key: RSA of 3072 bits with the exponent 65537, as DER SubjectPublicKeyInfo in its one canonical
/// form; lower-case hex as text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecoveryKey(Vec<u8>);

impl RecoveryKey {
    /// The public exponent, big-endian.
    pub const EXPONENT: [u8; 3] = [1, 0, 1];

    /// Takes a DER SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// Says that it is not of RSA-3072 with the exponent 65537.
    pub fn from_spki(spki: &[u8]) -> Result<Self, InvalidId> {
        let modulus = spki.strip_prefix(&BEFORE).and_then(|rest| rest.strip_suffix(&AFTER));
        Self::from_modulus(modulus.ok_or_else(invalid)?)
    }

    /// Takes the modulus, big-endian, 384 bytes.
    ///
    /// # Errors
    /// Says that it is none.
    pub fn from_modulus(modulus: &[u8]) -> Result<Self, InvalidId> {
        let full = modulus.first().is_some_and(|first| first & 0x80 != 0);
        let odd = modulus.last().is_some_and(|last| last & 1 == 1);
        if modulus.len() != MODULUS || !full || !odd {
            return Err(invalid());
        }
        Ok(Self([BEFORE.as_slice(), modulus, AFTER.as_slice()].concat()))
    }

    /// The DER SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.0
    }

    /// The modulus, big-endian.
    pub fn modulus(&self) -> &[u8] {
        self.0.strip_prefix(&BEFORE).and_then(|rest| rest.strip_suffix(&AFTER)).unwrap_or_default()
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what people compare.
    pub fn fingerprint(&self) -> Digest32 {
        Digest32(Sha256::digest(&self.0).into())
    }
}

fn invalid() -> InvalidId {
    InvalidId::new("the recovery key", "it is not a DER SubjectPublicKeyInfo of RSA-3072 with the exponent 65537")
}

impl FromStr for RecoveryKey {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::from_spki(&decode_hex("the recovery key", text)?)
    }
}

impl TryFrom<String> for RecoveryKey {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<RecoveryKey> for String {
    fn from(key: RecoveryKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecoveryKey({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 | openssl pkey -pubout -outform DER | xxd -p`
    const OPENSSL: &str = include_str!("recovery_key.hex");

    #[test]
    fn a_key_of_openssl_is_taken_and_given_back_byte_for_byte() {
        let key: RecoveryKey = OPENSSL.trim().parse().unwrap();
        assert_eq!(key.to_string(), OPENSSL.trim());
        assert_eq!(RecoveryKey::from_modulus(key.modulus()).unwrap(), key);
        assert_eq!(key.modulus().len(), MODULUS);
    }

    #[test]
    fn another_length_another_exponent_and_an_even_modulus_are_refused() {
        let good = hex::decode(OPENSSL.trim()).unwrap();
        let cut = good.get(..good.len() - 1).unwrap().to_vec();
        let longer = [good.as_slice(), &[0]].concat();
        let change = |place: usize, bits: u8| {
            let mut other = good.clone();
            *other.get_mut(place).unwrap() ^= bits;
            other
        };
        let (exponent, even, short) =
            (change(good.len() - 1, 2), change(good.len() - 6, 1), change(BEFORE.len(), 0x80));
        for bad in [cut, longer, exponent, even, short, Vec::new()] {
            assert!(RecoveryKey::from_spki(&bad).is_err());
        }
    }
}
