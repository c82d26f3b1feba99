#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
#![allow(clippy::needless_pass_by_value)] // `json!` makes values, and tests hand them on

use alloy_primitives::{Address, U256};
use casemate_wire::{Code, Intent};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::intent::{Account, AssetRef, Chain, Effect, EffectKind, IntentError, Signer, Understood, decode_payload};

/// The example of EIP-712 itself, and its hash.
const MAIL: &str = r#"{
  "types": {
    "EIP712Domain": [
      {"name": "name", "type": "string"}, {"name": "version", "type": "string"},
      {"name": "chainId", "type": "uint256"}, {"name": "verifyingContract", "type": "address"}
    ],
    "Person": [{"name": "name", "type": "string"}, {"name": "wallet", "type": "address"}],
    "Mail": [{"name": "from", "type": "Person"}, {"name": "to", "type": "Person"}, {"name": "contents", "type": "string"}]
  },
  "primaryType": "Mail",
  "domain": {
    "name": "Ether Mail", "version": "1", "chainId": 1,
    "verifyingContract": "0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC"
  },
  "message": {
    "from": {"name": "Cow", "wallet": "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"},
    "to": {"name": "Bob", "wallet": "0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB"},
    "contents": "Hello, Bob!"
  }
}"#;
const MAIL_HASH: &str = "be609aee343fb3c4b28e1df9e632fca64fcfaede20f02e86244efddf30957bd2";
const TOKEN: [u8; 20] = [0xaa; 20];
const SPENDER: [u8; 20] = [0x5e; 20];
const PERMIT2: &str = "0x000000000022d473030f116ddee9f6b43ac78ba3";

fn decode(payload: &str) -> Result<Understood, IntentError> {
    let key = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().unwrap();
    let intent = Intent { kind: "eip712".into(), payload: payload.into(), input_index: None };
    decode_payload(&intent, &Signer::alone(&key).unwrap())
}

fn refusal(payload: &str) -> String {
    let error = decode(payload).unwrap_err();
    assert_eq!(error.code(), Code::BadRequest, "{error}");
    error.to_string()
}

fn effects(payload: &Value) -> Vec<Effect> {
    decode(&payload.to_string()).unwrap().effects().cloned().collect()
}

fn mail() -> Value {
    serde_json::from_str(MAIL).unwrap()
}

fn hex_of(address: [u8; 20]) -> String {
    format!("0x{}", hex::encode(address))
}

/// Typed data whose types are given as `name: "type member, …"`.
fn typed(primary: &str, types: &[(&str, &str)], message: Value) -> Value {
    let members = |text: &str| -> Value {
        let each = text.split(", ").map(|member| member.split_once(' ').unwrap());
        each.map(|(kind, name)| json!({ "name": name, "type": kind })).collect()
    };
    let mut declared: serde_json::Map<String, Value> =
        types.iter().map(|(name, text)| ((*name).to_owned(), members(text))).collect();
    declared.insert("EIP712Domain".into(), members("string name, uint256 chainId, address verifyingContract"));
    json!({
        "types": declared, "primaryType": primary, "message": message,
        "domain": { "name": "Token", "chainId": 5, "verifyingContract": hex_of(TOKEN) },
    })
}

fn one(kind: &str, value: Value) -> Value {
    typed("Thing", &[("Thing", &format!("{kind} it"))], json!({ "it": value }))
}

#[test]
fn the_example_of_the_standard_has_its_hash() {
    let understood = decode(MAIL).unwrap();
    assert_eq!(understood.digest().to_string(), MAIL_HASH);
    assert_eq!(understood.transaction_id(), understood.digest());
    let effect = understood.effects().next().unwrap();
    assert_eq!((effect.kind, effect.chain), (EffectKind::TypedData, Chain::Ethereum(1)));
    assert_eq!((effect.asset, effect.amount), (AssetRef::Anything, U256::MAX));
    let facts = effect.typed_data.clone().unwrap();
    assert_eq!(facts.domain_name.as_deref(), Some("Ether Mail"));
    assert_eq!(facts.verifying_contract, Some(format!("0x{}", "cc".repeat(20))));
    assert_eq!(facts.primary_type, "Mail");
    assert_eq!(understood.describe()["message"]["contents"], "Hello, Bob!");
    assert!(understood.summary().contains("Mail"), "{}", understood.summary());
}

