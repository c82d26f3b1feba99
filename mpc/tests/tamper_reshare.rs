//! The tamper suite for redistribution: every field of every message is altered in every way, and each time every honest
//! party must end without a share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;

use casemate_mpc::{Engine, MpcError, Resharing};
use ciborium::Value;
use support::alter::{parse, write};
use support::committee::{make_key, reduced_aux};
use support::network::{Copy, Run, pass};
use support::reshare::{Plan, Share};
use support::tamper::{Attack, Middle, Recordings, Victims, carry_out, judge};

const LAST_ROUND: u16 = 6;

/// Round and whether broadcast, of every message.
const MESSAGES: [(u16, bool); 7] = [(1, true), (2, true), (3, true), (3, false), (4, true), (5, true), (6, true)];

/// Rounds whose broadcasts are echoes.
const ECHOES: [u16; 3] = [2, 4, 6];

struct Suite {
    engine: Engine,
    old: Vec<Share>,
    plan: Plan,
    recordings: Recordings,
}

impl Suite {
    async fn record(t: u16, n: u16, plan: Plan) -> Self {
        let engine = Engine::start(Some(2)).expect("threads");
        let old = make_key(&engine, t, &reduced_aux(n)).await;
        let sample = plan.run(&engine, &old, pass).await.delivered;
        let earlier = plan.run(&engine, &old, pass).await.delivered;
        Self { engine, old, plan, recordings: Recordings { sample, earlier } }
    }

    /// A key of which all parties deal and receive, so that no message is empty.
    async fn where_all_deal() -> Self {
        Self::record(3, 3, Plan::new(&[(0, 0), (1, 1), (2, 2)], 3, 3)).await
    }

    async fn run(&self, middle: impl FnMut(Copy) -> Vec<Copy>) -> Run<Resharing> {
        self.plan.run(&self.engine, &self.old, middle).await
    }

    async fn complaints(
        &self,
        attacks: &[Attack],
        judge: impl Fn(&Attack, &Run<Resharing>) -> Result<(), String>,
    ) -> Vec<String> {
        let run = |attack: Attack| async move {
            let mut middle = Middle::new(&attack, &self.recordings);
            let run = self.run(|copy| middle.pass(copy)).await;
            (run, middle.applied)
        };
        carry_out(attacks, run, judge).await
    }
}

/// What every attack must lead to, and that the sender is named wherever its own message tells: everywhere but in echoes,
/// and in round 1, whose fields mean nothing before the echo has compared them.
fn judge_and_name(attack: &Attack, run: &Run<Resharing>) -> Result<(), String> {
    judge(attack, run, LAST_ROUND)?;
    let tells_its_round = attack.field == "0.";
    if !tells_its_round && (attack.round == 1 || ECHOES.contains(&attack.round)) {
        return Ok(());
    }
    let named = |outcome: &Result<Resharing, MpcError>| {
        outcome.as_ref().is_err_and(|error| error.culprit() == Some(attack.sender))
    };
    if run.outcomes.iter().any(named) { Ok(()) } else { Err("the sender is not named".into()) }
}

#[tokio::test]
async fn no_altered_field_of_any_message_leads_to_a_share() {
    let suite = Suite::where_all_deal().await;
    assert_eq!(suite.recordings.kinds(), BTreeSet::from(MESSAGES), "the suite covers every message of the protocol");
    let attacks = suite.recordings.attacks(0, 1, Recordings::full(), &[], true);
    let covered: BTreeSet<_> = attacks.iter().map(|attack| (attack.round, attack.broadcast)).collect();
    assert_eq!(covered, BTreeSet::from(MESSAGES));
    let complaints = suite.complaints(&attacks, judge_and_name).await;
    assert!(complaints.is_empty(), "{} of {} attacks:\n{}", complaints.len(), attacks.len(), complaints.join("\n"));
}

