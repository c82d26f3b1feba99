//! The windows against a model that knows no shortcuts.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_primitives::Address;
use casemate_wire::Intent;
use proptest::prelude::*;

use super::*;
use crate::intent::{Signer, decode};
use crate::spend::WEEK;

/// The generator of secp256k1 and three of its multiples.
const KEYS: [&str; 4] = [
    "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5",
    "02f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9",
    "02e493dbf1c10d80f3581e4904930b1404cc6c13900ee0758474fa94abe8c4cd13",
];
const LABELS: [Option<&str>; 4] = [Some("hot-1"), Some("hot-2"), None, Some("lonely")];
/// Which of the keys are in each group.
const GROUPS: [&[usize]; 2] = [&[0, 1], &[1, 2]];
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn bundle() -> Bundle {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let starter = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/starter");
    std::fs::create_dir(dir.path().join("tests")).unwrap();
    for name in ["transfers.cedar", "keys.cedar", "tests/transfers.json", "tests/keys.json"] {
        std::fs::copy(starter.join(name), dir.path().join(name)).unwrap();
    }
    let entities = std::fs::read_to_string(starter.join("entities.json")).unwrap();
    let groups = format!(
        r#""key_groups": [ {{ "name": "hot", "labels": ["hot-1", "hot-2"] }},
                           {{ "name": "mixed", "labels": ["hot-2"], "public_keys": ["{}"] }} ]"#,
        KEYS[2]
    );
    write("entities.json", &entities.replace(r#""key_groups": []"#, &groups));
    crate::bundle::seal(dir.path(), Timestamp::UNIX_EPOCH).unwrap();
    Bundle::load(dir.path(), &[]).unwrap()
}

/// Transaction `n`: of ether, of a known token, of an unknown one, on two chains, some of amounts beyond every sum.
fn understood(n: u8) -> Understood {
    let token = |contract: &str, amount: U256| {
        let mut data = vec![0xa9, 0x05, 0x9c, 0xbb];
        data.extend_from_slice(Address::repeat_byte(0x35).into_word().as_slice());
        data.extend_from_slice(&amount.to_be_bytes::<32>());
        (contract.parse::<Address>().unwrap(), data)
    };
    let (to, input) = match n % 3 {
        0 => (Address::repeat_byte(0x35), Vec::new()),
        1 => token("0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48", U256::from(u64::from(n) * 1_000_001)),
        _ => token("0x1111111111111111111111111111111111111111", U256::from(n)),
    };
    let tx = TxEip1559 {
        chain_id: if n % 5 == 4 { 11_155_111 } else { 1 },
        nonce: n.into(),
        gas_limit: 21_000,
        max_fee_per_gas: u128::from(n) * 1_000_000_007,
        to: to.into(),
        value: if n == 9 { U256::MAX } else { U256::from(n) * U256::from(10).pow(U256::from(15)) + U256::ONE },
        input: input.into(),
        ..Default::default()
    };
    let payload = hex::encode(tx.encoded_for_signing());
    let intent = Intent { kind: "ethereum_transaction".into(), payload, input_index: None };
    decode(&intent, &tx.signature_hash().0, &Signer::alone(&KEYS[0].parse().unwrap()).unwrap()).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Reserve {
        key: usize,
        transaction: u8,
        path: Option<u8>,
    },
    Release(prop::sample::Index),
    Clock(i64),
    Prune,
    Restart,
    /// The audit log is begun anew.
    Recover,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..KEYS.len(), 0u8..10, prop::option::weighted(0.3, 0u8..2))
            .prop_map(|(key, transaction, path)| Step::Reserve { key, transaction, path }),
        2 => any::<prop::sample::Index>().prop_map(Step::Release),
        2 => (-2 * DAY..2 * DAY).prop_map(Step::Clock),
        1 => prop::sample::select(vec![HOUR, DAY, WEEK, -HOUR, -DAY, -WEEK, HOUR - 1, WEEK - 1]).prop_map(Step::Clock),
        1 => Just(Step::Prune),
        1 => Just(Step::Restart),
        1 => Just(Step::Recover),
    ]
}

/// One reservation as the model keeps it, for ever.
struct Entry {
    key: usize,
    what: (u8, Option<u8>),
    at: i64,
    charges: Vec<Charge>,
}

