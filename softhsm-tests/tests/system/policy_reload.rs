//! A new policy takes the old one's place only if enough people signed it and it follows on the newest.

use std::fs;
use std::path::Path;
use std::time::Duration;

use casemate_appliance::clients::Role;
use casemate_attest::{Guard, Leaf, Op, Phase};
use casemate_policy::bundle::seal;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::policy::{hourly_limit, publish};
use casemate_softhsm_tests::{Key, LyingCoordinator, TestLab};
use casemate_wire::{Code, Problem};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const RELOAD: &str = "policy/reload";

/// A remark changes a file and no verdict.
fn remark(dir: &Path, text: &str) {
    let path = dir.join("transfers.cedar");
    let old = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{old}\n// {text}\n")).unwrap();
}

/// Has a party load its bundle anew.
pub(super) async fn reload(lab: &TestLab, party: usize) -> Result<Value, Problem> {
    let answer = lab.client(party, Role::Operator).post(RELOAD, &json!({})).await;
    if answer.status == 200 { Ok(answer.value()) } else { Err(answer.problem()) }
}

async fn refused(lab: &TestLab, why: &str) {
    let problem = reload(lab, 0).await.unwrap_err();
    assert_eq!((problem.code, problem.status), (Code::PolicyRefused, 422), "{why}: {problem}");
    assert!(problem.detail.contains(why), "{why}: {problem}");
    assert!(problem.detail.contains("stays active"), "{why}: {problem}");
    let health: Value = lab.client(0, Role::Monitor).read("health").await;
    assert_eq!((&health["status"], &health["checks"]["policy"]["ok"]), (&json!("degraded"), &json!(false)), "{why}");
    assert!(health["checks"]["policy"]["detail"].as_str().unwrap().contains(why), "{why}: {health}");
    let leaf = last(lab);
    assert_eq!((leaf.op, leaf.phase), (Op::Policy, Phase::Admin), "{why}");
    assert_eq!(leaf.outcome.as_ref().unwrap().code.as_ref().unwrap().as_str(), "policy_refused", "{why}");
    assert_eq!(leaf.actor.as_ref().unwrap().as_str(), "operator", "{why}");
}

fn last(lab: &TestLab) -> Leaf {
    lab.audit(0).0.pop().unwrap()
}

