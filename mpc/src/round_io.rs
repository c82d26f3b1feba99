//! Rounds, limits and reliable broadcast for the protocols that are written here.

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::codec::{self, Caps, MAX_DEPTH};
use crate::error::{ExecutionId, MpcError};
use crate::io::{Inbound, Kind, Limits, Outbound, Recipient, Wiring};
use crate::roll_call::{RollCall, Slot};

/// The rounds of one protocol run, seen from one party.
///
/// A body is the CBOR array `[round, payload]`. The plan, fixed at the start, lists the slots in which every party sends
/// exactly one message; anything else is refused as the sender's fault before its payload is decoded.
pub struct RoundIo {
    me: u16,
    parties: u16,
    limits: Limits,
    wiring: Wiring,
    roll: RollCall,
    waiting: BTreeMap<(Slot, u16), Vec<u8>>,
    own_broadcasts: BTreeMap<u16, Vec<u8>>,
    broadcasts: BTreeMap<u16, [u8; 32]>,
}

/// What [`RoundIo::echo`] sends.
#[derive(Serialize, Deserialize)]
struct Echo {
    #[serde(with = "serde_bytes")]
    digest: Vec<u8>,
}

impl RoundIo {
    /// Opens the rounds of a protocol for the party at position `me` of `parties`.
    ///
    /// # Errors
    /// [`MpcError::Invalid`] unless there are at least two parties and `me` is one of them.
    pub fn new(me: u16, parties: u16, plan: &[Slot], limits: Limits, wiring: Wiring) -> Result<Self, MpcError> {
        if parties < 2 || me >= parties {
            return Err(MpcError::invalid(format!("position {me} in a session of {parties} parties")));
        }
        Ok(Self {
            me,
            parties,
            limits,
            wiring,
            roll: RollCall::new(me, parties, plan),
            waiting: BTreeMap::new(),
            own_broadcasts: BTreeMap::new(),
            broadcasts: BTreeMap::new(),
        })
    }

    /// This party's position.
    pub fn me(&self) -> u16 {
        self.me
    }

    /// The number of parties.
    pub fn parties(&self) -> u16 {
        self.parties
    }

    /// Positions of the other parties, ascending.
    pub fn peers(&self) -> impl Iterator<Item = u16> + use<> {
        let me = self.me;
        (0..self.parties).filter(move |party| *party != me)
    }

    /// Sends this party's broadcast of `round`.
    ///
    /// # Errors
    /// [`MpcError::Closed`] if the session is gone.
    pub async fn broadcast<T: Serialize>(&mut self, round: u16, payload: &T) -> Result<(), MpcError> {
        let body = wrap(round, payload)?;
        self.own_broadcasts.insert(round, body.clone());
        self.post(Recipient::All, round, body).await
    }

    /// Sends this party's direct message of `round` to `party`.
    ///
    /// # Errors
    /// [`MpcError::Closed`] if the session is gone.
    pub async fn send<T: Serialize>(&mut self, round: u16, party: u16, payload: &T) -> Result<(), MpcError> {
        let body = wrap(round, payload)?;
        self.post(Recipient::One(party), round, body).await
    }

    /// Waits for all peers' messages of a slot; returns them with their senders, ascending. Broadcasts that are
    /// collected become part of [`broadcast_digest`](Self::broadcast_digest).
    ///
    /// # Errors
    /// [`MpcError::Silent`] names who has not sent within the round's limit; [`MpcError::PeerFault`] who has sent
    /// something that is no message of the protocol.
    pub async fn collect<T>(&mut self, round: u16, kind: Kind) -> Result<Vec<(u16, T)>, MpcError>
    where
        T: Serialize + DeserializeOwned,
    {
        let slot = (round, kind);
        let deadline = Instant::now() + self.limits.round;
        while !self.roll.missing(slot).is_empty() {
            match tokio::time::timeout_at(deadline, self.wiring.incoming.recv()).await {
                Ok(Some(message)) => self.accept(message)?,
                Ok(None) => return Err(MpcError::Closed),
                Err(_) => {
                    return Err(MpcError::Silent { parties: self.roll.missing(slot), round });
                }
            }
        }
        let bodies: Vec<(u16, Vec<u8>)> =
            self.peers().filter_map(|party| Some((party, self.waiting.remove(&(slot, party))?))).collect();
        if kind == Kind::Broadcast {
            self.record_broadcasts(round, &bodies);
        }
        let caps = Caps { body: self.limits.max_body, string: self.limits.max_body };
        bodies
            .into_iter()
            .map(|(party, body)| match codec::decode::<(u16, T)>(&body, caps) {
                Ok((_, payload)) => Ok((party, payload)),
                Err(error) => Err(MpcError::peer(party, round, error.to_string())),
            })
            .collect()
    }

