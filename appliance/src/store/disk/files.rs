//! Whether the database's files are still those that were opened.
//!
//! SQLite goes on writing into a file that was deleted or moved away: what it calls durable is then gone with the process.
//! So the files at the paths are compared with those that were opened. They never shrink either, but where the writer empties
//! the write-ahead log of what was destroyed: one that is shorter than before was cut by somebody else.
//!
//! Only `stat` is used. Closing a second descriptor of a file would drop SQLite's locks on it (POSIX advisory locks).

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::trouble::{Reason, Trouble};

/// The files of an open database: itself, its write-ahead log, and that log's index.
pub(super) struct OpenedFiles {
    database: OpenedFile,
    beside: [OpenedFile; 2],
    /// Held while sizes are looked at, and while the log is cut.
    sizes: Mutex<()>,
}

impl OpenedFiles {
    /// Notes what lies at the paths of the `database` that has just been opened, in WAL mode.
    pub(super) fn note(database: &Path) -> Result<Self, Trouble> {
        let beside = [OpenedFile::note(wal(database))?, OpenedFile::note(beside(database, "-shm"))?];
        Ok(Self { beside, database: OpenedFile::note(database.to_owned())?, sizes: Mutex::default() })
    }

    /// The database's path.
    pub(super) fn database(&self) -> &Path {
        &self.database.path
    }

    /// Compares all of them with what is at their paths now.
    pub(super) fn check(&self) -> Result<(), Trouble> {
        let _sizes = self.sizes.lock();
        self.database.check()?;
        self.beside.iter().try_for_each(OpenedFile::check)
    }

    /// Has the write-ahead log cut by `work`, so that nobody takes it for damage.
    pub(super) fn cut_log<T>(&self, work: impl FnOnce() -> T) -> T {
        let _sizes = self.sizes.lock();
        let done = work();
        let [log, _] = &self.beside;
        let size = fs::metadata(&log.path).map_or(0, |found| found.len());
        log.size.store(size, Ordering::Relaxed);
        done
    }

    /// Compares the database itself, whatever became of its log.
    pub(super) fn check_database(&self) -> Result<(), Trouble> {
        self.database.check()
    }
}

/// The write-ahead log of a database.
pub(super) fn wal(database: &Path) -> PathBuf {
    beside(database, "-wal")
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(database);
    path.push(suffix);
    PathBuf::from(path)
}

struct OpenedFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// The largest size that was seen, in bytes.
    size: AtomicU64,
}

impl OpenedFile {
    fn note(path: PathBuf) -> Result<Self, Trouble> {
        let found = fs::metadata(&path).map_err(|e| Trouble::of_io(&format!("look at {}", path.display()), &e))?;
        Ok(Self { device: found.dev(), inode: found.ino(), size: AtomicU64::new(found.len()), path })
    }

    fn check(&self) -> Result<(), Trouble> {
        let name = self.path.display();
        let found = fs::metadata(&self.path).map_err(|e| match e.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                Trouble::new(Reason::FileMissing, format!("{name} was moved or deleted under the daemon"))
            }
            _ => Trouble::of_io(&format!("look at {name}"), &e),
        })?;
        if (found.dev(), found.ino()) != (self.device, self.inode) {
            let why = format!("{name} is not the file that the daemon has opened: it was replaced");
            return Err(Trouble::new(Reason::FileReplaced, why));
        }
        let before = self.size.fetch_max(found.len(), Ordering::Relaxed);
        if found.len() < before {
            let why = format!("{name} was cut from {before} to {} bytes by another process", found.len());
            return Err(Trouble::new(Reason::Corrupt, why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> (Self, OpenedFiles) {
            let folder = Self(tempfile::tempdir().unwrap());
            for name in ["casemate.db", "casemate.db-wal", "casemate.db-shm"] {
                fs::write(folder.path(name), [7; 100]).unwrap();
            }
            let files = OpenedFiles::note(&folder.path("casemate.db")).unwrap();
            (folder, files)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }
    }

    fn reason(files: &OpenedFiles) -> Option<Reason> {
        files.check().err().map(|trouble| trouble.reason)
    }

    #[test]
    fn each_file_is_missed_and_is_good_again_once_it_is_back() {
        let (folder, files) = Folder::new();
        for name in ["casemate.db", "casemate.db-wal", "casemate.db-shm"] {
            assert_eq!(reason(&files), None);
            fs::rename(folder.path(name), folder.path("away")).unwrap();
            assert_eq!(reason(&files), Some(Reason::FileMissing), "{name}");
            fs::rename(folder.path("away"), folder.path(name)).unwrap();
        }
        assert_eq!(reason(&files), None);
    }

    #[test]
    fn an_equal_copy_in_place_of_a_file_is_another_file() {
        let (folder, files) = Folder::new();
        for name in ["casemate.db", "casemate.db-wal", "casemate.db-shm"] {
            fs::rename(folder.path(name), folder.path("away")).unwrap();
            fs::copy(folder.path("away"), folder.path(name)).unwrap();
            assert_eq!(reason(&files), Some(Reason::FileReplaced), "{name}");
            fs::rename(folder.path("away"), folder.path(name)).unwrap();
        }
    }

    #[test]
    fn a_file_that_became_shorter_was_cut() {
        let (folder, files) = Folder::new();
        fs::write(folder.path("casemate.db-wal"), [7; 200]).unwrap();
        assert_eq!(reason(&files), None, "it may grow");
        fs::OpenOptions::new().write(true).open(folder.path("casemate.db-wal")).unwrap().set_len(150).unwrap();
        assert_eq!(reason(&files), Some(Reason::Corrupt));
    }
}
