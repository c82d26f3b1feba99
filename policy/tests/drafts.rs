//! What staff ask of a bundle that they are writing: its cases, and single requests.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use casemate_policy::bundle::Effect;
use casemate_policy::{Draft, Verdict};
use common::*;

const LIMIT: &str = r#"@id("day") @reason("at most 10 ETH a day")
    forbid (principal, action == Mpc::Action::"Sign", resource) when { context has tx }
    unless { context.spent.day.lessThanOrEqual(decimal("10.0")) };
    @id("group") forbid (principal, action == Mpc::Action::"Sign", resource)
    unless { context.group_count.week <= 100 };
    @id("new-parties") forbid (principal, action == Mpc::Action::"Rotate", resource)
    unless { context.session has new_roster && context.session.new_roster.parties.containsAll(["a", "b"]) &&
             context.session.new_roster.threshold_t >= 2 };
    @id("apps") forbid (principal, action == Mpc::Action::"Sign", resource)
    when { context has typed_data && context.typed_data has verifying_contract }
    unless { context.typed_data.verifying_contract in Mpc::AddressBook::"treasury" && context.typed_data.primary_type != "Order" };
    @id("no-messages") forbid (principal, action == Mpc::Action::"Sign", resource)
    when { context has message && !(context.message like "login *") };"#;

fn draft() -> Draft {
    let dir = folder(&[
        ("all.cedar", ALLOW_ALL),
        ("limit.cedar", LIMIT),
        ("entities.json", include_str!("data/starter/entities.json")),
        ("tests/a.json", ONE_ALLOWED),
    ]);
    // Edited since it was sealed.
    write(dir.path(), "tests/a.json", &ONE_ALLOWED.replace("\"policies\": [\"all\"]", "\"policies\": [\"none\"]"));
    Draft::read(dir.path(), &clients()).unwrap()
}

fn request(action: &str, rest: &str, context: &str) -> String {
    format!(
        r#"{{"principal": {{"name": "coordinator"}}, "action": "{action}",
            "resource": {{"key": {{"kind": "wallet", "threshold_t": 2, "threshold_n": 3}}}} {rest},
            "context": {{{context}}}}}"#
    )
}

fn says(request: &str) -> Vec<String> {
    match draft().explain(request).unwrap_or_else(|error| panic!("{error}\n{request}")) {
        Verdict::Allow(_) => vec!["allow".into()],
        Verdict::Deny(denied) => denied.policies().iter().map(|note| note.id.clone()).collect(),
    }
}

fn transfer(amount: &str, fee: &str, context: &str) -> Vec<String> {
    let effects = format!(
        r#", "effects": [{{"kind": "native_transfer", "chain_id": 1, "asset": "ETH", "amount": "{amount}", "fee": "{fee}"}}]"#
    );
    says(&request("Sign", &effects, context))
}

#[test]
fn a_draft_reports_failing_cases_and_what_is_untested_instead_of_refusing_them() {
    let reports = draft().run_cases();
    assert_eq!(reports.len(), 1);
    assert!(!reports[0].passed());
    assert_eq!((reports[0].file.as_str(), reports[0].name.as_str()), ("tests/a.json", "allowed"));
    assert_eq!(reports[0].got.as_ref().unwrap().verdict, Effect::Allow);
    assert!(reports[0].difference().contains(r#"expected Allow by {"none"}, got Allow by {"all"}"#));
    let untested = draft().untested();
    assert_eq!(untested.len(), 5, "{untested:?}");
    assert!(untested.iter().any(|line| line.contains("`day`")));
}

#[test]
fn a_draft_needs_no_manifest_but_everything_else_must_be_right() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "all.cedar", ALLOW_ALL);
    Draft::read(dir.path(), &clients()).unwrap();
    write(dir.path(), "more.cedar", "permit (principal, action, resource);");
    assert!(Draft::read(dir.path(), &clients()).unwrap_err().to_string().starts_with("more.cedar:1:1: "));
}

