//! `check`, `test`, `explain`.

use serde_json::json;

use super::{Desk, policy};

/// A transfer of ether on Sepolia by the coordinator.
fn request(amount: &str, context: &serde_json::Value) -> String {
    json!({
        "principal": {"name": "coordinator", "roles": ["coordinator"]},
        "action": "Sign",
        "resource": {"key": {"kind": "wallet", "threshold_t": 2, "threshold_n": 3}},
        "effects": [{
            "kind": "native_transfer", "chain_id": 11_155_111, "asset": "ETH", "amount": amount,
            "to": "eip155:11155111:0x3535353535353535353535353535353535353535", "fee": "0.002",
        }],
        "context": context,
    })
    .to_string()
}

#[test]
fn check_accepts_a_draft_and_says_that_it_is_not_sealed() {
    let desk = Desk::new();
    desk.replace("entities.json", "cold storage", "vault");
    policy(&["check", &desk.dir()]).ends(0).says("NOT SEALED as it stands (entities.json)");
    let answer = policy(&["check", &desk.dir(), "--format", "json"]).ends(0).json();
    assert_eq!((&answer["valid"], &answer["sealed"]), (&json!(true), &json!(false)));
    assert_eq!(answer["unsealed"], json!(["entities.json"]));
    policy(&["check", &desk.dir(), "--sealed"]).ends(1).says("entities.json");
}

#[test]
fn check_refuses_with_file_line_column_and_a_hint() {
    let desk = Desk::new();
    let text = "@id(\"good\")\npermit (principal, action, resource)\nwhen { context.tx.amonut };\n";
    desk.write("more.cedar", text);
    let answer = policy(&["check", &desk.dir(), "--format", "json"]).ends(1).json();
    let error = &answer["error"];
    assert_eq!((&error["file"], &error["line"]), (&json!("more.cedar"), &json!(3)), "{answer}");
    assert!(error["column"].is_u64() && error["message"].is_string(), "{answer}");
    policy(&["check", &desk.dir()]).ends(1).says("more.cedar:3:");

    desk.write("more.cedar", "@id(\"open\")\npermit (principal, action,\n");
    policy(&["check", &desk.dir()]).ends(1).says("more.cedar:");
}

#[test]
fn check_points_into_json_files_too() {
    let desk = Desk::new();
    desk.replace("entities.json", "\"decimals\": 18", "\"decimals\": 18,");
    let answer = policy(&["check", &desk.dir(), "--format", "json"]).ends(1).json();
    assert_eq!(answer["error"]["file"], "entities.json");
    assert_eq!(answer["error"]["line"], 3, "{answer}");
}

#[test]
fn clients_that_policies_name_are_given_on_the_command_line() {
    let desk = Desk::new();
    let rule = "@id(\"desk-only\")\nforbid (principal, action == Mpc::Action::\"Backup\", resource)\n\
                when { principal == Mpc::Client::\"desk\" };\n";
    desk.write("desk.cedar", rule);
    desk.write(
        "tests/desk.json",
        r#"[{"name": "the desk backs nothing up",
             "request": {"principal": {"name": "desk", "roles": ["operator"]}, "action": "Backup",
                         "resource": {"appliance": {}},
                         "context": {"approvals": {"count": 2, "distinct_orgs": 2}}},
             "expect": {"verdict": "deny", "policies": ["desk-only"]}}]"#,
    );
    policy(&["check", &desk.dir()]).ends(1).says("desk");
    policy(&["check", &desk.dir(), "--client", "desk:operator:acme"]).ends(0);
    policy(&["test", &desk.dir(), "--client", "desk"]).ends(0);
    policy(&["check", &desk.dir(), "--client", ":operator"]).ends(2).says("NAME");
}

#[test]
fn test_lists_every_failure_with_what_was_expected_and_what_came() {
    let desk = Desk::new();
    desk.replace(
        "transfers.cedar",
        "context.tx.amount.lessThanOrEqual(decimal(\"1.0\"))",
        "context.tx.amount.lessThanOrEqual(decimal(\"2.0\"))",
    );
    desk.replace("tests/keys.json", "\"policies\": [\"keygen-quorum\"]", "\"policies\": []");
    let answer = policy(&["test", &desk.dir()]).ends(1);
    let answer = answer.says("FAILED tests/transfers.json: more than one ETH needs approvals");
    let answer = answer.says("expected deny by per-transfer-limit").says("got      allow by sign-transfers");
    answer.says("FAILED tests/keys.json").says("2 failed");
    let json = policy(&["test", &desk.dir(), "--format", "json"]).ends(1).json();
    assert_eq!(json["failed"].as_array().unwrap().len(), 2);
    assert_eq!(json["failed"][1]["got"], json!({"verdict": "allow", "policies": ["sign-transfers"]}));
}

#[test]
fn test_names_what_no_case_tests() {
    let desk = Desk::new();
    desk.write(
        "more.cedar",
        "@id(\"untested\")\nforbid (principal, action, resource) when { context.peers_attested };\n",
    );
    policy(&["test", &desk.dir()]).ends(1).says("no test expects a refusal by `untested`");
}

#[test]
fn explain_says_who_allowed_who_refused_what_was_seen_and_what_is_permitted() {
    let desk = Desk::new();
    let small = desk.beside("small.json", &request("0.5", &json!({})));
    policy(&["explain", &small, "--bundle", &desk.dir()]).ends(0).says("ALLOWED by").says("sign-transfers");

    let large = desk.beside("large.json", &request("2.5", &json!({})));
    let answer = policy(&["explain", &large, "--bundle", &desk.dir()]).ends(1);
    answer.says("per-transfer-limit: at most 1 ETH").says("2.5");
    let json = policy(&["explain", &large, "--bundle", &desk.dir(), "--format", "json"]).ends(1).json();
    assert_eq!(json["verdict"], "deny");
    assert_eq!(json["policies"][0]["id"], "per-transfer-limit");
    assert_eq!(json["observed"][0]["amount"], "2.5000");
    assert_eq!(json["permitted"][0]["policy"], "per-transfer-limit");

    let approved = json!({"approvals": {"count": 2, "distinct_orgs": 2, "names": ["anna@acme", "bert@warden"]}});
    let approved = desk.beside("approved.json", &request("2.5", &approved));
    policy(&["explain", &approved, "--bundle", &desk.dir()]).ends(0);
}

#[test]
fn explain_warns_that_each_party_counts_for_itself() {
    let desk = Desk::new();
    let file = desk.beside("request.json", &request("0.5", &json!({"spent": {"day": "24.0"}})));
    policy(&["explain", &file, "--bundle", &desk.dir()]).ends(0).says("n/t times");
    let json = policy(&["explain", &file, "--bundle", &desk.dir(), "--format", "json"]).ends(0).json();
    assert!(json["note"].as_str().unwrap().contains("n/t times"));
}

#[test]
fn explain_cannot_judge_what_is_no_request() {
    let desk = Desk::new();
    let file = desk.beside("request.json", "{\"principal\": 1}");
    policy(&["explain", &file, "--bundle", &desk.dir()]).ends(2).says("line 1");
    policy(&["explain", "/nowhere/request.json", "--bundle", &desk.dir()]).ends(2).says("cannot read");
    desk.write("keys.cedar", "nonsense");
    let file = desk.beside("request.json", &request("0.5", &json!({})));
    policy(&["explain", &file, "--bundle", &desk.dir()]).ends(2).says("keys.cedar");
}
