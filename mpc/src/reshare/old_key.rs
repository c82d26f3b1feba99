//! The public facts of a key before its redistribution.

use cggmp21::key_share::DirtyKeyInfo;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::codec::{self, Caps};
use crate::ecdsa::public::{PublicPoint, compressed, key_info, read_point};
use crate::ecdsa::{Curve, KeyShare};
use crate::error::MpcError;
use crate::levels::Level;

/// The version of the encoding.
const VERSION: u8 = 1;
/// How errors name this object.
const OBJECT: &str = "the public facts of a key";
/// Longest encoding, in bytes: room for thousands of shares of 35 bytes.
const CAP: usize = 1 << 18;

/// What everybody in a redistribution knows of the key and its old shares. Two of them are equal exactly if their
/// encodings are.
///
/// Every value of this type holds together: `2 ≤ t ≤ n`, and the public shares at the points `1..=n` interpolate to the
/// public key at threshold `t` and not below.
///
/// # Security
/// Public, but who joins a committee has no past to check it against: it must be the same in statements of `t` old parties,
/// signed by their identity keys. Checking that is the caller's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Encoded", try_from = "Encoded")]
pub struct OldKey {
    public_key: PublicPoint,
    chain_code: [u8; 32],
    t: u16,
    epoch: u64,
    public_shares: Vec<PublicPoint>,
}

/// The encoding: CBOR, points compressed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Encoded {
    v: u8,
    public_key: ByteArray<33>,
    chain_code: ByteArray<32>,
    t: u16,
    epoch: u64,
    public_shares: Vec<ByteArray<33>>,
}

impl OldKey {
    /// The facts that a share knows. `epoch` counts the key's redistributions, from 1; a share does not know its own.
    pub fn from_share<L: Level>(share: &KeyShare<L>, epoch: u64) -> Self {
        let info = share.key_info();
        Self {
            public_key: info.shared_public_key,
            chain_code: share.chain_code(),
            t: share.t(),
            epoch,
            public_shares: info.public_shares.clone(),
        }
    }

    /// Joins the facts from their parts; points compressed, public shares by index.
    ///
    /// # Errors
    /// [`MpcError::Invalid`] with what does not hold together.
    pub fn new(
        public_key: &[u8; 33],
        chain_code: [u8; 32],
        t: u16,
        epoch: u64,
        public_shares: &[[u8; 33]],
    ) -> Result<Self, MpcError> {
        Self::checked(public_key, chain_code, t, epoch, public_shares.iter())
            .map_err(|why| MpcError::invalid(format!("the facts of the key do not hold together: {why}")))
    }

