//! A real appliance whose database was put back to an older moment: nothing is signed until the policy's signers have
//! signed for it, and then in a new log. And one whose old lines are kept elsewhere.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use casemate_appliance::clients::Role;
use casemate_appliance::lab::SIGNERS;
use casemate_attest::recovery::Statement;
use casemate_attest::{Leaf, Phase, Snapshot, Verifier};
use casemate_policy::signers::Namespace;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::policy::{hourly_limit, publish, unlimited};
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{Key, LyingCoordinator, Proposal, TestLab, programs};
use casemate_wire::{Code, Problem};
use rand::Rng;
use serde_json::Value;

/// A lab with a policy of an hour's limit, in which party-1 has signed once, and then once more that its database forgot.
async fn rolled_back() -> (TestLab, Key) {
    let mut lab = TestLab::new(Kind::Keyed).await;
    for party in &lab.parties {
        hourly_limit(&party.policy_dir, "0.35");
        publish(&lab.staff(), &party.policy_dir);
    }
    lab.start_appliances().await;
    let key = lab.key();
    let coordinator = lab.lying_coordinator();
    coordinator.run_honestly(&small(&coordinator, &key, 0)).await[0].signature();
    lab.stop(0);
    let older = fs::read(database(&lab)).unwrap();
    lab.start(0).await;
    coordinator.run_honestly(&small(&coordinator, &key, 1)).await[0].signature();
    lab.stop(0);
    fs::write(database(&lab), older).unwrap();
    (lab, key)
}