#[test]
fn without_a_setting_a_case_has_spent_what_it_moves_and_its_fee() {
    assert_eq!(transfer("10.0", "0", ""), ["allow"]);
    assert_eq!(transfer("10.0", "0.0001", ""), ["day"]);
    assert_eq!(transfer("10.0001", "0", ""), ["day"]);
    // Two effects of one asset add up; an allowance does not.
    let two = |kind: &str| {
        let effect = |kind: &str| format!(r#"{{"kind": "{kind}", "chain_id": 1, "asset": "ETH", "amount": "6"}}"#);
        says(&request("Sign", &format!(r#", "effects": [{}, {}]"#, effect("native_transfer"), effect(kind)), ""))
    };
    assert_eq!(two("native_transfer"), ["day"]);
    assert_eq!(two("allowance"), ["allow"]);
}

#[test]
fn an_intent_as_clients_send_it_has_spent_what_it_moves_exactly() {
    let tx = transaction(|tx| tx.value = alloy_primitives::U256::from(10).pow(alloy_primitives::U256::from(19)));
    let payload = |fee: u128| {
        use alloy_consensus::SignableTransaction;
        let tx = alloy_consensus::TxEip1559 {
            chain_id: 1,
            gas_limit: 21_000,
            max_fee_per_gas: fee,
            to: alloy_primitives::Address::repeat_byte(0x35).into(),
            value: tx.effects().next().unwrap().amount,
            ..Default::default()
        };
        let intent = format!(
            r#", "intent": {{"type": "ethereum_transaction", "payload": "{}"}}"#,
            alloy_primitives::hex::encode(tx.encoded_for_signing())
        );
        says(&request("Sign", &intent, ""))
    };
    assert_eq!(payload(0), ["allow"]);
    assert_eq!(payload(1), ["day"]);
}

#[test]
fn cases_set_windows_and_longer_windows_and_groups_hold_at_least_as_much() {
    assert_eq!(transfer("1", "0", r#""spent": {"day": "10.0"}"#), ["allow"]);
    assert_eq!(transfer("1", "0", r#""spent": {"day": "10.0001"}"#), ["day"]);
    assert_eq!(transfer("1", "0", r#""spent": {"hour": "11.0"}"#), ["day"]);
    assert_eq!(transfer("1", "0", r#""count": {"hour": 101}"#), ["group"]);
    assert_eq!(transfer("1", "0", r#""group_count": {"day": 101}"#), ["group"]);
    assert_eq!(transfer("1", "0", r#""group_count": {"week": 100}, "fees": {"hour": "1"}"#), ["allow"]);
    let wrong = request("Sign", "", r#""spent": {"hour": "2", "day": "1"}"#);
    assert!(draft().explain(&wrong).unwrap_err().contains("context.spent"));
    let negative = request("Sign", "", r#""count": {"hour": -1}"#);
    assert!(draft().explain(&negative).unwrap_err().contains("line 3"));
}

#[test]
fn a_rotation_shows_its_new_roster() {
    let rotate = |parties: &str, t: u16| {
        let roster =
            format!(r#""session": {{"new_roster": {{"parties": {parties}, "threshold_t": {t}, "threshold_n": 3}}}}"#);
        says(&request("Rotate", "", &roster))
    };
    assert_eq!(rotate(r#"["a", "b", "c"]"#, 2), ["allow"]);
    assert_eq!(rotate(r#"["a", "c"]"#, 2), ["new-parties"]);
    assert_eq!(rotate(r#"["a", "b"]"#, 1), ["new-parties"]);
    assert_eq!(says(&request("Rotate", "", "")), ["new-parties"]);
}

#[test]
fn typed_data_and_messages_are_seen() {
    let effect = |kind: &str, rest: &str| {
        let effect =
            format!(r#", "effects": [{{"kind": "{kind}", "chain_id": 1, "asset": "nothing", "amount": "0", {rest}}}]"#);
        says(&request("Sign", &effect, ""))
    };
    let typed = |contract: &str, primary: &str| {
        effect(
            "typed_data",
            &format!(
                r#""typed_data": {{"domain_name": "App", "verifying_contract": "0x{contract}", "primary_type": "{primary}"}}"#
            ),
        )
    };
    assert_eq!(typed(&"35".repeat(20), "Vote"), ["allow"]);
    assert_eq!(typed(&"35".repeat(20), "Order"), ["apps"]);
    assert_eq!(typed(&"11".repeat(20), "Vote"), ["apps"]);
    assert_eq!(effect("message", r#""message": "login to the desk""#), ["allow"]);
    assert_eq!(effect("message", r#""message": "I owe you""#), ["no-messages"]);
}

#[test]
fn explanations_show_what_was_seen_beside_what_is_permitted() {
    let spent = request(
        "Sign",
        r#", "effects": [{"kind": "native_transfer", "chain_id": 1, "asset": "ETH", "amount": "1"}]"#,
        r#""spent": {"day": "12.5"}"#,
    );
    let Verdict::Deny(denied) = draft().explain(&spent).unwrap() else { panic!() };
    assert_eq!(
        denied.explanation(),
        ["day: at most 10 ETH a day", "  context.spent.day is 12.5000, permitted is <= 10.0"]
    );
    assert_eq!(denied.observed()[0]["spent"], serde_json::json!({"day": "12.5000"}));
    let Verdict::Deny(denied) = draft().explain(&request("Rotate", "", "")).unwrap() else { panic!() };
    assert!(
        denied.explanation().contains(&"  context.session.new_roster.threshold_t is absent, permitted is >= 2".into())
    );
}

#[test]
fn a_request_that_cannot_be_read_says_where() {
    let error = draft().explain("{\n  \"principal\": 7\n}").unwrap_err();
    assert!(error.contains("line 2 column 16"), "{error}");
}
