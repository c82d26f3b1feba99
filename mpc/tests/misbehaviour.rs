//! Peers that are silent, flood, or send what is no message at all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_mpc::levels::ReducedLevel;
use casemate_mpc::{
    Cggmp21, DkgParams, DkgShare, Engine, Inbound, KeyShare, Limits, MpcError, Outbound, Recipient, Scheme, Session,
    Wiring,
};
use ciborium::Value;
use rand::RngCore;
use support::alter::{parse, write};
use support::committee::{dkg, make_key, reduced_aux, sign, sign_params};
use support::execution_id;
use support::network::{self, Copy, Run, pass};

fn engine() -> Engine {
    Engine::start(Some(2)).expect("threads")
}

async fn two_party_key(engine: &Engine) -> Vec<Arc<KeyShare<ReducedLevel>>> {
    make_key(engine, 2, &reduced_aux(2)).await
}

#[track_caller]
fn assert_names<T>(run: &Run<T>, honest: u16, culprit: u16) {
    match &run.outcomes[usize::from(honest)] {
        Err(MpcError::PeerFault { party, .. }) => assert_eq!(*party, culprit),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("party {honest} has a result"),
    }
}

#[tokio::test]
async fn a_silent_party_is_named_within_the_rounds_limit() {
    let engine = engine();
    let round = Duration::from_millis(700);
    let execution_id = execution_id();
    for (silent_from, round_named) in [(1, 1), (3, 3), (4, 4)] {
        let begun = Instant::now();
        let start = |position, wiring| {
            let limits = Limits { round, ..Limits::dkg(3) };
            Cggmp21::<ReducedLevel>::dkg(&engine, DkgParams { execution_id, position, t: 2, n: 3 }, limits, wiring)
        };
        let drop_late = |copy: Copy| {
            if copy.from == 2 && copy.round >= silent_from { vec![] } else { vec![copy] }
        };
        let run = network::run(3, start, drop_late).await;
        for honest in &run.outcomes[..2] {
            match honest {
                Err(MpcError::Silent { parties, round }) => {
                    assert_eq!((parties.as_slice(), *round), (&[2][..], round_named));
                }
                Err(error) => panic!("{error}"),
                Ok(_) => panic!("a share without party 2"),
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn a_silent_signer_is_named() {
    let engine = engine();
    let shares = two_party_key(&engine).await;
    let execution_id = execution_id();
    let start = |position, wiring| {
        let limits = Limits { round: Duration::from_millis(1500), ..Limits::sign(2) };
        Cggmp21::sign(&engine, sign_params(&shares, &[0, 1], position, execution_id), limits, wiring)
    };
    let lose = |copy: Copy| {
        if copy.from == 1 && copy.round == 3 { vec![] } else { vec![copy] }
    };
    let run = network::run(2, start, lose).await;
    let outcome = run.outcomes.into_iter().next().expect("party 0");
    assert!(matches!(&outcome, Err(MpcError::Silent { parties, round: 3 }) if *parties == [1]), "{outcome:?}");
}

#[tokio::test]
async fn a_session_never_outlives_its_limit() {
    let engine = engine();
    let shares = two_party_key(&engine).await;
    let (_inbox, incoming) = tokio::sync::mpsc::channel(1);
    let (outgoing, _outbox) = tokio::sync::mpsc::channel(64);
    let limits = Limits { session: Duration::from_millis(300), ..Limits::sign(2) };
    let params = sign_params(&shares, &[0, 1], 0, execution_id());
    let outcome = Cggmp21::sign(&engine, params, limits, Wiring { incoming, outgoing }).await;
    assert!(matches!(outcome, Err(MpcError::SessionTimeout { .. })), "{outcome:?}");
}

#[tokio::test]
async fn closed_channels_end_the_session() {
    let engine = engine();
    let (inbox, incoming) = tokio::sync::mpsc::channel::<Inbound>(1);
    let (outgoing, outbox) = tokio::sync::mpsc::channel::<Outbound>(1);
    drop((inbox, outbox));
    let params = DkgParams { execution_id: execution_id(), position: 0, t: 2, n: 2 };
    let outcome = Cggmp21::<ReducedLevel>::dkg(&engine, params, Limits::dkg(2), Wiring { incoming, outgoing }).await;
    assert!(matches!(outcome, Err(MpcError::Closed)), "{outcome:?}");
}

#[tokio::test]
async fn an_oversize_body_is_refused_undecoded_and_its_sender_named() {
    let engine = engine();
    let cap = Limits::dkg(3).max_body;
    let run = dkg(&engine, 2, 3, |mut copy| {
        if copy.is(2, 1, true) {
            // Well-formed CBOR, so that only its length speaks against it.
            copy.body = write(&Value::Bytes(vec![0; cap]));
        }
        vec![copy]
    })
    .await;
    assert_names(&run, 0, 2);
    assert_names(&run, 1, 2);
}

#[tokio::test]
async fn garbage_and_truncated_bodies_are_their_senders_fault() {
    let engine = engine();
    let mut random = vec![0; 300];
    rand::rngs::OsRng.fill_bytes(&mut random);
    let garbage: Vec<Vec<u8>> =
        vec![vec![], vec![0xFF], vec![0x9F; 500], vec![0xBB, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], random];
    for body in garbage {
        let run = dkg(&engine, 2, 2, |copy| {
            let body = if copy.is(0, 1, true) { body.clone() } else { copy.body.clone() };
            vec![Copy { body, ..copy }]
        })
        .await;
        assert_names(&run, 1, 0);
    }
    for eighths in 0..8 {
        for (round, broadcast) in [(1, true), (2, true), (3, true), (3, false), (4, true)] {
            let run = dkg(&engine, 2, 2, |mut copy| {
                if copy.is(0, round, broadcast) {
                    copy.body.truncate(copy.body.len() * eighths / 8);
                }
                vec![copy]
            })
            .await;
            assert_names(&run, 1, 0);
        }
    }
}

#[tokio::test]
async fn a_second_message_in_one_round_is_its_senders_fault() {
    let engine = engine();
    for (round, broadcast) in [(1, true), (3, false)] {
        let run =
            dkg(&engine, 2, 3, |copy| if copy.is(0, round, broadcast) { vec![copy.clone(), copy] } else { vec![copy] })
                .await;
        assert_names(&run, 1, 0);
    }
}

#[tokio::test]
async fn a_broadcast_sent_as_direct_message_is_its_senders_fault_and_so_the_other_way() {
    let engine = engine();
    for (round, broadcast) in [(1, true), (3, true), (3, false), (4, true)] {
        let run = dkg(&engine, 2, 3, |mut copy| {
            if copy.is(0, round, broadcast) {
                copy.broadcast = !copy.broadcast;
            }
            vec![copy]
        })
        .await;
        assert_names(&run, 1, 0);
    }
}

#[tokio::test]
async fn messages_from_strangers_or_oneself_end_the_session_without_blame() {
    let engine = engine();
    for from in [1, 3, 65535] {
        let run = dkg(&engine, 2, 3, |mut copy| {
            if copy.to == 1 && copy.is(0, 1, true) {
                copy.from = from;
            }
            vec![copy]
        })
        .await;
        assert!(matches!(run.outcomes[1], Err(MpcError::Unattributed { .. })), "{:?}", run.outcomes[1]);
    }
}

#[tokio::test]
async fn a_whole_message_replayed_from_another_session_is_noticed() {
    let engine = engine();
    let shares = two_party_key(&engine).await;
    let earlier = sign(&engine, &shares, &[0, 1], pass).await.delivered;
    for (round, broadcast) in [(1, true), (1, false), (2, true), (3, false), (4, false), (5, true)] {
        let old = earlier.iter().find(|copy| copy.is(0, round, broadcast)).expect("recorded").clone();
        let run =
            sign(
                &engine,
                &shares,
                &[0, 1],
                |copy| {
                    if copy.is(0, round, broadcast) { vec![old.clone()] } else { vec![copy] }
                },
            )
            .await;
        let outcome = &run.outcomes[1];
        assert!(matches!(outcome, Err(MpcError::PeerFault { .. } | MpcError::Unattributed { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn an_overlong_integer_is_refused_before_it_costs_anything() {
    let engine = engine();
    let shares = two_party_key(&engine).await;
    // The longest number that the size cap would let through, as the exponent `z3` of the first range proof.
    let begun = Instant::now();
    let run = sign(&engine, &shares, &[0, 1], |mut copy| {
        if copy.is(0, 1, false) {
            let mut message = parse(&copy.body);
            *integer_digits(&mut message, "z3").expect("the field") = Value::from("f".repeat(50_000));
            copy.body = write(&message);
        }
        vec![copy]
    })
    .await;
    assert_names(&run, 1, 0);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn an_exponent_one_bit_too_long_is_refused_by_its_length() {
    let engine = engine();
    let shares = two_party_key(&engine).await;
    let run = sign(&engine, &shares, &[0, 1], |mut copy| {
        if copy.is(0, 1, false) {
            let mut message = parse(&copy.body);
            let digits = integer_digits(&mut message, "z3").expect("the field");
            // 768 bits of modulus, 256 and 96 of scalar and slack, two of carry: 281 digits are within the string cap.
            *digits = Value::from("f".repeat(281));
            copy.body = write(&message);
        }
        vec![copy]
    })
    .await;
    let outcome = &run.outcomes[1];
    assert!(
        matches!(outcome, Err(MpcError::PeerFault { party: 0, what, .. }) if what.contains("z3 is longer")),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_panicking_session_leaves_a_signing_session_unharmed() {
    let engine = Engine::start(Some(1)).expect("threads");
    let shares = two_party_key(&engine).await;
    let crash = |round| -> Session<()> {
        engine.run(Duration::from_secs(9), move |_| async move {
            tokio::time::sleep(Duration::from_millis(round)).await;
            panic!("on purpose")
        })
    };
    let crashes: Vec<Session<()>> = (0..20).map(|step| crash(5 * step)).collect();
    assert_eq!(sign(&engine, &shares, &[0, 1], pass).await.all().len(), 2);
    for crash in crashes {
        assert!(matches!(crash.await, Err(MpcError::Panicked)));
    }
}

#[tokio::test]
async fn a_cancelled_session_stops_sending() {
    let engine = engine();
    let (_inbox, incoming) = tokio::sync::mpsc::channel::<Inbound>(1);
    let (outgoing, mut outbox) = tokio::sync::mpsc::channel::<Outbound>(8);
    let params = DkgParams { execution_id: execution_id(), position: 0, t: 2, n: 2 };
    let session: Session<DkgShare> =
        Cggmp21::<ReducedLevel>::dkg(&engine, params, Limits::dkg(2), Wiring { incoming, outgoing });
    let first = outbox.recv().await.expect("the commitment");
    assert_eq!((first.to, first.round), (Recipient::All, 1));
    drop(session);
    assert!(outbox.recv().await.is_none(), "the session's end of the channel is gone");
}

/// The digits of the first integer field called `field`.
fn integer_digits<'a>(value: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    match value {
        Value::Map(entries) => {
            for (key, child) in entries {
                if key.as_text() == Some(field) {
                    return child
                        .as_map_mut()?
                        .iter_mut()
                        .find(|(key, _)| key.as_text() == Some("value"))
                        .map(|(_, digits)| digits);
                }
                if let Some(found) = integer_digits(child, field) {
                    return Some(found);
                }
            }
            None
        }
        Value::Array(items) => items.iter_mut().find_map(|item| integer_digits(item, field)),
        _ => None,
    }
}
