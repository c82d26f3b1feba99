//! Older copies that are really put back: of the database, of the token's folder, of both. And a token that is away for a
//! while, in the middle of everything.

use std::fs;
use std::time::{Duration, Instant};

use casemate_appliance::clients::Role;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::template::{Kind, copy_folder};
use casemate_softhsm_tests::{Key, LyingCoordinator, TestLab};
use casemate_wire::Code;
use casemate_wire::api::{Page, ShareView};
use casemate_wire::envelope::To;
use casemate_wire::frame::Frame;
use serde_json::{Value, json};

/// Party-1's two places, each as it is now, in folders of this name.
fn keep(lab: &TestLab, name: &str) {
    let party = &lab.parties[0];
    copy_folder(&party.data_dir, &lab.root.join(name).join("data"));
    copy_folder(&party.folder.join("tokens"), &lab.root.join(name).join("tokens"));
}

/// Puts a kept copy back: `data`, `tokens`.
fn put_back(lab: &TestLab, name: &str, what: &str) {
    let place = lab.parties[0].folder.join(what);
    fs::remove_dir_all(&place).unwrap();
    copy_folder(&lab.root.join(name).join(what), &place);
}

async fn signs(coordinator: &LyingCoordinator, key: &Key, nonce: u64) {
    let proposal = coordinator.convener.sign(key, &[0, 1], &Transfer::allowed(nonce));
    coordinator.run_honestly(&proposal).await[0].signature();
}

