//! The backup file.
//!
//! ```text
//! file  = CBOR {format, body, checksum, nonce, seal}
//! body  = CBOR {head, pieces, shares}
//! ```
//!
//! `checksum` is the body's SHA-256: it tells damage from wrong keys. `seal` is an AES-256-GCM tag under the backup key with
//! the body's SHA-256 as AAD: it alone proves the body, head, pieces, order and number of shares included. Each share's DEK is
//! wrapped under the backup key with an AAD over the backup's id and all that stands beside it, so that no entry fits another
//! place or file.

use std::fmt;

use aes_gcm::Nonce;
use aes_gcm::aead::Payload;
use casemate_attest::life::ShareState;
use casemate_attest::{At, Place};
use casemate_hsm::Secret32;
use casemate_wire::rotation::Endorsement;
use casemate_wire::{Digest32, IdentityKey, KeyCertificate, KeyStatement, PartyId, SessionId};
use rand::RngCore;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf, Bytes};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::sealing::cipher;

/// The one value of `format`.
const FORMAT: &str = "casemate/backup/v1";
const SHARE: &str = "casemate/backup-share/v1";
const PROOF: &str = "casemate/backup-verified/v1";
const ID: &str = "casemate/backup-id/v1";

/// The largest file that is looked at, in bytes: room for some 20 000 shares of three parties.
pub const MAX_FILE: usize = 256 * 1024 * 1024;

/// Why a file is no backup, or not one that was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Not a backup file at all.
    #[error("it is not a backup file of this release: {0}")]
    NotABackup(String),
    /// It was one.
    #[error("the backup file is damaged: {0}; use another copy of it")]
    Damaged(&'static str),
    /// It was made or changed by somebody who does not know its key.
    #[error("the backup file was altered after it was made: {0}; use another copy of it")]
    Altered(&'static str),
    /// It cannot be written.
    #[error("the backup cannot be written: {0}")]
    Unwritable(String),
}

/// A backup's name: it commits to the backup key, so that only who has opened a backup can say that it opens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

/// Who shows this for a backup has opened it: it takes the backup key to make, and does not give it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Proof(Digest32);

impl Proof {
    pub(super) fn by(key: &Secret32) -> Self {
        Self(hashed(PROOF, &[key.expose()]))
    }

    /// The backup that it proves.
    pub fn id(&self) -> BackupId {
        let whole = hashed(ID, &[&self.0.0]).to_string();
        BackupId(whole.chars().take(BackupId::LENGTH).collect())
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for Proof {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("{text:?} is no backup's proof: 64 hex digits"))
    }
}

impl BackupId {
    /// Hex digits: 128 bits.
    const LENGTH: usize = 32;

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for BackupId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if digits && text.len() == Self::LENGTH { Ok(Self(text)) } else { Err(format!("{text:?} is no backup's id")) }
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> Self {
        id.0
    }
}

/// What stands at the beginning of a backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The backup's name.
    pub id: BackupId,
    /// Whose shares.
    pub party: PartyId,
    /// The identity key of the HSM that they were sealed on.
    pub identity: IdentityKey,
    /// When it was made.
    pub made_at: At,
    /// Where that appliance's audit log stood.
    pub log: Place,
    /// The checkpoint over that place, as its audit key signed it.
    pub checkpoint: String,
    /// The policy bundle that allowed it and named the custodians.
    pub bundle: BundleName,
    /// Pieces that open it.
    pub threshold: u8,
    /// Who holds one, in the order of the pieces.
    pub custodians: Vec<Custodian>,
}

/// A policy bundle by version and digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleName {
    /// Its version.
    pub version: u64,
    /// The digest that was signed.
    pub digest: Digest32,
}

/// Somebody who holds a piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custodian {
    /// By the signed bundle.
    pub name: String,
    /// The age recipient that the piece is encrypted to.
    pub recipient: String,
    /// SHA-256 of the piece in the clear: it tells a false piece from a true one.
    pub piece: Digest32,
}

