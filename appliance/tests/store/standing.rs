//! Really restored older copies: of the database, of what keeps the anchor, of both; and logs that are no logs.

use casemate_appliance::store::{Store, Urgency};
use casemate_attest::{Refusal, WINDOW};

use super::site::{Site, note};

async fn append(store: &Store, count: u64) {
    for _ in 0..count {
        store.write(Urgency::Record, |t| t.append(note())).await.unwrap();
    }
}

async fn grow(site: &Site, count: u64) {
    let store = site.open();
    append(&store, count).await;
}

#[tokio::test]
async fn an_older_copy_of_the_database_is_a_rollback_by_however_little() {
    let site = Site::begun();
    for by in [1, 2, WINDOW + 10] {
        let (old, size) = (site.copy(), site.anchor.standing().unwrap().size);
        grow(&site, by).await;
        let new = site.copy();
        site.restore(&old);
        let (verdict, told) = site.refused();
        assert_eq!(verdict, Refusal::Rollback, "{told}");
        assert!(told.contains(&format!("found: {size} leaves")), "both places are told: {told}");
        assert!(told.contains(&format!("anchored: {} leaves", size + by)), "{told}");
        site.restore(&new);
    }
    site.open();
}

#[tokio::test]
async fn an_older_copy_of_the_anchor_is_found_once_it_is_older_than_a_crash_explains() {
    let site = Site::begun();
    let old = site.anchor.standing();
    grow(&site, WINDOW + 1).await;
    site.anchor.replace(old);
    assert_eq!(site.refused().0, Refusal::AheadOfWindow);
    assert_eq!(site.refused().0, Refusal::AheadOfWindow, "a restart changes nothing");
}

#[tokio::test]
async fn older_copies_of_both_look_whole_and_going_on_from_them_forks_what_others_have_seen() {
    let site = Site::begun();
    let (old, old_anchor) = (site.copy(), site.anchor.standing());
    grow(&site, 3).await;
    let (new, new_anchor) = (site.copy(), site.anchor.standing());
    site.restore(&old);
    site.anchor.replace(old_anchor);
    // Honest limit: nothing on this host shows it. A peer that holds a checkpoint of 4 leaves does.
    assert_eq!(site.open().verdict(), "equal");
    grow(&site, 3).await;
    assert_ne!(site.anchor.standing(), new_anchor, "the same size, another root: what a peer compares");
    let forked = site.copy();
    site.anchor.replace(new_anchor);
    assert_eq!(site.refused().0, Refusal::Fork);
    site.restore(&new);
    site.open();
    site.restore(&forked);
    assert_eq!(site.refused().0, Refusal::Fork);
}

#[tokio::test]
async fn a_longer_log_that_goes_on_from_an_older_copy_is_a_fork() {
    let (site, other) = (Site::begun(), Site::new());
    let old = site.copy();
    grow(&site, 2).await;
    other.restore(&old);
    other.anchor.replace(Some(casemate_attest::Place { size: 1, ..first(&site, &other) }));
    grow(&other, 9).await;
    site.restore(&other.copy());
    assert_eq!(site.refused().0, Refusal::Fork);
}

/// The place of the log's first leaf.
fn first(site: &Site, scratch: &Site) -> casemate_attest::Place {
    site.anchor.puts().into_iter().next().unwrap_or_else(|| scratch.anchor.standing().unwrap())
}

#[test]
fn one_without_the_other_is_refused() {
    let site = Site::begun();
    let place = site.anchor.standing();
    site.anchor.replace(None);
    assert_eq!(site.refused().0, Refusal::DatabaseWithoutAnchor);
    assert!(site.anchor.standing().is_none(), "an anchor is never made by a start");
    site.anchor.replace(place);
    let database = site.copy();
    std::fs::remove_file(site.database()).unwrap();
    assert_eq!(site.refused().0, Refusal::AnchorWithoutDatabase);
    assert!(!site.database().exists(), "nor a database");
    site.restore(&database);
    site.open();
    site.by_hand("DELETE FROM leaves");
    assert_eq!(site.refused().0, Refusal::AnchorWithoutDatabase, "a database without a line is none");
}

#[tokio::test]
async fn without_a_database_reads_find_nothing_and_still_answer() {
    let site = Site::begun();
    std::fs::remove_file(site.database()).unwrap();
    let store = site.try_open().unwrap();
    let shares =
        store.read(|c| Ok(c.query_row("SELECT count(*) FROM shares", [], |row| row.get::<_, i64>(0)).unwrap()));
    assert_eq!(shares.await.unwrap(), 0);
    assert_eq!(store.audit_head().size(), 0);
}

#[test]
fn the_log_of_another_appliance_is_refused() {
    let (site, other) = (Site::begun(), Site::new());
    other.begin("casemate/party-2/other").unwrap();
    site.restore(&other.copy());
    assert_eq!(site.refused().0, Refusal::OtherLog);
}

#[test]
fn anchors_that_contradict_each_other_are_refused() {
    let site = Site::begun();
    site.anchor.spoil("two different anchors of size 9");
    let (verdict, told) = site.refused();
    assert_eq!(verdict, Refusal::AnchorUnusable);
    assert!(told.contains("two different anchors of size 9"));
}

#[tokio::test]
async fn an_altered_line_is_found_wherever_it_stands() {
    let site = Site::begun();
    grow(&site, 9).await;
    let good = site.copy();
    for (sql, verdict) in [
        ("UPDATE leaves SET line = replace(line, 'stop', 'boot') WHERE seq = 4", Refusal::LogDamaged),
        ("UPDATE leaves SET line = replace(line, 'Z', 'z') WHERE seq = 9", Refusal::LogDamaged),
        ("UPDATE leaves SET line = 'x' WHERE seq = 0", Refusal::LogDamaged),
        ("UPDATE leaves SET line = '' WHERE seq = 9", Refusal::LogDamaged),
        ("DELETE FROM leaves WHERE seq = 5", Refusal::LogDamaged),
        ("DELETE FROM leaves WHERE seq = 0", Refusal::LogDamaged),
        ("DELETE FROM leaves WHERE seq = 9", Refusal::Rollback),
        ("UPDATE leaves SET seq = 1000 WHERE seq = 9", Refusal::LogDamaged),
        ("INSERT INTO leaves SELECT 10, line FROM leaves WHERE seq = 9", Refusal::LogDamaged),
        ("INSERT INTO leaves SELECT -1, line FROM leaves WHERE seq = 0", Refusal::LogDamaged),
        ("INSERT INTO snapshot (only_row, text) VALUES (1, '{}')", Refusal::LogDamaged),
    ] {
        assert_eq!(site.by_hand(sql), 1, "{sql}");
        let (found, told) = site.refused();
        assert_eq!(found, verdict, "{sql}: {told}");
        site.restore(&good);
    }
    // The last leaf's time moved by a century, in canonical form: only the anchor shows it.
    let changed = site.by_hand(
        "UPDATE leaves SET line = replace(line, '\"at\":\"20', '\"at\":\"21') WHERE seq = (SELECT max(seq) FROM leaves)",
    );
    assert_eq!((changed, site.refused().0), (1, Refusal::Fork));
    site.restore(&good);
    site.open();
}

#[test]
fn a_corrupted_page_is_told_and_nothing_is_served_from_it() {
    let site = Site::begun();
    let mut bytes = site.copy();
    for byte in &mut bytes[4096..4096 + 200] {
        *byte ^= 0x5a;
    }
    site.restore(&bytes);
    let error = site.try_open().err().unwrap().to_string();
    assert!(error.contains("store"), "{error}");
}
