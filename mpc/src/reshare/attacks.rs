//! Dishonest dealers and receivers among honest ones: every honest party that can tell stops and names the cheater, and
//! nobody gets a share.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::time::Duration;

use cggmp21::generic_ec::{Point, Scalar, SecretScalar};
use rand::rngs::OsRng;
use serde_bytes::ByteArray;

use super::Resharing;
use super::dealing::{self, Dealing};
use super::messages::{CommitMessage, EvaluationMessage, KnowledgeMessage, RevealMessage};
use super::old_key::OldKey;
use super::polynomial::Polynomial;
use super::protocol::{COMMIT, COMMIT_ECHO, KNOWLEDGE, KNOWLEDGE_ECHO, PLAN, REVEAL, REVEAL_ECHO, run};
use super::schnorr::Claim;
use super::seats::{Dealer, Seats};
use crate::aux::fixtures::network;
use crate::ecdsa::Curve;
use crate::ecdsa::public::compressed;
use crate::error::{ExecutionId, MpcError};
use crate::io::{Kind, Limits, Wiring};
use crate::round_io::RoundIo;

const ID: ExecutionId = ExecutionId::new([3; 32]);
/// Position of the dishonest party, a dealer and receiver.
const ROGUE: u16 = 1;

/// A key's old shares, all in one hand.
pub(super) struct OldShares {
    polynomial: Polynomial,
    t: u16,
    n: u16,
}

impl OldShares {
    pub(super) fn deal(t: u16, n: u16) -> Self {
        Self { polynomial: Polynomial::random(SecretScalar::random(&mut OsRng), t, &mut OsRng), t, n }
    }

    pub(super) fn facts(&self) -> OldKey {
        let public = self.polynomial.commit();
        let shares: Vec<_> = (0..self.n).map(|index| compressed(&public.evaluate(index))).collect();
        OldKey::new(&compressed(&public.constant()), [7; 32], self.t, 4, &shares).unwrap()
    }

    fn seats(&self, me: u16, dealers: &[(u16, u16)], new_t: u16, new_n: u16) -> Seats {
        let dealers = dealers.iter().map(|(position, old_index)| Dealer { position: *position, old_index: *old_index });
        Seats::new(ID, me, dealers.collect(), self.facts(), new_t, new_n).unwrap()
    }

    /// What the first dealer of a refresh reveals.
    pub(super) fn reveal(&self) -> RevealMessage {
        let dealers: Vec<_> = (0..self.t).map(|index| (index, index)).collect();
        let seats = self.seats(0, &dealers, self.t, self.n);
        Dealing::new(&seats, self.secret(&seats).unwrap()).reveal
    }

    /// What the party with these seats deals, if it does.
    fn secret(&self, seats: &Seats) -> Option<SecretScalar<Curve>> {
        let dealer = seats.dealer(seats.me)?;
        Some(seats.dealt_secret(dealer, &self.polynomial.evaluate(dealer.old_index)).unwrap())
    }
}

/// The rounds as the party with these seats sees them, within limits that no test should reach.
fn io(seats: &Seats, wiring: Wiring) -> RoundIo {
    io_within(Duration::from_secs(60), seats, wiring)
}

fn io_within(round: Duration, seats: &Seats, wiring: Wiring) -> RoundIo {
    let limits = Limits { round, ..Limits::reshare(seats.parties()) };
    RoundIo::new(seats.me, seats.parties(), &PLAN, limits, wiring).unwrap()
}

/// What the dishonest party does otherwise.
struct Lies {
    /// Deals this instead.
    dealing: Dealing,
    /// Adds one to the evaluation for this receiver.
    wrong_for: Option<u16>,
    /// Reveals this instead of what it committed to.
    reveal: Option<RevealMessage>,
    /// Proves knowledge of its new share for this prover.
    knowledge_prover: u16,
    /// Proves knowledge of a secret that is not its share.
    ignorant: bool,
}

impl Lies {
    fn none(seats: &Seats, secret: SecretScalar<Curve>) -> Self {
        let dealing = Dealing::new(seats, secret);
        Self { dealing, wrong_for: None, reveal: None, knowledge_prover: ROGUE, ignorant: false }
    }
}

