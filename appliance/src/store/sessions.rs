//! Session rows and used tokens.

use casemate_wire::api::{SessionStatus, SessionView};
use casemate_wire::token::Claims;
use casemate_wire::{Digest32, EcdsaSignature, KeyCertificate, Problem, PublicKey, SessionId, SessionType};
use rusqlite::{Connection, OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use super::{StoreError, Transaction};

/// One session as stored.
#[derive(Debug, Clone)]
pub struct SessionRow {
    /// The session.
    pub session_id: SessionId,
    /// What it is for.
    pub session_type: SessionType,
    /// SHA-256 of the canonical request, to tell a repeat from a conflict.
    pub body_digest: Digest32,
    /// Where it stands.
    pub status: SessionStatus,
    /// Whether it was refused before it began; a repeat is then answered by the same problem.
    pub refused: bool,
    /// The place of its intent in the audit log, if it has one.
    pub intent: Option<u64>,
    /// The client that asked.
    pub actor: String,
    /// The id of the request that made it.
    pub request: String,
    /// Why it failed.
    pub error: Option<Problem>,
    /// What came of it.
    pub result: SessionResult,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    pub completed_at: Option<String>,
}

/// What a session produced, or will use.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionResult {
    /// The key that was made or used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKey>,
    /// The signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<EcdsaSignature>,
    /// The new key's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<KeyCertificate>,
}

impl SessionRow {
    /// The row as it is shown; `round` is known only while it runs.
    pub fn view(&self, round: u16) -> SessionView {
        SessionView {
            session_id: self.session_id.clone(),
            session_type: self.session_type,
            status: if self.status == SessionStatus::Accepted && round > 0 {
                SessionStatus::Running
            } else {
                self.status
            },
            round,
            error: self.error.clone(),
            public_key: self.result.public_key,
            signature: self.result.signature,
            certificate: self.result.certificate.clone(),
            started_at: self.started_at.clone(),
            completed_at: self.completed_at.clone(),
        }
    }

    /// The row of a session.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn find(connection: &Connection, session: &SessionId) -> Result<Option<Self>, StoreError> {
        let raw = connection
            .prepare_cached(&format!("{SELECT} WHERE session_id = ?1"))
            .and_then(|mut statement| statement.query_row([session.as_str()], RawRow::read).optional())
            .map_err(StoreError::sqlite("read a session"))?;
        raw.map(RawRow::parse).transpose()
    }

    /// Sessions that have no end yet.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn unfinished(connection: &Connection) -> Result<Vec<Self>, StoreError> {
        let failed = StoreError::sqlite("read the sessions");
        let mut statement =
            connection.prepare(&format!("{SELECT} WHERE status = 'accepted' ORDER BY session_id")).map_err(&failed)?;
        let rows = statement.query_map([], RawRow::read).map_err(&failed)?;
        rows.map(|row| row.map_err(&failed)?.parse()).collect()
    }

    /// The sessions that began last, of one stored status alone if it is given: the newest first, `limit` of them at the most;
    /// and how many there are in all.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn newest(
        connection: &Connection,
        status: Option<SessionStatus>,
        limit: u32,
    ) -> Result<(Vec<Self>, u64), StoreError> {
        const FILTER: &str = "WHERE ?1 IS NULL OR status = ?1";
        let failed = StoreError::sqlite("list the sessions");
        let status = status.map(SessionStatus::as_str);
        let total: i64 = connection
            .query_row(&format!("SELECT COUNT(*) FROM sessions {FILTER}"), [status], |row| row.get(0))
            .map_err(&failed)?;
        let mut statement = connection
            .prepare_cached(&format!("{SELECT} {FILTER} ORDER BY started_at DESC, session_id LIMIT ?2"))
            .map_err(&failed)?;
        let rows = statement.query_map((status, limit), RawRow::read).map_err(&failed)?;
        let sessions = rows.map(|row| row.map_err(&failed)?.parse()).collect::<Result<_, _>>()?;
        Ok((sessions, u64::try_from(total).unwrap_or(0)))
    }

    /// Writes a new row.
    ///
    /// # Errors
    /// Says that the store cannot be written, for example because the session exists.
    pub fn insert(&self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        transaction
            .sql()
            .prepare_cached(
                "INSERT INTO sessions (session_id, session_type, body_digest, status, refused, actor, request, error,
                 result, started_at, completed_at, intent) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )
            .and_then(|mut statement| {
                statement.execute((
                    self.session_id.as_str(),
                    self.session_type.to_string(),
                    self.body_digest.0,
                    self.status.as_str(),
                    self.refused,
                    &self.actor,
                    &self.request,
                    self.error.as_ref().map(to_json),
                    to_json(&self.result),
                    &self.started_at,
                    &self.completed_at,
                    self.intent.and_then(|seq| i64::try_from(seq).ok()),
                ))
            })
            .map(|_| ())
            .map_err(StoreError::sqlite("write a session"))
    }

    /// Changes what may change: status, error, result, end.
    ///
    /// # Errors
    /// Says that the store cannot be written, or that the session had ended already.
    pub fn update(&self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        let changed = transaction
            .sql()
            .prepare_cached(
                "UPDATE sessions SET status = ?2, error = ?3, result = ?4, completed_at = ?5
                 WHERE session_id = ?1 AND status = 'accepted'",
            )
            .and_then(|mut statement| {
                statement.execute((
                    self.session_id.as_str(),
                    self.status.as_str(),
                    self.error.as_ref().map(to_json),
                    to_json(&self.result),
                    &self.completed_at,
                ))
            })
            .map_err(StoreError::sqlite("write a session"))?;
        if changed == 1 {
            Ok(())
        } else {
            Err(StoreError::corrupt("a session")(format!("{} has ended already", self.session_id)))
        }
    }

    /// Whether the stored row has ended just as this one says: then an earlier attempt to end it became durable, although
    /// its caller was told otherwise.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn has_ended_so(&self, connection: &Connection) -> Result<bool, StoreError> {
        let Some(stored) = Self::find(connection, &self.session_id)? else { return Ok(false) };
        let end = |row: &Self| (row.status, row.completed_at.clone(), to_json(&row.error), to_json(&row.result));
        Ok(self.status.is_final() && end(&stored) == end(self))
    }

    /// Puts another problem into the row of a refused session, if it still holds `from`. Gives the problem that then
    /// stands there, whoever wrote it; `None` without such a session.
    ///
    /// # Errors
    /// Says that the store cannot be written.
    pub fn replace_error(
        transaction: &Transaction<'_>,
        session: &SessionId,
        from: &Problem,
        to: &Problem,
    ) -> Result<Option<Problem>, StoreError> {
        let Some(row) = Self::find(transaction.sql(), session)?.filter(|row| row.refused) else { return Ok(None) };
        if row.error.as_ref() != Some(from) {
            return Ok(row.error);
        }
        transaction
            .sql()
            .prepare_cached("UPDATE sessions SET error = ?2 WHERE session_id = ?1 AND refused = 1")
            .and_then(|mut statement| statement.execute((session.as_str(), to_json(to))))
            .map_err(StoreError::sqlite("write a session"))?;
        Ok(Some(to.clone()))
    }
}

