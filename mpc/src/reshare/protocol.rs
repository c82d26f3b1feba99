//! The protocol: six rounds.
//!
//! | round | to all | to each |
//! |---|---|---|
//! | 1 | digest of the inputs; a dealer: hash commitment to round 3 | |
//! | 2 | echo of round 1 | |
//! | 3 | a dealer: Feldman commitments, proof of knowledge of λᵢ·xᵢ | a dealer, to a receiver: evaluation |
//! | 4 | echo of rounds 1 to 3 | |
//! | 5 | a receiver: proof of knowledge of its new share | |
//! | 6 | echo of rounds 1 to 5 | |
//!
//! The echo in round 4 is sent only by who has accepted every dealing, its own evaluations included, and the echo in
//! round 6 only by who has accepted every proof: whoever finishes knows that each receiver holds its share.
//!
//! All computing is some `n·t` point multiplications, a few milliseconds, so none of it leaves the session's thread.

use cggmp21::generic_ec::{NonZero, Point, SecretScalar};
use rand::rngs::OsRng;
use serde_bytes::ByteArray;

use super::Resharing;
use super::dealing::{self, Dealing};
use super::messages::{CommitMessage, EvaluationMessage, KnowledgeMessage, RevealMessage};
use super::polynomial::{Commitments, add_secret};
use super::schnorr::Claim;
use super::seats::{ReshareParams, Seats};
use crate::ecdsa::public::{PublicPoint, compressed};
use crate::ecdsa::{Curve, DkgShare};
use crate::error::MpcError;
use crate::io::{Kind, Limits, Wiring};
use crate::levels::Level;
use crate::roll_call::Slot;
use crate::round_io::RoundIo;

pub(super) const COMMIT: u16 = 1;
pub(super) const COMMIT_ECHO: u16 = 2;
pub(super) const REVEAL: u16 = 3;
pub(super) const REVEAL_ECHO: u16 = 4;
pub(super) const KNOWLEDGE: u16 = 5;
pub(super) const KNOWLEDGE_ECHO: u16 = 6;

pub(super) const PLAN: [Slot; 7] = [
    (COMMIT, Kind::Broadcast),
    (COMMIT_ECHO, Kind::Broadcast),
    (REVEAL, Kind::Broadcast),
    (REVEAL, Kind::Direct),
    (REVEAL_ECHO, Kind::Broadcast),
    (KNOWLEDGE, Kind::Broadcast),
    (KNOWLEDGE_ECHO, Kind::Broadcast),
];

/// The secret that a receiver proves knowledge of.
const NEW_SHARE: &str = "new share";

/// Deals a key's shares anew; milliseconds of computing. See [`Resharing`] for what must happen before the result counts.
///
/// # Errors
/// [`MpcError::PeerFault`] names the dealer whose dealing, or the receiver whose proof, is wrong;
/// [`MpcError::Unattributed`] where broadcasts or the parties' inputs differ, [`MpcError::Silent`] who did not send in
/// time, [`MpcError::Invalid`] wrong own inputs. Then there is no new share, and the old one is as good as before.
pub async fn redistribute<L: Level>(
    params: ReshareParams<L>,
    limits: Limits,
    wiring: Wiring,
) -> Result<Resharing, MpcError> {
    let (seats, secret) = Seats::take(params)?;
    let mut io = RoundIo::new(seats.me, seats.parties(), &PLAN, limits, wiring)?;
    let dealing = secret.map(|secret| Dealing::new(&seats, secret));
    run(&seats, dealing, &mut io).await
}

