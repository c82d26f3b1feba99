//! Limits over time: what counts, how long, and what an attacker cannot make uncounted.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;
mod recovered;

use std::sync::Mutex;

use alloy_primitives::{Address, Bytes, TxKind, U256};
use casemate_policy::{
    Action, Bundle, Denied, Ledger, Request, Reserved, Resource, Signing, Spending, Understood, Verdict,
};
use casemate_wire::Digest32;
use common::*;
use jiff::Timestamp;

/// Permits everything within: 3 ETH an hour, 0.05 ETH of fees a day, 5 signatures an hour, 100 USDC a week of a group.
const LIMITS: &str = r#"
    @id("spent-hour") forbid (principal, action == Mpc::Action::"Sign", resource)
        when { context has tx && context.tx.asset == "ETH" }
        unless { context.spent.hour.lessThanOrEqual(decimal("3.0")) };
    @id("fees-day") forbid (principal, action == Mpc::Action::"Sign", resource)
        when { context has tx } unless { context.fees.day.lessThanOrEqual(decimal("0.05")) };
    @id("count-hour") forbid (principal, action == Mpc::Action::"Sign", resource)
        unless { context.count.hour <= 5 };
    @id("group-week") forbid (principal, action == Mpc::Action::"Sign", resource)
        when { context has tx && context.tx.asset == "USDC" }
        unless { context.group_spent.week.lessThanOrEqual(decimal("100.0")) };"#;

