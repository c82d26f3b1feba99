//! Rotations as a business service orders them: the real coordinator in front of real appliances, up to the last old share.

use std::time::{Duration, Instant};

use casemate_appliance::lab::Service;
use casemate_policy::intent::Signer;
use casemate_softhsm_tests::ethereum::{Transfer, address};
use casemate_softhsm_tests::{Key, Plan, TestLab};
use casemate_wire::rotation::Auxiliary;
use casemate_wire::{EcdsaSignature, KeyCertificate, PublicKey};
use serde_json::{Value, json};

use super::rotation::{proposed, shares};

const ROTATE: &str = "/api/v1/mpc/rotate";
const SIGN: &str = "/api/v1/mpc/sign";
const WAIT: Option<Duration> = Some(Duration::from_secs(120));
/// The longest until all parties have settled what they can; the machine may be busy with other tests.
const SETTLING: Duration = Duration::from_secs(100);

/// An order with the approvals that the starter policy asks for; those of a refresh name no participants.
pub(super) async fn approved(lab: &TestLab, key: &Key, plan: &Plan<'_>) -> Value {
    let proposal = proposed(lab, &lab.lying_coordinator(), key, plan).await;
    let mut order = json!({
        "account_id": key.account_id, "epoch": plan.epoch, "approvals": proposal.invitations[0].body["approvals"],
    });
    if plan.committee != [0, 1, 2] {
        let named = |party: &usize| json!({"party_id": lab.parties[*party].party_id, "device_type": "server"});
        order["participants"] = plan.committee.iter().map(named).collect();
    }
    order
}

/// Orders a signature; how the session stands at its end.
pub(super) async fn ordered(lab: &TestLab, key: &Key, signers: &[usize], nonce: u64, path: Option<&str>) -> Value {
    let transfer = Transfer::allowed(nonce);
    let named = |party: &usize| json!({"party_id": lab.parties[*party].party_id});
    let mut order = json!({
        "account_id": key.account_id, "message_hash": transfer.hash(), "intent": transfer.intent(),
        "participants": signers.iter().map(named).collect::<Vec<_>>(),
    });
    if let Some(path) = path {
        order["derivation_path"] = path.into();
    }
    door(lab).post(SIGN, &order, WAIT).await.unwrap().body
}

/// Orders a signature and checks it against the key, or the child that is said to have signed.
pub(super) async fn signed(lab: &TestLab, key: &Key, signers: &[usize], nonce: u64, path: Option<&str>) -> Value {
    let body = ordered(lab, key, signers, nonce, path).await;
    assert_eq!(body["status"], "completed", "{body}");
    let signature: EcdsaSignature =
        serde_json::from_value(json!({"r": body["r"], "s": body["s"], "v": body["v"]})).unwrap();
    let signer: PublicKey = serde_json::from_value(body["public_key"].clone()).unwrap();
    assert!(signature.verifies(&signer, &Transfer::allowed(nonce).hash()));
    body
}

fn door(lab: &TestLab) -> Service {
    lab.front_door().unwrap()
}

/// Runs a rotation by order; the key's certificate from then on.
pub(super) async fn rotated(lab: &TestLab, order: &Value) -> KeyCertificate {
    let answer = door(lab).post(ROTATE, order, WAIT).await.unwrap();
    assert_eq!((answer.status, &answer.body["status"]), (201, &json!("completed")), "{}", answer.body);
    let certificate: KeyCertificate = serde_json::from_value(answer.body["certificate"].clone()).unwrap();
    certificate.verify(|member| Some(lab.party(&member.party_id)?.identity.clone())).unwrap();
    certificate
}

