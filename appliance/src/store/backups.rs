//! Rows of backups: which were made here, which were shown to open, which were restored.

use casemate_attest::{Guard, GuardChange, Text};
use casemate_wire::Digest32;
use rusqlite::{Connection, OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use super::sessions::{from_json, from_json_text, to_json};
use super::{StoreError, Transaction};

/// How far a backup has come. Only one that was verified counts as the last backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupStage {
    /// The file was given out; nobody knows whether it opens.
    Made,
    /// Enough custodians have shown that it is complete and opens.
    Verified,
    /// Its shares came back from it.
    Restored,
}

impl BackupStage {
    /// The word in leaves and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Verified => "verified",
            Self::Restored => "restored",
        }
    }
}

/// One backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupRow {
    /// Its name.
    pub id: String,
    /// How far it has come.
    pub stage: BackupStage,
    /// SHA-256 of the file.
    pub digest: Digest32,
    /// The ids of the shares in it, or of those that were restored from it.
    pub shares: Vec<String>,
    /// RFC 3339.
    pub made_at: Option<String>,
    /// RFC 3339.
    pub verified_at: Option<String>,
}

const SELECT: &str = "SELECT id, stage, digest, shares, made_at, verified_at FROM backups";

impl BackupRow {
    /// The backup of this name.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn find(connection: &Connection, id: &str) -> Result<Option<Self>, StoreError> {
        let raw = connection
            .prepare_cached(&format!("{SELECT} WHERE id = ?1"))
            .and_then(|mut query| query.query_row([id], RawBackup::read).optional())
            .map_err(StoreError::sqlite("read a backup's row"))?;
        raw.map(RawBackup::parse).transpose()
    }

    /// The newest ones first, at most `limit`.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn newest(connection: &Connection, limit: u32) -> Result<Vec<Self>, StoreError> {
        Self::several(connection, &format!("{SELECT} ORDER BY made_at DESC, id LIMIT {limit}"), [])
    }

    /// The last backup of a share: the newest verified one that holds it.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn last_of(connection: &Connection, share: &str) -> Result<Option<Self>, StoreError> {
        let sql = format!(
            "{SELECT} WHERE stage = 'verified' AND EXISTS (SELECT 1 FROM json_each(shares) WHERE value = ?1)
             ORDER BY made_at DESC LIMIT 1"
        );
        Ok(Self::several(connection, &sql, [share])?.pop())
    }

    /// Writes a new row, or brings the one that is there to another stage.
    ///
    /// # Errors
    /// Says that the store cannot be written.
    pub(crate) fn put(&self, transaction: &Transaction<'_>) -> Result<GuardChange, StoreError> {
        transaction
            .sql()
            .execute(
                "INSERT INTO backups (id, stage, digest, shares, made_at, verified_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (id) DO UPDATE SET stage = excluded.stage, shares = excluded.shares,
                 verified_at = excluded.verified_at WHERE digest = excluded.digest",
                (
                    &self.id,
                    self.stage.as_str(),
                    self.digest.to_string(),
                    to_json(&self.shares),
                    &self.made_at,
                    &self.verified_at,
                ),
            )
            .map_err(StoreError::sqlite("write a backup's row"))
            .and_then(|changed| match changed {
                1 => Ok(self.became()),
                _ => Err(StoreError::corrupt("a backup")(format!("{} is another file than before", self.id))),
            })
    }

    /// The change for its leaf.
    pub(crate) fn became(&self) -> GuardChange {
        let to = format!("{} {}", self.stage.as_str(), self.digest);
        GuardChange { guard: Guard::Backup, id: Text::fitted(&self.id), to: Some(Text::fitted(&to)) }
    }

    fn several<P: rusqlite::Params>(connection: &Connection, sql: &str, with: P) -> Result<Vec<Self>, StoreError> {
        let failed = StoreError::sqlite("read the rows of backups");
        let mut statement = connection.prepare_cached(sql).map_err(&failed)?;
        let rows = statement.query_map(with, RawBackup::read).map_err(&failed)?;
        rows.map(|row| row.map_err(&failed)?.parse()).collect()
    }
}

struct RawBackup {
    texts: [String; 4],
    made_at: Option<String>,
    verified_at: Option<String>,
}

impl RawBackup {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            texts: [row.get("id")?, row.get("stage")?, row.get("digest")?, row.get("shares")?],
            made_at: row.get("made_at")?,
            verified_at: row.get("verified_at")?,
        })
    }

    fn parse(self) -> Result<BackupRow, StoreError> {
        let [id, stage, digest, shares] = self.texts;
        Ok(BackupRow {
            id,
            stage: from_json_text(&stage)?,
            digest: from_json_text(&digest)?,
            shares: from_json(&shares)?,
            made_at: self.made_at,
            verified_at: self.verified_at,
        })
    }
}
