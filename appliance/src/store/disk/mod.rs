//! The disk under the store: what is wrong with it, since when, and who may still write.
//!
//! | file | what it holds |
//! |---|---|
//! | `trouble.rs` | the kinds of trouble |
//! | `files.rs` | whether the database's files are those that were opened |
//! | `reserve.rs` | space for refusals and outcomes when the disk is full |
//! | `scrub.rs` | the audit log, read again and again |
//! | `watch.rs` | the thread that looks twice a second, with or without traffic |
//!
//! The writer asks [`Disk::admit`] before each group of writes and reports with [`Disk::ended`] what came of it.

mod files;
mod reserve;
mod scrub;
mod trouble;
mod watch;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use files::OpenedFiles;
use reserve::Reserve;
pub use trouble::{Reason, Trouble};
pub(super) use watch::Watch;

use super::StoreError;

/// How long SQLite waits for a lock that another process holds; nobody but this daemon should hold one.
pub(super) const LOCK_PATIENCE: Duration = Duration::from_millis(400);
/// A group of writes that takes longer keeps acts from waiting behind it.
const STALL: Duration = Duration::from_secs(2);

/// What a write is for, which decides whether it gets through on a full disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// It begins something new: only while the reserve is in hand.
    Act,
    /// It puts on record what has happened, or what was refused: as long as there is any space.
    Record,
}

/// Shared by the writer, the readers and the watch.
pub(super) struct Disk {
    files: OpenedFiles,
    reserve: Reserve,
    seen: Mutex<Seen>,
    /// Writes that came to nothing, by reason in the order of [`Reason::ALL`].
    refused: [AtomicU64; Reason::ALL.len()],
}

#[derive(Default)]
struct Seen {
    /// Stays until a restart, which checks everything.
    corrupt: Option<Trouble>,
    files: Option<Trouble>,
    space: Option<Trouble>,
    /// Why the last group of writes failed, if it did.
    write: Option<Trouble>,
    /// What a job of the present group ran into.
    noticed: Option<Trouble>,
    /// Since when the present group has been going on.
    group: Option<Instant>,
    /// What was last logged and is shown.
    shown: Option<(Trouble, Timestamp)>,
}

/// Gives up what an earlier run has reserved if the disk is full now, so that the store can be opened at all.
pub(super) fn make_room(folder: &Path, database: &Path) {
    // What is wrong shows itself when the store is opened.
    drop(Reserve::of(folder, &files::wal(database)).check());
}

