//! What the starter bundle says to real intents, and what its verdicts carry.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use alloy_primitives::{Address, Bytes, TxKind, U256};
use casemate_policy::{Action, Bundle, Resource, SlotFacts, Verdict, decide};
use casemate_wire::{Code, ShareType};
use common::*;

fn milliether(amount: u64) -> U256 {
    U256::from(amount) * U256::from(10).pow(U256::from(15))
}

fn token_transfer(contract: &str, to: Address, amount: u64) -> (TxKind, Bytes) {
    let mut data = vec![0xa9, 0x05, 0x9c, 0xbb];
    data.extend_from_slice(to.into_word().as_slice());
    data.extend_from_slice(&U256::from(amount).to_be_bytes::<32>());
    (TxKind::Call(contract.parse().unwrap()), data.into())
}

#[test]
fn a_transfer_within_limits_is_allowed_and_names_its_permit() {
    let bundle = starter();
    let understood = transaction(|tx| tx.value = milliether(1000));
    let verdict = judge(&bundle, &to_sign(Some(&understood)));
    assert_eq!(allowed_by(&verdict), ["sign-transfers"]);
    let Verdict::Allow(allowed) = verdict else { unreachable!() };
    assert_eq!(
        serde_json::to_value(&allowed).unwrap(),
        serde_json::json!({"effect": "allow", "policies": ["sign-transfers"], "bundle": bundle.digest().to_string()})
    );
}

#[test]
fn a_transfer_above_the_limit_is_refused_by_the_rule_that_it_broke() {
    let bundle = starter();
    let understood = transaction(|tx| tx.value = milliether(1000) + U256::from(1));
    let denied = denied(judge(&bundle, &to_sign(Some(&understood))));
    assert_eq!(denied.code(), Code::PolicyDenied);
    assert_eq!(refused_by(&denied), ["per-transfer-limit"]);
    assert_eq!(denied.reason(), "per-transfer-limit: at most 1 ETH or 1,000 USDC in one transfer");
    let observed = &denied.observed()[0];
    assert_eq!(observed["kind"], "native_transfer");
    assert_eq!(observed["amount"], "1.0001");
    assert_eq!(observed["amount_base"], "1000000000000000001");
    assert_eq!(observed["fee"], "0.0005");
    let permitted = denied.permitted();
    let condition = |attribute: &str, op: &str, permitted: &str, observed: &str| serde_json::json!({"attribute": attribute, "op": op, "permitted": permitted, "observed": observed});
    assert_eq!(
        permitted[0]["any_of"],
        serde_json::json!([
            [condition("context.tx.asset", "==", "ETH", "ETH"), condition("context.tx.amount", "<=", "1.0", "1.0001"),],
            [
                condition("context.tx.asset", "==", "USDC", "ETH"),
                condition("context.tx.amount", "<=", "1000.0", "1.0001"),
            ],
        ])
    );
    assert_eq!(
        denied.explanation(),
        [
            "per-transfer-limit: at most 1 ETH or 1,000 USDC in one transfer",
            "  context.tx.amount is 1.0001, permitted is <= 1.0"
        ]
    );
    let limits: Vec<&str> = permitted[0]["limits"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
    assert!(limits.contains(&"context.tx.amount <= 1.0"), "{limits:?}");
    let decision = serde_json::to_value(&denied).unwrap();
    assert_eq!(decision["effect"], "deny");
    assert_eq!(decision["policies"], serde_json::json!(["per-transfer-limit"]));
    assert_eq!(decision["bundle"], bundle.digest().to_string());
}

#[test]
fn the_reasons_of_all_refused_effects_are_joined_and_sorted() {
    let understood = transaction(|tx| {
        tx.value = milliether(2000);
        (tx.to, tx.input) = token_transfer(USDC, Address::repeat_byte(0x11), 5_000_000_000);
        tx.max_fee_per_gas = 10_000_000_000_000;
    });
    let denied = denied(judge(&starter(), &to_sign(Some(&understood))));
    assert_eq!(refused_by(&denied), ["fee-cap", "known-receivers", "per-transfer-limit"]);
    assert_eq!(denied.observed().len(), 2);
}

#[test]
fn a_refused_token_is_not_hidden_by_the_ether_beside_it() {
    let everyone = load_with(
        r#"@id("no-tokens") forbid (principal, action == Mpc::Action::"Sign", resource)
           when { context has tx && context.tx.kind == "token_transfer" };"#,
        r#"[{ "name": "token", "request": {
                "principal": {"name": "coordinator"}, "action": "Sign",
                "resource": {"key": {"kind": "wallet", "threshold_t": 2, "threshold_n": 3}},
                "effects": [{"kind": "token_transfer", "chain_id": 1, "asset": "USDC", "amount": "1"}] },
              "expect": {"verdict": "deny", "policies": ["no-tokens"]} }]"#,
    )
    .unwrap();
    let understood = transaction(|tx| {
        tx.value = U256::from(1);
        (tx.to, tx.input) = token_transfer(USDC, Address::repeat_byte(0x35), 1);
    });
    let denied = denied(judge(&everyone, &to_sign(Some(&understood))));
    assert_eq!(refused_by(&denied), ["no-tokens"]);
    assert_eq!(denied.observed().len(), 1);
}

