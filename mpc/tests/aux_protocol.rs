//! The auxiliary-information protocol among honest parties, and with parties that are silent or talk too much.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod aux_support;
mod support;

use std::time::Duration;

use aux_support::{reduced_aux_info, reduced_primes};
use casemate_mpc::aux::{AuxInfo, AuxSetup};
use casemate_mpc::levels::ReducedLevel;
use casemate_mpc::{Engine, ExecutionId, Limits, MpcError};
use support::committee::{DIGEST, make_key, sign};
use support::network::{self, pass};
use support::{execution_id, is_valid};

type Aux = AuxInfo<ReducedLevel>;

fn engine() -> Engine {
    Engine::start(Some(2)).expect("threads")
}

#[tokio::test]
async fn committees_of_two_three_and_five_all_hold_the_same() {
    let engine = engine();
    for n in [2u16, 3, 5] {
        let infos = reduced_aux_info(&engine, usize::from(n), pass).await.all();
        for (index, info) in (0..n).zip(&infos) {
            assert_eq!((info.index(), info.n()), (index, n));
            assert_eq!(info.transcript_digest(), infos[0].transcript_digest());
            for (ours, first) in info.parties().zip(infos[0].parties()) {
                assert_eq!((ours.modulus, ours.s, ours.t), (first.modulus, first.s, first.t));
            }
        }
    }
}

#[tokio::test]
async fn no_two_runs_share_a_digest_or_ring_pedersen_parameters() {
    let engine = engine();
    let first = reduced_aux_info(&engine, 2, pass).await.all();
    let second = reduced_aux_info(&engine, 2, pass).await.all();
    assert_ne!(first[0].transcript_digest(), second[0].transcript_digest());
    for (one, other) in first[0].parties().zip(second[0].parties()) {
        assert_eq!(one.modulus, other.modulus, "the same primes");
        assert!(one.s != other.s && one.t != other.t);
    }
}

#[tokio::test]
async fn keys_of_the_committee_sign_with_stored_and_loaded_auxiliary_info() {
    let engine = engine();
    let infos = reduced_aux_info(&engine, 3, pass).await.all();
    let loaded: Vec<Aux> =
        infos.iter().map(|info| Aux::from_bytes(&info.to_bytes().unwrap()).expect("own bytes")).collect();
    for (info, again) in infos.iter().zip(&loaded) {
        assert_eq!(info.to_bytes().unwrap(), again.to_bytes().unwrap());
    }
    for _key in 0..2 {
        let shares = make_key(&engine, 2, &loaded).await;
        for signers in [[0, 1], [0, 2], [1, 2]] {
            let signatures = sign(&engine, &shares, &signers, pass).await.all();
            assert!(is_valid(&signatures[0], &shares[0].public_key(), &DIGEST));
        }
    }
}

#[tokio::test]
async fn nothing_secret_is_printed() {
    let info = reduced_aux_info(&engine(), 2, pass).await.all().remove(0);
    assert_eq!(format!("{info:?}"), r#"AuxInfo { index: 0, n: 2, primes: "redacted", .. }"#);
}

/// Runs three parties under `limits`; party 1's messages of `round` are lost.
async fn with_lost_round(round: u16, limits: Limits) -> Vec<Result<Aux, MpcError>> {
    let (engine, execution_id) = (engine(), execution_id());
    let mut primes = reduced_primes(3).into_iter();
    let start = |index, wiring| {
        let setup = AuxSetup { execution_id, index, parties: 3, primes: primes.next().unwrap() };
        engine.aux_info(setup, limits, wiring)
    };
    let lose = |copy: network::Copy| if copy.from == 1 && copy.round == round { vec![] } else { vec![copy] };
    network::run(3, start, lose).await.outcomes
}

#[tokio::test]
async fn a_party_that_falls_silent_is_named_by_who_waited_for_it_alone() {
    for silent_round in [1, 3, 5] {
        let limits = Limits { round: Duration::from_secs(4), ..Limits::aux(3) };
        let outcomes = with_lost_round(silent_round, limits).await;
        let named = outcomes.iter().any(|outcome| {
            matches!(outcome, Err(MpcError::Silent { parties, round }) if parties == &[1] && *round == silent_round)
        });
        assert!(named, "round {silent_round}: {outcomes:?}");
        assert!(outcomes.iter().all(Result::is_err));
    }
}

#[tokio::test]
async fn a_body_over_the_cap_is_refused() {
    let limits = Limits { max_body: 10_000, ..Limits::aux(3) };
    let outcomes = with_lost_round(7, limits).await;
    let Err(MpcError::PeerFault { what, .. }) = &outcomes[0] else { panic!("{:?}", outcomes[0]) };
    assert!(what.contains("more than the 10000 allowed"), "{what}");
}

#[tokio::test]
async fn the_longest_message_at_five_parties_stays_within_the_limits() {
    let run = reduced_aux_info(&engine(), 5, pass).await;
    let longest = run.delivered.iter().map(|copy| copy.body.len()).max().unwrap();
    // At the real level integers are four times as long.
    assert!(longest * 4 <= Limits::aux(2).max_body, "{longest} bytes");
}

#[tokio::test]
async fn parties_of_two_runs_do_not_finish_together() {
    let engine = engine();
    let mut primes = reduced_primes(2).into_iter();
    let start = |index: u16, wiring| {
        let execution_id = ExecutionId::new([u8::try_from(index).unwrap(); 32]);
        let setup = AuxSetup { execution_id, index, parties: 2, primes: primes.next().unwrap() };
        engine.aux_info::<ReducedLevel>(setup, Limits::aux(2), wiring)
    };
    let outcomes = network::run(2, start, pass).await.outcomes;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(MpcError::Unattributed { .. } | MpcError::Closed))));
}

#[tokio::test]
async fn primes_of_another_level_are_refused_before_anything_is_sent() {
    let engine = engine();
    let (outgoing, mut sent) = tokio::sync::mpsc::channel(1);
    let (_inbox, incoming) = tokio::sync::mpsc::channel(1);
    let setup = AuxSetup { execution_id: execution_id(), index: 0, parties: 2, primes: reduced_primes(1).remove(0) };
    let wiring = casemate_mpc::Wiring { incoming, outgoing };
    let outcome: Result<AuxInfo, _> = engine.aux_info(setup, Limits::aux(2), wiring).await;
    assert!(matches!(outcome, Err(MpcError::Invalid(_))));
    assert!(sent.recv().await.is_none());
}