/// Party-1 is in quarantine for this reason: it says so everywhere, does nothing, and answers what only reads.
async fn is_quarantined(lab: &mut TestLab, coordinator: &LyingCoordinator, key: &Key, verdict: &str) {
    let before = (lab.audit_size(0), lab.sessions(0));
    for _restart in 0..2 {
        lab.start_in_quarantine(0).await;
        let health = lab.client(0, Role::Monitor).get("health").await;
        let health: Value = serde_json::from_slice(&health.body).unwrap();
        assert_eq!(health["status"], "failing", "{health}");
        let audit = health["checks"]["audit"]["detail"].as_str().unwrap();
        for part in [verdict, "anchored: ", "found: ", "since 20", "docs/runbook.md"] {
            assert!(audit.contains(part), "{part:?} should stand in: {audit}");
        }
        let proposal = coordinator.convener.sign(key, &[0, 1], &Transfer::allowed(90));
        let body = coordinator.convener.body(&proposal.invitations[0]);
        let refused = coordinator.appliances[0].post("signing/participate", &body).await.problem();
        assert_eq!(refused.code, Code::EvidenceRefused, "{refused}");
        assert!(refused.detail.contains(verdict), "{refused}");
        let reload = lab.client(0, Role::Operator).post("policy/reload", &json!({})).await.problem();
        assert_eq!(reload.code, Code::EvidenceRefused, "{reload}");
        let shares: Page<ShareView> = lab.client(0, Role::Operator).read("shares").await;
        assert_eq!(shares.total, 1);
        let metrics = lab.client(0, Role::Monitor).get("/metrics").await;
        let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
        assert!(metrics.contains(&format!("mpc_audit_verdict{{verdict=\"{verdict}\"}} 1")), "{metrics}");
        assert!(lab.log(0).contains("event=\"evidence_refused\""));
        assert!(lab.stop(0).success());
    }
    assert_eq!((lab.audit_size(0), lab.sessions(0)), before, "nothing was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_the_database_or_of_the_token_is_found_and_of_both_it_is_not() {
    let (mut lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    signs(&coordinator, &key, 0).await;
    lab.stop(0);
    keep(&lab, "old");
    lab.start(0).await;
    signs(&coordinator, &key, 1).await;
    lab.stop(0);
    // Many leaves, so that no crash explains an anchor from before them.
    lab.seed_primes(0, 70);
    keep(&lab, "new");

    put_back(&lab, "old", "data");
    is_quarantined(&mut lab, &coordinator, &key, "rollback").await;
    put_back(&lab, "new", "data");
    put_back(&lab, "old", "tokens");
    is_quarantined(&mut lab, &coordinator, &key, "ahead_of_window").await;
    put_back(&lab, "new", "tokens");
    lab.start(0).await;
    lab.stop(0);

    // What the threat model says openly: nothing on this host shows it. The peers hold later checkpoints.
    put_back(&lab, "old", "data");
    put_back(&lab, "old", "tokens");
    lab.start(0).await;
    lab.stop(0);
    let forked = lab.audit_size(0);
    put_back(&lab, "new", "tokens");
    assert!(forked < 70);
    is_quarantined(&mut lab, &coordinator, &key, "rollback").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_gone_is_not_made_anew() {
    let mut lab = TestLab::new(Kind::Empty).await;
    let (data, aside) = (lab.parties[0].data_dir.clone(), lab.root.join("aside"));
    fs::rename(&data, &aside).unwrap();
    lab.start_in_quarantine(0).await;
    let health = lab.client(0, Role::Monitor).get("health").await;
    assert!(String::from_utf8_lossy(&health.body).contains("anchor_without_database"), "{health}");
    lab.stop(0);
    assert!(!data.join("casemate.db").exists());
    let config = lab.parties[0].config.to_str().unwrap().to_owned();
    let again = lab.program(0, "casemate", &["audit", "init", "--config", &config]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert_eq!(again.status.code(), Some(2), "{said}");
    assert!(said.contains("the HSM has anchored") && said.contains("docs/runbook.md"), "{said}");
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&aside, &data).unwrap();
    let again = lab.program(0, "casemate", &["audit", "init", "--config", &config]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("casemate.db is there already"));
    lab.start(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_anchored_is_not_begun_and_ends_as_interrupted() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let (tokens, aside) = (lab.parties[0].folder.join("tokens"), lab.root.join("aside"));
    fs::rename(&tokens, &aside).unwrap();
    let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0));
    let body = coordinator.convener.body(&proposal.invitations[0]);
    for _ in 0..2 {
        let begun = Instant::now();
        let refused = coordinator.appliances[0].post("signing/participate", &body).await.problem();
        assert!([Code::AuditUnavailable, Code::HsmUnavailable].contains(&refused.code), "{refused}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
    let health = lab.client(0, Role::Monitor).get("health").await;
    assert_eq!(health.status, 503, "{health}");
    fs::rename(&aside, &tokens).unwrap();
    let begun = Instant::now();
    loop {
        let (leaves, report) = lab.audit(0);
        let health = lab.client(0, Role::Monitor).get("health").await;
        if health.status == 200 && report.open_intents.is_empty() {
            let of = leaves.iter().filter(|leaf| leaf.session.as_ref() == Some(&proposal.session));
            let ends: Vec<_> = of.filter_map(|leaf| leaf.outcome.as_ref()?.code.clone()).collect();
            assert!(ends.iter().all(|code| code.as_str() == "interrupted"), "{ends:?}");
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "it does not come back: {health} {report:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    signs(&coordinator, &key, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_anchor_in_a_real_token_does_what_every_anchor_must() {
    let lab = TestLab::new(Kind::Empty).await;
    let party = &lab.parties[0];
    let config = party.config.to_str().unwrap().to_owned();
    lab.configure(0, |text| text.replace("casemate-party-1", "casemate-contract"));
    let so_pin = party.folder.join("so-pin").to_str().unwrap().to_owned();
    let make = ["hsm", "init", "--config", &config, "--create-token", "--so-pin-file", &so_pin];
    assert!(lab.program(0, "casemate", &make).status.success());
    let done = lab.program(0, "anchor-contract", &[config]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_is_not_released_before_its_outcome_is_anchored_and_its_outcome_is_written_once() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let (tokens, aside) = (lab.parties[0].folder.join("tokens"), lab.root.join("aside"));
    let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0));
    let (mut away, mut told) = (None, 0);
    let ends = coordinator.run(&proposal, |from, to, frame: Frame| {
        // From its third message for all on, party-1 has no token; after a while it is back. The peers' logs have been
        // compared and its share is open by then.
        let message = from == 0 && matches!(&frame, Frame::Message(message) if message.content.to == To::All);
        told += usize::from(message);
        if told == 3 && away.is_none() {
            fs::rename(&tokens, &aside).unwrap();
            let (tokens, aside) = (tokens.clone(), aside.clone());
            away = Some(std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(6));
                fs::rename(&aside, &tokens).unwrap();
            }));
        }
        vec![(to, frame)]
    });
    let ends = ends.await;
    away.unwrap().join().unwrap();
    assert_eq!(ends[0].signature(), ends[1].signature());
    assert!(ends[0].after.as_millis() > 5500, "party-1 answered after {:?}", ends[0].after);
    let (leaves, report) = lab.audit(0);
    assert!(report.open_intents.is_empty());
    let of = leaves.iter().filter(|leaf| leaf.session.as_ref() == Some(&proposal.session) && leaf.outcome.is_some());
    let outcomes: Vec<_> = of.collect();
    assert_eq!(outcomes.len(), 1, "it was tried again and not written again");
    assert_eq!(outcomes[0].outcome.as_ref().unwrap().signature, Some(ends[0].signature()));
}
