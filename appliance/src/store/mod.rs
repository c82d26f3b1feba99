//! The store: one SQLite database in the data folder, written by one thread.
//!
//! | file | what it holds |
//! |---|---|
//! | `schema.rs` | tables and opening |
//! | `writer.rs` | the writer thread: group commit, the audit head |
//! | `sessions.rs` | session rows and used tokens |
//! | `shares.rs` | shares, through their whole life |
//! | `sealed.rs` | committees' aux info and primes, all sealed |
//! | `rewrap.rs` | the wrapped keys of all sealed rows, walked and replaced |
//! | `backups.rs` | which backups were made, verified, restored |
//! | `spend.rs` | what sessions spend |
//! | `approvals.rs` | used approvals |
//! | `disk/` | what is wrong with the disk, and who may still write |
//! | `anchor.rs` | the port to what keeps the log's newest place: the HSM |
//! | `create.rs` | how a log begins |
//! | `prune.rs` | lines that are kept elsewhere, and the snapshot that the log then rests on |
//! | `anew/` | how a new log takes the place of one that must not be continued |
//! | `examine.rs`, `tables.rs` | the examination at a start: log, tree, guard tables, anchor |
//! | `auditing.rs` | what auditors read beside its lines |
//! | `evidence.rs` | the audit log's lines, tree and details |
//! | `checkpoints.rs` | what was signed of the log |
//! | `peers.rs` | the last checkpoint of each peer |
//! | `policy.rs` | the newest policy bundle ever loaded |
//!
//! Whatever a guard forbids twice (a token, a session id, a pair of primes) is changed in the transaction of its audit
//! leaf. The order is: database, anchor, effect. A store whose log does not stand as it must is in quarantine: it can be
//! read, and nothing is written to it.

mod anchor;
mod anew;
mod approvals;
mod auditing;
mod backed_up;
mod backups;
mod checkpoints;
mod create;
mod disk;
mod evidence;
mod examine;
mod peers;
mod policy;
mod prune;
mod rewrap;
mod schema;
mod sealed;
mod sessions;
mod shares;
mod spend;
mod tables;
#[cfg(test)]
pub(crate) mod testing;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use casemate_attest::{Anchored, At, Finding, Head, Standing, Text};
use jiff::Timestamp;
use rusqlite::Connection;

pub use anchor::{Anchor, AnchorError, HsmAnchor, to_stored};
pub use anew::{AnewError, Mandate, MandateError, Proposal, Recovered, Stopped};
pub(crate) use anew::{make_folder, put_text};
pub(crate) use approvals::{approval_used, use_approval};
pub use auditing::{audit_details, audit_notes, audit_snapshot};
pub use backed_up::LastBackups;
pub use backups::{BackupRow, BackupStage};
pub(crate) use checkpoints::{Signable, newest_checkpoint, put_checkpoint, signable};
pub use disk::{Reason, Trouble, Urgency};
pub use evidence::{TreeNodes, audit_lines};
pub use examine::{Examined, examine};
pub use peers::PeerRow;
pub(crate) use policy::PolicyRow;
pub use prune::{Exported, Segment};
pub use rewrap::{EntriesRow, SealedTable};
pub use sealed::{CommitteeRow, SealedColumns};
pub(crate) use sealed::{count_primes, destroy_primes, put_primes, take_primes};
pub(crate) use sessions::{OneUse, use_token};
pub use sessions::{SessionResult, SessionRow};
pub use shares::{Material, ShareRow, ShareStanding};
pub(crate) use shares::{enter_epoch, newest_epoch};
pub(crate) use spend::{load_spending, release_spending, reserve_spending, was_released};
pub use tables::drop_forgotten;
pub use writer::{JOB_LEAVES, Transaction};

use create::place_of;
use disk::{Disk, LOCK_PATIENCE};
use schema::FolderLock;
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
    /// A share of an earlier epoch came after a later one.
    #[error("a share cannot become active: {0}; nothing was changed")]
    Outdated(String),
    /// The audit log would not take the leaf.
    #[error("the audit log refuses an entry: {0}")]
    Audit(String),
    /// The anchor does not take the log's newest place, so that nothing more was written.
    #[error("the HSM does not keep the audit log's anchor, so nothing is done: {0}")]
    Anchor(String),
    /// The change is durable, but its leaf is not anchored: nothing may come of it until it is.
    #[error("it is recorded, but the audit log's anchor was not put, so nothing comes of it: {0}")]
    Unanchored(String),
    /// The log does not stand as it must: nothing is written to it.
    #[error("{0}")]
    Quarantined(String),
    /// There is neither log nor anchor.
    #[error("there is no audit log in {} and no anchor in the HSM; for a new host run: casemate audit init --config FILE", .0.display())]
    NotBegun(PathBuf),
    /// There is a log or an anchor where a new log was to begin.
    #[error(
        "no audit log is begun here: {0}; to go on with it start the daemon, which says what is wrong; to replace it see casemate audit recover and docs/runbook.md"
    )]
    Begun(String),
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

    /// What kind of trouble kept a write from becoming durable and anchored.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Disk { trouble, .. } => trouble.reason,
            Self::Anchor(_) | Self::Unanchored(_) => Reason::Anchor,
            _ => Reason::Other,
        }
    }

    pub(crate) fn corrupt(what: &'static str) -> impl Fn(String) -> Self {
        move |why| Self::Corrupt { what, why }
    }
}

