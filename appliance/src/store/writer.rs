//! The writer thread: the only place that changes the database, and the only place that appends to the audit log.
//!
//! Jobs that wait together share one commit, so many sessions share one fsync. Each job runs in a savepoint: a job that
//! fails takes its own writes and leaves back and nobody else's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use casemate_attest::{Entry, Head, Line, LogId};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::oneshot;

use super::StoreError;
use super::disk::{Disk, Urgency, Watch};
use super::schema::FolderLock;

/// Jobs that may wait; one more is refused at once.
const QUEUE: usize = 1024;
/// Jobs that share a commit at most.
const GROUP: usize = 64;

/// What a job sees: the connection inside its savepoint, and the audit log.
pub struct Transaction<'a> {
    connection: &'a Connection,
    log: &'a mut Head,
}

impl Transaction<'_> {
    /// The connection, inside this job's savepoint.
    pub fn sql(&self) -> &Connection {
        self.connection
    }

    /// Appends a leaf; it becomes durable with everything else that this job writes.
    ///
    /// # Errors
    /// Says why the log refuses the entry, or that it cannot be written.
    pub fn append(&mut self, entry: Entry) -> Result<Line, StoreError> {
        let (line, next) = self.log.append(entry, Timestamp::now()).map_err(|e| StoreError::Audit(e.to_string()))?;
        write_line(self.connection, &line)?;
        *self.log = next;
        Ok(line)
    }
}

