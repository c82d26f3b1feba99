//! Bodies, paths and queries that are not what they should be.

use casemate_appliance::clients::Role;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::{Answer, TestLab};
use casemate_wire::Code;
use casemate_wire::api::{MAX_BODY, Page, ShareView};
use hyper::Method;
use serde_json::{Value, json};

const SIGN: &str = "signing/participate";
const KEYGEN: &str = "keygen/participate";

/// A value with one field changed, or taken away.
fn with(body: &Value, field: &str, value: Value) -> String {
    let mut body = body.clone();
    body[field] = value;
    body.to_string()
}

fn without(body: &Value, field: &str) -> String {
    let mut body = body.clone();
    body.as_object_mut().unwrap().remove(field).unwrap();
    body.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_not_as_stated_is_refused_and_changes_nothing() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let convener = &coordinator.convener;
    let sign = convener.body(&convener.sign(&key, &[0, 1], &Transfer::allowed(0)).invitations[0]);
    let keygen = convener.body(&convener.keygen().invitations[0]);
    let text = sign.to_string();
    let before = (lab.audit_size(0), lab.sessions(0));
    let hash = sign["message_hash"].as_str().unwrap();
    let cases: Vec<(&str, &str, String)> = vec![
        ("nothing", SIGN, String::new()),
        ("no JSON", SIGN, "hello".into()),
        ("half of the JSON", SIGN, text[..text.len() / 2].into()),
        ("something after the JSON", SIGN, format!("{text} {{}}")),
        ("no object", SIGN, "[]".into()),
        ("an unknown field", SIGN, with(&sign, "surprise", json!(1))),
        ("an unknown field in the intent", SIGN, with(&sign, "intent", json!({"type": "raw", "payload": "", "x": 1}))),
        ("a field of another call", KEYGEN, with(&keygen, "message_hash", json!(hash))),
        ("a missing field", SIGN, without(&sign, "message_hash")),
        ("a missing token", KEYGEN, without(&keygen, "join_token")),
        ("a number for a text", SIGN, with(&sign, "join_token", json!(7))),
        ("null for a text", SIGN, with(&sign, "session_id", Value::Null)),
        ("a text for a list", SIGN, with(&sign, "approvals", json!("none"))),
        ("a field twice", SIGN, text.replacen('{', &format!("{{\"message_hash\": \"{hash}\","), 1)),
        ("a field by both of its names", SIGN, with(&sign, "messageHash", json!(hash))),
        ("a short hash", SIGN, with(&sign, "message_hash", json!(&hash[2..]))),
        ("a long hash", SIGN, with(&sign, "message_hash", json!(format!("{hash}00")))),
        ("a hash that is no hex", SIGN, with(&sign, "message_hash", json!("zz".repeat(32)))),
        ("a key that is no point", SIGN, with(&sign, "key", json!(format!("02{}", "ff".repeat(32))))),
        ("an uncompressed key", SIGN, with(&sign, "key", json!(format!("04{}", "11".repeat(64))))),
        ("a session id with a slash", SIGN, with(&sign, "session_id", json!("../../etc"))),
        ("a session id that is too long", SIGN, with(&sign, "session_id", json!("a".repeat(65)))),
        ("an empty party id", SIGN, with(&sign, "party_id", json!(""))),
        ("an unknown share type", KEYGEN, with(&keygen, "share_type", json!("purse"))),
        ("deep nesting", SIGN, format!("{{\"approvals\": {}{}}}", "[".repeat(20_000), "]".repeat(20_000))),
    ];
    let client = &coordinator.appliances[0];
    for (case, route, body) in cases {
        let problem = client.post_text(route, body).await.problem();
        assert_eq!(problem.code, Code::BadRequest, "{case}: {problem}");
        assert!(problem.detail.len() < 500, "{case}: {problem}");
    }
    let padded = with(&sign, "label", json!("x".repeat(MAX_BODY)));
    assert_eq!(client.post_text(SIGN, padded).await.problem().code, Code::PayloadTooLarge);
    assert_eq!((lab.audit_size(0), lab.sessions(0)), before, "nothing was recorded");

    let answer = client.post_text(SIGN, text).await;
    assert_eq!(answer.status, 202, "the body that all of these were made of is good: {answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_may_use_camel_case_and_0x() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let body = |nonce| {
        let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(nonce));
        coordinator.convener.body(&proposal.invitations[0])
    };
    let client = &coordinator.appliances[0];
    let snake = body(0);
    let camel = json!({
        "sessionId": snake["session_id"], "partyId": snake["party_id"], "joinToken": snake["join_token"],
        "key": format!("0x{}", snake["key"].as_str().unwrap()),
        "messageHash": format!("0x{}", snake["message_hash"].as_str().unwrap().to_uppercase()),
        "intent": {"type": "ethereum_transaction", "payload": format!("0x{}", snake["intent"]["payload"].as_str().unwrap())},
    });
    let answer = client.post(SIGN, &camel).await;
    assert_eq!(answer.status, 202, "{answer}");
    assert_eq!(answer.value()["session_id"], snake["session_id"]);
    assert!(answer.headers.contains_key("x-request-id"));

    let proposal = coordinator.convener.keygen();
    let snake = coordinator.convener.body(&proposal.invitations[0]);
    let camel = json!({
        "sessionId": snake["session_id"], "partyId": snake["party_id"], "joinToken": snake["join_token"],
        "shareType": "wallet",
    });
    assert_eq!(client.post(KEYGEN, &camel).await.status, 202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_answered_with_its_own_code() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let client = &coordinator.appliances[0];
    let before = (lab.audit_size(0), lab.sessions(0));
    let cases = [
        (Method::GET, "nowhere", Code::NotFound),
        (Method::GET, "/", Code::NotFound),
        (Method::GET, "/api/v2/mpc-party/health", Code::NotFound),
        (Method::GET, SIGN, Code::MethodNotAllowed),
        (Method::PUT, KEYGEN, Code::MethodNotAllowed),
        (Method::DELETE, "shares/1", Code::MethodNotAllowed),
        (Method::GET, "sessions/unknown", Code::SessionNotFound),
        (Method::GET, "sessions/%2e%2e", Code::SessionNotFound),
        (Method::POST, "sessions/unknown/messages", Code::SessionNotFound),
        (Method::GET, "shares/unknown", Code::ShareNotFound),
        (Method::GET, "shares/unknown/certificate", Code::ShareNotFound),
        (Method::GET, "shares?page=0", Code::BadRequest),
        (Method::GET, "shares?limit=1000000", Code::BadRequest),
        (Method::GET, "shares?limit=-1", Code::BadRequest),
        (Method::GET, "shares?status=lost", Code::BadRequest),
        (Method::GET, "shares?surprise=1", Code::BadRequest),
    ];
    for (method, path, code) in cases {
        let problem = client.call(method.clone(), path, Some("{}".into())).await.unwrap().problem();
        assert_eq!(problem.code, code, "{method} {path}: {problem}");
    }
    assert_eq!((lab.audit_size(0), lab.sessions(0)), before, "nothing was recorded");

    let for_another = convened_for_party_2(&coordinator, &key).await;
    assert_eq!(for_another.problem().code, Code::BadRequest, "{for_another}");
    assert_eq!(lab.sessions(0), before.1);
    assert_eq!(lab.audit_size(0), before.0 + 1, "the refusal is recorded");
}

