//! The runbook's paragraph "A custodian left", step by step, by the commands that it names.

use std::path::Path;

use casemate_appliance::clients::Role;
use casemate_policy::bundle::seal;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::policy::publish;
use casemate_softhsm_tests::template::copy_folder;
use casemate_softhsm_tests::{Plan, TestLab};
use casemate_wire::Code;
use serde_json::{Value, json};

use super::backups::{
    act, approved, as_printed, backup, casemate, create, custodian, made, mandate, recipients, replace_host, restore,
    text, verify, with_custodians,
};
use super::policy_reload::reload;
use super::rotation::{rotated, settle_all, shares, sign};

/// These custodians verify a backup, and the daemon hears of it.
async fn verified(lab: &TestLab, file: &Path, identities: &[&Path]) {
    let (code, verified, why) = verify(lab, file, identities);
    assert_eq!((code, &verified["complete"]), (0, &json!(true)), "{why}");
    let (code, _, why) = backup(lab, &["record", text(file), "--proof", verified["proof"].as_str().unwrap()], true);
    assert_eq!(code, 0, "{why}");
    let listed = lab.client(0, Role::Operator).get("backups").await.value();
    let stage = |backup: &&Value| backup["id"] == verified["backup"];
    let found = listed["backups"].as_array().unwrap().iter().find(stage).unwrap();
    assert_eq!(found["stage"], "verified", "{listed}");
}

/// How many live shares of party-1 no verified backup holds, by its metrics.
async fn missing(lab: &TestLab, count: u32) {
    let metrics = lab.client(0, Role::Monitor).get("/metrics").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(metrics.contains(&format!("\nmpc_backup_missing {count}\n")), "{count}: {metrics}");
}

/// Puts the successor, who has made an identity, in the leaver's place: first as somebody who can write the files alone, then
/// with the signers.
async fn succeeded(lab: &TestLab, custodians: &[String]) {
    let in_force = lab.root.join("in-force");
    copy_folder(&lab.parties[0].policy_dir, &in_force);
    for (number, party) in lab.parties.iter().enumerate() {
        std::fs::write(party.policy_dir.join("recipients.toml"), recipients(custodians)).unwrap();
        if number == 0 {
            let before = act(lab);
            seal(&party.policy_dir, jiff::Timestamp::now()).unwrap();
            assert_eq!(reload(lab, 0).await.unwrap_err().code, Code::PolicyRefused);
            assert_eq!(act(lab), before, "who writes to the disk names no custodian");
        }
        publish(&lab.staff(), &party.policy_dir);
        reload(lab, number).await.unwrap();
    }
    let diff = ["policy", "diff", text(&in_force), text(&lab.parties[0].policy_dir)];
    let (code, told, why) = casemate(lab, &diff);
    let told = String::from_utf8(told).unwrap();
    assert_eq!(code, 0, "{why}");
    for change in ["removed recipient custodian custodian-2\n", "added recipient custodian custodian-3\n"] {
        assert!(told.contains(change), "{change}: {told}");
    }
    assert!(!told.contains("custodian-0") && !told.contains("custodian-1"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_custodian_who_left_opens_no_new_backup_and_what_the_old_one_holds_signs_nothing_after_a_rotation() {
    let (mut lab, (mut entries, identities)) = with_custodians().await;
    let [first, second, leaver] = identities.as_slice() else { panic!("three custodians") };
    let key = lab.key();
    let old = made(&lab, "old");
    verified(&lab, &old, &[leaver, first]).await;
    let old_act = act(&lab);
    let early = approved(&lab, &old_act);

    // 1. The bundle.
    let (entry, successor) = custodian(&lab, 3);
    entries[2] = entry;
    succeeded(&lab, &entries).await;

    // 2. A new backup: what was approved before names other people, under another bundle or under this one.
    let new = lab.root.join("new");
    for approvals in [early, approved(&lab, &old_act)] {
        let (code, _, why) = create(&lab, &new, &approvals);
        assert!(code == 2 && why.contains("policy_denied"), "{why}");
    }
    let new = made(&lab, "new");
    for remaining in [first, second] {
        let (code, _, why) = verify(&lab, &new, &[leaver, remaining]);
        assert!(code == 2 && why.contains("identity-2 is of none of this backup's custodians"), "{why}");
        verified(&lab, &new, &[&successor, remaining]).await;
    }
    missing(&lab, 0).await;
    let (code, _, why) = verify(&lab, &new, &[&successor]);
    assert!(code == 2 && why.contains("1 of 2 needed pieces"), "fewer than k are left: {why}");
    let (code, _, why) = verify(&lab, &old, &[leaver, first]);
    assert_eq!(code, 0, "the old file still opens: {why}");

    // 3. A copy of it may be anywhere.
    let coordinator = lab.lying_coordinator();
    let (rotated, succession) = rotated(&lab, &coordinator, &key, &Plan::refresh(2)).await;
    assert_eq!(settle_all(&coordinator, &[0, 1, 2], &succession).await, [0, 0, 0]);
    sign(&coordinator, &rotated, &[0, 1], 0).await;
    missing(&lab, 1).await;
    verified(&lab, &made(&lab, "newest"), &[&successor, second]).await;
    missing(&lab, 0).await;
    lab.stop_all();

    // What is in the old file: nothing for the host that lives, and nothing that signs where it comes back.
    let people = ["--identity", text(leaver), "--identity", text(first)];
    let (code, _, why) = restore(&lab, &old, &people, &["--show-statement"]);
    assert!(code == 2 && why.contains("older than the live epoch"), "{why}");
    replace_host(&lab);
    let [_, both] = mandate(&lab, &old, &people);
    let (code, done, why) = restore(&lab, &old, &people, &both.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(code, 0, "{why}");
    as_printed(&mut lab, &serde_json::from_slice(&done).unwrap()).await;
    lab.accept_log(0, &[1, 2], "an old backup, restored elsewhere").await;
    let coordinator = lab.lying_coordinator();
    assert_eq!(shares(&coordinator, 0, &key.public_key()).await, [(1, "restored".to_owned())]);
    for (nonce, key) in (1..).zip([&key, &rotated]) {
        let proposal = coordinator.convener.sign(key, &[0, 1], &Transfer::allowed(nonce));
        for end in coordinator.run_honestly(&proposal).await {
            let problem = end.problem();
            assert_eq!(problem.code, Code::QuorumMismatch, "{problem}");
            assert!(problem.detail.contains("its epoch differs from ours"), "{problem}");
        }
    }
    sign(&coordinator, &rotated, &[1, 2], 3).await;
}
