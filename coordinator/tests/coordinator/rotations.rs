//! Rotations by the front door, and what follows them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use casemate_wire::api::KeyProgress;
use casemate_wire::{Code, Member, Problem, PublicKey, Rotation};
use serde_json::{Value, json};

use crate::support::appliance::Behaviour;
use crate::support::held::Held;
use crate::support::{Lab, Running, Setup, keys, sign_body};

const ROTATE: &str = "/api/v1/mpc/rotate";
const SIGN: &str = "/api/v1/mpc/sign";
const HASH: &str = "0707070707070707070707070707070707070707070707070707070707070707";

fn five() -> Setup {
    Setup { appliances: 5, ..Setup::default() }
}

fn refresh(key: &Value) -> Value {
    json!({"account_id": key["account_id"]})
}

fn committee(key: &Value, parties: &[u16]) -> Value {
    let participants: Vec<_> = parties.iter().map(|index| json!({"party_id": keys::party(*index)})).collect();
    json!({"account_id": key["account_id"], "participants": participants})
}

async fn rotated(coordinator: &Running, order: &Value) -> Value {
    let answer = coordinator.caller.waiting(ROTATE, order).await;
    assert_eq!((answer.status, &answer.body["status"]), (201, &json!("completed")), "{}", answer.body);
    answer.body
}

async fn account(coordinator: &Running, key: &Value) -> Value {
    let id = key["account_id"].as_str().unwrap();
    coordinator.caller.get(&format!("/api/v1/accounts/{id}")).await.body
}

fn epoch(account: &Value) -> &Value {
    &account["certificate"]["statement"]["epoch"]
}

fn public(key: &Value) -> PublicKey {
    serde_json::from_value(key["public_key"].clone()).unwrap()
}

fn held(lab: &Lab, party: usize, key: &Value) -> Held {
    lab.appliances[party].inside.held.lock().unwrap().get(&public(key)).cloned().unwrap_or_default()
}

/// Waits until something is so.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within 10 s: {what}");
}