/// What a set of keys spent of an asset in a window, in base units; of fees alone if asked; and how much was signed.
fn model(entries: &BTreeMap<SessionId, Entry>, keys: &[usize], asset: &AssetId, fee: bool, since: i64) -> (U256, i64) {
    let within = |entry: &&Entry| keys.contains(&entry.key) && entry.at > since;
    let distinct: BTreeSet<_> = entries.values().filter(within).map(|entry| (entry.key, entry.what)).collect();
    let amount = |of: &(usize, (u8, Option<u8>))| {
        let amounts = entries.values().filter(within).filter(|entry| (entry.key, entry.what) == *of).map(|entry| {
            let counts = |charge: &&Charge| charge.asset == *asset && (charge.fee || !fee);
            entry.charges.iter().filter(counts).fold(U256::ZERO, |sum, charge| sum.saturating_add(charge.amount))
        });
        amounts.max().unwrap_or_default()
    };
    let sum = distinct.iter().map(amount).fold(U256::ZERO, U256::saturating_add);
    (sum, i64::try_from(distinct.len()).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn windows_agree_with_the_model(steps in prop::collection::vec(step(), 1..60)) {
        let bundle = bundle_once();
        let mut ledger = Ledger::default();
        let mut entries: BTreeMap<SessionId, Entry> = BTreeMap::new();
        let (mut wall, mut newest) = (1_800_000_000_i64, i64::MIN);
        let mut full_since = i64::MIN;
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Clock(by) => wall += by,
                Step::Recover => {
                    ledger.fill_since(wall);
                    full_since = full_since.max(wall);
                    newest = newest.max(wall);
                }
                Step::Prune => {
                    ledger.prune();
                    entries.retain(|_, entry| entry.at > newest.saturating_sub(WEEK));
                }
                Step::Restart => {
                    let rows: Vec<String> = ledger.entries().map(|row| serde_json::to_string(row).unwrap()).collect();
                    // A restart forgets stamps that were released, so the model must too.
                    newest = ledger.entries().map(|row| row.at).max().unwrap_or(i64::MIN).max(full_since);
                    ledger = Ledger::default();
                    if full_since > i64::MIN {
                        ledger.fill_since(full_since);
                    }
                    for row in &rows {
                        ledger.restore(serde_json::from_str(row).unwrap()).unwrap();
                    }
                }
                Step::Release(index) if !entries.is_empty() => {
                    let session = entries.keys().nth(index.index(entries.len())).unwrap().clone();
                    entries.remove(&session);
                    ledger.release(&session);
                }
                Step::Release(_) => {}
                Step::Reserve { key, transaction, path } => {
                    let understood = understood(transaction);
                    let session: SessionId = format!("s{number}").parse().unwrap();
                    let text = path.map(|path| format!("m/{path}"));
                    let signing = Signing {
                        session: session.clone(),
                        key: KEYS[key].parse().unwrap(),
                        label: LABELS[key],
                        derivation_path: text.as_deref(),
                        message_hash: understood.digest(),
                        understood: Some(&understood),
                    };
                    let reserved = bundle.reserve(&mut ledger, &signing, Timestamp::from_second(wall).unwrap()).unwrap();
                    newest = newest.max(wall);
                    prop_assert_eq!(reserved.spending().at, newest);
                    let charges = bundle.charges(&understood);
                    entries.insert(session, Entry { key, what: (transaction, path), at: newest, charges });
                    check(bundle, &entries, key, &understood, (newest, full_since), &reserved)?;
                }
            }
        }
    }
}

fn check(
    bundle: &Bundle,
    entries: &BTreeMap<SessionId, Entry>,
    key: usize,
    understood: &Understood,
    (now, full_since): (i64, i64),
    reserved: &Reserved,
) -> Result<(), TestCaseError> {
    let assets = &bundle.rules().tables.assets;
    for (effect, counters) in understood.effects().zip(&reserved.totals().counters) {
        let asset = AssetId::of(effect.chain, effect.asset);
        let native = AssetId::of(effect.chain, AssetRef::Native);
        let decimals = |asset: AssetRef| assets.find(effect.chain, asset).map(|known| known.decimals);
        let in_units = |base: U256, decimals: Option<u8>| match decimals {
            Some(decimals) => Decimal::from_base_units(base, decimals),
            None if base.is_zero() => Decimal::ZERO,
            None => Decimal::MAX,
        };
        let Counters { spent, group_spent, fees, count, group_count } = counters;
        let windows = [
            (HOUR, [spent.hour, group_spent.hour, fees.hour], [count.hour, group_count.hour]),
            (DAY, [spent.day, group_spent.day, fees.day], [count.day, group_count.day]),
            (WEEK, [spent.week, group_spent.week, fees.week], [count.week, group_count.week]),
        ];
        for (length, amounts, counts) in windows {
            if full_since > now - length {
                prop_assert_eq!((amounts, counts), ([Decimal::MAX; 3], [i64::MAX; 2]));
                continue;
            }
            let of = |keys: &[usize]| model(entries, keys, &asset, false, now - length);
            let fees = model(entries, &[key], &native, true, now - length).0;
            let own = of(&[key]);
            let groups: Vec<_> = GROUPS.iter().filter(|keys| keys.contains(&key)).map(|keys| of(keys)).collect();
            let group = groups.iter().map(|sum| sum.0).fold(own.0, U256::max);
            let group_count = groups.iter().map(|sum| sum.1).fold(own.1, i64::max);
            let (token, native) = (decimals(effect.asset), decimals(AssetRef::Native));
            prop_assert_eq!(amounts, [in_units(own.0, token), in_units(group, token), in_units(fees, native)]);
            prop_assert_eq!(counts, [own.1, group_count]);
        }
    }
    Ok(())
}

fn bundle_once() -> &'static Bundle {
    static BUNDLE: std::sync::OnceLock<Bundle> = std::sync::OnceLock::new();
    BUNDLE.get_or_init(bundle)
}
