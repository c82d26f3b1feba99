//! What an auditor reads beside a running daemon holds together by itself, and covers what has just happened.

use std::time::{Duration, Instant};

use casemate_appliance::clients::Role;
use casemate_appliance::store::open_read_only;
use casemate_attest::tree::MemoryNodes;
use casemate_attest::{Checkpoint, ConsistencyProof, DisclosedLeaf, InclusionProof, Line, SignedCheckpoint, Verifier};
use casemate_softhsm_tests::TestLab;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_wire::Code;
use rusqlite::Connection;
use serde_json::Value;

async fn text(lab: &TestLab, role: Role, path: &str) -> String {
    let answer = lab.client(0, role).get(path).await;
    assert_eq!(answer.status, 200, "{path}: {answer}");
    String::from_utf8(answer.body.to_vec()).unwrap()
}

async fn checkpoint(lab: &TestLab) -> Checkpoint {
    let note = text(lab, Role::Auditor, "audit/checkpoint").await;
    SignedCheckpoint::verify(&note, &lab.parties[0].audit).unwrap().checkpoint().clone()
}

/// A checkpoint that covers the whole log as it stands.
async fn covering(lab: &TestLab, within: Duration) -> Checkpoint {
    let begun = Instant::now();
    loop {
        let (wanted, found) = (lab.audit_size(0), checkpoint(lab).await);
        if found.size >= wanted {
            return found;
        }
        assert!(begun.elapsed() < within, "{} of {wanted} leaves are signed", found.size);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_verifies_the_log_by_what_the_daemon_serves() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0));
    coordinator.run_honestly(&proposal).await[0].signature();
    let signed = checkpoint(&lab).await;
    assert_eq!(signed.size, lab.audit_size(0), "a session's end is covered before its answer goes out");
    let denied = coordinator.convener.sign(&key, &[0, 1], &Transfer::over_the_limit(0));
    coordinator.ask(&denied).await;
    let later = covering(&lab, Duration::from_secs(3)).await;
    assert!(later.size > signed.size);

    let lines = text(&lab, Role::Auditor, "audit/entries?from=0&limit=1000").await;
    let mut verifier = Verifier::new();
    let mut nodes = MemoryNodes::default();
    let mut read = Vec::new();
    for line in lines.lines() {
        verifier.feed(line.as_bytes()).unwrap();
        let line = Line::read(line.as_bytes()).unwrap();
        nodes.push(line.hash());
        read.push(line);
        if nodes.frontier().size() == later.size {
            assert_eq!(nodes.frontier().root(), later.root, "the checkpoint is of these very lines");
        }
    }
    assert!(read.len() as u64 >= later.size);
    let page = text(&lab, Role::Operator, "audit/entries?from=3&limit=2").await;
    assert_eq!(page.lines().collect::<Vec<_>>(), [read[3].as_str(), read[4].as_str()]);
    assert_eq!(text(&lab, Role::Auditor, "audit/entries?from=100000").await, "");

    let details = text(&lab, Role::Auditor, "audit/details").await;
    let details: Vec<DisclosedLeaf> = details.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(details.len() >= 2);
    for DisclosedLeaf { seq, disclosure } in details {
        assert_eq!(read[usize::try_from(seq).unwrap()].leaf().detail, Some(disclosure.commitment().unwrap()));
    }

    for seq in 0..later.size {
        let proof = text(&lab, Role::Auditor, &format!("audit/proof/inclusion?seq={seq}&size={}", later.size)).await;
        let proof: InclusionProof = serde_json::from_str(&proof).unwrap();
        proof.holds_in(&later).unwrap();
        assert_eq!((proof.seq, proof.leaf), (seq, read[usize::try_from(seq).unwrap()].hash()));
    }
    let path = format!("audit/proof/consistency?from={}&to={}", signed.size, later.size);
    let proof: ConsistencyProof = serde_json::from_str(&text(&lab, Role::Operator, &path).await).unwrap();
    proof.joins(&signed, &later).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_is_for_auditors_and_operators_and_bad_questions_are_answered_in_words() {
    let lab = TestLab::empty().await;
    let size = covering(&lab, Duration::from_secs(3)).await.size;
    let all = [
        "audit/checkpoint",
        "audit/entries",
        "audit/proof/inclusion?seq=0&size=1",
        "audit/proof/consistency?from=1&to=1",
        "peers",
    ];
    for path in all {
        for role in [Role::Coordinator, Role::Monitor] {
            assert_eq!(lab.client(0, role).get(path).await.problem().code, Code::ForbiddenRole, "{path}");
        }
        text(&lab, Role::Operator, path).await;
        text(&lab, Role::Auditor, path).await;
    }
    assert_eq!(lab.client(0, Role::Operator).get("audit/details").await.problem().code, Code::ForbiddenRole);
    let beyond = size + 1000;
    for bad in [
        "audit/entries?limit=0".to_owned(),
        "audit/entries?limit=1001".into(),
        "audit/entries?from=-1".into(),
        "audit/entries?from=x".into(),
        "audit/entries?colour=red".into(),
        "audit/details?limit=100000".into(),
        "audit/proof/inclusion".into(),
        "audit/proof/inclusion?seq=0".into(),
        format!("audit/proof/inclusion?seq={size}&size={size}"),
        format!("audit/proof/inclusion?seq=0&size={beyond}"),
        "audit/proof/inclusion?seq=0&size=18446744073709551615".into(),
        "audit/proof/inclusion?seq=0&size=0".into(),
        "audit/proof/consistency?from=2&to=1".into(),
        "audit/proof/consistency?from=0&to=1".into(),
        format!("audit/proof/consistency?from=1&to={beyond}"),
    ] {
        let problem = lab.client(0, Role::Auditor).get(&bad).await.problem();
        assert_eq!(problem.code, Code::BadRequest, "{bad}: {problem}");
        assert!(!problem.detail.is_empty(), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stop_is_covered_and_every_checkpoint_continues_the_one_before() {
    let (mut lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0));
    coordinator.run_honestly(&proposal).await[0].signature();
    lab.stop(0);
    lab.start(0).await;
    lab.stop(0);
    let store = open_read_only(&lab.parties[0].data_dir).unwrap();
    let mut notes = store.prepare("SELECT note FROM checkpoints ORDER BY size").unwrap();
    let notes = notes.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap);
    let verifier = notes.fold(Verifier::new(), |verifier, note| {
        verifier.against(SignedCheckpoint::verify(&note, &lab.parties[0].audit).unwrap().checkpoint().clone()).unwrap()
    });
    let mut verifier = verifier;
    for line in casemate_appliance::store::audit_lines(&store, 0, u64::MAX).unwrap() {
        verifier.feed(line.as_bytes()).unwrap();
    }
    let report = verifier.finish().unwrap();
    let newest: u64 = store.query_row("SELECT max(size) FROM checkpoints", [], |row| row.get(0)).unwrap();
    assert_eq!(newest, report.size, "the stop leaf is covered");
    assert!(report.checkpoints >= 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_durable_outcome_is_released_even_if_no_checkpoint_of_it_can_be_kept() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let database = lab.parties[0].data_dir.join("casemate.db");
    let meddle = |sql: &str| Connection::open(&database).unwrap().execute_batch(sql).unwrap();
    let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0));
    let mut meddled = false;
    let ends = coordinator.run(&proposal, |_, to, frame| {
        // After the witness phase, which needs a checkpoint.
        if !meddled
            && matches!(&frame, casemate_wire::frame::Frame::Message(message) if message.content.round >> 8 == 8)
        {
            meddle("CREATE TRIGGER none BEFORE INSERT ON checkpoints BEGIN SELECT RAISE(ABORT, 'none'); END");
            meddled = true;
        }
        vec![(to, frame)]
    });
    let ends = ends.await;
    assert_eq!(ends[0].signature(), ends[1].signature());
    let failing = lab.client(0, Role::Monitor).get("health").await;
    let shown: Value = serde_json::from_slice(&failing.body).unwrap();
    assert_eq!((failing.status, &shown["checks"]["audit"]["ok"]), (503, &false.into()), "{shown}");
    let counted = text(&lab, Role::Monitor, "/metrics").await;
    assert!(!counted.contains("mpc_checkpoint_failures_total 0"), "{counted}");
    meddle("DROP TRIGGER none");
    covering(&lab, Duration::from_secs(3)).await;
    let shown: Value = lab.client(0, Role::Monitor).read("health").await;
    assert_eq!(shown["status"], "ok", "{shown}");
}
