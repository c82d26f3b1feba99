//! Who gets a connection, and who gets a route.

use std::time::Duration;

use casemate_appliance::clients::Role;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::http::tls;
use casemate_softhsm_tests::relay::pass;
use casemate_softhsm_tests::stream::attach;
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{ApplianceClient, Identity, TestLab};
use casemate_wire::Code;
use hyper::Method;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const COORDINATOR_NAME: &str = "coordinator.lab";

async fn one_appliance() -> TestLab {
    let mut lab = TestLab::new(Kind::Empty).await;
    lab.start(0).await;
    lab
}

/// The lab's own CA, to issue what the lab would not.
pub(super) fn lab_ca(lab: &TestLab) -> Issuer<'static, KeyPair> {
    let key = std::fs::read_to_string(lab.root.join("ca/ca.key")).unwrap();
    Issuer::new(lab_ca_params(), KeyPair::from_pem(&key).unwrap())
}

/// What the lab's CA says of itself.
pub(super) fn lab_ca_params() -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "Casemate lab CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A client certificate of good form for the coordinator's name.
fn client_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn issued(params: &CertificateParams, ca: &Issuer<'_, KeyPair>) -> Identity {
    let key = KeyPair::generate().unwrap();
    Identity::from_pem(&params.signed_by(&key, ca).unwrap().pem(), &key.serialize_pem())
}

