//! The newest policy bundle that was ever loaded: what keeps an older one from coming back.

use casemate_wire::Digest32;
use rusqlite::{Connection, OptionalExtension};

use super::sessions::from_json_text;
use super::{StoreError, Transaction};

/// A bundle's version and digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PolicyRow {
    pub(crate) version: u64,
    pub(crate) digest: Digest32,
}

impl PolicyRow {
    /// The newest bundle that was ever loaded here.
    pub(crate) fn newest(connection: &Connection) -> Result<Option<Self>, StoreError> {
        let row: Option<(i64, String)> = connection
            .prepare_cached("SELECT version, digest FROM policy")
            .and_then(|mut query| query.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional())
            .map_err(StoreError::sqlite("read the policy's version"))?;
        let Some((version, digest)) = row else { return Ok(None) };
        let version = u64::try_from(version).map_err(|e| StoreError::corrupt("a policy version")(e.to_string()))?;
        Ok(Some(Self { version, digest: from_json_text(&digest)? }))
    }

    /// Makes this bundle the newest.
    pub(crate) fn put(self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        let failed = StoreError::sqlite("record the policy's version");
        let version = i64::try_from(self.version)
            .map_err(|_| StoreError::corrupt("a policy version")("it is larger than the store can hold".into()))?;
        transaction
            .sql()
            .execute(
                "INSERT INTO policy (only_row, version, digest) VALUES (1, ?1, ?2)
                 ON CONFLICT (only_row) DO UPDATE SET version = excluded.version, digest = excluded.digest",
                (version, self.digest.to_string()),
            )
            .map(|_| ())
            .map_err(failed)
    }
}
