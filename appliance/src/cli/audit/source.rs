//! Where an auditor's log comes from: files of lines, the folder of an export, or a data folder, also of a running daemon.

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use casemate_attest::line::MAX_LINE;
use casemate_attest::{DisclosedLeaf, Snapshot};
use clap::Args;
use rusqlite::Connection;

use super::progress::Progress;
use crate::config::Config;
use crate::store::{audit_details, audit_lines, audit_notes, audit_snapshot, open_read_only};

/// The names of the files in an export.
pub(super) const LINES: &str = "log.jsonl";
pub(super) const DETAILS: &str = "details.jsonl";
pub(super) const CHECKPOINTS: &str = "checkpoints.jsonl";
pub(super) const SNAPSHOT: &str = "snapshot.json";

/// Rows that are read at a time.
const CHUNK: u64 = 1000;
/// The largest snapshot that is read, in bytes.
const MAX_SNAPSHOT: u64 = 256 * 1024 * 1024;

type Failure = Box<dyn Error>;

/// Which log.
#[derive(Args)]
pub(super) struct LogArguments {
    /// Files of lines (several are segments of one log, in order), the folder of an export, or a data folder, also of a
    /// running daemon.
    #[arg(value_name = "LOG", required_unless_present_any = ["data_dir", "config"])]
    logs: Vec<PathBuf>,
    /// A data folder, also of a running daemon.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["logs", "config"])]
    data_dir: Option<PathBuf>,
    /// The configuration that names the data folder.
    #[arg(long, value_name = "FILE", conflicts_with = "logs")]
    config: Option<PathBuf>,
}

impl LogArguments {
    pub(super) fn open(&self) -> Result<Source, Failure> {
        if let Some(config) = &self.config {
            return Source::store(&Config::load(config)?.data_dir);
        }
        match &self.data_dir {
            Some(folder) => Source::store(folder),
            None => Source::open(&self.logs),
        }
    }
}

/// One log, open for reading.
pub(super) enum Source {
    /// Files of lines, with what lies beside them.
    Files { lines: Vec<PathBuf>, folder: Option<PathBuf> },
    /// A data folder's database, in one read transaction.
    Store(Connection),
}

impl Source {
    /// Takes files, or one folder.
    pub(super) fn open(paths: &[PathBuf]) -> Result<Self, Failure> {
        match paths {
            [folder] if folder.join(LINES).is_file() => {
                Ok(Self::Files { lines: vec![folder.join(LINES)], folder: Some(folder.clone()) })
            }
            [folder] if folder.is_dir() => Self::store(folder),
            files => {
                if let Some(folder) = files.iter().find(|path| path.is_dir()) {
                    let why = "is a folder; give several files as the segments of one log, or one folder alone";
                    return Err(format!("{} {why}", folder.display()).into());
                }
                Ok(Self::Files { lines: files.to_vec(), folder: None })
            }
        }
    }

    fn store(folder: &Path) -> Result<Self, Failure> {
        let failed = |e: &dyn std::fmt::Display| {
            format!(
                "cannot read the log in {}: {e}; give a data folder, the folder of an export, or its log.jsonl",
                folder.display()
            )
        };
        let connection = open_read_only(folder).map_err(|e| failed(&e))?;
        // What a running daemon adds meanwhile is left out of lines, details and checkpoints alike.
        connection.execute_batch("BEGIN").map_err(|e| failed(&e))?;
        Ok(Self::Store(connection))
    }

    /// Gives every line, without its newline, to `each`, until one is refused.
    pub(super) fn each_line<E>(&self, each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<Option<E>, Failure> {
        let mut progress = Progress::new("lines read");
        match self {
            Self::Files { lines, .. } => file_lines(lines, each, &mut progress),
            Self::Store(connection) => stored_lines(connection, each, &mut progress),
        }
    }

    /// The details beside the log, in order; `given` names files that are read instead, one a segment.
    pub(super) fn details(&self, given: &[PathBuf]) -> Result<Details<'_>, Failure> {
        let beside = match self {
            Self::Files { folder, .. } => {
                folder.as_ref().map(|folder| folder.join(DETAILS)).filter(|path| path.is_file())
            }
            Self::Store(connection) if given.is_empty() => return Ok(Details::stored(connection)),
            Self::Store(_) => None,
        };
        let mut files = given.to_vec();
        if files.is_empty() {
            files.extend(beside);
        }
        Details::files(files)
    }

