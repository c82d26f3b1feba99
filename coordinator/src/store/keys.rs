//! API keys in the store.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::{Store, StoreError, corrupt};
use crate::api_key::ApiKey;

const COLUMNS: &str = "id, name, hash, created_at, revoked_at";

impl Store {
    /// Stores a key. `false`: a key of this name is in use.
    pub(crate) async fn add_key(&self, key: ApiKey) -> Result<bool, StoreError> {
        self.call("store an API key", move |db| {
            let change = db.transaction()?;
            let taken: bool = change.query_row(
                "SELECT EXISTS (SELECT 1 FROM api_keys WHERE name = ?1 AND revoked_at IS NULL)",
                [&key.name],
                |row| row.get(0),
            )?;
            if taken {
                return Ok(false);
            }
            change.execute(
                "INSERT INTO api_keys VALUES (?1, ?2, ?3, ?4, NULL)",
                params![key.id, key.name, key.hash.to_string(), format!("{:.3}", key.created_at)],
            )?;
            change.commit()?;
            Ok(true)
        })
        .await
    }

    /// The key with this id, revoked or not.
    pub(crate) async fn key(&self, id: &str) -> Result<Option<ApiKey>, StoreError> {
        let id = id.to_owned();
        let row = self
            .call("look an API key up", move |db| {
                db.prepare_cached(&format!("SELECT {COLUMNS} FROM api_keys WHERE id = ?1"))?
                    .query_row([id], KeyRow::read)
                    .optional()
            })
            .await?;
        row.map(ApiKey::try_from).transpose()
    }

    /// All keys, oldest first.
    pub(crate) async fn keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        let rows: Vec<KeyRow> = self
            .call("list API keys", |db| {
                db.prepare(&format!("SELECT {COLUMNS} FROM api_keys ORDER BY created_at, id"))?
                    .query_map([], KeyRow::read)?
                    .collect()
            })
            .await?;
        rows.into_iter().map(ApiKey::try_from).collect()
    }

    /// Revokes the key that is in use under this name. `false`: there is none.
    pub(crate) async fn revoke_key(&self, name: &str, now: Timestamp) -> Result<bool, StoreError> {
        let name = name.to_owned();
        let sql = "UPDATE api_keys SET revoked_at = ?2 WHERE name = ?1 AND revoked_at IS NULL";
        self.call("revoke an API key", move |db| Ok(db.execute(sql, params![name, format!("{now:.3}")])? > 0)).await
    }
}

struct KeyRow {
    id: String,
    name: String,
    hash: String,
    created_at: String,
    revoked_at: Option<String>,
}

impl KeyRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            name: row.get(1)?,
            hash: row.get(2)?,
            created_at: row.get(3)?,
            revoked_at: row.get(4)?,
        })
    }
}

impl TryFrom<KeyRow> for ApiKey {
    type Error = StoreError;

    fn try_from(row: KeyRow) -> Result<Self, StoreError> {
        let bad = |e: &dyn std::fmt::Display| corrupt("an API key", e);
        let time = |text: &str| text.parse::<Timestamp>().map_err(|e| bad(&e));
        Ok(Self {
            id: row.id,
            name: row.name,
            hash: row.hash.parse().map_err(|e| bad(&e))?,
            created_at: time(&row.created_at)?,
            revoked_at: row.revoked_at.as_deref().map(time).transpose()?,
        })
    }
}
