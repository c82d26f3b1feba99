//! Known answers: published ones for the hash and the canonical form, and lines and hashes of this log's own form that
//! were written by hand and hashed with another tool.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_wrap)]

mod common;

use casemate_attest::line::leaf_hash;
use casemate_attest::{Appended, Entry, Guard, GuardChange, Head, Line};
use common::{Log, time};
use serde_json::{Value, json};

#[test]
fn leaf_hashes_are_those_of_certificate_transparency() {
    // From the reference implementation's Merkle tree tests (RFC 6962): the first leaves of its sample tree.
    for (leaf, hash) in [
        ("", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        ("00", "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"),
    ] {
        assert_eq!(leaf_hash(&hex::decode(leaf).unwrap()).to_string(), hash);
    }
}

#[test]
fn keys_and_strings_take_the_form_of_rfc_8785() {
    // RFC 8785, section 3.2.3: keys sort by UTF-16 code units, so the emoji stands before U+FB33.
    let sample = json!({
        "\u{20ac}": "Euro Sign", "\r": "Carriage Return", "\u{fb33}": "Hebrew Letter Dalet With Dagesh", "1": "One",
        "\u{1f600}": "Emoji: Grinning Face", "\u{80}": "Control", "\u{f6}": "Latin Small Letter O With Diaeresis",
    });
    let text = serde_json_canonicalizer::to_string(&sample).unwrap();
    let order = ["Carriage Return", "One", "Control", "Latin", "Euro", "Emoji", "Hebrew"];
    let places: Vec<_> = order.iter().map(|name| text.find(name).unwrap()).collect();
    assert!(places.is_sorted(), "{text}");

    // RFC 8785, section 3.2.2.2.
    let given = r#""\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/""#;
    let escapes: Value = serde_json::from_str(given).unwrap();
    let canonical = serde_json_canonicalizer::to_string(&escapes).unwrap();
    assert_eq!(canonical, r#""€$\u000f\nA'B\"\\\\\"/""#);
}

#[test]
fn known_entries_make_the_known_lines_and_hashes() {
    let known: Vec<&str> = include_str!("known_lines.jsonl").lines().collect();
    let hashes = [
        "74b84f39d3bccb3600a0ac40964e89008c6ff24bec5c8486a4d5a9b35de4b8af",
        "8542771d14d569a412a08dc5e044f7bd188deb278cc539a094e84893b7bb0608",
        "184f40e185e0976dcb60792d0d248408b0c67c1f60089e75bd86ffeafe07ff6f",
    ];
    let bundle =
        GuardChange { guard: Guard::Bundle, id: "lab".parse().unwrap(), to: Some("version 1".parse().unwrap()) };
    let name = "casemate/party-1/sample".parse().unwrap();
    let genesis = Entry::genesis().guarding(vec![bundle]);
    let Appended { line, head, .. } = Head::genesis(name, genesis, time(0)).unwrap();
    let mut log = Log { lines: vec![line], head };
    log.add(Entry::boot());
    log.intend(common::sign(), "s-1");
    for place in 0..3 {
        assert_eq!(log.lines[place].as_str(), known[place]);
        assert_eq!(log.lines[place].hash().to_string(), hashes[place]);
        assert_eq!(Line::read(known[place].as_bytes()).unwrap(), log.lines[place]);
    }
}
