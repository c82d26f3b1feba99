//! The life of a KEK on a real appliance, by the commands and routes that operators have: it signs before and after each step.

use std::fs;
use std::time::{Duration, Instant};

use casemate_appliance::clients::Role;
use casemate_attest::{Guard, Leaf, Op, Rewrap};
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::policy::publish;
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{Key, LyingCoordinator, TestLab};
use casemate_wire::Code;
use serde_json::{Value, json};
use tokio::time::timeout;

/// `casemate hsm COMMAND --config …` of party-1; its exit code, result and complaint.
pub(super) fn hsm(lab: &TestLab, command: &[&str]) -> (i32, Value, String) {
    let config = lab.parties[0].config.to_str().unwrap();
    let arguments = [&["hsm"], command, &["--config", config, "--format", "json"]].concat();
    let done = lab.program(0, "casemate", &arguments);
    let said = serde_json::from_slice(&done.stdout).unwrap_or(Value::Null);
    (done.status.code().unwrap(), said, String::from_utf8(done.stderr).unwrap())
}

async fn signs(coordinator: &LyingCoordinator, key: &Key, nonce: u64) {
    let proposal = coordinator.convener.sign(key, &[0, 1], &Transfer::allowed(nonce));
    coordinator.run_honestly(&proposal).await[0].signature();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kek_is_made_rewrapped_to_and_the_old_one_destroyed_while_the_key_goes_on_signing() {
    let (mut lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    signs(&coordinator, &key, 0).await;
    let (code, _, why) = hsm(&lab, &["new-kek"]);
    assert!(code == 2 && why.contains("lock"), "a daemon runs: {why}");
    lab.stop(0);
    let (code, made, why) = hsm(&lab, &["new-kek"]);
    assert_eq!((code, &made["kek"]), (0, &json!("kek/2")), "{why}");
    let (code, refused, _) = hsm(&lab, &["destroy-kek", "1", "--yes"]);
    assert!(code == 1 && refused["destroyed"] == false, "{refused}");
    assert!(refused["needed_by"].as_array().unwrap().iter().any(|row| row["table"] == "shares"), "{refused}");

    lab.start(0).await;
    signs(&coordinator, &key, 1).await;
    let operator = lab.client(0, Role::Operator);
    let rewrapped = operator.post("kek/rewrap", &json!({})).await.value();
    assert_eq!((&rewrapped["kek"], &rewrapped["unopened"]), (&json!("kek/2"), &json!(0)), "{rewrapped}");
    assert!(rewrapped["renewed"].as_u64().unwrap() >= 2, "a share and its committee: {rewrapped}");
    signs(&coordinator, &key, 2).await;
    assert_eq!(lab.client(0, Role::Coordinator).post("kek/rewrap", &json!({})).await.status, 403);
    assert_eq!(operator.post("kek/rewrap", &json!({"force": true})).await.status, 400);
    lab.stop(0);

    let (code, again, _) = hsm(&lab, &["rewrap"]);
    assert_eq!((code, &again["report"]["renewed"]), (0, &json!(0)), "{again}");
    let (code, _, why) = hsm(&lab, &["destroy-kek", "1"]);
    assert!(code == 2 && why.contains("--yes"), "{why}");
    let (code, _, why) = hsm(&lab, &["destroy-kek", "2", "--yes"]);
    assert!(code != 0, "{why}");
    let (code, destroyed, why) = hsm(&lab, &["destroy-kek", "1", "--yes"]);
    assert!(code == 0 && destroyed["destroyed"] == true, "{why}");
    let (_, status, _) = hsm(&lab, &["status"]);
    assert_eq!(status["sealed"]["keks"]["kek/2"], status["sealed"]["rows"]);
    assert!(status["keys"].as_array().unwrap().iter().all(|key| key["id"] != "kek/1"), "{status}");

    lab.start(0).await;
    signs(&coordinator, &key, 3).await;
    let (leaves, _) = lab.audit(0);
    let told: Vec<String> = leaves
        .iter()
        .filter(|leaf| leaf.op == Op::Kek)
        .flat_map(|leaf| &leaf.guards)
        .map(|change| {
            assert_eq!(change.guard, Guard::Kek);
            format!("{} {}", change.id.as_str(), change.to.as_ref().unwrap().as_str())
        })
        .collect();
    assert_eq!(told, ["2 made", "1 retired", "2 current", "1 destroyed"]);
    told_of_both_runs(&lab, &leaves, &rewrapped);
}

/// One run was asked for by the operator beside the daemon, one by the command; each stands in the log before and after.
fn told_of_both_runs(lab: &TestLab, leaves: &[Leaf], rewrapped: &Value) {
    let told: Vec<&Leaf> = leaves.iter().filter(|leaf| leaf.op == Op::Rewrap).collect();
    let actors: Vec<bool> = told.iter().map(|leaf| leaf.actor.is_some() && leaf.req.is_some()).collect();
    assert_eq!(actors, [true, true, false, false]);
    let renewed = rewrapped["renewed"].as_u64().unwrap();
    for (pair, renewed) in told.chunks(2).zip([renewed, 0]) {
        assert!(
            matches!(&pair[0].rewrap, Some(Rewrap::Begun { to, .. }) if to[0].as_str().starts_with("kek/2 on ")),
            "{pair:?}"
        );
        let Some(Rewrap::Ended { begun, done }) = &pair[1].rewrap else { panic!("{pair:?}") };
        let from = |names: &std::collections::BTreeMap<_, u64>| names.values().sum::<u64>();
        assert_eq!((*begun, done.renewed, from(&done.removed)), (pair[0].seq, renewed, renewed));
    }
    let config = lab.parties[0].config.to_str().unwrap();
    let shown = lab.program(0, "casemate", &["audit", "show", "--config", config]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("run begins: ") && shown.contains(&format!("; from kek/1 {renewed}; to kek/2 {renewed}")),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_at_once_and_callers_that_hang_up_leave_a_log_in_which_every_run_has_its_end() {
    let (lab, _) = TestLab::keyed().await;
    let operator = lab.client(0, Role::Operator);
    let nothing = json!({});
    let all = (0..6).map(|_| operator.post("kek/rewrap", &nothing));
    let mut done = 0;
    for answer in futures::future::join_all(all).await {
        match answer.status {
            200 => done += 1,
            _ => assert_eq!(answer.problem().code, Code::Overloaded, "{answer}"),
        }
    }
    assert!(done > 0);
    // The audit log is found good: no two runs were on at once.
    let runs = || {
        let (leaves, report) = lab.audit(0);
        let stages = leaves.iter().filter_map(|leaf| leaf.rewrap.as_ref());
        let (begun, ended): (Vec<_>, Vec<_>) = stages.partition(|stage| matches!(stage, Rewrap::Begun { .. }));
        (begun.len(), ended.len(), report.open_rewrap)
    };
    assert_eq!(runs(), (done, done, None));
    for patience in 1..=20 {
        let _ = timeout(Duration::from_millis(5 * patience), operator.post("kek/rewrap", &nothing)).await;
    }
    let begun = Instant::now();
    while runs().2.is_some() {
        assert!(begun.elapsed() < Duration::from_secs(20), "a run has no end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (begun, ended, _) = runs();
    assert!(begun == ended && begun > done, "{begun} begun, {ended} ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_are_sealed_to_the_recovery_hsm_of_the_signed_bundle_and_opened_by_it_when_the_kek_is_lost() {
    let mut lab = TestLab::new(Kind::Keyed).await;
    let (recovery, made) = recovery_hsm(&lab);
    let party = &lab.parties[0];
    // Whoever writes to the disk names no recipient: an unsigned bundle does not load.
    fs::write(party.policy_dir.join("recipients.toml"), recipients(&made)).unwrap();
    let (code, _, why) = hsm(&lab, &["rewrap"]);
    assert!(code == 2 && why.contains("recipients.toml"), "{why}");
    publish(&lab.staff(), &party.policy_dir);
    let (code, done, why) = hsm(&lab, &["rewrap"]);
    assert!(code == 0 && done["report"]["renewed"].as_u64().unwrap() >= 2, "{why}");
    let (_, status, _) = hsm(&lab, &["status"]);
    let fingerprint = made["fingerprint"].as_str().unwrap();
    assert_eq!(status["sealed"]["recovery"][fingerprint], status["sealed"]["rows"], "{status}");
    let identity = status["identity"].as_str().unwrap().to_owned();

    // The KEK's entries are gone, as if the HSM that had it were: the share opens by the recovery HSM alone.
    let database = party.data_dir.join("casemate.db");
    lose_keks(&database);
    let (_, lost, _) = hsm(&lab, &["rewrap"]);
    assert_eq!(lost["report"]["unopened"], lost["report"]["rows"], "{lost}");
    let peer = lab.program(
        1,
        "casemate",
        &["hsm", "status", "--config", lab.parties[1].config.to_str().unwrap(), "--format", "json"],
    );
    let stranger: Value = serde_json::from_slice(&peer.stdout).unwrap();
    let by = |identity: &str| hsm(&lab, &["recover-entries", "--recovery", &recovery, "--sealed-by", identity]);
    let (code, refused, _) = by(stranger["identity"].as_str().unwrap());
    assert!(code == 1 && refused["report"]["renewed"] == 0, "{refused}");
    let (code, back, why) = by(&identity);
    assert_eq!((code, &back["report"]["unopened"]), (0, &json!(0)), "{why}");

    lab.start_appliances().await;
    signs(&lab.lying_coordinator(), &lab.key(), 0).await;
}

/// A recovery HSM, here another token of party-1's module: its configuration, and what is printed of its key.
pub(super) fn recovery_hsm(lab: &TestLab) -> (String, Value) {
    let party = &lab.parties[0];
    let text = fs::read_to_string(&party.config).unwrap().replace("casemate-party-1", "casemate-recovery");
    let config = party.folder.join("recovery.toml");
    fs::write(&config, text).unwrap();
    let (config, so_pin) = (config.to_str().unwrap().to_owned(), party.folder.join("so-pin"));
    let init =
        ["hsm", "init-recovery", "--config", &config, "--create-token", "--so-pin-file", so_pin.to_str().unwrap()];
    let made = lab.program(0, "casemate", &[&init[..], &["--format", "json"]].concat());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (config, serde_json::from_slice(&made.stdout).unwrap())
}

/// `recipients.toml` with this recovery HSM.
pub(super) fn recipients(recovery: &Value) -> String {
    format!("[[recovery]]\nname = \"vault\"\nkey = {}\n", recovery["key"])
}

/// Takes the entries under KEKs out of every row.
pub(super) fn lose_keks(database: &std::path::Path) {
    use casemate_appliance::entries::{DekEntries, DekEntry};
    let store = rusqlite::Connection::open(database).unwrap();
    for row in casemate_appliance::store::EntriesRow::after(&store, None, usize::MAX).unwrap() {
        let mut left = DekEntries::default();
        DekEntries::read(&row.deks)
            .unwrap()
            .recovery()
            .for_each(|entry| left.push(DekEntry::Recovery(Box::new(entry.clone()))));
        let key = if row.table.as_str() == "committees" { "roster" } else { "id" };
        let sql = format!("UPDATE {} SET deks = ?1 WHERE {key} = ?2", row.table.as_str());
        store.execute(&sql, (left.to_column().unwrap(), row.id)).unwrap();
    }
}

/// A configuration of party-1 with another token, whose keys begin with this KEK.
pub(super) fn another_token(lab: &TestLab, label: &str, epoch: &str) -> String {
    let party = &lab.parties[0];
    let text = fs::read_to_string(&party.config).unwrap().replace("casemate-party-1", label);
    let path = party.folder.join(format!("{label}.toml"));
    fs::write(&path, text).unwrap();
    let (path, so_pin) = (path.to_str().unwrap().to_owned(), party.folder.join("so-pin"));
    let so_pin = so_pin.to_str().unwrap();
    let init = ["hsm", "init", "--config", &path, "--create-token", "--so-pin-file", so_pin, "--kek-epoch", epoch];
    let made = lab.program(0, "casemate", &init);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_move_to_a_token_whose_kek_epoch_is_above_and_the_old_one_signs_until_its_entries_are_dropped() {
    let mut lab = TestLab::new(Kind::Keyed).await;
    let own = lab.parties[0].config.to_str().unwrap().to_owned();
    let (code, _, why) = hsm(&lab, &["rewrap", "--to", &own]);
    assert!(code == 2 && why.contains("own token"), "{why}");
    let same_epoch = another_token(&lab, "casemate-same", "1");
    let (code, _, why) = hsm(&lab, &["rewrap", "--to", &same_epoch]);
    assert!(code == 2 && why.contains("--kek-epoch 2"), "{why}");

    let new = another_token(&lab, "casemate-new", "2");
    let (code, both, why) = hsm(&lab, &["rewrap", "--to", &new]);
    assert!(code == 0 && both["report"]["renewed"].as_u64().unwrap() >= 2, "{why}");
    lab.start_appliances().await;
    signs(&lab.lying_coordinator(), &lab.key(), 0).await;
    lab.stop(0);
    let (code, moved, why) = hsm(&lab, &["rewrap", "--to", &new, "--drop-old"]);
    assert_eq!((code, &moved["report"]["unopened"]), (0, &json!(0)), "{why}");
    let (_, status, _) = hsm(&lab, &["status"]);
    let sealed = &status["sealed"];
    assert_eq!(sealed["keks"], json!({"kek/2": sealed["rows"]}), "{status}");
    let (code, here, _) = hsm(&lab, &["rewrap"]);
    assert_eq!((code, &here["report"]["unopened"]), (1, &here["report"]["rows"]), "{here}");
}
