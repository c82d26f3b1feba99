//! TLS files that are renewed under a running daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use casemate_appliance::clients::Role;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::http::tls;
use casemate_softhsm_tests::relay::pass;
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{Identity, TestLab};
use hyper::Method;
use rcgen::{
    CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, Issuer, KeyIdMethod, KeyPair,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustix::process::{Pid, Signal, kill_process};
use rustls::version::TLS13;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::transport::lab_ca;

/// The longest wait for a daemon to have looked at its files.
const LIMIT: Duration = Duration::from_secs(30);
const SERIAL: u64 = 4242;

fn file(lab: &TestLab, name: &str) -> PathBuf {
    lab.parties[0].folder.join(name)
}

/// Puts a file in place as the runbook says, by a move: it is another file than the one that the daemon's sandbox saw at its start.
fn put(lab: &TestLab, name: &str, text: &str) {
    let beside = file(lab, &format!("{name}.new"));
    fs::write(&beside, text).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&beside, file(lab, name)).unwrap();
}

/// Sends SIGHUP and waits until the log has the event once more. Blocks its thread, so that it can be called while frames wait.
fn hang_up(lab: &TestLab, event: &str) {
    let word = format!("event=\"{event}\"");
    let count = || lab.log(0).matches(&word).count();
    let before = count();
    let pid = Pid::from_raw(lab.pid(0).try_into().unwrap()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    let begun = Instant::now();
    while count() == before {
        assert!(begun.elapsed() < LIMIT, "no {event}: {}", lab.log(0));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Puts another certificate of the lab's CA and its key in place.
fn renew(lab: &TestLab) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2089, 1, 1));
    let certificate = params.signed_by(&key, &lab_ca(lab)).unwrap();
    put(lab, "tls/server.pem", &certificate.pem());
    put(lab, "tls/server.key", &key.serialize_pem());
    certificate.der().to_vec()
}

