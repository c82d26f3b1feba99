//! The tamper suite for auxiliary info: every field of every message is altered, and each time every honest party must
//! end without auxiliary info.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod aux_support;
mod support;

use std::collections::BTreeSet;

use aux_support::middle::{Breadth, Middle, Recordings, kind_of_field};
use aux_support::{aux_info, real_primes, reduced_primes};
use casemate_mpc::Engine;
use casemate_mpc::aux::AuxInfo;
use casemate_mpc::levels::{Level, ReducedLevel, SecurityLevel128};
use casemate_mpc::primes::PrimePair;
use support::network::{Run, pass};
use support::tamper::{Attack, Victims, carry_out, judge};

const LAST_ROUND: u16 = 6;

/// Round and whether broadcast, of every message.
const MESSAGES: [(u16, bool); 7] = [(1, true), (2, true), (3, true), (4, true), (5, true), (5, false), (6, true)];

struct Suite {
    engine: Engine,
    primes: fn(usize) -> Vec<PrimePair>,
    parties: usize,
    recordings: Recordings,
}

impl Suite {
    /// Records honest runs; attacks will be on what party 0 sends.
    async fn record<L: Level>(primes: fn(usize) -> Vec<PrimePair>, parties: usize) -> Self {
        let engine = Engine::start(None).expect("threads");
        let honest = async || aux_info::<L>(&engine, primes(parties), pass).await;
        let (sample, earlier) = (honest().await, honest().await);
        let modulus = sample.outcomes[0].as_ref().unwrap().parties().next().unwrap().modulus.clone();
        let recordings = Recordings { sample: sample.delivered, earlier: earlier.delivered, modulus };
        Self { engine, primes, parties, recordings }
    }

    async fn complaints<L: Level>(
        &self,
        attacks: &[Attack],
        judge: impl Fn(&Attack, &Run<AuxInfo<L>>) -> Result<(), String>,
    ) -> Vec<String> {
        let run = |attack: Attack| async move {
            let mut middle = Middle::new(&attack, &self.recordings);
            let run = aux_info::<L>(&self.engine, (self.primes)(self.parties), |copy| middle.pass(copy)).await;
            (run, middle.applied)
        };
        carry_out(attacks, run, judge).await
    }

    async fn withstands<L: Level>(&self, attacks: &[Attack]) {
        let covered: BTreeSet<_> = attacks.iter().map(|attack| (attack.round, attack.broadcast)).collect();
        assert_eq!(covered, BTreeSet::from(MESSAGES), "every message is attacked");
        let complaints = self.complaints::<L>(attacks, |attack, run| judge(attack, run, LAST_ROUND)).await;
        assert!(complaints.is_empty(), "{} of {} attacks:\n{}", complaints.len(), attacks.len(), complaints.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_altered_leaf_of_any_message_leads_to_auxiliary_info() {
    let suite = Suite::record::<ReducedLevel>(reduced_primes, 2).await;
    let attacks = suite.recordings.attacks(0, 1, Breadth::EveryLeaf);
    assert_eq!(attacks.len(), 7 + 1 + 3 + (3 + 256 + 2) + (1 + 4 * 128) + 11, "one attack on every leaf");
    suite.withstands::<ReducedLevel>(&attacks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_alteration_of_any_kind_of_field_leads_to_auxiliary_info() {
    let suite = Suite::record::<ReducedLevel>(reduced_primes, 3).await;
    let attacks = suite.recordings.attacks(0, 1, Breadth::EveryAlteration);
    let fields = |attacks: &[Attack]| attacks.iter().map(kind_of_field).collect::<BTreeSet<_>>();
    let all_fields = fields(&suite.recordings.attacks(0, 1, Breadth::EveryLeaf));
    assert_eq!(fields(&attacks), all_fields, "every kind of field is attacked in every way");
    suite.withstands::<ReducedLevel>(&attacks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn altering_the_last_message_to_one_party_leaves_the_result_unconfirmed() {
    let suite = Suite::record::<ReducedLevel>(reduced_primes, 3).await;
    let attacks: Vec<Attack> = suite
        .recordings
        .attacks(0, 1, Breadth::EveryAlteration)
        .into_iter()
        .filter(|attack| attack.round == LAST_ROUND && attack.victims == Victims::One(1))
        .collect();
    assert!(!attacks.is_empty());
    // Auxiliary info becomes active only with signed confirmations of all over one digest. Who has no result gives none.
    let unconfirmed = |_: &Attack, run: &Run<AuxInfo<ReducedLevel>>| {
        let confirmations: Vec<_> = run.outcomes.iter().flatten().map(AuxInfo::transcript_digest).collect();
        let all_alike = confirmations.len() == 3 && confirmations.iter().all(|digest| *digest == confirmations[0]);
        if all_alike { Err("all three would confirm".to_owned()) } else { Ok(()) }
    };
    let complaints = suite.complaints(&attacks, unconfirmed).await;
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_message_altered_at_the_real_level_ends_the_run() {
    let suite = Suite::record::<SecurityLevel128>(real_primes, 2).await;
    let mut attacks = suite.recordings.attacks(0, 1, Breadth::EveryLeaf);
    // One field from the middle of each message, so that nothing but the message's own checks can notice.
    let of_message = |message: (u16, bool), attacks: &[Attack]| {
        let those: Vec<_> =
            attacks.iter().filter(|attack| (attack.round, attack.broadcast) == message).cloned().collect();
        those[those.len() / 2].clone()
    };
    attacks = MESSAGES.into_iter().map(|message| of_message(message, &attacks)).collect();
    suite.withstands::<SecurityLevel128>(&attacks).await;
}
