//! One session's stream: the hello exchange, then signed messages, sorted into the phases of a protocol.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use casemate_hsm::KeyPurpose;
use casemate_mpc::{ExecutionId, Inbound, Limits, MpcError, Outbound, Recipient, Session, Wiring};
use casemate_wire::envelope::{Channel, Handshake, Local, Opened, SessionView, SignedMessage, To};
use casemate_wire::frame::Frame;
use casemate_wire::{Code, PartyId, Roster};
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Failure, Stream};
use crate::vault::Vault;

/// Messages that may wait for the protocol, or for a later phase.
const PHASE_QUEUE: usize = 512;
/// Messages that one peer may send before this party has all hellos: its first round, and no more.
const EARLY_A_PEER: usize = 4;
/// The longest wait for all hellos, and for one message each in an exchange.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(30);

/// What a closed stream may mean.
const CLOSED: &str = "the message stream was closed while the session ran: another party failed and the coordinator gave \
                      up, or the connection broke";

/// The phases of a session, in order. A message's phase stands in the high byte of its round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Where each party's audit log stands.
    Witness = 1,
    /// What each party has already.
    Opening = 2,
    /// Auxiliary information.
    Aux = 3,
    /// Distributed key generation.
    Dkg = 4,
    /// New shares of a key are dealt.
    Deal = 5,
    /// The last confirmation.
    Confirm = 6,
    /// The dealers that leave sign the new epoch's certificate.
    Endorse = 7,
    /// Signing.
    Sign = 8,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Witness => "witness",
            Self::Opening => "opening",
            Self::Aux => "aux",
            Self::Dkg => "dkg",
            Self::Deal => "deal",
            Self::Confirm => "confirm",
            Self::Endorse => "endorse",
            Self::Sign => "sign",
        }
    }

    fn round(self, round: u16) -> u16 {
        u16::from_be_bytes([self as u8, round.to_be_bytes()[1]])
    }

    fn of(round: u16) -> u8 {
        round.to_be_bytes()[0]
    }
}

/// An attached stream with an open channel.
pub(crate) struct Link {
    stream: Stream,
    channel: Channel,
    later: VecDeque<Opened>,
    round: Arc<AtomicU16>,
    broadcasts: Vec<[u8; 32]>,
}

impl Link {
    /// Exchanges hellos: sends the own one, signed by the HSM, and checks everybody else's.
    ///
    /// # Errors
    /// Names who was silent, or what is wrong with a hello.
    pub(crate) async fn open(
        mut stream: Stream,
        view: SessionView,
        local: Local,
        hsm: &Vault,
        round: Arc<AtomicU16>,
    ) -> Result<Self, (Stream, Failure)> {
        match Self::greet(&mut stream, view, local, hsm).await {
            Ok((channel, early)) => {
                let mut broadcasts = Vec::new();
                for opened in early.iter().filter(|opened| opened.broadcast) {
                    note(&mut broadcasts, opened.from, opened.round, &opened.body);
                }
                Ok(Self { stream, channel, later: early, round, broadcasts })
            }
            Err(failure) => Err((stream, failure)),
        }
    }

    async fn greet(
        stream: &mut Stream,
        view: SessionView,
        local: Local,
        hsm: &Vault,
    ) -> Result<(Channel, VecDeque<Opened>), Failure> {
        let deadline = Instant::now() + EXCHANGE_LIMIT;
        let most_early = usize::from(view.roster.size()) * EARLY_A_PEER;
        let mut handshake = Handshake::begin(view, local, jiff::Timestamp::now(), &mut OsRng)?;
        let signature = hsm.sign(KeyPurpose::Identity, handshake.to_sign()).await?;
        let hello = handshake.signed(signature)?;
        send(stream, Frame::Hello(hello)).await?;
        // A peer that has all hellos may send its first messages before we have them all.
        let mut early: Vec<SignedMessage> = Vec::new();
        while !handshake.missing().is_empty() {
            let frame = timeout_at(deadline, stream.next()).await;
            match frame.map_err(|_| silent(&handshake.missing(), "hello"))?? {
                Some(Ok(Frame::Hello(hello))) => handshake.accept(&hello, jiff::Timestamp::now())?,
                Some(Ok(Frame::Message(message))) if early.len() < most_early => early.push(message),
                other => return Err(unexpected(other)),
            }
        }
        let mut channel = handshake.finish(&mut OsRng)?;
        let early = early.iter().map(|message| channel.open(message)).collect::<Result<_, _>>()?;
        Ok((channel, early))
    }

