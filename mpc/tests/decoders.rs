//! Foreign bytes: whatever a peer sends is refused or understood in one way only, and never brings a session down.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::LazyLock;

use casemate_mpc::codec::{Caps, decode, encode};
use casemate_mpc::levels::ReducedLevel;
use casemate_mpc::{Engine, Limits, OldKey};
use cggmp21::keygen::ThresholdMsg;
use cggmp21::signing::msg::Msg;
use cggmp21::supported_curves::Secp256k1;
use proptest::prelude::*;
use sha2::Sha256;
use support::committee::{dkg, make_key, reduced_aux, sign};
use support::network::{Copy, pass};

type Signing = Msg<Secp256k1, Sha256>;
type Keygen = ThresholdMsg<Secp256k1, ReducedLevel, Sha256>;

/// Bodies of honest sessions, first of key generation, then of signing.
static BODIES: LazyLock<[Vec<Vec<u8>>; 2]> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let engine = Engine::start(Some(1)).expect("threads");
        let bodies = |delivered: Vec<Copy>| {
            delivered.into_iter().filter(|copy| (copy.from, copy.to) == (0, 1)).map(|copy| copy.body).collect()
        };
        let keygen = dkg(&engine, 2, 2, pass).await.delivered;
        let shares = make_key(&engine, 2, &reduced_aux(2)).await;
        [bodies(keygen), bodies(sign(&engine, &shares, &[0, 1], pass).await.delivered)]
    })
});

/// The encoded facts of a key, as old parties state them to who joins.
static FACTS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let engine = Engine::start(Some(1)).expect("threads");
        let shares = make_key(&engine, 2, &reduced_aux(3)).await;
        OldKey::from_share(&shares[0], 1).to_bytes().expect("encodes")
    })
});

fn caps() -> Caps {
    Caps { body: Limits::sign(2).max_body, string: 2048 }
}

/// Whether `body` is refused, or decodes to something whose one encoding it is.
fn one_meaning(body: &[u8]) -> bool {
    let signing = decode::<Signing>(body, caps()).is_ok_and(|message| encode(&message).unwrap() != body);
    let keygen = decode::<Keygen>(body, caps()).is_ok_and(|message| encode(&message).unwrap() != body);
    let facts = OldKey::from_bytes(body).is_ok_and(|facts| facts.to_bytes().unwrap() != body);
    !signing && !keygen && !facts
}

#[test]
fn honest_bodies_decode() {
    assert!(BODIES[0].len() == 5 && BODIES[0].iter().all(|body| decode::<Keygen>(body, caps()).is_ok()));
    assert!(BODIES[1].len() == 6 && BODIES[1].iter().all(|body| decode::<Signing>(body, caps()).is_ok()));
    assert!(OldKey::from_bytes(&FACTS).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn random_bytes_have_no_two_meanings(body in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(one_meaning(&body));
    }

    #[test]
    fn changed_bytes_have_no_two_meanings(
        protocol in 0usize..2,
        message: prop::sample::Index,
        at: prop::sample::Index,
        byte: u8,
    ) {
        let mut body = message.get(&BODIES[protocol]).clone();
        let at = at.index(body.len());
        body[at] = byte;
        prop_assert!(one_meaning(&body));
    }

    #[test]
    fn spliced_bodies_have_no_two_meanings(
        protocol in 0usize..2,
        first: prop::sample::Index,
        second: prop::sample::Index,
        cut: prop::sample::Index,
        glue: prop::sample::Index,
    ) {
        let (first, second) = (first.get(&BODIES[protocol]), second.get(&BODIES[protocol]));
        let mut body = first[..cut.index(first.len())].to_vec();
        body.extend_from_slice(&second[glue.index(second.len())..]);
        prop_assert!(one_meaning(&body));
    }
    #[test]
    fn changed_facts_of_a_key_are_refused_or_are_others(at: prop::sample::Index, byte: u8) {
        let mut body = FACTS.clone();
        let at = at.index(body.len());
        body[at] = byte;
        prop_assert!(one_meaning(&body));
        if let Ok(facts) = OldKey::from_bytes(&body) {
            prop_assert_eq!(body == *FACTS, facts == OldKey::from_bytes(&FACTS).unwrap());
        }
    }
}