/// One share: its body as it lay in the store, its DEK under the backup key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What is known of it.
    pub known: Known,
    /// The authenticated header, as stored.
    #[serde(with = "serde_bytes")]
    pub header: Vec<u8>,
    /// The body's nonce.
    pub nonce: ByteArray<12>,
    /// The body under its DEK, as stored.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
    /// The nonce of the DEK's wrapping.
    dek_nonce: ByteArray<12>,
    /// The DEK under the backup key.
    #[serde(with = "serde_bytes")]
    dek: Vec<u8>,
}

/// What is known of a share beside its header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Its id.
    pub id: String,
    /// Where it stood.
    pub state: ShareState,
    /// The session that made it.
    pub session: SessionId,
    /// RFC 3339.
    pub created_at: String,
    /// What its party states of the key.
    pub statement: KeyStatement,
    /// All parties' signatures over that, if they were there.
    pub certificate: Option<KeyCertificate>,
    /// The dealers' signatures, if a rotation made it.
    pub endorsements: Vec<Endorsement>,
}

/// All of a backup but its seal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    pub(super) head: Head,
    /// One age file for each custodian, in their order.
    pub(super) pieces: Vec<ByteBuf>,
    pub(super) shares: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
    checksum: ByteArray<32>,
    nonce: ByteArray<12>,
    seal: ByteArray<16>,
}

/// A backup as it was read: whole, but not yet proven to be what was made.
pub struct Backup {
    pub(super) body: Body,
    context: [u8; 32],
    nonce: [u8; 12],
    seal: [u8; 16],
    digest: Digest32,
}

impl Backup {
    /// Reads a file. Nothing of it is proven before [`super::Opened`] stands.
    ///
    /// # Errors
    /// [`FormatError`]: it is too large, no backup, damaged, or not in its one encoding.
    pub fn read(file: &[u8]) -> Result<Self, FormatError> {
        if file.len() > MAX_FILE {
            return Err(FormatError::NotABackup(format!("it has more than {MAX_FILE} bytes")));
        }
        let parsed: File = decoded(file).map_err(FormatError::NotABackup)?;
        if parsed.format != FORMAT {
            return Err(FormatError::NotABackup("its format is another".into()));
        }
        let context: [u8; 32] = Sha256::digest(&parsed.body).into();
        if context != *parsed.checksum {
            return Err(FormatError::Damaged("its checksum is wrong"));
        }
        if encoded(&parsed)? != file {
            return Err(FormatError::NotABackup("it is not in the one encoding that backups have".into()));
        }
        let body: Body = decoded(&parsed.body).map_err(FormatError::NotABackup)?;
        if encoded(&body)? != parsed.body {
            return Err(FormatError::NotABackup("its body is not in the one encoding that backups have".into()));
        }
        let head = &body.head;
        if body.pieces.len() != head.custodians.len() || usize::from(head.threshold) > head.custodians.len() {
            return Err(FormatError::NotABackup("its pieces and custodians do not fit each other".into()));
        }
        let (nonce, seal) = (parsed.nonce.into_array(), parsed.seal.into_array());
        Ok(Self { body, context, nonce, seal, digest: crate::digest(file) })
    }

    /// What it says at its beginning. Unproven.
    pub fn head(&self) -> &Head {
        &self.body.head
    }

    /// SHA-256 of the file: what audit logs know the backup by.
    pub fn digest(&self) -> Digest32 {
        self.digest
    }

    /// How many shares are in it. Unproven.
    pub fn size(&self) -> usize {
        self.body.shares.len()
    }

    /// Whether `key` made this very file.
    pub(super) fn check_seal(&self, key: &Secret32) -> Result<(), FormatError> {
        let sealed = Payload { msg: &self.seal, aad: &self.context };
        let opened = cipher(key).decrypt(Nonce::from_slice(&self.nonce), sealed);
        opened.map(|_| ()).map_err(|_| FormatError::Altered("its seal is not by its own key"))
    }
}