impl Disk {
    /// Of a database that has just been opened and read, in WAL mode.
    pub(super) fn of(folder: &Path, database: &Path) -> Result<Self, StoreError> {
        let failed = |trouble| StoreError::Disk { doing: "open its database", trouble };
        let disk = Self {
            files: OpenedFiles::note(database).map_err(failed)?,
            reserve: Reserve::of(folder, &files::wal(database)),
            seen: Mutex::default(),
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        disk.tend();
        Ok(disk)
    }

    /// Whether a write may be begun now, by the files and the space as they are at this moment.
    pub(super) fn admit(&self, urgency: Urgency) -> Result<(), StoreError> {
        let seen = self.look();
        let space = seen.space.as_ref().filter(|trouble| urgency == Urgency::Act || trouble.reason != Reason::DiskFull);
        let why = seen.corrupt.as_ref().or(seen.files.as_ref()).or(space);
        why.map_or(Ok(()), |trouble| Err(StoreError::Disk { doing: "write", trouble: trouble.clone() }))
    }

    /// Whether a write may wait for its turn: an act does not, behind one that does not come to an end.
    pub(super) fn admit_to_queue(&self, urgency: Urgency) -> Result<(), StoreError> {
        match &self.seen().write {
            Some(trouble) if urgency == Urgency::Act && trouble.reason == Reason::Stalled => {
                Err(StoreError::Disk { doing: "write", trouble: trouble.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Whether a file that is opened by its path now would be the one that the writer has.
    pub(super) fn admit_reader(&self) -> Result<(), StoreError> {
        self.files.check().map_err(|trouble| StoreError::Disk { doing: "open its database for reading", trouble })
    }

    /// A group of writes begins.
    pub(super) fn begun(&self) {
        let mut seen = self.seen();
        seen.group = Some(Instant::now());
        seen.noticed = None;
    }

    /// For how long the present group of writes has been going on, if there is one.
    pub(super) fn writing_for(&self) -> Option<Duration> {
        self.seen().group.map(|since| since.elapsed())
    }

    /// A read or a write has failed.
    pub(super) fn failed(&self, error: &StoreError) {
        let StoreError::Disk { trouble, .. } = error else { return };
        let mut seen = self.seen();
        seen.noticed = Some(trouble.clone());
        if trouble.reason == Reason::Corrupt {
            seen.corrupt.get_or_insert_with(|| trouble.clone());
            seen.show();
        }
    }

    /// A group of writes has ended, well or not; or its anchor was put at last, or again not.
    pub(super) fn ended(&self, why: Option<&StoreError>) {
        let trouble = why.map(|error| self.trouble_of(error));
        if trouble.as_ref().is_some_and(|trouble| trouble.reason == Reason::DiskFull) {
            self.reserve.give_up();
        }
        let mut seen = self.seen();
        seen.group = None;
        seen.noticed = None;
        seen.write = trouble;
        drop(seen);
        // The files have grown; were they cut from now on, it would be seen.
        drop(self.look());
    }

    /// Why a group has failed, with what is known or can be learned of the disk.
    pub(super) fn explain(&self, error: StoreError) -> StoreError {
        let (StoreError::Disk { doing, .. } | StoreError::Sqlite { doing, .. }) = &error else { return error };
        let trouble = self.trouble_of(&error);
        if trouble.reason == Reason::Other { error } else { StoreError::Disk { doing, trouble } }
    }

    /// What a failed group ran into: what one of its jobs saw, or the commit, or a small write that is tried now.
    fn trouble_of(&self, error: &StoreError) -> Trouble {
        let noticed = self.seen().noticed.clone();
        let found = match (error, noticed) {
            (StoreError::Disk { trouble, .. }, _) => trouble.clone(),
            (StoreError::Sqlite { .. }, Some(trouble)) => trouble,
            (other, _) => return Trouble::new(other.reason(), other.to_string()),
        };
        match found.reason {
            Reason::IoError => self.reserve.probe().err().unwrap_or(found),
            _ => found,
        }
    }

    /// A write came to nothing.
    pub(super) fn count(&self, error: &StoreError) {
        let reason = error.reason();
        let counters = Reason::ALL.iter().zip(&self.refused);
        for (_, counter) in counters.filter(|(each, _)| **each == reason) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes that came to nothing since the start, by reason.
    pub(super) fn refused(&self) -> Vec<(Reason, u64)> {
        Reason::ALL.iter().zip(&self.refused).map(|(reason, count)| (*reason, count.load(Ordering::Relaxed))).collect()
    }

    /// What is wrong, and since when.
    pub(super) fn problem(&self) -> Option<String> {
        let seen = self.seen();
        let (trouble, since) = seen.shown.as_ref()?;
        let what =
            if trouble.reason == Reason::DiskFull { "new sessions are refused" } else { "nothing can be recorded" };
        Some(format!("{}: {what} since {since}: {trouble}", trouble.reason.as_str()))
    }

    /// How long SQLite is to wait for a lock next time: who waited in vain does not wait again.
    pub(super) fn lock_patience(&self) -> Duration {
        match &self.seen().write {
            Some(trouble) if trouble.reason == Reason::Locked => Duration::ZERO,
            _ => LOCK_PATIENCE,
        }
    }

    /// The database's path.
    fn path(&self) -> &Path {
        self.files.database()
    }

    /// Whether the database itself is still at its path, so that its log may be copied into it.
    pub(super) fn database_in_place(&self) -> bool {
        self.files.check_database().is_ok()
    }

    /// Has the write-ahead log cut by `work`.
    pub(super) fn cut_log<T>(&self, work: impl FnOnce() -> T) -> T {
        self.files.cut_log(work)
    }

    /// Whether all files are still at their paths.
    pub(super) fn files_in_place(&self) -> bool {
        self.files.check().is_ok()
    }

    /// Whether a write must be tried to learn if writing works again.
    fn wants_trial(&self) -> bool {
        let seen = self.seen();
        seen.group.is_none() && (seen.write.is_some() || seen.files.is_some())
    }

    /// Makes the reserve again if there is room, and looks at files and space.
    fn tend(&self) {
        let restored = self.reserve.restore();
        let mut seen = self.look();
        if let (Err(trouble), Some(_)) = (restored, &seen.space) {
            // It says more than that the reserve is not there.
            seen.space = Some(trouble);
            seen.show();
        }
    }

    /// Looks at files and space.
    fn look(&self) -> MutexGuard<'_, Seen> {
        let files = self.files.check().err();
        let space = self.reserve.check().err();
        let mut seen = self.seen();
        match files {
            Some(cut) if cut.reason == Reason::Corrupt => {
                seen.corrupt.get_or_insert(cut);
            }
            files => seen.files = files,
        }
        seen.space = space;
        if let Some(since) = seen.group
            && since.elapsed() > STALL
        {
            let why = format!("a write has been going on for {} s", since.elapsed().as_secs());
            seen.write = Some(Trouble::new(Reason::Stalled, why));
        }
        seen.show();
        seen
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// What is worst: what keeps even refusals from being recorded comes first.
    fn worst(&self) -> Option<&Trouble> {
        let dead = self.space.as_ref().filter(|trouble| trouble.reason != Reason::DiskFull);
        self.corrupt.as_ref().or(self.files.as_ref()).or(dead).or(self.write.as_ref()).or(self.space.as_ref())
    }

    /// Shows what is worst, and logs it if it is of another kind than before.
    fn show(&mut self) {
        let worst = self.worst().cloned();
        match (worst, &mut self.shown) {
            (None, None) => {}
            (None, Some((before, since))) => {
                let reason = before.reason.as_str();
                tracing::info!(event = "store_trouble_over", reason, %since, "the store can be written again");
                self.shown = None;
            }
            (Some(now), Some((before, _))) if now.reason == before.reason => *before = now,
            (Some(now), _) => {
                tracing::error!(event = "store_trouble", reason = now.reason.as_str(), "{now}");
                self.shown = Some((now, Timestamp::now()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
