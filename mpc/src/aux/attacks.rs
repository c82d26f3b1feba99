//! A dishonest party among honest ones: whatever it lies about, every honest party stops and names it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::many_single_char_names)]

use std::time::Duration;

use rug::Integer;

use super::fixtures::{compute, execution, factors, limits, network, own};
use super::info::AuxInfo;
use super::messages::{BlumMessage, CommitMessage, FactorsMessage, RevealMessage};
use super::numbers::PartyNumbers;
use super::protocol::{
    Binding, COMMIT, COMMIT_ECHO, OwnNumbers, PLAN, PROOFS, PROOFS_ECHO, REVEAL, REVEAL_ECHO, commitment, run,
};
use super::{blum, factors as fac, prm};
use crate::error::{ExecutionId, MpcError};
use crate::io::{Kind, Limits};
use crate::levels::ReducedLevel;
use crate::round_io::RoundIo;

/// Position of the dishonest party, in the middle so that neither end of a list is special.
const ROGUE: u16 = 1;
const PARTIES: u16 = 3;

/// What the dishonest party sends instead of the truth.
#[derive(Clone, Default)]
struct Lies {
    /// N, s, t instead of its own.
    numbers: Option<(Integer, Integer, Integer)>,
    /// A foreign reveal instead of its own, as committed.
    reveal: Option<RevealMessage>,
    /// A reveal other than the committed one.
    change_reveal: bool,
    /// The run that its Π_prm is made for.
    prm_run: Option<ExecutionId>,
    /// The party in whose name its Π_prm is made.
    prm_prover: Option<u16>,
    /// The run that its Π_mod and Π_fac are made for.
    proofs_run: Option<ExecutionId>,
    /// The party in whose name its Π_mod and Π_fac are made.
    proofs_prover: Option<u16>,
    /// Its Π_fac are all made for this verifier.
    fac_verifier: Option<u16>,
}

/// Plays the protocol as the dishonest party; honest but for its lies.
async fn play_rogue(lies: Lies, own: OwnNumbers, mut io: RoundIo) -> Result<(), MpcError> {
    let (id, compute) = (execution(1), compute());
    let own_numbers = own.numbers();
    let (n, s, t) = lies.numbers.unwrap_or_else(|| (own_numbers.modulus.clone(), own.s.clone(), own.t.clone()));
    let numbers = PartyNumbers { modulus: &n, s: &s, t: &t };
    let claim =
        prm::Claim { execution_id: &lies.prm_run.unwrap_or(id), prover: lies.prm_prover.unwrap_or(ROGUE), numbers };
    let proof = prm::prove(&compute, claim, &own.crt, &own.lambda).await?;
    let reveal = lies.reveal.unwrap_or_else(|| RevealMessage::new(numbers, &proof, [3; 32], [4; 32]));
    io.broadcast(COMMIT, &commitment(&id, ROGUE, PARTIES, &reveal)?).await?;
    let _: Vec<(u16, CommitMessage)> = io.collect(COMMIT, Kind::Broadcast).await?;
    io.echo(COMMIT_ECHO, &id).await?;

    let reveal = if lies.change_reveal { RevealMessage::new(numbers, &proof, [5; 32], [4; 32]) } else { reveal };
    io.broadcast(REVEAL, &reveal).await?;
    let revealed: Vec<(u16, RevealMessage)> = io.collect(REVEAL, Kind::Broadcast).await?;
    io.echo(REVEAL_ECHO, &id).await?;

    let binding = Binding::new(&lies.proofs_run.unwrap_or(id), &reveal, &revealed, &io);
    let prover = lies.proofs_prover.unwrap_or(ROGUE);
    let blum_proof = blum::prove(&compute, binding.blum(prover), &own.crt).await?;
    io.broadcast(PROOFS, &BlumMessage::new(&blum_proof)).await?;
    for (party, message) in &revealed {
        let peer = message.read::<ReducedLevel>().unwrap();
        let context = binding.factors(prover, lies.fac_verifier.unwrap_or(*party));
        let proof = fac::prove::<ReducedLevel>(context, &own.crt, &fac::public_aux(peer.numbers()))?;
        io.send(PROOFS, *party, &FactorsMessage::new(&proof)).await?;
    }
    let _: Vec<(u16, BlumMessage)> = io.collect(PROOFS, Kind::Broadcast).await?;
    let _: Vec<(u16, FactorsMessage)> = io.collect(PROOFS, Kind::Direct).await?;
    io.echo(PROOFS_ECHO, &id).await
}

