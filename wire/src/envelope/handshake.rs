//! The exchange of hellos: everyone proves its identity, states the same view, and announces keys for this session alone.

use std::collections::BTreeMap;
use std::time::Duration;

use ed25519_dalek::{SigningKey, VerifyingKey};
use jiff::Timestamp;
use rand_core::{CryptoRng, RngCore};
use sha2::{Digest, Sha256};

use super::channel::{Channel, Peer};
use super::fault::{Fault, LocalFault, PeerFault, TransportFault};
use super::hello::{Hello, Introduction, SignedHello};
use super::seal::{self, KemPair};
use super::view::{Checkpoint, MAX_WITNESSED, SessionView, Witnessed};
use crate::frame::MAX_FRAME;
use crate::ids::{Digest32, PartyId};

const TRANSCRIPT_DOMAIN: &[u8] = b"casemate/transcript/v1";

/// What one party brings to a session besides the view.
#[derive(Debug, Clone)]
pub struct Local {
    /// This party.
    pub party: PartyId,
    /// Where its audit log stands.
    pub checkpoint: Checkpoint,
    /// What it has seen of the peers' logs.
    pub witnessed: Vec<Witnessed>,
    /// Whether every peer must attest itself.
    pub attest: bool,
    /// How far a peer's clock may be from the own one.
    pub clock_skew: Duration,
    /// Bounds on what a session may hold.
    pub limits: Limits,
}

/// Bounds on what a session may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest plain body of one message, in bytes.
    pub max_body: usize,
    /// How many bytes of one peer's signed messages are kept; a peer that sends more ends the session.
    pub max_kept: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_body: MAX_FRAME - 4096, max_kept: 8 * 1024 * 1024 }
    }
}

/// One party's side of the exchange.
///
/// # Security
/// The session keys exist in here (then in the [`Channel`]) and nowhere else, and are wiped on drop. The identities in
/// the view's roster must have been checked against this party's own pins before: the hello proves possession of the
/// key that the roster names, not that the roster names the right one.
pub struct Handshake {
    local: Local,
    position: u16,
    hello: Hello,
    to_sign: Vec<u8>,
    kem: KemPair,
    signing_key: SigningKey,
    /// By position; the own one is there once it is signed.
    accepted: Vec<Option<SignedHello>>,
}

