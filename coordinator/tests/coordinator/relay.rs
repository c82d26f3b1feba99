//! Sessions that go well.

use std::time::Duration;

use casemate_wire::{Digest32, EcdsaSignature, KeyCertificate, PublicKey};
use serde_json::Value;

use crate::support::{Lab, Setup, keygen_body, keys::party, sign_body};

const HASH: &str = "0707070707070707070707070707070707070707070707070707070707070707";

fn hex32(value: &Value) -> [u8; 32] {
    hex::decode(value.as_str().unwrap()).unwrap().try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_made_and_signs() {
    let lab = Lab::new(Setup::default()).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    let certificate: KeyCertificate = serde_json::from_value(key["certificate"].clone()).unwrap();
    certificate.verify_signatures().unwrap();
    let public_key: PublicKey = key["public_key"].as_str().unwrap().parse().unwrap();
    assert_eq!(certificate.statement.public_key, public_key);
    assert!(key["address"].as_str().unwrap().starts_with("0x"));

    let account_path = format!("/api/v1/accounts/{}", key["account_id"].as_str().unwrap());
    let account = coordinator.caller.get(&account_path).await.body;
    assert_eq!(account["public_key"], key["public_key"]);
    assert_eq!(account["address"], key["address"]);
    assert_eq!((&account["threshold_t"], &account["threshold_n"]), (&2.into(), &3.into()));
    assert_eq!((&account["status"], &account["username"]), (&"active".into(), &"acme".into()));
    assert_eq!(account["certificate"], key["certificate"]);
    let places: Vec<_> = account["shares"].as_array().unwrap().iter().map(|s| &s["party_index"]).collect();
    assert_eq!(places, [0, 1, 2]);

    let answer = coordinator.sign(&key["account_id"], HASH, &[2, 0]).await;
    let signed = &answer.body;
    assert_eq!((answer.status, &signed["status"]), (201, &"completed".into()), "{signed}");
    let v = u8::try_from(signed["v"].as_u64().unwrap()).unwrap();
    let signature = EcdsaSignature { r: hex32(&signed["r"]), s: hex32(&signed["s"]), v };
    assert!(signature.verifies(&public_key, &HASH.parse::<Digest32>().unwrap()));
    assert_eq!(signed["signature"], hex::encode(signature.to_der().unwrap()));
    assert_eq!((&signed["public_key"], &signed["address"]), (&key["public_key"], &key["address"]));
    let signers: Vec<_> = signed["participants"].as_array().unwrap().iter().map(|p| &p["party_id"]).collect();
    assert_eq!(signers, ["party-0", "party-2"]);

    // Whoever asks later sees the same, but no tokens.
    let path = answer.header("location");
    let later = coordinator.caller.get(path).await.body;
    let mut expected = signed.clone();
    assert!(expected.as_object_mut().unwrap().remove("join_tokens").is_some());
    assert_eq!(later, expected);
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_party_gets_what_is_for_it_and_nothing_else() {
    let lab = Lab::new(Setup { appliances: 4, ..Setup::default() }).await;
    let coordinator = lab.start().await;
    let answer = coordinator.caller.waiting("/api/v1/mpc/keygen", &keygen_body(3, 4)).await;
    assert_eq!(answer.body["status"], "completed", "{}", answer.body);
    for (me, appliance) in (0u16..).zip(&lab.appliances) {
        let mut seen = appliance.seen(&answer.body["session_id"]);
        seen.hellos.sort_unstable();
        let others: Vec<u16> = (0..4).filter(|other| *other != me).collect();
        assert_eq!(seen.hellos, others.iter().map(|other| party(*other)).collect::<Vec<_>>());
        let mut expected: Vec<Vec<u8>> = others.iter().map(|other| format!("all from {other}").into_bytes()).collect();
        expected.push(vec![u8::try_from((me + 3) % 4).unwrap(); 100_000]);
        seen.bodies.sort_unstable();
        expected.sort_unstable();
        assert!(seen.bodies == expected, "party {me} did not get what was for it");
    }
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appliances_are_told_all_that_the_contract_says() {
    let lab = Lab::new(Setup::default()).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    let mut body = sign_body(&key["account_id"], &format!("0x{HASH}"), &[1, 2]);
    body["intent"] = serde_json::json!({"type": "ethereum_transaction", "payload": "02"});
    body["approvals"] = serde_json::json!([{"statement": "{\"v\": 1}", "signature": "-----BEGIN"}]);
    let answer = coordinator.caller.waiting("/api/v1/mpc/sign", &body).await.body;
    let id = answer["session_id"].as_str().unwrap().parse().unwrap();
    let requests = lab.appliances[1].inside.requests.lock().unwrap();
    let asked = &requests[&id];
    assert_eq!(asked["join_token"], answer["join_tokens"]["party-1"]);
    assert_eq!(asked["certificate"], key["certificate"]);
    assert_eq!((&asked["key"], &asked["message_hash"]), (&key["public_key"], &HASH.into()));
    assert_eq!((&asked["intent"], &asked["approvals"]), (&body["intent"], &body["approvals"]));
    let keygen = &requests[&key["session_id"].as_str().unwrap().parse().unwrap()];
    assert_eq!((&keygen["label"], &keygen["share_type"]), (&"treasury".into(), &"wallet".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_share_one_connection_to_each_appliance() {
    let lab = Lab::new(Setup::default()).await;
    let coordinator = lab.start().await;
    let key = coordinator.key().await;
    let signing = (0..40).map(|_| coordinator.sign(&key["account_id"], HASH, &[0, 1]));
    for answer in futures::future::join_all(signing).await {
        assert_eq!(answer.body["status"], "completed", "{}", answer.body);
    }
    for appliance in &lab.appliances {
        assert_eq!(appliance.inside.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    }
    let metrics = coordinator.caller.get("/metrics").await.text;
    for line in [
        "mpc_sessions_total{type=\"sign\",result=\"completed\"} 40",
        "mpc_sign_duration_seconds_count 40",
        "mpc_session_success_rate 1.0",
        "mpc_node_up{party_id=\"party-2\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is missing in:\n{metrics}");
    }
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_wish_to_wait_the_answer_is_the_new_session() {
    let lab = Lab::new(Setup::default()).await;
    let coordinator = lab.start().await;
    let answer = coordinator.caller.post("/api/v1/mpc/keygen", &keygen_body(2, 3)).await;
    assert_eq!((answer.status, &answer.body["status"]), (201, &"created".into()));
    assert_eq!(answer.body["session_type"], "keygen");
    assert_eq!(answer.body["join_tokens"].as_object().unwrap().len(), 3);
    assert!(answer.body.get("account_id").is_none(), "no account before there is a key");
    let ended =
        coordinator.caller.session(&answer.body["session_id"], |session| session["status"] == "completed").await;
    assert!(ended["account_id"].is_string());
    tokio::time::sleep(Duration::from_millis(50)).await;
    coordinator.stop().await;
}
