//! The evaluator's rules, each with the attack that it answers.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use casemate_policy::{Request, Resource, SlotFacts};
use common::*;

/// A test case in which this forbid refuses a request for a key with these attributes.
fn refused_case(policy: &str, key: &str, context: &str) -> String {
    format!(
        r#"[{{ "name": "refused", "request": {{
              "principal": {{"name": "coordinator"}}, "action": "Sign",
              "resource": {{"key": {{"kind": "wallet", "threshold_t": 2, "threshold_n": 3, {key} }}}},
              "context": {{ {context} }} }},
            "expect": {{"verdict": "deny", "policies": ["{policy}"]}} }}]"#
    )
}

#[test]
fn rule_1_an_error_in_a_forbid_denies_although_everything_is_permitted() {
    // Overflows from an age of 9,223 days on; Cedar alone would then skip the forbid and allow.
    let forbid = r#"@id("overflowing") forbid (principal, action == Mpc::Action::"Sign", resource is Mpc::Key)
        when { resource.age_days * 1000000000000000 < 0 || resource.label == "no" };"#;
    let bundle = load_with(forbid, &refused_case("overflowing", r#""label": "no""#, "")).unwrap();
    let aged = |age_days| {
        let Resource::Key(facts) = key(wallet()) else { unreachable!() };
        Request { resource: Resource::Key(casemate_policy::KeyFacts { age_days, ..facts }), ..to_sign(None) }
    };
    assert_eq!(allowed_by(&judge(&bundle, &aged(1))), ["all"]);
    let denied = denied(judge(&bundle, &aged(10_000)));
    assert_eq!(refused_by(&denied), ["overflowing"]);
    assert!(denied.reason().contains("overflow"), "{}", denied.reason());
}

#[test]
fn rule_1_an_error_in_a_permit_denies_although_another_permit_matches() {
    let permit = r#"@id("broken") permit (principal, action == Mpc::Action::"Sign", resource is Mpc::Key)
        when { resource.age_days * 9223372036854775807 > 0 };"#;
    let bundle = load_with(permit, "[]").unwrap();
    assert_eq!(refused_by(&denied(judge(&bundle, &to_sign(None)))), ["broken"]);
}

#[test]
fn rule_1_an_overflow_in_a_limit_on_counts_denies() {
    // Cedar alone would skip the forbid from the second signature on.
    let forbid = r#"@id("count") forbid (principal, action == Mpc::Action::"Sign", resource)
        unless { context.count.day * 9223372036854775807 > 0 && resource.kind == "wallet" };"#;
    let admin = r#"[{ "name": "admin", "request": {
            "principal": {"name": "coordinator"}, "action": "Sign",
            "resource": {"key": {"kind": "admin", "threshold_t": 2, "threshold_n": 3}} },
          "expect": {"verdict": "deny", "policies": ["count"]} }]"#;
    let bundle = load_with(forbid, admin).unwrap();
    let mut ledger = casemate_policy::Ledger::default();
    let understood = [transaction(|_| {}), transaction(|tx| tx.nonce = 1)];
    let verdicts = [0, 1].map(|n: usize| {
        let signing = casemate_policy::Signing {
            session: format!("s{n}").parse().unwrap(),
            key: KEY.parse().unwrap(),
            label: None,
            derivation_path: None,
            message_hash: understood[n].digest(),
            understood: Some(&understood[n]),
        };
        let reserved = bundle.reserve(&mut ledger, &signing, noon()).unwrap();
        bundle.decide(&Request { spent: Some(reserved.totals()), ..to_sign(Some(&understood[n])) })
    });
    let [first, second] = verdicts;
    assert_eq!(allowed_by(&first), ["all"]);
    let denied = denied(second);
    assert_eq!(refused_by(&denied), ["count"]);
    assert!(denied.reason().contains("overflow"), "{}", denied.reason());
}

