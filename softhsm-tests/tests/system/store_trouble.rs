//! A store that cannot be written: no leaf, no act; no outcome on record, no result.

use std::time::{Duration, Instant};

use casemate_appliance::clients::Role;
use casemate_softhsm_tests::TestLab;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_wire::Code;
use casemate_wire::envelope::To;
use casemate_wire::frame::Frame;
use rusqlite::Connection;
use serde_json::Value;

/// Keeps party-1's daemon from writing for as long as this lives.
struct Blocked(Connection);

impl Blocked {
    fn new(lab: &TestLab) -> Self {
        let store = Connection::open(lab.parties[0].data_dir.join("casemate.db")).unwrap();
        store.busy_timeout(Duration::from_secs(5)).unwrap();
        store.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self(store)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        self.0.execute_batch("ROLLBACK").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_recorded_is_not_begun() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0));
    let denied = coordinator.convener.sign(&key, &[0, 1], &Transfer::over_the_limit(0));
    let bodies = [&proposal, &denied].map(|proposal| coordinator.convener.body(&proposal.invitations[0]));
    let before = (lab.audit_size(0), lab.sessions(0));
    let blocked = Blocked::new(&lab);
    let begun = Instant::now();
    for body in &bodies {
        let answer = coordinator.appliances[0].post("signing/participate", body).await;
        assert_eq!(answer.problem().code, Code::AuditUnavailable, "{answer}");
        assert!(answer.headers.contains_key("retry-after"));
    }
    assert!(begun.elapsed() < Duration::from_secs(25), "it denies in bounded time: {:?}", begun.elapsed());
    let health = lab.client(0, Role::Monitor).get("health").await;
    let checks: Value = serde_json::from_slice(&health.body).unwrap();
    assert_eq!((health.status, &checks["status"]), (503, &"failing".into()), "{checks}");
    assert_eq!(checks["checks"]["audit"]["ok"], false, "{checks}");
    drop(blocked);
    assert_eq!((lab.audit_size(0), lab.sessions(0)), before);

    let refused = coordinator.appliances[0].post("signing/participate", &bodies[1]).await;
    assert_eq!(refused.problem().code, Code::PolicyDenied, "{refused}");
    coordinator.run_honestly(&proposal).await[0].signature();
    let health: Value = lab.client(0, Role::Monitor).read("health").await;
    assert_eq!(health["status"], "ok", "it is back by itself: {health}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_is_not_released_before_its_outcome_is_on_record() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0));
    let mut blocked = None;
    let waited = Duration::from_secs(4);
    let ends = coordinator.run(&proposal, |_, to, frame: Frame| {
        // From the first message for all in the protocol itself on, party-1 can write no more; after a while it can again.
        let message = matches!(&frame, Frame::Message(message) if message.content.to == To::All && message.content.round >> 8 > 1);
        if message && blocked.is_none() {
            let block = Blocked::new(&lab);
            blocked = Some(std::thread::spawn(move || {
                std::thread::sleep(waited);
                drop(block);
            }));
        }
        vec![(to, frame)]
    });
    let ends = ends.await;
    let (first, second) = (&ends[0], &ends[1]);
    assert_eq!(first.signature(), second.signature());
    assert!(first.after.as_millis() > 3500, "party-1 answered after {:?}", first.after);
    assert!(second.after < first.after, "party-2 did not have to wait");
    let (leaves, report) = lab.audit(0);
    assert!(report.open_intents.is_empty());
    let outcome = leaves.iter().rfind(|leaf| leaf.session.as_ref() == Some(&proposal.session)).unwrap();
    assert_eq!(outcome.outcome.as_ref().unwrap().signature, Some(first.signature()));
}