#[test]
fn an_unknown_token_or_chain_counts_as_the_largest_amount() {
    let unknown = "0x1111111111111111111111111111111111111111";
    let token = transaction(|tx| {
        (tx.to, tx.input) = token_transfer(unknown, Address::repeat_byte(0x35), 1);
    });
    let denied_token = denied(judge(&starter(), &to_sign(Some(&token))));
    assert_eq!(refused_by(&denied_token), ["per-transfer-limit"]);
    assert_eq!(denied_token.observed()[0]["amount"], "922337203685477.5807");
    assert_eq!(denied_token.observed()[0]["asset"], format!("eip155:1/{unknown}"));

    let chain = transaction(|tx| tx.chain_id = 56);
    let denied_chain = denied(judge(&starter(), &to_sign(Some(&chain))));
    assert_eq!(refused_by(&denied_chain), ["fee-cap", "known-receivers", "per-transfer-limit"]);
    assert_eq!(denied_chain.observed()[0]["asset"], "eip155:56/native");
}

#[test]
fn amounts_beyond_cedars_decimal_are_refused_by_limits() {
    let understood = transaction(|tx| tx.value = U256::MAX);
    assert_eq!(refused_by(&denied(judge(&starter(), &to_sign(Some(&understood))))), ["per-transfer-limit"]);
}

#[test]
fn an_address_counts_only_on_its_own_chain() {
    let sepolia = transaction(|tx| tx.chain_id = 11_155_111);
    assert_eq!(allowed_by(&judge(&starter(), &to_sign(Some(&sepolia)))), ["sign-transfers"]);
    let stranger = transaction(|tx| tx.to = Address::repeat_byte(0x36).into());
    assert_eq!(refused_by(&denied(judge(&starter(), &to_sign(Some(&stranger))))), ["known-receivers"]);
    let creation = transaction(|tx| tx.to = TxKind::Create);
    assert_eq!(refused_by(&denied(judge(&starter(), &to_sign(Some(&creation))))), ["known-receivers"]);
}

#[test]
fn blind_signing_is_refused_with_its_own_code() {
    let denied = denied(judge(&starter(), &to_sign(None)));
    assert_eq!(denied.code(), Code::BlindSigningDenied);
    assert_eq!(refused_by(&denied), ["no-blind-signing"]);
}

#[test]
fn without_a_bundle_everything_is_denied() {
    let understood = transaction(|_| {});
    for action in [Action::Keygen, Action::Sign, Action::Presign, Action::Rotate, Action::Revoke, Action::Backup] {
        let denied = denied(decide(None, &casemate_policy::Request { action, ..to_sign(Some(&understood)) }));
        assert_eq!(denied.reason(), "no valid policy bundle is loaded");
        assert_eq!(serde_json::to_value(&denied).unwrap()["bundle"], serde_json::Value::Null);
    }
    let keygen =
        casemate_policy::Request { action: Action::Keygen, resource: Resource::KeySlot(wallet()), ..to_sign(None) };
    assert!(matches!(decide(Some(&starter()), &keygen), Verdict::Allow(_)));
}

#[test]
fn what_no_permit_matches_is_denied_and_says_so() {
    let understood = transaction(|_| {});
    let admin = casemate_policy::Request {
        resource: key(SlotFacts { kind: ShareType::Admin, ..wallet() }),
        ..to_sign(Some(&understood))
    };
    let denied = denied(judge(&starter(), &admin));
    assert!(denied.policies().is_empty());
    assert_eq!(denied.reason(), "no permit matched: those for Sign are sign-transfers");
    let backup = casemate_policy::Request { action: Action::Backup, resource: Resource::Appliance, ..to_sign(None) };
    let reason = common::denied(judge(&starter(), &backup)).reason();
    assert_eq!(reason, "no permit matched: the bundle has none for Backup");
}