fn limits() -> Bundle {
    let case = |name: &str, asset: &str, context: &str, verdict: &str, policy: &str| {
        format!(
            r#"{{ "name": "{name}", "request": {{
                "principal": {{"name": "coordinator"}}, "action": "Sign",
                "resource": {{"key": {{"kind": "wallet", "threshold_t": 2, "threshold_n": 3}}}},
                "effects": [{{"kind": "token_transfer", "chain_id": 1, "asset": "{asset}", "amount": "1"}}],
                "context": {{ {context} }} }},
              "expect": {{"verdict": "{verdict}", "policies": ["{policy}"]}} }}"#
        )
    };
    let cases = [
        case("at the limit", "ETH", r#""spent": {"hour": "3.0"}"#, "allow", "all"),
        case("over the limit", "ETH", r#""spent": {"hour": "3.0001"}"#, "deny", "spent-hour"),
        case("fees", "ETH", r#""fees": {"day": "0.0501"}"#, "deny", "fees-day"),
        case("count", "ETH", r#""count": {"hour": 6}"#, "deny", "count-hour"),
        case("group", "USDC", r#""group_spent": {"day": "100.0001"}"#, "deny", "group-week"),
    ];
    let entities = include_str!("../data/starter/entities.json").replace(
        r#""key_groups": []"#,
        &format!(r#""key_groups": [{{"name": "hot", "labels": ["hot-1"], "public_keys": ["{OTHER}"]}}]"#),
    );
    load(&folder(&[
        ("all.cedar", ALLOW_ALL),
        ("limits.cedar", LIMITS),
        ("entities.json", &entities),
        ("tests/a.json", &format!("[{}]", cases.join(","))),
    ]))
    .unwrap()
}

/// Twice the generator of secp256k1.
const OTHER: &str = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";

fn ether(thousandths: u64) -> U256 {
    U256::from(thousandths) * U256::from(10).pow(U256::from(15))
}

/// A transfer of ether without fees.
fn transfer(nonce: u64, thousandths: u64) -> Understood {
    transaction(|tx| {
        tx.nonce = nonce;
        tx.value = ether(thousandths);
        tx.max_fee_per_gas = 0;
    })
}

fn call(selector: [u8; 4], contract: &str, amount: U256) -> (TxKind, Bytes) {
    let mut data = selector.to_vec();
    data.extend_from_slice(Address::repeat_byte(0x35).into_word().as_slice());
    data.extend_from_slice(&amount.to_be_bytes::<32>());
    (TxKind::Call(contract.parse().unwrap()), data.into())
}

fn dollars(nonce: u64, amount: u64) -> Understood {
    transaction(|tx| {
        tx.nonce = nonce;
        tx.max_fee_per_gas = 0;
        (tx.to, tx.input) = call([0xa9, 0x05, 0x9c, 0xbb], USDC, U256::from(amount * 1_000_000));
    })
}

/// A ledger with a clock and a count of sessions, asked as an appliance asks.
struct Party {
    bundle: Bundle,
    ledger: Ledger,
    clock: i64,
    sessions: u32,
}

impl Party {
    fn new(bundle: Bundle) -> Self {
        Self { bundle, ledger: Ledger::default(), clock: 1_800_000_000, sessions: 0 }
    }

    fn reserve(&mut self, understood: Option<&Understood>, request: &Request<'_>) -> Reserved {
        self.sessions += 1;
        let Resource::Key(key) = &request.resource else { unreachable!() };
        let signing = Signing {
            session: format!("session-{}", self.sessions).parse().unwrap(),
            key: key.public_key,
            label: key.slot.label.as_deref(),
            derivation_path: request.derivation_path.as_deref(),
            message_hash: understood.map_or(Digest32([7; 32]), Understood::digest),
            understood,
        };
        self.bundle.reserve(&mut self.ledger, &signing, Timestamp::from_second(self.clock).unwrap()).unwrap()
    }

    fn ask(&mut self, request: &Request<'_>) -> Result<Spending, Denied> {
        let reserved = self.reserve(request.understood, request);
        match self.bundle.decide(&Request { spent: Some(reserved.totals()), ..request.clone() }) {
            Verdict::Allow(_) => Ok(reserved.spending().clone()),
            Verdict::Deny(denied) => {
                self.ledger.release(&reserved.spending().session).unwrap();
                Err(denied)
            }
        }
    }

    fn sign(&mut self, understood: &Understood) -> Result<Spending, Denied> {
        self.ask(&to_sign(Some(understood)))
    }

    fn refused(&mut self, understood: &Understood) -> Vec<String> {
        refused_by(&self.sign(understood).unwrap_err()).into_iter().map(str::to_owned).collect()
    }
}

#[test]
fn spending_adds_up_to_the_limit_and_not_beyond() {
    let mut party = Party::new(limits());
    party.sign(&transfer(1, 2000)).unwrap();
    party.sign(&transfer(2, 1000)).unwrap();
    let denied = party.sign(&transfer(3, 1)).unwrap_err();
    assert_eq!(refused_by(&denied), ["spent-hour"]);
    // The refusal shows what was spent, this request included, beside the limit.
    assert_eq!(denied.observed()[0]["spent"]["hour"], "3.0010");
    let condition = &denied.permitted()[0]["any_of"][0][0];
    assert_eq!(condition["attribute"], "context.spent.hour");
    assert_eq!((&condition["op"], &condition["permitted"]), (&"<=".into(), &"3.0".into()));
    assert_eq!(condition["observed"], "3.0010");
    assert_eq!(denied.explanation(), ["spent-hour forbids it", "  context.spent.hour is 3.0010, permitted is <= 3.0"]);
    // What was refused does not count.
    assert_eq!(party.ledger.entries().count(), 2);
}

#[test]
fn a_window_rolls_to_the_second() {
    let mut party = Party::new(limits());
    party.sign(&transfer(1, 3000)).unwrap();
    party.clock += 3599;
    assert_eq!(party.refused(&transfer(2, 3000)), ["spent-hour"]);
    party.clock += 1;
    party.sign(&transfer(2, 3000)).unwrap();
}

#[test]
fn a_clock_that_is_set_back_frees_nothing() {
    let mut party = Party::new(limits());
    party.sign(&transfer(1, 3000)).unwrap();
    for back in [1, 3600, 86_400, 604_800, 1_000_000_000] {
        party.clock -= back;
        assert_eq!(party.refused(&transfer(2, 1)), ["spent-hour"], "{back}");
    }
    // Nor does setting it forward, spending, and setting it back: what is spent then counts beside what is spent later.
    let mut party = Party::new(limits());
    party.clock += 86_400;
    party.sign(&transfer(1, 2000)).unwrap();
    party.clock -= 86_400;
    party.sign(&transfer(2, 1000)).unwrap();
    assert_eq!(party.refused(&transfer(3, 1)), ["spent-hour"]);
}

#[test]
fn one_unsigned_transaction_counts_once_however_often_it_is_asked_for() {
    let mut party = Party::new(limits());
    let same = transfer(1, 3000);
    for _ in 0..10 {
        party.sign(&same).unwrap();
    }
    assert_eq!(party.refused(&transfer(2, 1)), ["spent-hour"]);
    // As long as any of the requests is in the window, it counts.
    party.clock += 3000;
    party.sign(&same).unwrap();
    party.clock += 3000;
    assert_eq!(party.refused(&transfer(2, 1)), ["spent-hour"]);
}

#[test]
fn the_same_hash_under_another_child_key_is_another_spend() {
    let mut party = Party::new(limits());
    let same = transfer(1, 1500);
    let mut child = |path: &str| {
        party.ask(&Request { derivation_path: Some(path.into()), ..to_sign(Some(&same)) }).map_err(|d| d.reason())
    };
    child("m/0").unwrap();
    child("m/1").unwrap();
    child("m/1").unwrap();
    assert!(child("m/2").unwrap_err().contains("spent-hour"));
}

#[test]
fn the_most_that_fees_can_be_counts_as_spent_in_token_calls_too() {
    let mut party = Party::new(limits());
    // 21,000 gas at 1,000 gwei: 0.021 ETH.
    let costly = |nonce| {
        transaction(|tx| {
            tx.nonce = nonce;
            tx.max_fee_per_gas = 1_000_000_000_000;
            (tx.to, tx.input) = call([0xa9, 0x05, 0x9c, 0xbb], USDC, U256::ONE);
        })
    };
    party.sign(&costly(1)).unwrap();
    party.sign(&costly(2)).unwrap();
    assert_eq!(party.refused(&costly(3)), ["fees-day"]);
    party.sign(&transfer(4, 2958)).unwrap();
    assert_eq!(party.refused(&transfer(5, 1)), ["spent-hour"]);
}

#[test]
fn signatures_are_counted_and_blind_ones_too() {
    let mut party = Party::new(limits());
    for nonce in 0..4 {
        party.sign(&transfer(nonce, 1)).unwrap();
    }
    party.ask(&to_sign(None)).unwrap();
    assert_eq!(party.refused(&transfer(9, 1)), ["count-hour"]);
}

#[test]
fn what_a_blind_signature_spends_is_not_known_and_so_counts_as_the_largest() {
    let rule = r#"@id("spent") forbid (principal, action == Mpc::Action::"Sign", resource)
        unless { context.spent.day.lessThan(decimal("922337203685477.5807")) &&
                 context.group_spent.day.lessThan(decimal("922337203685477.5807")) &&
                 context.fees.day.lessThan(decimal("922337203685477.5807")) };"#;
    let case = r#"[{ "name": "blind", "request": {
            "principal": {"name": "coordinator"}, "action": "Sign",
            "resource": {"key": {"kind": "wallet", "threshold_t": 2, "threshold_n": 3}} },
          "expect": {"verdict": "deny", "policies": ["spent"]} }]"#;
    let mut party = Party::new(load_with(rule, case).unwrap());
    party.sign(&transfer(1, 1)).unwrap();
    assert_eq!(refused_by(&party.ask(&to_sign(None)).unwrap_err()), ["spent"]);
}

#[test]
fn a_group_adds_up_the_keys_that_are_in_it_by_label_or_public_key() {
    let mut party = Party::new(limits());
    let labelled = key(casemate_policy::SlotFacts { label: Some("hot-1".into()), ..wallet() });
    let Resource::Key(facts) = key(wallet()) else { unreachable!() };
    let named = Resource::Key(casemate_policy::KeyFacts { public_key: OTHER.parse().unwrap(), ..facts });
    let mut pay = |resource: &Resource, nonce, amount| {
        let understood = dollars(nonce, amount);
        party.ask(&Request { resource: resource.clone(), ..to_sign(Some(&understood)) }).map_err(|d| d.reason())
    };
    pay(&labelled, 1, 60).unwrap();
    pay(&named, 2, 40).unwrap();
    assert!(pay(&named, 3, 1).unwrap_err().contains("group-week"));
    assert!(pay(&labelled, 4, 1).unwrap_err().contains("group-week"));
    // A key in no group is its own group.
    let mut alone = Party::new(limits());
    alone.sign(&dollars(1, 100)).unwrap();
    assert_eq!(alone.refused(&dollars(2, 1)), ["group-week"]);
}

#[test]
fn allowances_are_not_spent() {
    let mut party = Party::new(limits());
    let allowance = transaction(|tx| {
        tx.max_fee_per_gas = 0;
        (tx.to, tx.input) = call([0x09, 0x5e, 0xa7, 0xb3], USDC, U256::from(10).pow(U256::from(12)));
    });
    assert!(
        party.bundle.charges(&allowance).iter().all(|charge| charge.amount.is_zero() || charge.asset.as_str() == "x")
    );
    party.sign(&allowance).unwrap();
    party.sign(&dollars(1, 100)).unwrap();
}

#[test]
fn charges_name_assets_by_chain_and_contract_and_are_exact() {
    let understood = transaction(|tx| {
        tx.value = U256::ONE;
        (tx.to, tx.input) = call([0xa9, 0x05, 0x9c, 0xbb], USDC, U256::from(7));
    });
    let mut charges: Vec<(String, String, bool)> = limits()
        .charges(&understood)
        .into_iter()
        .map(|charge| (charge.asset.to_string(), charge.amount.to_string(), charge.fee))
        .collect();
    charges.sort();
    assert_eq!(
        charges,
        [
            (format!("eip155:1/{USDC}"), "7".to_owned(), false),
            ("eip155:1/native".to_owned(), "1".to_owned(), false),
            ("eip155:1/native".to_owned(), "420000000000000".to_owned(), true),
        ]
    );
}

#[test]
fn sums_of_dust_are_rounded_up_once_and_sums_of_everything_saturate() {
    let mut party = Party::new(limits());
    // 1 wei rounds up to 0.0001; a second and a third do not add another 0.0001 each.
    for nonce in 0..3 {
        let dust = transaction(|tx| {
            (tx.nonce, tx.value, tx.max_fee_per_gas) = (nonce, U256::ONE, 0);
        });
        party.sign(&dust).unwrap();
    }
    party.sign(&transfer(4, 2999)).unwrap();
    let mut party = Party::new(load_with("", "[]").unwrap());
    for nonce in 0..3 {
        let all = transaction(|tx| (tx.nonce, tx.value) = (nonce, U256::MAX));
        party.sign(&all).unwrap();
    }
    party.bundle = limits();
    assert_eq!(party.refused(&transfer(9, 1)), ["spent-hour"]);
}

#[test]
fn a_request_that_is_not_entered_is_denied() {
    let bundle = load_with("", "[]").unwrap();
    let understood = transfer(1, 1);
    for request in [to_sign(Some(&understood)), to_sign(None)] {
        assert!(denied(bundle.decide(&request)).reason().contains("not entered into the ledger"));
    }
}

#[test]
fn totals_serve_only_the_request_that_they_were_made_for() {
    let mut party = Party::new(load_with("", "[]").unwrap());
    let (small, large) = (transfer(1, 1), transfer(2, 9000));
    let request = to_sign(Some(&small));
    let totals = party.reserve(Some(&small), &request).totals().clone();
    let verdict = |bundle: &Bundle, request: Request<'_>| bundle.decide(&Request { spent: Some(&totals), ..request });
    assert_eq!(allowed_by(&verdict(&party.bundle, request.clone())), ["all"]);
    let Resource::Key(facts) = key(wallet()) else { unreachable!() };
    let other_key = Resource::Key(casemate_policy::KeyFacts { public_key: OTHER.parse().unwrap(), ..facts });
    let other_label = key(casemate_policy::SlotFacts { label: Some("cold".into()), ..wallet() });
    for foreign in [
        Request { understood: Some(&large), ..request.clone() },
        Request { derivation_path: Some("m/1".into()), ..request.clone() },
        Request { resource: other_key, ..request.clone() },
        Request { resource: other_label, ..request.clone() },
    ] {
        assert!(denied(verdict(&party.bundle, foreign)).reason().contains("another request"));
    }
    assert!(denied(verdict(&limits(), request.clone())).reason().contains("the policy has changed"));
    let keygen = Request { action: Action::Keygen, resource: Resource::KeySlot(wallet()), ..to_sign(None) };
    assert!(denied(verdict(&party.bundle, keygen)).reason().contains("only a request to sign"));
}

#[test]
fn a_session_is_entered_once() {
    let mut party = Party::new(limits());
    party.sign(&transfer(1, 1)).unwrap();
    party.sessions = 0;
    let understood = transfer(2, 1);
    let signing = Signing {
        session: "session-1".parse().unwrap(),
        key: KEY.parse().unwrap(),
        label: None,
        derivation_path: None,
        message_hash: understood.digest(),
        understood: Some(&understood),
    };
    let again = party.bundle.reserve(&mut party.ledger, &signing, noon());
    assert!(again.unwrap_err().to_string().contains("session-1"));
    let row = party.ledger.entries().next().unwrap().clone();
    party.ledger.restore(row).unwrap_err();
}

#[test]
fn the_ledger_comes_back_from_its_rows() {
    let mut party = Party::new(limits());
    party.sign(&transfer(1, 2000)).unwrap();
    party.sign(&transfer(2, 1000)).unwrap();
    let rows: Vec<String> = party.ledger.entries().map(|row| serde_json::to_string(row).unwrap()).collect();
    party.ledger = Ledger::default();
    for row in &rows {
        party.ledger.restore(serde_json::from_str(row).unwrap()).unwrap();
    }
    party.clock -= 1_000_000;
    assert_eq!(party.refused(&transfer(3, 1)), ["spent-hour"]);
    for bad in [r#""amount":-1"#, r#""amount":"0x1""#, r#""amount":"""#, r#""amount":"1e3""#, r#""amount":1"#] {
        let row = rows[0].replace(r#""amount":"2000000000000000000""#, bad);
        assert!(serde_json::from_str::<Spending>(&row).is_err(), "{row}");
    }
}

#[test]
fn what_was_released_counts_no_more_and_what_is_old_goes() {
    let mut party = Party::new(limits());
    let spent = party.sign(&transfer(1, 3000)).unwrap();
    assert_eq!(party.ledger.release(&spent.session), Some(spent.clone()));
    assert_eq!(party.ledger.release(&spent.session), None);
    party.sign(&transfer(2, 3000)).unwrap();
    assert!(party.ledger.prune().is_empty());
    party.clock += 604_799;
    party.sign(&transfer(3, 1)).unwrap();
    assert!(party.ledger.prune().is_empty());
    party.clock += 1;
    party.sign(&transfer(4, 1)).unwrap();
    assert_eq!(party.ledger.prune(), ["session-2".parse().unwrap()]);
    assert_eq!(party.ledger.entries().count(), 2);
}

#[test]
fn requests_that_race_for_the_last_unit_never_get_more_than_the_limit() {
    let bundle = limits();
    for round in 0..4 {
        let ledger = Mutex::new(Ledger::default());
        let signed = Mutex::new(0_u64);
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (bundle, ledger, signed) = (&bundle, &ledger, &signed);
                scope.spawn(move || {
                    for attempt in 0..3 {
                        let understood = transfer(round * 1000 + thread * 10 + attempt, 1000);
                        let signing = Signing {
                            session: format!("s-{thread}-{attempt}").parse().unwrap(),
                            key: KEY.parse().unwrap(),
                            label: None,
                            derivation_path: None,
                            message_hash: understood.digest(),
                            understood: Some(&understood),
                        };
                        let reserved = bundle.reserve(&mut ledger.lock().unwrap(), &signing, noon()).unwrap();
                        let request = Request { spent: Some(reserved.totals()), ..to_sign(Some(&understood)) };
                        match bundle.decide(&request) {
                            Verdict::Allow(_) => *signed.lock().unwrap() += 1,
                            Verdict::Deny(_) => {
                                ledger.lock().unwrap().release(&signing.session).unwrap();
                            }
                        }
                    }
                });
            }
        });
        // The first three to be entered see no more than the limit; nobody else can.
        assert_eq!(*signed.lock().unwrap(), 3);
        assert_eq!(ledger.lock().unwrap().entries().count(), 3);
    }
}

