//! Nonces: what makes a token fresh for whoever asked.

use std::fmt;
use std::str::FromStr;

/// 8 to 64 bytes that the asker drew at random for one question (RFC 9711, section 4.1). Hex as text; a leading `0x` is read.
#[derive(Clone, PartialEq, Eq)]
pub struct Nonce(Vec<u8>);

/// The nonces of one token: 1 to 16, so that one token can answer a whole session's peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonces(Vec<Nonce>);

/// Why nonces cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNonce {
    /// Not hex.
    #[error("the nonce is not hex; give 8 to 64 random bytes as 16 to 128 hex digits")]
    NotHex,
    /// Too short to be unpredictable, or longer than a receiver must take.
    #[error("the nonce has {0} bytes; give 8 to 64 random bytes")]
    Length(usize),
    /// None, or more than a token takes.
    #[error("there are {0} nonces; a token takes 1 to 16")]
    Count(usize),
}

impl Nonce {
    /// Takes 8 to 64 bytes.
    ///
    /// # Errors
    /// [`InvalidNonce::Length`].
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, InvalidNonce> {
        let bytes = bytes.into();
        if (8..=64).contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(InvalidNonce::Length(bytes.len())) }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Nonces {
    /// The most that one token takes.
    pub const MOST: usize = 16;

    /// Takes 1 to 16 nonces, in the order given.
    ///
    /// # Errors
    /// [`InvalidNonce::Count`].
    pub fn new(nonces: Vec<Nonce>) -> Result<Self, InvalidNonce> {
        if (1..=Self::MOST).contains(&nonces.len()) { Ok(Self(nonces)) } else { Err(InvalidNonce::Count(nonces.len())) }
    }

    /// In their order.
    pub fn all(&self) -> &[Nonce] {
        &self.0
    }

    /// Whether this nonce is among them.
    pub fn answer(&self, nonce: &Nonce) -> bool {
        self.0.contains(nonce)
    }
}

impl From<Nonce> for Nonces {
    fn from(nonce: Nonce) -> Self {
        Self(vec![nonce])
    }
}

impl FromStr for Nonce {
    type Err = InvalidNonce;
    fn from_str(text: &str) -> Result<Self, InvalidNonce> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        Self::new(hex::decode(digits).map_err(|_| InvalidNonce::NotHex)?)
    }
}
impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}
impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_nonce_has_8_to_64_bytes() {
        assert_eq!(Nonce::new(vec![0; 7]), Err(InvalidNonce::Length(7)));
        assert!(Nonce::new(vec![0; 8]).is_ok() && Nonce::new(vec![0; 64]).is_ok());
        assert_eq!(Nonce::new(vec![0; 65]), Err(InvalidNonce::Length(65)));
        assert_eq!("0011".parse::<Nonce>(), Err(InvalidNonce::Length(2)));
        assert_eq!("00112233445566zz".parse::<Nonce>(), Err(InvalidNonce::NotHex));
        assert_eq!("0x00112233445566AA".parse::<Nonce>().unwrap().to_string(), "00112233445566aa");
    }

    #[test]
    fn a_token_takes_1_to_16_nonces() {
        let one = Nonce::new(vec![1; 8]).unwrap();
        assert_eq!(Nonces::new(Vec::new()), Err(InvalidNonce::Count(0)));
        assert!(Nonces::new(vec![one.clone(); 16]).is_ok());
        assert_eq!(Nonces::new(vec![one; 17]), Err(InvalidNonce::Count(17)));
    }
}
