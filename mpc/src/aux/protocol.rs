//! The protocol (CGGMP, eprint 2021/060, "auxiliary info and key refresh", without the refresh): six rounds.
//!
//! | round | to all | to each |
//! |---|---|---|
//! | 1 | hash commitment to round 3 | |
//! | 2 | echo of round 1 | |
//! | 3 | N, s, t, Π_prm, randomness ρᵢ | |
//! | 4 | echo of rounds 1 to 3 | |
//! | 5 | Π_mod | Π_fac |
//! | 6 | echo of rounds 1 to 5 | |
//!
//! Echo in round 6 is sent only by who has accepted every proof, so whoever finishes knows that all others have
//! accepted its own numbers.

use std::sync::Arc;

use futures::future::{try_join, try_join_all};
use rand::RngCore;
use rand::rngs::OsRng;
use rug::Integer;
use serde_bytes::ByteArray;

use super::arith::{Crt, Secret, random_below, random_unit};
use super::hashing::LabelledHash;
use super::info::AuxInfo;
use super::messages::{BlumMessage, CommitMessage, FactorsMessage, Reveal, RevealMessage};
use super::numbers::{NumbersFault, PartyNumbers, check_composite, check_parties, check_party};
use super::spread::spread;
use super::{blum, factors, prm};
use crate::codec;
use crate::compute::Compute;
use crate::error::{ExecutionId, MpcError};
use crate::io::{Kind, Limits, Wiring};
use crate::levels::Level;
use crate::primes::PrimePair;
use crate::roll_call::Slot;
use crate::round_io::RoundIo;

pub(crate) const COMMIT: u16 = 1;
pub(crate) const COMMIT_ECHO: u16 = 2;
pub(crate) const REVEAL: u16 = 3;
pub(crate) const REVEAL_ECHO: u16 = 4;
pub(crate) const PROOFS: u16 = 5;
pub(crate) const PROOFS_ECHO: u16 = 6;

pub(crate) const PLAN: [Slot; 7] = [
    (COMMIT, Kind::Broadcast),
    (COMMIT_ECHO, Kind::Broadcast),
    (REVEAL, Kind::Broadcast),
    (REVEAL_ECHO, Kind::Broadcast),
    (PROOFS, Kind::Broadcast),
    (PROOFS, Kind::Direct),
    (PROOFS_ECHO, Kind::Broadcast),
];

/// What one party brings to a run.
pub struct AuxSetup {
    /// Names the run; never used before.
    pub execution_id: ExecutionId,
    /// This party's position in the committee.
    pub index: u16,
    /// The committee's size.
    pub parties: u16,
    /// This party's primes, used up by the run.
    pub primes: PrimePair,
}

/// Makes a committee's auxiliary information; about a second of one core, and one more for each peer.
///
/// Nothing of the result may become active before all parties have confirmed, by signatures, that they hold the same
/// [`AuxInfo::transcript_digest`]: the last round's messages can be kept from one party while the others finish.
///
/// # Errors
/// [`MpcError::PeerFault`] names the party whose numbers or proofs are wrong, [`MpcError::Unattributed`] where
/// broadcasts differ, [`MpcError::Silent`] who did not send in time, [`MpcError::Invalid`] wrong own inputs.
pub async fn generate<L: Level>(
    setup: AuxSetup,
    limits: Limits,
    wiring: Wiring,
    compute: &Compute,
) -> Result<AuxInfo<L>, MpcError> {
    let AuxSetup { execution_id, index, parties, primes } = setup;
    let mut io = RoundIo::new(index, parties, &PLAN, limits, wiring)?;
    let own = OwnNumbers::new::<L>(primes, compute).await?;
    run(execution_id, own, &mut io, compute).await
}

/// This party's numbers and what it alone knows of them.
pub(crate) struct OwnNumbers {
    pub(crate) primes: PrimePair,
    pub(crate) crt: Arc<Crt>,
    pub(crate) s: Integer,
    pub(crate) t: Integer,
    pub(crate) lambda: Secret,
}

impl OwnNumbers {
    async fn new<L: Level>(primes: PrimePair, compute: &Compute) -> Result<Self, MpcError> {
        if primes.bits() != L::PRIME_BITS {
            let what = format!("primes of {} bits where {} are required", primes.bits(), L::PRIME_BITS);
            return Err(MpcError::invalid(what));
        }
        let own = compute.run(move || Self::derive(primes)).await?;
        check_party::<L>(own.numbers()).map_err(|why| MpcError::invalid(format!("own primes do not serve: {why}")))?;
        Ok(own)
    }

