//! Rows of what was spent, one for each session, as long as any window can see them.

use casemate_policy::spend::Spending;
use casemate_wire::{Digest32, SessionId};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::sessions::{from_json, to_json};
use super::{StoreError, Transaction};

/// Seconds that a row is kept: far longer than any window, so that a clock that is wrong for a while deletes nothing.
const KEPT: i64 = 90 * 24 * 3600;

/// A row's text. The salt keeps amounts out of the log: whoever has the leaf alone cannot try likely ones.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entered {
    /// 32 random bytes.
    salt: Digest32,
    spending: Spending,
}

/// Everything that may still count, oldest first.
pub(crate) fn load_spending(connection: &Connection) -> Result<Vec<Spending>, StoreError> {
    let failed = StoreError::sqlite("read what was spent");
    let mut statement = connection
        .prepare("SELECT spending FROM spend WHERE state = 'reserved' ORDER BY at, session_id")
        .map_err(&failed)?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).map_err(&failed)?;
    rows.map(|row| Ok(from_json::<Entered>(&row.map_err(&failed)?)?.spending)).collect()
}

/// Writes what a session will spend at most; rows that no window sees any more go. Gives the hash of the row, which its leaf
/// so commits to.
pub(crate) fn reserve_spending(transaction: &Transaction<'_>, spending: Spending) -> Result<Digest32, StoreError> {
    let failed = StoreError::sqlite("reserve what is spent");
    let sql = transaction.sql();
    let newest: Option<i64> = sql.query_row("SELECT max(at) FROM spend", [], |row| row.get(0)).map_err(&failed)?;
    let newest = newest.unwrap_or(i64::MIN).max(spending.at);
    sql.prepare_cached("DELETE FROM spend WHERE at < ?1")
        .and_then(|mut statement| statement.execute([newest.saturating_sub(KEPT)]))
        .map_err(&failed)?;
    let (session, at) = (spending.session.clone(), spending.at);
    let text = to_json(&Entered { salt: Digest32(rand::random()), spending });
    sql.prepare_cached("INSERT INTO spend (session_id, at, state, spending) VALUES (?1, ?2, 'reserved', ?3)")
        .and_then(|mut statement| statement.execute((session.as_str(), at, &text)))
        .map_err(&failed)?;
    Ok(crate::digest(text.as_bytes()))
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
