//! Whoever is refused by policy gets a receipt that the HSM signed, and that an auditor checks without trusting anybody.

use std::fs;
use std::path::{Path, PathBuf};

use casemate_appliance::clients::Role;
use casemate_attest::Phase;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::{Answer, Key, LyingCoordinator, Proposal, TestLab};
use casemate_wire::{Code, Digest32, Problem};
use serde_json::{Value, json};

const SIGN: &str = "signing/participate";

/// What `casemate hsm status` says of a party's token.
fn hsm_status(lab: &TestLab, party: usize) -> Value {
    let config = lab.parties[party].config.to_str().unwrap();
    let done = lab.program(party, "casemate", &["hsm", "status", "--config", config, "--format", "json"]);
    serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"))
}

pub(crate) fn audit_key(lab: &TestLab, party: usize) -> String {
    hsm_status(lab, party)["audit"].as_str().unwrap().to_owned()
}

/// Asks one party.
async fn asked(coordinator: &LyingCoordinator, proposal: &Proposal, position: usize) -> Problem {
    let invitation = &proposal.invitations[position];
    let body = coordinator.convener.body(invitation);
    coordinator.appliances[invitation.party].post(proposal.route(), &body).await.problem()
}

async fn over_the_limit(coordinator: &LyingCoordinator, key: &Key, position: usize) -> Problem {
    let proposal = coordinator.convener.sign(key, &[0, 1], &Transfer::over_the_limit(1));
    asked(coordinator, &proposal, position).await
}

/// Runs `casemate audit verify-receipt` on an answer: the exit code, and what it printed.
fn verify(lab: &TestLab, answer: &Value, key: &str, log: Option<&Path>) -> (i32, Value) {
    let path = lab.root.join("receipt.json");
    fs::write(&path, answer.to_string()).unwrap();
    let mut arguments = vec!["audit", "verify-receipt", path.to_str().unwrap(), "--key", key, "--format", "json"];
    if let Some(log) = log {
        arguments.extend(["--log", log.to_str().unwrap()]);
    }
    let done = lab.program(0, "casemate", &arguments);
    (done.status.code().unwrap(), serde_json::from_slice(&done.stdout).unwrap_or(Value::Null))
}

