//! Rows of sealed objects: committees' auxiliary info, safe primes; shares are in `shares.rs`. Nothing here can open them.

use casemate_wire::Digest32;
use rusqlite::{Connection, OptionalExtension, Row};

use super::sessions::from_json_text;
use super::{StoreError, Transaction};

/// The four columns of a sealed object.
#[derive(Debug, Clone)]
pub struct SealedColumns {
    /// CBOR; readable, authenticated by DEK and body.
    pub header: Vec<u8>,
    /// CBOR of the wrapped DEKs.
    pub deks: Vec<u8>,
    /// The body's AES-GCM nonce.
    pub nonce: [u8; 12],
    /// AES-256-GCM of the secret.
    pub body: Vec<u8>,
}

impl SealedColumns {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            header: row.get("header")?,
            deks: row.get("deks")?,
            nonce: row.get("nonce")?,
            body: row.get("body")?,
        })
    }
}

/// A committee's auxiliary info, sealed: made once, used for all its keys.
#[derive(Debug, Clone)]
pub struct CommitteeRow {
    /// The committee's roster digest.
    pub roster: Digest32,
    /// Digest over the public part; all parties must hold the same.
    pub aux_digest: Digest32,
    /// Header, wrapped DEKs, body.
    pub sealed: SealedColumns,
}

impl CommitteeRow {
    /// The row of a committee.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn find(connection: &Connection, roster: &Digest32) -> Result<Option<Self>, StoreError> {
        let raw = connection
            .query_row(
                "SELECT aux_digest, header, deks, nonce, body FROM committees WHERE roster = ?1",
                [roster.to_string()],
                |row| Ok((row.get::<_, String>("aux_digest")?, SealedColumns::read(row)?)),
            )
            .optional()
            .map_err(StoreError::sqlite("read a committee's auxiliary info"))?;
        raw.map(|(aux_digest, sealed)| Ok(Self { roster: *roster, aux_digest: from_json_text(&aux_digest)?, sealed }))
            .transpose()
    }

    /// Writes the row; replaces an earlier one of the same committee.
    ///
    /// # Errors
    /// Says that the store cannot be written.
    pub fn put(&self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        let sealed = &self.sealed;
        transaction
            .sql()
            .execute(
                "INSERT OR REPLACE INTO committees (roster, aux_digest, header, deks, nonce, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                (
                    self.roster.to_string(),
                    self.aux_digest.to_string(),
                    &sealed.header,
                    &sealed.deks,
                    sealed.nonce,
                    &sealed.body,
                ),
            )
            .map(|_| ())
            .map_err(StoreError::sqlite("write a committee's auxiliary info"))
    }
}

/// How many pairs of primes lie ready.
pub(crate) fn count_primes(connection: &Connection) -> Result<u32, StoreError> {
    connection
        .query_row("SELECT COUNT(*) FROM primes", [], |row| row.get(0))
        .map_err(StoreError::sqlite("count the primes"))
}

/// Stores a pair of primes.
pub(crate) fn put_primes(transaction: &Transaction<'_>, id: &str, sealed: &SealedColumns) -> Result<(), StoreError> {
    transaction
        .sql()
        .execute(
            "INSERT INTO primes (id, header, deks, nonce, body) VALUES (?1, ?2, ?3, ?4, ?5)",
            (id, &sealed.header, &sealed.deks, sealed.nonce, &sealed.body),
        )
        .map(|_| ())
        .map_err(StoreError::sqlite("store primes"))
}

/// Takes a pair of primes out for good: once the transaction is durable no other session can get it.
pub(crate) fn take_primes(transaction: &Transaction<'_>) -> Result<Option<(String, SealedColumns)>, StoreError> {
    transaction
        .sql()
        .query_row(
            "DELETE FROM primes WHERE id = (SELECT id FROM primes LIMIT 1) RETURNING id, header, deks, nonce, body",
            [],
            |row| Ok((row.get("id")?, SealedColumns::read(row)?)),
        )
        .optional()
        .map_err(StoreError::sqlite("take primes"))
}

/// Destroys all pairs that lie ready, and names them: after a restore, another copy of this host may have used them.
pub(crate) fn destroy_primes(transaction: &Transaction<'_>) -> Result<Vec<String>, StoreError> {
    let failed = StoreError::sqlite("destroy the primes");
    let mut statement = transaction.sql().prepare("DELETE FROM primes RETURNING id").map_err(&failed)?;
    let ids = statement.query_map([], |row| row.get(0)).map_err(&failed)?;
    let ids: Vec<String> = ids.collect::<Result<_, _>>().map_err(&failed)?;
    if !ids.is_empty() {
        transaction.destroyed();
    }
    Ok(ids)
}
