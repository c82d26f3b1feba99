//! No secret in a log line: keys live their lives on daemons that log everything that they can, then all logs, and all that tools
//! said, are searched for every secret that the lab knows.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use casemate_appliance::lab::Service;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{Key, Plan, TestLab};
use serde_json::json;

use super::backups::{as_printed, casemate, made, mandate, replace_host, restore, text, verify, with_custodians};
use super::keks::hsm;
use super::rotating_accounts::{approved, ordered, rotated, settled, signed};

/// What no log shows, whatever its value: join tokens and other JWTs, API keys, private keys, approvals, members of requests' bodies.
const FORMS: [&str; 7] =
    ["eyJ", "cmk_", "PRIVATE KEY", "AGE-SECRET-KEY", "BEGIN SSH SIGNATURE", "\"join_token\":", "\"message_hash\":"];
const WRONG_PIN: &str = "86420975310864";
/// So much of a secret is enough to be found.
const PART: usize = 16;

/// Has every program of a lab, none of which runs, log all that it can; what was logged before is taken away.
fn log_everything(lab: &TestLab) {
    for entry in fs::read_dir(lab.root.join("logs")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let trace = |text: String| {
        assert!(text.contains("level = \"info\""), "{text}");
        text.replace("level = \"info\"", "level = \"trace\"")
    };
    for index in 0..lab.parties.len() {
        lab.configure(index, trace);
    }
    let path = lab.root.join("coordinator/coordinator.toml");
    fs::write(&path, trace(fs::read_to_string(&path).unwrap())).unwrap();
}

/// All files below a folder, but for the logs.
fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("logs") {
            files(&path, found);
        } else if path.is_file() {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
}

/// The secrets that lie in a lab's files: PINs, the API key, every private key. With where each stands.
fn written(lab: &TestLab) -> Vec<(String, String)> {
    let mut all = Vec::new();
    files(&lab.root, &mut all);
    let mut secrets = Vec::new();
    for (name, bytes) in all {
        let Ok(text) = String::from_utf8(bytes) else { continue };
        if name.ends_with("/pin") || name.ends_with("/so-pin") || name.ends_with("/api.key") {
            secrets.push((name, text.trim().to_owned()));
        } else if text.contains("PRIVATE KEY") || text.contains("AGE-SECRET-KEY") {
            // An SSH key's file begins with its form and public key; what is secret stands further down.
            let hidden = text.lines().filter(|line| line.len() > 2 * PART && !line.contains("AAAAC3NzaC1lZDI1NTE5"));
            secrets.extend(hidden.map(|line| (name.clone(), line.to_owned())));
        }
    }
    secrets
}

/// The ways in which bytes are printed.
fn printed(secret: &[u8]) -> Vec<String> {
    let part = &secret[..PART];
    let list = part.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    // Of base64 the last letter depends on what follows.
    let sixes = |text: String| text[..text.len() - 1].to_owned();
    let (standard, url) = (sixes(STANDARD_NO_PAD.encode(part)), sixes(URL_SAFE_NO_PAD.encode(part)));
    vec![hex::encode(part), hex::encode_upper(part), list, standard, url]
}

/// Where the logs show what they must not.
fn breaches(logs: &[(String, String)], texts: &[(String, String)], bytes: &[String]) -> Vec<String> {
    let opened = bytes.iter().flat_map(|secret| {
        let forms = printed(&hex::decode(secret).unwrap());
        forms.into_iter().map(|form| ("a share, DEK or prime".to_owned(), form))
    });
    let sought: Vec<(String, String)> = texts.iter().cloned().chain(opened).collect();
    let forms: Vec<(String, String)> = FORMS.map(|form| ("by its form".to_owned(), form.to_owned())).to_vec();
    let mut found = Vec::new();
    for (name, log) in logs {
        // What programs print is for who ran them: values count there, forms do not.
        let forms = if name.ends_with("programs.log") { &[][..] } else { &forms };
        for (what, secret) in sought.iter().chain(forms) {
            if let Some(line) = log.lines().find(|line| line.contains(secret)) {
                found.push(format!("{name}: {what}: {}", line.chars().take(300).collect::<String>()));
            }
        }
    }
    found
}

/// All logs of a lab, as plain text: line by line, and once more joined, since some are told over many lines.
fn logs(lab: &TestLab) -> Vec<(String, String)> {
    let mut all = Vec::new();
    files(&lab.root.join("logs"), &mut all);
    let plain = |(name, bytes): (String, Vec<u8>)| {
        let text = String::from_utf8_lossy(&bytes).replace("\\\"", "\"");
        let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
        [(format!("joined {name}"), joined), (name, text)]
    };
    all.into_iter().flat_map(plain).collect()
}

/// Searches the logs of a lab that has ended, and shows of each secret that it would have been found.
fn holds_no_secret(lab: &TestLab, opened: &[String]) {
    let (logs, mut texts) = (logs(lab), written(lab));
    texts.push(("the wrong PIN".to_owned(), WRONG_PIN.to_owned()));
    let daemons: Vec<_> = logs.iter().filter(|(name, _)| !name.ends_with("programs.log")).collect();
    assert!(daemons.len() >= 3, "too few logs");
    for (name, log) in daemons {
        assert!(log.contains("TRACE"), "{name} is not at trace level");
    }
    assert!(texts.len() > 10, "{}: too little is sought", texts.len());
    // A DEK, a scalar and two primes of each share.
    assert!(opened.len() >= 4 && opened.len().is_multiple_of(4), "{}: shares are not opened as a whole", opened.len());
    let found = breaches(&logs, &texts, opened);
    assert!(found.is_empty(), "{} lines hold secrets:\n{}", found.len(), found.join("\n"));
    for (what, secret) in &texts {
        let planted = [("planted.log".to_owned(), format!("TRACE x: pin={secret} y"))];
        assert!(!breaches(&planted, &texts, &[]).is_empty(), "{what} would not be found");
    }
    for secret in opened {
        let bytes = hex::decode(secret).unwrap();
        let told = format!("{bytes:#?}").split_whitespace().collect::<Vec<_>>().join(" ");
        for line in [secret.clone(), format!("{bytes:?}"), told, STANDARD_NO_PAD.encode(&bytes), secret.to_uppercase()]
        {
            let planted = [("planted.log".to_owned(), line)];
            assert!(!breaches(&planted, &[], opened).is_empty(), "an opened secret would not be found");
        }
    }
    for form in FORMS {
        let planted = [("planted.log".to_owned(), format!("x {form}"))];
        assert_eq!(breaches(&planted, &[], &[]).len(), 1);
    }
}

/// Keys are made, used and rotated; PINs, API keys and policy refuse; a session is cut off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn making_using_refusing_and_rotating_a_key_leaves_no_secret_in_any_log() {
    let mut lab = TestLab::new(Kind::Keyed).await;
    log_everything(&lab);
    let pin_file = lab.parties[0].pin_file.clone();
    let pin = fs::read_to_string(&pin_file).unwrap();
    fs::write(&pin_file, WRONG_PIN).unwrap();
    let config = text(&lab.parties[0].config).to_owned();
    assert_eq!(lab.program(0, "casemated", &["--config", &config]).status.code(), Some(78));
    fs::write(&pin_file, &pin).unwrap();
    lab.start_appliances().await;
    lab.start_coordinator().await;
    let (key, door) = (lab.key(), lab.front_door().unwrap());

    let participants: Vec<_> =
        lab.parties.iter().map(|party| json!({"party_id": party.party_id, "device_type": "server"})).collect();
    let order = json!({"threshold_t": 2, "threshold_n": 3, "participants": participants, "username": "treasury"});
    let fresh = door.post("/api/v1/mpc/keygen", &order, Some(std::time::Duration::from_secs(120))).await.unwrap().body;
    assert_eq!(fresh["status"], "completed", "{fresh}");
    signed(&lab, &key, &[0, 1], 0, Some("m/0/7")).await;
    let transfer = Transfer::over_the_limit(1);
    let order = json!({
        "account_id": key.account_id, "message_hash": transfer.hash(), "intent": transfer.intent(),
        "participants": [{"party_id": "party-1"}, {"party_id": "party-2"}],
    });
    let refused = door.post("/api/v1/mpc/sign", &order, Some(std::time::Duration::from_secs(60))).await.unwrap().body;
    assert_eq!(refused["error"]["code"], "policy_denied", "{refused}");
    let guessed = format!("cmk_{}_{}", "0".repeat(12), "7".repeat(64));
    let stranger = Service::with_api_key(lab.coordinator.address, &guessed);
    assert_eq!(stranger.post("/api/v1/mpc/sign", &order, None).await.unwrap().status, 401);

    let certificate = rotated(&lab, &approved(&lab, &key, &Plan::refresh(2)).await).await;
    settled(&lab, &key, &[0, 1, 2], 2).await;
    signed(&lab, &Key { certificate, ..key.clone() }, &[1, 2], 2, None).await;
    lab.kill(2);
    let cut_off = ordered(&lab, &key, &[0, 2], 3, None).await;
    assert_eq!(cut_off["status"], "failed", "{cut_off}");
    lab.stop_all();
    let mut opened: Vec<String> = (0..3).flat_map(|index| lab.secrets(index, &key.public_key())).collect();
    let made = fresh["public_key"].as_str().unwrap().parse().unwrap();
    opened.extend((0..3).flat_map(|index| lab.secrets(index, &made)));
    holds_no_secret(&lab, &opened);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backing_up_restoring_and_rewrapping_leaves_no_secret_in_any_log() {
    let (mut lab, (_, identities)) = with_custodians().await;
    lab.stop_all();
    log_everything(&lab);
    let key = lab.key();
    let mut opened = lab.secrets(0, &key.public_key());
    lab.start_appliances().await;
    let file = made(&lab, "backup");
    let (code, verified, why) = verify(&lab, &file, &[&identities[0], &identities[1]]);
    assert_eq!((code, &verified["complete"]), (0, &json!(true)), "{why}");
    lab.stop_all();
    replace_host(&lab);
    let people = ["--identity", text(&identities[0]), "--identity", text(&identities[1])];
    let [_, both] = mandate(&lab, &file, &people);
    let both: Vec<&str> = both.iter().map(String::as_str).collect();
    let (code, done, why) = restore(&lab, &file, &people, &both);
    assert_eq!(code, 0, "{why}");
    as_printed(&mut lab, &serde_json::from_slice(&done).unwrap()).await;
    lab.stop(0);
    assert_eq!(hsm(&lab, &["new-kek"]).0, 0);
    lab.start(0).await;
    let operator = lab.client(0, casemate_appliance::clients::Role::Operator);
    assert_eq!(operator.post("kek/rewrap", &json!({})).await.value()["kek"], "kek/2");
    lab.stop_all();
    let (code, _, why) = casemate(&lab, &["audit", "verify", "--config", text(&lab.parties[0].config)]);
    assert_eq!(code, 0, "{why}");
    opened.extend(lab.secrets(0, &key.public_key()));
    holds_no_secret(&lab, &opened);
}
