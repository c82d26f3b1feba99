//! More than an appliance can do at the moment: it says so, uses nothing up, and health still answers.

use std::time::{Duration, Instant};

use casemate_appliance::clients::Role;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{Answer, TestLab};
use casemate_wire::Code;
use casemate_wire::api::SessionStatus;
use serde_json::Value;
use tokio::net::TcpStream;

const SIGN: &str = "signing/participate";

fn passes(answer: &Answer, code: Code) {
    let problem = answer.problem();
    assert_eq!(problem.code, code, "{problem}");
    assert!(answer.headers.contains_key("retry-after"), "{:?}", answer.headers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_beyond_the_limit_are_told_to_come_back_and_may() {
    let mut lab = TestLab::new(Kind::Keyed).await;
    lab.configure_all("[limits]\nsessions = 3\nattach = 3\n");
    lab.start_appliances().await;
    let key = lab.key();
    let coordinator = lab.lying_coordinator();
    let client = &coordinator.appliances[0];
    let bodies: Vec<Value> = (0..6)
        .map(|nonce| {
            let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(nonce));
            coordinator.convener.body(&proposal.invitations[0])
        })
        .collect();
    for body in &bodies[..3] {
        assert_eq!(client.post(SIGN, body).await.status, 202);
    }
    let before = (lab.audit_size(0), lab.sessions(0));
    for body in &bodies[3..] {
        passes(&client.post(SIGN, body).await, Code::Overloaded);
    }
    assert_eq!((lab.audit_size(0), lab.sessions(0)), before, "what may succeed later leaves no trace");
    let health: Value = lab.client(0, Role::Monitor).read("health").await;
    assert_eq!(health["active_sessions"], 3);

    tokio::time::sleep(Duration::from_secs(4)).await;
    for body in &bodies[3..] {
        let answer = client.post(SIGN, body).await;
        assert_eq!(answer.status, 202, "neither token nor session were used up: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_primes_a_new_committee_is_told_to_come_back_and_may() {
    let mut lab = TestLab::new(Kind::Bare).await;
    lab.start(0).await;
    let coordinator = lab.lying_coordinator();
    let body = coordinator.convener.body(&coordinator.convener.keygen().invitations[0]);
    passes(&coordinator.appliances[0].post("keygen/participate", &body).await, Code::NotReady);
    let health: Value = lab.client(0, Role::Monitor).read("health").await;
    assert_eq!((&health["status"], &health["primes_ready"]), (&"ok".into(), &0.into()));
    lab.stop(0);
    lab.seed_primes(0, 1);
    lab.start(0).await;
    let answer = coordinator.appliances[0].post("keygen/participate", &body).await;
    assert_eq!(answer.status, 202, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_hold_connections_keep_nobody_out() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    coordinator.appliances[0].get("health").await;
    let mut strangers = Vec::new();
    for _ in 0..300 {
        strangers.push(TcpStream::connect(lab.parties[0].address).await.unwrap());
    }
    coordinator.run_honestly(&coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0))).await[0].signature();
    let begun = Instant::now();
    assert_eq!(lab.client(0, Role::Monitor).get("health").await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(40), "a new client waited {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_at_its_time_limit() {
    let mut lab = TestLab::new(Kind::Keyed).await;
    lab.configure_all("[limits]\nsession_ttl = 10\n");
    lab.start_appliances().await;
    let coordinator = lab.lying_coordinator();
    let key = lab.key();
    let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0));
    let begun = Instant::now();
    // Hellos pass, messages do not.
    let ends = coordinator.run(&proposal, |_, to, frame: casemate_wire::frame::Frame| match frame {
        hello @ casemate_wire::frame::Frame::Hello(_) => vec![(to, hello)],
        _ => Vec::new(),
    });
    for end in ends.await {
        assert_eq!(end.code(), Code::Timeout, "{}", end.problem());
        assert!(end.problem().detail.contains("session_ttl"), "{}", end.problem());
    }
    assert!((9..20).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    for view in coordinator.views(&proposal).await {
        assert_eq!(view.status, SessionStatus::Failed);
    }
}
