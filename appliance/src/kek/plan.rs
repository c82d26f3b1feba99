//! What every row's entries are to be, and one row's way there.

use std::collections::BTreeSet;

use casemate_hsm::{HsmError, KeyPurpose, RecoveryEntry, RecoveryHsm, Secret32, WrappedKey};
use casemate_wire::ids::InvalidId;
use casemate_wire::{IdentityKey, RecoveryKey};
use sha2::{Digest, Sha256};

use super::KekError;
use crate::entries::{DekEntries, DekEntry, recovery_name};
use crate::sealing::{Unwrapped, unwrap_any};
use crate::store::EntriesRow;
use crate::vault::Vault;

/// What the entries of every row are to be: one under the current KEK of each of some HSMs, one for each recovery HSM, and
/// nothing else. A DEK that is needed for that is opened where it can be.
pub struct Plan<'a> {
    keep: Vec<&'a Vault>,
    opens: Vec<&'a Vault>,
    recovery: Option<(&'a RecoveryHsm, &'a IdentityKey)>,
    /// Signs the entries for recovery HSMs.
    sealer: &'a Vault,
    identity: IdentityKey,
    recipients: &'a [RecoveryKey],
}

/// What one row's entries become.
pub enum Renewal {
    /// They are as they are to be.
    Current,
    /// They are replaced by these.
    Entries(NewEntries),
    /// None of them opens, for this reason. They are left as they are.
    Unopened(String),
}

/// New entries of a row, and what they change.
pub struct NewEntries {
    /// The entries, as stored.
    pub column: Vec<u8>,
    /// Of what the row loses an entry, by name.
    pub removed: BTreeSet<String>,
    /// Of what it gets one.
    pub added: BTreeSet<String>,
}

impl<'a> Plan<'a> {
    /// The current KEK of this HSM, and these recovery HSMs.
    ///
    /// # Errors
    /// The HSM's identity key cannot be used.
    pub fn here(hsm: &'a Vault, recipients: &'a [RecoveryKey]) -> Result<Self, InvalidId> {
        Self::of(vec![hsm], vec![hsm], None, (hsm, recipients))
    }

    /// The current KEK of this HSM and that of another, on which the rows then open as well.
    ///
    /// # Errors
    /// As [`Plan::here`].
    pub fn beside(hsm: &'a Vault, other: &'a Vault, recipients: &'a [RecoveryKey]) -> Result<Self, InvalidId> {
        Self::of(vec![hsm, other], vec![hsm], None, (hsm, recipients))
    }

    /// The current KEK of another HSM in the place of this one's.
    ///
    /// # Errors
    /// As [`Plan::here`].
    pub fn instead(hsm: &'a Vault, other: &'a Vault, recipients: &'a [RecoveryKey]) -> Result<Self, InvalidId> {
        Self::of(vec![other], vec![hsm], None, (other, recipients))
    }

    /// The current KEK of this HSM, by means of a recovery HSM for which another host sealed the rows. That host is known by
    /// its identity key.
    ///
    /// # Errors
    /// As [`Plan::here`].
    pub fn recovered(
        hsm: &'a Vault,
        recovery: (&'a RecoveryHsm, &'a IdentityKey),
        recipients: &'a [RecoveryKey],
    ) -> Result<Self, InvalidId> {
        Self::of(vec![hsm], vec![hsm], Some(recovery), (hsm, recipients))
    }

    fn of(
        keep: Vec<&'a Vault>,
        opens: Vec<&'a Vault>,
        recovery: Option<(&'a RecoveryHsm, &'a IdentityKey)>,
        (sealer, recipients): (&'a Vault, &'a [RecoveryKey]),
    ) -> Result<Self, InvalidId> {
        let identity = IdentityKey::from_spki(&sealer.public_key(KeyPurpose::Identity))?;
        Ok(Self { keep, opens, recovery, sealer, identity, recipients })
    }

    /// What every row's entries are to be, by name: `kek/<epoch> on <serial number of its token>`, `recovery/<fingerprint>`.
    pub fn targets(&self) -> Vec<String> {
        let keks = self.keep.iter().map(|vault| {
            let status = vault.status();
            format!("{} on {}", status.kek_id, status.token.serial)
        });
        keks.chain(self.recipients.iter().map(|recipient| recovery_name(&recipient.fingerprint().0))).collect()
    }