#[test]
fn rule_1_no_tool_of_the_staff_calls_an_erroring_forbid_allowed() {
    let forbid = r#"@id("overflowing") forbid (principal, action == Mpc::Action::"Sign", resource is Mpc::Key)
        when { resource.age_days * 1000000000000000 < 0 || resource.label == "no" };"#;
    let bundle = load_with(forbid, &refused_case("overflowing", r#""label": "no""#, "")).unwrap();
    let aged = r#"{"principal": {"name": "coordinator"}, "action": "Sign",
        "resource": {"key": {"kind": "wallet", "threshold_t": 2, "threshold_n": 3, "age_days": 10000}}}"#;
    assert_eq!(refused_by(&denied(bundle.explain(aged).unwrap())), ["overflowing"]);
}

#[test]
fn rule_4_a_request_with_too_many_effects_is_denied() {
    let bundle = load_with("", "[]").unwrap();
    let effects = |count: usize| {
        let effect = r#"{"kind": "native_transfer", "chain_id": 1, "asset": "ETH", "amount": "0"}"#;
        let request = format!(
            r#"{{"principal": {{"name": "coordinator"}}, "action": "Sign",
                "resource": {{"key": {{"kind": "wallet", "threshold_t": 2, "threshold_n": 3}}}}, "effects": [{}]}}"#,
            vec![effect; count].join(",")
        );
        bundle.explain(&request).unwrap()
    };
    assert_eq!(allowed_by(&effects(20)), ["all"]);
    assert!(denied(effects(501)).reason().contains("more than 500 effects"));
    assert!(denied(effects(0)).reason().contains("nothing to judge"));
}

