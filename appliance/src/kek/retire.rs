//! Whether nothing needs an old KEK any more, shown by opening every row without it; and the rows on each KEK.

use std::collections::BTreeMap;

use casemate_hsm::HsmError;
use rusqlite::Connection;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::KekError;
use crate::entries::DekEntries;
use crate::store::{EntriesRow, SealedTable, Store, StoreError};
use crate::vault::Vault;

/// Rows that are read at a time.
const CHUNK: usize = 256;

/// A row that stands against destroying a KEK.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Needed {
    /// Its table.
    pub table: &'static str,
    /// Its key there.
    pub id: String,
    /// Why.
    pub why: String,
}

/// The rows that stand against destroying the KEK of an epoch on this HSM: those with an entry under it, and those that do
/// not open under another one. Names alone settle nothing: another HSM's KEK may have the same.
///
/// # Errors
/// The HSM is away or the store cannot be read.
pub async fn needing(store: &Store, hsm: &Vault, epoch: u32) -> Result<Vec<Needed>, KekError> {
    let mut needing = Vec::new();
    let mut last = None;
    loop {
        let rows = next_rows(store, &mut last).await?;
        if rows.is_empty() {
            return Ok(needing);
        }
        for row in rows {
            if let Some(why) = need(hsm, epoch, &row).await? {
                needing.push(Needed { table: row.table.as_str(), id: row.id, why });
            }
        }
    }
}

/// The rows after the last one of a walk.
async fn next_rows(store: &Store, last: &mut Option<(SealedTable, String)>) -> Result<Vec<EntriesRow>, StoreError> {
    let after = last.clone();
    let read = move |store: &Connection| {
        EntriesRow::after(store, after.as_ref().map(|(table, id)| (*table, id.as_str())), CHUNK)
    };
    let rows = store.read(read).await?;
    *last = rows.last().map(|end| (end.table, end.id.clone()));
    Ok(rows)
}

async fn need(hsm: &Vault, epoch: u32, row: &EntriesRow) -> Result<Option<String>, HsmError> {
    let context = Sha256::digest(&row.header);
    let Some(entries) = DekEntries::read(&row.deks) else {
        return Ok(Some("its wrapped keys cannot be read".into()));
    };
    let (mut under_it, mut without_it) = (false, false);
    for entry in entries.keks() {
        match hsm.unwrap(&context, entry).await {
            Ok(_) if entry.kek_epoch == epoch => under_it = true,
            Ok(_) => without_it = true,
            Err(HsmError::Rejected | HsmError::UnknownKek { .. }) => {}
            Err(away) => return Err(away),
        }
    }
    Ok(match (under_it, without_it) {
        (true, _) => Some("it is wrapped under it; re-wrap first".into()),
        (false, false) => Some("it opens under no KEK of this HSM; restore or recover it first".into()),
        (false, true) => None,
    })
}

/// The highest epoch that rows name, where this HSM's current KEK has none above it: entries of another HSM, which the audit
/// log could not tell from this one's. An entry of the same epoch that opens here is its own.
///
/// # Errors
/// The HSM is away or the store cannot be read.
pub async fn epoch_taken(store: &Store, hsm: &Vault) -> Result<Option<u32>, KekError> {
    let current = hsm.status().kek_epoch;
    let mut taken = None;
    let mut last = None;
    loop {
        let rows = next_rows(store, &mut last).await?;
        if rows.is_empty() {
            return Ok(taken);
        }
        for row in rows {
            let context = Sha256::digest(&row.header);
            let entries = DekEntries::read(&row.deks).unwrap_or_default();
            for entry in entries.keks().filter(|entry| entry.kek_epoch >= current) {
                match hsm.unwrap(&context, entry).await {
                    Ok(_) => {}
                    Err(HsmError::Rejected | HsmError::UnknownKek { .. }) => taken = taken.max(Some(entry.kek_epoch)),
                    Err(away) => return Err(away.into()),
                }
            }
        }
    }
}

/// How many rows name each KEK, and each recovery key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Holders {
    /// All rows.
    pub rows: u64,
    /// `kek/<epoch>` → rows with an entry of that name. Entries of another HSM count like this one's.
    pub keks: BTreeMap<String, u64>,
    /// Fingerprint of a recovery key → rows with an entry for it.
    pub recovery: BTreeMap<String, u64>,
    /// Rows whose entries cannot be read.
    pub unreadable: u64,
}

/// Counts them, by name alone.
///
/// # Errors
/// The store cannot be read.
pub fn holders(connection: &Connection) -> Result<Holders, StoreError> {
    let mut holders = Holders::default();
    let mut last: Option<(SealedTable, String)> = None;
    loop {
        let rows = EntriesRow::after(connection, last.as_ref().map(|(table, id)| (*table, id.as_str())), CHUNK)?;
        let Some(end) = rows.last() else { return Ok(holders) };
        last = Some((end.table, end.id.clone()));
        for row in &rows {
            holders.count(row);
        }
    }
}

impl Holders {
    fn count(&mut self, row: &EntriesRow) {
        self.rows = self.rows.saturating_add(1);
        let Some(entries) = DekEntries::read(&row.deks) else {
            self.unreadable = self.unreadable.saturating_add(1);
            return;
        };
        for entry in entries.keks() {
            let count = self.keks.entry(entry.kek_id.clone()).or_default();
            *count = count.saturating_add(1);
        }
        for entry in entries.recovery() {
            let count = self.recovery.entry(hex::encode(entry.key.as_slice())).or_default();
            *count = count.saturating_add(1);
        }
    }
}
