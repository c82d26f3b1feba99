//! What can be wrong with the disk under the store, in few fixed words and in full.

use rusqlite::ErrorCode;

/// What kind of trouble it is: the `reason` of `mpc_audit_unavailable_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A file of the database is not at its path any more.
    FileMissing,
    /// Another file is at the path of one that was opened.
    FileReplaced,
    /// No space is left but the reserve, or not even that.
    DiskFull,
    /// The file system takes no writes.
    ReadOnly,
    /// Reading or writing fails.
    IoError,
    /// The database is not what was written.
    Corrupt,
    /// Another process holds the database's lock.
    Locked,
    /// A write has been going on for too long.
    Stalled,
    /// The audit log's anchor cannot be put.
    Anchor,
    /// Anything else that kept a write from becoming durable.
    Other,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::FileMissing,
        Self::FileReplaced,
        Self::DiskFull,
        Self::ReadOnly,
        Self::IoError,
        Self::Corrupt,
        Self::Locked,
        Self::Stalled,
        Self::Anchor,
        Self::Other,
    ];

    /// As metrics and logs name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FileMissing => "file_missing",
            Self::FileReplaced => "file_replaced",
            Self::DiskFull => "disk_full",
            Self::ReadOnly => "read_only",
            Self::IoError => "io_error",
            Self::Corrupt => "corrupt",
            Self::Locked => "locked",
            Self::Stalled => "stalled",
            Self::Anchor => "anchor",
            Self::Other => "other",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::FileMissing => "put that very file back; if it is lost, see docs/runbook.md",
            Self::FileReplaced => "put the file that was opened back; if it is lost, see docs/runbook.md",
            Self::DiskFull => "free space; it goes on by itself",
            Self::ReadOnly => "make the file system writable again; see docs/runbook.md",
            Self::IoError => "look at the disk and at the kernel's log; see docs/runbook.md",
            Self::Corrupt => {
                "nothing is written until the daemon is restarted, which checks it all; see docs/runbook.md"
            }
            Self::Locked => "end the other process; only casemated may write to the data folder",
            Self::Stalled => "look at the disk and at the kernel's log",
            Self::Anchor => "look at the HSM; it goes on by itself",
            Self::Other => "look at the log",
        }
    }
}

/// One kind of trouble and what was seen of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}; {}", reason.advice())]
pub struct Trouble {
    /// Its kind.
    pub reason: Reason,
    /// What was seen.
    pub why: String,
}

impl Trouble {
    pub(super) fn new(reason: Reason, why: impl Into<String>) -> Self {
        Self { reason, why: why.into() }
    }

    /// What SQLite's refusal says about the disk; `None` if it says nothing about it.
    pub(in crate::store) fn of_sqlite(error: &rusqlite::Error) -> Option<Self> {
        let reason = match error.sqlite_error_code()? {
            ErrorCode::DiskFull => Reason::DiskFull,
            ErrorCode::ReadOnly => Reason::ReadOnly,
            ErrorCode::SystemIoFailure | ErrorCode::CannotOpen => Reason::IoError,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Reason::Corrupt,
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Reason::Locked,
            _ => return None,
        };
        Some(Self::new(reason, error.to_string()))
    }

    /// What the kernel's refusal to `doing` says.
    pub(super) fn of_io(doing: &str, error: &std::io::Error) -> Self {
        let reason = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Reason::DiskFull,
            std::io::ErrorKind::ReadOnlyFilesystem => Reason::ReadOnly,
            _ => Reason::IoError,
        };
        Self::new(reason, format!("cannot {doing}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rusqlite::ffi;

    use super::*;

    fn reason(code: i32) -> Option<Reason> {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        Trouble::of_sqlite(&error).map(|trouble| trouble.reason)
    }

    #[test]
    fn what_sqlite_says_of_the_disk_is_told_apart() {
        assert_eq!(reason(ffi::SQLITE_FULL), Some(Reason::DiskFull));
        assert_eq!(reason(ffi::SQLITE_IOERR_FSYNC), Some(Reason::IoError));
        assert_eq!(reason(ffi::SQLITE_IOERR_WRITE), Some(Reason::IoError));
        assert_eq!(reason(ffi::SQLITE_READONLY_DBMOVED), Some(Reason::ReadOnly));
        assert_eq!(reason(ffi::SQLITE_CORRUPT), Some(Reason::Corrupt));
        assert_eq!(reason(ffi::SQLITE_NOTADB), Some(Reason::Corrupt));
        assert_eq!(reason(ffi::SQLITE_BUSY_SNAPSHOT), Some(Reason::Locked));
        assert_eq!(reason(ffi::SQLITE_CONSTRAINT), None);
    }

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let mut names = Reason::ALL.map(Reason::as_str).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }

    #[test]
    fn a_used_up_quota_counts_as_a_full_disk() {
        let quota = std::io::Error::from_raw_os_error(rustix::io::Errno::DQUOT.raw_os_error());
        assert_eq!(Trouble::of_io("write", &quota).reason, Reason::DiskFull);
    }
}
