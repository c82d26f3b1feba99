//! A business service's view: the real coordinator in front of real appliances.

use std::time::Duration;

use alloy_primitives::Address;
use casemate_appliance::lab::Service;
use casemate_softhsm_tests::ethereum::{Transfer, address};
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{Key, TestLab};
use casemate_wire::{Digest32, EcdsaSignature, KeyCertificate, PublicKey};
use serde_json::{Value, json};

const SIGN: &str = "/api/v1/mpc/sign";
const KEYGEN: &str = "/api/v1/mpc/keygen";
const WAIT: Option<Duration> = Some(Duration::from_secs(120));

async fn whole_lab() -> (TestLab, Key, Service) {
    let mut lab = TestLab::new(Kind::Keyed).await;
    lab.start_appliances().await;
    lab.start_coordinator().await;
    let (key, door) = (lab.key(), lab.front_door().unwrap());
    (lab, key, door)
}

fn named(parties: &[&str]) -> Vec<Value> {
    parties.iter().map(|party| json!({"party_id": party})).collect()
}

fn order(key: &Key, transfer: &Transfer, parties: &[&str]) -> Value {
    json!({
        "account_id": key.account_id, "message_hash": transfer.hash(), "intent": transfer.intent(),
        "participants": named(parties),
    })
}

fn keygen(t: u16, parties: &[&str]) -> Value {
    let participants: Vec<Value> =
        parties.iter().map(|party| json!({"party_id": party, "device_type": "server"})).collect();
    json!({"threshold_t": t, "threshold_n": parties.len(), "participants": participants, "username": "treasury"})
}

