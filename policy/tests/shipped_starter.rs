//! The starter bundle that is shipped (`packaging/policy-starter`): it loads, passes its own tests, and is well formatted.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use casemate_policy::bundle;
use common::*;

const FILES: [(&str, &str); 5] = [
    ("entities.json", include_str!("../../packaging/policy-starter/entities.json")),
    ("transfers.cedar", TRANSFERS),
    ("keys.cedar", KEYS),
    ("tests/keys.json", include_str!("../../packaging/policy-starter/tests/keys.json")),
    ("tests/transfers.json", include_str!("../../packaging/policy-starter/tests/transfers.json")),
];
const KEYS: &str = include_str!("../../packaging/policy-starter/keys.cedar");
const TRANSFERS: &str = include_str!("../../packaging/policy-starter/transfers.cedar");

/// Why the bundle does not load once something is left out of its rules about transfers, where it stands first.
fn without(part: &str) -> String {
    assert!(TRANSFERS.contains(part), "{part}");
    let changed = TRANSFERS.replacen(part, "", 1);
    let files = FILES.map(|(path, text)| (path, if path == "transfers.cedar" { changed.as_str() } else { text }));
    load(&folder(&files)).unwrap_err().to_string()
}

#[test]
fn the_starter_bundle_passes_its_tests_and_is_formatted() {
    load(&folder(&FILES)).unwrap();
    for (path, text) in [("transfers.cedar", TRANSFERS), ("keys.cedar", KEYS)] {
        assert_eq!(bundle::format(path, text).unwrap(), text, "{path}");
    }
}

#[test]
fn its_tests_hold_allowances_together_and_typed_data_out() {
    let why = without("  context.tx has method &&\n  context.tx.method == \"approve\" &&\n");
    assert!(why.contains("bit by bit"), "{why}");
    let why = without(" && !(context has typed_data)");
    assert!(why.contains("EIP-3009"), "{why}");
}
