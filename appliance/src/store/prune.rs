//! Pruning: lines that are exported and kept elsewhere leave the database. The tree stays, so proofs go on; the log goes on
//! too, and rests on a snapshot of all guards that its next leaf vouches for.

use std::path::{Path, PathBuf};

use casemate_attest::{At, Checkpoint, Entry, Head, Op, Snapshot, Verifier};
use jiff::Timestamp;
use rusqlite::Connection;

use super::anew::{make_folder, put_log, put_text};
use super::tables::drop_forgotten;
use super::{Store, StoreError, Urgency, audit_lines, audit_snapshot};

/// Lines that are read at a time.
const CHUNK: u64 = 1000;

/// The folder of one exported segment, in the form of an export: `log.jsonl`, `details.jsonl`, `checkpoints.jsonl`, and
/// `snapshot.json` where an earlier segment goes before.
#[derive(Debug, Clone)]
pub struct Segment {
    folder: PathBuf,
}

/// A verifier for the first stored line, and the time of what it rests on.
fn stored_verifier(connection: &Connection) -> Result<(Verifier, Option<At>), StoreError> {
    let Some(text) = audit_snapshot(connection)? else { return Ok((Verifier::new(), None)) };
    let snapshot = Snapshot::read(&text).map_err(|error| StoreError::Audit(error.to_string()))?;
    let at = snapshot.at;
    Ok((Verifier::resume(snapshot).map_err(|fault| StoreError::Audit(fault.to_string()))?, Some(at)))
}

/// A segment that is exported, and what the log will rest on without it. Only [`Segment::export`] makes one.
pub struct Exported {
    snapshot: Snapshot,
    text: String,
}

impl Segment {
    /// A segment that goes into this folder, which is made if it is not there.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The lines, exactly as hashed.
    pub fn lines(&self) -> PathBuf {
        self.folder.join("log.jsonl")
    }

    /// The snapshot that the lines lead to, and the remaining log rests on.
    pub fn after(&self) -> PathBuf {
        self.folder.join("after.json")
    }

    /// A checkpoint of their end, signed.
    pub fn checkpoint(&self) -> PathBuf {
        self.folder.join("checkpoint")
    }

    /// Verifies all stored lines and writes them to the segment's files; they are on disk when this returns. Files that are
    /// there and say the same are left as they are, so that an export that was cut off can be repeated.
    ///
    /// `latest` is the wall clock's time and the skew allowed for. A prune forgets what is too old to count, by the log's own
    /// time: after a clock that was far ahead that would be what still counts.
    ///
    /// # Errors
    /// The lines do not verify; one is from after `latest`; a session is still open; or a file cannot be written.
    pub fn export(&self, connection: &Connection, latest: Timestamp) -> Result<Exported, StoreError> {
        let moment = connection.unchecked_transaction().map_err(StoreError::sqlite("begin to read"))?;
        let (mut verifier, mut newest) = stored_verifier(&moment)?;
        let mut next = verifier.head().map_or(0, Head::size);
        loop {
            let lines = audit_lines(&moment, next, CHUNK)?;
            for line in &lines {
                let leaf = verifier.feed(line.as_bytes()).map_err(|fault| StoreError::Audit(fault.to_string()))?;
                newest = newest.max(Some(leaf.at));
            }
            let read = u64::try_from(lines.len()).unwrap_or(0);
            next = next.saturating_add(read);
            if read < CHUNK {
                break;
            }
        }
        if let Some(ahead) = newest.filter(|newest| newest.timestamp() > latest) {
            let why = format!(
                "a line is from {ahead}, which is ahead of this host's clock, so a prune might forget what still counts; check the \
                 clock, or prune when that time has passed"
            );
            return Err(StoreError::Audit(why));
        }
        let snapshot = verifier.snapshot().ok_or_else(|| StoreError::Audit("there is no line to prune".into()))?;
        if let Some(open) = snapshot.open.first() {
            let session = open.session.as_ref().map_or("a request", casemate_wire::SessionId::as_str);
            let why = format!("{session} has no outcome yet; start the daemon and stop it in order, then prune");
            return Err(StoreError::Audit(why));
        }
        let text = snapshot.to_text().map_err(|error| StoreError::Audit(error.to_string()))?;
        make_folder(&self.folder)?;
        put_text(&self.after(), text.as_bytes())?;
        put_log(&self.folder, &moment)?;
        Ok(Exported { snapshot, text })
    }
}

impl Exported {
    /// The end of the segment: what a checkpoint must be of.
    pub fn checkpoint(&self) -> Checkpoint {
        let casemate_attest::Place { log, size, root } = self.snapshot.place.clone();
        Checkpoint { log, size, root }
    }
}

impl Store {
    /// Deletes what was exported, once the leaf that vouches for the snapshot is anchored: a log whose anchor does not cover
    /// that leaf must never rest on it. Gives the log's size then.
    ///
    /// # Errors
    /// As [`Store::write`]; or that the log has gone on since the export.
    pub async fn prune(&self, exported: Exported) -> Result<u64, StoreError> {
        let Exported { snapshot, text } = exported;
        let size = i64::try_from(snapshot.place.size).map_err(|e| StoreError::Audit(e.to_string()))?;
        let named = text.clone();
        let after = self.write(Urgency::Record, move |transaction| {
            let text = named;
            let line = transaction.append(Entry::admin(Op::Prune).guarding(vec![Snapshot::guard(&text)]))?;
            let leaf = line.leaf();
            if (leaf.seq, leaf.prev) != (snapshot.place.size, snapshot.last) {
                return Err(StoreError::Audit("it has gone on since it was exported; export it again".into()));
            }
            drop_forgotten(transaction.sql(), &snapshot.state)?;
            Ok(leaf.seq.saturating_add(1))
        });
        let after = after.await?;
        self.write(Urgency::Record, move |transaction| {
            let failed = StoreError::sqlite("prune the audit log");
            let sql = transaction.sql();
            sql.execute("UPDATE sessions SET intent = NULL WHERE intent < ?1", [size]).map_err(&failed)?;
            for table in ["details", "leaves"] {
                sql.execute(&format!("DELETE FROM {table} WHERE seq < ?1"), [size]).map_err(&failed)?;
            }
            let put = "INSERT INTO snapshot (only_row, text) VALUES (1, ?1)
                 ON CONFLICT (only_row) DO UPDATE SET text = excluded.text";
            sql.execute(put, [&text]).map_err(&failed)?;
            Ok(after)
        })
        .await
    }
}