    /// Makes the broadcasts collected so far reliable: all parties send each other the digest of everything broadcast,
    /// and any difference ends the session. Takes one broadcast slot, `round`.
    ///
    /// # Errors
    /// [`MpcError::Unattributed`] on a difference: it may lie with the sender of a broadcast or of an echo.
    pub async fn echo(&mut self, round: u16, execution_id: &ExecutionId) -> Result<(), MpcError> {
        let digest = self.broadcast_digest(execution_id);
        self.broadcast(round, &Echo { digest: digest.to_vec() }).await?;
        let echoes: Vec<(u16, Echo)> = self.collect(round, Kind::Broadcast).await?;
        if echoes.iter().any(|(_, echo)| echo.digest != digest) {
            return Err(MpcError::unattributed(round, "the parties have received different broadcasts"));
        }
        Ok(())
    }

    /// SHA-256 over the execution id and all broadcasts collected so far, this party's own included; the same at every
    /// party that has collected the same rounds.
    pub fn broadcast_digest(&self, execution_id: &ExecutionId) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"casemate/mpc/broadcasts/v1");
        hash.update(execution_id.as_bytes());
        for (round, digest) in &self.broadcasts {
            hash.update(round.to_be_bytes());
            hash.update(digest);
        }
        hash.finalize().into()
    }

    async fn post(&mut self, to: Recipient, round: u16, body: Vec<u8>) -> Result<(), MpcError> {
        self.wiring.outgoing.send(Outbound { to, round, body }).await.map_err(|_| MpcError::Closed)
    }

    fn accept(&mut self, message: Inbound) -> Result<(), MpcError> {
        let Inbound { from, broadcast, body } = message;
        self.roll.admit(from)?;
        if body.len() > self.limits.max_body {
            let what = format!("a body of {} bytes, more than the {} allowed", body.len(), self.limits.max_body);
            return Err(MpcError::peer(from, 0, what));
        }
        let (round, _): (u16, IgnoredAny) = ciborium::de::from_reader_with_recursion_limit(body.as_slice(), MAX_DEPTH)
            .map_err(|_| MpcError::peer(from, 0, "the body is not a message of this protocol"))?;
        let slot = (round, if broadcast { Kind::Broadcast } else { Kind::Direct });
        self.roll.mark(from, slot)?;
        self.waiting.insert((slot, from), body);
        Ok(())
    }

    fn record_broadcasts(&mut self, round: u16, peers: &[(u16, Vec<u8>)]) {
        let own = (self.me, self.own_broadcasts.remove(&round).unwrap_or_default());
        let before = peers.iter().filter(|(party, _)| *party < self.me);
        let after = peers.iter().filter(|(party, _)| *party > self.me);
        let mut hash = Sha256::new();
        for (party, body) in before.chain(std::iter::once(&own)).chain(after) {
            hash.update(party.to_be_bytes());
            hash.update((body.len() as u64).to_be_bytes());
            hash.update(body);
        }
        self.broadcasts.insert(round, hash.finalize().into());
    }
}

fn wrap<T: Serialize>(round: u16, payload: &T) -> Result<Vec<u8>, MpcError> {
    codec::encode(&(round, payload)).map_err(|_| MpcError::Internal { step: "encoding a message" })
}
