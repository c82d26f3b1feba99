//! The writer thread: the only place that changes the database, and the only place that appends to the audit log.
//!
//! Jobs that wait together share one commit and one anchor, so many sessions share one fsync. Each job runs in a savepoint:
//! a job that fails takes its own writes and leaves back and nobody else's.
//!
//! ```text
//! group: BEGIN ─ job ─ job ─ COMMIT ─► anchor ─► answers        (database, anchor, effect)
//! ```
//!
//! While an anchor is missing no further group is begun, so that the log is never more than one group ahead of it.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use casemate_attest::{Entry, Head, Line};
use jiff::Timestamp;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::{oneshot, watch};

use super::StoreError;
use super::anchor::{Anchor, AnchorError};
use super::create::place_of;
use super::disk::{Disk, Urgency, Watch};
use super::evidence::write_leaf;
use super::schema::{FolderLock, Scoured, empty_log};

/// Jobs that may wait; one more is refused at once.
const QUEUE: usize = 1024;
/// Jobs that share a commit at most.
const GROUP: usize = 64;
/// The most leaves that one job appends.
pub const JOB_LEAVES: u64 = 32;
/// A group that holds this many leaves takes no further job; with one more job it stays within
/// [`casemate_attest::WINDOW`].
const FULL: u64 = casemate_attest::WINDOW - JOB_LEAVES;
/// The longest wait for an anchor by those who only read.
const PATIENCE: Duration = Duration::from_secs(1);
/// The pause between attempts to put a missing anchor while nobody asks for anything.
const PAUSE: Duration = Duration::from_millis(500);

/// What a job sees: the connection inside its savepoint, and the audit log.
pub struct Transaction<'a> {
    connection: &'a Connection,
    log: &'a mut Head,
    /// How many leaves this job may still append.
    left: u64,
    /// Whether this job destroyed something that no file may hold on to.
    destroyed: Cell<bool>,
}

impl Transaction<'_> {
    /// The connection, inside this job's savepoint.
    pub fn sql(&self) -> &Connection {
        self.connection
    }

    /// Says that something was destroyed: once it is durable the write-ahead log is emptied, where a copy may lie.
    pub(super) fn destroyed(&self) {
        self.destroyed.set(true);
    }

    /// Writes what is there already, to learn whether writing works.
    pub(super) fn write_nothing_new(&self) -> Result<(), StoreError> {
        let failed = StoreError::sqlite("try to write");
        let version: i64 = self.connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(&failed)?;
        self.connection.pragma_update(None, "user_version", version).map_err(&failed)
    }

    /// Appends a leaf; it becomes durable with everything else that this job writes.
    ///
    /// # Errors
    /// Says why the log refuses the entry, or that it cannot be written.
    pub fn append(&mut self, entry: Entry) -> Result<Line, StoreError> {
        let too_many = || StoreError::Audit(format!("one change appends at most {JOB_LEAVES} leaves"));
        self.left = self.left.checked_sub(1).ok_or_else(too_many)?;
        let disclosure = entry.disclosure().cloned();
        let appended = self.log.append(entry, Timestamp::now()).map_err(|e| StoreError::Audit(e.to_string()))?;
        write_leaf(self.connection, &appended, disclosure.as_ref())?;
        *self.log = appended.head;
        Ok(appended.line)
    }
}

