//! What may stand in a bundle's folder, what the manifest guards, and what its tests must show.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::Path;

use casemate_policy::bundle::SealFields;
use casemate_policy::{Bundle, bundle};
use common::*;
use sha2::Digest;
use tempfile::TempDir;

fn valid() -> TempDir {
    folder(&[("all.cedar", ALLOW_ALL), ("tests/a.json", ONE_ALLOWED)])
}

fn why(dir: &TempDir) -> String {
    load(dir).unwrap_err().to_string()
}

fn edit_manifest(dir: &TempDir, from: &str, to: &str) {
    let path = dir.path().join("manifest.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn the_starter_bundle_loads_with_its_own_tests() {
    let bundle = starter();
    assert_eq!((bundle.name(), bundle.version(), bundle.previous()), ("starter", 1, None));
    assert_eq!(bundle.not_before().to_string(), "2025-01-01T00:00:00Z");
    let manifest = fs::read(Path::new(STARTER).join("manifest.toml")).unwrap();
    assert_eq!(bundle.digest().0, <[u8; 32]>::from(sha2::Sha256::digest(manifest)));
}

#[test]
fn a_missing_folder_or_manifest_is_refused() {
    assert!(Bundle::load(Path::new("/nonexistent/policy"), &[]).unwrap_err().to_string().contains("could not list"));
    let dir = valid();
    fs::remove_file(dir.path().join("manifest.toml")).unwrap();
    assert!(why(&dir).contains("casemate policy seal"));
}

#[test]
fn a_changed_missing_or_unlisted_file_is_refused() {
    let changed = valid();
    write(changed.path(), "all.cedar", "");
    assert!(why(&changed).contains("all.cedar: its SHA-256 is"));

    let missing = valid();
    fs::remove_file(missing.path().join("all.cedar")).unwrap();
    assert!(why(&missing).contains("all.cedar: the manifest lists it"));

    for path in ["more.cedar", "entities.json", "tests/more.json", ".hidden.cedar"] {
        let unlisted = valid();
        write(unlisted.path(), path, "");
        assert!(why(&unlisted).contains(&format!("{path}: the manifest does not list it")));
    }
}

#[test]
fn files_that_have_no_place_in_a_bundle_are_refused() {
    for path in [
        "README.md",
        "all.cedar~",
        ".cedar",
        "tests/a.cedar",
        "tests/deeper/a.json",
        "more/a.cedar",
        "manifest.toml.bak",
    ] {
        let dir = valid();
        write(dir.path(), path, "");
        assert!(why(&dir).contains("belong"), "{path}");
    }
    let signed = valid();
    write(signed.path(), "manifest.toml.sig", "");
    write(signed.path(), "manifest.toml.sig.alice", "");
    load(&signed).unwrap();
}

#[test]
fn links_and_paths_outside_are_refused() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    write(outside.path(), "all.cedar", ALLOW_ALL);

    let file = valid();
    fs::remove_file(file.path().join("all.cedar")).unwrap();
    symlink(outside.path().join("all.cedar"), file.path().join("all.cedar")).unwrap();
    assert!(why(&file).contains("no links"));

    let tests = valid();
    fs::remove_dir_all(tests.path().join("tests")).unwrap();
    symlink(outside.path(), tests.path().join("tests")).unwrap();
    assert!(why(&tests).contains("no links"));

    let manifest = valid();
    fs::rename(manifest.path().join("manifest.toml"), outside.path().join("manifest.toml")).unwrap();
    symlink(outside.path().join("manifest.toml"), manifest.path().join("manifest.toml")).unwrap();
    assert!(why(&manifest).contains("no links"));

    for path in ["../all.cedar", "/etc/passwd", "./all.cedar", "tests/../all.cedar"] {
        let listed = valid();
        edit_manifest(&listed, "[files]", &format!("[files]\n\"{path}\" = \"{}\"", "0".repeat(64)));
        assert!(why(&listed).contains(&format!("{path}: the manifest lists it")));
    }
}

#[test]
fn a_manifest_with_anything_odd_is_refused() {
    for (from, to) in [
        ("version = 1", "version = -1"),
        ("version = 1", "version = \"1\""),
        // The store holds versions in 64 bits with a sign, and must not fail on one that was accepted.
        ("version = 1", "version = 9223372036854775808"),
        ("version = 1", "version = 18446744073709551615"),
        ("version = 1", ""),
        ("name = \"policy\"", ""),
        ("schema = 1", "schema = 2"),
        ("schema = 1", ""),
        ("not_before", "not_after"),
        ("previous = \"\"", "previous = \"00\""),
        ("time_zone = \"UTC\"", "time_zone = \"Mars/Olympus\""),
        ("time_zone = \"UTC\"", "time_zone = \"../../etc/passwd\""),
        ("version = 1", "version = 1\nunknown = 1"),
        ("[files]", "[files]\n\"all.cedar\" = \"\""),
        ("1970-01-01T00:00:00Z", "yesterday"),
    ] {
        let dir = valid();
        edit_manifest(&dir, from, to);
        assert!(why(&dir).starts_with("manifest.toml: "), "{to}: {}", why(&dir));
    }
}