/// Does a job's work, or passes on why its transaction could not be begun.
type Job = Box<dyn FnOnce(Result<&mut Transaction<'_>, StoreError>) -> Finish + Send>;
/// Answers the job's caller once the group's commit has succeeded or failed.
type Finish = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

pub(super) struct Writer {
    jobs: Mutex<Option<SyncSender<Message>>>,
    head: Arc<Mutex<Head>>,
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
    pub(super) fn start(
        connection: Connection,
        lock: FolderLock,
        disk: Arc<Disk>,
        log: &LogId,
    ) -> Result<Self, StoreError> {
        let head = read_head(&connection, log)?;
        let shown = Arc::new(Mutex::new(head.clone()));
        let (sender, receiver) = sync_channel(QUEUE);
        let worker = Worker { connection, head, shown: shown.clone(), disk: disk.clone() };
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
        Ok(Self { jobs: Mutex::new(Some(sender)), head: shown, disk, watch, thread: Mutex::new(Some(thread)) })
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
            Box::new(move |committed| {
                // The caller may have gone; what is durable stays durable.
                let _gone = answer.send(committed.and(result));
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

    pub(super) fn head(&self) -> Head {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
            let written = transaction.and_then(|transaction| {
                let failed = StoreError::sqlite("try to write");
                let sql = transaction.sql();
                let version: i64 = sql.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(&failed)?;
                sql.pragma_update(None, "user_version", version).map_err(&failed)
            });
            mark.store(written.is_err(), Ordering::Relaxed);
            Box::new(|_| {})
        });
        Self { urgency: Urgency::Record, job, failed }
    }

    /// Answers without doing anything.
    fn refuse(self, error: &StoreError) {
        (self.job)(Err(error.clone()))(Err(error.clone()));
    }
}

struct Worker {
    connection: Connection,
    head: Head,
    shown: Arc<Mutex<Head>>,
    disk: Arc<Disk>,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Message>) {
        while let Ok(first) = jobs.recv() {
            let mut group = vec![first];
            while group.len() < GROUP
                && let Ok(next) = jobs.try_recv()
            {
                group.push(next);
            }
            let group = self.admitted(group);
            if !group.is_empty() {
                self.commit(group);
            }
        }
        if !self.disk.database_in_place() {
            self.leave_wal();
        }
    }

    /// Those of a group that the disk lets through; the others are answered.
    fn admitted(&self, group: Vec<Message>) -> Vec<Message> {
        let mut admitted = Vec::with_capacity(group.len());
        for message in group {
            match self.disk.admit(message.urgency) {
                Ok(()) => admitted.push(message),
                Err(error) => message.refuse(&error),
            }
        }
        if admitted.is_empty() {
            self.rescue_wal();
        }
        admitted
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
        use rusqlite::config::DbConfig;
        if let Err(error) = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
            tracing::error!(event = "store_log_not_left", %error);
        }
    }

    /// Runs a group in one transaction. Answers go out only after the commit's fate is known.
    fn commit(&mut self, group: Vec<Message>) {
        self.disk.begun();
        let before = self.head.clone();
        let mut finishes = Vec::with_capacity(group.len());
        let begun = self.sql("begin a transaction", "BEGIN IMMEDIATE");
        for Message { job, failed, .. } in group {
            let begun = begun
                .clone()
                .and_then(|()| self.still_open())
                .and_then(|()| self.sql("begin a savepoint", "SAVEPOINT job"));
            let at_start = self.head.clone();
            let mut transaction = Transaction { connection: &self.connection, log: &mut self.head };
            let finish = job(begun.clone().map(|()| &mut transaction));
            let ended = begun.and_then(|()| self.still_open()).and_then(|()| {
                if failed.load(Ordering::Relaxed) {
                    self.head = at_start;
                    self.sql("take a failed change back", "ROLLBACK TO job; RELEASE job")
                } else {
                    self.sql("end a savepoint", "RELEASE job")
                }
            });
            finishes.push((finish, ended));
        }
        let all = finishes.iter().find_map(|(_, ended)| ended.clone().err()).map_or(Ok(()), Err);
        // What was begun is written even if the disk has become full meanwhile; the look gives the reserve up in time.
        let committed = all.and_then(|()| self.disk.admit(Urgency::Record)).and_then(|()| self.sql("commit", "COMMIT"));
        if committed.is_err() {
            self.head = before;
            if !self.connection.is_autocommit()
                && let Err(error) = self.sql("roll back", "ROLLBACK")
            {
                tracing::error!(event = "store_rollback_failed", %error, "a failed group could not be rolled back");
            }
        }
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = self.head.clone();
        self.disk.ended(&committed);
        self.be_patient();
        for (finish, _) in finishes {
            finish(committed.clone());
        }
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

/// Where the stored log stands; an empty one is begun.
fn read_head(connection: &Connection, log: &LogId) -> Result<Head, StoreError> {
    let failed = StoreError::sqlite("read the audit log");
    let refused = |e: casemate_attest::head::AppendError| StoreError::Audit(e.to_string());
    let last: Option<String> = connection
        .query_row("SELECT line FROM leaves ORDER BY seq DESC LIMIT 1", [], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    let Some(last) = last else {
        let (line, head) = Head::genesis(log.clone(), Timestamp::now(), Vec::new()).map_err(refused)?;
        write_line(connection, &line)?;
        return Ok(head);
    };
    let line = Line::read(last.as_bytes()).map_err(|e| StoreError::corrupt("an audit log")(e.to_string()))?;
    Head::after(&line).map_err(refused)
}

fn write_line(connection: &Connection, line: &Line) -> Result<(), StoreError> {
    let seq = i64::try_from(line.leaf().seq).map_err(|_| StoreError::Audit("the log is full".into()))?;
    connection
        .prepare_cached("INSERT INTO leaves (seq, line) VALUES (?1, ?2)")
        .and_then(|mut statement| statement.execute((seq, line.as_str())))
        .map(|_| ())
        .map_err(StoreError::sqlite("write the audit log"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Store;
    use super::*;

    fn log() -> LogId {
        "test-log".parse().unwrap()
    }

    fn store(folder: &std::path::Path) -> Store {
        Store::open(folder, &log()).unwrap()
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        folder
    }

    fn put(transaction: &Transaction<'_>, jti: &str) -> Result<(), StoreError> {
        transaction
            .sql()
            .execute("INSERT INTO tokens (issuer, jti, exp) VALUES ('i', ?1, 0)", [jti])
            .map(|_| ())
            .map_err(StoreError::sqlite("test"))
    }

    async fn count(store: &Store) -> i64 {
        store
            .read(|c| c.query_row("SELECT COUNT(*) FROM tokens", [], |r| r.get(0)).map_err(StoreError::sqlite("count")))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_failed_job_takes_back_its_own_writes_and_leaves_only() {
        let folder = folder();
        let store = store(folder.path());
        let good = store.write(Urgency::Record, |t| put(t, "a"));
        let bad = store.write::<(), _>(Urgency::Record, |t| {
            put(t, "b")?;
            t.append(Entry::boot())?;
            Err(StoreError::Audit("no".into()))
        });
        let also_good = store.write(Urgency::Record, |t| {
            put(t, "c")?;
            t.append(Entry::boot())
        });
        let (good, bad, also_good) = tokio::join!(good, bad, also_good);
        good.unwrap();
        assert!(matches!(bad, Err(StoreError::Audit(_))));
        let seq = also_good.unwrap().leaf().seq;
        assert_eq!(count(&store).await, 2);
        assert_eq!(store.audit_head().size(), seq + 1);
    }

    #[tokio::test]
    async fn a_transaction_that_is_lost_midway_takes_every_job_of_its_group_along() {
        let folder = folder();
        let store = store(folder.path());
        store.write(Urgency::Record, |t| put(t, "before")).await.unwrap();
        let lose = store.write::<(), _>(Urgency::Record, |t| {
            t.append(Entry::boot())?;
            t.sql().execute_batch("ROLLBACK").map_err(StoreError::sqlite("test"))
        });
        let later = store.write(Urgency::Record, |t| {
            put(t, "later")?;
            t.append(Entry::boot())
        });
        let (lose, later) = tokio::join!(lose, later);
        assert!(lose.is_err());
        let landed = i64::from(later.is_ok());
        assert_eq!(count(&store).await, 1 + landed, "what was reported as failed is not there");
        store.write(Urgency::Record, |t| t.append(Entry::boot())).await.unwrap();
        let lines = store.read(|c| super::super::audit_lines(c, 0, 100)).await.unwrap();
        let mut verifier = casemate_attest::Verifier::new();
        for line in &lines {
            verifier.feed(line.as_bytes()).unwrap();
        }
    }

    #[tokio::test]
    async fn the_log_goes_on_after_a_restart_and_the_folder_is_locked_meanwhile() {
        let folder = folder();
        let first = store(folder.path());
        first.write(Urgency::Record, |t| t.append(Entry::boot())).await.unwrap();
        let head = first.audit_head();
        assert!(matches!(Store::open(folder.path(), &log()), Err(StoreError::Folder { .. })));
        first.close();
        assert!(matches!(first.write(Urgency::Record, |_| Ok(())).await, Err(StoreError::Closed)));
        drop(first);
        assert_eq!(store(folder.path()).audit_head(), head);
    }

    #[tokio::test]
    async fn a_folder_that_others_may_read_is_refused() {
        let folder = folder();
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert!(matches!(Store::open(folder.path(), &log()), Err(StoreError::Folder { .. })));
    }
}