    /// t is a random square and s a random power of it.
    pub(crate) fn derive(primes: PrimePair) -> Self {
        let crt = Arc::new(Crt::new(&primes));
        let lambda = Secret(random_below(&crt.phi().0, &mut OsRng));
        let t = random_unit(crt.modulus(), &mut OsRng).square() % crt.modulus();
        let s = crt.pow(&t, &crt.exponent(&lambda.0));
        Self { primes, crt, s, t, lambda }
    }

    pub(crate) fn numbers(&self) -> PartyNumbers<'_> {
        PartyNumbers { modulus: self.crt.modulus(), s: &self.s, t: &self.t }
    }
}

/// The rounds, with numbers that are this party's own.
pub(crate) async fn run<L: Level>(
    execution_id: ExecutionId,
    own: OwnNumbers,
    io: &mut RoundIo,
    compute: &Compute,
) -> Result<AuxInfo<L>, MpcError> {
    let claim = prm::Claim { execution_id: &execution_id, prover: io.me(), numbers: own.numbers() };
    let proof = prm::prove(compute, claim, &own.crt, &own.lambda).await?;
    let reveal = RevealMessage::new(own.numbers(), &proof, random_bytes(), random_bytes());
    let own_commitment = commitment(&execution_id, io.me(), io.parties(), &reveal)?;
    io.broadcast(COMMIT, &own_commitment).await?;
    let commitments: Vec<(u16, CommitMessage)> = io.collect(COMMIT, Kind::Broadcast).await?;
    io.echo(COMMIT_ECHO, &execution_id).await?;

    io.broadcast(REVEAL, &reveal).await?;
    let revealed: Vec<(u16, RevealMessage)> = io.collect(REVEAL, Kind::Broadcast).await?;
    for ((party, promised), (_, message)) in commitments.iter().zip(&revealed) {
        if commitment(&execution_id, *party, io.parties(), message)? != *promised {
            return Err(MpcError::peer(*party, REVEAL, "the message is not what the party committed to in round 1"));
        }
    }
    let peers = accept_numbers::<L>(&execution_id, &own, &revealed, io, compute).await?;
    io.echo(REVEAL_ECHO, &execution_id).await?;

    let binding = Binding::new(&execution_id, &reveal, &revealed, io);
    exchange_proofs::<L>(&binding, &own, &peers, io, compute).await?;
    io.echo(PROOFS_ECHO, &execution_id).await?;

    let digest = io.broadcast_digest(&execution_id);
    let peers = peers.into_iter().map(|(_, reveal)| (reveal.modulus, reveal.s, reveal.t));
    AuxInfo::assemble(&own, io.me(), peers, digest)
}

/// Reads and checks the peers' numbers and their Π_prm before anything else is computed with them.
async fn accept_numbers<L: Level>(
    execution_id: &ExecutionId,
    own: &OwnNumbers,
    revealed: &[(u16, RevealMessage)],
    io: &RoundIo,
    compute: &Compute,
) -> Result<Vec<(u16, Reveal)>, MpcError> {
    let mut peers = Vec::new();
    for (party, message) in revealed {
        let reveal = message.read::<L>().map_err(|why| MpcError::peer(*party, REVEAL, why.to_string()))?;
        peers.push((*party, reveal));
    }
    let me = io.me();
    let mut parties: Vec<_> =
        peers.iter().map(|(_, peer)| (peer.modulus.clone(), peer.s.clone(), peer.t.clone())).collect();
    parties.insert(usize::from(me), (own.crt.modulus().clone(), own.s.clone(), own.t.clone()));
    let committee_holds = compute
        .run(move || check_parties::<L>(parties.iter().map(|(modulus, s, t)| PartyNumbers { modulus, s, t })))
        .await?;
    committee_holds.map_err(|fault| blame(fault, me))?;
    let moduli = peers.iter().map(|(party, peer)| (*party, peer.modulus.clone())).collect();
    let composite =
        |(party, modulus): (u16, Integer)| check_composite(&modulus).map_err(|why| NumbersFault::Party { party, why });
    for verdict in spread(compute, moduli, 1, composite).await? {
        verdict.map_err(|fault| blame(fault, me))?;
    }

    try_join_all(peers.iter().map(|(party, peer)| async move {
        let claim = prm::Claim { execution_id, prover: *party, numbers: peer.numbers() };
        let verdict = prm::verify(compute, claim, peer.proof.clone()).await?;
        verdict.map_err(|why| MpcError::peer(*party, REVEAL, why.to_string()))
    }))
    .await?;
    Ok(peers)
}

/// Two moduli that share a factor tell who is at fault only where one of them is one's own.
fn blame(fault: NumbersFault, me: u16) -> MpcError {
    match fault {
        NumbersFault::Party { party, .. } if party != me => MpcError::peer(party, REVEAL, fault.to_string()),
        NumbersFault::Party { .. } => MpcError::invalid(fault.to_string()),
        NumbersFault::SharedFactor { first, second } if first == me => {
            MpcError::peer(second, REVEAL, fault.to_string())
        }
        NumbersFault::SharedFactor { first, second } if second == me => {
            MpcError::peer(first, REVEAL, fault.to_string())
        }
        NumbersFault::SharedFactor { .. } => MpcError::unattributed(REVEAL, fault.to_string()),
    }
}