    /// What a row's entries become.
    ///
    /// # Errors
    /// An HSM is away, or entries cannot be encoded.
    pub async fn renew(&self, row: &EntriesRow) -> Result<Renewal, KekError> {
        let context = Sha256::digest(&row.header);
        let Some(entries) = DekEntries::read(&row.deks) else {
            return Ok(Renewal::Unopened("its wrapped keys cannot be read".into()));
        };
        let mut dek = None;
        let mut kept = Vec::new();
        for vault in &self.keep {
            kept.push(match current(vault, &context, &entries).await? {
                Some((entry, key)) => {
                    dek = Some(key);
                    Some(entry)
                }
                None => None,
            });
        }
        let dek = match dek {
            Some(dek) => dek,
            None => match self.open(&context, &entries).await? {
                Ok(dek) => dek,
                Err(why) => return Ok(Renewal::Unopened(why)),
            },
        };
        let mut renewed = DekEntries::default();
        for (vault, entry) in self.keep.iter().zip(kept) {
            renewed.push(DekEntry::Kek(match entry {
                Some(entry) => entry,
                None => vault.wrap(&context, &dek).await?,
            }));
        }
        for recipient in self.recipients {
            let entry = self.recovery_entry(recipient, &context, &entries, &dek).await?;
            renewed.push(DekEntry::Recovery(Box::new(entry)));
        }
        if renewed == entries {
            return Ok(Renewal::Current);
        }
        let encode = || KekError::Encoding(format!("{} {}", row.table.as_str(), row.id));
        let (removed, added) = (entries.names_beyond(&renewed), renewed.names_beyond(&entries));
        let column = renewed.to_column().ok_or_else(encode)?;
        Ok(Renewal::Entries(NewEntries { column, removed, added }))
    }

    /// The entry for a recovery HSM: the one that stands there, if the sealing host signed it for this row.
    async fn recovery_entry(
        &self,
        recipient: &RecoveryKey,
        context: &[u8],
        entries: &DekEntries,
        dek: &Secret32,
    ) -> Result<RecoveryEntry, HsmError> {
        let sound =
            entries.recovery().find(|entry| entry.is_for(recipient) && entry.is_signed_by(&self.identity, context));
        match sound {
            Some(entry) => Ok(entry.clone()),
            None => self.sealer.wrap_for_recovery(recipient, context, dek).await,
        }
    }

    /// The DEK, or why no entry gives it.
    async fn open(&self, context: &[u8], entries: &DekEntries) -> Result<Result<Secret32, String>, HsmError> {
        let mut why = "it has no wrapped key".to_owned();
        for vault in &self.opens {
            match unwrap_any(vault, context, entries).await? {
                Unwrapped::Key(dek) => return Ok(Ok(dek)),
                Unwrapped::Rejected => why = HsmError::Rejected.to_string(),
                Unwrapped::OtherHsm(unknown) => why = unknown.to_string(),
                Unwrapped::Nothing => {}
            }
        }
        let Some((recovery, sealed_by)) = self.recovery else { return Ok(Err(why)) };
        let mut why = "it has no entry for this recovery HSM".to_owned();
        for entry in entries.recovery().filter(|entry| entry.is_for(recovery.public_key())) {
            match recovery.unwrap(context, entry, sealed_by) {
                Ok(dek) => return Ok(Ok(dek)),
                Err(refused @ (HsmError::Rejected | HsmError::RecoveryNotSigned)) => why = refused.to_string(),
                Err(away) => return Err(away),
            }
        }
        Ok(Err(why))
    }
}

/// The entry that opens under the HSM's current KEK, with what it opens to. Another HSM's entry may have the same name.
async fn current(
    vault: &Vault,
    context: &[u8],
    entries: &DekEntries,
) -> Result<Option<(WrappedKey, Secret32)>, HsmError> {
    let epoch = vault.status().kek_epoch;
    for entry in entries.keks().filter(|entry| entry.kek_epoch == epoch) {
        match vault.unwrap(context, entry).await {
            Ok(dek) => return Ok(Some((entry.clone(), dek))),
            Err(HsmError::Rejected | HsmError::UnknownKek { .. }) => {}
            Err(away) => return Err(away),
        }
    }
    Ok(None)
}
