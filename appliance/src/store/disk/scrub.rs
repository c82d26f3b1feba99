//! Reads the audit log again and again, a little at a time, so that damage shows before the line is needed.
//!
//! Each look takes a new connection: one that was kept would answer from its memory. It finds what SQLite calls corrupt on
//! the way, and lines that are not what the next line's hash says. Guard tables are compared with the log only at a start.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_attest::Line;
use casemate_wire::Digest32;
use rusqlite::Connection;

use super::{Disk, Reason, Trouble};
use crate::store::{StoreError, schema};

/// How long one look may take: a hundredth of a core at two looks a second.
const TIME: Duration = Duration::from_millis(5);
/// Lines that are read at a time.
const LINES: i64 = 16;

/// Where the reading stands.
pub(super) struct Scrub {
    path: PathBuf,
    /// The number of the next line, and the hash of the one before it if that was read.
    next: i64,
    before: Option<Digest32>,
}

impl Scrub {
    pub(super) fn of(path: PathBuf) -> Self {
        Self { path, next: 0, before: None }
    }

    /// Reads on for a moment, and from the start again after the end. Damage is told to `disk`.
    pub(super) fn go_on(&mut self, disk: &Arc<Disk>) {
        if let Err(error) = disk.admit_reader().and_then(|()| self.read(&schema::open_reader(&self.path)?)) {
            disk.failed(&error);
        }
    }

    fn read(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let failed = StoreError::sqlite("read the audit log again");
        let begun = Instant::now();
        let mut lines = connection
            .prepare("SELECT seq, line FROM leaves WHERE seq >= ?1 ORDER BY seq LIMIT ?2")
            .map_err(&failed)?;
        while begun.elapsed() < TIME {
            let rows = lines.query_map((self.next, LINES), |row| Ok((row.get(0)?, row.get(1)?))).map_err(&failed)?;
            let rows: Vec<(i64, String)> = rows.collect::<Result<_, _>>().map_err(&failed)?;
            if rows.is_empty() {
                (self.next, self.before) = (0, None);
                return Ok(());
            }
            for (seq, line) in rows {
                self.follow(seq, &line).map_err(|why| StoreError::Disk {
                    doing: "read the audit log again",
                    trouble: Trouble::new(Reason::Corrupt, format!("line {seq} is not what was written: {why}")),
                })?;
            }
        }
        Ok(())
    }

    /// Checks that this line continues the one before.
    fn follow(&mut self, seq: i64, text: &str) -> Result<(), String> {
        let line = Line::read(text.as_bytes()).map_err(|error| error.to_string())?;
        if i64::try_from(line.leaf().seq) != Ok(seq) {
            return Err(format!("it is the line {}", line.leaf().seq));
        }
        if self.before.is_some_and(|before| self.next != seq || before != line.leaf().prev) {
            return Err("it does not continue the line before".into());
        }
        (self.next, self.before) = (seq.saturating_add(1), Some(line.hash()));
        Ok(())
    }
}
