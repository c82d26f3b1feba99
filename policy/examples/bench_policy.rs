//! How long a decision takes: `cargo run --release -p casemate-policy --example bench_policy`.
//!
//! Prints a Markdown table, in microseconds of wall time: the median and the slowest hundredth of one part of the policy
//! stage at a time.
#![allow(clippy::print_stdout, reason = "it is a command")]

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, CompressedPublicKey, OutPoint, Psbt, ScriptBuf, Transaction, TxIn, TxOut};
use casemate_policy::intent::{Signer, decode};
use casemate_policy::{
    Action, Approvals, Bundle, Client, IntentError, KeyFacts, Ledger, Request, Resource, SessionFacts, Signing,
    SlotFacts, Spending, Understood, Verdict, bundle,
};
use casemate_wire::{Digest32, Intent, PublicKey, ShareType};
use jiff::Timestamp;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The generator of secp256k1.
const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
/// An unsigned transfer of 1.5 USDC (EIP-1559), and its hash.
const TRANSFER: &str = "02f86d010a843b9aca008504a817c80082fde894a0b86991c6218b36c1d19d4a2e9eb0ce3606eb4880b844a9059cbb\
    0000000000000000000000003535353535353535353535353535353535353535000000000000000000000000000000000000000000000000\
    000000000016e360c0";
/// A permit of EIP-2612.
const PERMIT: &str = r#"{"types": {
    "EIP712Domain": [{"name": "name", "type": "string"}, {"name": "version", "type": "string"},
                     {"name": "chainId", "type": "uint256"}, {"name": "verifyingContract", "type": "address"}],
    "Permit": [{"name": "owner", "type": "address"}, {"name": "spender", "type": "address"},
               {"name": "value", "type": "uint256"}, {"name": "nonce", "type": "uint256"},
               {"name": "deadline", "type": "uint256"}]},
  "primaryType": "Permit",
  "domain": {"name": "USD Coin", "version": "2", "chainId": 1,
             "verifyingContract": "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48"},
  "message": {"owner": "0x3535353535353535353535353535353535353535",
              "spender": "0x1111111111111111111111111111111111111111",
              "value": "1000000", "nonce": "0", "deadline": "1900000000"}}"#;
/// Decisions that are timed for each row.
const RUNS: usize = 300;

fn main() -> Outcome<()> {
    println!("| policy stage | median µs | 99 % µs |\n|---|---|---|");
    let key: PublicKey = KEY.parse()?;
    let understood = understand(&key)?;
    for (name, kind, payload, input_index) in [
        ("an ERC-20 transfer", "ethereum_transaction", TRANSFER.to_owned(), None),
        ("a message (EIP-191)", "eip191", hex::encode("I am the treasurer"), None),
        ("a permit (EIP-712)", "eip712", PERMIT.to_owned(), None),
        ("a PSBT of 2 inputs", "bitcoin_psbt", psbt(&key)?, Some(0)),
    ] {
        let intent = Intent { kind: kind.into(), payload, input_index };
        let signer = Signer::alone(&key)?;
        let Err(IntentError::Mismatch { computed, .. }) = decode(&intent, &[0; 32], &signer) else {
            return Err(format!("{name} cannot be decoded").into());
        };
        row(&format!("decode {name} and compare its hash"), || Ok(decode(&intent, &computed.0, &signer).map(drop)?))?;
    }
    for (policies, addresses) in [(10, 10), (100, 10), (1000, 10), (10, 10_000), (1000, 10_000)] {
        let bundle = load(policies, addresses)?;
        let request = request(key, &understood);
        let mut ledger = Ledger::default();
        let reserved = bundle.reserve(&mut ledger, &signing(0, key, &understood)?, request.time)?;
        let request = Request { spent: Some(reserved.totals()), ..request };
        row(&format!("decide with {policies} policies and {addresses} addresses"), || match bundle.decide(&request) {
            Verdict::Allow(_) => Ok(()),
            Verdict::Deny(denied) => Err(denied.reason().into()),
        })?;
    }
    let bundle = load(10, 10)?;
    for entries in [0, 100, 10_000] {
        let mut ledger = filled(entries, key, &bundle, &understood)?;
        let mut number = 1_000_000;
        row(&format!("enter into a ledger of {entries} and add up"), || {
            number += 1;
            let signing = signing(number, key, &understood)?;
            let reserved = bundle.reserve(&mut ledger, &signing, now()?)?;
            ledger.release(&reserved.spending().session);
            Ok(())
        })?;
    }
    Ok(())
}