    /// The signed checkpoints beside the log.
    pub(super) fn notes(&self) -> Result<Vec<String>, Failure> {
        match self {
            Self::Store(connection) => Ok(audit_notes(connection)?),
            Self::Files { folder, .. } => {
                let path = folder.as_ref().map(|folder| folder.join(CHECKPOINTS)).filter(|path| path.is_file());
                path.map_or_else(|| Ok(Vec::new()), |path| super::notes::read_exported(&path))
            }
        }
    }

    /// What the lines rest on, if they do not begin with the log's first, or if that takes over what another log left.
    pub(super) fn snapshot(&self, given: Option<&Path>) -> Result<Option<Snapshot>, Failure> {
        let text = match (given, self) {
            (Some(path), _) => Some(read_text("the snapshot", path, MAX_SNAPSHOT)?),
            (None, Self::Store(connection)) => audit_snapshot(connection)?,
            (None, Self::Files { folder, .. }) => {
                let path = folder.as_ref().map(|folder| folder.join(SNAPSHOT)).filter(|path| path.is_file());
                path.map(|path| read_text("the snapshot", &path, MAX_SNAPSHOT)).transpose()?
            }
        };
        let read = text.map(|text| Snapshot::read(text.trim_end_matches('\n'))).transpose();
        Ok(read?)
    }

    /// The folder beside the lines, where there is one: an export's, or the data folder.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        match self {
            Self::Files { folder, .. } => folder.clone(),
            Self::Store(connection) => Some(Path::new(connection.path()?).parent()?.to_owned()),
        }
    }
}

fn file_lines<E>(
    files: &[PathBuf],
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
    progress: &mut Progress,
) -> Result<Option<E>, Failure> {
    for path in files {
        let failed = |e: std::io::Error| format!("cannot read the log {}: {e}", path.display());
        let mut lines = BufReader::new(File::open(path).map_err(failed)?);
        let mut line = Vec::new();
        loop {
            line.clear();
            // A file without line ends must not fill the memory.
            let limit = MAX_LINE as u64 + 2;
            if Read::take(&mut lines, limit).read_until(b'\n', &mut line).map_err(failed)? == 0 {
                break;
            }
            if let Err(refused) = each(line.strip_suffix(b"\n").unwrap_or(&line)) {
                return Ok(Some(refused));
            }
            progress.step();
        }
    }
    Ok(None)
}

fn stored_lines<E>(
    connection: &Connection,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
    progress: &mut Progress,
) -> Result<Option<E>, Failure> {
    // A log that was pruned begins later.
    let mut from =
        connection.query_row("SELECT coalesce(min(seq), 0) FROM leaves", [], |row| row.get::<_, i64>(0))?.try_into()?;
    loop {
        let lines = audit_lines(connection, from, CHUNK)?;
        for line in &lines {
            if let Err(refused) = each(line.as_bytes()) {
                return Ok(Some(refused));
            }
            progress.step();
        }
        let read = u64::try_from(lines.len())?;
        if read < CHUNK {
            return Ok(None);
        }
        from += read;
    }
}

/// Details in the order of the log, read along with its lines.
pub(super) struct Details<'a> {
    next: Box<dyn FnMut() -> Result<Option<DisclosedLeaf>, Failure> + 'a>,
    waiting: Option<DisclosedLeaf>,
    /// Whether any were given.
    pub(super) given: bool,
}