impl Body {
    /// The file, sealed by the backup key.
    pub(super) fn seal(&self, key: &Secret32) -> Result<Vec<u8>, FormatError> {
        let body = encoded(self)?;
        let context: [u8; 32] = Sha256::digest(&body).into();
        let nonce = fresh();
        let sealed = cipher(key)
            .encrypt(Nonce::from_slice(&nonce), Payload { msg: &[], aad: &context })
            .ok()
            .and_then(|tag| <[u8; 16]>::try_from(tag).ok())
            .ok_or_else(|| FormatError::Unwritable("it cannot be sealed".into()))?;
        let file =
            File { format: FORMAT.into(), body, checksum: context.into(), nonce: nonce.into(), seal: sealed.into() };
        let file = encoded(&file)?;
        if file.len() > MAX_FILE {
            return Err(FormatError::Unwritable(format!("it would have more than {MAX_FILE} bytes")));
        }
        Ok(file)
    }
}

/// A share on its way into a backup: everything but its DEK's wrapping.
pub(super) struct Stored {
    pub(super) known: Known,
    pub(super) header: Vec<u8>,
    pub(super) nonce: [u8; 12],
    pub(super) body: Vec<u8>,
}

impl Entry {
    /// Wraps a share's DEK under the backup key.
    pub(super) fn wrap(stored: Stored, dek: &Secret32, id: &BackupId, key: &Secret32) -> Result<Self, FormatError> {
        let Stored { known, header, nonce, body } = stored;
        let nonce = nonce.into();
        let dek_nonce = fresh();
        let mut entry = Self { known, header, nonce, body, dek_nonce: dek_nonce.into(), dek: Vec::new() };
        let aad = entry.context(id)?;
        entry.dek = cipher(key)
            .encrypt(Nonce::from_slice(&dek_nonce), Payload { msg: dek.expose(), aad: &aad })
            .map_err(|_| FormatError::Unwritable("a share's key cannot be wrapped".into()))?;
        Ok(entry)
    }

    /// The share's DEK.
    pub(super) fn unwrap(&self, id: &BackupId, key: &Secret32) -> Result<Secret32, FormatError> {
        let altered = FormatError::Altered("a share's wrapped key does not belong to it");
        let aad = self.context(id)?;
        let payload = Payload { msg: &self.dek, aad: &aad };
        let nonce = self.dek_nonce.into_array();
        let dek = cipher(key).decrypt(Nonce::from_slice(&nonce), payload).map(Zeroizing::new);
        dek.ok().and_then(|dek| Secret32::from_slice(&dek)).ok_or(altered)
    }

    /// The share in the clear.
    pub(super) fn open(&self, id: &BackupId, key: &Secret32) -> Result<Zeroizing<Vec<u8>>, FormatError> {
        let dek = self.unwrap(id, key)?;
        let payload = Payload { msg: &self.body, aad: &Sha256::digest(&self.header) };
        let nonce = self.nonce.into_array();
        let plain = cipher(&dek).decrypt(Nonce::from_slice(&nonce), payload);
        plain.map(Zeroizing::new).map_err(|_| FormatError::Altered("a share does not belong to its header and key"))
    }

    /// What the wrapping of the DEK is bound to.
    fn context(&self, id: &BackupId) -> Result<[u8; 32], FormatError> {
        let body = Sha256::digest(&self.body);
        let (header, body) = (Bytes::new(&self.header), Bytes::new(&body));
        let bytes = encoded(&(SHARE, id, &self.known, header, self.nonce, body))?;
        Ok(Sha256::digest(bytes).into())
    }
}

fn hashed(domain: &str, parts: &[&[u8]]) -> Digest32 {
    let mut hash = Sha256::new();
    hash.update(domain);
    hash.update([0]);
    for part in parts {
        hash.update(part);
    }
    Digest32(hash.finalize().into())
}

fn fresh() -> [u8; 12] {
    let mut nonce = [0; 12];
    OsRng.fill_bytes(&mut nonce);
    nonce
}

pub(super) fn encoded<T: Serialize>(value: &T) -> Result<Vec<u8>, FormatError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(|e| FormatError::Unwritable(e.to_string()))?;
    Ok(bytes)
}

pub(super) fn decoded<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, String> {
    let mut rest = bytes;
    let value = ciborium::from_reader(&mut rest).map_err(|e| e.to_string())?;
    if rest.is_empty() { Ok(value) } else { Err("something follows its end".into()) }
}
