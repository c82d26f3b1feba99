//! The main job, as a new user sees it: `casemate lab demo --json`, with safe primes that are really made.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, missing_docs)]

use std::fs::File;
use std::io::BufReader;
use std::process::Command;

use casemate_attest::{Verifier, verify};
use casemate_softhsm_tests::programs;
use casemate_wire::EcdsaSignature;
use serde_json::{Value, json};

#[test]
fn the_demo_makes_a_key_signs_refuses_and_leaves_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let ended = Command::new(programs::folder().join("casemate"))
        .args(["lab", "demo", "--json", "--dir"])
        .arg(folder.path().join("lab"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    let printed = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(printed.trim().lines().count(), 1, "one summary and nothing else");
    let summary: Value = serde_json::from_str(printed.trim()).unwrap();

    let part = |name: &str| summary["signature"][name].clone();
    let signature: EcdsaSignature =
        serde_json::from_value(json!({"r": part("r"), "s": part("s"), "v": part("v")})).unwrap();
    let key = serde_json::from_value(summary["public_key"].clone()).unwrap();
    let hash = serde_json::from_value(summary["message_hash"].clone()).unwrap();
    assert!(signature.verifies(&key, &hash));
    assert_eq!(part("der"), hex::encode(signature.to_der().unwrap()));
    assert_eq!(summary["refused"]["code"], "policy_denied");
    assert_eq!(summary["refused"]["policies"], json!(["per-transfer-limit"]));

    let approved = &summary["approved"];
    assert_eq!(approved["approvers"], json!(["approver-1@treasury", "approver-2@risk"]));
    assert_eq!(approved["message_hash"], summary["refused"]["message_hash"]);
    assert!(approved["signed_transaction"].as_str().unwrap().starts_with("0x02"));

    let attestations = summary["attestations"].as_array().unwrap();
    assert_eq!(attestations.len(), 3);
    assert!(attestations.iter().all(|one| one["verdict"] == "affirming" && one["policy"].is_string()));

    let logs = summary["audit_logs"].as_array().unwrap();
    assert_eq!(logs.len(), 3);
    let (mut signed, mut refused) = (0, 0);
    for log in logs {
        let lines = BufReader::new(File::open(log.as_str().unwrap()).unwrap());
        let report = verify::read(lines, Verifier::new(), |_| ()).unwrap();
        assert_eq!((report.intents, report.open_intents.len()), (report.outcomes, 0));
        signed += report.outcomes;
        refused += report.refusals;
    }
    assert_eq!(signed, 3 + 2 + 2, "a keygen at three parties, two signatures at two");
    assert!(refused >= 1, "the refusal stands in a log");

    for appliance in summary["appliances"].as_array().unwrap() {
        let address = appliance["url"].as_str().unwrap().trim_start_matches("https://");
        assert!(std::net::TcpStream::connect(address).is_err(), "nothing is left running");
    }
}