/// Plays the protocol as the dishonest party; honest but for its lies, and careless about others' messages.
async fn play_rogue(seats: &Seats, lies: Lies, mut io: RoundIo) -> Result<(), MpcError> {
    let Lies { dealing, wrong_for, reveal, knowledge_prover, ignorant } = lies;
    let commitment = Some(dealing::commitment(seats, ROGUE, &dealing.reveal)?);
    io.broadcast(COMMIT, &CommitMessage { inputs: ByteArray::new(seats.inputs), commitment }).await?;
    let _: Vec<(u16, CommitMessage)> = io.collect(COMMIT, Kind::Broadcast).await?;
    io.echo(COMMIT_ECHO, &ID).await?;

    io.broadcast(REVEAL, &Some(reveal.unwrap_or_else(|| dealing.reveal.clone()))).await?;
    for peer in io.peers() {
        let evaluation = dealing.evaluations.get(usize::from(peer)).map(|evaluation| {
            let lie = if wrong_for == Some(peer) { Scalar::one() } else { Scalar::zero() };
            EvaluationMessage::new(&SecretScalar::new(&mut (lie + evaluation)))
        });
        io.send(REVEAL, peer, &evaluation).await?;
    }
    let _: Vec<(u16, Option<RevealMessage>)> = io.collect(REVEAL, Kind::Broadcast).await?;
    let evaluations: Vec<(u16, Option<EvaluationMessage>)> = io.collect(REVEAL, Kind::Direct).await?;
    io.echo(REVEAL_ECHO, &ID).await?;

    let own = dealing.evaluations[usize::from(ROGUE)].clone();
    let others = evaluations.iter().filter_map(|(_, message)| message.as_ref()?.read());
    let mut sum = others.fold(Scalar::zero() + &own, |sum, evaluation| sum + &evaluation);
    let statement = Point::generator() * sum;
    if ignorant {
        sum += Scalar::one();
    }
    let context = io.broadcast_digest(&ID);
    let claim = Claim { label: "new share", context: &context, prover: knowledge_prover, statement: &statement };
    let proof = claim.prove(&SecretScalar::new(&mut sum), &mut OsRng);
    io.broadcast(KNOWLEDGE, &Some(KnowledgeMessage { proof })).await?;
    let _: Vec<(u16, Option<KnowledgeMessage>)> = io.collect(KNOWLEDGE, Kind::Broadcast).await?;
    io.echo(KNOWLEDGE_ECHO, &ID).await
}

/// Refreshes 2-of-3, dealt by parties 0 and 1 of which 1 lies; what parties 0 and 2 get.
async fn outcomes(lie: impl FnOnce(&Seats, SecretScalar<Curve>) -> Lies) -> [Result<Resharing, MpcError>; 2] {
    outcomes_within(Duration::from_secs(60), lie).await
}

async fn outcomes_within(
    round: Duration,
    lie: impl FnOnce(&Seats, SecretScalar<Curve>) -> Lies,
) -> [Result<Resharing, MpcError>; 2] {
    let old = OldShares::deal(2, 3);
    let [first, rogue, last] = [0, 1, 2].map(|me| old.seats(me, &[(0, 0), (1, 1)], 2, 3));
    let lies = lie(&rogue, old.secret(&rogue).unwrap());
    let mut wirings = network(3).into_iter();
    let mut open = |seats: &Seats| io_within(round, seats, wirings.next().unwrap());
    let (mut first_io, rogue_io, mut last_io) = (open(&first), open(&rogue), open(&last));
    let dealing = old.secret(&first).map(|secret| Dealing::new(&first, secret));
    let honest_dealer = async {
        let outcome = run(&first, dealing, &mut first_io).await;
        drop(first_io);
        outcome
    };
    let honest_receiver = async {
        let outcome = run(&last, None, &mut last_io).await;
        drop(last_io);
        outcome
    };
    let (a, _, b) = tokio::join!(honest_dealer, play_rogue(&rogue, lies, rogue_io), honest_receiver);
    [a, b]
}

