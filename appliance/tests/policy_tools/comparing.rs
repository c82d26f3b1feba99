//! `diff`, `show`.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{Desk, copy, policy};

fn change<'a>(changes: &'a Value, section: &str, name: &str) -> &'a Value {
    let list = changes["changes"].as_array().unwrap();
    list.iter()
        .find(|change| change["section"] == section && change["name"] == name)
        .unwrap_or_else(|| panic!("no change of {section} {name} in {changes:#}"))
}

#[test]
fn a_bundle_does_not_differ_from_itself_however_it_is_laid_out() {
    let desk = Desk::new();
    let other = desk.folder.path().join("other");
    copy(&desk.path(), &other);
    let other = other.to_str().unwrap();
    policy(&["diff", &desk.dir(), other]).ends(0).says("no differences");

    desk.replace("keys.cedar", "when { principal", "when\n{\n principal");
    let answer = policy(&["diff", other, &desk.dir(), "--format", "json"]).ends(0).json();
    assert_eq!((&answer["same"], &answer["changes"]), (&json!(true), &json!([])), "layout is no difference");
    assert_eq!(answer["unsealed"], json!(["keys.cedar"]));
}

#[test]
fn everything_that_was_added_removed_or_changed_is_named() {
    let desk = Desk::new();
    let old = desk.folder.path().join("old");
    copy(&desk.path(), &old);
    desk.replace("transfers.cedar", "at most 0.05 ETH", "at most 0.06 ETH");
    desk.replace("transfers.cedar", "decimal(\"0.05\")", "decimal(\"0.06\")");
    desk.write("more.cedar", "@id(\"all\")\npermit (principal, action, resource);\n");
    desk.replace(
        "entities.json",
        "0x3535353535353535353535353535353535353535",
        "0x3636363636363636363636363636363636363636",
    );
    desk.replace("entities.json", "\"decimals\": 6", "\"decimals\": 8");
    desk.replace(
        "entities.json",
        "\"key_groups\": []",
        "\"key_groups\": [{ \"name\": \"hot\", \"labels\": [\"hot-1\"] }]",
    );
    desk.replace("tests/keys.json", "an operator makes no key", "an operator makes no keys");
    desk.write("manifest.toml.sig-anna", "a signature");
    policy(&["seal", &desk.dir(), "--name", "renamed"]).ends(0);

    let old = old.to_str().unwrap();
    let changes = policy(&["diff", old, &desk.dir(), "--format", "json"]).ends(0).json();
    assert_eq!(changes["same"], false);
    assert_eq!(change(&changes, "policy", "all")["change"], "added");
    let fee_cap = change(&changes, "policy", "fee-cap");
    assert_eq!(fee_cap["change"], "changed");
    assert!(fee_cap["old"].as_str().unwrap().contains("0.05") && fee_cap["new"].as_str().unwrap().contains("0.06"));
    let address = |digits: &str| format!("treasury: eip155:11155111:0x{}", digits.repeat(20));
    assert_eq!(change(&changes, "address", &address("35"))["change"], "removed");
    assert_eq!(change(&changes, "address", &address("36"))["change"], "added");
    let token = "eip155:11155111/0x1c7d4b196cb0c7b01d743fbc6116a902379c7238";
    assert_eq!(change(&changes, "asset", token)["new"], "USDC, 8 decimals");
    assert_eq!(change(&changes, "key_group", "hot")["change"], "added");
    assert_eq!(change(&changes, "group_member", "hot: label hot-1")["change"], "added");
    assert_eq!(change(&changes, "test", "tests/keys.json: an operator makes no keys")["change"], "added");
    assert_eq!(change(&changes, "manifest", "name")["new"], "renamed");
    assert_eq!(change(&changes, "manifest", "version")["new"], "2");

    let told = policy(&["diff", old, &desk.dir()]).ends(0);
    let told = told.says("changed policy fee-cap").says("- @reason(\"at most 0.05 ETH of fees");
    told.says("+ @reason(\"at most 0.06 ETH of fees").says("added policy all").says("removed address treasury");
}

#[test]
fn a_bundle_that_cannot_be_read_is_not_compared() {
    let desk = Desk::new();
    let old = desk.folder.path().join("old");
    copy(&desk.path(), &old);
    desk.write("keys.cedar", "@id(\"x\") permit (");
    policy(&["diff", old.to_str().unwrap(), &desk.dir()]).ends(2).says("keys.cedar");
    desk.write("keys.cedar", "permit (principal, action, resource);");
    policy(&["diff", &desk.dir(), old.to_str().unwrap()]).ends(2).says("@id");
}

