//! Database, anchor, effect: what callers are told while the anchor is not kept, and how far it may lag.

use std::time::{Duration, Instant};

use casemate_appliance::store::{JOB_LEAVES, Store, StoreError, Urgency};
use casemate_attest::{Refusal, WINDOW};

use super::contract;
use super::site::{MemoryAnchor, Mood, Site, lines, note};

#[test]
fn the_anchor_in_memory_does_what_every_anchor_must() {
    let anchor = MemoryAnchor::default();
    contract::holds(|| anchor.clone());
}

async fn append(store: &Store) -> Result<u64, StoreError> {
    store.write(Urgency::Record, |t| t.append(note())).await.map(|line| line.leaf().seq)
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_answer_goes_out_after_its_leaf_is_anchored() {
    let site = Site::begun();
    let store = site.open();
    for _ in 0..5 {
        let seq = append(&store).await.unwrap();
        let stands = site.anchor.standing().unwrap();
        assert_eq!((stands.size, stands.root), (seq + 1, store.audit_head().root()));
    }
    store.write(Urgency::Record, |_| Ok(())).await.unwrap();
    assert_eq!(site.anchor.puts().len(), 2 + 5, "what appends nothing anchors nothing");
}

#[tokio::test]
async fn while_an_anchor_is_missing_nothing_more_is_written() {
    let site = Site::begun();
    let store = site.open();
    for mood in [Mood::Refuses, Mood::LosesAnswers] {
        let shown = store.audit_head();
        site.anchor.mood(mood);
        let doubt = append(&store).await.unwrap_err();
        assert!(matches!(doubt, StoreError::Unanchored(_)), "{doubt}");
        let durable = lines(&store).await.len();
        assert_eq!(u64::try_from(durable).unwrap(), shown.size() + 1, "that leaf is durable");
        assert_eq!(store.audit_head(), shown, "nobody is shown what is not anchored");
        site.anchor.mood(Mood::Refuses);
        for _ in 0..3 {
            let error = append(&store).await.unwrap_err();
            assert!(matches!(error, StoreError::Anchor(_)), "{error}");
        }
        assert_eq!(lines(&store).await.len(), durable);
        assert!(store.problem().unwrap().contains("anchor"), "{:?}", store.problem());

        site.anchor.mood(Mood::Works);
        eventually("it comes back by itself, and says so", || store.problem().is_none()).await;
        assert_eq!(u64::try_from(durable).unwrap(), store.audit_head().size(), "what was durable is not lost");
        append(&store).await.unwrap();
    }
}

#[tokio::test]
async fn what_failed_by_itself_is_not_told_to_be_in_doubt() {
    let site = Site::begun();
    let store = site.open();
    site.anchor.mood(Mood::Refuses);
    let good = append(&store);
    let bad = store.write::<(), _>(Urgency::Record, |_| Err(StoreError::Audit("no".into())));
    let (good, bad) = tokio::join!(good, bad);
    assert!(matches!(good, Err(StoreError::Unanchored(_))));
    assert!(matches!(bad, Err(StoreError::Audit(_) | StoreError::Anchor(_))), "{bad:?}");
}

#[tokio::test]
async fn what_is_an_effect_is_not_read_before_its_leaf_is_anchored() {
    let site = Site::begun();
    let store = site.open();
    site.anchor.mood(Mood::Refuses);
    assert!(append(&store).await.is_err());
    let begun = Instant::now();
    let early = store.read_anchored(|_| Ok("a signature")).await;
    assert!(matches!(early, Err(StoreError::Anchor(_))), "{early:?}");
    assert!(begun.elapsed() < Duration::from_secs(3), "it does not wait for long: {:?}", begun.elapsed());
    assert_eq!(store.read(|_| Ok("anything else")).await.unwrap(), "anything else");
    let waiting = store.read_anchored(|_| Ok("a signature"));
    let back = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        site.anchor.mood(Mood::Works);
    };
    let (late, ()) = tokio::join!(waiting, back);
    assert_eq!(late.unwrap(), "a signature");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_group_outgrows_the_window() {
    let site = Site::begun();
    let store = site.open();
    // The first group waits in its anchor, so that all others queue up behind it.
    site.anchor.between(|| std::thread::sleep(Duration::from_millis(200)));
    let jobs = (0..100).map(|job| {
        let store = store.clone();
        let leaves = if job == 0 { 1 } else { 1 + job % JOB_LEAVES };
        async move {
            let write = store.write(Urgency::Record, move |t| {
                for _ in 0..leaves {
                    t.append(note())?;
                }
                Ok(())
            });
            write.await.unwrap();
        }
    });
    futures::future::join_all(jobs).await;
    let puts = site.anchor.puts();
    let steps: Vec<u64> = puts.windows(2).map(|pair| pair[1].size - pair[0].size).collect();
    assert!(steps.iter().all(|step| *step <= WINDOW), "{steps:?}");
    assert!(steps.iter().any(|step| *step > JOB_LEAVES), "groups were formed: {steps:?}");
}

#[tokio::test]
async fn a_crash_between_database_and_anchor_is_caught_up_and_one_that_is_further_ahead_is_not() {
    let site = Site::begun();
    let store = site.open();
    site.anchor.mood(Mood::Refuses);
    assert!(append(&store).await.is_err());
    drop(store);
    assert!(matches!(site.try_open(), Err(StoreError::Anchor(_))), "it does not start before it has caught up");
    site.anchor.mood(Mood::Works);
    let store = site.open();
    assert_eq!((store.verdict(), site.anchor.standing().unwrap().size), ("catch_up", 2));

    let old = site.anchor.standing();
    for _ in 0..WINDOW {
        append(&store).await.unwrap();
    }
    drop(store);
    site.anchor.replace(old.clone());
    assert_eq!(site.open().verdict(), "catch_up", "a HSM that is one window behind looks like a crash");
    let store = site.open();
    append(&store).await.unwrap();
    drop(store);
    site.anchor.replace(old);
    assert_eq!(site.refused().0, Refusal::AheadOfWindow);
}

#[tokio::test]
async fn of_two_copies_of_one_appliance_on_one_hsm_the_second_does_nothing_once_the_first_has_acted() {
    let site = Site::begun();
    let copy = Site { anchor: site.anchor.clone(), ..Site::new() };
    copy.restore(&site.copy());
    let (first, second) = (site.open(), copy.open());
    assert_eq!((first.verdict(), second.verdict()), ("equal", "equal"), "until one acts both are the appliance");
    append(&first).await.unwrap();
    let anchored = site.anchor.standing();

    // A longer log than the first one's: by its size alone it would go over that.
    let longer = second.write(Urgency::Act, |t| (0..3).try_for_each(|_| t.append(note()).map(drop))).await;
    assert!(matches!(&longer, Err(StoreError::Unanchored(why)) if why.contains("another place")), "{longer:?}");
    assert!(matches!(append(&second).await, Err(StoreError::Anchor(_))));
    assert!(second.read_anchored(|_| Ok("a signature")).await.is_err());
    assert!(second.problem().unwrap().contains("another place"), "{:?}", second.problem());
    assert_eq!(site.anchor.standing(), anchored);
    append(&first).await.unwrap();

    // Not even if its own last place came back does it go on by itself; a restart says what it is.
    let went_on = site.anchor.standing();
    site.anchor.replace(site.anchor.puts().first().cloned());
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(matches!(append(&second).await, Err(StoreError::Anchor(_))));
    site.anchor.replace(went_on);
    drop(second);
    assert_eq!(copy.refused().0, Refusal::Fork);
    append(&first).await.unwrap();
}

#[tokio::test]
async fn an_anchor_that_is_restored_under_the_running_daemon_stops_it() {
    for wiped in [false, true] {
        let site = Site::begun();
        let store = site.open();
        let old = site.anchor.standing().filter(|_| !wiped);
        append(&store).await.unwrap();
        site.anchor.replace(old);
        assert!(matches!(append(&store).await, Err(StoreError::Unanchored(_))));
        assert!(matches!(append(&store).await, Err(StoreError::Anchor(_))));
    }
}