async fn metrics(lab: &TestLab) -> String {
    let answer = lab.client(0, Role::Monitor).get("/metrics").await;
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// Whether party-1 would sign a small transfer.
async fn signs(coordinator: &LyingCoordinator, key: &Key, nonce: u64) -> bool {
    let proposal = coordinator.convener.sign(key, &[0, 1], &Transfer::allowed(nonce));
    let body = coordinator.convener.body(&proposal.invitations[0]);
    coordinator.appliances[0].post(proposal.route(), &body).await.status == 202
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_bundle_of_a_higher_version_takes_effect_at_once() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let dir = &lab.parties[0].policy_dir;
    assert!(signs(&coordinator, &key, 0).await);
    let before: Value = lab.client(0, Role::Auditor).read("policy").await;
    assert_eq!(before["version"], 1);

    hourly_limit(dir, "0.05");
    publish(&lab.staff(), dir);
    assert!(signs(&coordinator, &key, 1).await, "files alone change nothing");
    let loaded = reload(&lab, 0).await.unwrap();
    assert_eq!((&loaded["version"], &loaded["previous"]), (&json!(2), &before["digest"]));
    assert_eq!(loaded["signers"], json!(["signer-1@security", "signer-2@security"]));
    let leaf = last(&lab);
    let change = leaf.guards.iter().find(|change| change.guard == Guard::Bundle).unwrap();
    let digest = loaded["digest"].as_str().unwrap();
    assert_eq!(change.to.as_ref().unwrap().as_str(), format!("version 2 {digest}"));
    assert_eq!(leaf.actor.unwrap().as_str(), "operator");

    assert!(!signs(&coordinator, &key, 2).await);
    let shown: Value = lab.client(0, Role::Auditor).read("policy").await;
    assert_eq!(shown["digest"], loaded["digest"]);
    let text = shown["files"]["rules.cedar"].as_str().unwrap();
    assert_eq!(text, fs::read_to_string(dir.join("rules.cedar")).unwrap());
    let metrics = metrics(&lab).await;
    assert!(metrics.contains("mpc_policy_version 2"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_bundle_leaves_the_old_one_active_and_says_why() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let (dir, staff) = (lab.parties[0].policy_dir.clone(), lab.staff());
    let first = fs::read(dir.join("manifest.toml")).unwrap();

    remark(&dir, "changed and not sealed");
    refused(&lab, "transfers.cedar").await;
    seal(&dir, Timestamp::now()).unwrap();
    refused(&lab, "0 of 2 needed people").await;
    staff.sign_bundle_as(&dir, &["signer-1@security"]).unwrap();
    refused(&lab, "1 of 2 needed people").await;
    staff.sign_bundle_as(&dir, &["signer-1@security", "approver-1@treasury"]).unwrap();
    refused(&lab, "1 of 2 needed people").await;
    let good = fs::read_to_string(dir.join("manifest.toml")).unwrap();
    for (why, from, to) in [
        ("its version is 1", "version = 2", "version = 1"),
        ("it follows on", digest(&first).as_str(), "f".repeat(64).as_str()),
        ("it comes into force at", "not_before = \"2025", "not_before = \"2125"),
    ] {
        let altered = good.replace(from, to);
        assert_ne!(altered, good, "{why}");
        fs::write(dir.join("manifest.toml"), altered).unwrap();
        staff.sign_bundle(&dir).unwrap();
        refused(&lab, why).await;
    }
    assert!(signs(&coordinator, &key, 0).await, "the old bundle still decides");
    let metrics = metrics(&lab).await;
    assert!(metrics.contains("mpc_policy_loads_total{result=\"refused\"} 7"), "{metrics}");

    fs::write(dir.join("manifest.toml"), &good).unwrap();
    staff.sign_bundle(&dir).unwrap();
    assert_eq!(reload(&lab, 0).await.unwrap()["version"], 2);
    let health: Value = lab.client(0, Role::Monitor).read("health").await;
    assert_eq!(health["status"], "ok", "{health}");
}

fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_bundle_does_not_come_back_after_a_restart() {
    let (mut lab, key) = TestLab::keyed().await;
    let (dir, staff) = (lab.parties[0].policy_dir.clone(), lab.staff());
    let kept = lab.root.join("kept");
    copy(&dir, &kept);
    remark(&dir, "version 2");
    publish(&staff, &dir);
    reload(&lab, 0).await.unwrap();
    lab.stop(0);
    fs::remove_dir_all(&dir).unwrap();
    copy(&kept, &dir);
    lab.start(0).await;
    let health: Value = lab.client(0, Role::Monitor).read("health").await;
    let detail = health["checks"]["policy"]["detail"].as_str().unwrap();
    assert!(detail.contains("its version is 1, but version 2 was loaded here already"), "{detail}");
    assert!(detail.contains("every request is denied"), "{detail}");
    assert!(!signs(&lab.lying_coordinator(), &key, 0).await);
    let none = lab.client(0, Role::Auditor).get("policy").await;
    assert_eq!(none.status, 404);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("tests")).unwrap();
    for folder in ["", "tests"] {
        for entry in fs::read_dir(from.join(folder)).unwrap().map(Result::unwrap) {
            if entry.path().is_file() {
                fs::copy(entry.path(), to.join(folder).join(entry.file_name())).unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_signal_reloads_as_well() {
    let (lab, _) = TestLab::keyed().await;
    let dir = lab.parties[0].policy_dir.clone();
    remark(&dir, "version 2");
    publish(&lab.staff(), &dir);
    let pid = Pid::from_raw(lab.pid(0).try_into().unwrap()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    for _ in 0..200 {
        let policy: Value = lab.client(0, Role::Auditor).read("policy").await;
        if policy["version"] == 2 {
            let leaf = last(&lab);
            assert_eq!((leaf.op, leaf.actor), (Op::Policy, None));
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{}", lab.log(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_operators_reload_and_only_they_and_auditors_read_policies() {
    let (lab, _) = TestLab::keyed().await;
    for role in [Role::Coordinator, Role::Auditor, Role::Monitor] {
        let answer = lab.client(0, role).post(RELOAD, &json!({})).await;
        assert_eq!(answer.problem().code, Code::ForbiddenRole, "{role:?}");
    }
    for role in [Role::Coordinator, Role::Monitor] {
        assert_eq!(lab.client(0, role).get("policy").await.problem().code, Code::ForbiddenRole, "{role:?}");
    }
    let answer = lab.client(0, Role::Operator).post(RELOAD, &json!({"force": true})).await;
    assert_eq!(answer.problem().code, Code::BadRequest);
}
