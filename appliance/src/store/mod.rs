//! The store: one SQLite database in the data folder, written by one thread.
//!
//! | file | what it holds |
//! |---|---|
//! | `schema.rs` | tables and opening |
//! | `writer.rs` | the writer thread: group commit, the audit head |
//! | `sessions.rs` | session rows and used tokens |
//! | `sealed.rs` | shares, committees' aux info and primes, all sealed |
//! | `spend.rs` | what sessions spend |
//! | `approvals.rs` | used approvals |
//! | `disk/` | what is wrong with the disk, and who may still write |
//! | `policy.rs` | the newest policy bundle ever loaded |
//!
//! Whatever a guard forbids twice (a token, a session id) is changed in the transaction of its audit leaf. A pair of
//! primes is deleted, durably, before it is used.

mod approvals;
mod disk;
mod policy;
mod schema;
mod sealed;
mod sessions;
mod spend;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use casemate_attest::{Head, LogId};
use rusqlite::Connection;

pub(crate) use approvals::{approval_used, use_approval};
use disk::{Disk, LOCK_PATIENCE};
pub use disk::{Reason, Trouble, Urgency};
pub(crate) use policy::PolicyRow;
pub use sealed::{CommitteeRow, SealedColumns, ShareRow, ShareStatus};
pub(crate) use sealed::{count_primes, put_primes, take_primes};
pub(crate) use sessions::{OneUse, use_token};
pub use sessions::{SessionResult, SessionRow};
pub(crate) use spend::{load_spending, release_spending, reserve_spending, spending_digest};
pub use writer::Transaction;

use writer::Writer;

/// Why the store did not do what it was asked. The audit log lives in it, so nothing acts while it fails.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("the store cannot {doing}: {why}; check free space, permissions and the disk")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// What SQLite says.
        why: String,
    },
    /// The disk is in trouble; health says so too.
    #[error("the store cannot {doing}: {trouble}")]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// What is wrong.
        trouble: Trouble,
    },
    /// The data folder is not usable.
    #[error("the data folder {} cannot be used: {why}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// What is stored is not what this version wrote.
    #[error("the store holds {what} that cannot be read: {why}; restore the store from a backup")]
    Corrupt {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The audit log would not take the leaf.
    #[error("the audit log refuses an entry: {0}")]
    Audit(String),
    /// The writer has ended.
    #[error("the store is closed; the daemon is stopping")]
    Closed,
}

impl StoreError {
    pub(crate) fn sqlite(doing: &'static str) -> impl Fn(rusqlite::Error) -> Self {
        move |e| match Trouble::of_sqlite(&e) {
            Some(trouble) => Self::Disk { doing, trouble },
            None => Self::Sqlite { doing, why: e.to_string() },
        }
    }

    /// What kind of trouble kept a write from becoming durable.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Disk { trouble, .. } => trouble.reason,
            _ => Reason::Other,
        }
    }

    pub(crate) fn corrupt(what: &'static str) -> impl Fn(String) -> Self {
        move |why| Self::Corrupt { what, why }
    }
}

/// A handle; clones share the one writer.
#[derive(Clone)]
pub struct Store {
    writer: Arc<Writer>,
    readers: Arc<Readers>,
}

impl Store {
    /// Opens or creates the database in `folder`, takes the folder's exclusive lock, and continues its audit log.
    ///
    /// `log` names the audit log if it is made now.
    ///
    /// # Errors
    /// Says what is wrong with the folder or the database.
    pub fn open(folder: &Path, log: &LogId) -> Result<Self, StoreError> {
        let (connection, lock) = schema::open(folder)?;
        let path = schema::database(folder);
        let disk = Arc::new(Disk::of(folder, &path)?);
        let readers = Arc::new(Readers { path, idle: Mutex::new(Vec::new()), disk: disk.clone() });
        Ok(Self { writer: Arc::new(Writer::start(connection, lock, disk, log)?), readers })
    }

    /// Runs `work` in a durable transaction (`synchronous=FULL`), grouped with others that wait.
    ///
    /// Atomic: on `Ok` everything it wrote is on disk, leaves included; on `Err` nothing is. `urgency` decides whether it
    /// gets through while the disk is full.
    ///
    /// # Errors
    /// Whatever `work` returns, what is wrong with the disk, or that the commit failed.
    pub async fn write<T, F>(&self, urgency: Urgency, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.writer.run(urgency, work).await
    }

    /// Runs `work` on a connection that only reads, off the network threads.
    ///
    /// # Errors
    /// Whatever `work` returns.
    pub async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let readers = self.readers.clone();
        let task = tokio::task::spawn_blocking(move || {
            let connection = readers.take()?;
            let result = work(&connection);
            if let Err(error) = &result {
                readers.disk.failed(error);
            }
            readers.give_back(connection);
            result
        });
        task.await.map_err(|_| StoreError::Closed)?
    }

    /// Where the durable audit log stands: what hellos carry.
    pub fn audit_head(&self) -> Head {
        self.writer.head()
    }

    /// What keeps acts, or everything, from being recorded, and since when.
    pub fn problem(&self) -> Option<String> {
        self.readers.disk.problem()
    }

    /// Writes that came to nothing since the start, by reason.
    pub fn writes_refused(&self) -> Vec<(Reason, u64)> {
        self.readers.disk.refused()
    }

    /// Commits what waits, closes the database and joins the writer.
    pub fn close(&self) {
        self.writer.stop();
    }
}

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

/// Opens the database of a data folder for reading only, beside a running daemon or without one.
///
/// # Errors
/// Says what is wrong with the path.
pub fn open_read_only(folder: &Path) -> Result<Connection, StoreError> {
    schema::open_reader(&schema::database(folder))
}

struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    disk: Arc<Disk>,
}

impl Readers {
    const KEPT: usize = 8;

    fn take(&self) -> Result<Connection, StoreError> {
        let kept = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        match kept {
            Some(connection) => Ok(connection),
            None => {
                self.disk.admit_reader()?;
                let connection = schema::open_reader(&self.path)?;
                connection.busy_timeout(LOCK_PATIENCE).map_err(StoreError::sqlite("set its patience"))?;
                Ok(connection)
            }
        }
    }

    fn give_back(&self, connection: Connection) {
        if let Ok(mut idle) = self.idle.lock()
            && idle.len() < Self::KEPT
        {
            idle.push(connection);
        }
    }
}
