//! Key shares at rest: what is written is read again, and what was altered is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;

use casemate_mpc::levels::ReducedLevel;
use casemate_mpc::{DkgShare, Engine, KeyShare, MpcError};
use cggmp21::rug::Integer;
use cggmp21::rug::integer::Order;
use ciborium::Value;
use proptest::prelude::*;
use support::alter::{Alteration, alter, leaves, name, parse, write};
use support::committee::{DIGEST, dkg, make_key, reduced_aux, sign};
use support::is_valid;
use support::network::pass;

type Share = KeyShare<ReducedLevel>;
type Change = Box<dyn Fn(&Integer) -> Integer>;

fn engine() -> Engine {
    Engine::start(Some(1)).expect("threads")
}

#[tokio::test]
async fn a_stored_share_comes_back_and_signs() {
    let engine = engine();
    let shares = make_key(&engine, 2, &reduced_aux(3)).await;
    let loaded: Vec<Arc<Share>> = shares
        .iter()
        .map(|share| Arc::new(Share::from_bytes(&share.to_bytes().expect("encodes")).expect("loads")))
        .collect();
    assert_eq!(loaded[1].public_shares(), shares[1].public_shares());
    assert_eq!(loaded[1].chain_code(), shares[1].chain_code());
    assert_eq!((loaded[1].index(), loaded[1].t(), loaded[1].n()), (1, 2, 3));
    let signatures = sign(&engine, &loaded, &[0, 2], pass).await.all();
    assert!(is_valid(&signatures[0], &shares[0].public_key(), &DIGEST));
}

#[tokio::test]
async fn a_share_prints_without_its_secret() {
    let engine = engine();
    let share = dkg(&engine, 2, 2, pass).await.all().remove(0);
    let stored = parse(&share.to_bytes().expect("encodes"));
    let secret = field(&field(&stored, "core"), "x");
    let digits = secret.as_bytes().expect("a scalar");
    let printed = format!("{share:?}");
    assert!(printed.contains("redacted") && !printed.contains(&hex::encode(digits)), "{printed}");
}

#[tokio::test]
async fn every_altered_field_of_a_share_is_refused_on_load() {
    let engine = engine();
    for (t, n) in [(2, 3), (3, 3), (2, 2)] {
        let share = dkg(&engine, t, n, pass).await.all().remove(1);
        let bytes = share.to_bytes().expect("encodes");
        let message = parse(&bytes);
        let mut tried = 0;
        for path in leaves(&message) {
            let name = name(&message, &path);
            // Nothing in a share tells its chain code but the chain code: it is random. The seal around the share, which
            // authenticates every byte, and the key certificate, which names the chain code, are what protects it.
            if name.contains("chain_code") {
                continue;
            }
            for alteration in [Alteration::FlipLow, Alteration::FlipHigh, Alteration::Negate, Alteration::Zero] {
                let Some(altered) = alter(&bytes, &path, &alteration, None) else {
                    continue;
                };
                tried += 1;
                let outcome = DkgShare::from_bytes(&altered);
                assert!(
                    matches!(outcome, Err(MpcError::Corrupt { .. })),
                    "{t}-of-{n}: {name} {alteration:?}: {outcome:?}"
                );
            }
        }
        assert!(tried > 30, "{tried}");
    }
}

#[tokio::test]
async fn altered_numbers_of_the_parties_are_refused_on_load() {
    let engine = engine();
    let shares = make_key(&engine, 2, &reduced_aux(3)).await;
    let bytes = shares[0].to_bytes().expect("encodes");
    assert!(Share::from_bytes(&bytes).is_ok());
    let one = |_: &Integer| Integer::from(1);
    let changes: [(&str, &str, Change); 12] = [
        ("an even modulus", "modulus", Box::new(|n| n - Integer::from(1))),
        ("a short modulus", "modulus", Box::new(|n| Integer::from(n >> 8u32) | Integer::from(1))),
        ("a long modulus", "modulus", Box::new(|n| Integer::from(n << 8u32) | Integer::from(1))),
        ("a modulus with a small factor", "modulus", Box::new(|n| n - (n % Integer::from(6)) + Integer::from(3))),
        (
            "a square modulus",
            "modulus",
            Box::new(|n| {
                let root = n.clone().sqrt() | Integer::from(1);
                root.square()
            }),
        ),
        ("a modulus of one", "modulus", Box::new(one)),
        ("s = 1", "s", Box::new(one)),
        ("t = 1", "t", Box::new(one)),
        ("s too large", "s", Box::new(|s| Integer::from(s << 800u32))),
        ("t too large", "t", Box::new(|t| Integer::from(t << 800u32))),
        ("s = 0", "s", Box::new(|_| Integer::new())),
        ("t = 0", "t", Box::new(|_| Integer::new())),
    ];
    for (what, key, change) in changes {
        let altered = with_aux(&bytes, |aux| {
            let number = field_mut(&mut field_mut(aux, "parties").as_array_mut().expect("parties")[1], key);
            let old = Integer::from_digits(number.as_bytes().expect("bytes"), Order::Msf);
            *number = Value::Bytes(change(&old).to_digits(Order::Msf));
        });
        assert!(matches!(Share::from_bytes(&altered), Err(MpcError::Corrupt { .. })), "{what}");
    }
}