async fn is_refused(client: &ApplianceClient) -> bool {
    client.call(Method::GET, "health", None).await.is_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_show_a_valid_certificate_gets_no_connection() {
    let lab = one_appliance().await;
    let size = lab.audit_size(0);
    let own = lab_ca(&lab);
    let good = issued(&client_params(COORDINATOR_NAME), &own);
    assert!(!is_refused(&lab.client_with(0, Some(&good))).await, "the table below tests something else");

    let mut expired = client_params(COORDINATOR_NAME);
    (expired.not_before, expired.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let mut early = client_params(COORDINATOR_NAME);
    (early.not_before, early.not_after) = (date_time_ymd(2090, 1, 1), date_time_ymd(2091, 1, 1));
    let mut for_servers = client_params(COORDINATOR_NAME);
    for_servers.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let other_key = KeyPair::generate().unwrap();
    let mut other = CertificateParams::new(Vec::new()).unwrap();
    other.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let other = Issuer::new(other, other_key);
    let own_key = KeyPair::generate().unwrap();
    let self_signed = client_params(COORDINATOR_NAME).self_signed(&own_key).unwrap();
    // A client's certificate that is used as a CA.
    let good_key = KeyPair::generate().unwrap();
    let below_a_client = Issuer::new(client_params(COORDINATOR_NAME), good_key);
    let cases = [
        ("no certificate", None),
        ("an expired certificate", Some(issued(&expired, &own))),
        ("a certificate that is not valid yet", Some(issued(&early, &own))),
        ("a certificate for servers", Some(issued(&for_servers, &own))),
        ("a certificate of another CA", Some(issued(&client_params(COORDINATOR_NAME), &other))),
        ("a self-signed certificate", Some(Identity::from_pem(&self_signed.pem(), &own_key.serialize_pem()))),
        ("a certificate issued by a client", Some(issued(&client_params(COORDINATOR_NAME), &below_a_client))),
    ];
    for (case, identity) in &cases {
        assert!(is_refused(&lab.client_with(0, identity.as_ref())).await, "{case} was let in");
    }

    let old = ApplianceClient::new(lab.parties[0].address, tls(&lab.ca(), Some(&good), &[&TLS12]));
    assert!(is_refused(&old).await, "TLS 1.2 was let in");
    assert!(!is_refused(&lab.client(0, Role::Monitor)).await, "the appliance serves on");
    let metrics = lab.client(0, Role::Monitor).get("/metrics").await.body;
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let refused = format!("mpc_auth_failures_total{{reason=\"tls\"}} {}", cases.len() + 1);
    assert!(metrics.contains(&refused), "{refused} should be in:\n{metrics}");
    assert_eq!(lab.audit_size(0), size);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plaintext_client_gets_no_http_answer() {
    let lab = one_appliance().await;
    let requests: [&[u8]; 3] = [
        b"GET /api/v1/mpc-party/health HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0; 64],
    ];
    for request in requests {
        let mut stream = TcpStream::connect(lab.parties[0].address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut answer)).await;
        // At most a TLS alert comes back before the connection is closed or reset.
        drop(read.expect("the connection is closed"));
        assert!(answer.len() <= 7 && !answer.starts_with(b"HTTP"), "{answer:?}");
    }
    assert!(!is_refused(&lab.client(0, Role::Monitor)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valid_certificate_that_is_not_named_gets_no_route() {
    let lab = one_appliance().await;
    let stranger = lab.client_with(0, Some(&issued(&client_params("stranger.lab"), &lab_ca(&lab))));
    let size = lab.audit_size(0);
    for (method, path) in ROUTES.iter().map(|(method, path, _)| (method, *path)).chain([(&Method::GET, "nowhere")]) {
        let problem = stranger.call(method.clone(), path, Some("{}".into())).await.unwrap().problem();
        assert_eq!(problem.code, Code::ForbiddenRole, "{path}: {problem}");
        assert!(problem.detail.contains("not named"), "{problem}");
    }
    assert_eq!(lab.audit_size(0), size);
}

const ALL: [Role; 4] = [Role::Coordinator, Role::Operator, Role::Auditor, Role::Monitor];

/// Every route, and who may call it.
const ROUTES: [(Method, &str, &[Role]); 11] = [
    (Method::POST, "keygen/participate", &[Role::Coordinator]),
    (Method::POST, "keygen/participate-sync", &[Role::Coordinator]),
    (Method::POST, "signing/participate", &[Role::Coordinator]),
    (Method::POST, "signing/participate-sync", &[Role::Coordinator]),
    (Method::POST, "sessions/none/messages", &[Role::Coordinator]),
    (Method::GET, "sessions/none", &[Role::Coordinator, Role::Operator, Role::Auditor]),
    (Method::GET, "shares", &[Role::Coordinator, Role::Operator, Role::Auditor]),
    (Method::GET, "shares/none", &[Role::Coordinator, Role::Operator, Role::Auditor]),
    (Method::GET, "shares/none/certificate", &[Role::Coordinator, Role::Operator, Role::Auditor]),
    (Method::GET, "health", &ALL),
    (Method::GET, "/metrics", &[Role::Monitor, Role::Operator]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_serves_its_roles_and_no_other() {
    let lab = one_appliance().await;
    let size = lab.audit_size(0);
    for role in ALL {
        let client = lab.client(0, role);
        for (method, path, roles) in ROUTES {
            let answer = client.call(method, path, Some("{}".into())).await.unwrap();
            let forbidden = answer.status == 403 && answer.problem().code == Code::ForbiddenRole;
            assert_eq!(forbidden, !roles.contains(&role), "{path} as {role:?}: {answer}");
        }
    }
    assert_eq!(lab.audit_size(0), size, "what has no role, or no good body, is not the audit log's matter");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_may_be_named_by_its_keys_fingerprint_and_be_revoked_by_list() {
    let mut lab = TestLab::new(Kind::Empty).await;
    let ca = lab_ca(&lab);
    let key = KeyPair::generate().unwrap();
    let mut params = client_params("anything.lab");
    params.serial_number = Some(SerialNumber::from(4242_u64));
    let named = Identity::from_pem(&params.signed_by(&key, &ca).unwrap().pem(), &key.serialize_pem());
    let fingerprint = sha256(&rcgen::PublicKeyData::subject_public_key_info(&key));
    let entry = format!("[[client]]\nname = \"by-key\"\nspki_sha256 = \"{fingerprint}\"\nroles = [\"monitor\"]\n");
    lab.configure(0, |text| format!("{text}\n{entry}"));
    lab.start(0).await;
    assert_eq!(lab.client_with(0, Some(&named)).get("health").await.status, 200);

    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(2090, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(4242_u64),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    std::fs::write(lab.parties[0].folder.join("clients.crl"), list.signed_by(&ca).unwrap().pem().unwrap()).unwrap();
    lab.stop(0);
    lab.configure(0, |text| text.replace("[tls]\n", "[tls]\ncrl = \"clients.crl\"\n"));
    lab.start(0).await;
    assert!(is_refused(&lab.client_with(0, Some(&named))).await, "a revoked certificate was let in");
    assert_eq!(lab.client(0, Role::Monitor).get("health").await.status, 200, "others are let in");
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_appliance_offers_tls_13_only() {
    let lab = one_appliance().await;
    let identity = lab.identity(Role::Monitor);
    let both = ApplianceClient::new(lab.parties[0].address, tls(&lab.ca(), Some(&identity), &[&TLS12, &TLS13]));
    assert_eq!(both.get("health").await.status, 200);
    let old = ApplianceClient::new(lab.parties[0].address, tls(&lab.ca(), Some(&identity), &[&TLS12]));
    let refused = old.call(Method::GET, "health", None).await.unwrap_err();
    assert!(refused.0.contains("ProtocolVersion"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_coordinator_sees_nothing_of_another_ones_sessions() {
    let mut lab = TestLab::new(Kind::Keyed).await;
    let other = issued(&client_params("second.lab"), &lab_ca(&lab));
    lab.configure_all("[[client]]\nname = \"second\"\nsan = \"second.lab\"\nroles = [\"coordinator\"]\n");
    lab.start_appliances().await;
    let (key, first) = (lab.key(), lab.lying_coordinator());
    let proposal = first.convener.sign(&key, &[0, 1], &Transfer::allowed(0));
    for answer in first.ask(&proposal).await {
        assert_eq!(answer.status, 202, "{answer}");
    }
    let second = lab.client_with(0, Some(&other));
    let path = format!("sessions/{}", proposal.session);
    assert_eq!(second.get(&path).await.problem().code, Code::SessionNotFound);
    let attached = attach(&second, &proposal.session).await.err().unwrap();
    assert_eq!(attached.problem().code, Code::SessionNotFound, "{attached}");
    for reader in [Role::Operator, Role::Auditor] {
        assert_eq!(lab.client(0, reader).get(&path).await.status, 200);
    }
    first.relay(&proposal, pass).await[0].signature();
    assert_eq!(second.get(&path).await.problem().code, Code::SessionNotFound, "nor of its result");
}