#[test]
fn sealing_a_signed_manifest_makes_its_successor_and_removes_the_old_signatures() {
    let dir = valid();
    let first = load(&dir).unwrap();
    let signature = dir.path().join("manifest.toml.sig-anna");
    fs::write(&signature, "signed").unwrap();
    let again = bundle::seal_as(dir.path(), noon(), &SealFields::default()).unwrap();
    assert_eq!((again.digest, again.version, again.signatures_removed), (first.digest(), 1, 0));
    assert!(signature.exists(), "nothing has changed, so the signature fits");

    write(dir.path(), "more.cedar", r#"@id("more") permit (principal, action == Mpc::Action::"Keygen", resource);"#);
    let sealed = bundle::seal_as(dir.path(), noon(), &SealFields::default()).unwrap();
    let second = load(&dir).unwrap();
    assert_eq!((second.digest(), second.version(), sealed.signatures_removed), (sealed.digest, 2, 1));
    assert!(!signature.exists(), "it signs what is there no more");
    assert_eq!(second.previous(), Some(first.digest()));
    assert_eq!(second.not_before(), first.not_before());
    assert_ne!(second.digest(), first.digest());
}

#[test]
fn sealing_a_draft_again_keeps_its_version_and_what_it_succeeds() {
    let dir = valid();
    fs::write(dir.path().join("manifest.toml.sig"), "signed").unwrap();
    let first = load(&dir).unwrap();
    for (text, name) in [("// one", "a"), ("// two", "b")] {
        write(dir.path(), "more.cedar", text);
        let fields = SealFields { name: Some(name.into()), ..SealFields::default() };
        bundle::seal_as(dir.path(), noon(), &fields).unwrap();
        let draft = load(&dir).unwrap();
        assert_eq!((draft.version(), draft.previous(), draft.name()), (2, Some(first.digest()), name));
    }
}

#[test]
fn a_changed_field_alone_is_a_successor_too() {
    let dir = valid();
    fs::write(dir.path().join("manifest.toml.sig"), "signed").unwrap();
    let fields = SealFields { not_before: Some(noon()), time_zone: Some("Europe/Zurich".into()), name: None };
    assert_eq!(bundle::seal_as(dir.path(), noon(), &fields).unwrap().version, 2);
    let wrong = SealFields { time_zone: Some("Mars/Olympus".into()), ..SealFields::default() };
    let why = bundle::seal_as(dir.path(), noon(), &wrong).unwrap_err().to_string();
    assert!(why.contains("Mars/Olympus"), "{why}");
}

#[test]
fn every_forbid_needs_a_test_and_one_request_must_be_allowed() {
    let none_allowed = folder(&[("all.cedar", ALLOW_ALL)]);
    assert!(why(&none_allowed).contains("no test expects a request to be allowed"));
    let untested = refusal(r#"@id("p") forbid (principal, action, resource) when { context.peers_attested };"#);
    assert!(untested.contains("no test expects a refusal by `p`"), "{untested}");
}

#[test]
fn a_failing_test_case_refuses_the_bundle() {
    let wrong_verdict = folder(&[
        ("all.cedar", ALLOW_ALL),
        ("tests/a.json", &ONE_ALLOWED.replace(r#""verdict": "allow""#, r#""verdict": "deny""#)),
    ]);
    let text = why(&wrong_verdict);
    assert!(text.contains("tests/a.json: test `allowed`: expected Deny"), "{text}");
    let wrong_policy = folder(&[("all.cedar", ALLOW_ALL), ("tests/a.json", &ONE_ALLOWED.replace(r#"["all"]"#, "[]"))]);
    assert!(why(&wrong_policy).contains(r#"got Allow by {"all"}"#));
}

#[test]
fn test_cases_with_unknown_or_contradictory_fields_are_refused() {
    for (from, to) in [
        (r#""name": "allowed""#, r#""name": "allowed", "nmae": 1"#),
        (r#""action": "Backup""#, r#""action": "Backup", "effects": []"#),
        (r#""action": "Backup""#, r#""action": "backup""#),
        (r#""action": "Backup""#, r#""action": "Backup", "context": {"tmie": 1}"#),
        // Calendars follow from the time.
        (r#""action": "Backup""#, r#""action": "Backup", "context": {"calendars": ["holidays"]}"#),
        (r#"{ "appliance": {} }"#, r#"{ "appliance": {}, "key_slot": {} }"#),
        (r#"{ "name": "coordinator" }"#, r#"{ "name": "coordinator", "admin": true }"#),
    ] {
        assert!(ONE_ALLOWED.contains(from));
        let dir = folder(&[("all.cedar", ALLOW_ALL), ("tests/a.json", &ONE_ALLOWED.replacen(from, to, 1))]);
        assert!(why(&dir).starts_with("tests/a.json:"), "{}", why(&dir));
    }
}

#[test]
fn tables_with_anything_odd_are_refused() {
    let address = "eip155:1:0x1111111111111111111111111111111111111111";
    let book = |entries: &str| format!(r#"{{"address_books": [{{"name": "b", "addresses": [{entries}]}}]}}"#);
    let asset = |rows: &str| format!(r#"{{"assets": [{rows}]}}"#);
    let calendar = |days: &str| format!(r#"{{"calendars": [{{"name": "c", "days": [{days}]}}]}}"#);
    let many = |count: usize, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<Vec<_>>().join(", ");
    let eth = r#"{"chain": "eip155:1", "symbol": "ETH", "decimals": 18}"#;
    for entities in [
        "[]".to_owned(),
        r#"{"assets": [], "assets": []}"#.into(),
        r#"{"books": []}"#.into(),
        book(&format!(r#"{{"address": "{address}"}}, {{"address": "{address}"}}"#)),
        book(r#"{"address": "0x1111111111111111111111111111111111111111"}"#),
        book(r#"{"address": "eip155:01:0x1111111111111111111111111111111111111111"}"#),
        book(r#"{"address": "eip155:1:0x111111111111111111111111111111111111111A"}"#),
        book(r#"{"address": "eip155:1:0x11"}"#),
        book(&format!(r#"{{"address": "{address}", "label": "x"}}"#)),
        r#"{"address_books": [{"name": "b", "addresses": []}, {"name": "b", "addresses": []}]}"#.into(),
        asset(&format!("{eth}, {eth}")),
        asset(&format!(r#"{eth}, {{"chain": "eip155:1", "symbol": "WEI", "decimals": 0}}"#)),
        asset(&eth.replace("18", "78")),
        asset(&eth.replace("18", "-1")),
        asset(&eth.replace("eip155:1", "eip155:0")),
        asset(&eth.replace("eip155:1", "ethereum")),
        r#"{"key_groups": [{"name": "g", "public_keys": ["00"]}]}"#.into(),
        r#"{"key_groups": [{"name": "g"}, {"name": "g"}]}"#.into(),
        r#"{"calendars": [{"name": "c", "days": []}, {"name": "c", "days": []}]}"#.into(),
        r#"{"calendars": [{"name": "c"}]}"#.into(),
        r#"{"calendars": [{"name": "", "days": []}]}"#.into(),
        r#"{"calendars": [{"name": "c", "days": [], "zone": "UTC"}]}"#.into(),
        format!(r#"{{"calendars": [{}]}}"#, many(65, &|n| format!(r#"{{"name": "c{n}", "days": []}}"#))),
        calendar(&many(3_661, &|n| format!(r#""{:04}-{:02}-{:02}""#, 2000 + n / 336, 1 + n / 28 % 12, 1 + n % 28))),
        calendar(r#""2026-12-25", "2026-12-25""#),
        calendar(r#""20261225""#),
        calendar(r#""2026-12-25T00:00""#),
        calendar(r#""2026-12-25T00:00:00[Europe/Zurich]""#),
        calendar(r#""2026-12-32""#),
        calendar(r#""2027-02-29""#),
        calendar(r#""2026-W52-5""#),
        calendar(r#"" 2026-12-25""#),
        calendar(r#""25.12.2026""#),
        calendar("20261225"),
    ] {
        let dir = folder(&[("all.cedar", ALLOW_ALL), ("tests/a.json", ONE_ALLOWED), ("entities.json", &entities)]);
        assert!(why(&dir).starts_with("entities.json:"), "{entities}: {}", why(&dir));
    }
}

#[test]
fn ten_thousand_addresses_load_and_decide() {
    let entries: Vec<String> =
        (0..10_000).map(|n| format!(r#"{{"address": "eip155:1:0x{n:040x}", "note": "customer {n}"}}"#)).collect();
    let entities = format!(
        r#"{{"assets": [{{"chain": "eip155:1", "symbol": "ETH", "decimals": 18}}],
            "address_books": [{{"name": "all", "addresses": [{}]}}]}}"#,
        entries.join(",")
    );
    let cedar = r#"@id("all") permit (principal, action, resource);
        @id("known") forbid (principal, action == Mpc::Action::"Sign", resource)
        unless { context has tx && context.tx has to && context.tx.to in Mpc::AddressBook::"all" };"#;
    let test = r#"[{"name": "unknown", "request": {"principal": {"name": "x"}, "action": "Sign",
        "resource": {"key": {"kind": "wallet", "threshold_t": 2, "threshold_n": 3}}},
        "expect": {"verdict": "deny", "policies": ["known"]}}]"#;
    let bundle = load(&folder(&[
        ("all.cedar", cedar),
        ("entities.json", &entities),
        ("tests/a.json", ONE_ALLOWED),
        ("tests/b.json", test),
    ]))
    .unwrap();
    let to = |address: u64| {
        transaction(|tx| {
            tx.to = alloy_primitives::Address::left_padding_from(&address.to_be_bytes()).into();
        })
    };
    assert_eq!(allowed_by(&judge(&bundle, &to_sign(Some(&to(9_999))))), ["all"]);
    assert_eq!(refused_by(&denied(judge(&bundle, &to_sign(Some(&to(10_000)))))), ["known"]);
}
