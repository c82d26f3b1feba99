//! What a token says, as plain data.

use casemate_wire::{Digest32, IdentityKey, PartyId};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::nonce::Nonces;
use super::quote::Quote;
use crate::text::{LogId, Text};

/// The longest time for which a token may be valid, in seconds.
pub const MAX_LIFETIME: i64 = 300;

/// Everything that one token says. `docs/attestation.md` gives each claim's place and form in the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The nonces that it answers.
    pub nonces: Nonces,
    /// When it was made, by that host's wall clock; whole seconds.
    pub issued_at: Timestamp,
    /// Until when it is good: at most [`MAX_LIFETIME`] later.
    pub expires_at: Timestamp,
    /// Which appliance it is, for all its life.
    pub ueid: Ueid,
    /// The kind of HSM: see [`hardware_model`].
    pub hwmodel: [u8; 32],
    /// How many times the daemon has started on its audit log.
    pub boots: u64,
    /// The version of `casemated`.
    pub version: Text,
    /// Digests of what runs and of what it obeys.
    pub measurements: Measurements,
    /// The appliance's name.
    pub party: PartyId,
    /// Where its audit log stands.
    pub audit: AuditClaim,
    /// The HSM token.
    pub token: TokenClaim,
    /// The key that wraps its share keys.
    pub kek: KekClaim,
    /// SHA-256 of the SubjectPublicKeyInfo of its TLS server certificate.
    pub tls_spki: Digest32,
    /// A TPM's word on how the host was started, where one is configured.
    pub quote: Option<Quote>,
}

/// SHA-256 digests of what runs and of what it obeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measurements {
    /// The daemon's program file, as read when it started.
    pub binary: Digest32,
    /// The configuration file, as it was loaded.
    pub config: Digest32,
    /// The manifest of the active policy bundle, which holds the hashes of its files; `None` while no bundle is active.
    pub policy: Option<Digest32>,
}

/// Where the audit log stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditClaim {
    /// Its name, the origin of its checkpoints.
    pub origin: LogId,
    /// How many leaves it has.
    pub size: u64,
    /// The root over them.
    pub root: Digest32,
}

/// What the HSM token says of itself (`CK_TOKEN_INFO`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenClaim {
    /// Its model.
    pub model: Text,
    /// Its serial number.
    pub serial: Text,
    /// Its firmware version, `major.minor`.
    pub firmware: Text,
}

/// The key-encryption key that wraps now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KekClaim {
    /// Its `CKA_ID` as text, for example `kek/1`.
    pub label: Text,
    /// Its epoch.
    pub epoch: u32,
}

/// A universal entity id of the kind RAND (RFC 9711, section 4.2.1): one byte `0x01` and 32 more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ueid([u8; 33]);

/// Why claims cannot be put into a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClaims {
    /// The times do not fit together.
    #[error("the token's times are not valid: it must expire 1 to 300 s after it was made, and hold whole seconds")]
    Times,
    /// A quote with more than it may hold.
    #[error("the TPM quote does not fit into a token: {0}")]
    Quote(&'static str),
    /// It cannot be written, or is too long.
    #[error("the claims cannot be written as a token: {0}")]
    Encoding(String),
    /// The signature is not one of the key over this token.
    #[error("the HSM's signature does not verify under the attest key that it named before; restart the daemon")]
    Signature,
}

impl Claims {
    pub(super) fn check(&self) -> Result<(), InvalidClaims> {
        let (from, to) = (self.issued_at.as_second(), self.expires_at.as_second());
        let whole = self.issued_at.subsec_nanosecond() == 0 && self.expires_at.subsec_nanosecond() == 0;
        let life = to.checked_sub(from).ok_or(InvalidClaims::Times)?;
        if !whole || from < 0 || !(1..=MAX_LIFETIME).contains(&life) {
            return Err(InvalidClaims::Times);
        }
        self.quote.as_ref().map_or(Ok(()), |quote| quote.check().map_err(InvalidClaims::Quote))
    }
}

impl Ueid {
    /// The id of the appliance that has this identity key: it is as permanent as that key is.
    pub fn of(identity: &IdentityKey) -> Self {
        let hash = Sha256::new_with_prefix(b"casemate/ueid/v1\0").chain_update(identity.spki()).finalize();
        let mut id = [0x01; 33];
        id.iter_mut().skip(1).zip(hash).for_each(|(to, from)| *to = from);
        Self(id)
    }

    /// Takes an id of exactly this kind.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let id: [u8; 33] = bytes.try_into().ok()?;
        (id.first() == Some(&0x01)).then_some(Self(id))
    }

    /// All 33 bytes.
    pub fn as_bytes(&self) -> &[u8; 33] {
        &self.0
    }
}

/// The `hwmodel` of an appliance whose HSM names itself so: a hash, since the claim must be opaque (RFC 9711, section
/// 4.2.4).
pub fn hardware_model(manufacturer: &str, model: &str) -> [u8; 32] {
    let hash = Sha256::new_with_prefix(b"casemate/hwmodel/v1\0").chain_update(manufacturer);
    hash.chain_update([0]).chain_update(model).finalize().into()
}

/// A moment cut to whole seconds, as a token holds it.
pub fn now_in_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
