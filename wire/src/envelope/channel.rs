//! The channel of one party in one session: every message signed, numbered and bound to the transcript.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::Serialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::fault::{Fault, LocalFault, PeerFault, TransportFault};
use super::handshake::Limits;
use super::hello::{Introduction, SignedHello};
use super::message::{Content, Header, SignedMessage, To};
use super::seal::{self, KemPair, Opener, Sealer};
use super::view::SessionView;
use crate::ids::{Digest32, PartyId};

const EXECUTION_DOMAIN: &[u8] = b"casemate/execution/v1";
/// AES-GCM's tag.
const SEAL_OVERHEAD: usize = 16;
/// What a kept message costs besides its body, so that empty ones are bounded too.
const KEPT_OVERHEAD: usize = 512;

/// A message that its sender has really sent, to us, in this session, as the next of its lane.
pub struct Opened {
    /// The sender's position in the roster.
    pub from: u16,
    /// Whether it went to all parties.
    pub broadcast: bool,
    /// The protocol round.
    pub round: u16,
    /// The plain body.
    pub body: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { from, broadcast, round, body } = self;
        write!(f, "Opened {{ from: {from}, broadcast: {broadcast}, round: {round}, body: <{} bytes> }}", body.len())
    }
}

/// What peers have signed in this session, for showing a fault to others.
#[derive(Debug, Serialize)]
pub struct Evidence<'a> {
    /// Every party's hello, in roster order.
    pub hellos: &'a [SignedHello],
    /// Every message that was accepted, then those that contradict one of them.
    pub messages: Vec<&'a SignedMessage>,
}

/// Everything known of one peer.
pub(super) struct Peer {
    party: PartyId,
    key: VerifyingKey,
    kem_key: [u8; 32],
    sealer: Sealer,
    sent: u32,
    opener: Option<Opener>,
    to_all: Vec<SignedMessage>,
    to_us: Vec<SignedMessage>,
    contradiction: Option<SignedMessage>,
    kept: usize,
}

impl Peer {
    pub(super) fn new(party: PartyId, key: VerifyingKey, kem_key: [u8; 32], sealer: Sealer) -> Self {
        Self {
            party,
            key,
            kem_key,
            sealer,
            sent: 0,
            opener: None,
            to_all: Vec::new(),
            to_us: Vec::new(),
            contradiction: None,
            kept: 0,
        }
    }
}

/// One party's end of the session.
///
/// # Security
/// It holds the session keys, which are wiped on drop, and is neither `Clone` nor `Serialize`. After any [`Fault`] the
/// session must end; the fault itself has changed nothing.
pub struct Channel {
    view: SessionView,
    transcript: Digest32,
    position: u16,
    signing_key: SigningKey,
    kem: KemPair,
    hellos: Vec<SignedHello>,
    /// By position; `None` at the own one.
    peers: Vec<Option<Peer>>,
    sent_to_all: u32,
    limits: Limits,
}

impl Channel {
    pub(super) fn new(
        view: SessionView,
        transcript: Digest32,
        position: u16,
        (signing_key, kem): (SigningKey, KemPair),
        (hellos, peers): (Vec<SignedHello>, Vec<Option<Peer>>),
        limits: Limits,
    ) -> Self {
        Self { view, transcript, position, signing_key, kem, hellos, peers, sent_to_all: 0, limits }
    }

    /// What all parties agreed on.
    pub fn view(&self) -> &SessionView {
        &self.view
    }

    /// The own position in the roster.
    pub fn position(&self) -> u16 {
        self.position
    }

    /// The hash of all hellos.
    pub fn transcript(&self) -> Digest32 {
        self.transcript
    }

    /// The execution id of one protocol phase: SHA-256 of domain, phase (with its length) and transcript.
    ///
    /// Use a phase name once in a session: the protocol itself has no replay protection between equal ids.
    pub fn execution_id(&self, phase: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(EXECUTION_DOMAIN);
        hash.update((phase.len() as u64).to_be_bytes());
        hash.update(phase);
        hash.update(self.transcript.0);
        hash.finalize().into()
    }

    /// What each party said of itself in its hello, in roster order, the own one included.
    pub fn introductions(&self) -> impl Iterator<Item = &Introduction> {
        self.hellos.iter().map(|signed| &signed.hello.own)
    }

