//! Outlines of bundles, and what differs between two.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::path::Path;

use casemate_policy::bundle::{ChangeKind, Outline, Section, difference};
use common::*;
use tempfile::TempDir;

const ENTITIES: &str = r#"{
    "assets": [{"chain": "eip155:1", "symbol": "ETH", "decimals": 18}],
    "address_books": [{"name": "treasury", "addresses": [
        {"address": "eip155:1:0x3535353535353535353535353535353535353535", "note": "vault"}
    ]}],
    "key_groups": [{"name": "hot", "labels": ["hot-1"]}],
    "calendars": [{"name": "holidays", "days": ["2026-12-25", "2027-01-01"]}]
}"#;

fn bundle_with(cedar: &str) -> TempDir {
    folder(&[("a.cedar", cedar), ("entities.json", ENTITIES), ("tests/a.json", ONE_ALLOWED)])
}

fn outline(dir: &TempDir) -> Outline {
    Outline::read(dir.path()).unwrap()
}

#[test]
fn everything_in_a_bundle_has_a_name() {
    let found = outline(&bundle_with(ALLOW_ALL));
    assert_eq!(found.policies["all"].effect, "permit");
    assert_eq!(found.entities.assets["eip155:1/native"], "ETH, 18 decimals");
    let treasury = &found.entities.address_books["treasury"];
    assert_eq!(treasury["eip155:1:0x3535353535353535353535353535353535353535"], "vault");
    assert!(found.entities.key_groups["hot"].contains("label hot-1"));
    let days: Vec<&String> = found.entities.calendars["holidays"].iter().collect();
    assert_eq!(days, ["2026-12-25", "2027-01-01"]);
    assert!(found.tests.contains_key("tests/a.json: allowed"));
    assert!(found.unsealed.is_empty());
    assert_eq!(found.manifest.unwrap().version, 1);
}

#[test]
fn layout_and_place_make_no_difference_but_words_do() {
    let tight = outline(&bundle_with(r#"@id("all") permit(principal,action,resource);"#));
    let spread = outline(&bundle_with("@id(\"all\")\npermit (\n  principal,\n  action,\n  resource\n)\n;"));
    assert_eq!(difference(&tight, &spread), []);

    let moved = folder(&[("b.cedar", ALLOW_ALL), ("entities.json", ENTITIES), ("tests/a.json", ONE_ALLOWED)]);
    assert_eq!(difference(&tight, &outline(&moved)), []);

    let reason = outline(&bundle_with(r#"@id("all") @reason("because") permit (principal, action, resource);"#));
    let changes = difference(&tight, &reason);
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].section, changes[0].change), (Section::Policy, ChangeKind::Changed));
}

#[test]
fn a_holiday_less_is_a_difference() {
    let old = outline(&bundle_with(ALLOW_ALL));
    let dir = bundle_with(ALLOW_ALL);
    write(dir.path(), "entities.json", &ENTITIES.replace(r#""2026-12-25", "#, ""));
    let changes = difference(&old, &outline(&dir));
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].section, changes[0].change), (Section::CalendarDay, ChangeKind::Removed));
    assert_eq!(changes[0].name, "holidays: 2026-12-25");
}

#[test]
fn a_test_case_hides_behind_no_other_of_its_name() {
    let one = outline(&bundle_with(ALLOW_ALL));
    let twice = format!("{},{}", ONE_ALLOWED.trim_end_matches(']'), ONE_ALLOWED.trim_start_matches('['));
    let dir = bundle_with(ALLOW_ALL);
    write(dir.path(), "tests/a.json", &twice);
    let changes = difference(&one, &outline(&dir));
    assert_eq!((changes[0].section, changes[0].change), (Section::Test, ChangeKind::Changed));
}

#[test]
fn what_cannot_be_told_apart_is_not_outlined() {
    let twice = bundle_with(&format!("{ALLOW_ALL}\n{ALLOW_ALL}"));
    assert!(Outline::read(twice.path()).unwrap_err().to_string().contains("`all`"));
    let unnamed = bundle_with("permit (principal, action, resource);");
    assert!(Outline::read(unnamed.path()).unwrap_err().to_string().contains("@id"));
    let deep =
        bundle_with(&format!("@id(\"a\") permit (principal, action, resource) when {{ {} }};", "(".repeat(10_000)));
    assert!(Outline::read(deep.path()).is_err());
    assert!(Outline::read(Path::new("/nowhere")).is_err());
}

#[test]
fn a_changed_file_stands_out_until_it_is_sealed() {
    let dir = bundle_with(ALLOW_ALL);
    write(dir.path(), "entities.json", "{}");
    write(dir.path(), "b.cedar", "// new");
    let unsealed: Vec<String> = outline(&dir).unsealed.into_iter().collect();
    assert_eq!(unsealed, ["b.cedar", "entities.json"]);
}
