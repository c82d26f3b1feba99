//! Policies of a test's own, signed by the lab's people.

use std::fs;
use std::path::Path;

use casemate_appliance::lab::Staff;
use casemate_policy::bundle::seal;
use serde_json::{Value, json};

/// Every key may be rotated, and everything is signed, but no more than `limit` whole ether within an hour.
pub fn hourly_limit(dir: &Path, limit: &str) {
    let rules = format!(
        r#"@id("rotate") permit (principal, action == Mpc::Action::"Rotate", resource);
@id("sign") permit (principal, action == Mpc::Action::"Sign", resource);
@id("hourly") @reason("at most {limit} ETH an hour") forbid (principal, action == Mpc::Action::"Sign", resource)
when {{ context has tx }} unless {{ context.spent.hour.lessThanOrEqual(decimal("{limit}")) }};
"#
    );
    replace(dir, &rules, &json!([case("0.0", "allow", "sign"), case("1000000.0", "deny", "hourly")]));
}

/// Every key may be rotated, and everything is signed, whatever was spent before.
pub fn unlimited(dir: &Path) {
    let rules = r#"@id("rotate") permit (principal, action == Mpc::Action::"Rotate", resource);
@id("sign") permit (principal, action == Mpc::Action::"Sign", resource);
"#;
    replace(dir, rules, &json!([case("1.0", "allow", "sign")]));
}

/// A test case with a transfer of so many ether.
fn case(amount: &str, verdict: &str, policy: &str) -> Value {
    json!({
        "name": amount,
        "request": {
            "principal": {"name": "coordinator", "roles": ["coordinator"]},
            "action": "Sign",
            "resource": {"key": {"kind": "wallet", "threshold_t": 2, "threshold_n": 3}},
            "effects": [{"kind": "native_transfer", "chain_id": 11_155_111, "asset": "ETH", "amount": amount}],
        },
        "expect": {"verdict": verdict, "policies": [policy]},
    })
}

/// Puts these rules and test cases in the place of the bundle's own; its `entities.json` stays.
pub fn replace(dir: &Path, rules: &str, cases: &Value) {
    for folder in [dir, &dir.join("tests")] {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if Path::new(&name).extension().is_some_and(|end| end == "cedar") || folder.ends_with("tests") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
    fs::write(dir.join("rules.cedar"), rules).unwrap();
    fs::write(dir.join("tests/cases.json"), cases.to_string()).unwrap();
}

/// Seals the folder as it stands, and signs it as enough people do.
pub fn publish(staff: &Staff, dir: &Path) {
    seal(dir, jiff::Timestamp::now()).unwrap();
    staff.sign_bundle(dir).unwrap();
}