/// A good call for party-2, sent to party-1.
async fn convened_for_party_2(
    coordinator: &casemate_softhsm_tests::LyingCoordinator,
    key: &casemate_softhsm_tests::Key,
) -> Answer {
    let proposal = coordinator.convener.sign(key, &[0, 1], &Transfer::allowed(0));
    coordinator.appliances[0].post(SIGN, &coordinator.convener.body(&proposal.invitations[1])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_are_shown_without_their_secrets() {
    let (lab, key) = TestLab::keyed().await;
    for role in [Role::Coordinator, Role::Operator, Role::Auditor] {
        let client = lab.client(1, role);
        let page: Page<ShareView> = client.read("shares?status=active&share_type=wallet&page=1&limit=10").await;
        assert_eq!((page.total, page.items.len()), (1, 1));
        let share: ShareView = client.read(&format!("shares/{}", page.items[0].id)).await;
        assert_eq!(share, page.items[0]);
        assert_eq!((share.threshold.as_str(), share.status.as_str(), share.epoch), ("2-of-3", "active", 1));
        assert_eq!(share.kek, "kek/1");
        assert_eq!(share.public_key, key.public_key());
        assert_eq!(share.participants, lab.parties.iter().map(|party| party.party_id.clone()).collect::<Vec<_>>());
        let answer = client.get(&format!("shares/{}", share.id)).await.value();
        let mut fields: Vec<&String> = answer.as_object().unwrap().keys().collect();
        fields.sort();
        let public = "created_at epoch id kek key_created_at participants party_id public_key session_id share_type status threshold";
        assert_eq!(fields, public.split(' ').collect::<Vec<_>>(), "metadata only");
        let certificate = client.get(&format!("shares/{}/certificate", share.id)).await.value();
        assert_eq!(certificate, json!(key.certificate));
    }
    let none: Page<ShareView> = lab.client(1, Role::Auditor).read("shares?status=revoked").await;
    assert_eq!(none.total, 0);
}
