//! Approvals that were used up, as long as they could count again.

use casemate_wire::Digest32;
use rusqlite::{Connection, OptionalExtension};

use super::{OneUse, StoreError, Transaction};

/// Seconds that a row is kept beyond its time, so that a clock that is wrong for a while forgets nothing.
const KEPT_BEYOND: i64 = 30 * 24 * 3600;

/// Whether an approval that counts once has been used.
pub(crate) fn approval_used(connection: &Connection, statement: &Digest32) -> Result<bool, StoreError> {
    connection
        .prepare_cached("SELECT 1 FROM approvals WHERE statement = ?1")
        .and_then(|mut query| query.query_row([statement.to_string()], |_| Ok(())).optional())
        .map(|found| found.is_some())
        .map_err(StoreError::sqlite("read the used approvals"))
}

/// Marks an approval as used until `keep_until` (Unix seconds), when the approval itself has expired. Those whose time is
/// long over are forgotten: they count no more anyway.
pub(crate) fn use_approval(
    transaction: &Transaction<'_>,
    statement: &Digest32,
    keep_until: i64,
    now: i64,
) -> Result<OneUse, StoreError> {
    let failed = StoreError::sqlite("record an approval");
    let sql = transaction.sql();
    sql.prepare_cached("DELETE FROM approvals WHERE keep_until < ?1")
        .and_then(|mut query| query.execute([now.saturating_sub(KEPT_BEYOND)]))
        .map_err(&failed)?;
    let inserted = sql
        .prepare_cached("INSERT OR IGNORE INTO approvals (statement, keep_until) VALUES (?1, ?2)")
        .and_then(|mut query| query.execute((statement.to_string(), keep_until)))
        .map_err(&failed)?;
    Ok(if inserted == 1 { OneUse::First } else { OneUse::Replayed })
}