    /// The open channel.
    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The execution id of a phase.
    pub(crate) fn execution_id(&self, phase: Phase) -> ExecutionId {
        ExecutionId::new(self.channel.execution_id(phase.name()))
    }

    /// Whether the session may go on.
    ///
    /// # Errors
    /// Its share was withdrawn.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.stream.withdrawal.check()
    }

    /// The own position.
    pub(crate) fn position(&self) -> u16 {
        self.channel.position()
    }

    /// The session's parties.
    pub(crate) fn roster(&self) -> &Roster {
        &self.channel.view().roster
    }

    /// SHA-256 over the hellos and every broadcast so far, in an order that all parties share.
    pub(crate) fn transcript(&self) -> [u8; 32] {
        let mut sorted = self.broadcasts.clone();
        sorted.sort_unstable();
        let mut hash = Sha256::new();
        hash.update(b"casemate/session-transcript/v1");
        hash.update(self.channel.transcript().0);
        for broadcast in sorted {
            hash.update(broadcast);
        }
        hash.finalize().into()
    }

    /// Runs one phase of a protocol: carries its messages until it ends.
    ///
    /// # Errors
    /// What the protocol says, or what is wrong with the stream.
    pub(crate) async fn drive<T>(
        &mut self,
        phase: Phase,
        limits: Limits,
        start: impl FnOnce(Wiring, Limits) -> Session<T>,
    ) -> Result<T, Failure> {
        let (to_protocol, incoming) = mpsc::channel(PHASE_QUEUE);
        let (outgoing, mut from_protocol) = mpsc::channel(PHASE_QUEUE);
        let session = start(Wiring { incoming, outgoing }, limits);
        tokio::pin!(session);
        for opened in self.take_kept(phase) {
            pass(&to_protocol, &opened)?;
        }
        let ended = loop {
            tokio::select! {
                ended = &mut session => break ended,
                Some(message) = from_protocol.recv() => self.send(phase, message).await?,
                opened = self.receive() => {
                    let opened = opened?;
                    match Place::of(&opened, phase) {
                        Place::Now => pass(&to_protocol, &opened)?,
                        Place::Later => self.keep(opened)?,
                        Place::Over => {}
                    }
                }
            }
        };
        let result = ended.map_err(|error: MpcError| Failure::from_mpc(&error, self.roster()))?;
        while let Ok(message) = from_protocol.try_recv() {
            self.send(phase, message).await?;
        }
        Ok(result)
    }

    /// Sends one body to all and collects one from each; returns them by position, the own one included.
    ///
    /// # Errors
    /// Names who was silent.
    pub(crate) async fn exchange(&mut self, phase: Phase, body: Vec<u8>) -> Result<Vec<Vec<u8>>, Failure> {
        let deadline = Instant::now() + EXCHANGE_LIMIT;
        let mut bodies: Vec<Option<Vec<u8>>> = vec![None; usize::from(self.roster().size())];
        if let Some(own) = bodies.get_mut(usize::from(self.position())) {
            *own = Some(body.clone());
        }
        self.send(phase, Outbound { to: Recipient::All, round: 1, body }).await?;
        let mut kept = self.take_kept(phase);
        while bodies.iter().any(Option::is_none) {
            let opened = if let Some(opened) = kept.pop_front() {
                opened
            } else {
                let received = timeout_at(deadline, self.receive()).await;
                received.map_err(|_| silent(&self.absent(&bodies), phase.name()))??
            };
            match Place::of(&opened, phase) {
                Place::Later => self.keep(opened)?,
                Place::Over => {}
                Place::Now => {
                    let slot = bodies.get_mut(usize::from(opened.from));
                    match slot {
                        Some(slot @ None) if opened.broadcast => *slot = Some(opened.body.to_vec()),
                        _ => {
                            let what = format!("it sent another {} message than one to all", phase.name());
                            return Err(Failure::by(self.roster(), opened.from, &what));
                        }
                    }
                }
            }
        }
        Ok(bodies.into_iter().flatten().collect())
    }

    /// Gives the stream back for its last frame; the session keys are wiped.
    pub(crate) fn into_stream(self) -> Stream {
        self.stream
    }

    async fn send(&mut self, phase: Phase, message: Outbound) -> Result<(), Failure> {
        let to = match message.to {
            Recipient::All => To::All,
            Recipient::One(position) => To::Party(position),
        };
        let round = phase.round(message.round);
        self.round.store(round, Ordering::Relaxed);
        if to == To::All {
            note(&mut self.broadcasts, self.channel.position(), round, &message.body);
        }
        let sealed = self.channel.seal(to, round, &message.body)?;
        send(&self.stream, Frame::Message(sealed)).await
    }

    async fn receive(&mut self) -> Result<Opened, Failure> {
        match self.stream.next().await? {
            Some(Ok(Frame::Message(message))) => {
                let opened = self.channel.open(&message)?;
                if opened.broadcast {
                    note(&mut self.broadcasts, opened.from, opened.round, &opened.body);
                }
                Ok(opened)
            }
            other => Err(unexpected(other)),
        }
    }

    fn keep(&mut self, opened: Opened) -> Result<(), Failure> {
        if self.later.len() >= PHASE_QUEUE {
            return Err(Failure::by(self.roster(), opened.from, "it sent too many messages ahead of their phase"));
        }
        self.later.push_back(opened);
        Ok(())
    }

    /// The kept messages of this phase; those of phases that are over go.
    fn take_kept(&mut self, phase: Phase) -> VecDeque<Opened> {
        let (mut now, mut later) = (VecDeque::new(), VecDeque::new());
        for opened in std::mem::take(&mut self.later) {
            match Place::of(&opened, phase) {
                Place::Now => now.push_back(opened),
                Place::Later => later.push_back(opened),
                Place::Over => {}
            }
        }
        self.later = later;
        now
    }

    fn absent(&self, bodies: &[Option<Vec<u8>>]) -> Vec<PartyId> {
        let members = self.roster().members().iter().zip(bodies);
        members.filter(|(_, body)| body.is_none()).map(|(member, _)| member.party_id.clone()).collect()
    }
}