/// 100,000 satoshi on two inputs of the key: 60,000 to a stranger, the rest back but for 1,000 in fees.
fn psbt(locktime: u32) -> String {
    use bitcoin::{Amount, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
    let own = {
        let key: bitcoin::CompressedPublicKey = KEY.parse().unwrap();
        ScriptBuf::new_p2wpkh(&key.wpubkey_hash())
    };
    let paying =
        |script: &ScriptBuf, satoshi| TxOut { value: Amount::from_sat(satoshi), script_pubkey: script.clone() };
    let transaction = |previous: Vec<OutPoint>, output| Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::from_consensus(locktime),
        input: previous
            .into_iter()
            .map(|previous_output| TxIn {
                previous_output,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            })
            .collect(),
        output,
    };
    let funding =
        transaction(vec![OutPoint { vout: 7, ..OutPoint::null() }], vec![paying(&own, 50_000), paying(&own, 50_000)]);
    let points = [0, 1].map(|vout| OutPoint { txid: funding.compute_txid(), vout }).to_vec();
    let stranger = ScriptBuf::new_p2wpkh(&bitcoin::hashes::Hash::from_byte_array([0x35; 20]));
    let spending = transaction(points, vec![paying(&stranger, 60_000), paying(&own, 39_000)]);
    let mut psbt = Psbt::from_unsigned_tx(spending).unwrap();
    psbt.inputs.iter_mut().for_each(|input| input.non_witness_utxo = Some(funding.clone()));
    psbt.to_string()
}

