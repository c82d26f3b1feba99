//! What a key has spent within the last hour: counted with the intent, kept across restarts and crashes, released only
//! when nothing can have left.

use std::time::Duration;

use casemate_attest::Guard;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::policy::{hourly_limit, publish};
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{End, Key, LyingCoordinator, Proposal, TestLab};
use casemate_wire::frame::Frame;
use casemate_wire::{Code, Problem};

/// A lab in which an hour's limit is three small transfers with their fees, and no more.
async fn limited(section: &str) -> (TestLab, Key) {
    let mut lab = TestLab::new(Kind::Keyed).await;
    for party in &lab.parties {
        hourly_limit(&party.policy_dir, "0.35");
        publish(&lab.staff(), &party.policy_dir);
    }
    lab.configure_all(section);
    lab.start_appliances().await;
    let key = lab.key();
    (lab, key)
}

fn small(coordinator: &LyingCoordinator, key: &Key, nonce: u64) -> Proposal {
    coordinator.convener.sign(key, &[0, 1], &Transfer::allowed(nonce))
}

/// Asks party-1 alone.
async fn ask(coordinator: &LyingCoordinator, proposal: &Proposal) -> Result<(), Problem> {
    let body = coordinator.convener.body(&proposal.invitations[0]);
    let answer = coordinator.appliances[0].post(proposal.route(), &body).await;
    if answer.status == 202 { Ok(()) } else { Err(answer.problem()) }
}

fn over_the_limit(problem: &Problem) {
    assert_eq!(problem.code, Code::PolicyDenied, "{problem}");
    assert_eq!(problem.more["policies"], serde_json::json!(["hourly"]), "{problem}");
    assert!(problem.detail.contains("at most 0.35 ETH an hour"), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_signed_counts_after_a_restart_and_after_a_crash() {
    let (mut lab, key) = limited("").await;
    let coordinator = lab.lying_coordinator();
    let first = small(&coordinator, &key, 0);
    let made: Vec<_> = coordinator.run_honestly(&first).await.iter().map(End::signature).collect();
    assert_eq!(made[0], made[1]);
    ask(&coordinator, &small(&coordinator, &key, 1)).await.unwrap();
    ask(&coordinator, &small(&coordinator, &key, 2)).await.unwrap();
    over_the_limit(&ask(&coordinator, &small(&coordinator, &key, 3)).await.unwrap_err());
    lab.stop(0);
    lab.start(0).await;
    over_the_limit(&ask(&coordinator, &small(&coordinator, &key, 3)).await.unwrap_err());
    lab.kill(0);
    lab.start(0).await;
    over_the_limit(&ask(&coordinator, &small(&coordinator, &key, 3)).await.unwrap_err());
    // The same transaction again is the same spending.
    ask(&coordinator, &small(&coordinator, &key, 1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_call_counts_once() {
    let (lab, key) = limited("").await;
    let coordinator = lab.lying_coordinator();
    let body = coordinator.convener.body(&small(&coordinator, &key, 0).invitations[0]);
    for _ in 0..5 {
        assert_eq!(coordinator.appliances[0].post("signing/participate", &body).await.status, 202);
    }
    ask(&coordinator, &small(&coordinator, &key, 1)).await.unwrap();
    ask(&coordinator, &small(&coordinator, &key, 2)).await.unwrap();
    over_the_limit(&ask(&coordinator, &small(&coordinator, &key, 3)).await.unwrap_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_provably_never_left_is_released() {
    let (mut lab, key) = limited("[limits]\nattach = 2").await;
    let coordinator = lab.lying_coordinator();
    for nonce in 0..3 {
        ask(&coordinator, &small(&coordinator, &key, nonce)).await.unwrap();
    }
    over_the_limit(&ask(&coordinator, &small(&coordinator, &key, 3)).await.unwrap_err());
    // Nobody attaches a stream, so the sessions expire before a share is opened.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (leaves, _) = lab.audit(0);
    let released = leaves.iter().flat_map(|leaf| &leaf.guards).filter(|change| {
        change.guard == Guard::Spend && change.to.as_ref().is_some_and(|to| to.as_str() == "released")
    });
    assert_eq!(released.count(), 3);
    ask(&coordinator, &small(&coordinator, &key, 3)).await.unwrap();
    lab.stop(0);
    lab.start(0).await;
    ask(&coordinator, &small(&coordinator, &key, 4)).await.unwrap();
    ask(&coordinator, &small(&coordinator, &key, 5)).await.unwrap();
    over_the_limit(&ask(&coordinator, &small(&coordinator, &key, 6)).await.unwrap_err());
}

/// The phase of the signing protocol, in the high byte of a message's round.
const SIGN: u16 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_left_stays_counted_although_the_session_failed() {
    let (lab, key) = limited("").await;
    let coordinator = lab.lying_coordinator();
    for nonce in 0..3 {
        let proposal = small(&coordinator, &key, nonce);
        let ends = coordinator.run(&proposal, |_, to, frame| {
            let Frame::Message(mut message) = frame else { return vec![(to, frame)] };
            // From the first message of the protocol on: what comes before opens no share.
            message.signature[0] ^= u8::from(message.content.round >> 8 == SIGN);
            vec![(to, Frame::Message(message))]
        });
        assert_eq!(ends.await[0].code(), Code::TransportFault);
    }
    let (leaves, _) = lab.audit(0);
    let guards: Vec<_> =
        leaves.iter().flat_map(|leaf| &leaf.guards).filter(|change| change.guard == Guard::Spend).collect();
    assert!(
        guards.len() >= 3 && guards.iter().all(|change| change.to.as_ref().unwrap().as_str() != "released"),
        "{guards:?}"
    );
    over_the_limit(&ask(&coordinator, &small(&coordinator, &key, 3)).await.unwrap_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_requests_that_race_for_the_rest_of_a_limit_no_more_pass_than_fit() {
    let (lab, key) = limited("").await;
    let coordinator = lab.lying_coordinator();
    let proposals: Vec<Proposal> = (0..12).map(|nonce| small(&coordinator, &key, nonce)).collect();
    let answers = futures::future::join_all(proposals.iter().map(|proposal| ask(&coordinator, proposal))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3, "{answers:?}");
    answers.iter().filter_map(|answer| answer.as_ref().err()).for_each(over_the_limit);
}
