//! Sessions in which a party refuses, lies, stalls or breaks.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use casemate_wire::{Code, Problem};
use serde_json::json;

use crate::support::appliance::Behaviour;
use crate::support::{Lab, Setup, keygen_body};

const KEYGEN: &str = "/api/v1/mpc/keygen";
const HASH: &str = "0707070707070707070707070707070707070707070707070707070707070707";

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_by_policy_is_passed_on_whole_and_ends_the_others_streams() {
    let lab = Lab::new(Setup::default()).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    let denial = Problem::new(Code::PolicyDenied, "denied by limit-per-day")
        .with("policies", vec!["limit-per-day"])
        .with("observed", json!({"value": "11"}))
        .with("permitted", json!({"value": "10"}))
        .with("receipt", json!({"receipt": "{\"domain\":\"casemate/refusal/v1\"}", "signature": "00"}));
    let receipt = denial.more["receipt"].clone();
    lab.appliances[2].behave(Behaviour::Refuse(denial));
    let answer = coordinator.sign(&key["account_id"], HASH, &[0, 2]).await;
    assert_eq!((answer.status, &answer.body["status"]), (201, &"failed".into()));
    let error = &answer.body["error"];
    assert_eq!((&error["code"], &error["status"]), (&"policy_denied".into(), &403.into()));
    assert_eq!(error["policies"], json!(["limit-per-day"]));
    assert_eq!((&error["observed"], &error["permitted"]), (&json!({"value": "11"}), &json!({"value": "10"})));
    assert_eq!((&error["party"], &error["reported_by"]), (&"party-2".into(), &"party-2".into()));
    assert_eq!(error["receipt"], receipt, "its text must stay as it was signed");
    let session = answer.body["session_id"].as_str().unwrap();
    let kept = coordinator.caller.get(&format!("/api/v1/mpc/sessions/{session}")).await;
    assert_eq!(kept.body["error"]["receipt"], receipt, "{}", kept.body);
    assert!(answer.body.get("signature").is_none());
    let begun = Instant::now();
    while !lab.appliances[0].seen(&answer.body["session_id"]).ended {
        assert!(begun.elapsed() < Duration::from_secs(2), "party-0's stream was left open");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_failure_is_reported_and_not_its_echoes() {
    let lab = Lab::new(Setup::default()).await;
    let coordinator = lab.start().await;
    let fault = Problem::new(Code::PeerFault, "party-0 sent garbage in round 2").with("party", "party-0");
    lab.appliances[1].behave(Behaviour::Fail(fault.clone()));
    let answer = coordinator.caller.waiting(KEYGEN, &keygen_body(2, 3)).await.body;
    assert_eq!((&answer["status"], &answer["error"]["code"]), (&"failed".into(), &"peer_fault".into()));
    // The peer that is blamed stays named.
    assert_eq!((&answer["error"]["party"], &answer["error"]["reported_by"]), (&"party-0".into(), &"party-1".into()));
    assert!(answer.get("account_id").is_none());
    let key = coordinator.key().await;
    lab.appliances[1].behave(Behaviour::Fail(fault));
    let begun = Instant::now();
    let answer = coordinator.sign(&key["account_id"], HASH, &[0, 1]).await.body;
    assert_eq!(answer["error"]["code"], "peer_fault");
    assert!(begun.elapsed() < Duration::from_secs(2), "the others were not told at once");
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_about_the_result_is_never_passed_on() {
    let lab = Lab::new(Setup::default()).await;
    let coordinator = lab.start().await;
    lab.appliances[1].behave(Behaviour::Lie);
    let answer = coordinator.caller.waiting(KEYGEN, &keygen_body(2, 3)).await.body;
    assert_eq!(answer["error"]["code"], "protocol_aborted", "{answer}");
    assert!(answer.get("public_key").is_none() && answer.get("address").is_none());
    assert_eq!(coordinator.caller.get("/api/v1/accounts").await.body["total"], 0);
    let key = coordinator.key().await;
    lab.appliances[0].behave(Behaviour::Lie);
    lab.appliances[1].behave(Behaviour::Lie);
    let answer = coordinator.sign(&key["account_id"], HASH, &[0, 1]).await.body;
    assert_eq!(answer["error"]["code"], "peer_fault");
    assert!(answer.get("signature").is_none() && answer.get("r").is_none());
    // One liar hides no signature that exists.
    lab.appliances[1].behave(Behaviour::Lie);
    let answer = coordinator.sign(&key["account_id"], HASH, &[0, 1]).await.body;
    assert_eq!(answer["status"], "completed", "{answer}");
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_break_the_rules_end_their_session_and_name_the_party() {
    let lab = Lab::new(Setup::default()).await;
    let coordinator = lab.start().await;
    for (behaviour, code) in [
        (Behaviour::Oversize, "peer_fault"),
        (Behaviour::Impersonate, "peer_fault"),
        (Behaviour::Vanish, "transport_fault"),
    ] {
        lab.appliances[2].behave(behaviour.clone());
        let answer = coordinator.caller.waiting(KEYGEN, &keygen_body(2, 3)).await.body;
        assert_eq!(answer["status"], "failed", "{behaviour:?}");
        assert_eq!(
            (&answer["error"]["code"], &answer["error"]["party"]),
            (&code.into(), &"party-2".into()),
            "{behaviour:?}: {answer}"
        );
    }
    // And none of this has harmed anyone else.
    coordinator.key().await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_that_takes_nothing_harms_only_its_own_session() {
    let limits = format!("queue = {}", 4 * 1024 * 1024);
    let lab = Lab::new(Setup { limits, ..Setup::default() }).await;
    let coordinator = lab.start().await;
    lab.appliances[0].behave(Behaviour::Flood(40));
    lab.appliances[1].behave(Behaviour::Silent);
    lab.appliances[2].behave(Behaviour::Stall);
    let stuck = coordinator.caller.post(KEYGEN, &keygen_body(2, 3)).await.body;
    coordinator
        .caller
        .session(&stuck["session_id"], |session| session["status"] != "created" && session["status"] != "waiting")
        .await;
    let begun = Instant::now();
    coordinator.key().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    let failed = coordinator.caller.session(&stuck["session_id"], |session| session["status"] == "failed").await;
    assert_eq!((&failed["error"]["code"], &failed["error"]["party"]), (&"transport_fault".into(), &"party-2".into()));
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_appliance_that_is_down_is_named_and_found_again_when_it_is_back() {
    let mut lab = Lab::new(Setup { down: vec![1], ..Setup::default() }).await;
    let coordinator = lab.start().await;
    let begun = Instant::now();
    let answer = coordinator.caller.waiting(KEYGEN, &keygen_body(2, 3)).await.body;
    let error = &answer["error"];
    assert_eq!((&error["code"], &error["party"]), (&"party_unreachable".into(), &"party-1".into()), "{answer}");
    let url = format!("https://{}", lab.appliances[1].address.unwrap());
    assert_eq!(error["url"], url);
    assert!(error["detail"].as_str().unwrap().contains("refused"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    let health = coordinator.caller.get("/health").await;
    assert_eq!((health.status, &health.body["status"]), (200, &"degraded".into()));
    assert!(health.body["checks"]["appliances"]["detail"].as_str().unwrap().contains("party-1"));

    lab.appliances[1].serve_again().await;
    let key = coordinator.key().await;
    assert_eq!(coordinator.caller.get("/health").await.body["status"], "ok");

    // Again, now in the middle of a session.
    lab.appliances[0].behave(Behaviour::Silent);
    let answer = coordinator.caller.post(KEYGEN, &keygen_body(2, 3)).await.body;
    coordinator.caller.session(&answer["session_id"], |session| session["status"] == "in_progress").await;
    lab.appliances[0].crash().await;
    let failed = coordinator.caller.session(&answer["session_id"], |session| session["status"] == "failed").await;
    assert_eq!((&failed["error"]["code"], &failed["error"]["party"]), (&"party_unreachable".into(), &"party-0".into()));
    lab.appliances[0].serve_again().await;
    let answer = coordinator.sign(&key["account_id"], HASH, &[0, 1]).await.body;
    assert_eq!(answer["status"], "completed", "{answer}");
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_more_parties_than_needed_the_first_healthy_ones_sign() {
    let mut lab = Lab::new(Setup { appliances: 4, ..Setup::default() }).await;
    let coordinator = lab.start().await;
    let answer = coordinator.caller.waiting(KEYGEN, &keygen_body(2, 4)).await.body;
    let account = &answer["account_id"];
    let signers = |answer: &serde_json::Value| -> Vec<String> {
        let participants = answer["participants"].as_array().unwrap().iter();
        participants.map(|p| p["party_id"].as_str().unwrap().to_owned()).collect()
    };
    let answer = coordinator.sign(account, HASH, &[3, 1, 0]).await.body;
    assert_eq!((&answer["status"], signers(&answer)), (&"completed".into(), vec!["party-1".into(), "party-3".into()]));
    lab.appliances[1].inside.healthy.store(false, Ordering::SeqCst);
    lab.appliances[3].crash().await;
    let answer = coordinator.sign(account, HASH, &[3, 1, 0, 2]).await.body;
    assert_eq!((&answer["status"], signers(&answer)), (&"completed".into(), vec!["party-0".into(), "party-2".into()]));
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_appliance_with_a_certificate_of_another_ca_is_not_talked_to() {
    let lab = Lab::new(Setup { strangers: vec![2], ..Setup::default() }).await;
    let coordinator = lab.start().await;
    let answer = coordinator.caller.waiting(KEYGEN, &keygen_body(2, 3)).await.body;
    let error = &answer["error"];
    assert_eq!((&error["code"], &error["party"]), (&"party_unreachable".into(), &"party-2".into()), "{answer}");
    assert!(error["detail"].as_str().unwrap().contains("certificate"), "{error}");
    assert!(lab.appliances[2].inside.requests.lock().unwrap().is_empty());
    coordinator.stop().await;
}
