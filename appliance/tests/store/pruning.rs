//! Lines that are exported and leave the database: what remains goes on, and both are still one log.

use std::fs;
use std::path::{Path, PathBuf};

use casemate_appliance::store::{Segment, StoreError, TreeNodes, Urgency, open_read_only};
use casemate_attest::tree::root_at;
use casemate_attest::{ConsistencyProof, Refusal, Snapshot, Verifier};

use jiff::{SignedDuration, Timestamp};

use super::site::{Mood, Site, intend, lines, note};
use super::tables::busy;

async fn prune(site: &Site, name: &str) -> (Segment, u64) {
    let store = site.open();
    let segment = Segment::at(&site.path().join(name));
    let exported = segment.export(&open_read_only(site.path()).unwrap(), Timestamp::now()).unwrap();
    assert_eq!(exported.checkpoint().size, store.audit_head().size());
    let size = store.prune(exported).await.unwrap();
    store.close();
    (segment, size)
}

fn feed(mut verifier: Verifier, lines: &[String]) -> casemate_attest::Report {
    for line in lines {
        verifier.feed(line.as_bytes()).unwrap();
    }
    verifier.finish().unwrap()
}

fn read(path: impl AsRef<Path>) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// The snapshot that a segment rests on.
fn before(segment: &Segment) -> PathBuf {
    segment.lines().with_file_name("snapshot.json")
}

async fn busy_site() -> Site {
    let site = Site::begun();
    let store = site.open();
    busy(&store).await;
    store.close();
    drop(store);
    site
}

#[tokio::test]
async fn segments_and_the_remaining_lines_verify_as_one_log() {
    let site = busy_site().await;
    let (first, size) = prune(&site, "first").await;
    let store = site.open();
    assert_eq!((store.verdict(), lines(&store).await.len()), ("equal", 1));
    assert_eq!(store.audit_head().size(), size);
    store.write(Urgency::Record, |t| t.append(note())).await.unwrap();
    store.close();
    drop(store);
    let (second, _) = prune(&site, "second").await;
    let store = site.open();
    store.write(Urgency::Record, |t| t.append(note())).await.unwrap();
    let remaining = lines(&store).await;
    let (one, two) = (read(first.lines()), read(second.lines()));
    let whole = feed(Verifier::new(), &[one.clone(), two.clone(), remaining.clone()].concat());
    let head = store.audit_head();
    assert_eq!((whole.size, whole.root), (head.size(), head.root()));
    // Each part also verifies from the snapshot before it, which lies beside it.
    let resumed =
        |path: PathBuf| Verifier::resume(Snapshot::read(&fs::read_to_string(path).unwrap()).unwrap()).unwrap();
    assert!(!before(&first).exists());
    assert_eq!(fs::read(before(&second)).unwrap(), fs::read(first.after()).unwrap());
    assert_eq!(feed(resumed(before(&second)), &[two, remaining.clone()].concat()).root, whole.root);
    assert_eq!(feed(resumed(second.after()), &remaining).root, whole.root);
    assert_eq!(read(first.lines().with_file_name("details.jsonl")).len(), 1);
}

#[tokio::test]
async fn proofs_go_on_across_a_prune() {
    let site = busy_site().await;
    let before = site.open().audit_head();
    prune(&site, "first").await;
    let store = site.open();
    let (from, to) = (before.size(), store.audit_head());
    let proof = store.read(move |c| Ok(ConsistencyProof::make(from, to.size(), &TreeNodes(c)).unwrap())).await.unwrap();
    let now = store.audit_head();
    proof.verify(&before.root(), &now.root()).unwrap();
    let root = store.read(move |c| root_at(from, &TreeNodes(c))).await.unwrap();
    assert_eq!(root, before.root());
}

#[tokio::test]
async fn a_log_never_rests_on_a_snapshot_that_its_anchor_does_not_cover() {
    let site = busy_site().await;
    let before = site.anchor.standing();
    prune(&site, "first").await;
    // As whoever can write the database alone would: a snapshot of their own, under one leaf that looks like a crash.
    site.anchor.replace(before);
    let (refusal, why) = site.refused();
    assert_eq!(refusal, Refusal::LogDamaged, "{why}");
}