/// Makes and sends this party's Π_mod and Π_fac, and verifies those of all peers.
async fn exchange_proofs<L: Level>(
    binding: &Binding,
    own: &OwnNumbers,
    peers: &[(u16, Reveal)],
    io: &mut RoundIo,
    compute: &Compute,
) -> Result<(), MpcError> {
    let me = io.me();
    let factors_proofs = try_join_all(peers.iter().map(|(party, peer)| {
        let (context, crt, aux) =
            (binding.factors(me, *party), Arc::clone(&own.crt), factors::public_aux(peer.numbers()));
        async move { compute.run(move || factors::prove::<L>(context, &crt, &aux)).await? }
    }));
    let (blum_proof, factors_proofs) =
        try_join(blum::prove(compute, binding.blum(me), &own.crt), factors_proofs).await?;
    io.broadcast(PROOFS, &BlumMessage::new(&blum_proof)).await?;
    for ((party, _), proof) in peers.iter().zip(&factors_proofs) {
        io.send(PROOFS, *party, &FactorsMessage::new(proof)).await?;
    }

    let blum_messages: Vec<(u16, BlumMessage)> = io.collect(PROOFS, Kind::Broadcast).await?;
    let factors_messages: Vec<(u16, FactorsMessage)> = io.collect(PROOFS, Kind::Direct).await?;
    let own_aux = Arc::new(factors::public_aux(own.numbers()));
    let received = peers.iter().zip(blum_messages).zip(factors_messages);
    try_join_all(received.map(|(((party, peer), (_, blum_message)), (_, factors_message))| {
        let (party, own_aux, modulus) = (*party, Arc::clone(&own_aux), peer.modulus.clone());
        async move {
            let faulty = |why: String| MpcError::peer(party, PROOFS, why);
            let blum_proof = blum_message.read::<L>().map_err(|why| faulty(why.to_string()))?;
            let factors_proof = factors_message.read::<L>().map_err(|why| faulty(why.to_string()))?;
            let blum_holds = blum::verify(compute, binding.blum(party), &modulus, blum_proof).await?;
            blum_holds.map_err(|why| faulty(why.to_string()))?;
            let context = binding.factors(party, me);
            let factors_hold =
                compute.run(move || factors::verify::<L>(context, &own_aux, &modulus, &factors_proof)).await?;
            factors_hold.map_err(|why| faulty(why.to_string()))
        }
    }))
    .await?;
    Ok(())
}

/// What the proofs of round 5 are bound to: the run, everything broadcast before, and all parties' joint randomness.
pub(crate) struct Binding {
    execution_id: ExecutionId,
    digest: [u8; 32],
    rho: [u8; 32],
}

impl Binding {
    pub(crate) fn new(
        execution_id: &ExecutionId,
        own: &RevealMessage,
        peers: &[(u16, RevealMessage)],
        io: &RoundIo,
    ) -> Self {
        let rho = peers.iter().map(|(_, peer)| peer).fold(own.rho.into_array(), |mut joint, peer| {
            joint.iter_mut().zip(peer.rho.iter()).for_each(|(byte, other)| *byte ^= other);
            joint
        });
        Self { execution_id: *execution_id, digest: io.broadcast_digest(execution_id), rho }
    }

    pub(crate) fn blum(&self, prover: u16) -> [u8; 32] {
        self.hash("casemate/aux/mod/context/v1").party(prover).finish()
    }

    pub(crate) fn factors(&self, prover: u16, verifier: u16) -> [u8; 32] {
        self.hash("casemate/aux/fac/context/v1").party(prover).party(verifier).finish()
    }

    fn hash(&self, label: &str) -> LabelledHash {
        LabelledHash::new(label).bytes(self.execution_id.as_bytes()).bytes(&self.digest).bytes(&self.rho)
    }
}

pub(crate) fn commitment(
    execution_id: &ExecutionId,
    party: u16,
    parties: u16,
    reveal: &RevealMessage,
) -> Result<CommitMessage, MpcError> {
    let encoded = codec::encode(reveal).map_err(|_| MpcError::Internal { step: "encoding a message" })?;
    let hash = LabelledHash::new("casemate/aux/commitment/v1")
        .bytes(execution_id.as_bytes())
        .party(parties)
        .party(party)
        .bytes(&encoded)
        .finish();
    Ok(CommitMessage { commitment: ByteArray::new(hash) })
}

fn random_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    bytes
}
