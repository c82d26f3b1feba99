//! The tamper suite for signing: every field of every message is altered in every way, and each time no honest party that
//! got it reports a signature. A signing result counts where it verifies: whoever else finishes must hold a valid one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use casemate_mpc::aux::AuxInfo;
use casemate_mpc::levels::{Level, ReducedLevel};
use casemate_mpc::{Engine, KeyShare, Signature};
use cggmp21::rug::Integer;
use support::alter::Alteration;
use support::committee::{DIGEST, make_key, real_aux, reduced_aux, sign};
use support::is_valid;
use support::network::{Run, pass};
use support::tamper::{Attack, Middle, Recordings, carry_out, judge};

const LAST_ROUND: u16 = 5;

fn all_messages() -> BTreeSet<(u16, bool)> {
    BTreeSet::from([(1, true), (1, false), (2, true), (3, false), (4, false), (5, true)])
}

struct Bench<L: Level> {
    engine: Engine,
    shares: Vec<Arc<KeyShare<L>>>,
    signers: Vec<u16>,
    recordings: Recordings,
}

impl<L: Level> Bench<L> {
    async fn new(t: u16, aux: &[AuxInfo<L>], signers: &[u16]) -> Self {
        let engine = Engine::start(Some(2)).expect("threads");
        let shares = make_key(&engine, t, aux).await;
        let sample = sign(&engine, &shares, signers, pass).await;
        let earlier = sign(&engine, &shares, signers, pass).await;
        let recordings = Recordings { sample: sample.delivered, earlier: earlier.delivered };
        assert_eq!(recordings.kinds(), all_messages(), "the suite covers every message of the protocol");
        Self { engine, shares, signers: signers.to_vec(), recordings }
    }

    async fn withstands(&self, attacks: &[Attack]) {
        let public_key = self.shares[0].public_key();
        let run = |attack: Attack| async move {
            let mut middle = Middle::new(&attack, &self.recordings);
            let run = sign(&self.engine, &self.shares, &self.signers, |copy| middle.pass(copy)).await;
            (run, middle.applied)
        };
        let judge = |attack: &Attack, run: &Run<Signature>| {
            if run.outcomes.iter().flatten().any(|signature| !is_valid(signature, &public_key, &DIGEST)) {
                return Err("an invalid signature was reported".to_owned());
            }
            judge(attack, run, LAST_ROUND)
        };
        let complaints = carry_out(attacks, run, judge).await;
        assert!(complaints.is_empty(), "{} of {} attacks:\n{}", complaints.len(), attacks.len(), complaints.join("\n"));
    }
}

/// Additions that leave an integer the same modulo one of the moduli in play, or modulo its square.
fn same_residues(aux: &AuxInfo<ReducedLevel>) -> Vec<Alteration> {
    aux.parties()
        .flat_map(|party| [party.modulus.clone(), Integer::from(party.modulus.square_ref())])
        .flat_map(|modulus| [Alteration::Shift(-modulus.clone()), Alteration::Shift(modulus)])
        .collect()
}

async fn two_signers(sender: u16, alterations: &[Alteration], with_residues: bool) {
    let aux = reduced_aux(2);
    let bench = Bench::new(2, &aux, &[0, 1]).await;
    let shifts = if with_residues { same_residues(&aux[0]) } else { vec![] };
    let attacks = bench.recordings.attacks(sender, 1 - sender, alterations, &shifts, true);
    let covered: BTreeSet<_> = attacks.iter().map(|attack| (attack.round, attack.broadcast)).collect();
    assert_eq!(covered, all_messages());
    bench.withstands(&attacks).await;
}

#[tokio::test]
async fn no_altered_field_from_the_first_signer_leads_to_a_signature() {
    two_signers(0, Recordings::full(), true).await;
}

#[tokio::test]
async fn no_altered_field_from_the_second_signer_leads_to_a_signature() {
    // Its other encodings and representatives are refused before the protocol sees them, whoever sends them.
    let alterations = [Alteration::FlipLow, Alteration::Negate, Alteration::Zero];
    two_signers(1, &alterations, false).await;
}

#[tokio::test]
async fn with_three_signers_no_altered_field_leads_to_a_signature_at_a_victim_nor_an_invalid_one_anywhere() {
    let bench = Bench::new(3, &reduced_aux(5), &[0, 2, 4]).await;
    let attacks = bench.recordings.attacks(2, 0, &[Alteration::FlipLow], &[], false);
    bench.withstands(&attacks).await;
}

#[tokio::test]
async fn at_the_real_level_every_message_type_altered_is_noticed() {
    let bench = Bench::new(2, &real_aux(2), &[0, 1]).await;
    let mut seen = BTreeSet::new();
    let attacks: Vec<Attack> = bench
        .recordings
        .attacks(0, 1, &[Alteration::FlipLow], &[], false)
        .into_iter()
        .filter(|attack| seen.insert((attack.round, attack.broadcast)))
        .collect();
    assert_eq!(seen, all_messages());
    bench.withstands(&attacks).await;
}