    /// What peers have signed so far.
    pub fn evidence(&self) -> Evidence<'_> {
        let peers = || self.peers.iter().flatten();
        let accepted = peers().flat_map(|peer| peer.to_all.iter().chain(&peer.to_us));
        let messages = accepted.chain(peers().filter_map(|peer| peer.contradiction.as_ref())).collect();
        Evidence { hellos: &self.hellos, messages }
    }

    /// Signs a message; a body for one party is sealed to it. The result must be sent, in order: its number is taken.
    ///
    /// # Errors
    /// [`Fault::Local`] for a recipient that is none, a body over the limit, or a lane without numbers left.
    pub fn seal(&mut self, to: To, round: u16, body: &[u8]) -> Result<SignedMessage, Fault> {
        let limit = self.limits.max_body;
        if body.len() > limit {
            return Err(LocalFault::TooLarge { found: body.len(), limit }.into());
        }
        let (seq, body, encapsulated) = match to {
            To::All => (take_number(&mut self.sent_to_all)?, body.to_vec(), None),
            To::Party(position) => {
                let peer = self.peers.get_mut(usize::from(position)).and_then(Option::as_mut);
                let peer = peer.ok_or(LocalFault::NoSuchRecipient(position))?;
                let seq = take_number(&mut peer.sent)?;
                let session = &self.view.session_id;
                let header = Header { session, from: self.position, to: position, round, seq }.bytes()?;
                let sealed = peer.sealer.seal(body, &header);
                let (body, encapsulated) = sealed.map_err(|e| LocalFault::Sealing(e.to_string()))?;
                (seq, body, encapsulated)
            }
        };
        let content = Content {
            session: self.view.session_id.clone(),
            transcript: self.transcript,
            from: self.position,
            to,
            round,
            seq,
            encapsulated,
            body,
        };
        let signature = self.signing_key.sign(&content.bytes()?).to_bytes();
        Ok(SignedMessage { content, signature })
    }

    /// Verifies a message and opens its body.
    ///
    /// # Errors
    /// Names what is wrong and, where a signature proves it, who did it. The session must end then.
    pub fn open(&mut self, message: &SignedMessage) -> Result<Opened, Fault> {
        let content = &message.content;
        self.check_address(content)?;
        let (transcript, limit) = (self.transcript, self.limits.max_kept);
        let peer = self.peers.get_mut(usize::from(content.from)).and_then(Option::as_mut);
        let peer = peer.ok_or(TransportFault::UnknownSender)?;
        let signature = Signature::from_bytes(&message.signature);
        if peer.key.verify_strict(&content.bytes()?, &signature).is_err() {
            return Err(TransportFault::BadSignature(peer.party.clone()).into());
        }
        // From here on the peer itself stands behind every field.
        if content.transcript != transcript {
            return Err(TransportFault::WrongTranscript(peer.party.clone()).into());
        }
        peer.check_order(message)?;
        let cost = content.body.len().saturating_add(KEPT_OVERHEAD);
        if peer.kept.saturating_add(cost) > limit {
            return Err(Fault::peer(&peer.party, PeerFault::Flood { limit }));
        }
        let body = peer.body(content, self.position, &self.kem)?;
        peer.kept = peer.kept.saturating_add(cost);
        let lane = if content.to == To::All { &mut peer.to_all } else { &mut peer.to_us };
        lane.push(message.clone());
        Ok(Opened { from: content.from, broadcast: content.to == To::All, round: content.round, body })
    }

    /// What can be refused before any arithmetic.
    fn check_address(&self, content: &Content) -> Result<(), TransportFault> {
        if content.session != self.view.session_id {
            return Err(TransportFault::ForeignSession(content.session.to_string()));
        }
        if content.from == self.position {
            return Err(TransportFault::Reflected);
        }
        if !matches!(content.to, To::All) && content.to != To::Party(self.position) {
            return Err(TransportFault::WrongRecipient);
        }
        let limit = self.limits.max_body.saturating_add(SEAL_OVERHEAD);
        if content.body.len() > limit {
            return Err(TransportFault::Oversized { found: content.body.len(), limit });
        }
        Ok(())
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("session", &self.view.session_id)
            .field("transcript", &self.transcript)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl Peer {
    /// Checks that a validly signed message is the next of its lane.
    fn check_order(&mut self, message: &SignedMessage) -> Result<(), Fault> {
        let content = &message.content;
        let lane = if content.to == To::All { &self.to_all } else { &self.to_us };
        let found = content.seq;
        let place = usize::try_from(found).unwrap_or(usize::MAX);
        if let Some(earlier) = lane.get(place) {
            if earlier.content == *content {
                return Err(TransportFault::Repeat(self.party.clone()).into());
            }
            self.contradiction = Some(message.clone());
            return Err(Fault::peer(&self.party, PeerFault::Contradiction { seq: found }));
        }
        if place != lane.len() {
            let expected = u32::try_from(lane.len()).unwrap_or(u32::MAX);
            return Err(TransportFault::Gap { from: self.party.clone(), expected, found }.into());
        }
        Ok(())
    }

    /// The plain body of a validly signed message that is next in its lane.
    fn body(&mut self, content: &Content, own: u16, kem: &KemPair) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let faulty = |fault| Fault::peer(&self.party, fault);
        let sealed = content.to != To::All;
        if content.encapsulated.is_some() != (sealed && content.seq == 0) {
            return Err(faulty(PeerFault::Misplaced));
        }
        if !sealed {
            return Ok(Zeroizing::new(content.body.clone()));
        }
        let (from, round, seq) = (content.from, content.round, content.seq);
        let header = Header { session: &content.session, from, to: own, round, seq }.bytes()?;
        let unopenable = |_| faulty(PeerFault::Unopenable);
        if let Some(encapsulated) = &content.encapsulated {
            let info = seal::info(&content.transcript.0, from, own);
            let mut opener = kem.from(&self.kem_key, encapsulated, &info).map_err(unopenable)?;
            let body = opener.open(&content.body, &header).map_err(unopenable)?;
            self.opener = Some(opener);
            return Ok(body);
        }
        let opener = self.opener.as_mut().ok_or_else(|| Fault::peer(&self.party, PeerFault::Misplaced))?;
        opener.open(&content.body, &header).map_err(|_| Fault::peer(&self.party, PeerFault::Unopenable))
    }
}

/// Takes the next number of a lane.
fn take_number(next: &mut u32) -> Result<u32, LocalFault> {
    let taken = *next;
    *next = taken.checked_add(1).ok_or(LocalFault::OutOfRange("a lane's number"))?;
    Ok(taken)
}