/// Notes a broadcast for the transcript. The confirmation itself is not part of what it confirms.
fn note(broadcasts: &mut Vec<[u8; 32]>, from: u16, round: u16, body: &[u8]) {
    if Phase::of(round) < Phase::Confirm as u8 {
        let mut hash = Sha256::new();
        hash.update(from.to_be_bytes());
        hash.update(round.to_be_bytes());
        hash.update(body);
        broadcasts.push(hash.finalize().into());
    }
}

/// What to do with a message in the phase that runs.
enum Place {
    Now,
    Later,
    Over,
}

impl Place {
    fn of(opened: &Opened, phase: Phase) -> Self {
        match Phase::of(opened.round).cmp(&(phase as u8)) {
            std::cmp::Ordering::Equal => Self::Now,
            std::cmp::Ordering::Greater => Self::Later,
            std::cmp::Ordering::Less => Self::Over,
        }
    }
}

fn pass(to_protocol: &mpsc::Sender<Inbound>, opened: &Opened) -> Result<(), Failure> {
    let inbound = Inbound { from: opened.from, broadcast: opened.broadcast, body: opened.body.to_vec() };
    match to_protocol.try_send(inbound) {
        // A protocol that has ended needs no more messages; its result is on its way.
        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        Err(mpsc::error::TrySendError::Full(_)) => {
            Err(Failure::new(Code::Overloaded, "messages come faster than the protocol takes them"))
        }
    }
}

async fn send(stream: &Stream, frame: Frame) -> Result<(), Failure> {
    let closed = || Failure::new(Code::TransportFault, CLOSED);
    let slow = |_| Failure::new(Code::Timeout, "the coordinator does not take messages off the stream");
    timeout(EXCHANGE_LIMIT, stream.outgoing.send(frame)).await.map_err(slow)?.map_err(|_| closed())
}

/// Ends a stream with its outcome frame.
pub(crate) async fn finish(stream: Stream, outcome: Frame) {
    if let Err(failure) = send(&stream, outcome).await {
        tracing::debug!(event = "outcome_not_delivered", %failure, "nobody took the outcome; it can be asked for");
    }
}

fn silent(parties: &[PartyId], what: &str) -> Failure {
    let names: Vec<&str> = parties.iter().map(PartyId::as_str).collect();
    Failure::new(Code::Timeout, format!("no {what} message from {} within the limit", names.join(", ")))
}

fn unexpected(frame: Option<Result<Frame, String>>) -> Failure {
    let what = match frame {
        None => CLOSED.into(),
        Some(Err(why)) => format!("the message stream broke: {why}"),
        Some(Ok(Frame::Hello(_))) => "a hello came after all hellos were there".into(),
        Some(Ok(Frame::Message(_))) => "too many messages came before all hellos were there".into(),
        Some(Ok(Frame::Outcome(_))) => "an outcome came from the coordinator, which has none to give".into(),
    };
    Failure::new(Code::TransportFault, what)
}