/// Whether something that counts once had been used before: a token, an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum OneUse {
    /// It is used now, for the first time.
    First,
    /// It was used before.
    Replayed,
}

/// Marks a token as used; forgets tokens that expired long ago.
pub(crate) fn use_token(transaction: &Transaction<'_>, claims: &Claims, now: i64) -> Result<OneUse, StoreError> {
    use_named(transaction.sql(), (&claims.iss, &claims.jti, claims.exp), now)
}

/// Uses up the token of this issuer, name and expiry.
fn use_named(sql: &Connection, token: (&str, &str, i64), now: i64) -> Result<OneUse, StoreError> {
    /// Expired tokens are kept for as long as any clock skew could revive them, and more.
    const KEPT_AFTER_EXPIRY: i64 = 24 * 3600;
    let failed = StoreError::sqlite("record a join token");
    sql.prepare_cached("DELETE FROM tokens WHERE exp < ?1")
        .and_then(|mut statement| statement.execute([now.saturating_sub(KEPT_AFTER_EXPIRY)]))
        .map_err(&failed)?;
    let inserted = sql
        // Whoever issued it: the log knows a token by its jti alone, and one that it sees used twice is a fault.
        .prepare_cached(
            "INSERT INTO tokens (issuer, jti, exp) SELECT ?1, ?2, ?3
             WHERE NOT EXISTS (SELECT 1 FROM tokens WHERE jti = ?2)",
        )
        .and_then(|mut statement| statement.execute(token))
        .map_err(&failed)?;
    Ok(if inserted == 1 { OneUse::First } else { OneUse::Replayed })
}

const SELECT: &str = "SELECT session_id, session_type, body_digest, status, refused, actor, request, error, result,
     started_at, completed_at, intent FROM sessions";

struct RawRow {
    texts: [String; 6],
    body_digest: [u8; 32],
    refused: bool,
    error: Option<String>,
    result: Option<String>,
    completed_at: Option<String>,
    intent: Option<i64>,
}

impl RawRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            texts: [row.get(0)?, row.get(1)?, row.get(3)?, row.get(5)?, row.get(6)?, row.get(9)?],
            body_digest: row.get(2)?,
            refused: row.get(4)?,
            error: row.get(7)?,
            result: row.get(8)?,
            completed_at: row.get(10)?,
            intent: row.get(11)?,
        })
    }

    fn parse(self) -> Result<SessionRow, StoreError> {
        let [session_id, session_type, status, actor, request, started_at] = self.texts;
        Ok(SessionRow {
            session_id: from_json_text(&session_id)?,
            session_type: from_json_text(&session_type)?,
            body_digest: Digest32(self.body_digest),
            status: from_json_text(&status)?,
            refused: self.refused,
            intent: self.intent.and_then(|seq| u64::try_from(seq).ok()),
            actor,
            request,
            error: self.error.as_deref().map(from_json).transpose()?,
            result: self.result.as_deref().map(from_json).transpose()?.unwrap_or_default(),
            started_at,
            completed_at: self.completed_at,
        })
    }
}

pub(super) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

pub(super) fn from_json<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::corrupt("a row")(e.to_string()))
}

pub(super) fn from_json_text<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, StoreError> {
    serde_json::from_value(text.into()).map_err(|e| StoreError::corrupt("a row")(e.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The audit log knows a token by its name alone: one that two coordinators gave would look used twice.
    #[test]
    fn a_token_of_another_coordinator_with_a_used_name_is_refused() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE tokens (issuer TEXT, jti TEXT, exp INTEGER, PRIMARY KEY (issuer, jti))")
            .unwrap();
        assert_eq!(use_named(&connection, ("one", "t-1", 100), 50).unwrap(), OneUse::First);
        assert_eq!(use_named(&connection, ("one", "t-1", 100), 50).unwrap(), OneUse::Replayed);
        assert_eq!(use_named(&connection, ("two", "t-1", 100), 50).unwrap(), OneUse::Replayed);
        assert_eq!(use_named(&connection, ("two", "t-2", 100), 50).unwrap(), OneUse::First);
        let forgotten = 100 + 24 * 3600 + 1;
        assert_eq!(use_named(&connection, ("two", "t-1", forgotten + 60), forgotten).unwrap(), OneUse::First);
    }
}
