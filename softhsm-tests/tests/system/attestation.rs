//! What an appliance says of itself, over real mTLS, and what peers, coordinator and verifiers make of it.

use std::fs;
use std::path::{Path, PathBuf};

use casemate_appliance::attestation::{PeerAppraisal, appraise};
use casemate_appliance::clients::Role;
use casemate_appliance::config::Config;
use casemate_attest::attestation::{MEDIA_TYPE, Reference, Unverified};
use casemate_softhsm_tests::TestLab;
use casemate_softhsm_tests::template::Kind;
use casemate_wire::Code;
use jiff::Timestamp;
use serde_json::Value;

const NONCE: &str = "0011223344556677889900112233445566778899001122334455667788990011";

fn path(nonce: &str) -> String {
    format!("attestation?nonce={nonce}")
}

/// Asks party `index` and keeps the token in a file.
async fn token(lab: &TestLab, index: usize, nonce: &str) -> PathBuf {
    let answer = lab.client(index, Role::Auditor).get(&path(nonce)).await;
    assert_eq!(answer.status, 200, "{answer}");
    let file = lab.root.join(format!("token-{index}.cwt"));
    fs::write(&file, &answer.body).unwrap();
    file
}

/// What `casemate attest reference` writes on the host of party `index`.
fn reference(lab: &TestLab, index: usize) -> PathBuf {
    let file = lab.root.join(format!("reference-{index}.toml"));
    let config = lab.parties[index].config.display().to_string();
    let arguments = ["attest", "reference", "--config", &config, "--output", file.to_str().unwrap()];
    let done = lab.program(index, "casemate", &arguments);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    file
}

/// Runs `casemate attest verify`: the exit code and what it says.
fn verify(lab: &TestLab, reference: &Path, nonce: &str, token: &Path) -> (i32, Value) {
    let (reference, token) = (reference.to_str().unwrap(), token.to_str().unwrap());
    let arguments = ["attest", "verify", "--reference", reference, "--nonce", nonce, "--format", "json", token];
    let done = lab.program(0, "casemate", &arguments);
    (done.status.code().unwrap(), serde_json::from_slice(&done.stdout).unwrap_or(Value::Null))
}

#[tokio::test]
async fn coordinator_operator_and_auditor_get_a_token_that_their_reference_affirms() {
    let lab = TestLab::empty().await;
    let reference = reference(&lab, 0);
    for (role, nonce) in
        [(Role::Coordinator, "00".repeat(8)), (Role::Operator, NONCE.into()), (Role::Auditor, "ff".repeat(64))]
    {
        let answer = lab.client(0, role).get(&path(&nonce)).await;
        assert_eq!(answer.status, 200, "{answer}");
        assert_eq!(answer.headers["content-type"], MEDIA_TYPE);
        let file = lab.root.join("token.cwt");
        fs::write(&file, &answer.body).unwrap();
        let (code, verdict) = verify(&lab, &reference, &nonce, &file);
        assert_eq!((code, &verdict["verdict"]), (0, &"affirming".into()), "{verdict}");
        assert_eq!(verdict["claims"]["eat_nonce"], Value::from(nonce.clone()));
        let said = lab.program(0, "casemate", &["attest", "show", file.to_str().unwrap()]);
        let said = String::from_utf8(said.stdout).unwrap();
        assert!(said.starts_with("NOT VERIFIED") && said.contains(&nonce), "{said}");
    }
    assert_eq!(lab.client(0, Role::Monitor).get(&path(NONCE)).await.problem().code, Code::ForbiddenRole);
}

#[tokio::test]
async fn a_question_without_a_good_nonce_is_refused() {
    let lab = TestLab::empty().await;
    let client = lab.client(0, Role::Auditor);
    let bad = [
        "attestation".to_owned(),
        path(""),
        path("00112233445566"),
        path(&"00".repeat(65)),
        path("00112233445566zz"),
        path("0011223344556677&nonce=0011223344556677"),
        path("0011223344556677&colour=red"),
    ];
    for bad in bad {
        assert_eq!(client.get(&bad).await.problem().code, Code::BadRequest, "{bad}");
    }
}

