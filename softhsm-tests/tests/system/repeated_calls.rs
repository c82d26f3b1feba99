//! Calls that come twice: the same body starts nothing again, another body is a conflict.

use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::stream::attach;
use casemate_softhsm_tests::{Key, LyingCoordinator, Proposal, TestLab};
use casemate_wire::Code;
use casemate_wire::api::{SessionStatus, SessionView};
use serde_json::{Value, json};

const SIGN: &str = "signing/participate";

fn bodies(coordinator: &LyingCoordinator, proposal: &Proposal) -> Vec<Value> {
    proposal.invitations.iter().map(|invitation| coordinator.convener.body(invitation)).collect()
}

/// A session that both parties have accepted, with the bodies that they were sent.
async fn accepted(coordinator: &LyingCoordinator, key: &Key) -> (Proposal, Vec<Value>) {
    let proposal = coordinator.convener.sign(key, &[0, 1], &Transfer::allowed(0));
    let bodies = bodies(coordinator, &proposal);
    for (client, body) in coordinator.appliances.iter().zip(&bodies) {
        assert_eq!(client.post(SIGN, body).await.value()["status"], "accepted");
    }
    (proposal, bodies)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_body_is_answered_with_the_present_state_and_another_is_a_conflict() {
    let (mut lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let (proposal, bodies) = accepted(&coordinator, &key).await;
    let client = &coordinator.appliances[0];
    let size = lab.audit_size(0);
    for _ in 0..3 {
        assert_eq!(client.post(SIGN, &bodies[0]).await.value()["status"], "accepted");
    }
    assert_eq!(lab.audit_size(0), size, "a repeated call starts nothing");

    let ends = coordinator.relay(&proposal, casemate_softhsm_tests::relay::pass).await;
    let signature = ends[0].signature();
    let settled = lab.audit_size(0);
    for restarted in [false, true] {
        if restarted {
            lab.stop(0);
            lab.start(0).await;
        }
        let size = lab.audit_size(0);
        let answer = client.post(SIGN, &bodies[0]).await;
        assert_eq!((answer.status, &answer.value()["status"]), (202, &json!("completed")));
        let sync: SessionView = client.post("signing/participate-sync", &bodies[0]).await.json();
        assert_eq!((sync.status, sync.signature), (SessionStatus::Completed, Some(signature)));
        assert_eq!(sync, coordinator.view(0, &proposal.session).await);
        conflicts(&coordinator, &key, &bodies[0]).await;
        assert_eq!(lab.audit_size(0), size, "neither repeats nor conflicts change anything");
    }
    assert!(lab.audit_size(0) > settled, "the restart itself is recorded");
}

/// The session's id with anything else in the body.
async fn conflicts(coordinator: &LyingCoordinator, key: &Key, body: &Value) {
    let other = Transfer::allowed(1);
    let fresh = coordinator.convener.sign(key, &[0, 1], &Transfer::allowed(0));
    let fresh = fresh.telling(0, |invitation| {
        invitation.claims.session_id = serde_json::from_value(body["session_id"].clone()).unwrap();
        invitation.body["session_id"] = body["session_id"].clone();
    });
    let cases = [
        ("another hash", json!({"message_hash": other.hash()})),
        ("another intent", json!({"intent": other.intent()})),
        ("no intent", json!({"intent": null})),
        ("a new token", json!({"join_token": coordinator.convener.body(&fresh.invitations[0])["join_token"]})),
        ("a derivation path", json!({"derivation_path": "m/1"})),
        ("another party", json!({"party_id": "party-2"})),
    ];
    let client = &coordinator.appliances[0];
    for (case, change) in cases {
        let mut changed = body.clone();
        for (field, value) in change.as_object().unwrap() {
            changed[field] = value.clone();
        }
        let problem = client.post(SIGN, &changed).await.problem();
        assert_eq!(problem.code, Code::SessionConflict, "{case}: {problem}");
    }
    let keygen = json!({
        "session_id": body["session_id"], "party_id": body["party_id"], "join_token": body["join_token"],
        "share_type": "wallet",
    });
    let problem = client.post("keygen/participate", &keygen).await.problem();
    assert_eq!(problem.code, Code::SessionConflict, "another kind of session: {problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_request_gets_the_same_problem_again() {
    let (mut lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::over_the_limit(0));
    let body = bodies(&coordinator, &proposal).swap_remove(0);
    let client = &coordinator.appliances[0];
    let first = client.post(SIGN, &body).await.problem();
    assert_eq!(first.code, Code::PolicyDenied);
    let size = lab.audit_size(0);
    assert_eq!(client.post(SIGN, &body).await.problem(), first);
    assert_eq!(client.post("signing/participate-sync", &body).await.problem(), first);
    assert_eq!(lab.audit_size(0), size, "it is refused once");
    lab.kill(0);
    lab.start(0).await;
    assert_eq!(client.post(SIGN, &body).await.problem(), first);
    let view = coordinator.view(0, &proposal.session).await;
    assert_eq!((view.status, view.error), (SessionStatus::Failed, Some(first)));
    let attached = attach(client, &proposal.session).await.err().unwrap();
    assert_eq!(attached.problem().code, Code::SessionExpired, "{attached}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_call_many_times_at_once_begins_one_session() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0));
    let bodies = bodies(&coordinator, &proposal);
    let (sessions, size) = (lab.sessions(0), lab.audit_size(0));
    let calls = (0..16).map(|_| coordinator.appliances[0].post(SIGN, &bodies[0]));
    let answers = futures::future::join_all(calls).await;
    assert!(answers.iter().any(|answer| answer.status == 202));
    for answer in answers.iter().filter(|answer| answer.status != 202) {
        let code = answer.problem().code;
        assert!(matches!(code, Code::Overloaded), "{answer}");
    }
    assert_eq!((lab.sessions(0), lab.audit_size(0)), (sessions + 1, size + 1));
    assert_eq!(coordinator.appliances[1].post(SIGN, &bodies[1]).await.status, 202);
    coordinator.relay(&proposal, casemate_softhsm_tests::relay::pass).await[0].signature();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synchronous_call_answers_when_the_session_has_ended() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let proposal = coordinator.convener.sign(&key, &[1, 2], &Transfer::allowed(0));
    let bodies = bodies(&coordinator, &proposal);
    let waiting = coordinator.appliances[1].post("signing/participate-sync", &bodies[0]);
    let working = async {
        assert_eq!(coordinator.appliances[2].post(SIGN, &bodies[1]).await.status, 202);
        // The stream can be attached once the waiting call has been accepted.
        while coordinator.appliances[1].get(&format!("sessions/{}", proposal.session)).await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        coordinator.relay(&proposal, casemate_softhsm_tests::relay::pass).await
    };
    let (answer, ends) = tokio::join!(waiting, working);
    let view: SessionView = answer.json();
    assert_eq!(answer.status, 200);
    assert_eq!((view.status, view.signature), (SessionStatus::Completed, Some(ends[0].signature())));
}
