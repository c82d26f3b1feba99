//! The audit log as it is stored: lines exactly as hashed, the tree's complete nodes, and the details that leaves commit to.

use casemate_attest::tree::{NodeId, Nodes};
use casemate_attest::{Appended, Disclosure, Head, LogId};
use casemate_wire::Digest32;
use rusqlite::{Connection, OptionalExtension};

use super::StoreError;
use super::sessions::{from_json, to_json};

/// The audit lines from `from` on, at most `limit`, exactly as hashed.
///
/// # Errors
/// Says what SQLite says.
pub fn audit_lines(connection: &Connection, from: u64, limit: u64) -> Result<Vec<String>, StoreError> {
    let failed = StoreError::sqlite("read the audit log");
    let mut statement =
        connection.prepare_cached("SELECT line FROM leaves WHERE seq >= ?1 ORDER BY seq LIMIT ?2").map_err(&failed)?;
    let bound = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let rows = statement.query_map([bound(from), bound(limit)], |row| row.get(0)).map_err(&failed)?;
    rows.collect::<Result<_, _>>().map_err(&failed)
}

/// The tree's complete nodes in the store.
pub struct TreeNodes<'a>(pub &'a Connection);

impl Nodes for TreeNodes<'_> {
    type Error = StoreError;
    fn node(&self, id: NodeId) -> Result<Digest32, StoreError> {
        let missing =
            || StoreError::corrupt("the audit tree")(format!("node {} of level {} is missing", id.index, id.level));
        self.find(id)?.ok_or_else(missing)
    }
}

impl TreeNodes<'_> {
    /// A node's hash; `None` if it is not there.
    ///
    /// # Errors
    /// Says what SQLite says.
    pub fn find(&self, id: NodeId) -> Result<Option<Digest32>, StoreError> {
        let found: Option<[u8; 32]> = self
            .0
            .prepare_cached("SELECT hash FROM tree WHERE node = ?1")
            .and_then(|mut statement| statement.query_row([number(id)?], |row| row.get(0)).optional())
            .map_err(StoreError::sqlite("read the audit tree"))?;
        Ok(found.map(Digest32))
    }
}

/// How many nodes of the tree are stored.
pub(super) fn stored_nodes(connection: &Connection) -> Result<u64, StoreError> {
    let count: i64 = connection
        .query_row("SELECT count(*) FROM tree", [], |row| row.get(0))
        .map_err(StoreError::sqlite("count the audit tree"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// What is kept beside a leaf; `None` if nothing is.
pub(super) fn detail_of(connection: &Connection, seq: u64) -> Result<Option<Disclosure>, StoreError> {
    let row: Option<([u8; 32], String)> = connection
        .prepare_cached("SELECT salt, detail FROM details WHERE seq = ?1")
        .and_then(|mut statement| {
            statement
                .query_row([i64::try_from(seq).unwrap_or(i64::MAX)], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })
        .map_err(StoreError::sqlite("read the audit log's details"))?;
    row.map(|(salt, detail)| Ok(Disclosure { salt, detail: from_json(&detail)? })).transpose()
}

/// How many leaves are stored, by the last one's number.
pub(super) fn log_size(connection: &Connection) -> Result<u64, StoreError> {
    let last: Option<i64> = connection
        .query_row("SELECT max(seq) FROM leaves", [], |row| row.get(0))
        .map_err(StoreError::sqlite("read the audit log"))?;
    Ok(last.and_then(|last| u64::try_from(last).ok()).map_or(0, |last| last.saturating_add(1)))
}

/// Begins the log of an empty store.
pub(super) fn begin_log(connection: &Connection, log: &LogId) -> Result<Head, StoreError> {
    let refused = |e: casemate_attest::AppendError| StoreError::Audit(e.to_string());
    let appended =
        Head::genesis(log.clone(), casemate_attest::Entry::genesis(), jiff::Timestamp::now()).map_err(refused)?;
    write_leaf(connection, &appended, None)?;
    Ok(appended.head)
}

/// Writes a line, the nodes that it completes, and its detail.
pub(super) fn write_leaf(
    connection: &Connection,
    appended: &Appended,
    disclosure: Option<&Disclosure>,
) -> Result<(), StoreError> {
    let failed = StoreError::sqlite("write the audit log");
    let seq =
        i64::try_from(appended.line.leaf().seq).map_err(|_| StoreError::Audit("the log has no numbers left".into()))?;
    let sql = |text: &str| connection.prepare_cached(text);
    sql("INSERT INTO leaves (seq, line) VALUES (?1, ?2)")
        .and_then(|mut statement| statement.execute((seq, appended.line.as_str())))
        .map_err(&failed)?;
    let mut nodes = sql("INSERT INTO tree (node, hash) VALUES (?1, ?2)").map_err(&failed)?;
    for (id, hash) in &appended.nodes {
        number(*id).and_then(|node| nodes.execute((node, hash.0))).map_err(&failed)?;
    }
    if let Some(Disclosure { salt, detail }) = disclosure {
        sql("INSERT INTO details (seq, salt, detail) VALUES (?1, ?2, ?3)")
            .and_then(|mut statement| statement.execute((seq, salt, to_json(detail))))
            .map_err(&failed)?;
    }
    Ok(())
}

/// A node's key: `level · 2^56 + index`.
fn number(id: NodeId) -> rusqlite::Result<i64> {
    const INDEX_BITS: u32 = 56;
    let number = (u64::from(id.level) << INDEX_BITS) | id.index;
    let fits = id.level < 64 && id.index >> INDEX_BITS == 0;
    let number = i64::try_from(number).ok().filter(|_| fits);
    number.ok_or_else(|| rusqlite::Error::ToSqlConversionFailure("a node of the audit tree has no number".into()))
}