#[tokio::test]
async fn a_token_for_another_question_or_of_another_host_is_not_genuine() {
    let lab = TestLab::empty().await;
    let (one, two) = (reference(&lab, 0), reference(&lab, 1));
    let token = token(&lab, 0, NONCE).await;
    assert_eq!(verify(&lab, &one, NONCE, &token).0, 0);
    let (code, verdict) = verify(&lab, &one, &"11".repeat(32), &token);
    assert_eq!((code, &verdict["verdict"]), (1, &"not_genuine".into()), "{verdict}");
    assert!(verdict["why"].as_str().unwrap().contains("another question"), "{verdict}");
    let (code, verdict) = verify(&lab, &two, NONCE, &token);
    assert_eq!((code, &verdict["verdict"]), (1, &"not_genuine".into()), "{verdict}");
    let mut altered = fs::read(&token).unwrap();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    fs::write(&token, altered).unwrap();
    assert_eq!(verify(&lab, &one, NONCE, &token).0, 1);
    let missing = lab.root.join("no-such-token");
    assert_eq!(verify(&lab, &one, NONCE, &missing).0, 2);
}

#[tokio::test]
async fn another_configuration_and_another_certificate_are_found_and_each_start_is_counted() {
    let mut lab = TestLab::empty().await;
    let reference = reference(&lab, 0);
    let boots = |file: &Path| Unverified::read(&fs::read(file).unwrap()).unwrap().claims.boots;
    let before = boots(&token(&lab, 0, NONCE).await);
    lab.stop(0);
    lab.configure(0, |text| format!("{text}\n# one byte more\n"));
    let tls = lab.parties[0].folder.join("tls");
    let other = lab.parties[1].folder.join("tls");
    for name in ["server.pem", "server.key"] {
        fs::copy(other.join(name), tls.join(name)).unwrap();
    }
    lab.start(0).await;
    let token = token(&lab, 0, NONCE).await;
    let (code, verdict) = verify(&lab, &reference, NONCE, &token);
    assert_eq!((code, &verdict["verdict"]), (1, &"contraindicated".into()), "{verdict}");
    let findings = verdict["findings"].as_array().unwrap();
    let claims: Vec<&str> = findings.iter().map(|finding| finding["claim"].as_str().unwrap()).collect();
    assert_eq!(claims, ["config", "tls_spki"], "{verdict}");
    assert_eq!(boots(&token), before + 1);
}

