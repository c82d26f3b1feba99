#![allow(clippy::unwrap_used, clippy::panic)]
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use casemate_attest::{Anchored, Entry, Line};
use rusqlite::Connection;

use super::super::{Anchor, AnchorError, Store};
use super::*;

/// Health must show trouble, or its end, within this time without any traffic.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);

struct Place(tempfile::TempDir, Kept);

impl Place {
    fn new() -> (Self, Store) {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let mut anchor = Kept::default();
        Store::create(folder.path(), &"test-log".parse().unwrap(), &mut anchor).unwrap();
        let place = Self(folder, anchor);
        let store = place.open();
        (place, store)
    }

    fn open(&self) -> Store {
        let store = Store::open(self.0.path(), Box::new(self.1.clone())).unwrap();
        assert!(store.quarantine().is_none(), "{:?}", store.quarantine());
        store
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Keeps the place in memory, as an HSM beside the disk would; and fails while `down`.
#[derive(Clone, Default)]
struct Kept {
    place: Arc<Mutex<Option<Anchored>>>,
    down: Arc<AtomicBool>,
}

impl Anchor for Kept {
    fn place(&mut self) -> Result<Anchored, AnchorError> {
        let place = self.place.lock().unwrap();
        Ok(place.clone().unwrap_or(Anchored::Nothing))
    }

    fn put(&mut self, _: Option<&casemate_attest::Place>, place: &casemate_attest::Place) -> Result<(), AnchorError> {
        if self.down.load(Ordering::Relaxed) {
            return Err(AnchorError::Unkept("it is down".into()));
        }
        *self.place.lock().unwrap() = Some(Anchored::At(place.clone()));
        Ok(())
    }

    fn replace(&mut self, place: &casemate_attest::Place) -> Result<(), AnchorError> {
        self.put(None, place)
    }
}

async fn append(store: &Store, urgency: Urgency) -> Result<Line, StoreError> {
    store.write(urgency, |transaction| transaction.append(Entry::boot())).await
}

fn reason(written: Result<Line, StoreError>) -> Option<Reason> {
    written.err().map(|error| error.reason())
}

async fn shows(store: &Store, wanted: Option<Reason>) {
    let begun = Instant::now();
    loop {
        let problem = store.problem();
        let fits = match (&problem, wanted) {
            (Some(text), Some(reason)) => text.starts_with(reason.as_str()) && text.contains(" since 20"),
            (found, None) => found.is_none(),
            _ => false,
        };
        if fits {
            return;
        }
        assert!(begun.elapsed() < SHOWN_WITHIN, "{wanted:?} is not shown, but {problem:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn refused(store: &Store, reason: Reason) -> u64 {
    store.writes_refused().into_iter().find(|(each, _)| *each == reason).unwrap().1
}

#[tokio::test]
async fn a_file_that_was_moved_away_denies_at_once_and_is_good_again_when_it_is_back() {
    let (place, store) = Place::new();
    for name in ["casemate.db", "casemate.db-wal", "casemate.db-shm"] {
        append(&store, Urgency::Act).await.unwrap();
        fs::rename(place.path(name), place.path("away")).unwrap();
        assert_eq!(reason(append(&store, Urgency::Act).await), Some(Reason::FileMissing), "{name}");
        assert_eq!(reason(append(&store, Urgency::Record).await), Some(Reason::FileMissing), "{name}");
        let before = store.audit_head();
        fs::rename(place.path("away"), place.path(name)).unwrap();
        append(&store, Urgency::Act).await.unwrap();
        assert_eq!(store.audit_head().size(), before.size() + 1);
    }
    assert_eq!(refused(&store, Reason::FileMissing), 6);
}

#[tokio::test]
async fn without_traffic_trouble_and_its_end_show_within_a_second() {
    let (place, store) = Place::new();
    shows(&store, None).await;
    fs::rename(place.path("casemate.db"), place.path("away")).unwrap();
    shows(&store, Some(Reason::FileMissing)).await;
    fs::copy(place.path("away"), place.path("casemate.db")).unwrap();
    shows(&store, Some(Reason::FileReplaced)).await;
    fs::rename(place.path("away"), place.path("casemate.db")).unwrap();
    shows(&store, None).await;
}

#[tokio::test]
async fn a_copy_in_place_of_the_database_stays_refused_and_is_not_read_either() {
    let (place, store) = Place::new();
    fs::copy(place.path("casemate.db"), place.path("copy")).unwrap();
    fs::rename(place.path("copy"), place.path("casemate.db")).unwrap();
    for _ in 0..3 {
        assert_eq!(reason(append(&store, Urgency::Record).await), Some(Reason::FileReplaced));
    }
    let read = store.read(|_| Ok(())).await;
    assert_eq!(read.unwrap_err().reason(), Reason::FileReplaced);
}

#[tokio::test]
async fn what_was_durable_only_in_a_deleted_wal_is_in_the_database_a_second_later() {
    let (place, store) = Place::new();
    let line = append(&store, Urgency::Act).await.unwrap();
    let holds = |place: &Place| {
        // As after kill -9: what lies at the paths, and no orderly end.
        let copy = tempfile::tempdir().unwrap();
        fs::copy(place.path("casemate.db"), copy.path().join("casemate.db")).unwrap();
        let rows = Connection::open(copy.path().join("casemate.db")).unwrap();
        rows.query_row("SELECT count(*) FROM leaves WHERE line = ?1", [line.as_str()], |row| row.get::<_, i64>(0))
    };
    assert_ne!(holds(&place), Ok(1), "it is only in the -wal file: otherwise this shows nothing");
    fs::remove_file(place.path("casemate.db-wal")).unwrap();
    shows(&store, Some(Reason::FileMissing)).await;
    let begun = Instant::now();
    while holds(&place) != Ok(1) {
        assert!(begun.elapsed() < SHOWN_WITHIN);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let head = store.audit_head();
    drop(store);
    assert_eq!(place.open().audit_head(), head);
}

#[tokio::test]
async fn a_deleted_database_can_be_taken_out_of_the_running_process() {
    let (place, store) = Place::new();
    append(&store, Urgency::Act).await.unwrap();
    let head = store.audit_head();
    fs::remove_file(place.path("casemate.db")).unwrap();
    shows(&store, Some(Reason::FileMissing)).await;
    // As docs/runbook.md says: out of /proc while it runs, back into the folder once it has stopped.
    let open = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let deleted = format!("{} (deleted)", place.path("casemate.db").display());
    let is_it = |path: &PathBuf| fs::read_link(path).is_ok_and(|target| target == Path::new(&deleted));
    fs::copy(open.into_iter().find(is_it).unwrap(), place.path("copy")).unwrap();
    fs::copy(place.path("casemate.db-wal"), place.path("copy-wal")).unwrap();
    store.close();
    drop(store);
    fs::rename(place.path("copy"), place.path("casemate.db")).unwrap();
    fs::rename(place.path("copy-wal"), place.path("casemate.db-wal")).unwrap();
    assert_eq!(place.open().audit_head(), head);
}

#[tokio::test]
async fn a_store_in_quarantine_can_be_read() {
    let (place, store) = Place::new();
    append(&store, Urgency::Act).await.unwrap();
    drop(store);
    let other = Connection::open(place.path("casemate.db")).unwrap();
    other.execute("DELETE FROM leaves WHERE seq = 1", []).unwrap();
    drop(other);
    let store = Store::open(place.0.path(), Box::new(place.1.clone())).unwrap();
    assert!(store.quarantine().is_some());
    store.read(|_| Ok(())).await.unwrap();
}

#[tokio::test]
async fn the_wal_is_left_to_a_database_that_was_moved_away() {
    let (place, store) = Place::new();
    append(&store, Urgency::Act).await.unwrap();
    let head = store.audit_head();
    fs::copy(place.path("casemate.db"), place.path("copy")).unwrap();
    fs::rename(place.path("copy"), place.path("casemate.db")).unwrap();
    store.close();
    drop(store);
    assert_eq!(place.open().audit_head(), head, "the copy and the -wal file are all that there is");
}

#[tokio::test]
async fn a_database_that_was_cut_stays_refused_until_a_restart() {
    let (place, store) = Place::new();
    append(&store, Urgency::Act).await.unwrap();
    let wal = fs::OpenOptions::new().write(true).open(place.path("casemate.db-wal")).unwrap();
    let size = wal.metadata().unwrap().len();
    wal.set_len(size - 1).unwrap();
    assert_eq!(reason(append(&store, Urgency::Record).await), Some(Reason::Corrupt));
    wal.set_len(size).unwrap();
    shows(&store, Some(Reason::Corrupt)).await;
    assert_eq!(reason(append(&store, Urgency::Record).await), Some(Reason::Corrupt));
}

#[tokio::test]
async fn a_line_that_was_changed_under_the_daemon_stops_everything_within_a_second() {
    let (place, store) = Place::new();
    for _ in 0..20 {
        append(&store, Urgency::Act).await.unwrap();
    }
    shows(&store, None).await;
    let other = Connection::open(place.path("casemate.db")).unwrap();
    other.execute("UPDATE leaves SET line = replace(line, 'test-log', 'test-lag') WHERE seq = 7", []).unwrap();
    shows(&store, Some(Reason::Corrupt)).await;
    assert!(store.problem().unwrap().contains("line 8"), "its successor says so: {:?}", store.problem());
    assert_eq!(reason(append(&store, Urgency::Record).await), Some(Reason::Corrupt));
    other.execute("UPDATE leaves SET line = replace(line, 'test-lag', 'test-log') WHERE seq = 7", []).unwrap();
    assert_eq!(reason(append(&store, Urgency::Act).await), Some(Reason::Corrupt), "a restart judges");
}

#[tokio::test]
async fn a_foreign_lock_denies_within_a_second_and_it_goes_on_by_itself() {
    let (place, store) = Place::new();
    let other = Connection::open(place.path("casemate.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = Instant::now();
    let (act, record) = tokio::join!(append(&store, Urgency::Act), append(&store, Urgency::Record));
    assert_eq!((reason(act), reason(record)), (Some(Reason::Locked), Some(Reason::Locked)));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(reason(append(&store, Urgency::Act).await), Some(Reason::Locked));
    assert!(begun.elapsed() < LOCK_PATIENCE, "nobody waits in vain twice: {:?}", begun.elapsed());
    shows(&store, Some(Reason::Locked)).await;
    other.execute_batch("ROLLBACK").unwrap();
    shows(&store, None).await;
    append(&store, Urgency::Act).await.unwrap();
}

#[tokio::test]
async fn without_the_reserve_outcomes_are_recorded_and_nothing_is_begun() {
    let (place, store) = Place::new();
    // As on a full disk: the reserve is gone and cannot be made again.
    fs::remove_file(place.path("reserve")).unwrap();
    fs::create_dir(place.path("reserve")).unwrap();
    assert_eq!(reason(append(&store, Urgency::Act).await), Some(Reason::DiskFull));
    append(&store, Urgency::Record).await.unwrap();
    let (act, record) = tokio::join!(append(&store, Urgency::Act), append(&store, Urgency::Record));
    assert_eq!(reason(act), Some(Reason::DiskFull), "an act that is refused takes nobody of its group along");
    record.unwrap();
    fs::remove_dir(place.path("reserve")).unwrap();
    shows(&store, None).await;
    append(&store, Urgency::Act).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acts_do_not_wait_behind_a_write_that_does_not_end() {
    let (_place, store) = Place::new();
    let hangs = store.clone();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let hanging = tokio::spawn(async move {
        hangs.write(Urgency::Record, move |_| ended.recv().map_err(|_| StoreError::Closed)).await
    });
    tokio::time::sleep(STALL).await;
    shows(&store, Some(Reason::Stalled)).await;
    let begun = Instant::now();
    assert_eq!(reason(append(&store, Urgency::Act).await), Some(Reason::Stalled));
    assert!(begun.elapsed() < Duration::from_secs(1));
    end.send(()).unwrap();
    hanging.await.unwrap().unwrap();
    append(&store, Urgency::Act).await.unwrap();
    shows(&store, None).await;
}

#[tokio::test]
async fn a_missing_anchor_shows_as_its_own_kind_and_passes_by_itself() {
    let (place, store) = Place::new();
    place.1.down.store(true, Ordering::Relaxed);
    assert_eq!(reason(append(&store, Urgency::Act).await), Some(Reason::Anchor));
    assert_eq!(reason(append(&store, Urgency::Record).await), Some(Reason::Anchor));
    shows(&store, Some(Reason::Anchor)).await;
    place.1.down.store(false, Ordering::Relaxed);
    shows(&store, None).await;
    append(&store, Urgency::Act).await.unwrap();
}

#[tokio::test]
async fn what_went_into_a_file_that_was_moved_meanwhile_is_not_anchored_before_it_is_back() {
    let (place, store) = Place::new();
    let anchored = place.1.clone().place().unwrap();
    let (from, to) = (place.path("casemate.db-wal"), place.path("away"));
    let moved = store.write(Urgency::Act, move |transaction| {
        let line = transaction.append(Entry::boot())?;
        fs::rename(from, to).unwrap();
        Ok(line)
    });
    assert!(moved.await.is_err(), "no effect of what may be lost");
    assert_eq!(place.1.clone().place().unwrap(), anchored);
    fs::rename(place.path("away"), place.path("casemate.db-wal")).unwrap();
    append(&store, Urgency::Act).await.unwrap();
    drop(store);
    place.open();
}

#[test]
fn each_change_of_state_is_shown_once_with_its_own_time() {
    let mut seen = Seen::default();
    let full = |why: &str| Trouble::new(Reason::DiskFull, why);
    seen.space = Some(full("10 KiB are free"));
    seen.show();
    let (_, since) = seen.shown.clone().unwrap();
    seen.space = Some(full("9 KiB are free"));
    seen.show();
    assert_eq!(seen.shown, Some((full("9 KiB are free"), since)), "the same trouble, since the same time");
    seen.write = Some(Trouble::new(Reason::IoError, "no"));
    seen.show();
    let (worst, later) = seen.shown.clone().unwrap();
    assert_eq!(worst.reason, Reason::IoError, "nothing can be recorded is worse than nothing can be begun");
    assert!(later >= since);
    seen = Seen { shown: seen.shown, ..Seen::default() };
    seen.show();
    assert_eq!(seen.shown, None);
}