fn input(psbt: &str, index: u32) -> Understood {
    use casemate_policy::IntentError;
    use casemate_policy::intent::{Signer, decode};
    let intent = casemate_wire::Intent { kind: "bitcoin_psbt".into(), payload: psbt.into(), input_index: Some(index) };
    let signer = Signer::alone(&KEY.parse().unwrap()).unwrap();
    let Err(IntentError::Mismatch { computed, .. }) = decode(&intent, &[0; 32], &signer) else { panic!() };
    decode(&intent, &computed.0, &signer).unwrap()
}

#[test]
fn the_inputs_of_one_psbt_count_once_whatever_their_paths() {
    let rules = r#"@id("btc-hour") forbid (principal, action == Mpc::Action::"Sign", resource)
            unless { context.spent.hour.lessThanOrEqual(decimal("0.0007")) };
        @id("one-an-hour") forbid (principal, action == Mpc::Action::"Sign", resource) unless { context.count.hour <= 1 };"#;
    let case = r#"[{ "name": "over", "request": {
            "principal": {"name": "coordinator"}, "action": "Sign",
            "resource": {"key": {"kind": "wallet", "threshold_t": 2, "threshold_n": 3}},
            "effects": [{"kind": "bitcoin_output", "chain": "bitcoin", "asset": "BTC", "amount": "1"}],
            "context": {"count": {"hour": 2}} },
          "expect": {"verdict": "deny", "policies": ["btc-hour", "one-an-hour"]} }]"#;
    let entities = r#"{"assets": [{"chain": "bitcoin", "symbol": "BTC", "decimals": 8}]}"#;
    let bundle = load(&folder(&[
        ("all.cedar", ALLOW_ALL),
        ("more.cedar", rules),
        ("entities.json", entities),
        ("tests/a.json", ONE_ALLOWED),
        ("tests/b.json", case),
    ]))
    .unwrap();
    let mut party = Party::new(bundle);
    let (one, other) = (psbt(0), psbt(1));
    let (first, second) = (input(&one, 0), input(&one, 1));
    assert_ne!(first.digest(), second.digest());
    party.sign(&first).unwrap();
    party.ask(&Request { derivation_path: Some("m/7".into()), ..to_sign(Some(&second)) }).unwrap();
    assert_eq!(party.refused(&input(&other, 0)), ["btc-hour", "one-an-hour"]);
    let spent: Vec<(String, String)> = party
        .bundle
        .charges(&first)
        .into_iter()
        .map(|charge| (charge.asset.to_string(), charge.amount.to_string()))
        .collect();
    assert_eq!(
        spent,
        [("bitcoin/native".to_owned(), "60000".to_owned()), ("bitcoin/native".to_owned(), "1000".to_owned())]
    );
}