#[tokio::test]
async fn fetch_asks_over_mtls_with_a_nonce_of_its_own() {
    let lab = TestLab::empty().await;
    let reference = reference(&lab, 1);
    let credentials = lab.credentials(Role::Operator);
    let file = lab.root.join("fetched.cwt");
    let text = |path: &Path| path.display().to_string();
    let (ca, cert, key) = (text(&credentials.ca), text(&credentials.certificate), text(&credentials.key));
    let url = lab.parties[1].url.clone();
    let fetch = |url: &str, more: &[&str]| {
        let mut arguments = vec!["attest", "fetch", "--url", url, "--ca", &ca, "--cert", &cert, "--key", &key];
        arguments.extend(more);
        lab.program(0, "casemate", &arguments)
    };
    let done = fetch(&url, &["--output", file.to_str().unwrap()]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{said}");
    let nonce = said.trim().strip_prefix("nonce ").unwrap();
    assert_eq!(verify(&lab, &reference, nonce, &file).0, 0);
    // By name, as its certificate has it; and the token as it is on standard output.
    let by_name = url.replace("127.0.0.1", "localhost");
    let printed = fetch(&by_name, &["--nonce", NONCE]);
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    fs::write(&file, printed.stdout).unwrap();
    assert_eq!(verify(&lab, &reference, NONCE, &file).0, 0);
    assert_eq!(fetch("http://127.0.0.1:1", &[]).status.code(), Some(2));
}

#[tokio::test]
async fn a_peer_is_appraised_by_what_the_configuration_pins_of_it() {
    let mut lab = TestLab::empty().await;
    let nonce = hex::decode(NONCE).unwrap();
    let token = fs::read(token(&lab, 1, NONCE).await).unwrap();
    let reference_file = reference(&lab, 1);
    let reference = Reference::parse(&fs::read_to_string(&reference_file).unwrap()).unwrap();
    lab.stop(0);
    let peer = lab.parties[1].party_id.clone();
    let pin = format!("identity = \"{}\"", lab.parties[1].identity);
    let plain = fs::read_to_string(&lab.parties[0].config).unwrap();
    let with = |line: &str| {
        lab.configure(0, |_| plain.replacen(&pin, &format!("{pin}\n{line}"), 1));
        Config::load(&lab.parties[0].config)
    };
    let judge = |config: &Config, nonce: &[u8]| appraise(config, &peer, &token, nonce, Timestamp::now()).unwrap();
    assert!(matches!(judge(&with("").unwrap(), &nonce), PeerAppraisal::Unknown));
    let by_key = with(&format!("attest = \"{}\"", reference.attest_key)).unwrap();
    assert!(matches!(judge(&by_key, &nonce), PeerAppraisal::Genuine(_)));
    assert!(matches!(judge(&by_key, &[7; 32]), PeerAppraisal::Refused(_)));
    let by_file = with(&format!("reference = \"{}\"", reference_file.display())).unwrap();
    assert!(matches!(judge(&by_file, &nonce), PeerAppraisal::Affirming(_)));
    let other = Reference { binary: vec![casemate_wire::Digest32([0; 32])], ..reference.clone() };
    fs::write(&reference_file, other.to_toml().unwrap()).unwrap();
    let by_file = with(&format!("reference = \"{}\"", reference_file.display())).unwrap();
    let PeerAppraisal::Contraindicated(findings) = judge(&by_file, &nonce) else { panic!() };
    assert_eq!(findings.iter().map(|finding| finding.claim).collect::<Vec<_>>(), ["binary"]);
    // What the configuration must not pin.
    let own = Reference::parse(&fs::read_to_string(self::reference(&lab, 0)).unwrap()).unwrap();
    let wrong = |line: &str| with(line).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(wrong(&format!("attest = \"{}\"", lab.parties[1].identity)).contains("an identity key"));
    let file = lab.root.join("reference-0.toml");
    assert!(wrong(&format!("reference = \"{}\"", file.display())).contains("it is of party-1"));
    // The host's own attest key under a peer's name: found when the HSM is open.
    with(&format!("attest = \"{}\"", own.attest_key)).unwrap();
    let config = lab.parties[0].config.display().to_string();
    let done = lab.program(0, "casemated", &["--config", &config]);
    assert!(String::from_utf8_lossy(&done.stderr).contains("own attest key"));
}

#[tokio::test]
async fn a_build_without_tpm_support_refuses_a_tpm_with_advice() {
    let lab = TestLab::new(Kind::Empty).await;
    let config = lab.parties[0].config.display().to_string();
    let check = |section: &str| {
        let plain = fs::read_to_string(&config).unwrap();
        lab.configure(0, |text| format!("{text}\n[attestation]\n{section}\n"));
        let done = lab.program(0, "casemated", &["--config", &config, "--check-config"]);
        fs::write(&config, plain).unwrap();
        String::from_utf8(done.stderr).unwrap()
    };
    let said = check("tpm = \"device:/dev/tpmrm0\"");
    assert!(said.contains("attestation.tpm") && said.contains("--features tpm"), "{said}");
    assert!(check("tpm = \"device:/dev/tpmrm0\"\npcrs = [24]").contains("0 to 23"));
    assert!(check("pcrs = [0]").contains("attestation.pcrs"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_convenes_no_session_with_a_party_that_is_not_as_its_reference_says() {
    let (mut lab, key) = TestLab::keyed().await;
    let good = reference(&lab, 0);
    let config = lab.coordinator.config.clone();
    let text = fs::read_to_string(&config).unwrap();
    let pin = format!("identity = \"{}\"", lab.parties[0].identity);
    let line = format!("{pin}\nreference = \"{}\"", good.display());
    fs::write(&config, text.replacen(&pin, &line, 1)).unwrap();
    lab.start_coordinator().await;
    let desk = lab.front_door().unwrap();
    let transfer = casemate_softhsm_tests::ethereum::Transfer::allowed(0);
    let body = serde_json::json!({
        "account_id": key.account_id, "message_hash": transfer.hash(), "intent": transfer.intent(),
        "participants": [{"party_id": "party-1"}, {"party_id": "party-2"}],
    });
    let wait = Some(std::time::Duration::from_secs(60));
    let signed = desk.post("/api/v1/mpc/sign", &body, wait).await.unwrap();
    assert_eq!(signed.body["status"], "completed", "{signed:?}");
    let before = lab.sessions(1);
    lab.stop(0);
    lab.configure(0, |text| format!("{text}\n# one byte more\n"));
    lab.start(0).await;
    let refused = desk.post("/api/v1/mpc/sign", &body, wait).await.unwrap();
    assert_eq!((refused.status, &refused.body["code"]), (502, &"attestation_failed".into()), "{refused:?}");
    assert_eq!(refused.body["party"], "party-1");
    assert_eq!(refused.body["findings"][0]["claim"], "config");
    assert_eq!(lab.sessions(1), before, "a party was asked although the other does not attest what it should");
}
