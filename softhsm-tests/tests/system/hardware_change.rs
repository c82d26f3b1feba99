//! The runbook's paragraph "Planned hardware change", step by step, by the commands that it names: one party moves to another
//! HSM, another host is replaced, and one key signs before, between and after.

use std::fs;
use std::process::Command;
use std::time::Duration;

use casemate_appliance::clients::Role;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::operator::without_former_identities;
use casemate_softhsm_tests::policy::{publish, unlimited};
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{Key, Plan, TestLab};
use casemate_wire::rotation::Auxiliary;
use casemate_wire::{Code, IdentityKey};
use serde_json::{Value, json};

use super::keks::{another_token, hsm, lose_keks, recipients, recovery_hsm};
use super::recovery::{recover, shown, signatures};
use super::rotating_accounts::{approved, ordered, rotated, settled, signed};
use super::rotation::shares;

/// A lab whose parties limit nothing over time; shares of party-1 are sealed to a recovery HSM too. Gives its configuration.
async fn with_recovery_hsm() -> (TestLab, Key, String) {
    let mut lab = TestLab::new(Kind::Spare).await;
    let (recovery, made) = recovery_hsm(&lab);
    fs::write(lab.parties[0].policy_dir.join("recipients.toml"), recipients(&made)).unwrap();
    for party in &lab.parties {
        unlimited(&party.policy_dir);
        publish(&lab.staff(), &party.policy_dir);
    }
    moved(&lab, &["rewrap"]);
    lab.start_appliances().await;
    lab.start_coordinator().await;
    let key = lab.key();
    (lab, key, recovery)
}

/// `casemate hsm …` at party-1, after which every row opens.
fn moved(lab: &TestLab, command: &[&str]) {
    let (code, done, why) = hsm(lab, command);
    assert_eq!((code, &done["report"]["unopened"]), (0, &json!(0)), "{why}");
    assert!(done["report"]["renewed"].as_u64().unwrap() >= 2, "{done}");
}

/// The new `[hsm]` section is in party-1's configuration: what the HSM has not anchored is not believed, until the policy's
/// signers have signed for it.
async fn recovered_onto_it(lab: &mut TestLab) {
    lab.configure(0, |text| text.replace("casemate-party-1", "casemate-new"));
    lab.start_in_quarantine(0).await;
    let health = lab.client(0, Role::Monitor).get("health").await;
    assert!(String::from_utf8_lossy(&health.body).contains("database_without_anchor"), "{health}");
    lab.stop(0);
    let (statement, text, told) = shown(lab, &[]);
    assert!(told.contains("database_without_anchor"), "{told}");
    let done = recover(lab, &statement, &signatures(lab, &text));
    assert_eq!(done.code, Some(0), "{}", done.err);
    // It would make them itself, within minutes, and seal them to the recovery HSM, as this program does not.
    lab.seed_primes(0, 2);
    assert_eq!(hsm(lab, &["rewrap"]).0, 0);
}

/// What others pin of party-1 goes into their configurations, and everything is started again.
async fn pinned(lab: &mut TestLab) -> Value {
    let (_, status, _) = hsm(lab, &["status"]);
    lab.stop_all();
    let key = |name: &str| status[name].as_str().unwrap();
    lab.moved_to(0, key("identity").parse().unwrap(), key("audit").parse().unwrap());
    // Tokens of the second of the recovery are from before.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    lab.start_appliances().await;
    lab.start_coordinator().await;
    status
}

