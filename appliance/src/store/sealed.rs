//! Rows of sealed objects: shares, committees' auxiliary info, safe primes. Nothing here can open them.

use casemate_wire::{Digest32, KeyCertificate, KeyStatement, PublicKey, SessionId, ShareType};
use rusqlite::{Connection, OptionalExtension, Row};

use super::sessions::{from_json, from_json_text, to_json};
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
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            header: row.get("header")?,
            deks: row.get("deks")?,
            nonce: row.get("nonce")?,
            body: row.get("body")?,
        })
    }
}

/// Where a share stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareStatus {
    /// Stored, but not all parties' confirmations were seen.
    Pending,
    /// May sign.
    Active,
    /// Superseded by a later epoch.
    Rotated,
    /// Withdrawn for good.
    Revoked,
}

impl ShareStatus {
    /// The status as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Rotated => "rotated",
            Self::Revoked => "revoked",
        }
    }
}

/// One share as stored.
#[derive(Debug, Clone)]
pub struct ShareRow {
    /// Its id.
    pub id: String,
    /// The key's public key.
    pub public_key: PublicKey,
    /// The session that made it.
    pub session_id: SessionId,
    /// What the key is for.
    pub share_type: ShareType,
    /// Where it stands.
    pub status: ShareStatus,
    /// Header, wrapped DEKs, body.
    pub sealed: SealedColumns,
    /// What this party states about the key.
    pub statement: KeyStatement,
    /// All parties' signatures over that statement, once they are there.
    pub certificate: Option<KeyCertificate>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub last_used_at: Option<String>,
}

const SELECT: &str =
    "SELECT id, public_key, session_id, share_type, status, header, deks, nonce, body, statement, certificate,
     created_at, last_used_at FROM shares";

const FILTER: &str = "WHERE (?1 IS NULL OR status = ?1) AND (?2 IS NULL OR share_type = ?2)";

impl ShareRow {
    /// The share of a key: the active one before a pending one.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn of_key(connection: &Connection, key: &PublicKey) -> Result<Option<Self>, StoreError> {
        Self::one(
            connection,
            "WHERE public_key = ?1 ORDER BY status = 'active' DESC, created_at DESC LIMIT 1",
            &key.to_string(),
        )
    }

    /// The share with this id.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn find(connection: &Connection, id: &str) -> Result<Option<Self>, StoreError> {
        Self::one(connection, "WHERE id = ?1", id)
    }

    /// One page of all shares, newest first, and how many there are.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn page(
        connection: &Connection,
        status: Option<ShareStatus>,
        share_type: Option<ShareType>,
        page: u32,
        limit: u32,
    ) -> Result<(Vec<Self>, u64), StoreError> {
        let failed = StoreError::sqlite("list the shares");
        let status = status.map(ShareStatus::as_str);
        let share_type = share_type.map(|kind| kind.to_string());
        let total: i64 = connection
            .query_row(&format!("SELECT COUNT(*) FROM shares {FILTER}"), (status, &share_type), |row| row.get(0))
            .map_err(&failed)?;
        let mut statement = connection
            .prepare_cached(&format!("{SELECT} {FILTER} ORDER BY created_at DESC, id LIMIT ?3 OFFSET ?4"))
            .map_err(&failed)?;
        let offset = i64::from(page.saturating_sub(1)).saturating_mul(i64::from(limit));
        let rows = statement.query_map((status, &share_type, limit, offset), RawShare::read).map_err(&failed)?;
        let shares = rows.map(|row| row.map_err(&failed)?.parse()).collect::<Result<_, _>>()?;
        Ok((shares, u64::try_from(total).unwrap_or(0)))
    }

    /// Writes a new share.
    ///
    /// # Errors
    /// Says that the store cannot be written.
    pub fn insert(&self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        transaction
            .sql()
            .execute(
                "INSERT INTO shares (id, public_key, session_id, share_type, status, header, deks, nonce, body,
                 statement, certificate, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                (
                    &self.id,
                    self.public_key.to_string(),
                    self.session_id.as_str(),
                    self.share_type.to_string(),
                    self.status.as_str(),
                    &self.sealed.header,
                    &self.sealed.deks,
                    self.sealed.nonce,
                    &self.sealed.body,
                    to_json(&self.statement),
                    self.certificate.as_ref().map(to_json),
                    &self.created_at,
                ),
            )
            .map(|_| ())
            .map_err(StoreError::sqlite("write a share"))
    }

    /// Makes a pending share active, by its certificate; one that the same certificate has made active stays so.
    ///
    /// # Errors
    /// Says that the store cannot be written, or that the share is not pending.
    pub fn activate(transaction: &Transaction<'_>, id: &str, certificate: &KeyCertificate) -> Result<(), StoreError> {
        let changed = transaction
            .sql()
            .execute(
                "UPDATE shares SET status = 'active', certificate = ?2 WHERE id = ?1 AND status = 'pending'",
                (id, to_json(certificate)),
            )
            .map_err(StoreError::sqlite("activate a share"))?;
        let adopted_before = || {
            let row = Self::find(transaction.sql(), id)?;
            Ok(row
                .is_some_and(|row| row.status == ShareStatus::Active && row.certificate.as_ref() == Some(certificate)))
        };
        if changed == 1 || adopted_before()? {
            return Ok(());
        }
        Err(StoreError::corrupt("a share")(format!("{id} is not pending")))
    }

    /// Notes that the share was used.
    ///
    /// # Errors
    /// Says that the store cannot be written.
    pub fn touch(transaction: &Transaction<'_>, id: &str, at: &str) -> Result<(), StoreError> {
        transaction
            .sql()
            .execute("UPDATE shares SET last_used_at = ?2 WHERE id = ?1", [id, at])
            .map(|_| ())
            .map_err(StoreError::sqlite("note a share's use"))
    }

    fn one(connection: &Connection, filter: &str, value: &str) -> Result<Option<Self>, StoreError> {
        let raw = connection
            .prepare_cached(&format!("{SELECT} {filter}"))
            .and_then(|mut statement| statement.query_row([value], RawShare::read).optional())
            .map_err(StoreError::sqlite("read a share"))?;
        raw.map(RawShare::parse).transpose()
    }
}

struct RawShare {
    texts: [String; 7],
    sealed: SealedColumns,
    certificate: Option<String>,
    last_used_at: Option<String>,
}

impl RawShare {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let text = |name: &str| row.get::<_, String>(name);
        Ok(Self {
            texts: [
                text("id")?,
                text("public_key")?,
                text("session_id")?,
                text("share_type")?,
                text("status")?,
                text("statement")?,
                text("created_at")?,
            ],
            sealed: SealedColumns::read(row)?,
            certificate: row.get("certificate")?,
            last_used_at: row.get("last_used_at")?,
        })
    }

    fn parse(self) -> Result<ShareRow, StoreError> {
        let [id, public_key, session_id, share_type, status, statement, created_at] = self.texts;
        Ok(ShareRow {
            id,
            public_key: from_json_text(&public_key)?,
            session_id: from_json_text(&session_id)?,
            share_type: from_json_text(&share_type)?,
            status: from_json_text(&status)?,
            sealed: self.sealed,
            statement: from_json(&statement)?,
            certificate: self.certificate.as_deref().map(from_json).transpose()?,
            created_at,
            last_used_at: self.last_used_at,
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