#[test]
fn show_prints_manifest_policies_with_reasons_books_and_files() {
    let desk = Desk::new();
    let told = policy(&["show", &desk.dir()]).ends(0);
    let told = told.says("policy version 1, for schema 1").says("digest ").says("succeeds no other");
    let told = told.says("forbid fee-cap (transfers.cedar): at most 0.05 ETH of fees for one transaction");
    told.says("treasury: 1 addresses").says("tests/transfers.json: nothing is signed blindly");
    let json = policy(&["show", &desk.dir(), "--format", "json"]).ends(0).json();
    assert_eq!(json["files"].as_object().unwrap().len(), 5);
    assert_eq!(json["unsealed"], json!([]));

    desk.replace("entities.json", "cold storage", "vault");
    policy(&["show", &desk.dir()]).ends(0).says("CHANGED since it was sealed: entities.json");
    std::fs::remove_file(Path::new(&desk.dir()).join("manifest.toml")).unwrap();
    policy(&["show", &desk.dir()]).ends(0).says("was never sealed");
}

/// A key pair of ssh-keygen's, and its line for allowed_signers.
fn signer(desk: &Desk, name: &str) -> String {
    let key = desk.folder.path().join(name);
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
        .arg(&key)
        .status()
        .expect("ssh-keygen is needed: apt install openssh-client");
    assert!(made.success());
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    format!("{name}@acme namespaces=\"casemate-policy\" {public}")
}

#[test]
fn show_says_whether_the_quorum_has_signed() {
    let desk = Desk::new();
    let lines = signer(&desk, "anna") + &signer(&desk, "bert");
    let allowed = desk.beside("allowed_signers", &lines);
    let manifest = desk.path().join("manifest.toml");
    let signed = Command::new("ssh-keygen")
        .args(["-q", "-Y", "sign", "-n", "casemate-policy", "-f"])
        .arg(desk.folder.path().join("anna"))
        .arg(&manifest)
        .status()
        .unwrap();
    assert!(signed.success());
    let show = |quorum| policy(&["show", &desk.dir(), "--allowed-signers", &allowed, "--quorum", quorum]);
    show("2 of 2").ends(0).says("quorum 2 of 2 NOT reached").says("signed by anna@acme");
    show("1 of 2").ends(0).says("quorum 1 of 2 reached");
    let words = ["show", &desk.dir(), "--allowed-signers", &allowed, "--quorum", "2 of 2", "--format", "json"];
    let json = policy(&words).ends(0).json();
    assert_eq!(json["signed"]["signers"], json!(["anna@acme"]));
    assert_eq!((&json["signed"]["reached"], &json["signed"]["quorum"]), (&json!(false), &json!("2 of 2")));

    desk.write("manifest.toml.sig-bert", "no signature");
    show("2 of 2").ends(0).says("does not count: manifest.toml.sig-bert");
    show("1 of 3").ends(2);
    policy(&["show", &desk.dir()]).ends(0).says("not looked at");
}

#[test]
fn a_recipient_that_comes_or_goes_is_shown_and_a_bundle_with_a_bad_one_does_not_load() {
    let desk = Desk::new();
    let old = desk.folder.path().join("old");
    copy(&desk.path(), &old);
    let key = include_str!("../../../wire/src/recovery_key.hex").trim();
    desk.write("recipients.toml", &format!("[[recovery]]\nname = \"vault\"\nkey = \"{key}\"\n"));
    policy(&["seal", &desk.dir()]).ends(0);
    let changes = policy(&["diff", old.to_str().unwrap(), &desk.dir(), "--format", "json"]).ends(0).json();
    let added = change(&changes, "recipient", "recovery vault");
    assert_eq!(added["change"], "added");
    let fingerprint = added["new"].as_str().unwrap();
    assert_eq!(fingerprint.len(), 64);
    policy(&["show", &desk.dir()]).ends(0).says(&format!("recovery vault: {fingerprint}"));
    policy(&["check", &desk.dir()]).ends(0);

    desk.replace("recipients.toml", "0203010001", "0203010003");
    policy(&["seal", &desk.dir()]);
    let refused = policy(&["check", &desk.dir()]);
    assert_ne!(refused.code, 0);
    refused.says("recipients.toml");
}