/// Nobody takes part by the identity that party-1 had: whoever has the old HSM proves nothing by it. And party-1 itself does
/// not use a key that names it, unless its configuration says that it was its own.
async fn who_it_was_counts_as_far_as_it_is_written(lab: &mut TestLab, key: &Key, former: &IdentityKey) {
    let coordinator = lab.lying_coordinator();
    let signing = || coordinator.convener.sign(key, &[0, 1], &Transfer::allowed(90));
    let stale = signing().telling_all(|invitation| invitation.claims.participants[0].identity = former.clone());
    for answer in coordinator.ask(&stale).await {
        let problem = answer.problem();
        assert_eq!(problem.code, Code::QuorumMismatch, "{problem}");
        assert!(problem.detail.contains("another identity than the one pinned here"), "{problem}");
    }
    lab.stop(0);
    let written = fs::read_to_string(&lab.parties[0].config).unwrap();
    lab.configure(0, |text| without_former_identities(&text));
    lab.start(0).await;
    let refused = coordinator.ask(&signing()).await[0].problem();
    assert_eq!(refused.code, Code::QuorumMismatch, "{refused}");
    lab.stop(0);
    lab.configure(0, |_| written);
    lab.start(0).await;
    lab.wait_coordinator_healthy(Duration::from_secs(60)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_signs_on_while_one_party_moves_to_another_hsm_and_another_host_is_replaced() {
    let (mut lab, key, recovery) = with_recovery_hsm().await;
    let former = lab.parties[0].identity.clone();
    signed(&lab, &key, &[0, 1], 0, None).await;

    // The rows go to another token. Until the old entries are dropped the old one signs.
    let (new, old) = (another_token(&lab, "casemate-new", "2"), lab.parties[0].folder.join("old.toml"));
    fs::copy(&lab.parties[0].config, &old).unwrap();
    lab.stop(0);
    moved(&lab, &["rewrap", "--to", &new]);
    lab.start(0).await;
    signed(&lab, &key, &[0, 1], 1, None).await;
    lab.stop(0);
    moved(&lab, &["rewrap", "--to", &new, "--drop-old"]);
    recovered_onto_it(&mut lab).await;
    let status = pinned(&mut lab).await;
    assert_eq!(status["sealed"]["keks"], json!({"kek/2": status["sealed"]["rows"]}), "{status}");

    // Its log is another one: each peer that knew the old one refuses it until its operator has looked.
    let refused = ordered(&lab, &key, &[0, 1], 2, None).await;
    assert_eq!(refused["error"]["code"], "peer_log_refused", "{refused}");
    lab.accept_log(0, &[1, 2], "moved to another HSM as planned").await;
    who_it_was_counts_as_far_as_it_is_written(&mut lab, &key, &former).await;
    // The committee of the key still names the old identity.
    assert_eq!(key.certificate.statement.roster.members()[0].identity, former);
    signed(&lab, &key, &[0, 1], 3, None).await;
    signed(&lab, &key, &[0, 2], 4, None).await;

    // The committee change: the new identity comes in, and a new host in the place of an old one.
    let plan = Plan { epoch: 2, committee: &[0, 1, 3], t: 2, dealers: &[0, 1], auxiliary: Auxiliary::Keep };
    let certificate = rotated(&lab, &approved(&lab, &key, &plan).await).await;
    let members = certificate.statement.roster.members();
    assert_eq!((&members[0].identity, &members[2].party_id), (&lab.parties[0].identity, &lab.parties[3].party_id));
    settled(&lab, &key, &[0, 1, 2, 3], 2).await;
    let left = shares(&lab.lying_coordinator(), 2, &key.public_key()).await;
    assert_eq!(left, [(1, "destroyed".to_owned())], "the host that left has nothing");
    signed(&lab, &key, &[0, 3], 5, None).await;

    // Nothing needs the old HSM, nor its identity, any more.
    lab.stop_all();
    let destroy = ["hsm", "destroy-kek", "1", "--yes", "--config", old.to_str().unwrap()];
    assert_eq!(lab.program(0, "casemate", &destroy).status.code(), Some(2), "it is that HSM's only KEK");
    let deleted = Command::new("softhsm2-util")
        .args(["--delete-token", "--token", "casemate-party-1"])
        .env("SOFTHSM2_CONF", &lab.parties[0].softhsm_conf)
        .output()
        .unwrap();
    assert!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stderr));
    lab.forget_former_identities();
    lab.start_appliances().await;
    lab.start_coordinator().await;
    signed(&lab, &key, &[0, 1], 6, None).await;
    lab.stop(0);

    // The recovery HSM opens what the new HSM has sealed, by the new identity alone.
    lose_keks(&lab.parties[0].data_dir.join("casemate.db"));
    let by = |identity: &str| hsm(&lab, &["recover-entries", "--recovery", &recovery, "--sealed-by", identity]);
    let (code, refused, _) = by(&former.to_string());
    assert!(code == 1 && refused["report"]["renewed"] == 0, "{refused}");
    let (code, back, why) = by(status["identity"].as_str().unwrap());
    assert_eq!((code, &back["report"]["unopened"]), (0, &json!(0)), "{why}");
    lab.start(0).await;
    signed(&lab, &key, &[0, 3], 7, None).await;
}
