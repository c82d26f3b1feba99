//! `casemate session`: what an operator sees of sessions, on the host and from elsewhere.

use casemate_appliance::clients::Role;
use casemate_softhsm_tests::TestLab;
use casemate_softhsm_tests::convene::new_session;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_wire::Code;
use serde_json::{Value, json};

use super::backups::{call, casemate, text};

/// `casemate session …` as JSON; its exit code, result and complaint.
fn session(lab: &TestLab, words: &[&str], place: &[&str]) -> (i32, Value, String) {
    let (code, out, why) = casemate(lab, &[&["session"], words, place, &["--format", "json"]].concat());
    (code, serde_json::from_slice(&out).unwrap_or_default(), why)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_what_was_asked_by_whom_and_how_it_ended() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let signed = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0));
    let signature = coordinator.run_honestly(&signed).await[0].signature();
    let refused = coordinator.convener.sign(&key, &[0, 1], &Transfer::over_the_limit(1));
    assert_eq!(coordinator.ask(&refused).await[0].problem().code, Code::PolicyDenied);
    let here = ["--config", text(&lab.parties[0].config)];

    let (code, listed, why) = session(&lab, &["list"], &here);
    assert_eq!((code, &listed["total"]), (0, &json!(3)), "{why}");
    let [no, yes, keygen] = listed["sessions"].as_array().unwrap().as_slice() else { panic!("{listed}") };
    assert_eq!((&no["session_id"], &no["status"]), (&json!(refused.session), &json!("failed")), "{listed}");
    assert_eq!(
        (&no["refused"], &no["error"]["code"], &no["intent"]),
        (&json!(true), &json!("policy_denied"), &json!(null))
    );
    assert_eq!((&yes["session_id"], &yes["asked_by"]), (&json!(signed.session), &json!("coordinator")), "{listed}");
    assert_eq!((&yes["public_key"], &yes["signature"]), (&json!(key.public_key()), &json!(signature)));
    assert_eq!((&keygen["session_type"], &keygen["status"]), (&json!("keygen"), &json!("completed")), "{listed}");
    let intent = yes["intent"].as_u64().unwrap();
    let (leaves, _) = lab.audit(0);
    let named = leaves.iter().find(|leaf| leaf.seq == intent).unwrap();
    assert_eq!(named.session.as_ref(), Some(&signed.session));
    assert!(lab.log(0).contains(no["request"].as_str().unwrap()), "the daemon's log names the request");

    let (_, failed, _) = session(&lab, &["list", "--status", "failed"], &here);
    assert_eq!((&failed["total"], &failed["sessions"]), (&json!(1), &json!([no])));
    let (_, last, _) = session(&lab, &["list", "--limit", "1"], &here);
    assert_eq!((&last["total"], &last["sessions"]), (&json!(3), &json!([no])));
    let told = casemate(&lab, &[&["session", "list"], &here[..]].concat()).1;
    let told = String::from_utf8(told).unwrap();
    for part in ["refused, policy_denied: ", "for          keygen", "asked by     coordinator", "3 of 3 sessions"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_session_is_shown_alike_on_the_host_and_from_elsewhere() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0));
    let signature = coordinator.run_honestly(&proposal).await[0].signature();
    let (id, call) = (proposal.session.to_string(), call(&lab));
    let here = ["--config", text(&lab.parties[0].config)];
    let there: Vec<&str> = call.iter().map(String::as_str).collect();

    let (code, on_host, why) = session(&lab, &["show", &id], &here);
    assert_eq!((code, &on_host["session"]["signature"]), (0, &json!(signature)), "{why}");
    let (code, called, why) = session(&lab, &["show", &id], &there);
    assert_eq!(code, 0, "{why}");
    let seen: Value = lab.client(0, Role::Operator).read(&format!("sessions/{id}")).await;
    assert_eq!(called["session"], seen);
    assert!(called["session"]["asked_by"].is_null(), "a client is not told of the record: {called}");
    for (field, value) in called["session"].as_object().unwrap() {
        // Rounds are known only while it runs.
        assert!(field == "round" || on_host["session"][field] == *value, "{field}: {on_host}");
    }
    let told = String::from_utf8(casemate(&lab, &[&["session", "show", &id], &here[..]].concat()).1).unwrap();
    assert!(told.contains("state        completed") && told.contains(&hex::encode(signature.r)), "{told}");

    let stranger = new_session().to_string();
    let (code, _, why) = session(&lab, &["show", &stranger], &here);
    assert!(code == 2 && why.contains("there is no session") && why.contains("audit show"), "{why}");
    let (code, _, why) = session(&lab, &["show", &stranger], &there);
    assert!(code == 2 && why.contains("session_not_found"), "{why}");
    for bad in ["../policy", "a\nb", ""] {
        assert_eq!(session(&lab, &["show", bad], &there).0, 2, "{bad:?} is no session's id");
    }
    assert_eq!(session(&lab, &["show", &id], &[]).0, 2, "it must be said where");
}
