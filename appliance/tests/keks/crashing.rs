//! The work is cut off after each row and each transaction, by the death of the process; run again, it ends well.

use std::process::Command;

use casemate_appliance::kek::{Plan, Rewrap};
use casemate_attest::Rewrap as Rewrapping;
use casemate_hsm::new_kek;

use crate::site::Site;
use crate::support::{Module, Store, on_fresh_store};

const CRASH_AT: &str = "CASEMATE_TEST_CRASH_AT";
const ROWS: usize = 7;
const BATCH: usize = 3;

#[test]
fn a_crash_after_any_row_or_transaction_loses_nothing_and_the_next_run_goes_on() {
    on_fresh_store(Module::SoftHsm, async |store| match std::env::var(CRASH_AT) {
        Ok(step) => die_at(&store, step.parse().unwrap()).await,
        Err(_) => every_crash(&store).await,
    });
}

async fn die_at(store: &Store, step: usize) {
    let site = Site::open(store.folder().join("data"), store.config("vault")).await;
    let plan = Plan::here(&site.hsm, &[]).unwrap();
    let mut seen = 0;
    let watch = |_| {
        seen += 1;
        if seen == step {
            std::process::abort();
        }
    };
    Rewrap::new(&site.store, &plan).in_batches_of(BATCH).run(watch).await.unwrap();
}

async fn every_crash(store: &Store) {
    let config = store.provisioned("vault");
    let site = Site::begin(store.folder(), config.clone()).await;
    for id in ["a", "b", "c", "d"] {
        site.add_share(id).await;
    }
    for _ in 4..ROWS {
        site.add_primes().await;
    }
    let mut folder = site.close().await;
    let steps = ROWS + ROWS.div_ceil(BATCH);
    let mut seen = 0;
    for (epoch, step) in (2..).zip(1..=steps) {
        new_kek(&config, epoch).unwrap();
        let this = "crashing::a_crash_after_any_row_or_transaction_loses_nothing_and_the_next_run_goes_on";
        let ended = Command::new(std::env::current_exe().unwrap())
            .args([this, "--exact", "--nocapture", "--test-threads=1"])
            .env(CRASH_AT, step.to_string())
            .output()
            .unwrap();
        assert!(!ended.status.success(), "step {step} was never reached");
        let site = Site::open(folder, config.clone()).await;
        site.all_open(&site.hsm).await;
        let current = format!("kek/{epoch}");
        let done = site.keks().await.iter().filter(|keks| **keks == [current.clone()]).count();
        // Whole transactions are durable, and nothing in between is.
        assert!(done.is_multiple_of(BATCH) || done == ROWS, "{done} rows after step {step}");
        seen = seen.max(done);
        let plan = Plan::here(&site.hsm, &[]).unwrap();
        let report = Rewrap::new(&site.store, &plan).in_batches_of(BATCH).run(|_| {}).await.unwrap();
        assert_eq!((report.current, report.renewed), (done as u64, (ROWS - done) as u64), "step {step}");
        site.all_open(&site.hsm).await;
        assert_eq!(site.keks().await, vec![vec![current]; ROWS]);
        told_of_both_runs(&site, report.current, report.renewed).await;
        folder = site.close().await;
    }
    assert_eq!(seen, ROWS, "no crash came after the last transaction");
}

/// The run that died was announced and has no end; the one after it has both leaves. An auditor finds the log good.
async fn told_of_both_runs(site: &Site, current: u64, renewed: u64) {
    let told = site.rewraps().await;
    let [.., (_, Rewrapping::Begun { .. }), (second, Rewrapping::Begun { .. }), (_, Rewrapping::Ended { begun, done })] =
        told.as_slice()
    else {
        panic!("{told:?}")
    };
    assert_eq!((begun, done.current, done.renewed, &done.stopped), (second, current, renewed, &None));
    assert_eq!(done.added.values().sum::<u64>(), renewed);
}
