//! Sessions in the store: written when they are created and when they end; in between they live in memory.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, StoreError, accounts, corrupt, rotations};
use crate::account::{Account, Advance};
use crate::session::{Event, Session, interrupted};
use casemate_wire::SessionId;

/// What the end of a session does to an account.
#[derive(Debug)]
pub(crate) enum Effect {
    /// A new key has one.
    Open(Box<Account>),
    /// Its key has moved on.
    Advance(Box<Advance>),
}

impl Store {
    /// Records a new session and, for a rotation, the epoch that it tries.
    pub(crate) async fn create_session(&self, session: &Session) -> Result<(), StoreError> {
        let (row, session) = (Row::of(session)?, session.clone());
        self.call("record a new session", move |db| {
            let change = db.transaction()?;
            change.prepare_cached("INSERT INTO sessions VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(params![
                row.session_id,
                row.session_type,
                row.status,
                row.created_at,
                row.expires_at,
                row.record
            ])?;
            rotations::begin(&change, &session)?;
            change.commit()
        })
        .await
    }

    /// Records how a session ended and what follows for its account, both or neither. `began` says whether its protocol ran.
    pub(crate) async fn end_session(
        &self,
        session: &Session,
        began: bool,
        effect: Option<&Effect>,
    ) -> Result<(), StoreError> {
        let (row, session) = (Row::of(session)?, session.clone());
        let (account, step) = match effect {
            Some(Effect::Open(account)) => (Some(accounts::Rows::of(account)?), None),
            Some(Effect::Advance(advance)) => (None, Some(rotations::Step::of(advance)?)),
            None => (None, None),
        };
        self.call("record the end of a session", move |db| {
            let change = db.transaction()?;
            update(&change, &row)?;
            if let Some(account) = &account {
                account.insert(&change)?;
            }
            if let Some(step) = &step {
                step.take(&change)?;
            }
            rotations::end(&change, &session, began)?;
            change.commit()
        })
        .await
    }

    /// The session as it was last recorded.
    pub(crate) async fn session(&self, id: &SessionId) -> Result<Option<Session>, StoreError> {
        let id = id.to_string();
        let record: Option<String> = self
            .call("look a session up", move |db| {
                db.prepare_cached("SELECT record FROM sessions WHERE session_id = ?1")?
                    .query_row([id], |row| row.get(0))
                    .optional()
            })
            .await?;
        record.as_deref().map(parse).transpose()
    }

    /// Fails every session that had not ended when the process did. Returns how many there were.
    pub(crate) async fn interrupt_sessions(&self, now: Timestamp) -> Result<usize, StoreError> {
        let sql = "SELECT record FROM sessions WHERE status NOT IN ('completed', 'failed', 'expired')";
        let records: Vec<String> = self
            .call("find interrupted sessions", move |db| db.prepare(sql)?.query_map([], |row| row.get(0))?.collect())
            .await?;
        self.end_all(&records, &Event::Failed(interrupted()), now).await
    }

    /// Expires the sessions that should have ended before `limit` and whose end could not be recorded then.
    pub(crate) async fn expire_sessions(&self, limit: Timestamp, now: Timestamp) -> Result<usize, StoreError> {
        let sql = "SELECT record FROM sessions
                   WHERE status NOT IN ('completed', 'failed', 'expired') AND expires_at < ?1";
        let records: Vec<String> = self
            .call("find expired sessions", move |db| {
                db.prepare_cached(sql)?.query_map([time(limit)], |row| row.get(0))?.collect()
            })
            .await?;
        self.end_all(&records, &Event::Expired, now).await
    }

    async fn end_all(&self, records: &[String], event: &Event, now: Timestamp) -> Result<usize, StoreError> {
        if records.is_empty() {
            return Ok(0);
        }
        let mut rows = Vec::with_capacity(records.len());
        for record in records {
            let mut session = parse(record)?;
            session.apply(event.clone(), now).map_err(|e| corrupt("a session", e))?;
            rows.push(Row::of(&session)?);
        }
        self.call("end sessions that run no more", move |db| {
            let change = db.transaction()?;
            for row in &rows {
                update(&change, row)?;
            }
            change.commit()?;
            Ok(rows.len())
        })
        .await
    }
}

struct Row {
    session_id: String,
    session_type: String,
    status: &'static str,
    created_at: String,
    expires_at: String,
    record: String,
}

impl Row {
    fn of(session: &Session) -> Result<Self, StoreError> {
        Ok(Self {
            session_id: session.id().to_string(),
            session_type: session.session_type().to_string(),
            status: session.status().as_str(),
            created_at: time(session.created_at()),
            expires_at: time(session.expires_at()),
            record: serde_json::to_string(session).map_err(|e| corrupt("a session", e))?,
        })
    }
}

fn update(db: &Connection, row: &Row) -> rusqlite::Result<()> {
    let changed = db
        .prepare_cached("UPDATE sessions SET status = ?2, record = ?3 WHERE session_id = ?1")?
        .execute(params![row.session_id, row.status, row.record])?;
    if changed == 1 { Ok(()) } else { Err(rusqlite::Error::QueryReturnedNoRows) }
}

fn parse(record: &str) -> Result<Session, StoreError> {
    serde_json::from_str(record).map_err(|e| corrupt("a session", e))
}

/// Always with milliseconds, so that texts sort like times.
fn time(time: Timestamp) -> String {
    format!("{time:.3}")
}