/// Why nothing is written to a store.
#[derive(Debug, Clone)]
pub struct Quarantine {
    /// What was found at the start.
    pub finding: Finding,
    /// When.
    pub since: Timestamp,
}

impl std::fmt::Display for Quarantine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { finding, since } = self;
        let advice = "nothing is signed, and a restart changes nothing; what to do stands in docs/runbook.md";
        write!(f, "{finding}; since {since}; {advice} under {}", finding.verdict.as_str())
    }
}

/// A handle; clones share the one writer.
#[derive(Clone)]
pub struct Store {
    writer: Option<Arc<Writer>>,
    readers: Arc<Readers>,
    start: Arc<Start>,
}

/// What the examination at the start found.
struct Start {
    /// Where the log ended, as far as it verified.
    head: Head,
    verdict: &'static str,
    quarantine: Option<Quarantine>,
    recovered: Option<At>,
    keks: BTreeMap<Text, Text>,
    latest: Option<At>,
    _held: Option<Held>,
}

/// What a writer would hold, where there is none. SQLite takes its write-ahead log away with the last connection that may
/// write; then readers would miss it.
struct Held {
    _connection: Mutex<Option<Connection>>,
    _lock: FolderLock,
}

impl Store {
    /// Takes the data folder's exclusive lock, examines its log against the anchor, and goes on with it; or gives a store
    /// in [quarantine](Store::quarantine). Neither a database nor an anchor is ever made here. It blocks for as long as the
    /// log takes to read.
    ///
    /// # Errors
    /// Says what is wrong with the folder or the database, that the anchor cannot be asked now, or that there is nothing.
    pub fn open(folder: &Path, mut anchor: Box<dyn Anchor>) -> Result<Self, StoreError> {
        let lock = schema::lock(folder)?;
        let unkept = |error: AnchorError| StoreError::Anchor(error.to_string());
        let anchored = anchor.place().map_err(unkept)?;
        let connection = schema::open(folder)?;
        let Examined { standing, head, state, latest } = examine(connection.as_ref(), anchored.clone())?;
        let verdict = match &standing {
            Standing::New => return Err(StoreError::NotBegun(folder.to_owned())),
            Standing::Equal => "equal",
            Standing::CatchUp { .. } => "catch_up",
            Standing::Refused(finding) => finding.verdict.as_str(),
        };
        let path = connection.is_some().then(|| schema::database(folder));
        // In quarantine no connection keeps the files in place, and nothing is written that could get lost.
        let readers = |disk| Arc::new(Readers { path, idle: Mutex::new(Vec::new()), disk });
        let start = Start {
            head: head.clone().unwrap_or_else(Head::none),
            verdict,
            quarantine: None,
            recovered: state.recovered,
            keks: state.keks,
            latest,
            _held: None,
        };
        match (standing, connection, head) {
            (Standing::Refused(finding), connection, _) => {
                let quarantine = Some(Quarantine { finding, since: Timestamp::now() });
                let held = Some(Held { _connection: Mutex::new(connection), _lock: lock });
                let start = Arc::new(Start { quarantine, _held: held, ..start });
                Ok(Self { writer: None, readers: readers(None), start })
            }
            (_, Some(connection), Some(head)) => {
                schema::put_triggers(&connection)?;
                // A crash may have kept something in it that was destroyed. On a full disk the writer tries again.
                let scoured = schema::empty_log(&connection);
                let disk = Arc::new(Disk::of(folder, &schema::database(folder))?);
                let expected = match &anchored {
                    Anchored::At(place) => Some(place),
                    Anchored::Nothing | Anchored::Unusable(_) => None,
                };
                // The very same place again ends what a crash may have left undone.
                anchor.put(expected, &place_of(&head)).map_err(unkept)?;
                let writer = Some(Arc::new(Writer::start(connection, scoured, lock, disk.clone(), head, anchor)?));
                Ok(Self { writer, readers: readers(Some(disk)), start: Arc::new(start) })
            }
            _ => Err(StoreError::NotBegun(folder.to_owned())),
        }
    }

    /// Why nothing is written, if the log does not stand as it must.
    pub fn quarantine(&self) -> Option<&Quarantine> {
        self.start.quarantine.as_ref()
    }

