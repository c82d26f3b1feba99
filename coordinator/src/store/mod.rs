//! The store: SQLite (WAL, `synchronous=FULL`) behind one thread that owns the only connection.
//!
//! What a call has returned from is durable. A call either takes effect as a whole or not at all.

mod accounts;
mod keys;
mod lineage;
mod rotations;
mod sessions;

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use casemate_wire::{Code, Problem};
use rusqlite::Connection;
pub(crate) use sessions::Effect;
use tokio::sync::{mpsc, oneshot};

const FILE: &str = "coordinator.sqlite";
const LOCK: &str = "lock";
const MIGRATIONS: &[&str] = &[include_str!("schema.sql"), include_str!("rotations.sql"), include_str!("lineage.sql")];
/// Calls that may wait for the thread; more wait outside.
const QUEUE: usize = 256;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data folder cannot be used.
    #[error("the data folder {path} cannot be used: {source}")]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Another coordinator runs on the same folder.
    #[error("another casemate-coordinator is using {0}; stop it, or give this one its own data_dir")]
    InUse(PathBuf),
    /// The file was written by a later version.
    #[error("{path} has schema version {found}, but this program knows versions up to {known}; use the newer program")]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The newest version known here.
        known: usize,
    },
    /// SQLite refuses.
    #[error("the store could not {what}: {source}")]
    Database {
        /// What was being done.
        what: &'static str,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// A row is not what was once written.
    #[error("the store holds {what} that cannot be read: {why}")]
    Corrupt {
        /// What the row is.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The store's thread has ended.
    #[error("the store has stopped; see the log, then restart the coordinator")]
    Stopped,
}

/// What the front door says when the store fails; the particulars go to the log.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(event = "store_failed", %error);
        Self::new(Code::Internal, "the coordinator's store failed; see its log")
    }
}

/// The store.
pub(crate) struct Store {
    jobs: mpsc::Sender<Job>,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Holds the data folder for one daemon until it is dropped.
pub(crate) struct Claim {
    _file: File,
}

/// Claims the data folder for this process; the folder is made if it is missing.
pub(crate) fn claim(folder: &Path) -> Result<Claim, StoreError> {
    prepare(folder)?;
    let path = folder.join(LOCK);
    let unusable = |source| StoreError::Folder { path: folder.to_owned(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(Claim { _file: file }),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

impl Store {
    /// Opens the store in a folder, which is made if it is missing. Several processes may have it open.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        prepare(folder)?;
        let path = folder.join(FILE);
        let mut connection = connect(&path).map_err(|source| StoreError::Database { what: "open its file", source })?;
        migrate(&mut connection, &path)?;
        let (jobs, mut waiting) = mpsc::channel::<Job>(QUEUE);
        let work = move || {
            while let Some(job) = waiting.blocking_recv() {
                job(&mut connection);
            }
        };
        std::thread::Builder::new()
            .name("store".into())
            .spawn(work)
            .map_err(|source| StoreError::Folder { path: folder.to_owned(), source })?;
        Ok(Self { jobs })
    }

    /// Ends when the store can do no more work, which it does not by itself.
    pub(crate) async fn stopped(&self) {
        self.jobs.closed().await;
    }

    /// Whether the store answers.
    pub(crate) async fn check(&self) -> Result<(), StoreError> {
        self.call("answer a test query", |db| db.query_row("SELECT 1", [], |_| Ok(()))).await
    }

    async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move |db: &mut Connection| {
            // Nobody waits for the answer any more if the caller has gone; the work is done all the same.
            let _: Result<(), _> = answer.send(job(db));
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Stopped)?;
        let result = answered.await.map_err(|_| StoreError::Stopped)?;
        result.map_err(|source| StoreError::Database { what, source })
    }
}

fn prepare(folder: &Path) -> Result<(), StoreError> {
    let unusable = |source| StoreError::Folder { path: folder.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
    // SQLite gives its other files the mode of the first.
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join(FILE));
    file.map(drop).map_err(unusable)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Database { what: "bring its schema up to date", source };
    let step = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    let found: usize = step.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let known = MIGRATIONS.len();
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    for migration in MIGRATIONS.iter().skip(found) {
        step.execute_batch(migration).map_err(failed)?;
    }
    step.pragma_update(None, "user_version", known).map_err(failed)?;
    step.commit().map_err(failed)
}

fn corrupt(what: &'static str, why: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { what, why: why.to_string() }
}

#[cfg(test)]
mod tests;