/// Runs two honest parties with the dishonest one; what the honest ones get.
async fn outcome(lies: Lies, rogue: OwnNumbers) -> Vec<Result<AuxInfo<ReducedLevel>, MpcError>> {
    outcome_within(limits(), lies, rogue).await
}

async fn outcome_within(limits: Limits, lies: Lies, rogue: OwnNumbers) -> Vec<Result<AuxInfo<ReducedLevel>, MpcError>> {
    let mut wirings = network(PARTIES).into_iter().enumerate();
    let mut open = || {
        let (me, wiring) = wirings.next().unwrap();
        RoundIo::new(u16::try_from(me).unwrap(), PARTIES, &PLAN, limits, wiring).unwrap()
    };
    let (first, rogue_io, last) = (open(), open(), open());
    let compute = compute();
    let honest = async |numbers, mut io: RoundIo| run::<ReducedLevel>(execution(1), numbers, &mut io, &compute).await;
    let (a, _, b) = tokio::join!(honest(own(0), first), play_rogue(lies, rogue, rogue_io), honest(own(2), last));
    vec![a, b]
}

async fn is_blamed(lies: Lies, rogue: OwnNumbers, in_round: u16, because: &str) {
    for outcome in outcome(lies, rogue).await {
        match outcome {
            Err(MpcError::PeerFault { party: ROGUE, round, what }) if round == in_round => {
                assert!(what.contains(because), "blamed for {what:?} and not for {because:?}");
            }
            other => panic!("expected blame for {because:?}, got {other:?}"),
        }
    }
}

/// Round 3 lies about N, s or t.
async fn numbers_are_blamed(modulus: Integer, s: Integer, t: Integer, because: &str) {
    let lies = Lies { numbers: Some((modulus, s, t)), ..Lies::default() };
    is_blamed(lies, own(ROGUE.into()), REVEAL, because).await;
}

#[tokio::test]
async fn without_lies_everybody_finishes_with_the_same_digest() {
    let results = outcome(Lies::default(), own(ROGUE.into())).await;
    let digests: Vec<_> = results.iter().map(|result| result.as_ref().unwrap().transcript_digest()).collect();
    assert_eq!(digests[0], digests[1]);
}

#[tokio::test]
async fn a_bad_modulus_is_blamed_on_its_party() {
    let honest = own(ROGUE.into());
    let n = honest.crt.modulus();
    let (p, q) = factors(ROGUE.into());
    let power = Integer::from(1) << 767u32;
    let cases = [
        (power.clone().next_prime(), "prime"),
        (Integer::from(n + 1u32), "even"),
        (Integer::from(&power / 3u32).next_prime() * 3u32, "factor 3"),
        (p.clone().square(), "perfect power"),
        (q, "bits"),
        (Integer::from(n * 3u32), "longer than 768 bits"),
    ];
    for (modulus, because) in cases {
        numbers_are_blamed(modulus, Integer::from(4), Integer::from(9), because).await;
    }
}

