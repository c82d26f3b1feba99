//! Makes a backup: each share's DEK is opened by the HSM and wrapped under the backup key; bodies are copied as they lie.

use casemate_attest::At;
use casemate_hsm::Secret32;
use casemate_policy::bundle::Recipients;
use casemate_wire::{Digest32, IdentityKey, PartyId};
use jiff::Timestamp;
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

use super::format::{Body, BundleName, Entry, Head, Known, Proof, Stored};
use super::{BackupError, BackupId, CustodyError, FormatError, custody};
use crate::entries::DekEntries;
use crate::sealing::{SealError, Unwrapped, unwrap_any};
use crate::store::ShareRow;
use crate::vault::Vault;

/// What a backup is made of.
pub struct Source<'a> {
    /// Whose shares.
    pub party: PartyId,
    /// The identity key of this HSM.
    pub identity: IdentityKey,
    /// A signed checkpoint of the log, after everything that the rows show.
    pub checkpoint: &'a casemate_attest::SignedCheckpoint,
    /// The bundle that is active.
    pub bundle: BundleName,
    /// Whom that bundle names.
    pub recipients: &'a Recipients,
    /// All shares that have a body.
    pub rows: Vec<ShareRow>,
}

/// A backup that was made.
pub struct Made {
    /// The file.
    pub file: Vec<u8>,
    /// Its name.
    pub id: BackupId,
    /// SHA-256 of the file.
    pub digest: Digest32,
    /// The ids of the shares in it.
    pub shares: Vec<String>,
}

/// Makes a backup. Nothing is written anywhere.
///
/// # Errors
/// [`BackupError`]: there are no shares or no custodians, the HSM is away, or a share's DEK does not open.
///
/// # Security
/// The backup key and each DEK are in memory until their part is done, and wiped. No share is opened.
pub async fn make(hsm: &Vault, source: Source<'_>) -> Result<Made, BackupError> {
    let Source { party, identity, checkpoint, bundle, recipients, rows } = source;
    if rows.is_empty() {
        return Err(BackupError::Nothing);
    }
    if recipients.threshold().is_none() {
        return Err(CustodyError::NoCustodians.into());
    }
    let key = Secret32::random()?;
    let id = Proof::by(&key).id();
    let (threshold, custodians, pieces) = custody::split(&key, &id, recipients)?;
    let mut shares = Vec::with_capacity(rows.len());
    for row in rows {
        let (stored, dek) = opened(hsm, row).await?;
        shares.push(Entry::wrap(stored, &dek, &id, &key)?);
    }
    let ids = shares.iter().map(|entry| entry.known.id.clone()).collect();
    let made_at = At::new(Timestamp::now()).map_err(|e| FormatError::Unwritable(e.to_string()))?;
    let place = checkpoint.checkpoint();
    let log = casemate_attest::Place { log: place.log.clone(), size: place.size, root: place.root };
    let checkpoint = checkpoint.note().to_owned();
    let head = Head { id: id.clone(), party, identity, made_at, log, checkpoint, bundle, threshold, custodians };
    let pieces: Vec<ByteBuf> = pieces;
    let file = Body { head, pieces, shares }.seal(&key)?;
    let digest = crate::digest(&file);
    Ok(Made { file, id, digest, shares: ids })
}

async fn opened(hsm: &Vault, row: ShareRow) -> Result<(Stored, Secret32), BackupError> {
    let share = row.id.clone();
    let failed = |why| BackupError::Share { share: share.clone(), why };
    let damaged = |why| failed(SealError::Damaged { what: "share", why });
    let sealed = row.material.held().ok_or_else(|| damaged("its body was destroyed"))?.clone();
    let entries = DekEntries::read(&sealed.deks).ok_or_else(|| damaged("its wrapped keys cannot be read"))?;
    let dek = match unwrap_any(hsm, &Sha256::digest(&sealed.header), &entries).await? {
        Unwrapped::Key(dek) => dek,
        Unwrapped::Rejected => return Err(damaged("its wrapped key does not belong to its header")),
        Unwrapped::OtherHsm(unknown) => return Err(failed(unknown.into())),
        Unwrapped::Nothing => return Err(damaged("it has no wrapped key")),
    };
    let known = Known {
        id: row.id,
        state: row.status,
        session: row.session_id,
        created_at: row.created_at,
        statement: row.statement,
        certificate: row.certificate,
        endorsements: row.endorsements,
    };
    Ok((Stored { known, header: sealed.header, nonce: sealed.nonce, body: sealed.body }, dek))
}