fn exported(lab: &TestLab, party: usize) -> PathBuf {
    let folder = lab.root.join("export");
    let data_dir = lab.parties[party].data_dir.to_str().unwrap();
    let done = lab.program(party, "casemate", &["audit", "export", data_dir, "--output", folder.to_str().unwrap()]);
    assert!(done.status.success());
    folder.join("log.jsonl")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_by_policy_comes_with_a_receipt_that_an_auditor_can_check() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let pinned = audit_key(&lab, 0);
    let transfer = Transfer::over_the_limit(1);
    let proposal = coordinator.convener.sign(&key, &[0, 1], &transfer);
    let problem = asked(&coordinator, &proposal, 0).await;
    let answer = json!(problem);
    let (leaves, report) = lab.audit(0);
    let leaf = leaves.last().unwrap();
    assert_eq!(leaf.phase, Phase::Refusal);

    let log = exported(&lab, 0);
    let (code, said) = verify(&lab, &answer, &pinned, Some(&log));
    assert_eq!((code, &said["valid"]), (0, &json!(true)), "{said}");
    assert_eq!(said["log"], json!({"size": report.size, "head": report.head}));
    let receipt = &said["receipt"];
    assert_eq!((&receipt["party"], &receipt["code"]), (&json!("party-1"), &json!("policy_denied")));
    assert_eq!((&receipt["seq"], &receipt["leaf"]), (&json!(leaf.seq), &json!(report.head)));
    assert_eq!((&receipt["session"], &receipt["key"]), (&json!(proposal.session), &json!(key.public_key())));
    assert_eq!((&receipt["message_hash"], &receipt["policies"]), (&json!(transfer.hash()), &answer["policies"]));
    assert_eq!((&receipt["bundle"], &receipt["log"]), (&answer["bundle"], &json!(leaf.log)));
    assert_eq!(receipt["request"], json!(leaf.req));

    // Every form in which somebody may hold it, and of the key.
    let session: Value = lab.client(0, Role::Coordinator).read(&format!("sessions/{}", proposal.session)).await;
    for (form, kept) in [("by itself", &answer["receipt"]), ("the session", &session)] {
        assert_eq!(verify(&lab, kept, &pinned, None).0, 0, "{form}: {kept}");
    }
    let key_file = lab.root.join("audit.pub");
    fs::write(&key_file, format!("{pinned}\n")).unwrap();
    assert_eq!(verify(&lab, &answer, key_file.to_str().unwrap(), Some(&lab.parties[0].data_dir)).0, 0);
    let data_dir = lab.parties[1].data_dir.clone();

    // What does not hold.
    assert_eq!(verify(&lab, &answer, &audit_key(&lab, 1), None).0, 1, "another party's key");
    assert_eq!(verify(&lab, &answer, &lab.parties[0].identity.to_string(), None).0, 1, "its identity key");
    let mut altered = answer.clone();
    let text = altered["receipt"]["receipt"].as_str().unwrap().replace("policy_denied", "policy_allows");
    altered["receipt"]["receipt"] = text.into();
    assert_eq!(verify(&lab, &altered, &pinned, None).0, 1, "another text");
    altered["receipt"] = json!({"receipt": "{}"});
    assert_eq!(verify(&lab, &altered, &pinned, None).0, 1, "without a signature");
    let (code, said) = verify(&lab, &answer, &pinned, Some(&data_dir));
    assert_eq!(code, 1, "another party's log: {said}");
    let lines = fs::read_to_string(&log).unwrap();
    let cut = lab.root.join("cut.jsonl");
    let whole: Vec<&str> = lines.split_inclusive('\n').collect();
    fs::write(&cut, whole[..whole.len() - 1].concat()).unwrap();
    let (code, said) = verify(&lab, &answer, &pinned, Some(&cut));
    assert_eq!(code, 1, "a log without its end");
    assert!(said["why"].as_str().unwrap().contains("its end was cut off"), "{said}");
    fs::write(&cut, lines.replace("policy_denied", "policy_allows")).unwrap();
    assert_eq!(verify(&lab, &answer, &pinned, Some(&cut)).0, 1, "a rewritten log");

    // What cannot be looked at.
    assert_eq!(verify(&lab, &answer, "00ff", None).0, 2);
    assert_eq!(verify(&lab, &answer, &pinned, Some(Path::new("/nowhere"))).0, 2);
    assert_eq!(verify(&lab, &json!({"code": "policy_denied"}), &pinned, None).0, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_denial_has_a_receipt_and_no_other_refusal_has_one() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let pinned = audit_key(&lab, 0);
    let convener = &coordinator.convener;
    let blind = asked(&coordinator, &convener.sign_blindly(&key, &[0, 1], Digest32([9; 32])), 0).await;
    assert_eq!(blind.code, Code::BlindSigningDenied);
    let keygen = convener.keygen().telling_all(|invitation| {
        invitation.claims.threshold_t = 3;
    });
    let keygen = asked(&coordinator, &keygen, 0).await;
    assert_eq!(keygen.code, Code::PolicyDenied);
    for problem in [blind, keygen] {
        let (code, said) = verify(&lab, &json!(problem), &pinned, Some(&lab.parties[0].data_dir));
        assert_eq!((code, &said["receipt"]["code"]), (0, &json!(problem.code)), "{problem}: {said}");
    }
    let mut invitation = convener.sign(&key, &[0, 1], &Transfer::over_the_limit(1)).invitations.swap_remove(0);
    invitation.claims.exp = invitation.claims.iat - 100;
    let expired = coordinator.appliances[0].post(SIGN, &convener.body(&invitation)).await.problem();
    let other = convener.sign(&key, &[0, 1], &Transfer::allowed(0));
    let other = other.telling(0, |invitation| invitation.body["intent"] = json!(Transfer::allowed(1).intent()));
    let mismatch = asked(&coordinator, &other, 0).await;
    assert_eq!((expired.code, mismatch.code), (Code::InvalidJoinToken, Code::IntentMismatch));
    for problem in [expired, mismatch] {
        let named = problem.more.keys().find(|name| name.contains("receipt"));
        assert_eq!(named, None, "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_calls_get_one_receipt_however_many_come_at_once() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::over_the_limit(1));
    let body = coordinator.convener.body(&proposal.invitations[0]);
    let size = lab.audit_size(0);
    let calls = (0..16).map(|_| coordinator.appliances[0].post(SIGN, &body));
    let answers: Vec<Problem> = futures::future::join_all(calls).await.iter().map(Answer::problem).collect();
    let first = &answers[0];
    assert!(first.more.contains_key("receipt"), "{first:?}");
    assert!(answers.iter().all(|answer| answer == first), "{answers:?}");
    assert_eq!(lab.audit_size(0), size + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_hsm_nothing_is_answered_as_refused_and_a_repeat_has_the_receipt_of_the_one_refusal() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let pinned = audit_key(&lab, 0);
    let (here, away) = (lab.parties[0].folder.join("tokens"), lab.parties[0].folder.join("away"));
    let mut asked = None;
    // The daemon may notice by itself that the token is gone; then it decides nothing, and it is tried again.
    for _ in 0..5 {
        let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::over_the_limit(1));
        let body = coordinator.convener.body(&proposal.invitations[0]);
        fs::rename(&here, &away).unwrap();
        fs::create_dir(&here).unwrap();
        let problem = coordinator.appliances[0].post(SIGN, &body).await.problem();
        fs::remove_dir_all(&here).unwrap();
        fs::rename(&away, &here).unwrap();
        if problem.code == Code::AuditUnavailable {
            asked = Some((body, proposal.session));
            break;
        }
        assert_eq!(problem.code, Code::HsmUnavailable);
        while over_the_limit(&coordinator, &key, 0).await.code == Code::HsmUnavailable {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
    let (body, session) = asked.expect("the daemon never came to record a refusal");
    let mut refused = coordinator.appliances[0].post(SIGN, &body).await.problem();
    for _ in 0..100 {
        if refused.more.contains_key("receipt") {
            break;
        }
        let passing = [Code::AuditUnavailable, Code::HsmUnavailable, Code::PolicyDenied];
        assert!(passing.contains(&refused.code), "{refused:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        refused = coordinator.appliances[0].post(SIGN, &body).await.problem();
    }
    assert_eq!(refused.code, Code::PolicyDenied, "{refused:?}");
    assert!(!refused.more.contains_key("unsigned_receipt"), "{refused:?}");
    assert_eq!(verify(&lab, &json!(refused), &pinned, Some(&lab.parties[0].data_dir)).0, 0);
    let size = lab.audit_size(0);
    assert_eq!(coordinator.appliances[0].post(SIGN, &body).await.problem(), refused);
    assert_eq!(lab.audit_size(0), size, "a repeated call writes no second refusal");
    let (leaves, _) = lab.audit(0);
    assert_eq!(leaves.iter().filter(|leaf| leaf.session.as_ref() == Some(&session)).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hsm_status_shows_the_anchor_and_the_audit_key_that_hosts_and_auditors_pin() {
    let lab = TestLab::new(casemate_softhsm_tests::template::Kind::Empty).await;
    let status = hsm_status(&lab, 0);
    let listed = status["keys"].as_array().unwrap().iter().find(|key| key["id"] == "audit").unwrap();
    assert_eq!(status["audit"], listed["public_key"]);
    assert_eq!(status["identity"], json!(lab.parties[0].identity));
    assert_ne!(status["audit"], status["identity"]);
    let config = lab.parties[0].config.to_str().unwrap();
    let shown = lab.program(0, "casemate", &["hsm", "status", "--config", config]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains(&format!("audit     {}", status["audit"].as_str().unwrap())), "{shown}");
    let (log, size) = (status["anchor"]["log"].as_str(), status["anchor"]["size"].as_u64());
    assert!(log.is_some_and(|log| log.contains("party-1")) && size.is_some_and(|size| size > 0), "{status}");
    assert!(shown.contains(&format!("\nanchor    {}: {} leaves", log.unwrap(), size.unwrap())), "{status} {shown}");
}