#[tokio::test]
async fn mixed_up_parts_of_shares_are_refused_on_load() {
    let engine = engine();
    let shares = make_key(&engine, 2, &reduced_aux(3)).await;
    let bytes: Vec<_> = shares.iter().map(|share| share.to_bytes().expect("encodes")).collect();
    let others = parse(&bytes[1]);
    let cases: [(&str, Vec<u8>); 6] = [
        ("another party's auxiliary info", with_field(&bytes[0], "aux", field(&others, "aux"))),
        ("another party's share", with_field(&bytes[0], "dkg", field(&others, "dkg"))),
        ("an unknown version", with_field(&bytes[0], "version", Value::from(2))),
        (
            "s equal to t",
            with_aux(&bytes[0], |aux| {
                let party = &mut field_mut(aux, "parties").as_array_mut().expect("parties")[2];
                let s = field(party, "s");
                *field_mut(party, "t") = s;
            }),
        ),
        (
            "two equal moduli",
            with_aux(&bytes[0], |aux| {
                let parties = field_mut(aux, "parties").as_array_mut().expect("parties");
                parties[2] = parties[1].clone();
            }),
        ),
        (
            "a missing party",
            with_aux(&bytes[0], |aux| {
                field_mut(aux, "parties").as_array_mut().expect("parties").pop();
            }),
        ),
    ];
    for (what, bytes) in cases {
        assert!(matches!(Share::from_bytes(&bytes), Err(MpcError::Corrupt { .. })), "{what}");
    }
    let mut trailing = bytes[0].to_vec();
    trailing.push(0);
    assert!(Share::from_bytes(&trailing).is_err());
    for length in (0..bytes[0].len()).step_by(97) {
        assert!(Share::from_bytes(&bytes[0][..length]).is_err());
    }
}

#[tokio::test]
async fn parts_of_different_parties_or_committees_are_not_joined() {
    let engine = engine();
    let aux = reduced_aux(3);
    let mut shares = dkg(&engine, 2, 3, pass).await.all();
    let pair = dkg(&engine, 2, 2, pass).await.all().remove(0);
    assert!(matches!(Share::from_parts(shares.remove(0), &aux[1]), Err(MpcError::Invalid(_))));
    assert!(matches!(Share::from_parts(pair, &aux[0]), Err(MpcError::Invalid(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn random_bytes_are_no_share(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(DkgShare::from_bytes(&bytes).is_err());
        prop_assert!(Share::from_bytes(&bytes).is_err());
    }
}

fn field(value: &Value, key: &str) -> Value {
    let entries = value.as_map().expect("a map");
    entries.iter().find(|(name, _)| name.as_text() == Some(key)).expect("the field").1.clone()
}

fn field_mut<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    let entries = value.as_map_mut().expect("a map");
    &mut entries.iter_mut().find(|(name, _)| name.as_text() == Some(key)).expect("the field").1
}

fn with_field(bytes: &[u8], key: &str, value: Value) -> Vec<u8> {
    let mut stored = parse(bytes);
    *field_mut(&mut stored, key) = value;
    write(&stored)
}

fn with_aux(bytes: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut aux = parse(field(&parse(bytes), "aux").as_bytes().expect("bytes"));
    change(&mut aux);
    with_field(bytes, "aux", Value::Bytes(write(&aux)))
}
