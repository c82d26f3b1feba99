//! What auditors read beside the log's lines: details, checkpoints, and what the log rests on. Each in one read, so that a
//! running daemon is not held up.

use casemate_attest::{DisclosedLeaf, Disclosure};
use rusqlite::{Connection, OptionalExtension};

use super::StoreError;

/// The details of the leaves from `from` on, at most `limit`, in the order of the log.
///
/// # Errors
/// Says what SQLite says, or which detail cannot be read.
pub fn audit_details(connection: &Connection, from: u64, limit: u64) -> Result<Vec<DisclosedLeaf>, StoreError> {
    let failed = StoreError::sqlite("read the audit log's details");
    let sql = "SELECT seq, salt, detail FROM details WHERE seq >= ?1 ORDER BY seq LIMIT ?2";
    let mut statement = connection.prepare_cached(sql).map_err(&failed)?;
    let bound = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let rows = statement
        .query_map([bound(from), bound(limit)], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)))
        .map_err(&failed)?;
    let mut details = Vec::new();
    for row in rows {
        let (seq, salt, detail): (i64, [u8; 32], String) = row.map_err(&failed)?;
        let unreadable =
            |why: String| StoreError::corrupt("a detail of the audit log")(format!("of leaf {seq}: {why}"));
        let detail = serde_json::from_str(&detail).map_err(|e| unreadable(e.to_string()))?;
        let seq = u64::try_from(seq).map_err(|_| unreadable("its place is negative".into()))?;
        details.push(DisclosedLeaf { seq, disclosure: Disclosure { salt, detail } });
    }
    Ok(details)
}

/// All signed checkpoints that are kept, as notes, the smallest first.
///
/// # Errors
/// Says what SQLite says.
pub fn audit_notes(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let failed = StoreError::sqlite("read the audit log's checkpoints");
    let mut statement = connection.prepare("SELECT note FROM checkpoints ORDER BY size").map_err(&failed)?;
    let rows = statement.query_map([], |row| row.get(0)).map_err(&failed)?;
    rows.collect::<Result<_, _>>().map_err(&failed)
}

/// The snapshot that the log's lines rest on, where its earlier lines were exported and pruned.
///
/// # Errors
/// Says what SQLite says.
pub fn audit_snapshot(connection: &Connection) -> Result<Option<String>, StoreError> {
    let row = connection.query_row("SELECT text FROM snapshot", [], |row| row.get(0)).optional();
    row.map_err(StoreError::sqlite("read what the audit log rests on"))
}