impl<'a> Details<'a> {
    fn files(paths: Vec<PathBuf>) -> Result<Self, Failure> {
        let given = !paths.is_empty();
        let mut files = Vec::new();
        for path in paths {
            let name = path.display().to_string();
            let file = File::open(&path).map_err(|e| format!("cannot read the details {name}: {e}"))?;
            files.push(lines_of(BufReader::new(file)).map(move |line| (name.clone(), line)));
        }
        let mut lines = files.into_iter().flatten();
        let next = move || {
            let Some((name, line)) = lines.next() else { return Ok(None) };
            let line = line.map_err(|e| format!("cannot read the details {name}: {e}"))?;
            let why = "give the details.jsonl of an export";
            let read = serde_json::from_slice(&line);
            Ok(Some(read.map_err(|e| format!("{name} holds a line that is no detail: {e}; {why}"))?))
        };
        Ok(Self { next: Box::new(next), waiting: None, given })
    }

    fn stored(connection: &'a Connection) -> Self {
        let mut rows = Vec::new().into_iter();
        let mut from = 0;
        let next = move || {
            if rows.len() == 0 {
                rows = audit_details(connection, from, CHUNK)?.into_iter();
            }
            let row: Option<DisclosedLeaf> = rows.next();
            from = row.as_ref().map_or(from, |row| row.seq.saturating_add(1));
            Ok(row)
        };
        Self { next: Box::new(next), waiting: None, given: true }
    }

    /// The detail of a leaf; details of earlier leaves that nobody asked for are passed over.
    pub(super) fn of(&mut self, seq: u64) -> Result<Option<DisclosedLeaf>, Failure> {
        loop {
            if self.waiting.is_none() {
                self.waiting = (self.next)()?;
            }
            match &self.waiting {
                Some(waiting) if waiting.seq < seq => self.waiting = None,
                Some(waiting) if waiting.seq == seq => return Ok(self.waiting.take()),
                _ => return Ok(None),
            }
        }
    }

    /// What stands after the details that were asked for.
    pub(super) fn rest(&mut self) -> Result<Option<DisclosedLeaf>, Failure> {
        match self.waiting.take() {
            Some(waiting) => Ok(Some(waiting)),
            None => (self.next)(),
        }
    }
}

/// Reads a text file that cannot be longer than `limit` bytes.
pub(super) fn read_text(what: &str, path: &Path, limit: u64) -> Result<String, Failure> {
    let failed = |e: &dyn std::fmt::Display| format!("cannot read {what} {}: {e}", path.display());
    let file = File::open(path).map_err(|e| failed(&e))?;
    let mut text = String::new();
    let read = file.take(limit.saturating_add(1)).read_to_string(&mut text).map_err(|e| failed(&e))?;
    if u64::try_from(read)? > limit {
        return Err(failed(&format!("it has more than {limit} bytes")).into());
    }
    Ok(text)
}

/// The longest line of a file of details, in bytes: a detail is bounded as a leaf is, and its place and salt are short.
const MAX_DETAIL_LINE: u64 = 2 * MAX_LINE as u64;

/// Lines without their newline. One that is longer than any detail is cut, and is then none.
fn lines_of(mut reader: impl BufRead) -> impl Iterator<Item = std::io::Result<Vec<u8>>> {
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        match std::io::Read::take(&mut reader, MAX_DETAIL_LINE).read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => {
                line.pop_if(|last| *last == b'\n');
                Some(Ok(line))
            }
            Err(error) => Some(Err(error)),
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A file of details comes from whoever sent the log.
    #[test]
    fn a_line_of_details_without_an_end_takes_no_more_memory_than_the_longest_detail() {
        let mut endless = lines_of(BufReader::new(std::io::repeat(b'x')));
        for _ in 0..3 {
            assert_eq!(endless.next().unwrap().unwrap().len() as u64, MAX_DETAIL_LINE);
        }
    }

    #[test]
    fn lines_of_details_are_read_whole_up_to_the_longest() {
        let longest = usize::try_from(MAX_DETAIL_LINE).unwrap() - 1;
        let text = ["x".repeat(longest), String::new(), "y".to_owned()].join("\n");
        let lines: Vec<usize> = lines_of(text.as_bytes()).map(|line| line.unwrap().len()).collect();
        assert_eq!(lines, [longest, 0, 1]);
    }
}