/// The database of party-1, which does not run, as one file.
fn database(lab: &TestLab) -> PathBuf {
    let path = lab.parties[0].data_dir.join("casemate.db");
    let store = rusqlite::Connection::open(&path).unwrap();
    store.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    store.close().unwrap();
    assert!(!path.with_extension("db-wal").exists(), "somebody holds it");
    path
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

fn config(lab: &TestLab) -> &str {
    lab.parties[0].config.to_str().unwrap()
}

pub(super) struct Done {
    pub(super) code: Option<i32>,
    out: Vec<u8>,
    pub(super) err: String,
}

fn casemate(lab: &TestLab, arguments: &[&str]) -> Done {
    let output = lab.program(0, "casemate", &[&["audit"], arguments].concat());
    Done { code: output.status.code(), out: output.stdout, err: String::from_utf8(output.stderr).unwrap() }
}

/// Has the statement shown, and kept in a file; its path, text and what was told with it.
pub(super) fn shown(lab: &TestLab, more: &[&str]) -> (String, Vec<u8>, String) {
    let done = casemate(lab, &[&["recover", "--config", config(lab), "--show-statement"], more].concat());
    assert_eq!(done.code, Some(0), "{}", done.err);
    let path = lab.root.join("statement.json");
    fs::write(&path, &done.out).unwrap();
    (path.to_str().unwrap().to_owned(), done.out, done.err)
}

fn signature(lab: &TestLab, person: &str, namespace: &str, text: &[u8]) -> String {
    let path = lab.root.join(format!("recovery-{}.sig", rand::random::<u32>()));
    fs::write(&path, lab.staff().sign(person, namespace, text).unwrap()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Two of the policy's signers sign a statement; their files.
pub(super) fn signatures(lab: &TestLab, text: &[u8]) -> [String; 2] {
    [SIGNERS[0], SIGNERS[2]].map(|person| signature(lab, person, Namespace::Recovery.as_str(), text))
}

/// Goes on in a new log by a signed statement.
pub(super) fn recover(lab: &TestLab, statement: &str, signatures: &[String]) -> Done {
    let mut arguments = vec!["recover", "--config", config(lab), "--format", "json", "--statement", statement];
    arguments.extend(signatures.iter().flat_map(|path| ["--signature", path.as_str()]));
    casemate(lab, &arguments)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolled_back_appliance_signs_nothing_until_the_quorum_lets_it_go_on_in_a_new_log() {
    let (mut lab, key) = rolled_back().await;
    let coordinator = lab.lying_coordinator();
    for _restart in 0..2 {
        lab.start_in_quarantine(0).await;
        let health = String::from_utf8(lab.client(0, Role::Monitor).get("health").await.body.to_vec()).unwrap();
        assert!(health.contains("rollback") && health.contains("\"status\":\"failing\""), "{health}");
        let refused = ask(&coordinator, &small(&coordinator, &key, 2)).await.unwrap_err();
        assert_eq!(refused.code, Code::EvidenceRefused, "{refused}");
        lab.stop(0);
    }
    let early = [small(&coordinator, &key, 3), small(&coordinator, &key, 4)];
    let (statement, text, told) = shown(&lab, &[]);
    assert!(told.contains("rollback") && told.contains("ssh-keygen -Y sign -n casemate-recovery"), "{told}");
    let good = signatures(&lab, &text);
    let before = fs::read(database(&lab)).unwrap();
    let first = || good[0].clone();
    for bad in [
        vec![first()],
        vec![first(), first()],
        vec![first(), signature(&lab, SIGNERS[1], Namespace::Policy.as_str(), &text)],
        vec![first(), signature(&lab, "approver-1@treasury", Namespace::Recovery.as_str(), &text)],
        vec![first(), signature(&lab, SIGNERS[1], Namespace::Recovery.as_str(), b"another statement\n")],
    ] {
        let refused = recover(&lab, &statement, &bad);
        assert!(refused.code == Some(2) && refused.err.contains("1 of 2 needed people"), "{}", refused.err);
    }
    let foreign = String::from_utf8(text.clone()).unwrap().replace(r#""party":"party-1""#, r#""party":"party-2""#);
    let path = lab.root.join("foreign.json");
    fs::write(&path, &foreign).unwrap();
    let refused = recover(&lab, path.to_str().unwrap(), &signatures(&lab, foreign.as_bytes()));
    assert!(refused.code == Some(2) && refused.err.contains("its `party` is party-2"), "{}", refused.err);
    assert_eq!(fs::read(database(&lab)).unwrap(), before, "nothing was changed");

    let done = recover(&lab, &statement, &good);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let report: Value = serde_json::from_slice(&done.out).unwrap();
    assert_eq!(
        (&report["recovery"], &report["signers"]),
        (&"begun".into(), &serde_json::json!([SIGNERS[0], SIGNERS[2]]))
    );
    archive_verifies(&lab, &Statement::read(&text).unwrap());

    for early in &early {
        lab.start(0).await;
        // A token from before is refused; one from now is taken, and meets windows that count as full.
        let refused = ask(&coordinator, early).await.unwrap_err();
        assert_eq!(refused.code, Code::InvalidJoinToken, "{refused}");
        assert!(refused.detail.contains("begun anew"), "{refused}");
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let refused = ask(&coordinator, &small(&coordinator, &key, 5)).await.unwrap_err();
        assert_eq!(refused.code, Code::PolicyDenied, "{refused}");
        assert!(refused.detail.contains("windows of an hour count as full until"), "{refused}");
        lab.stop(0);
    }
    let (leaves, log) = lab.audit(0);
    assert_eq!(log.log.as_str(), report["log"]);
    assert_eq!(leaves[0].phase, Phase::Genesis);
    assert_eq!(leaves[0].recovery.as_ref().unwrap().statement, Statement::digest(&text));
    let again = recover(&lab, &statement, &good);
    assert!(again.code == Some(0) && String::from_utf8_lossy(&again.out).contains("done before"), "{}", again.err);
    let sound = casemate(&lab, &["recover", "--config", config(&lab), "--show-statement"]);
    assert!(sound.code == Some(2) && sound.err.contains("nothing to recover"), "{}", sound.err);
}

/// The archived lines are a whole log, which ends where the statement says.
fn archive_verifies(lab: &TestLab, statement: &Statement) {
    let found = statement.found.clone().unwrap();
    let name = format!("{}-{}-before-{}", found.log, found.size, statement.log).replace('/', ".");
    let folder = lab.parties[0].data_dir.join("archive").join(name);
    let verified = casemate(lab, &["verify", folder.to_str().unwrap()]);
    assert_eq!(verified.code, Some(0), "{}", verified.err);
    let text = fs::read_to_string(folder.join("log.jsonl")).unwrap();
    let mut reader = Verifier::new();
    text.lines().for_each(|line| drop(reader.feed(line.as_bytes()).unwrap()));
    let report = reader.finish().unwrap();
    assert_eq!((report.log, report.size, report.root), (found.log, found.size, found.root));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_works_again_once_the_peer_accepts_the_new_log_and_no_window_limits_it() {
    let mut lab = TestLab::new(Kind::Keyed).await;
    lab.start(0).await;
    lab.stop(0);
    let older = fs::read(database(&lab)).unwrap();
    let primes = |lab: &TestLab| {
        let store = rusqlite::Connection::open(database(lab)).unwrap();
        store.query_row("SELECT count(*) FROM primes", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert!(primes(&lab) > 0);
    lab.start(0).await;
    lab.stop(0);
    fs::write(database(&lab), older).unwrap();
    let (statement, text, _) = shown(&lab, &[]);
    assert_eq!(recover(&lab, &statement, &signatures(&lab, &text)).code, Some(0));
    assert_eq!(primes(&lab), 0);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for party in &lab.parties {
        unlimited(&party.policy_dir);
        publish(&lab.staff(), &party.policy_dir);
    }
    lab.start_appliances().await;
    let (coordinator, key) = (lab.lying_coordinator(), lab.key());
    // party-2 knew the old log: its operator must accept the new one.
    let ends = coordinator.run_honestly(&small(&coordinator, &key, 0)).await;
    assert_eq!(ends[1].code(), Code::PeerLogRefused);
    lab.accept_log(0, &[1], "recovered after a restore").await;
    let ends = coordinator.run_honestly(&small(&coordinator, &key, 1)).await;
    assert!(ends[0].signature().verifies(&key.public_key(), &Transfer::allowed(1).hash()));
}

/// What SoftHSM keeps of party-1's token itself.
fn token_file(lab: &TestLab) -> PathBuf {
    let tokens = lab.root.join("party-1/tokens");
    let folder = fs::read_dir(tokens).unwrap().next().unwrap().unwrap().path();
    folder.join("token.object")
}

/// Begins a recovery and kills it at a random moment.
fn recover_and_kill(lab: &TestLab, statement: &str, signatures: &[String], after: Duration) {
    let mut command = Command::new(programs::folder().join("casemate"));
    command.args(["audit", "recover", "--statement", statement, "--config"]).arg(&lab.parties[0].config);
    for path in signatures {
        command.args(["--signature", path]);
    }
    command.env("SOFTHSM2_CONF", &lab.parties[0].softhsm_conf).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(after);
    // It may have ended.
    drop(child.kill());
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_that_is_killed_at_any_moment_is_ended_by_the_same_call() {
    let (mut lab, _) = rolled_back().await;
    let (statement, text, _) = shown(&lab, &[]);
    let good = signatures(&lab, &text);
    // At each login SoftHSM empties this file before it writes it again; a kill just then leaves no token at all. That is
    // its own weakness, and not what is tested here: anchors are files of their own.
    let token = token_file(&lab);
    let content = fs::read(&token).unwrap();
    for _kill in 0..12 {
        let after = Duration::from_millis(rand::thread_rng().gen_range(5..250));
        recover_and_kill(&lab, &statement, &good, after);
        fs::write(&token, &content).unwrap();
    }
    let done = recover(&lab, &statement, &good);
    assert_eq!(done.code, Some(0), "{}", done.err);
    archive_verifies(&lab, &Statement::read(&text).unwrap());
    lab.start(0).await;
    lab.stop(0);
    assert_eq!(lab.audit(0).0.iter().filter(|leaf| leaf.phase == Phase::Genesis).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_lines_are_kept_elsewhere_goes_on_and_is_still_one_log() {
    let (mut lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    coordinator.run_honestly(&small(&coordinator, &key, 0)).await[0].signature();
    let out = lab.root.join("segment");
    let running = casemate(&lab, &["prune", "--config", config(&lab), "--segment", out.to_str().unwrap()]);
    assert!(running.code == Some(2) && running.err.contains("lock"), "{}", running.err);
    lab.stop(0);
    let whole = lab.audit(0).1;
    let done =
        casemate(&lab, &["prune", "--config", config(&lab), "--format", "json", "--segment", out.to_str().unwrap()]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let report: Value = serde_json::from_slice(&done.out).unwrap();
    assert_eq!((&report["pruned"], &report["root"]), (&whole.size.into(), &whole.root.to_string().into()));
    lab.start(0).await;
    coordinator.run_honestly(&small(&coordinator, &key, 1)).await[0].signature();
    lab.stop(0);
    lab.start(0).await;
    lab.stop(0);
    let store = casemate_appliance::store::open_read_only(&lab.parties[0].data_dir).unwrap();
    let remaining = casemate_appliance::store::audit_lines(&store, 0, u64::MAX).unwrap();
    let first: Leaf = serde_json::from_str(&remaining[0]).unwrap();
    assert_eq!(first.seq, whole.size);
    let mut verifier = Verifier::new();
    let segment = fs::read_to_string(out.join("log.jsonl")).unwrap();
    for line in segment.lines().chain(remaining.iter().map(String::as_str)) {
        verifier.feed(line.as_bytes()).unwrap();
    }
    let all = verifier.finish().unwrap();
    let beside = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    let mut resumed = Verifier::resume(Snapshot::read(&beside("after.json")).unwrap()).unwrap();
    for line in &remaining {
        resumed.feed(line.as_bytes()).unwrap();
    }
    assert_eq!(resumed.finish().unwrap().root, all.root);
    assert!(beside("checkpoint").contains(&format!("\n{}\n", whole.size)));
}