fn assert_blamed(outcome: &Result<Resharing, MpcError>, in_round: u16, because: &str) {
    match outcome {
        Err(MpcError::PeerFault { party: ROGUE, round, what }) if *round == in_round => {
            assert!(what.contains(because), "blamed for {what:?} and not for {because:?}");
        }
        other => panic!("expected blame for {because:?}, got {other:?}"),
    }
}

async fn all_blame(in_round: u16, because: &str, lie: impl FnOnce(&Seats, SecretScalar<Curve>) -> Lies) {
    for outcome in outcomes(lie).await {
        assert_blamed(&outcome, in_round, because);
    }
}

/// Deals by a polynomial of its own making, with everything else consistent.
fn dealing_by(seats: &Seats, secret: SecretScalar<Curve>, polynomial: &Polynomial) -> Lies {
    Lies { dealing: Dealing::of(seats, polynomial), ..Lies::none(seats, secret) }
}

#[tokio::test]
async fn without_lies_everybody_finishes_with_the_same_digest() {
    let [a, b] = outcomes(Lies::none).await.map(Result::unwrap);
    assert_eq!(a.transcript_digest, b.transcript_digest);
    assert_eq!(a.public_shares, b.public_shares);
}

#[tokio::test]
async fn a_dealer_of_another_secret_is_named_by_all() {
    all_blame(REVEAL, "another secret", |seats, secret| {
        let other = Polynomial::random(SecretScalar::random(&mut OsRng), 2, &mut OsRng);
        dealing_by(seats, secret, &other)
    })
    .await;
    all_blame(REVEAL, "another secret", |seats, secret| {
        let negative = SecretScalar::new(&mut (Scalar::zero() - &secret));
        dealing_by(seats, secret, &Polynomial::random(negative, 2, &mut OsRng))
    })
    .await;
}

#[tokio::test]
async fn a_dealer_of_another_degree_is_named_by_all() {
    for count in [1, 3, 4] {
        all_blame(REVEAL, "wrong degree", |seats, secret| {
            let polynomial = Polynomial::random(secret.clone(), count, &mut OsRng);
            dealing_by(seats, secret, &polynomial)
        })
        .await;
    }
}

#[tokio::test]
async fn a_leading_coefficient_of_zero_is_named_by_all() {
    all_blame(REVEAL, "no point", |seats, secret| {
        let flat = Polynomial::of(vec![secret.clone(), SecretScalar::zero()]);
        dealing_by(seats, secret, &flat)
    })
    .await;
}

#[tokio::test]
async fn an_evaluation_wrong_for_one_receiver_is_named_by_it_and_nobody_finishes() {
    let lie = |seats: &Seats, secret| Lies { wrong_for: Some(2), ..Lies::none(seats, secret) };
    let [dealer, receiver] = outcomes_within(Duration::from_secs(3), lie).await;
    assert_blamed(&receiver, REVEAL, "does not fit its commitment");
    assert!(matches!(dealer, Err(MpcError::Silent { .. } | MpcError::Closed)), "must not finish alone: {dealer:?}");
}

#[tokio::test]
async fn a_reveal_that_was_not_committed_to_is_named_by_all() {
    all_blame(REVEAL, "committed", |seats, secret| {
        let other = Dealing::new(seats, secret.clone()).reveal;
        Lies { reveal: Some(other), ..Lies::none(seats, secret) }
    })
    .await;
}

#[tokio::test]
async fn a_proof_in_anothers_name_is_named_by_all() {
    all_blame(REVEAL, "proof of knowledge", |seats, secret| {
        let mut lies = Lies::none(seats, secret.clone());
        let constant = lies.dealing.commitments.constant();
        let claim = Claim { label: "dealt share", context: &seats.inputs, prover: 0, statement: &constant };
        lies.dealing.reveal.proof = claim.prove(&secret, &mut OsRng);
        lies
    })
    .await;
    all_blame(KNOWLEDGE, "proof of knowledge", |seats, secret| Lies {
        knowledge_prover: 0,
        ..Lies::none(seats, secret)
    })
    .await;
}

