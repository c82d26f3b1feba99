//! A 256-bit key in host memory.

use std::fmt;

use rand_core::{OsRng, RngCore};
use secrecy::{ExposeSecret, SecretBox};

use crate::error::HsmError;

/// A 256-bit key: on the heap, wiped on drop, printed as redacted, and neither `Clone` nor `Serialize`.
pub struct Secret32(SecretBox<[u8; 32]>);

impl Secret32 {
    /// Fills a new key in place, so that no copy stays on the stack. It starts as zeroes.
    pub fn fill(fill: impl FnOnce(&mut [u8; 32])) -> Self {
        Self(SecretBox::init_with_mut(fill))
    }

    /// A fresh key from the operating system's generator.
    ///
    /// # Errors
    /// [`HsmError::NoRandomness`] when the operating system gives none.
    pub fn random() -> Result<Self, HsmError> {
        let mut outcome = Ok(());
        let key = Self::fill(|bytes| outcome = OsRng.try_fill_bytes(bytes));
        outcome.map(|()| key).map_err(|_| HsmError::NoRandomness)
    }

    /// Copies a key of exactly 32 bytes; `None` for any other length. The caller wipes its own copy.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 32] = bytes.try_into().ok()?;
        Some(Self::fill(|key| key.copy_from_slice(bytes)))
    }

    /// The key's bytes.
    ///
    /// # Security
    /// A copy of these bytes is no longer wiped by this type.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }

    pub(crate) fn duplicate(&self) -> Self {
        Self::fill(|key| key.copy_from_slice(self.expose()))
    }
}

impl fmt::Debug for Secret32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret32([REDACTED])")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn printing_a_key_shows_nothing_of_it() {
        assert_eq!(format!("{:?}", Secret32::fill(|k| k.fill(7))), "Secret32([REDACTED])");
    }

    #[test]
    fn only_32_bytes_make_a_key() {
        assert!(Secret32::from_slice(&[1; 31]).is_none());
        assert!(Secret32::from_slice(&[1; 33]).is_none());
        assert_eq!(Secret32::from_slice(&[1; 32]).unwrap().expose(), &[1; 32]);
    }

    #[test]
    fn random_keys_differ() {
        assert_ne!(Secret32::random().unwrap().expose(), Secret32::random().unwrap().expose());
    }
}