impl Handshake {
    /// Makes the session keys and the own hello. `now` is the own wall clock.
    ///
    /// # Errors
    /// [`Fault::Local`] if the view is not whole for its type or does not contain this party.
    pub fn begin(
        view: SessionView,
        local: Local,
        now: Timestamp,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<Self, Fault> {
        let (position, _) = view.place_of(&local.party)?;
        let time = u64::try_from(now.as_millisecond()).map_err(|_| LocalFault::OutOfRange("the clock"))?;
        let kem = KemPair::generate(rng);
        let signing_key = SigningKey::generate(rng);
        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        let accepted = view.roster.members().iter().map(|_| None).collect();
        let hello = Hello {
            view,
            own: Introduction {
                party: local.party.clone(),
                kem_key: kem.public(),
                signing_key: signing_key.verifying_key().to_bytes(),
                nonce,
                time,
                checkpoint: local.checkpoint.clone(),
                witnessed: local.witnessed.clone(),
                attest: local.attest,
            },
        };
        let to_sign = hello.bytes()?;
        Ok(Self { local, position, hello, to_sign, kem, signing_key, accepted })
    }

    /// The bytes that the HSM's identity key signs, with ECDSA P-256 over their SHA-256.
    pub fn to_sign(&self) -> &[u8] {
        &self.to_sign
    }

    /// Completes the own hello with that signature (`r ‖ s`); it then goes to every peer.
    ///
    /// # Errors
    /// [`LocalFault::Identity`] if it does not verify under the identity that the roster names for this party: peers
    /// would refuse it, and blame the coordinator.
    pub fn signed(&mut self, signature: [u8; 64]) -> Result<SignedHello, Fault> {
        let (_, member) = self.hello.view.place_of(&self.local.party)?;
        if !member.identity.verifies(&self.to_sign, &signature) {
            return Err(LocalFault::Identity.into());
        }
        let signed = SignedHello { hello: Box::new(self.hello.clone()), signature };
        if let Some(place) = self.accepted.get_mut(usize::from(self.position)) {
            *place = Some(signed.clone());
        }
        Ok(signed)
    }

    /// Takes a peer's hello. `now` is the own wall clock.
    ///
    /// # Errors
    /// Names what is wrong and, where a signature proves it, who did it. The session must end then.
    pub fn accept(&mut self, signed: &SignedHello, now: Timestamp) -> Result<(), Fault> {
        let Hello { view, own } = signed.hello.as_ref();
        if view.session_id != self.hello.view.session_id {
            return Err(TransportFault::ForeignSession(view.session_id.to_string()).into());
        }
        if own.party == self.local.party {
            return Err(TransportFault::Reflected.into());
        }
        let place = self.hello.view.roster.position(&own.party).ok_or(TransportFault::UnknownSender)?;
        let member = self.hello.view.roster.member(place).ok_or(TransportFault::UnknownSender)?;
        if !member.identity.verifies(&signed.hello.bytes()?, &signed.signature) {
            return Err(TransportFault::BadSignature(own.party.clone()).into());
        }
        // From here on the peer itself stands behind every field.
        if let Some(earlier) = self.accepted.get(usize::from(place)).and_then(Option::as_ref) {
            return Err(if earlier.hello == signed.hello {
                TransportFault::Repeat(own.party.clone()).into()
            } else {
                Fault::peer(&own.party, PeerFault::TwoHellos)
            });
        }
        if let Some(field) = self.hello.view.difference(view) {
            return Err(Fault::Mismatch { party: own.party.clone(), field });
        }
        self.check_introduction(own, now)?;
        if let Some(slot) = self.accepted.get_mut(usize::from(place)) {
            *slot = Some(signed.clone());
        }
        Ok(())
    }

    /// The parties whose hello has not come: whom to name when time runs out.
    pub fn missing(&self) -> Vec<PartyId> {
        let members = self.hello.view.roster.members().iter();
        let absent = members.zip(&self.accepted).filter(|(_, accepted)| accepted.is_none());
        absent.map(|(member, _)| member.party_id.clone()).collect()
    }

    /// Opens the channel once every hello is there, the own one included.
    ///
    /// # Errors
    /// [`LocalFault::Unsigned`] or [`TransportFault::Missing`] if one is not; [`PeerFault::UnusableKey`] for an X25519
    /// key of low order.
    pub fn finish(mut self, rng: &mut (impl CryptoRng + RngCore)) -> Result<Channel, Fault> {
        let missing = self.missing();
        if missing.contains(&self.local.party) {
            return Err(LocalFault::Unsigned.into());
        }
        if !missing.is_empty() {
            return Err(TransportFault::Missing(missing).into());
        }
        let hellos: Vec<SignedHello> = std::mem::take(&mut self.accepted).into_iter().flatten().collect();
        let transcript = transcript(&hellos)?;
        let mut peers = Vec::with_capacity(hellos.len());
        for (position, hello) in (0u16..).zip(&hellos) {
            peers.push(if position == self.position {
                None
            } else {
                Some(self.peer(position, &hello.hello.own, &transcript, rng)?)
            });
        }
        Ok(Channel::new(
            self.hello.view,
            Digest32(transcript),
            self.position,
            (self.signing_key, self.kem),
            (hellos, peers),
            self.local.limits,
        ))
    }

    fn peer(
        &self,
        position: u16,
        own: &Introduction,
        transcript: &[u8; 32],
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<Peer, Fault> {
        let unusable = |what| Fault::peer(&own.party, PeerFault::UnusableKey(what));
        let key = VerifyingKey::from_bytes(&own.signing_key).map_err(|_| unusable("signing key"))?;
        let info = seal::info(transcript, self.position, position);
        let sealer = self.kem.to(&own.kem_key, &info, rng).map_err(|_| unusable("X25519 key"))?;
        Ok(Peer::new(own.party.clone(), key, own.kem_key, sealer))
    }

    /// Checks a peer's own fields, by themselves and against everyone heard so far.
    fn check_introduction(&self, own: &Introduction, now: Timestamp) -> Result<(), Fault> {
        let by_peer = |fault| Err(Fault::peer(&own.party, fault));
        let clock = u64::try_from(now.as_millisecond()).map_err(|_| LocalFault::OutOfRange("the clock"))?;
        let milliseconds = clock.abs_diff(own.time);
        if u128::from(milliseconds) > self.local.clock_skew.as_millis() {
            return Err(TransportFault::Clock { party: own.party.clone(), milliseconds }.into());
        }
        if !VerifyingKey::from_bytes(&own.signing_key).is_ok_and(|key| !key.is_weak()) {
            return by_peer(PeerFault::UnusableKey("signing key"));
        }
        if !own.checkpoint.is_possible() {
            return by_peer(PeerFault::BadCheckpoint);
        }
        if !self.is_witness(own) {
            return by_peer(PeerFault::BadWitness);
        }
        if let Some(field) = shared(&self.hello.own, own) {
            return by_peer(PeerFault::CopiedFromUs(field));
        }
        for earlier in self.accepted.iter().flatten().map(|signed| &signed.hello.own) {
            if let Some(field) = shared(earlier, own) {
                let (first, second) = (earlier.party.clone(), own.party.clone());
                return Err(Fault::Clash { first, second, field });
            }
        }
        Ok(())
    }
}

impl Handshake {
    /// Whether what a peer says it has witnessed is about other parties of this session, and no more than is of use.
    fn is_witness(&self, own: &Introduction) -> bool {
        let mut seen: BTreeMap<&PartyId, usize> = BTreeMap::new();
        own.witnessed.iter().all(|Witnessed { party, checkpoint }| {
            let other = *party != own.party && self.hello.view.roster.position(party).is_some();
            let count = seen.entry(party).or_default();
            *count = count.saturating_add(1);
            other && checkpoint.is_possible() && *count <= MAX_WITNESSED
        })
    }
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake").field("hello", &self.hello).finish_non_exhaustive()
    }
}

/// A value that two parties can only share if one copied it.
fn shared(one: &Introduction, other: &Introduction) -> Option<&'static str> {
    [
        ("X25519 key", one.kem_key == other.kem_key),
        ("signing key", one.signing_key == other.signing_key),
        ("nonce", one.nonce == other.nonce),
    ]
    .into_iter()
    .find_map(|(name, same)| same.then_some(name))
}

/// SHA-256 over all hellos in roster order, each with its length.
///
/// Signatures stay out: an ECDSA signature has a second valid form that anyone can compute, so with them in, the
/// coordinator could give two honest parties different transcripts for the same statements.
fn transcript(hellos: &[SignedHello]) -> Result<[u8; 32], LocalFault> {
    let mut hash = Sha256::new();
    hash.update(TRANSCRIPT_DOMAIN);
    hash.update((hellos.len() as u64).to_be_bytes());
    for signed in hellos {
        let bytes = signed.hello.bytes()?;
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    }
    Ok(hash.finalize().into())
}
