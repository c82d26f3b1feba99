//! Key shares: what key generation leaves at a party, and what it signs with.

use std::fmt;

use cggmp21::generic_ec::{NonZero, SecretScalar};
use cggmp21::hd_wallet::{NonHardenedIndex, Slip10};
use cggmp21::key_share::{DirtyIncompleteKeyShare, DirtyKeyInfo, IncompleteKeyShare, Validate};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::public::compressed;
use super::{Curve, public};
use crate::aux::AuxInfo;
use crate::codec::{self, Caps};
use crate::error::MpcError;
use crate::levels::{Level, SecurityLevel128};

/// Version of the stored encodings.
const VERSION: u8 = 1;
/// Longest stored share, in bytes: about 8 kB for three parties, and some 2.5 kB for each further one.
const STORED_CAP: usize = 1 << 20;
/// Deepest derivation path, as in BIP-32.
const MAX_PATH: usize = 255;

/// What key generation leaves at one party: its secret share and the public key, without auxiliary info.
///
/// # Security
/// Secret. It is wiped when dropped, is not `Clone`, and prints without its secret.
pub struct DkgShare {
    core: IncompleteKeyShare<Curve>,
}

/// What one party signs with: a [`DkgShare`] and the committee's auxiliary info.
///
/// # Security
/// Secret. It is wiped when dropped (its integers by [`gmp_wipe`](crate::gmp_wipe)), is not `Clone`, and prints without
/// its secrets.
pub struct KeyShare<L: Level = SecurityLevel128> {
    share: cggmp21::KeyShare<Curve, L>,
    /// The auxiliary info in its stored form.
    aux: Zeroizing<Vec<u8>>,
    aux_digest: [u8; 32],
}

/// A [`DkgShare`] as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredDkg {
    version: u8,
    core: DirtyIncompleteKeyShare<Curve>,
}

/// A [`KeyShare`] as it is stored: its two parts as they are stored alone.
#[derive(Serialize, Deserialize)]
struct StoredShare {
    version: u8,
    #[serde(with = "secret_bytes")]
    dkg: Zeroizing<Vec<u8>>,
    #[serde(with = "secret_bytes")]
    aux: Zeroizing<Vec<u8>>,
}

impl DkgShare {
    /// Takes the protocol's result, after checking that it is the share that was asked for.
    pub(super) fn from_protocol(core: IncompleteKeyShare<Curve>, index: u16, t: u16, n: u16) -> Result<Self, MpcError> {
        let share = Self { core };
        if share.index() != index || share.t() != t || share.n() != n || share.check().is_err() {
            return Err(MpcError::Internal { step: "the result of key generation" });
        }
        Ok(share)
    }

    /// The joint public key, compressed (SEC 1, 33 bytes).
    pub fn public_key(&self) -> [u8; 33] {
        compressed(&self.core.shared_public_key)
    }

    /// The key's BIP-32 chain code.
    pub fn chain_code(&self) -> [u8; 32] {
        self.core.chain_code.unwrap_or_default()
    }

    /// This party's index among the key's holders, from 0.
    pub fn index(&self) -> u16 {
        self.core.i
    }

    /// How many shares sign together.
    pub fn t(&self) -> u16 {
        self.core.min_signers()
    }

    /// How many shares there are.
    pub fn n(&self) -> u16 {
        self.core.n()
    }

    /// The public keys of all shares by index, compressed.
    pub fn public_shares(&self) -> Vec<[u8; 33]> {
        self.core.public_shares.iter().map(|point| compressed(point)).collect()
    }