const ALL: [&str; 3] = ["party-1", "party-2", "party-3"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_gets_a_signature_that_moves_the_keys_money() {
    let (_lab, key, door) = whole_lab().await;
    for (nonce, parties) in [(0, &ALL[..2]), (1, &ALL[1..]), (2, &ALL)] {
        let transfer = Transfer::allowed(nonce);
        let signed = door.post(SIGN, &order(&key, &transfer, parties), WAIT).await.unwrap();
        assert_eq!(signed.status, 201, "{}", signed.body);
        let body = signed.body;
        assert_eq!(body["status"], "completed", "{body}");
        let signature: EcdsaSignature =
            serde_json::from_value(json!({"r": body["r"], "s": body["s"], "v": body["v"]})).unwrap();
        assert_eq!(body["signature"], hex::encode(signature.to_der().unwrap()));
        assert_eq!(body["message_hash"], json!(transfer.hash()));
        assert_eq!(body["public_key"], json!(key.public_key()));
        assert!(signature.verifies(&key.public_key(), &transfer.hash()));
        let sender = address(&key.public_key());
        assert_eq!(transfer.sender(&signature), sender);
        assert_eq!(body["address"].as_str().unwrap().parse::<Address>().unwrap(), sender);
        assert_eq!(body["address"], sender.to_checksum(None));
        assert_eq!(transfer.signed(&signature)[0], 2, "an EIP-1559 transaction as the network takes it");
        let took_part = body["participants"].as_array().unwrap();
        assert_eq!(took_part.len(), 2, "exactly t sign, whoever could: {body}");
        let id = body["session_id"].as_str().unwrap();
        let found = door.get(&format!("/api/v1/mpc/sessions/{id}")).await.unwrap().body;
        assert_eq!((&found["signature"], found.get("join_tokens")), (&body["signature"], None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_gets_a_key_whose_certificate_every_pinned_identity_signed() {
    let (lab, _, door) = whole_lab().await;
    let made = door.post(KEYGEN, &keygen(2, &ALL), WAIT).await.unwrap().body;
    assert_eq!(made["status"], "completed", "{made}");
    let certificate: KeyCertificate = serde_json::from_value(made["certificate"].clone()).unwrap();
    certificate.verify(|member| Some(lab.party(&member.party_id)?.identity.clone())).unwrap();
    let public_key: PublicKey = serde_json::from_value(made["public_key"].clone()).unwrap();
    assert_eq!(certificate.statement.public_key, public_key);
    assert_eq!(made["address"].as_str().unwrap().parse::<Address>().unwrap(), address(&public_key));
    let account = made["account_id"].as_str().unwrap();
    let account = door.get(&format!("/api/v1/accounts/{account}")).await.unwrap().body;
    assert_eq!((&account["public_key"], &account["username"]), (&made["public_key"], &json!("treasury")));
    assert_eq!(account["shares"].as_array().unwrap().len(), 3);

    let key = Key { account_id: made["account_id"].as_str().unwrap().into(), certificate };
    let transfer = Transfer::allowed(0);
    let signed = door.post(SIGN, &order(&key, &transfer, &ALL[..2]), WAIT).await.unwrap().body;
    assert_eq!(signed["status"], "completed", "{signed}");
    assert_eq!(signed["public_key"], made["public_key"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_the_appliances_reaches_the_service_with_its_reasons() {
    let (lab, key, door) = whole_lab().await;
    let refused = door.post(SIGN, &order(&key, &Transfer::over_the_limit(0), &ALL[..2]), WAIT).await.unwrap().body;
    assert_eq!(refused["status"], "failed", "{refused}");
    assert_eq!(refused["error"]["code"], "policy_denied", "{refused}");
    assert_eq!(refused["error"]["policies"], json!(["per-transfer-limit"]), "{refused}");
    assert!(refused.get("signature").is_none());

    let (allowed, other) = (Transfer::allowed(0), Transfer::allowed(1));
    let mut mismatched = order(&key, &allowed, &ALL[..2]);
    mismatched["intent"] = json!(other.intent());
    let mut blind = order(&key, &allowed, &ALL[..2]);
    blind.as_object_mut().unwrap().remove("intent");
    for (case, order, code) in
        [("another intent", mismatched, "intent_mismatch"), ("no intent", blind, "blind_signing_denied")]
    {
        let refused = door.post(SIGN, &order, WAIT).await.unwrap().body;
        assert_eq!(
            (&refused["status"], &refused["error"]["code"]),
            (&json!("failed"), &json!(code)),
            "{case}: {refused}"
        );
    }
    let strict = door.post(KEYGEN, &keygen(3, &ALL), WAIT).await.unwrap().body;
    assert_eq!(strict["error"]["policies"], json!(["keygen-quorum"]), "{strict}");
    for party in 0..2 {
        let (_, report) = lab.audit(party);
        assert!(report.refusals >= 1 && report.open_intents.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_that_make_no_sense_are_refused_before_any_appliance_is_asked() {
    let (lab, key, door) = whole_lab().await;
    let sizes = || -> Vec<u64> { (0..3).map(|party| lab.audit_size(party)).collect() };
    let before = sizes();
    let transfer = Transfer::allowed(0);
    let good = order(&key, &transfer, &ALL[..2]);
    let with = |field: &str, value: Value| {
        let mut order = good.clone();
        order[field] = value;
        order
    };
    let stranger = json!("00000000-0000-4000-8000-000000000000");
    let signing = [
        ("one participant", with("participants", json!(named(&ALL[..1]))), 400, "insufficient_participants"),
        ("nobody", with("participants", json!([])), 400, "insufficient_participants"),
        ("one twice", with("participants", json!(named(&["party-1", "party-1"]))), 400, "bad_request"),
        ("an unknown party", with("participants", json!(named(&["party-1", "party-9"]))), 400, "bad_request"),
        ("an unknown account", with("account_id", stranger), 404, "account_not_found"),
        ("a short hash", with("message_hash", json!("00")), 400, "bad_request"),
        ("an unknown field", with("surprise", json!(1)), 400, "bad_request"),
    ];
    let making = [
        ("t of 1", keygen(1, &ALL), 400, "bad_request"),
        ("t over n", keygen(4, &ALL), 400, "bad_request"),
        ("an unknown party", keygen(2, &["party-1", "party-2", "party-9"]), 400, "bad_request"),
    ];
    let signing = signing.into_iter().map(|case| (SIGN, case));
    for (route, (case, order, status, code)) in signing.chain(making.into_iter().map(|case| (KEYGEN, case))) {
        let answer = door.post(route, &order, WAIT).await.unwrap();
        assert_eq!((answer.status, &answer.body["code"]), (status, &json!(code)), "{case}: {}", answer.body);
    }
    for (case, key) in [("a wrong key", "cmk_00000000_nonsense"), ("an empty key", "")] {
        let stranger = Service::with_api_key(lab.coordinator.address, key);
        for answer in [stranger.post(SIGN, &good, WAIT).await.unwrap(), stranger.get("/api/v1/accounts").await.unwrap()]
        {
            assert_eq!(
                (answer.status, &answer.body["code"]),
                (401, &json!("unauthenticated")),
                "{case}: {}",
                answer.body
            );
        }
    }
    let unknown = door.get("/api/v1/mpc/sessions/00000000").await.unwrap();
    assert_eq!((unknown.status, &unknown.body["code"]), (404, &json!("session_not_found")));
    assert_eq!(sizes(), before, "no appliance was asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_appliance_may_be_away() {
    let (mut lab, key, door) = whole_lab().await;
    lab.stop(0);
    let transfer = Transfer::allowed(0);
    let signed = door.post(SIGN, &order(&key, &transfer, &ALL), WAIT).await.unwrap().body;
    assert_eq!(signed["status"], "completed", "the two that are there sign: {signed}");
    let failed = door.post(SIGN, &order(&key, &transfer, &ALL[..2]), WAIT).await.unwrap().body;
    assert_eq!(
        (&failed["status"], &failed["error"]["code"]),
        (&json!("failed"), &json!("party_unreachable")),
        "{failed}"
    );
    assert_eq!(failed["error"]["party"], "party-1");
    lab.start(0).await;
    lab.wait_coordinator_healthy(Duration::from_secs(30)).await.unwrap();
    let signed = door.post(SIGN, &order(&key, &transfer, &ALL[..2]), WAIT).await.unwrap().body;
    assert_eq!(signed["status"], "completed", "{signed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_orders_at_once_are_all_served() {
    let (lab, key, door) = whole_lab().await;
    let orders: Vec<(Digest32, Value)> = (0..6)
        .map(|nonce| {
            let transfer = Transfer::allowed(nonce);
            let parties = [[ALL[0], ALL[1]], [ALL[1], ALL[2]], [ALL[0], ALL[2]]][usize::try_from(nonce).unwrap() % 3];
            (transfer.hash(), order(&key, &transfer, &parties))
        })
        .collect();
    let calls = orders.iter().map(|(_, order)| door.post(SIGN, order, WAIT));
    let answers = futures::future::join_all(calls).await;
    for ((hash, _), answer) in orders.iter().zip(answers) {
        let body = answer.unwrap().body;
        let signature: EcdsaSignature =
            serde_json::from_value(json!({"r": body["r"], "s": body["s"], "v": body["v"]})).unwrap();
        assert!(signature.verifies(&key.public_key(), hash), "{body}");
    }
    for party in 0..3 {
        assert!(lab.audit(party).1.open_intents.is_empty());
    }
}