#[test]
fn an_action_on_the_wrong_kind_of_resource_is_denied_even_where_everything_is_permitted() {
    let bundle = load_with("", "[]").unwrap();
    let understood = transaction(|_| {});
    assert_eq!(allowed_by(&judge(&bundle, &to_sign(Some(&understood)))), ["all"]);
    for resource in [Resource::KeySlot(wallet()), Resource::Appliance] {
        let sign = casemate_policy::Request { resource: resource.clone(), ..to_sign(Some(&understood)) };
        denied(judge(&bundle, &sign));
        let presign = casemate_policy::Request { action: Action::Presign, resource, ..to_sign(None) };
        assert!(denied(judge(&bundle, &presign)).reason().contains("does not fit the policy schema"));
    }
    let keygen = casemate_policy::Request {
        action: Action::Keygen,
        resource: Resource::KeySlot(wallet()),
        ..to_sign(Some(&understood))
    };
    assert!(denied(judge(&bundle, &keygen)).reason().contains("intent"));
}

#[test]
fn keygen_follows_its_own_rules() {
    let keygen =
        |slot| casemate_policy::Request { action: Action::Keygen, resource: Resource::KeySlot(slot), ..to_sign(None) };
    assert_eq!(allowed_by(&judge(&starter(), &keygen(wallet()))), ["make-wallet-keys"]);
    let all_needed = SlotFacts { threshold_t: 3, ..wallet() };
    assert_eq!(refused_by(&denied(judge(&starter(), &keygen(all_needed)))), ["keygen-quorum"]);
}

#[test]
fn a_bundle_is_not_in_force_before_its_time() {
    let understood = transaction(|_| {});
    let early =
        casemate_policy::Request { time: "2024-12-31T23:59:59Z".parse().unwrap(), ..to_sign(Some(&understood)) };
    assert!(denied(judge(&starter(), &early)).reason().contains("not in force before 2025-01-01T00:00:00Z"));
}

#[test]
fn key_groups_hold_keys_by_label_or_public_key() {
    let entities = format!(
        r#"{{ "key_groups": [ {{ "name": "frozen", "labels": ["old"], "public_keys": ["{KEY}"] }},
                             {{ "name": "labelled", "labels": ["old"] }} ] }}"#
    );
    let rule = |group: &str| {
        let rule = format!(
            r#"@id("group") forbid (principal, action == Mpc::Action::"Sign", resource in Mpc::KeyGroup::"{group}");"#
        );
        let test = r#"[{ "name": "in the group", "request": {
                "principal": {"name": "coordinator"}, "action": "Sign",
                "resource": {"key": {"kind": "wallet", "threshold_t": 2, "threshold_n": 3, "label": "old"}} },
              "expect": {"verdict": "deny", "policies": ["group"]} }]"#;
        load(&folder(&[
            ("all.cedar", ALLOW_ALL),
            ("group.cedar", &rule),
            ("entities.json", &entities),
            ("tests/a.json", ONE_ALLOWED),
            ("tests/b.json", test),
        ]))
        .unwrap()
    };
    assert_eq!(refused_by(&denied(judge(&rule("frozen"), &to_sign(None)))), ["group"]);
    assert_eq!(allowed_by(&judge(&rule("labelled"), &to_sign(None))), ["all"]);
    let labelled = casemate_policy::Request {
        resource: key(SlotFacts { label: Some("old".into()), ..wallet() }),
        ..to_sign(None)
    };
    assert_eq!(refused_by(&denied(judge(&rule("labelled"), &labelled))), ["group"]);
}