/// Waits until these parties hold an active share of this epoch at most, and no older one.
pub(super) async fn settled(lab: &TestLab, key: &Key, parties: &[usize], epoch: u64) {
    let begun = Instant::now();
    loop {
        let coordinator = lab.lying_coordinator();
        let mut left = Vec::new();
        for party in parties {
            let held = shares(&coordinator, *party, &key.public_key()).await;
            let old = held.into_iter().filter(|(of, state)| *of < epoch && state != "destroyed");
            left.extend(old.map(|share| (*party, share)));
        }
        if left.is_empty() {
            return;
        }
        assert!(begun.elapsed() < SETTLING, "old shares are left: {left:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn account_epoch(lab: &TestLab, key: &Key) -> Value {
    let account = door(lab).get(&format!("/api/v1/accounts/{}", key.account_id)).await.unwrap().body;
    account["certificate"]["statement"]["epoch"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_refreshed_and_signs_for_the_same_key_and_its_children() {
    let (mut lab, key) = TestLab::keyed().await;
    lab.start_coordinator().await;
    let before = signed(&lab, &key, &[0, 1], 0, Some("m/0/7")).await;
    let certificate = rotated(&lab, &approved(&lab, &key, &Plan::refresh(2)).await).await;
    assert_eq!((certificate.statement.epoch, certificate.statement.public_key), (2, key.public_key()));
    settled(&lab, &key, &[0, 1, 2], 2).await;
    let plain = signed(&lab, &key, &[1, 2], 1, None).await;
    assert_eq!(plain["public_key"], json!(key.public_key()));
    // The child is the one of an independent library, before and after.
    let after = signed(&lab, &key, &[0, 2], 2, Some("m/0/7")).await;
    let child = Signer::derive(&key.public_key(), certificate.statement.chain_code, &[0, 7]).unwrap().public_key();
    assert_eq!(after["public_key"], hex::encode(child));
    assert_eq!((&after["public_key"], &after["derivation_path"]), (&before["public_key"], &json!("m/0/7")));
    let child = PublicKey::from_bytes(&child).unwrap();
    assert_eq!(after["address"], address(&child).to_checksum(None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_party_is_replaced_and_lets_go_of_its_share_when_it_is_back() {
    let (mut lab, key) = TestLab::spare().await;
    lab.start_coordinator().await;
    let plan = Plan { committee: &[0, 1, 3], auxiliary: Auxiliary::Keep, ..Plan::refresh(2) };
    let order = approved(&lab, &key, &plan).await;
    lab.kill(2);
    let certificate = rotated(&lab, &order).await;
    assert_eq!(certificate.statement.roster.members()[2].party_id, lab.parties[3].party_id);
    settled(&lab, &key, &[0, 1, 3], 2).await;
    signed(&lab, &key, &[1, 3], 0, None).await;
    lab.start(2).await;
    settled(&lab, &key, &[2], 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_dies_at_the_end_of_a_rotation_finds_out_how_it_ended() {
    let (mut lab, key) = TestLab::keyed().await;
    lab.start_coordinator().await;
    let order = approved(&lab, &key, &Plan::refresh(2)).await;
    let answer = door(&lab).post(ROTATE, &order, None).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.body);
    let coordinator = lab.lying_coordinator();
    let begun = Instant::now();
    while shares(&coordinator, 2, &key.public_key()).await[0] != (2, "active".to_owned()) {
        assert!(begun.elapsed() < SETTLING, "the rotation does not end");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    lab.kill_coordinator();
    lab.start_coordinator().await;
    settled(&lab, &key, &[0, 1, 2], 2).await;
    assert_eq!(account_epoch(&lab, &key).await, 2);
    signed(&lab, &key, &[0, 2], 0, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_by_other_hands_is_found_out_when_a_signature_is_refused() {
    let (mut lab, key) = TestLab::keyed().await;
    let (_, succession) = super::rotation::rotated(&lab, &lab.lying_coordinator(), &key, &Plan::refresh(2)).await;
    assert_eq!(succession.certificate.statement.epoch, 2);
    lab.start_coordinator().await;
    // Whatever becomes of the first, the account stands where the key stands soon after.
    let first = ordered(&lab, &key, &[0, 1], 0, None).await;
    let code = &first["error"]["code"];
    assert!(first["status"] == "completed" || code == "quorum_mismatch", "{first}");
    let moved = Key { certificate: succession.certificate, ..key.clone() };
    let next = approved(&lab, &moved, &Plan::refresh(3)).await;
    assert_eq!(rotated(&lab, &next).await.statement.epoch, 3);
    settled(&lab, &key, &[0, 1, 2], 3).await;
    signed(&lab, &key, &[1, 2], 1, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_party_that_dies_in_the_middle_leaves_an_account_that_signs_and_can_be_rotated() {
    let (mut lab, key) = TestLab::keyed().await;
    lab.start_coordinator().await;
    let answer = door(&lab).post(ROTATE, &approved(&lab, &key, &Plan::refresh(2)).await, None).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.body);
    lab.kill(2);
    lab.start(2).await;
    lab.wait_coordinator_healthy(SETTLING).await.unwrap();
    let id = answer.body["session_id"].as_str().unwrap();
    let begun = Instant::now();
    loop {
        let session = door(&lab).get(&format!("/api/v1/mpc/sessions/{id}")).await.unwrap().body;
        if ["completed", "failed"].iter().any(|status| session["status"] == *status) {
            break;
        }
        assert!(begun.elapsed() < SETTLING, "{session}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let certificate = door(&lab).get(&format!("/api/v1/accounts/{}", key.account_id)).await.unwrap().body;
    let certificate = serde_json::from_value(certificate["certificate"].clone()).unwrap();
    let now = Key { certificate, ..key.clone() };
    assert_eq!(rotated(&lab, &approved(&lab, &now, &Plan::refresh(3)).await).await.statement.epoch, 3);
    settled(&lab, &key, &[0, 1, 2], 3).await;
    signed(&lab, &key, &[0, 2], 0, None).await;
}
