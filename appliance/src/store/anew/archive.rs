//! Files that must not be lost: written beside their name, on disk before they get it, and never written over.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::store::StoreError;

/// Writes a file that only its owner can read. When this returns it is on disk, name and all. One that is there and says
/// the very same is left as it is.
///
/// # Errors
/// Another file has that name, or it cannot be written.
fn put_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let failed = |e: std::io::Error| StoreError::Folder { path: path.to_owned(), why: e.to_string() };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    let file =
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&unfinished).map_err(failed)?;
    let mut output = BufWriter::new(file);
    write(&mut output)?;
    output.flush().map_err(failed)?;
    output.get_ref().sync_all().map_err(failed)?;
    if path.try_exists().map_err(failed)? {
        let same = same(path, &unfinished).map_err(failed)?;
        fs::remove_file(&unfinished).map_err(failed)?;
        if !same {
            let why = "there is another file of that name, which is not written over; name another one".into();
            return Err(StoreError::Folder { path: path.to_owned(), why });
        }
    } else {
        fs::rename(&unfinished, path).map_err(failed)?;
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// Writes a text as such a file.
///
/// # Errors
/// As [`put_file`].
pub(crate) fn put_text(path: &Path, text: &[u8]) -> Result<(), StoreError> {
    put_file(path, |output| output.write_all(text).map_err(|e| cannot_write(path, &e)))
}

/// Makes a folder that only its owner can read, unless it is there.
///
/// # Errors
/// It cannot be made.
pub(crate) fn make_folder(path: &Path) -> Result<(), StoreError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    let synced = made.and_then(|()| path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all()));
    synced.map_err(|e| StoreError::Folder { path: path.to_owned(), why: e.to_string() })
}

/// Writes the first column of each row as a line.
///
/// # Errors
/// Says what cannot be read or written.
fn put_rows(path: &Path, store: &Connection, sql: &str) -> Result<(), StoreError> {
    let failed = StoreError::sqlite("read the audit log");
    put_file(path, |output| {
        let mut statement = store.prepare(sql).map_err(&failed)?;
        let mut rows = statement.query([]).map_err(&failed)?;
        while let Some(row) = rows.next().map_err(&failed)? {
            let line: String = row.get(0).map_err(&failed)?;
            output
                .write_all(line.as_bytes())
                .and_then(|()| output.write_all(b"\n"))
                .map_err(|e| cannot_write(path, &e))?;
        }
        Ok(())
    })
}

/// Writes the log as it is stored into a folder, in the form of an export: lines, details, checkpoints, and what they rest on.
///
/// # Errors
/// Says what cannot be read or written, or that other files of these names are there.
pub(crate) fn put_log(folder: &Path, store: &Connection) -> Result<(), StoreError> {
    put_rows(&folder.join("log.jsonl"), store, "SELECT line FROM leaves ORDER BY seq")?;
    put_rows(&folder.join("details.jsonl"), store, DETAILS)?;
    let notes = "SELECT json_object('size', size, 'note', note) FROM checkpoints ORDER BY size";
    put_rows(&folder.join("checkpoints.jsonl"), store, notes)?;
    match super::super::audit_snapshot(store)? {
        Some(text) => put_text(&folder.join("snapshot.json"), text.as_bytes()),
        None => Ok(()),
    }
}

/// What is disclosed beside the leaves, as [`casemate_attest::DisclosedLeaf`]s; what is damaged is kept as it is.
const DETAILS: &str = "SELECT json_object('seq', seq, 'disclosure', json_object('salt', lower(hex(salt)),
         'detail', CASE WHEN json_valid(detail) THEN json(detail) ELSE detail END))
     FROM details ORDER BY seq";

fn cannot_write(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Folder { path: path.to_owned(), why: error.to_string() }
}

fn same(one: &Path, other: &Path) -> std::io::Result<bool> {
    if fs::metadata(one)?.len() != fs::metadata(other)?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (BufReader::new(File::open(one)?), BufReader::new(File::open(other)?));
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let read = one.read(&mut left)?;
        if read == 0 {
            return Ok(true);
        }
        let (Some(left), Some(right)) = (left.get(..read), right.get_mut(..read)) else { return Ok(false) };
        other.read_exact(right)?;
        if left != right {
            return Ok(false);
        }
    }
}