#[test]
fn rule_2_impossible_policies_and_type_errors_are_refused() {
    for (policy, why) in [
        (
            r#"@id("p") forbid (principal, action, resource) when { context.blind && !context.blind && false };"#,
            "impossible",
        ),
        (r#"@id("p") forbid (principal, action == Mpc::Action::"Keygen", resource is Mpc::Key);"#, ""),
        (r#"@id("p") forbid (principal, action == Mpc::Action::"Sing", resource);"#, "Sing"),
        (r#"@id("p") forbid (principal, action, resource) when { context.amount == 1 };"#, "amount"),
        (r#"@id("p") forbid (principal, action, resource) when { context.tx.kind == "x" };"#, "tx"),
        (r#"@id("p") forbid (principal, action, resource) when { context.blind == "yes" };"#, ""),
        (r#"@id("p") forbid (principal is Mpc::User, action, resource);"#, "User"),
        (r#"@id("p") forbid (principal, action, resource) when { context has speent };"#, ""),
        (r#"@id("p") forbid (principal, action, resource) when { decimal("1.23456").lessThan(decimal("1.0")) };"#, ""),
    ] {
        let text = refusal(policy);
        assert!(text.contains("policy `p`") && text.contains(why), "{policy}\n{text}");
    }
}

#[test]
fn rule_3_entities_that_do_not_exist_are_refused() {
    for literal in [
        r#"context has tx && context.tx has to && context.tx.to in Mpc::AddressBook::"tresaury""#,
        r#"context has tx && context.tx has to && context.tx.to == Mpc::Address::"eip155:1:0x1111111111111111111111111111111111111111""#,
        r#"resource in Mpc::KeyGroup::"hot""#,
        r#"principal == Mpc::Client::"Coordinator""#,
    ] {
        let why = refusal(&format!(
            r#"@id("p") forbid (principal, action == Mpc::Action::"Sign", resource) when {{ {literal} }};"#
        ));
        assert!(why.contains("does not exist") || why.contains("not a configured client"), "{literal}\n{why}");
    }
    let scoped = refusal(r#"@id("p") forbid (principal == Mpc::Client::"nobody", action, resource);"#);
    assert!(scoped.contains("known are coordinator"), "{scoped}");
}

#[test]
fn rule_3_calendars_that_do_not_exist_are_refused() {
    for condition in [
        r#"context.time.calendars.contains("holiday")"#,
        r#"!(["holiday"].containsAny(context.time.calendars)) && !context.blind"#,
        r#"context.time["calendars"].containsAll(["holiday"])"#,
        r#"context.time.calendars == ["holiday"]"#,
        r#"context.time.calendars.contains(if context.blind then "holiday" else "other")"#,
    ] {
        let why = refusal(&format!(r#"@id("p") forbid (principal, action, resource) when {{ {condition} }};"#));
        assert!(why.contains(r#"there is no calendar "holiday""#), "{condition}\n{why}");
    }
}

#[test]
fn rule_3_entities_that_exist_are_accepted() {
    let literals = r#"@id("p") permit (principal == Mpc::Client::"coordinator", action == Mpc::Action::"Sign", resource)
        when { context has tx && context.tx has to &&
               context.tx.to == Mpc::Address::"eip155:1:0x3535353535353535353535353535353535353535" &&
               context.tx.to in Mpc::AddressBook::"treasury" && Mpc::Client::"coordinator".org == "acme" };"#;
    let bundle = load_with(literals, "[]").unwrap();
    let understood = transaction(|_| {});
    assert_eq!(allowed_by(&judge(&bundle, &to_sign(Some(&understood)))), ["all", "p"]);
}

#[test]
fn rule_3_confusable_characters_are_refused() {
    for text in [
        // The last letter of the first, and all letters of the second, are Cyrillic.
        r#"@id("p") forbid (principal, action, resource) when { context has tx && context.tx.asset == "USDС" };"#,
        r#"@id("p") forbid (principal, action, resource) when { context has tx && context.tx.asset == "ЕТН" };"#,
        r#"@id("p") forbid (principal, action, resource) when { context has tx && context.tx.asset == "\u{415}\u{422}\u{41d}" };"#,
        "@id(\"p\") forbid (principal == Mpc::Client::\"с\u{43e}ordinator\", action, resource);",
        "@id(\"p\") forbid (principal, action, resource) when { context has tx && context.tx.to in Mpc::AddressBook::\"trеasury\" };",
        "@id(\"p\") forbid (principal, action, resource) when { соntext.blind };",
        // An annotation without a value ends before the policy begins.
        "@id(\"p\") @reason forbid (principal == Mpc::Client::\"с\", action, resource);",
        "@id(\"p\") forbid (principal, action, resource); // \u{202e} hidden",
        "@id(\"p\") @reason(\"in\u{200b}visible\") forbid (principal, action, resource);",
    ] {
        let why = refusal(text);
        assert!(why.contains("more.cedar:1:"), "{text}\n{why}");
    }
    let names = |entities: &str| load(&folder(&[("entities.json", entities)])).unwrap_err().to_string();
    assert!(names(r#"{"address_books": [{"name": "trеasury", "addresses": []}]}"#).contains("look alike"));
    assert!(names(r#"{"assets": [{"chain": "eip155:1", "symbol": "USDС", "decimals": 6}]}"#).contains("look alike"));
    assert!(names(r#"{"key_groups": [{"name": "hоt"}]}"#).contains("look alike"));
    assert!(names(r#"{"calendars": [{"name": "hоlidays", "days": []}]}"#).contains("look alike"));
}

#[test]
fn people_may_write_reasons_and_comments_in_their_language() {
    let cedar = "// Für die Kasse: höchstens …\n@id(\"p\") @reason(\"Überweisung zu groß\") permit (principal, action == Mpc::Action::\"Keygen\", resource);";
    load_with(cedar, "[]").unwrap();
}

#[test]
fn rule_4_deep_input_is_refused_before_it_is_parsed() {
    let deep = |open: &str, middle: &str, close: &str, count: usize| {
        format!(
            r#"@id("p") forbid (principal, action, resource) when {{ {}{middle}{} }};"#,
            open.repeat(count),
            close.repeat(count)
        )
    };
    for policy in [
        deep("(", "true", ")", 10_000),
        deep("[", "1", "]", 10_000),
        deep("{a: ", "1", "}", 10_000),
        deep("(", "true", "", 100_000),
        deep("if true then true else ", "true", "", 5_000),
        deep("!", "true", "", 10_000),
        deep("-", "1", "", 10_000),
        deep("true && ", "true", "", 10_000),
        deep("false || ", "true", "", 10_000),
        deep("1 + ", "1", "", 10_000),
        deep("", "context", ".a", 10_000),
        deep("", "context", "[\"a\"]", 10_000),
        deep("", "context", " has a", 10_000),
        deep("", "A", "::A", 10_000),
        format!("@id(\"p\") forbid (principal, action, resource) {};", "when { true } ".repeat(10_000)),
        format!("@id(\"p\"){} forbid (principal, action, resource);", "(".repeat(10_000)),
    ] {
        let why = refusal(&policy);
        assert!(why.starts_with("more.cedar:1:") && (why.contains("deep") || why.contains("brackets")), "{why}");
    }
}

#[test]
fn rule_4_what_the_bounds_let_through_is_parsed_validated_and_evaluated() {
    let forbid = |condition: &str| {
        format!(
            r#"@id("deep") forbid (principal, action == Mpc::Action::"Sign", resource is Mpc::Key)
               when {{ resource.label == "no" }} unless {{ {condition} }};"#
        )
    };
    let label = r#"resource.label == "yes""#;
    for condition in [
        format!("{}{label}{}", "(".repeat(60), ")".repeat(60)),
        format!("{label} && {}true", "true && ".repeat(350)),
        format!("{}{label}", r#"resource.label == "x" || "#.repeat(125)),
        format!("{}{label}", r#"if resource.label == "x" then true else "#.repeat(120)),
        format!("{}{label}{}", r#"(resource.label == "x" || true && "#.repeat(60), ")".repeat(60)),
        format!("1{} < 0 || {label}", " + 1".repeat(370)),
    ] {
        let bundle = load_with(&forbid(&condition), &refused_case("deep", r#""label": "no""#, ""))
            .unwrap_or_else(|error| panic!("{error}\n{condition}"));
        let labelled = Request { resource: key(SlotFacts { label: Some("no".into()), ..wallet() }), ..to_sign(None) };
        // Callers stand on small stacks; the verdict must not depend on that.
        let small = std::thread::Builder::new().stack_size(128 * 1024);
        let verdict = std::thread::scope(|scope| {
            small.spawn_scoped(scope, || judge(&bundle, &labelled)).unwrap().join().unwrap()
        });
        let denied = denied(verdict);
        assert_eq!(refused_by(&denied), ["deep"]);
        assert!(!denied.reason().contains("recursion"), "{}", denied.reason());
        std::thread::Builder::new().stack_size(128 * 1024).spawn(move || drop(bundle)).unwrap().join().unwrap();
    }
}

#[test]
fn rule_4_wide_input_is_evaluated() {
    let labels: Vec<String> = (0..20_000).map(|n| format!("\"l{n}\"")).collect();
    let forbid = format!(
        r#"@id("wide") forbid (principal, action == Mpc::Action::"Sign", resource is Mpc::Key)
           when {{ [{}].contains(resource.label) }};"#,
        labels.join(",")
    );
    let bundle = load_with(&forbid, &refused_case("wide", r#""label": "l19999""#, "")).unwrap();
    assert_eq!(allowed_by(&judge(&bundle, &to_sign(None))), ["all"]);
}

#[test]
fn rule_4_huge_files_and_too_many_of_them_are_refused() {
    let padding = " ".repeat(256 * 1024);
    for path in ["more.cedar", "tests/more.json"] {
        let dir = folder(&[("all.cedar", ALLOW_ALL), ("tests/a.json", ONE_ALLOWED)]);
        write(dir.path(), path, &format!("{padding}[]"));
        assert!(load(&dir).unwrap_err().to_string().contains("larger than 262144 bytes"));
    }
    let many: Vec<String> =
        (0..2_001).map(|n| format!("@id(\"p{n}\") permit (principal, action, resource);")).collect();
    assert!(refusal(&many.concat()).contains("more than 2000 policies"));
    let dir = folder(&[("all.cedar", ALLOW_ALL), ("tests/a.json", ONE_ALLOWED)]);
    for n in 0..256 {
        write(dir.path(), &format!("{n}.cedar"), "");
    }
    assert!(load(&dir).unwrap_err().to_string().contains("more than 256 files"));
}

#[test]
fn rule_4_deep_json_and_toml_are_refused() {
    for path in ["entities.json", "tests/more.json"] {
        let dir = folder(&[("all.cedar", ALLOW_ALL), (path, &"[".repeat(100_000))]);
        assert!(load(&dir).unwrap_err().to_string().contains(path));
    }
    let dir = folder(&[("all.cedar", ALLOW_ALL)]);
    write(dir.path(), "manifest.toml", &format!("version = {}", "[".repeat(100_000)));
    assert!(load(&dir).unwrap_err().to_string().contains("manifest.toml"));
}

#[test]
fn rule_5_a_refusal_names_its_rule_and_an_implicit_one_says_so() {
    let denied = denied(judge(
        &starter(),
        &to_sign(Some(&transaction(|tx| {
            tx.to = alloy_primitives::Address::ZERO.into();
        }))),
    ));
    assert_eq!(denied.reason(), "known-receivers: the receiver must stand in the address book `treasury`");
}

#[test]
fn rule_6_lists_of_addresses_in_a_policy_are_refused() {
    let entities = r#"{"address_books": [{"name": "b", "addresses": [
        {"address": "eip155:1:0x1111111111111111111111111111111111111111"},
        {"address": "eip155:1:0x2222222222222222222222222222222222222222"}]}]}"#;
    let cedar = r#"@id("p") forbid (principal, action, resource) when { context has tx && context.tx has to &&
        [Mpc::Address::"eip155:1:0x1111111111111111111111111111111111111111",
         Mpc::Address::"eip155:1:0x2222222222222222222222222222222222222222"].contains(context.tx.to) };"#;
    let dir = folder(&[("p.cedar", cedar), ("entities.json", entities)]);
    assert!(load(&dir).unwrap_err().to_string().contains("address book"));
}

#[test]
fn rule_7_deciding_policies_are_sorted() {
    let permits: String = ["z", "a", "m", "k", "b"]
        .map(|id| format!("@id(\"{id}\") permit (principal, action == Mpc::Action::\"Sign\", resource);"))
        .concat();
    let bundle = load_with(&permits, "[]").unwrap();
    assert_eq!(allowed_by(&judge(&bundle, &to_sign(None))), ["a", "all", "b", "k", "m", "z"]);
}

#[test]
fn missing_duplicate_and_odd_ids_are_refused() {
    for (policy, why) in [
        ("permit (principal, action, resource);", "needs @id"),
        ("@id permit (principal, action, resource);", "needs @id"),
        (r#"@id("") permit (principal, action, resource);"#, "needs @id"),
        (r#"@id("a b") permit (principal, action, resource);"#, "needs @id"),
        (r#"@id("аll") permit (principal, action, resource);"#, "needs @id"),
        (r#"@id("all") forbid (principal, action, resource);"#, "taken by another policy, in all.cedar"),
        (r#"@id("p") @id("q") permit (principal, action, resource);"#, "more.cedar"),
        (r#"@id("p") @raeson("x") permit (principal, action, resource);"#, "@raeson is not known"),
    ] {
        let text = refusal(policy);
        assert!(text.contains(why), "{policy}\n{text}");
    }
}

#[test]
fn templates_and_text_that_is_not_cedar_are_refused() {
    assert!(refusal(r#"@id("p") permit (principal == ?principal, action, resource);"#).contains("templates"));
    for text in ["permit", ")", "\"", "@", "@id(\"", "/*", "\u{0}", "permit (principal, action, resource)", ";", "}}}}"]
    {
        assert!(refusal(text).contains("more.cedar"), "{text}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn random_text_never_crashes_the_loader(text in "[a-z@\"(){}\\[\\];:.,!&|=<> \n/\\\\]{0,200}") {
        let _ = load_with(&text, "[]");
    }
}
