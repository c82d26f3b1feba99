//! The tamper suite for key generation: every field of every message is altered in every way, and each time every honest
//! party must end without a share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;

use casemate_mpc::Engine;
use support::committee::dkg;
use support::network::{Run, pass};
use support::tamper::{Attack, Middle, Recordings, Victims, carry_out, judge};

const LAST_ROUND: u16 = 4;

async fn recordings(engine: &Engine) -> Recordings {
    let sample = dkg(engine, 2, 3, pass).await;
    let earlier = dkg(engine, 2, 3, pass).await;
    Recordings { sample: sample.delivered, earlier: earlier.delivered }
}

#[tokio::test]
async fn no_altered_field_of_any_message_leads_to_a_share() {
    let engine = Engine::start(Some(2)).expect("threads");
    let recordings = recordings(&engine).await;
    assert_eq!(
        recordings.kinds(),
        BTreeSet::from([(1, true), (2, true), (3, true), (3, false), (4, true)]),
        "the suite covers every message of the protocol"
    );
    let attacks = recordings.attacks(0, 1, Recordings::full(), &[], true);
    let covered: BTreeSet<_> = attacks.iter().map(|attack| (attack.round, attack.broadcast)).collect();
    assert_eq!(covered, recordings.kinds());

    let run = |attack: Attack| {
        let (engine, recordings) = (&engine, &recordings);
        async move {
            let mut middle = Middle::new(&attack, recordings);
            let run = dkg(engine, 2, 3, |copy| middle.pass(copy)).await;
            (run, middle.applied)
        }
    };
    let complaints = carry_out(&attacks, run, |attack, run| judge(attack, run, LAST_ROUND)).await;
    assert!(complaints.is_empty(), "{} of {} attacks:\n{}", complaints.len(), attacks.len(), complaints.join("\n"));
}

#[tokio::test]
async fn altering_the_last_message_to_one_party_leaves_the_key_unconfirmed() {
    let engine = Engine::start(Some(2)).expect("threads");
    let recordings = recordings(&engine).await;
    let attacks: Vec<Attack> = recordings
        .attacks(2, 0, Recordings::full(), &[], true)
        .into_iter()
        .filter(|attack| attack.round == LAST_ROUND && attack.victims == Victims::One(0))
        .collect();
    assert!(!attacks.is_empty());
    let run = |attack: Attack| {
        let (engine, recordings) = (&engine, &recordings);
        async move {
            let mut middle = Middle::new(&attack, recordings);
            let run = dkg(engine, 2, 3, |copy| middle.pass(copy)).await;
            (run, middle.applied)
        }
    };
    // A key becomes active only with the confirmations of all, and only who has a share confirms.
    let confirmed_by_all =
        |_: &Attack, run: &Run<_>| match run.outcomes.iter().filter(|outcome| outcome.is_ok()).count() {
            3 => Err("all three would confirm".to_owned()),
            _ => Ok(()),
        };
    let complaints = carry_out(&attacks, run, confirmed_by_all).await;
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
