//! How a log begins: database and anchor together, and never again.
//!
//! The database is made under another name, then the anchor is put, then the database gets its name. Cut off anywhere,
//! it can be done again; once it is done, it cannot.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use casemate_attest::{Anchored, Head, LogId, Place};

use super::anchor::Anchor;
use super::evidence::begin_log;
use super::{Store, StoreError, schema};

impl Store {
    /// Begins the audit log `log` in a data folder without a database, under an anchor that was never put. Gives the
    /// place of its first leaf.
    ///
    /// # Errors
    /// There is a database, or an anchor of another log; or one of both cannot be made.
    pub fn create(folder: &Path, log: &LogId, anchor: &mut dyn Anchor) -> Result<Place, StoreError> {
        let _lock = schema::lock(folder)?;
        let (database, unfinished) = (schema::database(folder), folder.join("casemate.db.new"));
        if is_there(&database)? {
            let why = format!("{} is there already; a log is begun once", database.display());
            return Err(StoreError::Begun(why));
        }
        let anchored = anchor.place().map_err(|error| StoreError::Anchor(error.to_string()))?;
        let (expected, place) = match anchored {
            Anchored::Nothing => (None, begin(&unfinished, log)?),
            Anchored::At(place) if first_place(&unfinished)?.as_ref() == Some(&place) => (Some(place.clone()), place),
            Anchored::At(Place { log, size, .. }) => {
                return Err(StoreError::Begun(format!("the HSM has anchored {size} leaves of the log {log}")));
            }
            Anchored::Unusable(why) => return Err(StoreError::Begun(why)),
        };
        anchor.put(expected.as_ref(), &place).map_err(|error| StoreError::Anchor(error.to_string()))?;
        let failed = |error: std::io::Error| StoreError::Folder { path: folder.to_owned(), why: error.to_string() };
        fs::rename(&unfinished, &database).map_err(failed)?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(place)
    }
}

/// Makes a database with nothing but the first leaf, and closes it.
fn begin(path: &Path, log: &LogId) -> Result<Place, StoreError> {
    for leftover in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(leftover);
        let path = PathBuf::from(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::Folder { path, why: error.to_string() });
            }
            _ => {}
        }
    }
    let connection = schema::create(path)?;
    let head = begin_log(&connection, log)?;
    let closed = connection.close().map_err(|(_, error)| error);
    closed.map_err(StoreError::sqlite("close the new database"))?;
    Ok(place_of(&head))
}

/// The place of an unfinished database, if it is one with nothing but its first leaf.
fn first_place(path: &Path) -> Result<Option<Place>, StoreError> {
    if !is_there(path)? {
        return Ok(None);
    }
    let connection = schema::open_reader(path)?;
    let examined = super::examine::examine(Some(&connection), Anchored::Nothing)?;
    Ok(examined.head.filter(|head| head.size() == 1).map(|head| place_of(&head)))
}

/// Where a head stands.
pub(super) fn place_of(head: &Head) -> Place {
    Place { log: head.log().clone(), size: head.size(), root: head.root() }
}

fn is_there(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(|e| StoreError::Folder { path: path.to_owned(), why: e.to_string() })
}