#[tokio::test]
async fn a_prune_that_is_cut_off_before_its_anchor_keeps_all_lines_and_is_done_again() {
    let site = busy_site().await;
    let store = site.open();
    let held = lines(&store).await.len();
    let segment = Segment::at(&site.path().join("first"));
    let exported = segment.export(&open_read_only(site.path()).unwrap(), Timestamp::now()).unwrap();
    site.anchor.mood(Mood::Refuses);
    assert!(store.prune(exported).await.is_err());
    drop(store);
    site.anchor.mood(Mood::Works);
    let store = site.open();
    assert_eq!((store.verdict(), lines(&store).await.len()), ("catch_up", held + 1));
    store.close();
    drop(store);
    prune(&site, "second").await;
    assert_eq!(lines(&site.open()).await.len(), 1);
}

#[tokio::test]
async fn an_export_that_was_cut_off_is_done_again_and_another_file_is_not_written_over() {
    let site = busy_site().await;
    let segment = Segment::at(&site.path().join("out"));
    let export = || segment.export(&open_read_only(site.path()).unwrap(), Timestamp::now());
    export().unwrap();
    fs::remove_file(segment.lines()).unwrap();
    fs::write(segment.lines().with_extension("jsonl.new"), "half").unwrap();
    export().unwrap();
    export().unwrap();
    fs::write(segment.after(), "{}").unwrap();
    let refused = export().err().unwrap();
    assert!(matches!(&refused, StoreError::Folder { why, .. } if why.contains("not written over")), "{refused}");
    assert_eq!(fs::read_to_string(segment.after()).unwrap(), "{}");
}

#[tokio::test]
async fn what_was_exported_is_pruned_only_if_the_log_ends_there() {
    let site = busy_site().await;
    let store = site.open();
    let segment = Segment::at(&site.path().join("out"));
    let exported = segment.export(&open_read_only(site.path()).unwrap(), Timestamp::now()).unwrap();
    store.write(Urgency::Record, |t| t.append(note())).await.unwrap();
    let count = lines(&store).await.len();
    assert!(matches!(store.prune(exported).await, Err(StoreError::Audit(_))));
    assert_eq!(lines(&store).await.len(), count);
}

#[tokio::test]
async fn a_session_that_runs_keeps_its_intent_here() {
    let site = Site::begun();
    let store = site.open();
    store.write(Urgency::Act, |t| intend(t, "s-1", Vec::new()).map(|_| ())).await.unwrap();
    let segment = Segment::at(&site.path().join("out"));
    let refused = segment.export(&open_read_only(site.path()).unwrap(), Timestamp::now()).err().unwrap();
    assert!(refused.to_string().contains("s-1 has no outcome yet"), "{refused}");
    assert!(!segment.lines().exists());
}

#[tokio::test]
async fn a_snapshot_that_is_changed_taken_away_or_put_back_is_found() {
    let site = busy_site().await;
    let (first, _) = prune(&site, "first").await;
    let (_, _) = prune(&site, "second").await;
    let good = site.copy();
    let older = fs::read_to_string(first.after()).unwrap();
    for sql in [
        "UPDATE snapshot SET text = replace(text, 'active', 'revoked')".to_owned(),
        "DELETE FROM snapshot".to_owned(),
        format!("UPDATE snapshot SET text = '{older}'"),
    ] {
        assert_eq!(site.by_hand(&sql), 1, "{sql}");
        assert_eq!(site.refused().0, casemate_attest::Refusal::LogDamaged, "{sql}");
        site.restore(&good);
    }
    // A used token that only the snapshot knows is missed as any other.
    assert_eq!(site.by_hand("DELETE FROM tokens WHERE jti = 't-s-2'"), 1);
    assert_eq!(site.refused().0, casemate_attest::Refusal::TablesDiffer);
}

#[tokio::test]
async fn nothing_is_pruned_while_a_line_is_ahead_of_the_clock() {
    let site = busy_site().await;
    let segment = Segment::at(&site.path().join("out"));
    // A clock that was put back below the log, or a log that was written while it was ahead.
    let behind = Timestamp::now() - SignedDuration::from_hours(1);
    let refused = segment.export(&open_read_only(site.path()).unwrap(), behind).err().unwrap();
    assert!(matches!(&refused, StoreError::Audit(why) if why.contains("ahead of this host's clock")), "{refused}");
    assert!(!segment.lines().exists());
    // What a log rests on counts as its lines do.
    prune(&site, "first").await;
    let again = segment.export(&open_read_only(site.path()).unwrap(), behind).err().unwrap();
    assert!(matches!(again, StoreError::Audit(_)), "{again}");
}
