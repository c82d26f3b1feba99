//! Rows of what was spent, one for each session, as long as any window can see them.

use casemate_policy::spend::Spending;
use casemate_wire::{Digest32, SessionId};
use rusqlite::Connection;

use super::sessions::{from_json, to_json};
use super::{StoreError, Transaction};

/// Seconds that a row is kept: far longer than any window, so that a clock that is wrong for a while deletes nothing.
const KEPT: i64 = 90 * 24 * 3600;

/// Everything that may still count, oldest first.
pub(crate) fn load_spending(connection: &Connection) -> Result<Vec<Spending>, StoreError> {
    let failed = StoreError::sqlite("read what was spent");
    let mut statement = connection
        .prepare("SELECT spending FROM spend WHERE state = 'reserved' ORDER BY at, session_id")
        .map_err(&failed)?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).map_err(&failed)?;
    rows.map(|row| from_json(&row.map_err(&failed)?)).collect()
}

/// Writes what a session will spend at most; rows that no window sees any more go.
pub(crate) fn reserve_spending(transaction: &Transaction<'_>, spending: &Spending) -> Result<(), StoreError> {
    let failed = StoreError::sqlite("reserve what is spent");
    let sql = transaction.sql();
    let newest: Option<i64> = sql.query_row("SELECT max(at) FROM spend", [], |row| row.get(0)).map_err(&failed)?;
    let newest = newest.unwrap_or(i64::MIN).max(spending.at);
    sql.prepare_cached("DELETE FROM spend WHERE at < ?1")
        .and_then(|mut statement| statement.execute([newest.saturating_sub(KEPT)]))
        .map_err(&failed)?;
    sql.prepare_cached("INSERT INTO spend (session_id, at, state, spending) VALUES (?1, ?2, 'reserved', ?3)")
        .and_then(|mut statement| statement.execute((spending.session.as_str(), spending.at, to_json(spending))))
        .map(|_| ())
        .map_err(&failed)
}

/// What the audit log says of a reservation: the hash of the row, which its leaf so commits to.
pub(crate) fn spending_digest(spending: &Spending) -> Digest32 {
    crate::digest(to_json(spending).as_bytes())
}

/// Takes a reservation back; `true` if there was one.
pub(crate) fn release_spending(transaction: &Transaction<'_>, session: &SessionId) -> Result<bool, StoreError> {
    let changed = transaction
        .sql()
        .prepare_cached("UPDATE spend SET state = 'released' WHERE session_id = ?1 AND state = 'reserved'")
        .and_then(|mut statement| statement.execute([session.as_str()]))
        .map_err(StoreError::sqlite("release what was reserved"))?;
    Ok(changed == 1)
}

/// Whether a reservation was taken back.
pub(crate) fn was_released(connection: &Connection, session: &SessionId) -> Result<bool, StoreError> {
    connection
        .prepare_cached("SELECT 1 FROM spend WHERE session_id = ?1 AND state = 'released'")
        .and_then(|mut statement| statement.exists([session.as_str()]))
        .map_err(StoreError::sqlite("read what was spent"))
}
