//! What bad input gets.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::client::Caller;
use crate::support::{Lab, Running, Setup, keygen_body, sign_body};

const KEYGEN: &str = "/api/v1/mpc/keygen";
const SIGN: &str = "/api/v1/mpc/sign";
const HASH: &str = "0707070707070707070707070707070707070707070707070707070707070707";

async fn lab() -> (Lab, Running) {
    let lab = Lab::new(Setup::default()).await;
    let running = lab.start().await;
    (lab, running)
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    *body.pointer_mut(field).unwrap_or_else(|| panic!("{field}")) = value;
    body
}

fn plus(mut body: Value, field: &str) -> Value {
    body[field] = json!(1);
    body
}

fn without(mut body: Value, field: &str) -> Value {
    body.as_object_mut().unwrap().remove(field).unwrap();
    body
}

fn raw(caller: &Caller, path: &str, content_type: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = caller.request(Method::POST, path, "");
    request.headers_mut().insert("content-type", content_type.parse().unwrap());
    *request.body_mut() = Full::new(body.into());
    request
}

fn approved(mut body: Value, approvals: Value) -> Value {
    body["approvals"] = approvals;
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn keygen_bodies_that_make_no_sense_are_refused_by_field() {
    let (_lab, coordinator) = lab().await;
    let caller = &coordinator.caller;
    let good = || keygen_body(2, 3);
    let mut four = good();
    four["participants"].as_array_mut().unwrap().push(json!({"party_id": "party-9", "device_type": "server"}));
    for (body, hint) in [
        (with(good(), "/threshold_t", json!(1)), "t must be at least 2"),
        (with(good(), "/threshold_t", json!(4)), "t must be at most n"),
        (with(good(), "/threshold_n", json!(40)), "at most 16"),
        (with(good(), "/threshold_t", json!("2")), "threshold_t"),
        (with(good(), "/threshold_t", json!(-2)), "threshold_t"),
        (with(good(), "/threshold_n", json!(2)), "names 3 parties"),
        (with(good(), "/participants/1/party_id", json!("party-0")), "party-0 twice"),
        (with(good(), "/participants/1/party_id", json!("party-9")), "party-9 is not an appliance"),
        (with(good(), "/participants/1/party_id", json!("../x")), "participants[1].party_id"),
        (with(good(), "/participants/1", json!({"party_id": "party-1"})), "device_type"),
        (with(good(), "/participants/1/device_type", json!("")), "device_type"),
        (with(good(), "/participants", json!({})), "participants"),
        (with(good(), "/label", json!("x".repeat(65))), "label"),
        (with(good(), "/label", json!("a\u{7}")), "label"),
        (without(good(), "threshold_t"), "threshold_t"),
        (plus(good(), "treshold"), "unknown field"),
        (approved(good(), json!("none")), "approvals"),
        (approved(good(), json!([{"statement": "{}"}])), "signature"),
        (approved(good(), json!([{"statement": "{}", "signature": "", "by": "alice"}])), "unknown field"),
        (approved(good(), json!([{"statement": "x".repeat(16 * 1024 + 1), "signature": ""}])), "more than 16384 bytes"),
        (approved(good(), json!([{"statement": "", "signature": "x".repeat(4097)}])), "more than 4096 bytes"),
        (approved(good(), json!(vec![json!({"statement": "", "signature": ""}); 17])), "at most 16 approvals"),
        (four, "names 4 parties"),
        (json!([]), "not valid"),
        (json!(null), "not valid"),
    ] {
        let answer = caller.post(KEYGEN, &body).await;
        let detail = answer.is_problem(400, "bad_request");
        assert!(detail.contains(hint), "{hint:?} is not in {detail:?}");
    }
    let mut two = good();
    two["participants"].as_array_mut().unwrap().pop();
    let answer = caller.post(KEYGEN, &two).await;
    assert!(answer.is_problem(400, "insufficient_participants").contains("insufficient participants"));
    let with_type = with(good(), "/participants/0", json!({"party_id": "party-0", "device_type": "server", "x": 1}));
    caller.post(KEYGEN, &with_type).await.is_problem(400, "bad_request");
    assert_eq!(caller.get("/api/v1/accounts").await.body["total"], 0);
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_bodies_that_make_no_sense_are_refused_by_field() {
    let (_lab, coordinator) = lab().await;
    let caller = &coordinator.caller;
    let key = coordinator.key().await;
    let account = &key["account_id"];
    let good = || sign_body(account, HASH, &[0, 1]);
    for (body, hint) in [
        (
            with(good(), "/message_hash", json!("07".repeat(31))),
            "message_hash is not valid: the hash is not valid: it has 31 bytes, not 32",
        ),
        (with(good(), "/message_hash", json!("07".repeat(33))), "33 bytes"),
        (with(good(), "/message_hash", json!("zz".repeat(32))), "not hex"),
        (with(good(), "/message_hash", json!("")), "0 bytes"),
        (with(good(), "/account_id", json!("x")), "account_id"),
        (with(good(), "/participants/1/party_id", json!("party-0")), "party-0 twice"),
        (with(good(), "/participants/1/party_id", json!("party-9")), "party-9 holds no share"),
        (plus(good(), "derivation"), "unknown field"),
        (approved(good(), json!([{"by": "alice"}])), "unknown field"),
        (approved(good(), json!(vec![json!({"statement": "", "signature": ""}); 17])), "at most 16 approvals"),
        (with(good(), "/participants/1", json!({"party_id": "party-1", "x": 1})), "unknown field"),
        (without(good(), "message_hash"), "message_hash"),
    ] {
        let answer = caller.post(SIGN, &body).await;
        let detail = answer.is_problem(400, "bad_request");
        assert!(detail.contains(hint), "{hint:?} is not in {detail:?}");
    }
    let mut odd_intent = good();
    odd_intent["intent"] = json!({"type": "x", "payload": "", "colour": 1});
    caller.post(SIGN, &odd_intent).await.is_problem(400, "bad_request");
    let answer = caller.post(SIGN, &sign_body(account, HASH, &[1])).await;
    answer.is_problem(400, "insufficient_participants");
    assert_eq!(answer.body["needed"], 2);
    let unknown = json!("00000000-0000-4000-8000-000000000000");
    caller.post(SIGN, &sign_body(&unknown, HASH, &[0, 1])).await.is_problem(404, "account_not_found");
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_json_or_too_much_of_it_are_refused() {
    let (_lab, coordinator) = lab().await;
    let caller = &coordinator.caller;
    let json = "application/json; charset=utf-8";
    let good = keygen_body(2, 3).to_string();
    for body in ["", "{", "{\"threshold_n\":3,", "nonsense", &good[..good.len() - 1], &format!("{good}x")] {
        caller.send(raw(caller, KEYGEN, json, body.to_owned())).await.is_problem(400, "bad_request");
    }
    let invalid_utf8 = raw(caller, KEYGEN, json, Bytes::from_static(b"{\"label\":\"\xff\"}"));
    caller.send(invalid_utf8).await.is_problem(400, "bad_request");
    let twice = good.replacen('{', "{\"threshold_t\":2,", 1);
    caller.send(raw(caller, KEYGEN, json, twice)).await.is_problem(400, "bad_request");
    let deep = "[".repeat(10_000);
    caller.send(raw(caller, KEYGEN, json, deep)).await.is_problem(400, "bad_request");
    let large = format!("{good}{}", " ".repeat(64 * 1024));
    caller.send(raw(caller, KEYGEN, json, large)).await.is_problem(413, "payload_too_large");
    for other in ["text/plain", "application/xml", "application/jsonx", ""] {
        caller.send(raw(caller, KEYGEN, other, good.clone())).await.is_problem(415, "unsupported_media_type");
    }
    assert_eq!(caller.get("/api/v1/accounts").await.body["total"], 0);
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_addresses_methods_sessions_and_accounts_are_problems_too() {
    let (_lab, coordinator) = lab().await;
    let caller = &coordinator.caller;
    for path in ["/", "/api/v1/mpc", "/api/v1/mpc/presign", "/api/v1/mpc/keygen/", "/%00"] {
        caller.get(path).await.is_problem(404, "not_found");
    }
    for (method, path) in
        [(Method::GET, KEYGEN), (Method::PUT, SIGN), (Method::DELETE, "/api/v1/accounts"), (Method::POST, "/health")]
    {
        let answer = caller.send(caller.request(method, path, "")).await;
        answer.is_problem(405, "method_not_allowed");
        assert!(!answer.header("allow").is_empty());
    }
    for id in ["nope", "a%2Fb", "%ff", "00000000-0000-4000-8000-000000000000"] {
        let answer = caller.get(&format!("/api/v1/mpc/sessions/{id}")).await;
        assert!(answer.is_problem(404, "session_not_found").contains("session not found"));
        let answer = caller.get(&format!("/api/v1/accounts/{id}")).await;
        assert!(answer.is_problem(404, "account_not_found").contains("account not found"));
    }
    for query in ["page=0", "limit=0", "limit=9999", "page=x", "pages=1", "page=-1"] {
        caller.get(&format!("/api/v1/accounts?{query}")).await.is_problem(400, "bad_request");
    }
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_holders_of_a_key_get_in() {
    let (lab, coordinator) = lab().await;
    let good = &coordinator.caller;
    let with_key = |key: &str| Caller { key: key.into(), ..good.clone() };
    let mut flipped = good.key.clone();
    flipped.replace_range(flipped.len() - 1.., if flipped.ends_with('0') { "1" } else { "0" });
    let upper = good.key.to_uppercase();
    for bad in ["", "x", &flipped, &upper, &good.key[..good.key.len() - 1], "cmk_000000000000_00"] {
        let answer = with_key(bad).post(KEYGEN, &keygen_body(2, 3)).await;
        answer.is_problem(401, "unauthenticated");
        assert!(!answer.text.contains(&good.key));
        with_key(bad).get("/api/v1/accounts").await.is_problem(401, "unauthenticated");
    }
    let mut none = good.request(Method::GET, "/api/v1/accounts", "");
    none.headers_mut().remove("x-api-key");
    let answer = good.send(none).await;
    assert!(answer.is_problem(401, "unauthenticated").contains("api-key create"));
    let mut two = good.request(Method::GET, "/api/v1/accounts", "");
    two.headers_mut().append("x-api-key", "x".parse().unwrap());
    good.send(two).await.is_problem(401, "unauthenticated");

    for open in ["/health", "/metrics"] {
        assert_eq!(with_key("").get(open).await.status, 200);
    }
    let second = with_key(&lab.api_key("second"));
    assert_eq!(second.get("/api/v1/accounts").await.status, 200);
    let revoked = std::process::Command::new(crate::support::PROGRAM)
        .args(["api-key", "revoke", "--name", "second", "--config"])
        .arg(lab.config())
        .status()
        .unwrap();
    assert!(revoked.success());
    second.get("/api/v1/accounts").await.is_problem(401, "unauthenticated");
    let metrics = good.get("/metrics").await.text;
    for line in ["{reason=\"missing\"} 1", "{reason=\"malformed\"}", "{reason=\"unknown\"} 2", "{reason=\"revoked\"} 1"]
    {
        assert!(metrics.contains(&format!("mpc_auth_failures_total{line}")), "{line} is missing in:\n{metrics}");
    }
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sane_request_id_is_kept_and_any_other_replaced() {
    let (_lab, coordinator) = lab().await;
    let caller = &coordinator.caller;
    for (sent, kept) in [("abc-1.2_3", true), ("a b", false), ("x\u{e9}", false), (&"x".repeat(65), false)] {
        let mut request = caller.request(Method::GET, "/health", "");
        request.headers_mut().insert("x-request-id", hyper::header::HeaderValue::from_bytes(sent.as_bytes()).unwrap());
        let answer = caller.send(request).await;
        assert_eq!(answer.header("x-request-id") == sent, kept, "{sent:?}");
        assert!(!answer.header("x-request-id").is_empty());
    }
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_listed_by_pages() {
    let (_lab, coordinator) = lab().await;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(coordinator.key().await["account_id"].clone());
    }
    let first = coordinator.caller.get("/api/v1/accounts?limit=2").await.body;
    let second = coordinator.caller.get("/api/v1/accounts?limit=2&page=2").await.body;
    assert_eq!((&first["total"], &second["page"]), (&3.into(), &2.into()));
    let items = [&first["items"], &second["items"]].map(|items| items.as_array().unwrap().clone()).concat();
    assert_eq!(items.iter().map(|account| account["id"].clone()).collect::<Vec<_>>(), made);
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_configured_only_tls_1_3_is_served() {
    let lab = Lab::new(Setup::default()).await;
    let text = fs::read_to_string(lab.config()).unwrap();
    let tls = "[tls]\ncertificate = \"coordinator.pem\"\nkey = \"coordinator.key\"\n[token]";
    fs::write(lab.config(), text.replacen("127.0.0.1:0", "0.0.0.0:0", 1).replacen("[token]", tls, 1)).unwrap();
    let coordinator = lab.start().await;
    let address = ("127.0.0.1", coordinator.caller.address.port());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(lab.folder.path().join("ca.pem")).unwrap()).unwrap();
    let greet = async |versions: &[&'static rustls::SupportedProtocolVersion]| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = "coordinator".try_into().unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    assert!(greet(&[&rustls::version::TLS13]).await.unwrap().starts_with("HTTP/1.0 200"));
    assert!(greet(&[&rustls::version::TLS12]).await.is_err());
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /health HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
    coordinator.stop().await;
}