#[tokio::test]
async fn who_does_not_know_its_new_share_is_named_by_all() {
    all_blame(KNOWLEDGE, "proof of knowledge", |seats, secret| Lies { ignorant: true, ..Lies::none(seats, secret) })
        .await;
}

/// All dealers together can make a polynomial of too low a degree, though they gain nothing: they know the key.
#[tokio::test]
async fn dealers_that_collude_to_lower_the_threshold_leave_nobody_a_share() {
    let old = OldShares::deal(2, 3);
    let slope = SecretScalar::random(&mut OsRng);
    let mut runs = Vec::new();
    for (me, wiring) in (0..3).zip(network(3)) {
        let seats = old.seats(me, &[(0, 0), (1, 1)], 2, 3);
        let slope = match me {
            0 => slope.clone(),
            _ => SecretScalar::new(&mut (Scalar::zero() - &slope)),
        };
        let secret = old.secret(&seats);
        runs.push(async move {
            let dealing = secret.map(|secret| Dealing::of(&seats, &Polynomial::of(vec![secret, slope])));
            run(&seats, dealing, &mut io(&seats, wiring)).await
        });
    }
    for outcome in futures::future::join_all(runs).await {
        let Err(MpcError::Unattributed { what, .. }) = outcome else { panic!("{outcome:?}") };
        assert!(what.contains("threshold is larger"), "{what}");
    }
}

#[tokio::test]
async fn parties_that_start_from_different_keys_stop_before_anything_is_dealt() {
    let (old, other) = (OldShares::deal(2, 3), OldShares::deal(2, 3));
    let mut runs = Vec::new();
    for (me, wiring) in (0..3).zip(network(3)) {
        let old = if me == 2 { &other } else { &old };
        let seats = old.seats(me, &[(0, 0), (1, 1)], 2, 3);
        let dealing = old.secret(&seats).map(|secret| Dealing::new(&seats, secret));
        runs.push(async move { run(&seats, dealing, &mut io(&seats, wiring)).await });
    }
    for outcome in futures::future::join_all(runs).await {
        assert!(matches!(&outcome, Err(MpcError::Unattributed { round: COMMIT, .. })), "{outcome:?}");
    }
}

#[test]
fn seats_that_do_not_fit_are_refused() {
    let old = OldShares::deal(2, 3);
    let refused = |me, dealers: &[(u16, u16)], new_t, new_n| {
        let dealers = dealers.iter().map(|(position, old_index)| Dealer { position: *position, old_index: *old_index });
        matches!(Seats::new(ID, me, dealers.collect(), old.facts(), new_t, new_n), Err(MpcError::Invalid(_)))
    };
    assert!(!refused(0, &[(0, 0), (1, 1)], 2, 3));
    assert!(!refused(4, &[(4, 0), (3, 2)], 2, 3), "two that leave");
    assert!(refused(0, &[(0, 0)], 2, 3), "too few dealers");
    assert!(refused(0, &[(0, 0), (1, 1), (2, 2)], 2, 3), "too many dealers");
    assert!(refused(0, &[(0, 1), (1, 0)], 2, 3), "not ascending");
    assert!(refused(0, &[(0, 1), (1, 1)], 2, 3), "one share twice");
    assert!(refused(0, &[(0, 0), (0, 1)], 2, 3), "one position twice");
    assert!(refused(0, &[(0, 0), (1, 3)], 2, 3), "an unknown share");
    assert!(refused(0, &[(0, 0), (4, 1)], 2, 3), "a gap behind the committee");
    assert!(refused(3, &[(0, 0), (1, 1)], 2, 3), "a position outside");
    assert!(refused(0, &[(0, 0), (1, 1)], 1, 3), "a threshold of one");
    assert!(refused(0, &[(0, 0), (1, 1)], 4, 3), "a threshold beyond the committee");
    assert!(refused(0, &[(u16::MAX, 0), (1, 1)], 2, u16::MAX), "too many parties");
}