    /// The share in CBOR, for sealing.
    ///
    /// # Errors
    /// [`MpcError::Internal`] if the encoder fails, which it never does.
    ///
    /// # Security
    /// Plain secret bytes: they go into an authenticated encryption and nowhere else.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, MpcError> {
        let core = DirtyIncompleteKeyShare::clone(&self.core);
        stored(&StoredDkg { version: VERSION, core })
    }

    /// Loads what [`to_bytes`](Self::to_bytes) has written, with all checks again: the secret share fits its public
    /// share, the public shares interpolate to the public key
    /// at threshold `t` and not below, `2 ≤ t ≤ n`, points `1..=n`, and a chain code.
    ///
    /// # Errors
    /// [`MpcError::Corrupt`] with what does not hold.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MpcError> {
        let StoredDkg { version, core } = load(bytes)?;
        if version != VERSION {
            return Err(corrupt(format!("version {version} is unknown to this release")));
        }
        let core = core.validate().map_err(|error| corrupt(error.to_string()))?;
        let share = Self { core };
        share.check().map_err(corrupt)?;
        Ok(share)
    }

    /// Takes one party's result of a redistribution.
    ///
    /// # Errors
    /// What does not hold of the public side or between it and the secret share.
    pub(crate) fn from_redistribution(
        index: u16,
        key_info: DirtyKeyInfo<Curve>,
        x: NonZero<SecretScalar<Curve>>,
    ) -> Result<Self, String> {
        let core = DirtyIncompleteKeyShare { i: index, key_info, x }.validate().map_err(|error| error.to_string())?;
        let share = Self { core };
        share.check()?;
        Ok(share)
    }

    /// What the crate's own validation leaves open.
    fn check(&self) -> Result<(), &'static str> {
        public::check(&self.core.key_info)
    }
}

impl<L: Level> KeyShare<L> {
    /// Joins a share with the auxiliary info of its committee. One committee's auxiliary info serves all its keys.
    ///
    /// # Errors
    /// [`MpcError::Invalid`] if they do not belong to the same party of a committee of the same size.
    pub fn from_parts(dkg: DkgShare, aux: &AuxInfo<L>) -> Result<Self, MpcError> {
        if aux.n() != dkg.n() || aux.index() != dkg.index() {
            return Err(MpcError::invalid(format!(
                "auxiliary info of party {} of {} does not fit a share of party {} of {}",
                aux.index(),
                aux.n(),
                dkg.index(),
                dkg.n()
            )));
        }
        let share = cggmp21::KeyShare::from_parts((dkg.core, aux.validated()?))
            .map_err(|_| MpcError::invalid("share and auxiliary info do not fit together"))?;
        Ok(Self { share, aux: aux.to_bytes()?, aux_digest: aux.transcript_digest() })
    }

    /// The same share with other auxiliary info of the same committee, such as fresh numbers after a host was healed.
    /// All parties must change at once: signing needs the same numbers at all of them ([`aux_digest`](Self::aux_digest)).
    ///
    /// # Errors
    /// As [`from_parts`](Self::from_parts).
    pub fn with_aux(&self, aux: &AuxInfo<L>) -> Result<Self, MpcError> {
        let core = self.share.core.clone().validate();
        let core = core.map_err(|_| MpcError::Internal { step: "rejoining a key share" })?;
        Self::from_parts(DkgShare { core }, aux)
    }

    /// The auxiliary info in this share, with all checks on its numbers again. A refresh among the same parties can go on
    /// with it.
    ///
    /// # Errors
    /// [`MpcError::Corrupt`] with what does not hold.
    pub fn aux_info(&self) -> Result<AuxInfo<L>, MpcError> {
        AuxInfo::from_bytes(&self.aux)
    }

    /// The [`transcript_digest`](AuxInfo::transcript_digest) of the auxiliary info in this share. Shares that differ in it
    /// do not sign together.
    pub fn aux_digest(&self) -> [u8; 32] {
        self.aux_digest
    }

    /// The joint public key, compressed (SEC 1, 33 bytes).
    pub fn public_key(&self) -> [u8; 33] {
        compressed(&self.share.core.shared_public_key)
    }

    /// The public key of a child, compressed, after non-hardened derivation along `path` (BIP-32).
    ///
    /// # Errors
    /// [`MpcError::Invalid`] if the path is longer than 255 or an index is 2³¹ or more.
    pub fn child_public_key(&self, path: &[u32]) -> Result<[u8; 33], MpcError> {
        self.share
            .core
            .derive_child_public_key::<Slip10, _>(child_path(path)?)
            .map(|child| compressed(&child.public_key))
            .map_err(|_| MpcError::invalid("the derivation path cannot be used with this key"))
    }

    /// The key's BIP-32 chain code.
    pub fn chain_code(&self) -> [u8; 32] {
        self.share.core.chain_code.unwrap_or_default()
    }

    /// This party's index among the key's holders, from 0.
    pub fn index(&self) -> u16 {
        self.share.core.i
    }