async fn settled(lab: &Lab, parties: &[usize], key: &Value, epoch: u64) {
    until("old shares are gone", async || {
        parties.iter().all(|party| {
            let held = held(lab, *party, key);
            held.old_shares == 0 && held.newest_epoch == epoch && held.succession.is_some()
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_keeps_the_key_and_its_committee_and_leaves_no_old_share() {
    let lab = Lab::new(Setup::default()).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    let body = rotated(&coordinator, &refresh(&key)).await;
    assert_eq!((&body["session_type"], &body["epoch"]), (&json!("rotate"), &json!(2)));
    assert_eq!((&body["public_key"], &body["account_id"]), (&key["public_key"], &key["account_id"]));
    assert_eq!(body["join_tokens"].as_object().unwrap().len(), 3);
    let after = account(&coordinator, &key).await;
    assert_eq!((epoch(&after), &after["certificate"]), (&json!(2), &body["certificate"]));
    let names: Vec<_> = after["shares"].as_array().unwrap().iter().map(|share| share["party_id"].clone()).collect();
    assert_eq!(names, ["party-0", "party-1", "party-2"]);
    settled(&lab, &[0, 1, 2], &key, 2).await;
    let signed = coordinator.sign(&key["account_id"], HASH, &[1, 2]).await;
    assert_eq!(signed.body["status"], "completed", "{}", signed.body);
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_t_that_can_be_reached_deal_those_that_stay_first() {
    let lab = Lab::new(five()).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    lab.appliances[0].inside.healthy.store(false, Ordering::SeqCst);
    let mut order = committee(&key, &[3, 2, 4]);
    order["participants"][2]["platform"] = json!("linux");
    let body = rotated(&coordinator, &order).await;
    let session = body["session_id"].as_str().unwrap().parse().unwrap();
    let claims = lab.appliances[2].inside.claims.lock().unwrap()[&session].clone();
    let rotation = claims.rotation.unwrap();
    assert_eq!(rotation.dealers, [keys::party(1), keys::party(2)], "in the order of the old committee");
    let names: Vec<_> = claims.participants.iter().map(|member| member.party_id.clone()).collect();
    assert_eq!(names, [3, 2, 4, 1].map(keys::party), "the new committee in the order given, then who leaves");
    assert_eq!((rotation.from_epoch, rotation.epoch, claims.threshold_n), (1, 2, 3));
    let after = account(&coordinator, &key).await;
    assert_eq!(after["shares"][2]["platform"], "linux");
    // The first, which took no part, hears of it too.
    settled(&lab, &[0, 1, 2, 3, 4], &key, 2).await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_enough_dealers_nothing_is_begun() {
    let lab = Lab::new(five()).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    for party in [0, 1] {
        lab.appliances[party].inside.healthy.store(false, Ordering::SeqCst);
    }
    let answer = coordinator.caller.post(ROTATE, &committee(&key, &[2, 3, 4])).await;
    let detail = answer.is_problem(502, "party_unreachable");
    assert!(detail.contains("party-2"), "{detail}");
    for (change, value) in [
        ("threshold_t", json!(4)),
        ("threshold_t", json!(1)),
        ("participants", json!([{"party_id": "party-0"}, {"party_id": "party-0"}])),
        ("participants", json!([{"party_id": "party-0"}, {"party_id": "party-9"}])),
        ("auxiliary", json!("old")),
        ("epoch", json!(5000)),
        ("surprise", json!(1)),
    ] {
        lab.appliances[0].inside.healthy.store(true, Ordering::SeqCst);
        let mut order = refresh(&key);
        order[change] = value.clone();
        let answer = coordinator.caller.post(ROTATE, &order).await;
        assert_eq!((answer.status, &answer.body["code"]), (400, &json!("bad_request")), "{change} {value}: {answer:?}");
    }
    let nobody = json!({"account_id": "00000000-0000-4000-8000-000000000000"});
    coordinator.caller.post(ROTATE, &nobody).await.is_problem(404, "account_not_found");
    let mut past = refresh(&key);
    past["epoch"] = json!(1);
    coordinator.caller.post(ROTATE, &past).await.is_problem(409, "epoch_taken");
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_a_party_has_taken_part_in_is_passed_over() {
    let lab = Lab::new(Setup::default()).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    // It says so before the session …
    let taken = Held { newest_epoch: 4, ..Held::default() };
    lab.appliances[1].inside.held.lock().unwrap().insert(public(&key), taken);
    assert_eq!(rotated(&coordinator, &refresh(&key)).await["epoch"], 5);
    // … or only when it is asked to take part: then the order is tried once more.
    let refusal = Problem::new(Code::EpochTaken, "taken").with("epoch", 9);
    lab.appliances[2].behave(Behaviour::Refuse(refusal.clone()));
    assert_eq!(rotated(&coordinator, &refresh(&key)).await["epoch"], 10);
    // An order that names its epoch is not changed.
    lab.appliances[2].behave(Behaviour::Refuse(refusal.clone().with("epoch", 20)));
    let mut bound = refresh(&key);
    bound["epoch"] = json!(12);
    let failed = coordinator.caller.waiting(ROTATE, &bound).await.body;
    assert_eq!((&failed["status"], &failed["error"]["epoch"]), (&json!("failed"), &json!(20)), "{failed}");
    assert_eq!(rotated(&coordinator, &refresh(&key)).await["epoch"], 21);
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lying_party_cannot_use_all_epochs_up() {
    let lab = Lab::new(Setup::default()).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    // The second is what appliances would no longer follow.
    for (lie, next) in [(u64::MAX, 2), (1_001, 3)] {
        let progress = KeyProgress { party_id: keys::party(1), newest_epoch: lie, succession: None };
        *lab.appliances[1].inside.pretends.lock().unwrap() = Some(progress);
        assert_eq!(rotated(&coordinator, &refresh(&key)).await["epoch"], next);
    }
    let refusal = Problem::new(Code::EpochTaken, "taken").with("epoch", i64::MAX);
    lab.appliances[1].behave(Behaviour::Refuse(refusal));
    let failed = coordinator.caller.waiting(ROTATE, &refresh(&key)).await.body;
    assert_eq!(failed["status"], "failed", "{failed}");
    assert_eq!(rotated(&coordinator, &refresh(&key)).await["epoch"], 5);
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_partys_proof_completes_a_rotation_although_the_others_fall_silent_or_lie() {
    let lab = Lab::new(Setup::default()).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    lab.appliances[0].behave(Behaviour::Mute);
    lab.appliances[1].behave(Behaviour::Lie);
    assert_eq!(rotated(&coordinator, &refresh(&key)).await["epoch"], 2);
    settled(&lab, &[0, 1, 2], &key, 2).await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_whose_end_nobody_told_is_discovered() {
    let lab = Lab::new(Setup::default()).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    for party in 0..3 {
        lab.appliances[party].behave(Behaviour::Mute);
    }
    let failed = coordinator.caller.waiting(ROTATE, &refresh(&key)).await.body;
    assert_eq!(failed["status"], "failed", "{failed}");
    until("the account has moved on", async || epoch(&account(&coordinator, &key).await) == 2).await;
    settled(&lab, &[0, 1, 2], &key, 2).await;
    assert_eq!(rotated(&coordinator, &refresh(&key)).await["epoch"], 3);
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_that_is_refused_for_the_quorum_makes_the_coordinator_ask_how_far_the_key_is() {
    let lab = Lab::new(Setup::default()).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    rotated(&coordinator, &refresh(&key)).await;
    // Another coordinator has rotated the key.
    let first = lab.appliances[0].inside.claims.lock().unwrap().values().find(|c| c.rotation.is_some()).cloned();
    let mut claims = first.unwrap();
    claims.rotation.as_mut().unwrap().epoch = 7;
    let later = lab.keys.rotate(&claims, 0);
    let moved = Held { newest_epoch: 7, succession: Some(later), old_shares: 1 };
    lab.appliances[2].inside.held.lock().unwrap().insert(public(&key), moved);
    lab.appliances[2].behave(Behaviour::Refuse(Problem::new(Code::QuorumMismatch, "the key is of another epoch")));
    let order = sign_body(&key["account_id"], HASH, &[0, 2]);
    let refused = coordinator.caller.waiting(SIGN, &order).await.body;
    assert_eq!(refused["error"]["code"], "quorum_mismatch", "{refused}");
    until("the account has moved on", async || epoch(&account(&coordinator, &key).await) == 7).await;
    settled(&lab, &[0, 1, 2], &key, 7).await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_committees_dealt_from_the_same_one_the_later_has_the_key_and_the_other_is_told() {
    let lab = Lab::new(five()).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    rotated(&coordinator, &committee(&key, &[2, 3, 4])).await;
    // Another coordinator has had the first committee deal once more, to others.
    let first = lab.appliances[2].inside.claims.lock().unwrap().values().find(|c| c.rotation.is_some()).cloned();
    let mut claims = first.unwrap();
    let place = |at: u16| Member { party_id: keys::party(at), party_index: 0, identity: lab.keys.identity(at) };
    let members = (0u16..).zip([0, 1, 3].map(place)).map(|(index, member)| Member { party_index: index, ..member });
    claims.participants = members.collect();
    let rotation = claims.rotation.as_mut().unwrap();
    (rotation.epoch, rotation.dealers) = (7, [0, 1].map(keys::party).to_vec());
    let mixed = Rotation { dealers: [0, 3].map(keys::party).to_vec(), epoch: 8, ..rotation.clone() };
    let later = lab.keys.rotate(&claims, 0);
    claims.rotation = Some(mixed);
    for (party, succession) in [(1, lab.keys.rotate(&claims, 0)), (0, later)] {
        let moved = Held { newest_epoch: 8, succession: Some(succession), old_shares: 1 };
        lab.appliances[party].inside.held.lock().unwrap().insert(public(&key), moved);
    }
    lab.appliances[2].behave(Behaviour::Refuse(Problem::new(Code::QuorumMismatch, "the key is of another epoch")));
    coordinator.caller.waiting(SIGN, &sign_body(&key["account_id"], HASH, &[2, 3])).await;
    until("the account has moved on", async || epoch(&account(&coordinator, &key).await) == 7).await;
    settled(&lab, &[2, 4], &key, 7).await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_party_says_of_a_key_counts_only_with_all_signatures() {
    let lab = Lab::new(Setup::default()).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    rotated(&coordinator, &refresh(&key)).await;
    let mut succession = held(&lab, 1, &key).succession.unwrap();
    succession.certificate.statement.epoch = 3;
    let progress = KeyProgress { party_id: keys::party(1), newest_epoch: 3, succession: Some(succession) };
    *lab.appliances[1].inside.pretends.lock().unwrap() = Some(progress);
    lab.appliances[1].behave(Behaviour::Refuse(Problem::new(Code::QuorumMismatch, "no")));
    coordinator.caller.waiting(SIGN, &sign_body(&key["account_id"], HASH, &[0, 1])).await;
    assert_eq!(rotated(&coordinator, &refresh(&key)).await["epoch"], 4);
    let certificate = account(&coordinator, &key).await["certificate"].clone();
    assert_eq!(certificate["statement"]["epoch"], 4);
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_that_was_away_is_settled_when_it_is_back() {
    let mut lab = Lab::new(five()).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    lab.appliances[0].crash().await;
    assert_eq!(rotated(&coordinator, &committee(&key, &[1, 2, 3])).await["epoch"], 2);
    settled(&lab, &[1, 2, 3], &key, 2).await;
    lab.appliances[0].serve_again().await;
    settled(&lab, &[0], &key, 2).await;
    let metrics = async || coordinator.caller.get("/metrics").await.text;
    until("nothing is unsettled", async || metrics().await.contains("mpc_unsettled_accounts 0")).await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_once_at_a_time_and_signs_meanwhile() {
    let lab = Lab::new(five()).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    lab.appliances[2].behave(Behaviour::Silent);
    let first = coordinator.caller.post(ROTATE, &refresh(&key)).await;
    assert_eq!(first.status, 201, "{}", first.text);
    let second = coordinator.caller.post(ROTATE, &refresh(&key)).await;
    second.is_problem(409, "session_conflict");
    assert_eq!(second.body["session_id"], first.body["session_id"]);
    let signed = coordinator.sign(&key["account_id"], HASH, &[0, 1]).await;
    assert_eq!(signed.body["status"], "completed", "{}", signed.body);
    lab.appliances[2].inside.seen.lock().unwrap().clear();
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_key_signs_and_the_answer_names_it() {
    let lab = Lab::new(Setup::default()).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    let mut order = sign_body(&key["account_id"], HASH, &[0, 2]);
    order["derivation_path"] = json!("m/0/7");
    let signed = coordinator.caller.waiting(SIGN, &order).await.body;
    assert_eq!((&signed["status"], &signed["derivation_path"]), (&json!("completed"), &json!("m/0/7")), "{signed}");
    assert_eq!(signed["public_key"], json!(lab.keys.child(&public(&key), "m/0/7")));
    assert_ne!(signed["address"], key["address"]);
    let session = signed["session_id"].as_str().unwrap().parse().unwrap();
    let body = lab.appliances[0].inside.requests.lock().unwrap()[&session].clone();
    assert_eq!((&body["derivation_path"], &body["key"]), (&json!("m/0/7"), &key["public_key"]));
    for bad in ["m/0'", "0/7", "m", "m/00"] {
        order["derivation_path"] = json!(bad);
        coordinator.caller.post(SIGN, &order).await.is_problem(400, "bad_request");
    }
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_settled_is_settled_after_a_restart_of_the_coordinator() {
    let mut lab = Lab::new(Setup::default()).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    assert_eq!(rotated(&coordinator, &refresh(&key)).await["epoch"], 2);
    settled(&lab, &[0, 1, 2], &key, 2).await;
    // A party of the new committee is gone before it has given its word.
    lab.appliances[2].behave(Behaviour::Mute);
    lab.appliances[2].inside.settles.store(false, Ordering::SeqCst);
    assert_eq!(rotated(&coordinator, &refresh(&key)).await["epoch"], 3);
    lab.appliances[2].crash().await;
    coordinator.stop().await;
    assert!((0..2).all(|party| held(&lab, party, &key).old_shares == 1), "they wait for its word");
    lab.appliances[2].inside.settles.store(true, Ordering::SeqCst);
    lab.appliances[2].serve_again().await;
    let coordinator = lab.start().await;
    settled(&lab, &[0, 1, 2], &key, 3).await;
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_party_that_moved_to_another_hsm_signs_on_once_its_former_identity_is_listed() {
    let lab = Lab::new(Setup::default()).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    coordinator.stop().await;
    let (old, new) = (lab.keys.identity(2), lab.keys.identity(3));
    let rewrite = |from: String, to: String| {
        let text = std::fs::read_to_string(lab.config()).unwrap();
        assert!(text.contains(&from));
        std::fs::write(lab.config(), text.replace(&from, &to)).unwrap();
    };
    rewrite(format!("identity = \"{old}\""), format!("identity = \"{new}\""));
    let coordinator = lab.start().await;
    let refused = coordinator.sign(&key["account_id"], HASH, &[0, 2]).await;
    assert!(refused.is_problem(409, "quorum_mismatch").contains("former_identities"));
    coordinator.stop().await;
    let listed = format!("identity = \"{new}\"\nformer_identities = [\"{old}\"]");
    rewrite(format!("identity = \"{new}\""), listed);
    let coordinator = lab.start().await;
    let signed = coordinator.sign(&key["account_id"], HASH, &[0, 2]).await.body;
    assert_eq!(signed["status"], "completed", "{signed}");
    let session = signed["session_id"].as_str().unwrap().parse().unwrap();
    let claims = lab.appliances[0].inside.claims.lock().unwrap()[&session].clone();
    assert_eq!(claims.participants[1].identity, new, "it proves itself by what it has now");
    coordinator.stop().await;
    // Nobody can be taken for another by an identity that that one had.
    let other = lab.keys.identity(1);
    rewrite(format!("former_identities = [\"{old}\"]"), format!("former_identities = [\"{other}\"]"));
    assert!(casemate_coordinator::Config::load(&lab.config()).is_err());
}