fn row(name: &str, mut work: impl FnMut() -> Outcome<()>) -> Outcome<()> {
    let mut times: Vec<Duration> = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed());
    }
    times.sort();
    let at = |place: usize| times.get(place).map_or(0, Duration::as_micros);
    println!("| {name} | {} | {} |", at(RUNS / 2), at(RUNS * 99 / 100));
    Ok(())
}

fn understand(key: &PublicKey) -> Outcome<Understood> {
    let intent = Intent { kind: "ethereum_transaction".into(), payload: TRANSFER.into(), input_index: None };
    let hash = alloy_primitives::keccak256(hex::decode(TRANSFER)?);
    Ok(decode(&intent, &hash.0, &Signer::alone(key)?)?)
}

/// 100,000 satoshi on two inputs of the key: 60,000 to a stranger, the rest back but for 1,000 in fees.
fn psbt(key: &PublicKey) -> Outcome<String> {
    let own = ScriptBuf::new_p2wpkh(&CompressedPublicKey::from_slice(key.as_bytes())?.wpubkey_hash());
    let stranger = ScriptBuf::new_p2wpkh(&Hash::from_byte_array([0x35; 20]));
    let paying =
        |script: &ScriptBuf, satoshi| TxOut { value: Amount::from_sat(satoshi), script_pubkey: script.clone() };
    let transaction = |previous: Vec<OutPoint>, output| Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: previous.into_iter().map(|previous_output| TxIn { previous_output, ..TxIn::default() }).collect(),
        output,
    };
    let funding = transaction(vec![OutPoint::null()], vec![paying(&own, 50_000), paying(&own, 50_000)]);
    let points = [0, 1].map(|vout| OutPoint { txid: funding.compute_txid(), vout }).to_vec();
    let spending = transaction(points, vec![paying(&stranger, 60_000), paying(&own, 39_000)]);
    let mut psbt = Psbt::from_unsigned_tx(spending)?;
    for input in &mut psbt.inputs {
        input.non_witness_utxo = Some(funding.clone());
    }
    Ok(psbt.to_string())
}

fn now() -> Outcome<Timestamp> {
    Ok(Timestamp::from_second(1_800_000_000)?)
}

fn signing(number: usize, key: PublicKey, understood: &Understood) -> Outcome<Signing<'_>> {
    Ok(Signing {
        session: format!("session-{number}").parse()?,
        key,
        label: None,
        derivation_path: None,
        message_hash: understood.digest(),
        understood: Some(understood),
    })
}

/// A ledger in which one key has signed as many transactions in the last week.
fn filled(entries: usize, key: PublicKey, bundle: &Bundle, understood: &Understood) -> Outcome<Ledger> {
    let mut ledger = Ledger::default();
    for number in 0..entries {
        let mut transaction = [0; 32];
        transaction.iter_mut().zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
        ledger.restore(Spending {
            session: format!("old-{number}").parse()?,
            key,
            label: None,
            transaction: Digest32(transaction),
            at: now()?.as_second() - i64::try_from(number)? * 60,
            charges: bundle.charges(understood),
        })?;
    }
    Ok(ledger)
}