/// The rounds, with this party's own dealing.
pub(super) async fn run(seats: &Seats, dealing: Option<Dealing>, io: &mut RoundIo) -> Result<Resharing, MpcError> {
    let commitments = commit(seats, dealing.as_ref(), io).await?;
    let dealt = reveal(seats, dealing, &commitments, io).await?;
    io.echo(REVEAL_ECHO, &seats.execution_id).await?;

    let outcome = dealt.conclude(seats)?;
    prove_shares(seats, &outcome, io).await?;
    io.echo(KNOWLEDGE_ECHO, &seats.execution_id).await?;

    let Outcome { public_shares, share, .. } = outcome;
    Ok(Resharing {
        share,
        public_shares: public_shares.iter().map(|share| compressed(share)).collect(),
        transcript_digest: io.broadcast_digest(&seats.execution_id),
    })
}

/// Rounds 1 and 2: all agree on what the session is about, and the dealers commit. Gives the peers' commitments.
async fn commit(
    seats: &Seats,
    dealing: Option<&Dealing>,
    io: &mut RoundIo,
) -> Result<Vec<Option<ByteArray<32>>>, MpcError> {
    let own = dealing.map(|dealing| dealing::commitment(seats, seats.me, &dealing.reveal)).transpose()?;
    io.broadcast(COMMIT, &CommitMessage { inputs: ByteArray::new(seats.inputs), commitment: own }).await?;
    let messages: Vec<(u16, CommitMessage)> = io.collect(COMMIT, Kind::Broadcast).await?;
    let mut commitments = Vec::new();
    for (party, message) in messages {
        // Either may be the one with the wrong inputs.
        if *message.inputs != seats.inputs {
            let what = format!("party {party} takes the key, the dealers or the new committee to be others");
            return Err(MpcError::unattributed(COMMIT, what));
        }
        fits_role(party, COMMIT, message.commitment.is_some(), seats.dealer(party).is_some())?;
        commitments.push(message.commitment);
    }
    io.echo(COMMIT_ECHO, &seats.execution_id).await?;
    Ok(commitments)
}

/// What this party has got of all dealings, its own included.
struct Dealt {
    /// Sum of all dealers' commitments.
    commitments: Option<Commitments>,
    /// Sum of all evaluations for this party.
    share: SecretScalar<Curve>,
}

impl Dealt {
    fn add(&mut self, commitments: &Commitments, evaluation: Option<&SecretScalar<Curve>>) {
        self.commitments = Some(match &self.commitments {
            Some(sum) => sum.add(commitments),
            None => commitments.clone(),
        });
        if let Some(evaluation) = evaluation {
            self.share = add_secret(&self.share, evaluation);
        }
    }

    /// Adds the new shares up, and checks them as a whole.
    fn conclude(self, seats: &Seats) -> Result<Outcome, MpcError> {
        let failed = |what: String| MpcError::unattributed(REVEAL, what);
        let commitments = self.commitments.ok_or(MpcError::Internal { step: "adding the dealings up" })?;
        if *seats.old.key() != commitments.constant() {
            return Err(failed("the dealt shares do not add up to the key".into()));
        }
        let public_shares: Vec<PublicPoint> = (0..seats.new_n)
            .map(|index| NonZero::from_point(commitments.evaluate(index)))
            .collect::<Option<_>>()
            .ok_or_else(|| failed("a new share is zero".into()))?;
        let key_info = seats
            .old
            .with_shares(seats.new_t, public_shares.clone())
            .map_err(|why| failed(format!("the new shares do not fit together: {why}")))?;
        if !seats.receives(seats.me) {
            return Ok(Outcome { public_shares, secret: None, share: None });
        }
        let secret = NonZero::from_secret_scalar(self.share).ok_or_else(|| failed("a new share is zero".into()))?;
        let share = DkgShare::from_redistribution(seats.me, key_info, secret.clone())
            .map_err(|why| failed(format!("this party's new share does not fit: {why}")))?;
        Ok(Outcome { public_shares, secret: Some(secret), share: Some(share) })
    }
}

/// The new shares, not yet confirmed.
struct Outcome {
    public_shares: Vec<PublicPoint>,
    secret: Option<NonZero<SecretScalar<Curve>>>,
    share: Option<DkgShare>,
}