#[tokio::test]
async fn altering_the_last_message_to_one_party_leaves_the_shares_unconfirmed() {
    let suite = Suite::where_all_deal().await;
    let attacks: Vec<Attack> = suite
        .recordings
        .attacks(2, 0, Recordings::full(), &[], true)
        .into_iter()
        .filter(|attack| attack.round == LAST_ROUND && attack.victims == Victims::One(0))
        .collect();
    assert!(!attacks.is_empty());
    // New shares become active only with the confirmations of all, and only who has a result confirms.
    let unconfirmed = |_: &Attack, run: &Run<Resharing>| {
        if run.outcomes.iter().all(Result::is_ok) { Err("all three would confirm".to_owned()) } else { Ok(()) }
    };
    let complaints = suite.complaints(&attacks, unconfirmed).await;
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Changes the message that `slot`'s sender sends in its round, to `victim` or to all; the victims name the sender.
async fn is_named(
    suite: &Suite,
    slot: (u16, u16, bool),
    victim: Option<u16>,
    change: impl Fn(&[u8]) -> Vec<u8>,
    what: &str,
) {
    let (sender, round, broadcast) = slot;
    let run = suite
        .run(|mut copy| {
            if copy.is(sender, round, broadcast) && victim.is_none_or(|victim| copy.to == victim) {
                copy.body = change(&copy.body);
            }
            vec![copy]
        })
        .await;
    for (party, outcome) in (0u16..).zip(&run.outcomes).filter(|(party, _)| *party != sender) {
        assert!(outcome.is_err(), "{what}, {slot:?}: party {party} has a result");
        if victim.is_none_or(|victim| party == victim) {
            let culprit = outcome.as_ref().err().and_then(MpcError::culprit);
            assert_eq!(culprit, Some(sender), "{what}, {slot:?}, to party {party}: {outcome:?}");
        }
    }
}

/// A payload where none is due, and none where one is due.
#[tokio::test]
async fn who_steps_out_of_its_role_is_named() {
    // Of four parties, 1 and 3 deal, 0, 1 and 2 receive.
    let suite = Suite::record(2, 3, Plan::new(&[(1, 0), (3, 2)], 2, 3)).await;
    let body = |from: u16, to: Option<u16>, round: u16, broadcast: bool| {
        let found = suite
            .recordings
            .sample
            .iter()
            .find(|copy| copy.is(from, round, broadcast) && to.is_none_or(|to| copy.to == to));
        found.expect("recorded").body.clone()
    };
    let empty = |round: u16| move |_: &[u8]| write(&Value::Array(vec![Value::from(round), Value::Null]));
    let is_empty = |body: &[u8]| parse(body).as_array().expect("an array")[1].is_null();

    // What a party with a part in the step sends, in place of what came.
    let full = |round, broadcast, from, to| {
        let body = body(from, to, round, broadcast);
        assert!(!is_empty(&body));
        move |_: &[u8]| body.clone()
    };
    is_named(&suite, (2, 3, true), None, full(3, true, 1, None), "a reveal of who does not deal").await;
    is_named(&suite, (2, 3, false), Some(0), full(3, false, 1, Some(0)), "an evaluation of who does not deal").await;
    is_named(&suite, (1, 3, false), Some(3), full(3, false, 1, Some(0)), "an evaluation for who does not receive")
        .await;
    is_named(&suite, (3, 5, true), None, full(5, true, 1, None), "a proof of who does not receive").await;

    assert!(is_empty(&body(2, None, 3, true)) && is_empty(&body(3, None, 5, true)), "the roles are as stated");
    is_named(&suite, (1, 3, true), None, empty(3), "no reveal of a dealer").await;
    is_named(&suite, (1, 3, false), Some(2), empty(3), "no evaluation of a dealer").await;
    is_named(&suite, (2, 5, true), None, empty(5), "no proof of a receiver").await;

    let with_commitment = |commitment: Value| {
        move |body: &[u8]| {
            let mut message = parse(body);
            let fields = message.as_array_mut().expect("an array")[1].as_map_mut().expect("a map");
            let field = fields.iter_mut().find(|(key, _)| key.as_text() == Some("commitment"));
            field.expect("the field").1 = commitment.clone();
            write(&message)
        }
    };
    let added = with_commitment(Value::Bytes(vec![7; 32]));
    is_named(&suite, (2, 1, true), None, added, "a commitment of who does not deal").await;
    is_named(&suite, (1, 1, true), None, with_commitment(Value::Null), "no commitment of a dealer").await;
}

#[tokio::test]
async fn a_whole_message_of_another_session_or_party_leads_to_no_share() {
    let suite = Suite::where_all_deal().await;
    let Recordings { sample, earlier } = &suite.recordings;
    for (round, broadcast) in MESSAGES {
        // An evaluation dealt in an earlier session, and one dealt for another receiver or by another dealer.
        let replayed = earlier.iter().find(|copy| copy.is(0, round, broadcast) && copy.to == 1);
        let of_other = sample.iter().find(|copy| copy.is(2, round, broadcast) && copy.to == 1);
        for other in [replayed, of_other] {
            let body = &other.expect("recorded").body;
            let run = suite
                .run(|mut copy| {
                    if copy.is(0, round, broadcast) && copy.to == 1 {
                        copy.body.clone_from(body);
                    }
                    vec![copy]
                })
                .await;
            assert!(
                matches!(run.outcomes[1], Err(MpcError::PeerFault { party: 0, .. } | MpcError::Unattributed { .. })),
                "round {round}: {:?}",
                run.outcomes[1]
            );
            assert!(round == LAST_ROUND || run.outcomes[2].is_err(), "round {round}: party 2 has a result");
        }
    }
}

/// A dealer that sends each its neighbour's evaluation: dealt honestly, and to the wrong parties.
#[tokio::test]
async fn swapped_evaluations_name_their_dealer() {
    let suite = Suite::where_all_deal().await;
    let mut held: Option<Copy> = None;
    let run = suite
        .run(|copy| {
            if !copy.is(0, 3, false) {
                return vec![copy];
            }
            let Some(mut first) = held.take() else {
                held = Some(copy);
                return vec![];
            };
            let mut second = copy;
            std::mem::swap(&mut first.body, &mut second.body);
            vec![first, second]
        })
        .await;
    for receiver in [1, 2] {
        let outcome = &run.outcomes[receiver];
        assert_eq!(outcome.as_ref().err().and_then(MpcError::culprit), Some(0), "{outcome:?}");
    }
    assert!(run.outcomes[0].is_err());
}
