//! Whoever's proof, share or reveal is wrong is named, with the round; where the culprit cannot be told, nobody is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use casemate_mpc::{Engine, MpcError};
use support::alter::{Alteration, alter, leaves, name, parse};
use support::committee::{dkg, make_key, reduced_aux, sign};
use support::network::Copy;

/// Alters the first field of `body` whose name ends like this.
fn spoil(body: &[u8], field: &str, alteration: &Alteration) -> Vec<u8> {
    let message = parse(body);
    let path = leaves(&message).into_iter().find(|path| name(&message, path).ends_with(field)).expect("the field");
    alter(body, &path, alteration, None).expect("applies")
}

/// Alters `field` of party 2's messages in a slot.
fn spoiler(round: u16, broadcast: bool, sender: u16, field: &'static str) -> impl FnMut(Copy) -> Vec<Copy> {
    move |mut copy| {
        if copy.is(sender, round, broadcast) {
            copy.body = spoil(&copy.body, field, &Alteration::FlipLow);
        }
        vec![copy]
    }
}

#[track_caller]
fn assert_named(outcome: Result<(), &MpcError>, culprit: u16, in_round: u16, because: &str) {
    match outcome {
        Err(MpcError::PeerFault { party, round, what }) => {
            assert_eq!((*party, *round), (culprit, in_round), "{what}");
            assert!(what.contains(because), "{what}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn key_generation_names_who_reveals_deals_or_proves_wrongly() {
    let engine = Engine::start(Some(1)).expect("threads");
    let faults = [
        (3, true, "rid.", "not what it had committed to"),
        (3, false, "scalar.", "the share that it dealt"),
        (4, true, "scalar.", "proof of knowledge"),
    ];
    for (round, broadcast, field, because) in faults {
        let run = dkg(&engine, 2, 3, spoiler(round, broadcast, 2, field)).await;
        for honest in &run.outcomes[..2] {
            // Whoever hears it second may be told that the first is silent, but never that the first is at fault.
            match honest {
                Err(MpcError::Silent { .. } | MpcError::Closed) => {}
                other => assert_named(other.as_ref().map(|_| ()), 2, round, because),
            }
        }
        assert!(run.outcomes[..2].iter().any(|outcome| matches!(outcome, Err(MpcError::PeerFault { .. }))));
    }
}

#[tokio::test]
async fn signing_names_whose_proofs_are_wrong() {
    let engine = Engine::start(Some(1)).expect("threads");
    let shares = make_key(&engine, 3, &reduced_aux(3)).await;
    let faults = [
        (1, false, "psi0.1.z1.", "range proof"),
        (3, false, "psi.1.z1.", "multiplication"),
        (3, false, "hat_psi.1.z4.", "multiplication"),
        (3, false, "psi_prime.1.z3.", "multiplication"),
        (4, false, "psi_prime_prime.1.z1.", "Delta"),
    ];
    for (round, broadcast, field, because) in faults {
        let run = sign(&engine, &shares, &[0, 1, 2], spoiler(round, broadcast, 2, field)).await;
        for honest in &run.outcomes[..2] {
            assert_named(honest.as_ref().map(|_| ()), 2, round, because);
        }
    }
}

#[tokio::test]
async fn nobody_is_blamed_where_the_culprit_cannot_be_told() {
    let engine = Engine::start(Some(1)).expect("threads");
    let shares = make_key(&engine, 2, &reduced_aux(2)).await;
    for (round, broadcast, field) in [(2, true, "."), (4, false, "delta.scalar."), (5, true, "sigma.scalar.")] {
        let run = sign(&engine, &shares, &[0, 1], spoiler(round, broadcast, 1, field)).await;
        let outcome = &run.outcomes[0];
        assert!(matches!(outcome, Err(MpcError::Unattributed { round: at, .. }) if *at == round), "{outcome:?}");
        assert_eq!(outcome.as_ref().err().and_then(MpcError::culprit), None);
    }
}