/// Round 3: the dealers deal, and everybody judges. `commitments` are those of the peers, ascending.
async fn reveal(
    seats: &Seats,
    dealing: Option<Dealing>,
    commitments: &[Option<ByteArray<32>>],
    io: &mut RoundIo,
) -> Result<Dealt, MpcError> {
    io.broadcast(REVEAL, &dealing.as_ref().map(|dealing| &dealing.reveal)).await?;
    for peer in io.peers() {
        let evaluation = dealing.as_ref().and_then(|dealing| dealing.evaluation_for(peer));
        io.send(REVEAL, peer, &evaluation).await?;
    }
    let reveals: Vec<(u16, Option<RevealMessage>)> = io.collect(REVEAL, Kind::Broadcast).await?;
    let evaluations: Vec<(u16, Option<EvaluationMessage>)> = io.collect(REVEAL, Kind::Direct).await?;

    let mut dealt = Dealt { commitments: None, share: SecretScalar::zero() };
    if let Some(own) = dealing {
        dealt.add(&own.commitments, own.evaluations.get(usize::from(seats.me)));
    }
    for (((party, reveal), (_, evaluation)), committed) in reveals.iter().zip(&evaluations).zip(commitments) {
        let dealer = seats.dealer(*party);
        fits_role(*party, REVEAL, reveal.is_some(), dealer.is_some())?;
        fits_role(*party, REVEAL, evaluation.is_some(), dealer.is_some() && seats.receives(seats.me))?;
        let (Some(dealer), Some(reveal), Some(committed)) = (dealer, reveal, committed) else {
            continue;
        };
        let commitments = dealing::judge(seats, dealer, *committed, reveal)?;
        let evaluation = evaluation.as_ref().map(|message| dealing::receive(seats, dealer, &commitments, message));
        dealt.add(&commitments, evaluation.transpose()?.as_ref());
    }
    Ok(dealt)
}

/// Round 5: the receivers prove that they know their new shares.
async fn prove_shares(seats: &Seats, outcome: &Outcome, io: &mut RoundIo) -> Result<(), MpcError> {
    let context = io.broadcast_digest(&seats.execution_id);
    let claim = |prover, statement| Claim { label: NEW_SHARE, context: &context, prover, statement };
    let public_share =
        |party: u16| -> Option<&Point<Curve>> { outcome.public_shares.get(usize::from(party)).map(AsRef::as_ref) };
    let own = match (public_share(seats.me), &outcome.secret) {
        (Some(statement), Some(secret)) => {
            let secret: &SecretScalar<Curve> = secret.as_ref();
            Some(KnowledgeMessage { proof: claim(seats.me, statement).prove(secret, &mut OsRng) })
        }
        _ => None,
    };
    io.broadcast(KNOWLEDGE, &own).await?;
    let messages: Vec<(u16, Option<KnowledgeMessage>)> = io.collect(KNOWLEDGE, Kind::Broadcast).await?;
    for (party, message) in messages {
        fits_role(party, KNOWLEDGE, message.is_some(), seats.receives(party))?;
        let (Some(statement), Some(KnowledgeMessage { proof })) = (public_share(party), message) else {
            continue;
        };
        if !claim(party, statement).holds(&proof) {
            let what = "its proof of knowledge of its new share does not verify";
            return Err(MpcError::peer(party, KNOWLEDGE, what));
        }
    }
    Ok(())
}

/// A party sends a payload exactly where it has a part in the step.
fn fits_role(party: u16, round: u16, sent: bool, expected: bool) -> Result<(), MpcError> {
    match (sent, expected) {
        (true, false) => Err(MpcError::peer(party, round, "a payload from a party that has no part in this step")),
        (false, true) => Err(MpcError::peer(party, round, "an empty message where a payload is due")),
        (true, true) | (false, false) => Ok(()),
    }
}
