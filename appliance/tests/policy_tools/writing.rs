//! `init`, `fmt`, `seal`, `schema`.

use std::fs;

use serde_json::json;

use super::{Desk, policy};

#[test]
fn the_starter_bundle_is_valid_sealed_and_formatted_as_it_comes() {
    let desk = Desk::new();
    policy(&["check", &desk.dir(), "--sealed"]).ends(0).says("is valid");
    policy(&["test", &desk.dir()]).ends(0).says("0 failed");
    policy(&["fmt", "--check", &desk.dir()]).ends(0);
}

#[test]
fn the_starter_bundle_covers_what_a_custodian_begins_with() {
    let desk = Desk::new();
    let shown = policy(&["show", &desk.dir(), "--format", "json"]).ends(0).json();
    for rule in [
        "per-transfer-limit",
        "hourly-limit",
        "daily-limit",
        "fee-cap",
        "fees-per-day",
        "known-receivers",
        "business-hours",
        "no-blind-signing",
        "no-unlimited-approvals",
        "keygen-quorum",
        "rotation-quorum",
    ] {
        assert_eq!(shown["policies"][rule]["effect"], "forbid", "{rule}");
        assert!(shown["policies"][rule]["reason"].is_string(), "{rule} gives no reason");
    }
}

#[test]
fn init_tells_what_to_edit_and_takes_a_name_and_a_zone() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("policy").to_str().unwrap().to_owned();
    policy(&["init", &dir, "--name", "desk", "--time-zone", "Pacific/Auckland"]).ends(0).says("entities.json");
    policy(&["check", &dir, "--sealed"]).ends(0).says("desk version 1");
    let shown = policy(&["show", &dir, "--format", "json"]).ends(0).json();
    assert_eq!(shown["manifest"]["time_zone"], "Pacific/Auckland");
}

#[test]
fn init_works_in_zones_all_round_the_world() {
    let folder = tempfile::tempdir().unwrap();
    for zone in ["America/Los_Angeles", "Asia/Kolkata"] {
        let dir = folder.path().join(zone.replace('/', "-")).to_str().unwrap().to_owned();
        policy(&["init", &dir, "--time-zone", zone]).ends(0);
        policy(&["test", &dir]).ends(0);
    }
    let dir = folder.path().join("nowhere");
    policy(&["init", dir.to_str().unwrap(), "--time-zone", "Mars/Olympus"]).ends(2).says("Mars/Olympus");
    assert!(!dir.exists(), "nothing was written");
}

#[test]
fn init_overwrites_nothing() {
    let desk = Desk::new();
    desk.write("keys.cedar", "// mine");
    policy(&["init", &desk.dir()]).ends(2).says("is not empty");
    assert_eq!(desk.read("keys.cedar"), "// mine");
}

#[test]
fn fmt_changes_layout_once_and_keeps_what_is_said() {
    let desk = Desk::new();
    let good = desk.read("keys.cedar");
    let untidy = good.replace("\nwhen { ", "\nwhen {\n\n   ").replace(") };", ")};");
    desk.write("keys.cedar", &untidy);
    let answer = policy(&["fmt", "--check", &desk.dir(), "--format", "json"]).ends(1).json();
    assert_eq!(answer["changed"].as_array().unwrap().len(), 1);
    assert_eq!(answer["written"], false);
    assert_eq!(desk.read("keys.cedar"), untidy, "--check changes nothing");
    policy(&["fmt", &desk.dir()]).ends(0).says("keys.cedar: formatted");
    assert_eq!(desk.read("keys.cedar"), good);
    policy(&["fmt", "--check", &desk.dir()]).ends(0);
}

#[test]
fn fmt_leaves_alone_what_it_cannot_parse() {
    let desk = Desk::new();
    desk.write("keys.cedar", "permit (principal");
    policy(&["fmt", &desk.dir()]).ends(1).says("keys.cedar");
    assert_eq!(desk.read("keys.cedar"), "permit (principal");
    policy(&["fmt", "/nowhere/at-all.cedar"]).ends(2).says("cannot read");
}

#[test]
fn seal_succeeds_signed_manifests_and_keeps_drafts() {
    let desk = Desk::new();
    let first = policy(&["seal", &desk.dir(), "--format", "json"]).ends(0).json();
    assert_eq!((&first["version"], &first["signatures_removed"]), (&json!(1), &json!(0)));
    desk.write("manifest.toml.sig-anna", "a signature");
    desk.replace("entities.json", "cold storage", "vault");
    let second = policy(&["seal", &desk.dir(), "--format", "json"]).ends(0).json();
    assert_eq!((&second["version"], &second["signatures_removed"]), (&json!(2), &json!(1)));
    assert!(desk.read("manifest.toml").contains(first["digest"].as_str().unwrap()), "it names what it succeeds");
    desk.replace("entities.json", "vault", "cold storage");
    let third = policy(&["seal", &desk.dir(), "--not-before", "2026-12-01T08:00:00Z", "--format", "json"]);
    assert_eq!(third.ends(0).json()["version"], 2, "nobody signed the second");
    policy(&["show", &desk.dir()]).ends(0).says("2026-12-01T08:00:00Z");
}

#[test]
fn a_folder_that_is_not_there_is_an_error_and_no_refusal() {
    for command in ["check", "test", "seal", "show"] {
        policy(&[command, "/nowhere/policy"]).ends(2).says("is not a folder");
    }
    let there = Desk::new();
    policy(&["diff", &there.dir(), "/nowhere/policy"]).ends(2).says("is not a folder");
}

#[test]
fn the_schema_is_printed_as_it_is_enforced() {
    let text = policy(&["schema"]).ends(0).out;
    assert_eq!(text.trim(), casemate_policy::SCHEMA.trim());
    let json = policy(&["schema", "--format", "json"]).ends(0).json();
    assert_eq!(json["version"], casemate_policy::SCHEMA_VERSION);
    assert!(
        fs::read_to_string(env!("CARGO_MANIFEST_DIR").to_owned() + "/../docs/policy-guide.md")
            .unwrap()
            .contains("casemate policy schema")
    );
}
