//! The ways to a sealed object's DEK: wrapped under a KEK of an HSM, or encrypted to a recovery HSM. Each alone suffices.

use std::collections::BTreeSet;

use casemate_hsm::{RecoveryEntry, WrappedKey};
use serde::{Deserialize, Serialize};

/// Entries that one object may have; more is not read.
const MOST: usize = 32;

/// One way to a DEK.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DekEntry {
    /// Wrapped under a KEK. Which HSM has it is not said: the one on which the entry opens.
    Kek(WrappedKey),
    /// Encrypted to a recovery HSM.
    Recovery(Box<RecoveryEntry>),
}

impl DekEntry {
    /// Whose it is: a KEK's id, or a recovery key's fingerprint.
    fn name(&self) -> String {
        match self {
            Self::Kek(entry) => entry.kek_id.clone(),
            Self::Recovery(entry) => recovery_name(entry.key.as_slice()),
        }
    }
}

/// How the audit log names a recovery HSM, by its key's fingerprint.
pub fn recovery_name(fingerprint: &[u8]) -> String {
    format!("recovery/{}", hex::encode(fingerprint))
}

/// All entries of one object, as its column `deks` holds them: a CBOR list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct DekEntries(Vec<DekEntry>);

impl DekEntries {
    /// Reads a column; `None` when it is no such list.
    pub fn read(column: &[u8]) -> Option<Self> {
        let mut rest = column;
        let entries: Vec<DekEntry> = ciborium::from_reader(&mut rest).ok()?;
        (rest.is_empty() && entries.len() <= MOST).then_some(Self(entries))
    }

    /// The column.
    pub fn to_column(&self) -> Option<Vec<u8>> {
        let mut column = Vec::new();
        ciborium::into_writer(self, &mut column).ok()?;
        Some(column)
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: DekEntry) {
        self.0.push(entry);
    }

    /// Those under a KEK, in their order.
    pub fn keks(&self) -> impl Iterator<Item = &WrappedKey> {
        self.0.iter().filter_map(|entry| match entry {
            DekEntry::Kek(entry) => Some(entry),
            DekEntry::Recovery(_) => None,
        })
    }

    /// Whose entries stand here and not in `other`: `kek/<epoch>`, or `recovery/<fingerprint>`; each once.
    pub fn names_beyond(&self, other: &Self) -> BTreeSet<String> {
        self.0.iter().filter(|entry| !other.0.contains(entry)).map(DekEntry::name).collect()
    }

    /// Those for recovery HSMs, in their order.
    pub fn recovery(&self) -> impl Iterator<Item = &RecoveryEntry> {
        self.0.iter().filter_map(|entry| match entry {
            DekEntry::Recovery(entry) => Some(entry.as_ref()),
            DekEntry::Kek(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use casemate_hsm::{RecoveryAlgorithm, WrapAlgorithm};

    fn both() -> DekEntries {
        let wrapped = WrappedKey {
            alg: WrapAlgorithm::HostIv,
            ckm: 0x1087,
            kek_id: "kek/1".into(),
            kek_epoch: 1,
            iv: [1; 12].into(),
            blob: [2; 48].into(),
        };
        let recovery = RecoveryEntry {
            alg: RecoveryAlgorithm::OaepSha1,
            ckm: 9,
            key: [3; 32].into(),
            blob: [4; 384].into(),
            signature: [5; 64].into(),
        };
        DekEntries(vec![DekEntry::Kek(wrapped), DekEntry::Recovery(Box::new(recovery))])
    }

    #[test]
    fn both_kinds_come_back_from_the_column() {
        let column = both().to_column().unwrap();
        assert_eq!(DekEntries::read(&column).unwrap(), both());
    }

    #[test]
    fn a_column_from_before_there_were_recovery_entries_is_read() {
        let wrapped: Vec<WrappedKey> = both().keks().cloned().collect();
        let mut column = Vec::new();
        ciborium::into_writer(&wrapped, &mut column).unwrap();
        assert_eq!(DekEntries::read(&column).unwrap().keks().count(), 1);
    }

    #[test]
    fn no_altered_byte_makes_reading_panic_and_what_is_read_is_written_alike() {
        let column = both().to_column().unwrap();
        for place in 0..column.len() {
            for byte in [0, 0x1f, 0x5b, 0x7f, 0x9f, 0xbf, 0xff] {
                let mut altered = column.clone();
                *altered.get_mut(place).unwrap() = byte;
                if let Some(entries) = DekEntries::read(&altered) {
                    let written = entries.to_column().unwrap();
                    assert_eq!(DekEntries::read(&written), Some(entries), "byte {place}");
                }
            }
            assert!(DekEntries::read(column.get(..place).unwrap()).is_none(), "cut at {place}");
        }
    }

    #[test]
    fn foreign_bytes_and_endless_lists_are_not_read() {
        let column = both().to_column().unwrap();
        assert!(DekEntries::read(&[column.as_slice(), &[0]].concat()).is_none());
        assert!(DekEntries::read(column.get(1..).unwrap()).is_none());
        let many = DekEntries(both().0.into_iter().cycle().take(MOST + 1).collect());
        assert!(DekEntries::read(&many.to_column().unwrap()).is_none());
    }
}
