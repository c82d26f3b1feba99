//! What one dealer makes, and how everybody judges it.

use cggmp21::generic_ec::{Point, SecretScalar};
use rand::RngCore;
use rand::rngs::OsRng;
use serde_bytes::ByteArray;

use super::messages::{EvaluationMessage, RevealMessage};
use super::polynomial::{Commitments, Polynomial};
use super::protocol::REVEAL;
use super::schnorr::Claim;
use super::seats::{Dealer, Seats};
use crate::aux::hashing::LabelledHash;
use crate::codec;
use crate::ecdsa::Curve;
use crate::ecdsa::public::{compressed, read_point};
use crate::error::MpcError;

/// The secret that a dealer proves knowledge of.
const DEALT: &str = "dealt share";

/// This party's own dealing. Its evaluations are secret, and wiped when dropped.
pub(super) struct Dealing {
    pub(super) commitments: Commitments,
    pub(super) reveal: RevealMessage,
    /// By the receivers' positions.
    pub(super) evaluations: Vec<SecretScalar<Curve>>,
}

impl Dealing {
    /// Deals `secret` to the new committee by a random polynomial.
    pub(super) fn new(seats: &Seats, secret: SecretScalar<Curve>) -> Self {
        Self::of(seats, &Polynomial::random(secret, seats.new_t, &mut OsRng))
    }

    /// Deals by this polynomial.
    pub(super) fn of(seats: &Seats, polynomial: &Polynomial) -> Self {
        let commitments = polynomial.commit();
        let constant = commitments.constant();
        let proof = claim(seats, seats.me, &constant).prove(&polynomial.constant(), &mut OsRng);
        let mut nonce = [0; 32];
        OsRng.fill_bytes(&mut nonce);
        let coefficients = commitments.points().iter().map(|point| ByteArray::new(compressed(point))).collect();
        let reveal = RevealMessage { coefficients, proof, nonce: ByteArray::new(nonce) };
        let evaluations = (0..seats.new_n).map(|index| polynomial.evaluate(index)).collect();
        Self { commitments, reveal, evaluations }
    }

    /// What goes to the party at `position`: its evaluation, if it receives one.
    pub(super) fn evaluation_for(&self, position: u16) -> Option<EvaluationMessage> {
        self.evaluations.get(usize::from(position)).map(EvaluationMessage::new)
    }
}

/// The hash by which the dealer at `position` commits to what it will reveal; hidden by the nonce in it.
pub(super) fn commitment(seats: &Seats, position: u16, reveal: &RevealMessage) -> Result<ByteArray<32>, MpcError> {
    let encoded = codec::encode(reveal).map_err(|_| MpcError::Internal { step: "encoding a message" })?;
    let hash = LabelledHash::new("casemate/reshare/commitment/v1").bytes(&seats.inputs).party(position).bytes(&encoded);
    Ok(ByteArray::new(hash.finish()))
}

/// Judges what a dealer has revealed: as committed, of the right degree, of its old share and no other secret, and known
/// to it. Gives its commitments.
///
/// # Errors
/// [`MpcError::PeerFault`] of the dealer with what is wrong.
pub(super) fn judge(
    seats: &Seats,
    dealer: Dealer,
    committed: ByteArray<32>,
    reveal: &RevealMessage,
) -> Result<Commitments, MpcError> {
    let faulty = |what: &'static str| MpcError::peer(dealer.position, REVEAL, what);
    if commitment(seats, dealer.position, reveal)? != committed {
        return Err(faulty("the message is not what the party committed to in round 1"));
    }
    if reveal.coefficients.len() != usize::from(seats.new_t) {
        return Err(faulty("the commitment to its polynomial has the wrong degree"));
    }
    let points = reveal.coefficients.iter().map(|point| read_point(point)).collect::<Option<Vec<_>>>();
    let points = points.ok_or_else(|| faulty("a commitment is no point, or not canonically encoded"))?;
    let commitments = Commitments::new(points.into_iter());
    let old = seats.old.public_share(dealer.old_index);
    let old = old.ok_or(MpcError::Internal { step: "looking a dealer's public share up" })?;
    let constant = commitments.constant();
    if seats.lambda(dealer)? * old != constant {
        return Err(faulty("it deals another secret than its old share"));
    }
    if !claim(seats, dealer.position, &constant).holds(&reveal.proof) {
        return Err(faulty("its proof of knowledge of what it deals does not verify"));
    }
    Ok(commitments)
}

/// Reads the evaluation that a dealer with these commitments has sent to this party.
///
/// # Errors
/// [`MpcError::PeerFault`] of the dealer with what is wrong.
pub(super) fn receive(
    seats: &Seats,
    dealer: Dealer,
    commitments: &Commitments,
    message: &EvaluationMessage,
) -> Result<SecretScalar<Curve>, MpcError> {
    let faulty = |what: &'static str| MpcError::peer(dealer.position, REVEAL, what);
    let evaluation =
        message.read().ok_or_else(|| faulty("the evaluation that it dealt is not below the group order"))?;
    if Point::generator() * &evaluation != commitments.evaluate(seats.me) {
        return Err(faulty("the evaluation that it dealt does not fit its commitment"));
    }
    Ok(evaluation)
}

fn claim<'a>(seats: &'a Seats, prover: u16, statement: &'a Point<Curve>) -> Claim<'a> {
    Claim { label: DEALT, context: &seats.inputs, prover, statement }
}
