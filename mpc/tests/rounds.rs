//! Rounds and reliable broadcast for protocols that are written in this crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use casemate_mpc::{Engine, ExecutionId, Kind, Limits, MpcError, RoundIo, Session, Wiring};
use support::network::{self, Copy, pass};

const PLAN: &[(u16, Kind)] = &[(1, Kind::Broadcast), (2, Kind::Broadcast), (3, Kind::Broadcast), (3, Kind::Direct)];
const ID: ExecutionId = ExecutionId::new([7; 32]);

/// Everyone broadcasts a number, checks that all have heard the same, then broadcasts and sends one more. The result is
/// the sum of all, and the digest of the broadcasts.
fn sum(engine: &Engine, me: u16, parties: u16, wiring: Wiring) -> Session<(u32, [u8; 32])> {
    let limits = Limits { round: Duration::from_millis(800), ..Limits::dkg(3) };
    engine.run(limits.session, move |_| async move {
        let mut io = RoundIo::new(me, parties, PLAN, limits, wiring)?;
        io.broadcast(1, &u32::from(me + 1)).await?;
        let first: Vec<(u16, u32)> = io.collect(1, Kind::Broadcast).await?;
        io.echo(2, &ID).await?;
        io.broadcast(3, &10u32).await?;
        for peer in io.peers() {
            io.send(3, peer, &(u32::from(peer) * 100)).await?;
        }
        let third: Vec<(u16, u32)> = io.collect(3, Kind::Broadcast).await?;
        let direct: Vec<(u16, u32)> = io.collect(3, Kind::Direct).await?;
        assert!(first.iter().all(|(from, number)| u32::from(from + 1) == *number));
        assert!(direct.iter().all(|(_, number)| u32::from(me) * 100 == *number));
        let numbers = first.iter().chain(&third).map(|(_, number)| number).sum::<u32>();
        Ok((numbers + u32::from(me + 1) + 10, io.broadcast_digest(&ID)))
    })
}

async fn run(middle: impl FnMut(Copy) -> Vec<Copy>) -> Vec<Result<(u32, [u8; 32]), MpcError>> {
    let engine = Engine::start(Some(1)).expect("threads");
    network::run(3, |me, wiring| sum(&engine, me, 3, wiring), middle).await.outcomes
}

fn rewrite(copy: Copy, target: bool, round: u16, payload: u32) -> Vec<Copy> {
    if !target {
        return vec![copy];
    }
    let mut body = Vec::new();
    ciborium::into_writer(&(round, payload), &mut body).expect("encodes");
    vec![Copy { body, ..copy }]
}

#[tokio::test]
async fn all_parties_hear_the_same_and_know_it() {
    let outcomes: Vec<_> = run(pass).await.into_iter().map(|outcome| outcome.expect("a result")).collect();
    assert_eq!(outcomes[0].0, 1 + 2 + 3 + 30);
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "same sum, same digest");
}

#[tokio::test]
async fn a_party_that_tells_two_stories_ends_the_session_and_nobody_is_blamed() {
    let outcomes = run(|copy| {
        let target = copy.is(0, 1, true) && copy.to == 2;
        rewrite(copy, target, 1, 1_000)
    })
    .await;
    for outcome in &outcomes {
        assert!(matches!(outcome, Err(MpcError::Unattributed { round: 2, .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_silent_party_is_named() {
    let outcomes = run(|copy| if copy.is(1, 3, false) { vec![] } else { vec![copy] }).await;
    assert!(
        matches!(&outcomes[0], Err(MpcError::Silent { parties, round: 3 }) if *parties == [1]),
        "{:?}",
        outcomes[0]
    );
}

#[tokio::test]
async fn messages_of_a_later_round_may_come_early() {
    let mut late = Vec::new();
    let outcomes = run(|copy| {
        // Party 2 hears party 1's second message before party 0's first.
        if copy.to == 2 && copy.is(0, 1, true) {
            late.push(copy);
            return vec![];
        }
        if copy.to == 2 && copy.is(1, 2, true) {
            return std::iter::once(copy).chain(late.drain(..)).collect();
        }
        vec![copy]
    })
    .await;
    assert!(outcomes.iter().all(Result::is_ok));
}

#[tokio::test]
async fn what_is_not_in_the_plan_or_not_a_message_is_its_senders_fault() {
    type Rewrite = fn(Copy) -> Vec<Copy>;
    let faults: [(&str, Rewrite); 6] = [
        ("another round", |copy| rewrite(copy, true, 9, 1)),
        ("twice", |copy| vec![copy.clone(), copy]),
        ("as direct message", |copy| vec![Copy { broadcast: false, ..copy }]),
        ("empty", |copy| vec![Copy { body: vec![], ..copy }]),
        ("oversize", |copy| vec![Copy { body: vec![0; 1 << 16], ..copy }]),
        ("trailing bytes", |mut copy| {
            copy.body.push(0);
            vec![copy]
        }),
    ];
    for (fault, rewrite) in faults {
        let outcomes = run(|copy| if copy.is(0, 1, true) && copy.to == 1 { rewrite(copy) } else { vec![copy] }).await;
        assert_eq!(outcomes[1].as_ref().err().and_then(MpcError::culprit), Some(0), "{fault}: {:?}", outcomes[1]);
    }
}

#[tokio::test]
async fn a_committee_of_one_or_a_position_outside_of_it_is_refused() {
    let engine = Engine::start(Some(1)).expect("threads");
    for (me, parties) in [(0, 1), (3, 3), (0, 0)] {
        let (_inbox, incoming) = tokio::sync::mpsc::channel(1);
        let (outgoing, _outbox) = tokio::sync::mpsc::channel(1);
        let outcome = sum(&engine, me, parties, Wiring { incoming, outgoing }).await;
        assert!(matches!(outcome, Err(MpcError::Invalid(_))));
    }
}