#[test]
fn time_is_seen_in_the_manifests_zone() {
    let rule = r#"@id("hours") forbid (principal, action, resource)
        unless { context.time.weekday == 1 && context.time.minute_of_day == 840 && context.time.unix == 1748865600 };"#;
    let refused = r#"[{ "name": "at another time", "request": {
            "principal": {"name": "coordinator"}, "action": "Backup", "resource": {"appliance": {}},
            "context": {"time": "2025-06-02T12:01:00Z"} },
          "expect": {"verdict": "deny", "policies": ["hours"]} }]"#;
    let dir = folder(&[
        ("all.cedar", ALLOW_ALL),
        ("hours.cedar", rule),
        (
            "tests/a.json",
            &ONE_ALLOWED.replace(
                r#""resource": { "appliance": {} }"#,
                r#""resource": { "appliance": {} }, "context": { "time": "2025-06-02T12:00:00Z" }"#,
            ),
        ),
        ("tests/b.json", refused),
    ]);
    // 12:00 UTC is 14:00 in Berlin in June; in UTC the bundle's own test fails.
    assert!(load(&dir).unwrap_err().to_string().contains("hours"));
    let manifest = dir.path().join("manifest.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("\"UTC\"", "\"Europe/Berlin\"")).unwrap();
    let bundle: Bundle = load(&dir).unwrap();
    assert_eq!(allowed_by(&judge(&bundle, &to_sign(None))), ["all"]);
}

#[test]
fn a_calendars_day_begins_and_ends_at_midnight_of_the_manifests_zone() {
    let at = |time: &str| casemate_policy::Request { time: time.parse().unwrap(), ..to_sign(None) };
    let rule = r#"@id("holidays") forbid (principal, action, resource)
        unless { !context.time.calendars.contains("christmas") };"#;
    let refused = r#"[{ "name": "at Christmas", "request": {
            "principal": {"name": "coordinator"}, "action": "Backup", "resource": {"appliance": {}},
            "context": {"time": "2026-12-25T12:00:00Z"} },
          "expect": {"verdict": "deny", "policies": ["holidays"]} }]"#;
    let dir = folder(&[
        ("all.cedar", ALLOW_ALL),
        ("holidays.cedar", rule),
        (
            "entities.json",
            r#"{"calendars": [{"name": "christmas", "days": ["2026-12-25"]}, {"name": "other", "days": ["2026-12-24"]}]}"#,
        ),
        ("tests/a.json", ONE_ALLOWED),
        ("tests/b.json", refused),
    ]);
    let manifest = dir.path().join("manifest.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    for (zone, first, last) in [
        ("UTC", "2026-12-25T00:00:00Z", "2026-12-25T23:59:59Z"),
        ("America/New_York", "2026-12-25T05:00:00Z", "2026-12-26T04:59:59Z"),
        ("Asia/Tokyo", "2026-12-24T15:00:00Z", "2026-12-25T14:59:59Z"),
    ] {
        std::fs::write(&manifest, text.replace("\"UTC\"", &format!("{zone:?}"))).unwrap();
        let bundle: Bundle = load(&dir).unwrap();
        let second = jiff::SignedDuration::from_secs(1);
        let (first, last) = (at(first), at(last));
        let before = casemate_policy::Request { time: first.time - second, ..first.clone() };
        let after = casemate_policy::Request { time: last.time + second, ..last.clone() };
        for request in [&first, &last] {
            assert_eq!(refused_by(&denied(judge(&bundle, request))), ["holidays"], "{zone}");
        }
        for request in [&before, &after] {
            assert_eq!(allowed_by(&judge(&bundle, request)), ["all"], "{zone}");
        }
    }
}

#[test]
fn a_refusal_on_a_holiday_shows_the_calendar() {
    let rule = r#"@id("desk") forbid (principal, action, resource)
        unless { context.time.weekday <= 5 && !context.time.calendars.contains("holidays") };"#;
    let refused = r#"[{ "name": "at Christmas", "request": {
            "principal": {"name": "coordinator"}, "action": "Backup", "resource": {"appliance": {}},
            "context": {"time": "2026-12-25T12:00:00Z"} },
          "expect": {"verdict": "deny", "policies": ["desk"]} }]"#;
    let bundle: Bundle = load(&folder(&[
        ("all.cedar", ALLOW_ALL),
        ("desk.cedar", rule),
        ("entities.json", r#"{"calendars": [{"name": "holidays", "days": ["2026-12-25"]}]}"#),
        ("tests/a.json", ONE_ALLOWED),
        ("tests/b.json", refused),
    ]))
    .unwrap();
    let christmas = "2026-12-25T12:00:00Z".parse().unwrap();
    let refusal = denied(judge(&bundle, &casemate_policy::Request { time: christmas, ..to_sign(None) }));
    // The weekday is as it should be, so nothing is said of it.
    assert_eq!(
        refusal.explanation(),
        ["desk forbids it", r#"  context.time.calendars is ["holidays"], permitted is does not contain holidays"#]
    );
}