fn request(key: PublicKey, understood: &Understood) -> Request<'_> {
    Request {
        principal: Client { name: "coordinator".into(), roles: ["coordinator".to_owned()].into(), org: String::new() },
        action: Action::Sign,
        resource: Resource::Key(KeyFacts {
            public_key: key,
            slot: SlotFacts { kind: ShareType::Wallet, threshold_t: 2, threshold_n: 3, label: None },
            age_days: 1,
            restored: false,
        }),
        understood: Some(understood),
        spent: None,
        approvals: Approvals::none(),
        time: Timestamp::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        session: SessionFacts {
            participants: ["party-1".to_owned(), "party-2".to_owned()].into(),
            threshold_t: 2,
            devices: [].into(),
            new_roster: None,
        },
        derivation_path: None,
        peers_attested: false,
    }
}

/// A bundle with as many policies (half of them address-book rules, half limits) and addresses.
fn load(policies: usize, addresses: usize) -> Outcome<Bundle> {
    let dir = std::env::temp_dir().join(format!("bench_policy-{}", std::process::id()));
    fs::create_dir_all(dir.join("tests"))?;
    let written = write(&dir, policies, addresses).and_then(|()| {
        bundle::seal(&dir, Timestamp::UNIX_EPOCH)?;
        Ok(Bundle::load(&dir, &[])?)
    });
    fs::remove_dir_all(&dir)?;
    written
}

fn write(dir: &Path, policies: usize, addresses: usize) -> Outcome<()> {
    let mut cedar = String::from("@id(\"all\") permit (principal, action, resource);\n");
    let mut cases = vec![
        r#"{"name": "allowed", "request": {"principal": {"name": "a"}, "action": "Backup", "resource": {"appliance": {}}},
            "expect": {"verdict": "allow", "policies": ["all"]}}"#
            .to_owned(),
    ];
    for number in 1..policies {
        let condition = if number % 2 == 0 {
            "context.tx has to && context.tx.to in Mpc::AddressBook::\"known\"".to_owned()
        } else {
            format!(
                "context.spent.day.lessThanOrEqual(decimal(\"{number}0000.0\")) && context.tx.kind != \"x{number}\""
            )
        };
        writeln!(
            cedar,
            "@id(\"rule-{number}\") @reason(\"rule {number}\") forbid (principal, action == Mpc::Action::\"Sign\", resource)\n\
             when {{ context has tx && context.tx.asset != \"free-{number}\" }} unless {{ {condition} }};"
        )?;
    }
    // One case that every forbid refuses.
    let ids: Vec<String> = (1..policies).map(|number| format!("\"rule-{number}\"")).collect();
    cases.push(format!(
        r#"{{"name": "refused", "request": {{"principal": {{"name": "a"}}, "action": "Sign",
            "resource": {{"key": {{"kind": "wallet", "threshold_t": 2, "threshold_n": 3}}}},
            "effects": [{{"kind": "token_transfer", "chain_id": 1, "asset": "X", "amount": "922337203685477.5807"}}]}},
            "expect": {{"verdict": "deny", "policies": [{}]}}}}"#,
        ids.join(",")
    ));
    let book: Vec<String> = (0..addresses)
        .map(|number| {
            let address = if number == 0 { "35".repeat(20) } else { format!("{number:040x}") };
            format!(r#"{{"address": "eip155:1:0x{address}"}}"#)
        })
        .collect();
    let entities = format!(
        r#"{{"assets": [
             {{"chain": "eip155:1", "symbol": "ETH", "decimals": 18}},
             {{"chain": "eip155:1", "contract": "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48", "symbol": "USDC", "decimals": 6}}],
            "address_books": [{{"name": "known", "addresses": [{}]}}]}}"#,
        book.join(",")
    );
    // A file may have 256 KiB.
    let half = cedar.len() / 2;
    let split = cedar.get(half..).and_then(|rest| rest.find("\n@id")).map_or(cedar.len(), |at| half + at);
    let (first, second) = cedar.split_at(split);
    fs::write(dir.join("first.cedar"), first)?;
    fs::write(dir.join("second.cedar"), second)?;
    fs::write(dir.join("entities.json"), entities)?;
    fs::write(dir.join("tests/cases.json"), format!("[{}]", cases.join(",")))?;
    Ok(())
}