#[test]
fn a_key_that_stands_twice_is_refused_wherever_it_stands() {
    for (once, twice) in [
        (r#""primaryType": "Mail""#, r#""primaryType": "Mail", "primaryType": "Mail""#),
        (r#""contents": "Hello, Bob!""#, r#""contents": "Hello, Eve!", "contents": "Hello, Bob!""#),
        (r#""chainId": 1"#, r#""chainId": 5, "chainId": 1"#),
        (
            r#"{"name": "name", "type": "string"}, {"name": "version""#,
            r#"{"name": "name", "type": "bytes", "type": "string"}, {"name": "version""#,
        ),
    ] {
        assert!(MAIL.contains(once));
        assert!(refusal(&MAIL.replacen(once, twice, 1)).contains("twice"), "{twice}");
    }
    let member = r#"{"name": "contents", "type": "string"}"#;
    assert!(refusal(&MAIL.replacen(member, &format!("{member}, {member}"), 1)).contains("two members"));
}

#[test]
fn undeclared_missing_and_foreign_members_are_refused() {
    type Edit = fn(&mut Value);
    let edits: [(&str, Edit); 12] = [
        ("does not declare", |v| v["message"]["extra"] = 1.into()),
        ("does not declare", |v| v["message"]["from"]["extra"] = 1.into()),
        ("does not declare", |v| v["domain"]["salt"] = "0x00".into()),
        ("missing", |v| drop(v["message"].as_object_mut().unwrap().remove("contents"))),
        ("missing", |v| drop(v["domain"].as_object_mut().unwrap().remove("chainId"))),
        ("does not belong", |v| v["comment"] = "hello".into()),
        ("does not belong", |v| v["types"]["Person"][0]["comment"] = "hello".into()),
        ("has no `message`", |v| drop(v.as_object_mut().unwrap().remove("message"))),
        ("EIP712Domain", |v| drop(v["types"].as_object_mut().unwrap().remove("EIP712Domain"))),
        ("not declared", |v| v["primaryType"] = "Letter".into()),
        ("not declared", |v| v["types"]["Mail"][0]["type"] = "People".into()),
        ("domain itself", |v| v["primaryType"] = "EIP712Domain".into()),
    ];
    for (why, edit) in edits {
        let mut value = mail();
        edit(&mut value);
        let refusal = refusal(&value.to_string());
        assert!(refusal.contains(why), "{why}: {refusal}");
    }
    refusal(&format!("{MAIL} {{}}"));
    refusal("");
    refusal("[]");
}

#[test]
fn a_domain_in_another_order_or_with_other_types_is_refused() {
    let mut swapped = mail();
    swapped["types"]["EIP712Domain"].as_array_mut().unwrap().swap(0, 1);
    refusal(&swapped.to_string());
    let mut narrow = mail();
    narrow["types"]["EIP712Domain"][2]["type"] = "uint64".into();
    refusal(&narrow.to_string());
    let mut huge = mail();
    huge["domain"]["chainId"] = u64::MAX.into();
    assert!(refusal(&huge.to_string()).contains("chain id"));
}

#[test]
fn a_domain_without_chain_id_holds_on_every_chain_and_says_so() {
    let mut anywhere = mail();
    anywhere["types"]["EIP712Domain"].as_array_mut().unwrap().remove(2);
    anywhere["domain"].as_object_mut().unwrap().remove("chainId");
    assert_eq!(effects(&anywhere)[0].chain, Chain::Ethereum(0));
}

#[test]
fn values_out_of_their_type_are_refused() {
    let good = [
        ("uint8", json!(255)),
        ("uint8", json!("0xff")),
        ("int8", json!(-128)),
        ("int8", json!("-128")),
        ("int8", json!(127)),
        ("uint256", json!(U256::MAX.to_string())),
        ("int256", json!(format!("-{}", U256::ONE << 255usize))),
        ("bytes4", json!("0x01020304")),
        ("bytes", json!("0x")),
        ("bool", json!(true)),
        ("uint8[2][]", json!([[1, 2], [3, 4]])),
        ("address", json!(hex_of(SPENDER))),
    ];
    for (kind, value) in good {
        decode(&one(kind, value.clone()).to_string()).map_err(|error| format!("{kind} {value}: {error}")).unwrap();
    }
    let bad = [
        ("uint8", json!(256)),
        ("uint8", json!(-1)),
        ("uint8", json!(1.5)),
        ("uint8", json!(1e2)),
        ("uint8", json!("")),
        ("uint8", json!("1_0")),
        ("uint8", json!("0b1")),
        ("uint8", json!(" 1")),
        ("uint8", json!(true)),
        ("uint8", json!(null)),
        ("uint256", json!(format!("{}0", U256::MAX))),
        ("int8", json!(128)),
        ("int8", json!(-129)),
        ("int256", json!((U256::ONE << 255usize).to_string())),
        ("bytes4", json!("0x010203")),
        ("bytes4", json!("01020304")),
        ("bytes", json!([1, 2])),
        ("bool", json!("true")),
        ("bool", json!(1)),
        ("string", json!(1)),
        ("address", json!("0x5e5e")),
        ("address", json!("0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD827")),
        ("uint8[2]", json!([1])),
        ("uint8[]", json!({})),
        ("uint7", json!(1)),
        ("uint", json!(1)),
        ("int264", json!(1)),
        ("bytes33", json!("0x")),
        ("uint8[0]", json!([])),
        ("uint8[", json!([])),
        ("function", json!("0x")),
    ];
    for (kind, value) in bad {
        assert!(decode(&one(kind, value.clone()).to_string()).is_err(), "{kind} {value}");
    }
}

#[test]
fn types_that_hold_themselves_or_explode_are_refused() {
    refusal(&typed("A", &[("A", "A[] a")], json!({ "a": [] })).to_string());
    refusal(&typed("A", &[("A", "B[] b"), ("B", "A[] a")], json!({ "b": [] })).to_string());
    let names: Vec<String> = (0..20).map(|level| format!("T{level}")).collect();
    let members: Vec<String> = (0..20).map(|level| format!("T{0}[] a, T{0}[] b", level + 1)).collect();
    let mut types: Vec<(&str, &str)> =
        names.iter().map(String::as_str).zip(members.iter().map(String::as_str)).collect();
    types.push(("T20", "bool a"));
    let why = refusal(&typed("T0", &types, json!({ "a": [], "b": [] })).to_string());
    assert!(why.contains("unfolds"), "{why}");
    let long = format!("uint8 {}", "a".repeat(124));
    let members: Vec<String> = (0..70).map(|at| format!("{long}{at}")).collect();
    let why = refusal(&typed("A", &[("A", "B[] b"), ("B", &members.join(", "))], json!({ "b": [] })).to_string());
    assert!(why.contains("long as a text"), "{why}");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    refusal(&deep);
}

/// Types `T0` to `T<count - 1>`, each with the members that `of` gives it.
fn many(count: usize, of: impl Fn(usize) -> String, message: Value) -> String {
    let types: Vec<(String, String)> = (0..count).map(|at| (format!("T{at}"), of(at))).collect();
    let types: Vec<(&str, &str)> = types.iter().map(|(name, members)| (name.as_str(), members.as_str())).collect();
    typed("T0", &types, message).to_string()
}

#[test]
fn types_that_nest_too_deep_are_refused_before_anything_follows_them() {
    // The deepest list that a member can be, at each level.
    let chain = |count: usize| {
        let next = move |at: usize| {
            let last = at + 1 == count;
            if last { "bool a".to_owned() } else { format!("T{}[][][][][][][][] a", at + 1) }
        };
        many(count, next, json!({ "a": [] }))
    };
    decode(&chain(32)).unwrap();
    for deep in [33, 1000] {
        let why = refusal(&chain(deep));
        assert!(why.contains("deeper than 32"), "{why}");
    }

    // Values as deep as types may be.
    let nested = (1..32).fold(json!({ "a": true }), |inner, _| json!({ "a": inner }));
    let next = |at: usize| if at == 31 { "bool a".to_owned() } else { format!("T{} a", at + 1) };
    decode(&many(32, next, nested)).unwrap();

    // A type that was met near the top does not hide how deep it goes from further down.
    let twice = |at: usize| match at {
        0 => "T20[] b, T1[] a".to_owned(),
        39 => "bool a".to_owned(),
        at => format!("T{}[] a", at + 1),
    };
    let why = refusal(&many(40, twice, json!({ "a": [], "b": [] })));
    assert!(why.contains("deeper than 32"), "{why}");
}

#[test]
fn a_message_of_too_many_types_is_refused() {
    let flat = |count: usize| {
        let members = move |at: usize| {
            let others: Vec<String> = (1..count).map(|other| format!("T{other}[] m{other}")).collect();
            if at == 0 { others.join(", ") } else { "bool a".to_owned() }
        };
        let values = (1..count).map(|other| (format!("m{other}"), json!([])));
        many(count, members, Value::Object(values.collect()))
    };
    decode(&flat(64)).unwrap();
    let why = refusal(&flat(65));
    assert!(why.contains("at most 64 types"), "{why}");
}

#[test]
fn thousands_of_small_values_of_a_large_type_are_hashed_quickly() {
    // Each value is a few bytes, but its type has nearly the longest text and the most types.
    let large = |at: usize| match at {
        0 => "T1[] a".to_owned(),
        1 => "T2[] c".to_owned(),
        2 => (3..64).map(|other| format!("T{other}[] c{other}")).collect::<Vec<_>>().join(", "),
        _ => format!("bool {}", "a".repeat(90)),
    };
    let small = |at: usize| match at {
        0 => "T1[] a".to_owned(),
        1 => "T2[] c".to_owned(),
        _ => "bool a".to_owned(),
    };
    let values = json!({ "a": vec![json!({ "c": [] }); 3000] });
    let (large, small) = (many(64, large, values.clone()), many(3, small, values));
    let timed = |text: &str| {
        let begun = std::time::Instant::now();
        decode(text).unwrap();
        begun.elapsed().as_secs_f64()
    };
    // The same values of a small type take as long, unless each has the text of its type hashed anew.
    // Other tests run beside this one, so one slow run says nothing.
    let ratios: Vec<f64> = (0..5).map(|_| timed(&large) / timed(&small)).collect();
    assert!(ratios.iter().any(|ratio| *ratio < 5.0), "{ratios:?}");
}

#[test]
fn permits_are_allowances() {
    let eip2612 = typed(
        "Permit",
        &[("Permit", "address owner, address spender, uint256 value, uint256 nonce, uint256 deadline")],
        json!({ "owner": hex_of([1; 20]), "spender": hex_of(SPENDER), "value": "77", "nonce": 0, "deadline": 9 }),
    );
    let dai = |allowed: bool| {
        typed(
            "Permit",
            &[("Permit", "address holder, address spender, uint256 nonce, uint256 expiry, bool allowed")],
            json!({ "holder": hex_of([1; 20]), "spender": hex_of(SPENDER), "nonce": 0, "expiry": 0, "allowed": allowed }),
        )
    };
    for (data, amount) in [(eip2612.clone(), U256::from(77)), (dai(true), U256::MAX), (dai(false), U256::ZERO)] {
        let effect = &effects(&data)[0];
        assert_eq!((effect.kind, effect.amount), (EffectKind::Allowance, amount));
        assert_eq!(effect.to, Some(Account::Ethereum(SPENDER.into())));
        assert_eq!((effect.asset, effect.contract), (AssetRef::Token(TOKEN.into()), Some(TOKEN.into())));
        assert_eq!(effect.chain, Chain::Ethereum(5));
        assert_eq!(effect.typed_data.as_ref().unwrap().primary_type, "Permit");
    }
    // Another type of the same name is not what a token checks.
    let mut other = eip2612;
    other["types"]["Permit"][4]["type"] = "uint64".into();
    assert_eq!(effects(&other)[0].kind, EffectKind::TypedData);
}

#[test]
fn an_authorised_transfer_is_a_transfer() {
    let members = "address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce";
    for name in ["TransferWithAuthorization", "ReceiveWithAuthorization"] {
        let message = json!({
            "from": hex_of([1; 20]), "to": hex_of(SPENDER), "value": 5, "validAfter": 0, "validBefore": 9,
            "nonce": format!("0x{}", "00".repeat(32)),
        });
        let effect = &effects(&typed(name, &[(name, members)], message))[0];
        assert_eq!((effect.kind, effect.amount), (EffectKind::TokenTransfer, U256::from(5)));
        assert_eq!(effect.to, Some(Account::Ethereum(SPENDER.into())));
    }
}

#[test]
fn permit2_is_an_allowance_for_each_token() {
    let tokens: [[u8; 20]; 2] = [[0x11; 20], [0x22; 20]];
    let expect = |data: &Value, amounts: &[U256]| {
        // On another contract than Permit2 the tokens that it names need not be touched, and others may be.
        let decoy = effects(data);
        assert_eq!((decoy.len(), decoy[0].kind, decoy[0].asset), (1, EffectKind::TypedData, AssetRef::Anything));
        let mut data = data.clone();
        data["domain"]["verifyingContract"] = PERMIT2.into();
        let summary = decode(&data.to_string()).unwrap().summary();
        assert!(summary.contains(&format!("by typed data for the contract {PERMIT2}")), "{summary}");
        let effects = effects(&data);
        assert_eq!(effects.len(), amounts.len());
        for ((effect, amount), token) in effects.iter().zip(amounts).zip(tokens) {
            assert_eq!((effect.kind, effect.amount), (EffectKind::Allowance, *amount));
            assert_eq!(effect.asset, AssetRef::Token(Address::from(token)));
            assert_eq!(effect.to, Some(Account::Ethereum(SPENDER.into())));
            assert_eq!(effect.contract, Some(PERMIT2.parse().unwrap()));
        }
    };
    let details = ("PermitDetails", "address token, uint160 amount, uint48 expiration, uint48 nonce");
    let detail = |token: usize, amount: &str| json!({ "token": hex_of(tokens[token]), "amount": amount, "expiration": 1, "nonce": 0 });
    let all = ((U256::ONE << 160usize) - U256::ONE).to_string();
    let single = typed(
        "PermitSingle",
        &[("PermitSingle", "PermitDetails details, address spender, uint256 sigDeadline"), details],
        json!({ "details": detail(0, "3"), "spender": hex_of(SPENDER), "sigDeadline": 1 }),
    );
    expect(&single, &[U256::from(3)]);
    let batch = typed(
        "PermitBatch",
        &[("PermitBatch", "PermitDetails[] details, address spender, uint256 sigDeadline"), details],
        json!({ "details": [detail(0, "3"), detail(1, &all)], "spender": hex_of(SPENDER), "sigDeadline": 1 }),
    );
    expect(&batch, &[U256::from(3), U256::MAX]);

    let permissions = ("TokenPermissions", "address token, uint256 amount");
    let permission = |token: usize| json!({ "token": hex_of(tokens[token]), "amount": 8 });
    let transfer = typed(
        "PermitTransferFrom",
        &[
            ("PermitTransferFrom", "TokenPermissions permitted, address spender, uint256 nonce, uint256 deadline"),
            permissions,
        ],
        json!({ "permitted": permission(0), "spender": hex_of(SPENDER), "nonce": 0, "deadline": 1 }),
    );
    expect(&transfer, &[U256::from(8)]);
    let members = "TokenPermissions[] permitted, address spender, uint256 nonce, uint256 deadline";
    let batch = typed(
        "PermitBatchTransferFrom",
        &[("PermitBatchTransferFrom", members), permissions],
        json!({ "permitted": [permission(0), permission(1)], "spender": hex_of(SPENDER), "nonce": 0, "deadline": 1 }),
    );
    expect(&batch, &[U256::from(8), U256::from(8)]);
    let witness = typed(
        "PermitBatchWitnessTransferFrom",
        &[
            ("PermitBatchWitnessTransferFrom", &format!("{members}, Order witness")),
            permissions,
            ("Order", "uint256 id"),
        ],
        json!({
            "permitted": [permission(0), permission(1)], "spender": hex_of(SPENDER), "nonce": 0, "deadline": 1,
            "witness": { "id": 4 },
        }),
    );
    expect(&witness, &[U256::from(8), U256::from(8)]);
    // One that permits nothing is not understood, rather than harmless.
    let mut empty = batch;
    empty["domain"]["verifyingContract"] = PERMIT2.into();
    empty["message"]["permitted"] = json!([]);
    assert_eq!(effects(&empty)[0].kind, EffectKind::TypedData);
}

proptest! {
    #[test]
    fn random_text_never_crashes_the_decoder(text in ".{0,200}") {
        let _ = decode(&text);
    }

    #[test]
    fn a_changed_character_is_refused_or_changes_the_hash(position in 0usize..1200, new in 0x20u8..0x7f) {
        let mut bytes = MAIL.as_bytes().to_vec();
        let position = position % bytes.len();
        // Space between tokens, and hex digits in the other case, mean the same.
        prop_assume!(!bytes[position].is_ascii_whitespace() && !new.is_ascii_whitespace());
        prop_assume!(!bytes[position].eq_ignore_ascii_case(&new));
        bytes[position] = new;
        if let Ok(understood) = decode(std::str::from_utf8(&bytes).unwrap()) {
            prop_assert_ne!(understood.digest().to_string(), MAIL_HASH);
        }
    }
}