/// The certificate that a new connection is shown.
async fn served(lab: &TestLab) -> Vec<u8> {
    let config = tls(&lab.ca(), Some(&lab.identity(Role::Monitor)), &[&TLS13]);
    let stream = TcpStream::connect(lab.parties[0].address).await.unwrap();
    let name = "127.0.0.1".to_owned().try_into().unwrap();
    let stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

async fn health(lab: &TestLab) -> Value {
    lab.client(0, Role::Monitor).read("health").await
}

async fn metrics(lab: &TestLab) -> String {
    let answer = lab.client(0, Role::Monitor).get("/metrics").await;
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// Why a daemon would not start.
fn start_refused(lab: &TestLab) -> String {
    let config = lab.parties[0].config.to_str().unwrap();
    let output = lab.program(0, "casemated", &["--check-config", "--config", config]);
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_served_after_a_hangup_and_running_sessions_go_on() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0));
    let before = served(&lab).await;
    let mut renewed = Vec::new();
    let ends = coordinator
        .run(&proposal, |from, to, frame| {
            if renewed.is_empty() {
                renewed = renew(&lab);
                hang_up(&lab, "tls_files_loaded");
            }
            pass(from, to, frame)
        })
        .await;
    ends[0].signature();
    assert!(!renewed.is_empty() && renewed != before);
    assert_eq!(served(&lab).await, renewed);
    let health = health(&lab).await;
    assert_eq!((&health["status"], &health["checks"]["tls"]["ok"]), (&"ok".into(), &true.into()), "{health}");
    let metrics = metrics(&lab).await;
    assert!(metrics.contains("mpc_tls_loads_total{result=\"loaded\"} 1\n"), "{metrics}");
    // 2089 is 62 years away, the lab's CA one.
    let line = metrics.lines().find_map(|line| line.strip_prefix("mpc_tls_expiry_seconds{what=\"certificate\"} "));
    assert!(line.unwrap().parse::<i64>().unwrap() > 60 * 365 * 86_400, "{metrics}");
    let line = metrics.lines().find_map(|line| line.strip_prefix("mpc_tls_expiry_seconds{what=\"ca\"} "));
    assert!((0..366 * 86_400).contains(&line.unwrap().parse::<i64>().unwrap()), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_does_not_fit_leaves_the_old_certificate_in_use_and_health_says_so() {
    let mut lab = TestLab::new(Kind::Empty).await;
    lab.start(0).await;
    let before = served(&lab).await;
    put(&lab, "tls/server.key", &KeyPair::generate().unwrap().serialize_pem());
    hang_up(&lab, "tls_files_refused");
    assert_eq!(served(&lab).await, before);
    let shown = health(&lab).await;
    assert_eq!(shown["status"], "degraded", "{shown}");
    let detail = shown["checks"]["tls"]["detail"].as_str().unwrap();
    assert!(detail.contains("refused since 20") && detail.contains("KeyMismatch"), "{detail}");
    let text = metrics(&lab).await;
    assert!(text.contains("mpc_tls_loads_total{result=\"refused\"} 1\n"), "{text}");
    assert!(!text.contains("mpc_tls_refused_seconds 0\n"), "{text}");

    let renewed = renew(&lab);
    hang_up(&lab, "tls_files_loaded");
    assert_eq!((served(&lab).await, health(&lab).await["status"].as_str()), (renewed, Some("ok")));
    // The same loader judges at the start.
    lab.stop(0);
    put(&lab, "tls/server.key", &KeyPair::generate().unwrap().serialize_pem());
    assert!(start_refused(&lab).contains("KeyMismatch"));
}

fn put_list(lab: &TestLab, ca: &Issuer<'_, KeyPair>, until: i32, revoked: &[u64]) {
    let revoked = revoked.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2026, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2025, 1, 1),
        next_update: date_time_ymd(until, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    put(lab, "clients.crl", &list.signed_by(ca).unwrap().pem().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_list_bites_without_a_restart_and_a_bad_list_frees_nobody() {
    let mut lab = TestLab::new(Kind::Empty).await;
    let ca = lab_ca(&lab);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["second.lab".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(SerialNumber::from(SERIAL));
    let identity = Identity::from_pem(&params.signed_by(&key, &ca).unwrap().pem(), &key.serialize_pem());
    let entry = "[[client]]\nname = \"second\"\nsan = \"second.lab\"\nroles = [\"monitor\"]\n";
    lab.configure(0, |text| format!("{}\n{entry}", text.replace("[tls]\n", "[tls]\ncrl = \"clients.crl\"\n")));
    put_list(&lab, &ca, 2090, &[]);
    lab.start(0).await;
    let connected = lab.client_with(0, Some(&identity));
    assert_eq!(connected.get("health").await.status, 200);
    let unconcerned = lab.client(0, Role::Operator);
    assert_eq!(unconcerned.get("health").await.status, 200);

    put_list(&lab, &ca, 2090, &[SERIAL]);
    hang_up(&lab, "connection_withdrawn");
    // The connection that it had is closed; a new one is refused.
    let new = lab.client_with(0, Some(&identity));
    for _ in 0..2 {
        assert!(new.call(Method::GET, "health", None).await.is_err());
        assert!(connected.call(Method::GET, "health", None).await.is_err());
    }
    assert_eq!(unconcerned.get("health").await.status, 200);
    assert_eq!(lab.log(0).matches("event=\"connection_withdrawn\"").count(), 1, "nobody else is cut off");

    // A list that has expired, or that another key signed, would free the client.
    put_list(&lab, &ca, 2026, &[]);
    hang_up(&lab, "tls_files_refused");
    let detail = health(&lab).await["checks"]["tls"]["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("expired at"), "{detail}");
    let impostor = Issuer::new(super::transport::lab_ca_params(), KeyPair::generate().unwrap());
    put_list(&lab, &impostor, 2090, &[]);
    hang_up(&lab, "tls_files_refused");
    let shown = health(&lab).await;
    assert!(shown["checks"]["tls"]["detail"].as_str().unwrap().contains("did not sign it"), "{shown}");
    assert!(new.call(Method::GET, "health", None).await.is_err(), "the list before stays in force");
    assert!(metrics(&lab).await.contains("mpc_tls_expiry_seconds{what=\"crl\"}"));
    // Nor does a daemon start on such a list.
    lab.stop(0);
    assert!(start_refused(&lab).contains("did not sign it"));
}