/// Does a job's work, or passes on why its transaction could not be begun.
type Job = Box<dyn FnOnce(Result<&mut Transaction<'_>, StoreError>) -> Finish + Send>;
/// Answers the job's caller once the fate of the group's commit and of its anchor is known.
type Finish = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

pub(super) struct Writer {
    jobs: Mutex<Option<SyncSender<Message>>>,
    anchored: watch::Receiver<Head>,
    disk: Arc<Disk>,
    watch: Mutex<Option<Watch>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Message {
    urgency: Urgency,
    job: Job,
    failed: Arc<AtomicBool>,
}

impl Writer {
    /// `head` is where the log in the database stands, and is anchored.
    pub(super) fn start(
        connection: Connection,
        scoured: Scoured,
        lock: FolderLock,
        disk: Arc<Disk>,
        head: Head,
        anchor: Box<dyn Anchor>,
    ) -> Result<Self, StoreError> {
        let (shown, anchored) = watch::channel(head.clone());
        let (sender, receiver) = sync_channel(QUEUE);
        let worker = Worker { connection, head, anchor, conflict: None, shown, disk: disk.clone(), scoured };
        worker.be_patient();
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                worker.run(&receiver);
                drop(lock);
            })
            .map_err(|e| StoreError::Sqlite { doing: "start its writer thread", why: e.to_string() })?;
        let trials = sender.clone();
        let trial = move || {
            // A full queue means that there is enough to try anyway.
            drop(trials.try_send(Message::trial()));
        };
        let watch = Mutex::new(Some(Watch::start(disk.clone(), trial)?));
        Ok(Self { jobs: Mutex::new(Some(sender)), anchored, disk, watch, thread: Mutex::new(Some(thread)) })
    }

    pub(super) async fn run<T, F>(&self, urgency: Urgency, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let done = self.queued(urgency, work).await;
        if let Err(error) = &done {
            self.disk.count(error);
        }
        done
    }

    async fn queued<T, F>(&self, urgency: Urgency, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.disk.admit_to_queue(urgency)?;
        let (answer, wait) = oneshot::channel();
        let failed = Arc::new(AtomicBool::new(false));
        let (mark, disk) = (failed.clone(), self.disk.clone());
        let job: Job = Box::new(move |transaction| {
            let result = transaction.and_then(work);
            mark.store(result.is_err(), Ordering::Relaxed);
            if let Err(error) = &result {
                disk.failed(error);
            }
            Box::new(move |settled| {
                // Of a job that failed by itself nothing is durable, whatever became of its group. The caller may have gone;
                // what is durable stays durable.
                let _gone = answer.send(result.and_then(|value| settled.map(|()| value)));
            })
        });
        let sender = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match sender.ok_or(StoreError::Closed)?.try_send(Message { urgency, job, failed }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Err(StoreError::Sqlite { doing: "take more work", why: "its queue is full".into() });
            }
            Err(TrySendError::Disconnected(_)) => return Err(StoreError::Closed),
        }
        wait.await.map_err(|_| StoreError::Closed)?
    }

    /// Waits until the first `size` leaves are anchored.
    pub(super) async fn anchored(&self, size: u64) -> Result<(), StoreError> {
        let mut anchored = self.anchored.clone();
        let reached = anchored.wait_for(|head| head.size() >= size);
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(StoreError::Closed),
            Err(_) => Err(StoreError::Anchor(self.disk.problem().unwrap_or_else(|| "it takes too long".into()))),
        }
    }

    /// Where the durable, anchored log stands.
    pub(super) fn head(&self) -> Head {
        self.anchored.borrow().clone()
    }

    pub(super) fn stop(&self) {
        // It holds the queue too, which would never end.
        drop(self.watch.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!(event = "store_writer_panicked", "the store's writer thread panicked");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Message {
    /// Writes what is there already, to learn whether writing works.
    fn trial() -> Self {
        let failed = Arc::new(AtomicBool::new(false));
        let mark = failed.clone();
        let job: Job = Box::new(move |transaction| {
            let written = transaction.and_then(|transaction| transaction.write_nothing_new());
            mark.store(written.is_err(), Ordering::Relaxed);
            Box::new(|_| {})
        });
        Self { urgency: Urgency::Record, job, failed }
    }

    /// Answers without doing anything.
    fn refuse(self, why: &StoreError) {
        (self.job)(Err(why.clone()))(Err(why.clone()));
    }
}

struct Worker {
    connection: Connection,
    /// Where the durable log stands; at most one group beyond what is anchored and shown.
    head: Head,
    anchor: Box<dyn Anchor>,
    /// Somebody else has put a place where this log goes on: it never does again, whatever stands there later.
    conflict: Option<StoreError>,
    shown: watch::Sender<Head>,
    disk: Arc<Disk>,
    /// Whether the write-ahead log may hold what was destroyed.
    scoured: Scoured,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Message>) {
        while let Some(first) = self.next(jobs) {
            match self.ready() {
                Ok(()) => {
                    if let Some(first) = self.admitted(first) {
                        self.commit(first, jobs);
                    }
                }
                Err(why) => Self::refuse_all(first, jobs, &why),
            }
        }
        // Nobody waits for it any more; the next start would catch up as well.
        let _unanchored = self.ready();
        if !self.disk.database_in_place() {
            self.leave_wal();
        }
    }

    /// The message, unless the disk does not let it through: then it is answered.
    fn admitted(&self, message: Message) -> Option<Message> {
        let Err(error) = self.disk.admit(message.urgency) else { return Some(message) };
        message.refuse(&error);
        self.rescue_wal();
        None
    }

    /// Copies what is durable only in a write-ahead log that is not at its path any more into the database, which is.
    fn rescue_wal(&self) {
        if self.disk.files_in_place() || !self.disk.database_in_place() {
            return;
        }
        let copied = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(0));
        if let Err(error) = copied {
            tracing::error!(event = "store_log_not_rescued", %error, "what only the lost -wal file holds is not in the database");
        }
    }

    /// Another file is at the database's path, or none: what is in the log stays in it, for whoever puts things right.
    fn leave_wal(&self) {
        if let Err(error) = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
            tracing::error!(event = "store_log_not_left", %error);
        }
    }

    /// The next job; while an anchor is missing it is tried again meanwhile. `None` once the store is closed.
    fn next(&mut self, jobs: &Receiver<Message>) -> Option<Message> {
        loop {
            if self.is_anchored() {
                return jobs.recv().ok();
            }
            match jobs.recv_timeout(PAUSE) {
                Ok(message) => return Some(message),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    if self.ready().is_ok() {
                        self.note(None);
                    }
                }
            }
        }
    }

    /// Whether a group may be begun: what an earlier one left unanchored is anchored first.
    fn ready(&mut self) -> Result<(), StoreError> {
        let anchored = self.put_anchor();
        if let Err(why) = &anchored {
            self.note(Some(why));
            self.rescue_wal();
        }
        anchored
    }

    fn is_anchored(&self) -> bool {
        *self.shown.borrow() == self.head
    }

    /// Anchors the durable log, and shows it from then on.
    fn put_anchor(&mut self) -> Result<(), StoreError> {
        if self.is_anchored() {
            return Ok(());
        }
        if let Some(conflict) = &self.conflict {
            return Err(conflict.clone());
        }
        // What went into a file that is not at its path any more is as good as lost.
        self.disk.admit(Urgency::Record)?;
        // The place that this process put last: what it shows.
        let last = place_of(&self.shown.borrow());
        if let Err(error) = self.anchor.put(Some(&last), &place_of(&self.head)) {
            let refused = StoreError::Anchor(error.to_string());
            if let AnchorError::Conflict(why) = &error {
                tracing::error!(event = "anchor_conflict", why, "nothing is done any more, until a restart has looked");
                self.conflict = Some(refused.clone());
            }
            return Err(refused);
        }
        self.shown.send_replace(self.head.clone());
        Ok(())
    }

    /// Turns away what waits: nobody waits longer than for one attempt.
    fn refuse_all(first: Message, jobs: &Receiver<Message>, why: &StoreError) {
        for message in std::iter::once(first).chain(jobs.try_iter().take(QUEUE)) {
            message.refuse(why);
        }
    }

    /// Runs a group in one transaction. Answers go out only after its fate is known.
    fn commit(&mut self, first: Message, jobs: &Receiver<Message>) {
        self.disk.begun();
        let before = self.head.clone();
        let mut finishes = Vec::new();
        let begun = self.sql("begin a transaction", "BEGIN IMMEDIATE");
        let mut next = Some(first);
        while let Some(message) = next {
            finishes.push(self.work(message, begun.clone()));
            let leaves = self.head.size().saturating_sub(before.size());
            let room = finishes.len() < GROUP && leaves < FULL;
            next = if room { jobs.try_iter().find_map(|message| self.admitted(message)) } else { None };
        }
        let all = finishes.iter().find_map(|(_, ended)| ended.clone().err()).map_or(Ok(()), Err);
        // What was begun is written even if the disk has become full meanwhile; the look gives the reserve up in time.
        let committed = all.and_then(|()| self.disk.admit(Urgency::Record)).and_then(|()| self.sql("commit", "COMMIT"));
        let committed = committed.map_err(|error| self.disk.explain(error));
        if committed.is_err() {
            self.head = before;
            if !self.connection.is_autocommit()
                && let Err(error) = self.sql("roll back", "ROLLBACK")
            {
                tracing::error!(event = "store_rollback_failed", %error, "a failed group could not be rolled back");
            }
        }
        let anchored = committed.is_ok().then(|| self.put_anchor());
        self.note(committed.as_ref().err().or(anchored.as_ref().and_then(|put| put.as_ref().err())));
        let unanchored = |why: StoreError| StoreError::Unanchored(why.to_string());
        let settled = committed.and_then(|()| anchored.unwrap_or(Ok(())).map_err(unanchored));
        // Before anybody hears that it is destroyed.
        if settled.is_ok() && self.scoured == Scoured::NotYet {
            self.scour();
        }
        for (finish, _) in finishes {
            finish(settled.clone());
        }
    }

    /// A reader may keep the log from being emptied for a moment; then it is tried after the next commit.
    fn scour(&mut self) {
        // A log that is not at its path is left as it is: it may be all that there is.
        if self.disk.files_in_place() {
            self.scoured = self.disk.cut_log(|| empty_log(&self.connection));
        }
    }

    /// Does one job in a savepoint of its own.
    fn work(&mut self, message: Message, begun: Result<(), StoreError>) -> (Finish, Result<(), StoreError>) {
        let Message { job, failed, .. } = message;
        let begun =
            begun.and_then(|()| self.still_open()).and_then(|()| self.sql("begin a savepoint", "SAVEPOINT job"));
        let at_start = self.head.clone();
        let destroyed = Cell::new(false);
        let mut transaction =
            Transaction { connection: &self.connection, log: &mut self.head, left: JOB_LEAVES, destroyed };
        let finish = job(begun.clone().map(|()| &mut transaction));
        if transaction.destroyed.get() {
            self.scoured = Scoured::NotYet;
        }
        let ended = begun.and_then(|()| self.still_open()).and_then(|()| {
            if failed.load(Ordering::Relaxed) {
                self.head = at_start;
                self.sql("take a failed change back", "ROLLBACK TO job; RELEASE job")
            } else {
                self.sql("end a savepoint", "RELEASE job")
            }
        });
        (finish, ended)
    }

    /// Keeps and shows why the last group failed, if it did.
    fn note(&self, why: Option<&StoreError>) {
        self.disk.ended(why);
        self.be_patient();
    }

    fn be_patient(&self) {
        if let Err(error) = self.connection.busy_timeout(self.disk.lock_patience()) {
            tracing::error!(event = "lock_patience_not_set", %error);
        }
    }

    /// Some errors make SQLite roll the whole transaction back by itself; whatever ran then would commit on its own.
    fn still_open(&self) -> Result<(), StoreError> {
        if self.connection.is_autocommit() {
            return Err(StoreError::Sqlite { doing: "keep its transaction", why: "SQLite has rolled it back".into() });
        }
        Ok(())
    }

    fn sql(&self, doing: &'static str, text: &str) -> Result<(), StoreError> {
        self.connection.execute_batch(text).map_err(StoreError::sqlite(doing))
    }
}