#[tokio::test]
async fn a_modulus_that_shares_a_factor_with_a_peers_stops_everybody_and_the_peer_knows_whom_to_blame() {
    let honest = own(ROGUE.into());
    let shared = factors(0).0 * factors(ROGUE.into()).0;
    for modulus in [shared, own(0).crt.modulus().clone()] {
        let (s, t) = (Integer::from(&honest.s % &modulus), Integer::from(&honest.t % &modulus));
        let lies = Lies { numbers: Some((modulus, s, t)), ..Lies::default() };
        let results = outcome(lies, own(ROGUE.into())).await;
        assert_eq!(results[0].as_ref().unwrap_err().culprit(), Some(ROGUE));
        assert!(matches!(results[1], Err(MpcError::Unattributed { round: REVEAL, .. })), "{:?}", results[1]);
    }
}

#[tokio::test]
async fn bad_ring_pedersen_parameters_are_blamed_on_their_party() {
    let honest = own(ROGUE.into());
    let (n, s, t) = (honest.crt.modulus(), &honest.s, &honest.t);
    let p = &factors(ROGUE.into()).0;
    let last = Integer::from(n - 1u32);
    let cases = [
        (t.clone(), t.clone(), "s equals t"),
        (s.clone(), Integer::from(1), "s or t is"),
        (Integer::from(1), t.clone(), "s or t is"),
        (s.clone(), last.clone(), "s or t is"),
        (last, t.clone(), "s or t is"),
        (p.clone(), t.clone(), "coprime"),
        (s.clone(), p.clone(), "coprime"),
        (Integer::from(n - s), t.clone(), "Π_prm"),
        (Integer::from(s + 1u32), t.clone(), "Π_prm"),
        (s.clone(), Integer::from(n - t), "Π_prm"),
    ];
    for (s, t, because) in cases {
        numbers_are_blamed(n.clone(), s, t, because).await;
    }
}

#[tokio::test]
async fn a_proof_for_another_run_or_prover_is_blamed_on_its_party() {
    let other_run = Some(execution(2));
    let cases = [
        (Lies { prm_run: other_run, ..Lies::default() }, REVEAL, "Π_prm"),
        (Lies { prm_prover: Some(0), ..Lies::default() }, REVEAL, "Π_prm"),
        (Lies { proofs_run: other_run, ..Lies::default() }, PROOFS, "Π_mod"),
        (Lies { proofs_prover: Some(0), ..Lies::default() }, PROOFS, "Π_mod"),
    ];
    for (lies, round, because) in cases {
        is_blamed(lies, own(ROGUE.into()), round, because).await;
    }
}

#[tokio::test]
async fn a_proof_made_for_one_verifier_does_not_convince_another() {
    let lies = Lies { fac_verifier: Some(0), ..Lies::default() };
    let limits = Limits { round: Duration::from_secs(3), ..limits() };
    let results = outcome_within(limits, lies, own(ROGUE.into())).await;
    let Err(MpcError::PeerFault { party: ROGUE, round: PROOFS, what }) = &results[1] else {
        panic!("expected blame, got {:?}", results[1]);
    };
    assert!(what.contains("Π_fac"));
    assert!(matches!(results[0], Err(MpcError::Silent { .. } | MpcError::Closed)), "must not finish alone");
}

#[tokio::test]
async fn a_reveal_that_was_not_committed_to_is_blamed_on_its_party() {
    let lies = Lies { change_reveal: true, ..Lies::default() };
    is_blamed(lies, own(ROGUE.into()), REVEAL, "committed").await;
}

#[tokio::test]
async fn a_copy_of_a_peers_numbers_from_an_earlier_run_is_blamed_on_the_copier() {
    let victim = own(0);
    let claim = prm::Claim { execution_id: &execution(2), prover: 0, numbers: victim.numbers() };
    let proof = prm::prove(&compute(), claim, &victim.crt, &victim.lambda).await.unwrap();
    let reveal = RevealMessage::new(victim.numbers(), &proof, [3; 32], [4; 32]);
    let results = outcome(Lies { reveal: Some(reveal), ..Lies::default() }, own(ROGUE.into())).await;
    assert_eq!(results[0].as_ref().unwrap_err().culprit(), Some(ROGUE), "who made these numbers knows");
    assert!(results[1].is_err());
}
