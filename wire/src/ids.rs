//! Identifiers. Each is a newtype whose one constructor validates; deserialisation goes through it too.

use std::fmt;
use std::str::FromStr;

use p256::pkcs8::{DecodePublicKey, EncodePublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Why a text is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not valid: {why}")]
pub struct InvalidId {
    what: &'static str,
    why: String,
}

impl InvalidId {
    pub(crate) fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }
}

/// Implements text conversion and serde (as that text) for a type with `FromStr` and `Display`.
macro_rules! serde_as_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}

/// Implements a name of 1 to 64 characters from `A-Z a-z 0-9 . _ -` that starts with a letter or digit.
macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                check_name($what, text).map(|()| Self(text.to_owned()))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        serde_as_text!($name);
    };
}

fn check_name(what: &'static str, text: &str) -> Result<(), InvalidId> {
    if text.is_empty() || text.len() > 64 {
        return Err(InvalidId::new(what, "it must have 1 to 64 characters"));
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(InvalidId::new(what, "it must start with a letter or digit"));
    }
    if let Some(bad) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        let why = format!("the character {bad:?} is not allowed; use letters, digits, '.', '_', '-'");
        return Err(InvalidId::new(what, why));
    }
    Ok(())
}

name_id!(
    /// One session, named by the coordinator that convenes it.
    SessionId,
    "the session id"
);
name_id!(
    /// One party of a committee: an appliance or a user's device.
    PartyId,
    "the party id"
);

/// Decodes lower- or upper-case hex, with or without a leading `0x`.
///
/// # Errors
/// Says that the text is not hex.
pub fn decode_hex(what: &'static str, text: &str) -> Result<Vec<u8>, InvalidId> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    hex::decode(digits).map_err(|e| InvalidId::new(what, format!("it is not hex: {e}")))
}

/// 32 bytes that are a hash: a message hash, a bundle digest, a transcript. Lower-case hex as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest32(pub [u8; 32]);

impl FromStr for Digest32 {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let bytes = decode_hex("the hash", text)?;
        let length = bytes.len();
        bytes.try_into().map(Self).map_err(|_| InvalidId::new("the hash", format!("it has {length} bytes, not 32")))
    }
}
impl fmt::Display for Digest32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}
impl fmt::Debug for Digest32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
serde_as_text!(Digest32);

/// A threshold key's public key: a point of secp256k1, SEC1 compressed (33 bytes), lower-case hex as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 33]);

impl PublicKey {
    /// Takes a compressed SEC1 encoding.
    ///
    /// # Errors
    /// Says that the bytes are not a point of secp256k1 other than the identity.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidId> {
        let not_a_point = || InvalidId::new("the public key", "it is not a compressed secp256k1 point");
        let bytes: [u8; 33] = bytes.try_into().map_err(|_| not_a_point())?;
        k256::PublicKey::from_sec1_bytes(&bytes).map_err(|_| not_a_point())?;
        Ok(Self(bytes))
    }

    /// The compressed SEC1 encoding.
    pub fn as_bytes(&self) -> &[u8; 33] {
        &self.0
    }
}

impl FromStr for PublicKey {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::from_bytes(&decode_hex("the public key", text)?)
    }
}
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
serde_as_text!(PublicKey);

/// A party's identity: the P-256 public key of its HSM. Text form: hex of the DER SubjectPublicKeyInfo.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdentityKey {
    key: p256::ecdsa::VerifyingKey,
    spki: Vec<u8>,
}

impl IdentityKey {
    /// Takes a DER SubjectPublicKeyInfo of a P-256 key, in its one canonical (uncompressed) form.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn from_spki(spki: &[u8]) -> Result<Self, InvalidId> {
        let bad = |why: &str| InvalidId::new("the identity key", why);
        let key = p256::PublicKey::from_public_key_der(spki)
            .map_err(|_| bad("it is not a DER SubjectPublicKeyInfo of a P-256 key"))?;
        let canonical = key.to_public_key_der().map_err(|_| bad("it cannot be encoded again"))?;
        if canonical.as_bytes() != spki {
            return Err(bad("it is not in canonical DER form"));
        }
        Ok(Self { key: key.into(), spki: spki.to_vec() })
    }

    /// The DER SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what people compare.
    pub fn fingerprint(&self) -> Digest32 {
        Digest32(Sha256::digest(&self.spki).into())
    }

    /// Verifies an ECDSA P-256 / SHA-256 signature (`r ‖ s`, 64 bytes) over `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        use p256::ecdsa::signature::Verifier;
        p256::ecdsa::Signature::from_slice(signature)
            .is_ok_and(|signature| self.key.verify(message, &signature).is_ok())
    }
}

impl FromStr for IdentityKey {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::from_spki(&decode_hex("the identity key", text)?)
    }
}
impl fmt::Display for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.spki))
    }
}
impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityKey({})", self.fingerprint())
    }
}
serde_as_text!(IdentityKey);

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionType {
    /// Makes a new key.
    Keygen,
    /// Signs one message hash with a key.
    Sign,
    /// Gives a key new shares, with the same or another committee.
    Rotate,
}

impl fmt::Display for SessionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keygen => "keygen",
            Self::Sign => "sign",
            Self::Rotate => "rotate",
        })
    }
}

/// What a key, and so each of its shares, is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareType {
    /// Holds funds.
    Wallet,
    /// Controls contracts and roles.
    Admin,
    /// Recovers another key.
    Recovery,
}

impl fmt::Display for ShareType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wallet => "wallet",
            Self::Admin => "admin",
            Self::Recovery => "recovery",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_with_odd_characters_are_refused() {
        for bad in ["", "a b", "../x", "é", ".a", "a/b", &"x".repeat(65), "a\n"] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad:?}");
            assert!(serde_json::from_value::<PartyId>(bad.into()).is_err(), "{bad:?}");
        }
        assert_eq!("party-1".parse::<PartyId>().unwrap().as_str(), "party-1");
    }

    #[test]
    fn hashes_accept_0x_and_refuse_wrong_lengths() {
        let text = "ab".repeat(32);
        let with_prefix: Digest32 = format!("0x{text}").parse().unwrap();
        assert_eq!(with_prefix.to_string(), text);
        assert!("ab".repeat(31).parse::<Digest32>().is_err());
        assert!("zz".repeat(32).parse::<Digest32>().is_err());
    }

    #[test]
    fn public_keys_must_be_points() {
        let generator = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        assert_eq!(generator.parse::<PublicKey>().unwrap().to_string(), generator);
        let off_curve = "020000000000000000000000000000000000000000000000000000000000000005";
        assert!(off_curve.parse::<PublicKey>().is_err());
        assert!("00".parse::<PublicKey>().is_err());
    }

    #[test]
    fn identity_keys_must_be_canonical_spki() {
        let secret = p256::SecretKey::from_slice(&[7; 32]).unwrap();
        let spki = secret.public_key().to_public_key_der().unwrap();
        let key = IdentityKey::from_spki(spki.as_bytes()).unwrap();
        assert_eq!(key.to_string().parse::<IdentityKey>().unwrap(), key);
        let mut longer = spki.as_bytes().to_vec();
        longer.push(0);
        assert!(IdentityKey::from_spki(&longer).is_err());
    }
}
