//! What the audit log holds after real sessions, and that the offline verifier notices whatever is done to it.

use std::fs;
use std::path::{Path, PathBuf};

use casemate_attest::{Effect, Leaf, Phase, Verdict};
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::{Key, LyingCoordinator, TestLab};
use serde_json::Value;

use crate::receipts::audit_key;

/// Runs `casemate audit verify` on a data folder or a file: the exit code and the report.
fn verify(lab: &TestLab, path: &Path, more: &[&str]) -> (i32, Value) {
    let mut arguments = vec!["audit", "verify", "--format", "json", path.to_str().unwrap()];
    arguments.extend(more);
    let done = lab.program(0, "casemate", &arguments);
    let report = serde_json::from_slice(&done.stdout).unwrap_or(Value::Null);
    (done.status.code().unwrap(), report)
}

/// One signature by party-1 and party-2, one refusal by both.
async fn busy(lab: &TestLab, key: &Key) -> LyingCoordinator {
    let coordinator = lab.lying_coordinator();
    let signed = coordinator.convener.sign(key, &[0, 1], &Transfer::allowed(0));
    coordinator.run_honestly(&signed).await[0].signature();
    let refused = coordinator.convener.sign(key, &[0, 1], &Transfer::over_the_limit(1));
    for answer in coordinator.ask(&refused).await {
        answer.problem();
    }
    coordinator
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn intents_outcomes_and_refusals_stand_in_the_log_with_what_was_decided() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let (allowed, over) = (Transfer::allowed(0), Transfer::over_the_limit(1));
    let signed = coordinator.convener.sign(&key, &[0, 1], &allowed);
    let signature = coordinator.run_honestly(&signed).await[0].signature();
    let refused = coordinator.convener.sign(&key, &[0, 1], &over);
    let request_ids: Vec<String> = coordinator
        .ask(&refused)
        .await
        .iter()
        .map(|answer| answer.headers["x-request-id"].to_str().unwrap().to_owned())
        .collect();
    for (party, request_id) in [0, 1].into_iter().zip(&request_ids) {
        let (leaves, report) = lab.audit(party);
        assert_eq!((leaves[0].phase, leaves[0].seq), (Phase::Genesis, 0));
        assert!(leaves.iter().any(|leaf| leaf.phase == Phase::Boot));
        assert!(report.open_intents.is_empty());
        let of = |phase: Phase, session: &casemate_wire::SessionId| -> Leaf {
            let mut found = leaves.iter().filter(|leaf| leaf.phase == phase && leaf.session.as_ref() == Some(session));
            let leaf = found.next().unwrap_or_else(|| panic!("party {party} has no {phase:?} of {session}"));
            assert!(found.next().is_none(), "{phase:?} of {session} stands twice");
            leaf.clone()
        };
        let intent = of(Phase::Intent, &signed.session);
        assert_eq!(intent.key, Some(key.public_key()));
        assert_eq!(intent.actor.as_ref().unwrap().as_str(), "coordinator");
        let decision = intent.decision.as_ref().unwrap();
        assert_eq!((decision.effect, decision.bundle.is_some()), (Effect::Allow, true));
        assert_eq!(decision.policies.iter().map(casemate_attest::Text::as_str).collect::<Vec<_>>(), ["sign-transfers"]);
        let tx = intent.tx.as_ref().unwrap();
        assert_eq!(tx.digest, allowed.hash());
        let decoded = lab.detail(party, &intent).decoded.unwrap();
        let effect = &decoded["effects"][0];
        assert_eq!((&effect["kind"], &effect["amount"]), (&"native_transfer".into(), &"100000000000000000".into()));

        let outcome = of(Phase::Outcome, &signed.session);
        assert!(outcome.seq > intent.seq);
        let ended = outcome.outcome.as_ref().unwrap();
        assert_eq!((ended.result, ended.signature), (Verdict::Completed, Some(signature)));
        let witnessed: Vec<&str> = outcome.peers.iter().map(|peer| peer.party.as_str()).collect();
        assert_eq!(witnessed, [lab.parties[1 - party].party_id.as_str()], "the peer's log head is kept");
        let (peers_leaves, _) = lab.audit(1 - party);
        let kept = &outcome.peers[0];
        let size = usize::try_from(kept.size).unwrap();
        let tree = root_of(&lab.lines(1 - party)[..size]);
        assert!(size <= peers_leaves.len());
        assert_eq!(tree, kept.root, "it is the root that the peer had");

        let refusal = of(Phase::Refusal, &refused.session);
        assert_eq!(refusal.req.as_ref().unwrap().as_str(), request_id, "it is found by the answer's request id");
        assert_eq!(refusal.outcome.as_ref().unwrap().result, Verdict::Refused);
        assert_eq!(refusal.tx.as_ref().unwrap().digest, over.hash());
    }
    let (leaves, _) = lab.audit(2);
    assert!(leaves.iter().all(|leaf| leaf.session.as_ref() != Some(&signed.session)), "party-3 was not asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_offline_verifier_passes_every_real_log_and_no_altered_one() {
    let (mut lab, key) = TestLab::keyed().await;
    let coordinator = busy(&lab, &key).await;
    for party in 0..3 {
        let (code, report) = verify(&lab, &lab.parties[party].data_dir, &[]);
        assert_eq!((code, &report["valid"]), (0, &true.into()), "while it runs: {report}");
    }
    drop(coordinator);
    lab.stop_all();

    let data_dir = lab.parties[0].data_dir.clone();
    let folder = export(&lab, 0);
    let (code, report) = verify(&lab, &folder, &[]);
    assert_eq!((code, &report), (0, &verify(&lab, &data_dir, &[]).1), "{report}");
    let (file, note, audit_key) = (folder.join("log.jsonl"), folder.join("checkpoint"), audit_key(&lab, 0));
    let known = ["--checkpoint", note.to_str().unwrap(), "--audit-key", &audit_key];
    let (code, report) = verify(&lab, &file, &known);
    assert_eq!(
        (code, &report["report"]["checkpointed"]),
        (0, &report["report"]["size"]),
        "signed at the stop: {report}"
    );

    let text = fs::read(&file).unwrap();
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let altered = lab.root.join("altered.jsonl");
    let is_refused = |what: &str, bytes: &[u8], more: &[&str]| {
        fs::write(&altered, bytes).unwrap();
        let (code, report) = verify(&lab, &altered, more);
        assert_eq!(code, 1, "{what} went unnoticed: {report}");
        assert_eq!(report["valid"], false, "{what}");
        assert!(!report["fault"].as_str().unwrap().is_empty(), "{what}");
    };
    // One byte at a time, all through the file; the end of each line is left to the cases below.
    let step = (text.len() / 60).max(1);
    for place in (0..text.len()).step_by(step).filter(|place| text[*place] != b'\n') {
        let mut bytes = text.clone();
        bytes[place] ^= 1;
        is_refused(&format!("a flipped bit at byte {place}"), &bytes, &known);
    }
    let middle = lines.len() / 2;
    let without = [lines[..middle].concat(), lines[middle + 1..].concat()].concat();
    is_refused("a missing line", &without, &[]);
    let mut swapped = lines.clone();
    swapped.swap(middle, middle + 1);
    is_refused("two lines in the wrong order", &swapped.concat(), &[]);
    let mut repeated = lines.clone();
    repeated.insert(middle, lines[middle]);
    is_refused("a line twice", &repeated.concat(), &[]);
    is_refused("a missing beginning", &lines[1..].concat(), &[]);
    is_refused("a missing end, against a known head", &lines[..lines.len() - 1].concat(), &known);
    is_refused("something after the end", &[text.clone(), b"{}\n".to_vec()].concat(), &[]);
    is_refused("nothing at all", b"", &[]);

    let (code, _) = verify(&lab, Path::new("/nowhere"), &[]);
    assert_eq!(code, 2, "what cannot be read is neither valid nor invalid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_pin_and_no_token_is_logged() {
    let (mut lab, key) = TestLab::keyed().await;
    let coordinator = busy(&lab, &key).await;
    let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(5));
    let body = coordinator.convener.body(&proposal.invitations[0]);
    assert_eq!(coordinator.appliances[0].post("signing/participate", &body).await.status, 202);
    lab.stop_all();
    let token = body["join_token"].as_str().unwrap();
    for party in 0..3 {
        let pin = fs::read_to_string(&lab.parties[party].pin_file).unwrap();
        let log = lab.log(party);
        let lines = serde_json::to_string(&lab.audit(party).0).unwrap();
        assert!(log.contains("event=\"started\""));
        for text in [&log, &lines] {
            assert!(!text.contains(pin.trim()), "party {party} tells its PIN");
            assert!(!text.contains(token), "party {party} tells a token that was good");
        }
    }
}

/// Exports a party's log into a folder.
fn export(lab: &TestLab, party: usize) -> PathBuf {
    let folder = lab.root.join(format!("export-{party}"));
    let data_dir = lab.parties[party].data_dir.to_str().unwrap();
    let done = lab.program(party, "casemate", &["audit", "export", data_dir, "--output", folder.to_str().unwrap()]);
    assert!(done.status.success(), "{done:?}");
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_logs_of_all_parties_reconcile_with_what_they_signed() {
    let (mut lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let transfer = Transfer::allowed(0);
    let signed = coordinator.convener.sign(&key, &[0, 1], &transfer);
    let signature = coordinator.run_honestly(&signed).await[0].signature();
    drop(coordinator);
    lab.stop_all();
    let parties: Vec<String> = (0..3)
        .map(|party| {
            let (folder, key) = (export(&lab, party), audit_key(&lab, party));
            format!("{}={key}={}", lab.parties[party].party_id, folder.display())
        })
        .collect();
    let list = lab.root.join("signatures.jsonl");
    let reconcile = |message_hash: &casemate_wire::Digest32| {
        let entry =
            serde_json::json!({"public_key": key.public_key(), "message_hash": message_hash, "signature": signature});
        fs::write(&list, format!("{entry}\n")).unwrap();
        let mut arguments = vec!["audit", "reconcile", "--json", "--signature", list.to_str().unwrap()];
        for party in &parties {
            arguments.extend(["--party", party]);
        }
        let done = lab.program(0, "casemate", &arguments);
        let found: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"));
        (done.status.code().unwrap(), found)
    };
    let (code, found) = reconcile(&transfer.hash());
    assert_eq!((code, &found["verdict"]), (0, &"reconciled".into()), "{found}");
    let justified = &found["findings"]["signatures"][0];
    assert_eq!((&justified["needed"], justified["decisions"].as_array().unwrap().len()), (&2.into(), 2), "{found}");
    assert!(found["findings"]["checkpoints_found"].as_u64().unwrap() > 0, "{found}");
    assert_eq!(reconcile(&Transfer::allowed(1).hash()).0, 1, "a signature over something else");
}

/// The root of a log of these lines.
fn root_of(lines: &[String]) -> casemate_wire::Digest32 {
    let mut tree = casemate_attest::tree::Frontier::default();
    for line in lines {
        tree.push(casemate_attest::line::leaf_hash(line.as_bytes()));
    }
    tree.root()
}