    fn checked<'a>(
        public_key: &[u8; 33],
        chain_code: [u8; 32],
        t: u16,
        epoch: u64,
        public_shares: impl Iterator<Item = &'a [u8; 33]>,
    ) -> Result<Self, String> {
        let public_key = read_point(public_key).ok_or("the public key is no compressed point")?;
        let public_shares: Vec<PublicPoint> =
            public_shares.map(read_point).collect::<Option<_>>().ok_or("a public share is no compressed point")?;
        key_info(public_key, chain_code, t, public_shares.clone())?;
        Ok(Self { public_key, chain_code, t, epoch, public_shares })
    }

    /// The joint public key, compressed (SEC 1, 33 bytes).
    pub fn public_key(&self) -> [u8; 33] {
        compressed(&self.public_key)
    }

    /// The key's BIP-32 chain code.
    pub fn chain_code(&self) -> [u8; 32] {
        self.chain_code
    }

    /// How many old shares sign together.
    pub fn t(&self) -> u16 {
        self.t
    }

    /// How many old shares there are.
    pub fn n(&self) -> u16 {
        u16::try_from(self.public_shares.len()).unwrap_or(u16::MAX)
    }

    /// The epoch of the old shares; the new ones are of the next.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The public keys of all old shares by index, compressed.
    pub fn public_shares(&self) -> Vec<[u8; 33]> {
        self.public_shares.iter().map(|share| compressed(share)).collect()
    }

    /// The one encoding, in CBOR. It is what old parties sign, and what a new party compares.
    ///
    /// # Errors
    /// [`MpcError::Internal`] if the encoder fails, which it never does.
    pub fn to_bytes(&self) -> Result<Vec<u8>, MpcError> {
        codec::encode(self).map_err(|_| MpcError::Internal { step: "encoding the facts of a key" })
    }

    /// Reads [`to_bytes`](Self::to_bytes), and nothing that is encoded otherwise.
    ///
    /// # Errors
    /// [`MpcError::Corrupt`] with what does not hold.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MpcError> {
        codec::decode(bytes, Caps { body: CAP, string: CAP })
            .map_err(|error| MpcError::corrupt(OBJECT, error.to_string()))
    }

    /// Whether these are the facts of `share`, as far as a share knows them.
    pub(super) fn is_of<L: Level>(&self, share: &KeyShare<L>) -> bool {
        *self == Self::from_share(share, self.epoch)
    }

    /// The joint public key.
    pub(super) fn key(&self) -> &PublicPoint {
        &self.public_key
    }

    /// The public key of one old share.
    pub(super) fn public_share(&self, index: u16) -> Option<&PublicPoint> {
        self.public_shares.get(usize::from(index))
    }

    /// The public side of the same key with other shares.
    pub(super) fn with_shares(&self, t: u16, public_shares: Vec<PublicPoint>) -> Result<DirtyKeyInfo<Curve>, String> {
        key_info(self.public_key, self.chain_code, t, public_shares)
    }
}

impl From<OldKey> for Encoded {
    fn from(key: OldKey) -> Self {
        Self {
            v: VERSION,
            public_key: ByteArray::new(key.public_key()),
            chain_code: ByteArray::new(key.chain_code),
            t: key.t,
            epoch: key.epoch,
            public_shares: key.public_shares().into_iter().map(ByteArray::new).collect(),
        }
    }
}

impl TryFrom<Encoded> for OldKey {
    type Error = String;

    fn try_from(encoded: Encoded) -> Result<Self, String> {
        let Encoded { v, public_key, chain_code, t, epoch, public_shares } = encoded;
        if v != VERSION {
            return Err(format!("version {v} is unknown to this release"));
        }
        let shares = public_shares.iter().map(|share| &**share);
        Self::checked(&public_key, chain_code.into_array(), t, epoch, shares)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::super::attacks::OldShares;
    use super::*;

    #[test]
    fn what_was_encoded_is_read_and_equal() {
        let old = OldShares::deal(2, 3).facts();
        let bytes = old.to_bytes().unwrap();
        assert_eq!(OldKey::from_bytes(&bytes).unwrap(), old);
        for end in 0..bytes.len() {
            assert!(OldKey::from_bytes(&bytes[..end]).is_err(), "cut at {end}");
        }
        assert!(OldKey::from_bytes(&[&bytes[..], &[0]].concat()).is_err(), "a byte more");
    }

    #[test]
    fn facts_that_do_not_hold_together_are_refused() {
        let (old, other) = (OldShares::deal(2, 4).facts(), OldShares::deal(2, 4).facts());
        let shares = old.public_shares();
        let new = |key: &OldKey, t, shares: &[[u8; 33]]| OldKey::new(&key.public_key(), [7; 32], t, 1, shares);
        assert!(new(&old, 2, &shares).is_ok());
        assert!(new(&other, 2, &shares).is_err(), "another key");
        assert!(new(&old, 3, &shares).is_err(), "a larger threshold");
        assert!(new(&old, 1, &shares).is_err(), "a smaller threshold");
        let mut swapped = shares.clone();
        swapped.swap(2, 3);
        assert!(new(&old, 2, &swapped).is_err(), "swapped shares");
        let mut foreign = shares.clone();
        foreign[3] = other.public_shares()[3];
        assert!(new(&old, 2, &foreign).is_err(), "a foreign share");
        let mut no_point = shares;
        no_point[0] = [0; 33];
        assert!(new(&old, 2, &no_point).is_err(), "no point");
    }
}
