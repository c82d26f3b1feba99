//! API keys of business services. Only their hashes are stored.

use casemate_wire::Digest32;
use jiff::Timestamp;
use rand::RngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

const PREFIX: &str = "cmk";
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;

/// A stored key: what proves it, and who it was given to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiKey {
    /// The public part, by which the key is found.
    pub(crate) id: String,
    /// Who it was given to.
    pub(crate) name: String,
    /// SHA-256 of the whole key. The key is 256 random bits, so a plain hash is enough.
    pub(crate) hash: Digest32,
    pub(crate) created_at: Timestamp,
    pub(crate) revoked_at: Option<Timestamp>,
}

/// Why a caller is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// No key was sent.
    Missing,
    /// What was sent has not the form of a key.
    Malformed,
    /// No such key was ever made.
    Unknown,
    /// The key has been revoked.
    Revoked,
}

impl Rejection {
    /// The label in `mpc_auth_failures_total`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Revoked => "revoked",
        }
    }
}

impl ApiKey {
    /// Makes a key. The text is shown once to whoever it is for, and then exists nowhere here.
    pub(crate) fn generate(name: &str, now: Timestamp) -> (Self, Zeroizing<String>) {
        let mut id = [0; ID_BYTES];
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        OsRng.fill_bytes(&mut id);
        OsRng.fill_bytes(secret.as_mut());
        let id = hex::encode(id);
        let digits = Zeroizing::new(hex::encode(secret.as_ref()));
        let text = Zeroizing::new(format!("{PREFIX}_{id}_{}", digits.as_str()));
        let key = Self { id, name: name.to_owned(), hash: hash(&text), created_at: now, revoked_at: None };
        (key, text)
    }

    /// Whether `text` is this key and may be used; takes the same time for every wrong text.
    pub(crate) fn check(&self, text: &str) -> Result<(), Rejection> {
        if !bool::from(hash(text).0.ct_eq(&self.hash.0)) {
            return Err(Rejection::Unknown);
        }
        match self.revoked_at {
            Some(_) => Err(Rejection::Revoked),
            None => Ok(()),
        }
    }
}

/// The public part of a key's text.
pub(crate) fn id_of(text: &str) -> Result<&str, Rejection> {
    let parts: Vec<&str> = text.split('_').collect();
    let is_hex =
        |part: &str, bytes: usize| part.len() == 2 * bytes && part.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    match parts.as_slice() {
        [PREFIX, id, secret] if is_hex(id, ID_BYTES) && is_hex(secret, SECRET_BYTES) => Ok(id),
        _ => Err(Rejection::Malformed),
    }
}

fn hash(text: &str) -> Digest32 {
    Digest32(Sha256::digest(text.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_key_itself_passes_and_not_once_it_is_revoked() {
        let (mut key, text) = ApiKey::generate("shop", Timestamp::UNIX_EPOCH);
        assert_eq!(id_of(&text), Ok(key.id.as_str()));
        assert_eq!(key.check(&text), Ok(()));
        let (_, other) = ApiKey::generate("shop", Timestamp::UNIX_EPOCH);
        assert_eq!(key.check(&other), Err(Rejection::Unknown));
        key.revoked_at = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(key.check(&text), Err(Rejection::Revoked));
    }

    #[test]
    fn what_is_stored_does_not_hold_the_secret() {
        let (key, text) = ApiKey::generate("shop", Timestamp::UNIX_EPOCH);
        let secret = text.rsplit('_').next().unwrap();
        assert!(!format!("{key:?}").contains(secret));
    }

    #[test]
    fn texts_of_another_form_are_malformed() {
        for bad in ["", "cmk", "cmk__", "cmk_00_11", "abc_001122334455_x", "x y z"] {
            assert_eq!(id_of(bad), Err(Rejection::Malformed), "{bad}");
        }
    }
}