    /// The verdict of the start, in one word: `equal`, `catch_up` or one of [`casemate_attest::Refusal`].
    pub fn verdict(&self) -> &'static str {
        self.start.verdict
    }

    /// When this log took the place of another, or shares were last restored, if either was: what was issued before counts no more.
    pub fn recovered(&self) -> Option<At> {
        self.start.recovered
    }

    /// What the log said of KEKs when it was opened: epoch → state. What was written since is not in it.
    pub fn keks(&self) -> &BTreeMap<Text, Text> {
        &self.start.keks
    }

    /// The newest time in the log when it was opened.
    pub fn latest(&self) -> Option<At> {
        self.start.latest
    }

    /// Runs `work` in a durable transaction (`synchronous=FULL`), grouped with others that wait.
    ///
    /// Atomic: on `Ok` everything it wrote is on disk, leaves included, and the log is anchored beyond it; on `Err` nothing
    /// is, but for [`StoreError::Unanchored`]: then everything is on disk, and nothing may come of it before a later call
    /// succeeds. `work` appends at most [`JOB_LEAVES`] leaves.
    ///
    /// `urgency` decides whether it gets through while the disk is full.
    ///
    /// # Errors
    /// Whatever `work` returns, what is wrong with the disk, or that the commit or the anchor failed.
    pub async fn write<T, F>(&self, urgency: Urgency, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.writer()?.run(urgency, work).await
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
            if let (Err(error), Some(disk)) = (&result, &readers.disk) {
                disk.failed(error);
            }
            readers.give_back(connection);
            result
        });
        task.await.map_err(|_| StoreError::Closed)?
    }

    /// As [`Store::read`], for what is an effect: it waits until every leaf is anchored that `work` may have seen.
    ///
    /// # Errors
    /// Whatever `work` returns, or that the anchor lags behind.
    pub async fn read_anchored<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let read = self.read(|connection| {
            // One transaction, so that both are of one moment.
            let moment = connection.unchecked_transaction().map_err(StoreError::sqlite("begin to read"))?;
            Ok((work(&moment)?, evidence::log_size(&moment)?))
        });
        let (value, size) = read.await?;
        // In quarantine nothing changes any more.
        if let Some(writer) = &self.writer {
            writer.anchored(size).await?;
        }
        Ok(value)
    }

    /// Where the durable, anchored audit log stands: what hellos carry and checkpoints sign. In quarantine it stands where it
    /// verified, and nothing may be signed of it.
    pub fn audit_head(&self) -> Head {
        match &self.writer {
            Some(writer) => writer.head(),
            None => self.start.head.clone(),
        }
    }

    /// What keeps acts, or everything, from being recorded, and since when: the quarantine, the disk, or the anchor.
    pub fn problem(&self) -> Option<String> {
        match &self.writer {
            Some(_) => self.readers.disk.as_ref().and_then(|disk| disk.problem()),
            None => self.quarantine().map(ToString::to_string),
        }
    }

    /// Writes that came to nothing since the start, by reason.
    pub fn writes_refused(&self) -> Vec<(Reason, u64)> {
        self.readers.disk.as_ref().map(|disk| disk.refused()).unwrap_or_default()
    }

    /// Makes a durable write that changes nothing: whether the writer answers.
    ///
    /// # Errors
    /// Why the write came to nothing.
    pub async fn try_write(&self) -> Result<(), StoreError> {
        self.write(Urgency::Record, |transaction| transaction.write_nothing_new()).await
    }

    /// For how long the writer has been inside the present group of writes, its anchor included, if it is in one.
    pub fn writing_for(&self) -> Option<Duration> {
        self.readers.disk.as_ref().and_then(|disk| disk.writing_for())
    }

    /// Commits what waits, closes the database and joins the writer. It blocks.
    pub fn close(&self) {
        if let Some(writer) = &self.writer {
            writer.stop();
        }
    }

    fn writer(&self) -> Result<&Writer, StoreError> {
        let refused = || StoreError::Quarantined(self.problem().unwrap_or_default());
        self.writer.as_deref().ok_or_else(refused)
    }
}

/// Opens the database of a data folder for reading only, beside a running daemon or without one.
///
/// # Errors
/// Says what is wrong with the path.
pub fn open_read_only(folder: &Path) -> Result<Connection, StoreError> {
    schema::open_reader(&schema::database(folder))
}

struct Readers {
    /// `None` where there is no database: then readers see an empty one.
    path: Option<PathBuf>,
    idle: Mutex<Vec<Connection>>,
    /// There is one wherever there is a writer.
    disk: Option<Arc<Disk>>,
}

impl Readers {
    const KEPT: usize = 8;

    fn take(&self) -> Result<Connection, StoreError> {
        let kept = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        match (kept, &self.path) {
            (Some(connection), _) => Ok(connection),
            (None, Some(path)) => self.open(path),
            (None, None) => schema::empty(),
        }
    }

    fn open(&self, path: &Path) -> Result<Connection, StoreError> {
        if let Some(disk) = &self.disk {
            disk.admit_reader()?;
        }
        let connection = schema::open_reader(path)?;
        connection.busy_timeout(LOCK_PATIENCE).map_err(StoreError::sqlite("set its patience"))?;
        Ok(connection)
    }

    fn give_back(&self, connection: Connection) {
        if let Ok(mut idle) = self.idle.lock()
            && idle.len() < Self::KEPT
        {
            idle.push(connection);
        }
    }
}