    /// How many shares sign together.
    pub fn t(&self) -> u16 {
        self.share.core.vss_setup.as_ref().map_or_else(|| self.n(), |setup| setup.min_signers)
    }

    /// How many shares there are.
    pub fn n(&self) -> u16 {
        u16::try_from(self.share.core.public_shares.len()).unwrap_or(u16::MAX)
    }

    /// The public keys of all shares by index, compressed.
    pub fn public_shares(&self) -> Vec<[u8; 33]> {
        self.share.core.public_shares.iter().map(|point| compressed(point)).collect()
    }

    /// The share in CBOR, for sealing.
    ///
    /// # Errors
    /// [`MpcError::Internal`] if the encoder fails, which it never does.
    ///
    /// # Security
    /// Plain secret bytes: they go into an authenticated encryption and nowhere else.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, MpcError> {
        let dkg = stored(&StoredDkg { version: VERSION, core: self.share.core.clone() })?;
        stored(&StoredShare { version: VERSION, dkg, aux: self.aux.clone() })
    }

    /// Loads what [`to_bytes`](Self::to_bytes) has written, with all checks of both parts again, those on the parties' public
    /// numbers ([`numbers`](crate::aux::numbers)) included.
    ///
    /// # Errors
    /// [`MpcError::Corrupt`] with what does not hold.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MpcError> {
        let StoredShare { version, dkg, aux } = load(bytes)?;
        if version != VERSION {
            return Err(corrupt(format!("version {version} is unknown to this release")));
        }
        let dkg = DkgShare::from_bytes(&dkg)?;
        let aux = AuxInfo::from_bytes(&aux)?;
        Self::from_parts(dkg, &aux).map_err(|error| corrupt(error.to_string()))
    }

    /// The crate's form of the share.
    pub(super) fn inner(&self) -> &cggmp21::KeyShare<Curve, L> {
        &self.share
    }

    /// The secret share itself, for a dealer of a redistribution.
    pub(crate) fn secret(&self) -> &NonZero<SecretScalar<Curve>> {
        &self.share.core.x
    }

    /// The key's public side.
    pub(crate) fn key_info(&self) -> &DirtyKeyInfo<Curve> {
        &self.share.core.key_info
    }
}

impl fmt::Debug for DkgShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        redacted(f, "DkgShare", &self.public_key(), self.index(), self.t(), self.n())
    }
}

impl<L: Level> fmt::Debug for KeyShare<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        redacted(f, "KeyShare", &self.public_key(), self.index(), self.t(), self.n())
    }
}

/// Reads a derivation path as non-hardened child indices.
pub(super) fn child_path(path: &[u32]) -> Result<Vec<NonHardenedIndex>, MpcError> {
    if path.len() > MAX_PATH {
        return Err(MpcError::invalid(format!("a derivation path of {} steps; at most {MAX_PATH}", path.len())));
    }
    path.iter()
        .map(|index| {
            NonHardenedIndex::try_from(*index).map_err(|_| {
                MpcError::invalid(format!("child index {index} is hardened; this key derives below 2^31 only"))
            })
        })
        .collect()
}

fn redacted(f: &mut fmt::Formatter<'_>, name: &str, key: &[u8], index: u16, t: u16, n: u16) -> fmt::Result {
    write!(f, "{name}({t}-of-{n}, index {index}, key {}, secret redacted)", hex::encode(key))
}

fn stored(value: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, MpcError> {
    codec::encode(value).map(Zeroizing::new).map_err(|_| MpcError::Internal { step: "encoding a key share" })
}

fn load<T: Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, MpcError> {
    codec::decode(bytes, Caps { body: STORED_CAP, string: STORED_CAP }).map_err(|error| corrupt(error.to_string()))
}

fn corrupt(why: impl Into<std::borrow::Cow<'static, str>>) -> MpcError {
    MpcError::corrupt("a key share", why)
}

/// Byte strings that are wiped.
mod secret_bytes {
    use serde::{Deserialize, Deserializer, Serializer};
    use serde_bytes::ByteBuf;
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(bytes: &Zeroizing<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<Vec<u8>>, D::Error> {
        Ok(Zeroizing::new(ByteBuf::deserialize(from)?.into_vec()))
    }
}
