//! Session channels ⇄ the message streams of the `cggmp21` crate.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Sink, Stream};
use round_based::{Incoming, MessageDestination, MessageType, MpcParty, Outgoing};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Sleep;

use crate::codec::{self, Caps};
use crate::error::MpcError;
use crate::io::{Inbound, Kind, Limits, Outbound, Recipient, Wiring};
use crate::roll_call::{RollCall, Slot};

/// A message enum of the crate, as the bridge needs to see it.
pub(crate) trait Message: Serialize + DeserializeOwned + Unpin + 'static {
    /// Every message of the protocol, by slot.
    const PLAN: &'static [Slot];

    /// The slot that this message fills.
    fn slot(&self) -> Slot;
}

/// What a peer's message must keep before the protocol sees it: the peer's position, and the message.
pub(crate) type Rule<M> = Box<dyn Fn(u16, &M) -> Result<(), Cow<'static, str>>>;

/// One party's place in a run of a protocol.
pub(crate) struct Seat {
    /// This party's position.
    pub(crate) me: u16,
    /// How many parties take part.
    pub(crate) parties: u16,
    /// Time and size limits.
    pub(crate) limits: Limits,
    /// The longest string that a message can hold.
    pub(crate) string_cap: usize,
    /// The session's channels.
    pub(crate) wiring: Wiring,
}

/// Runs one protocol of the crate from `seat`.
///
/// `protocol` gets the crate's end of the bridge; `blame` translates the crate's own error where
/// the bridge itself has not already seen the reason.
pub(crate) async fn run<M, T, E, F>(
    seat: Seat,
    rule: Rule<M>,
    protocol: impl FnOnce(Party<M>) -> F,
    blame: impl FnOnce(&E) -> MpcError,
) -> Result<T, MpcError>
where
    M: Message,
    F: Future<Output = Result<T, E>>,
{
    let Seat { me, parties, limits, string_cap, wiring } = seat;
    let verdict = Verdict::default();
    let incoming = Incomings {
        channel: wiring.incoming,
        roll: RollCall::new(me, parties, M::PLAN),
        caps: Caps { body: limits.max_body, string: string_cap },
        round_limit: limits.round,
        timer: None,
        accepted: 0,
        rule,
        verdict: verdict.clone(),
    };
    let outgoing = outgoings(wiring.outgoing, verdict.clone());
    let outcome = protocol(MpcParty::connected((incoming, outgoing))).await;
    outcome.map_err(|error| verdict.take().unwrap_or_else(|| blame(&error)))
}

/// The crate's end of the bridge.
pub(crate) type Party<M> = MpcParty<M, (Incomings<M>, Outgoings<M>)>;
type Outgoings<M> = Pin<Box<dyn Sink<Outgoing<M>, Error = Ended>>>;

/// What the crate is told when the bridge has ended the session; the reason lies in the [`Verdict`].
#[derive(Debug, thiserror::Error)]
#[error("the session has ended")]
pub(crate) struct Ended;

/// The first reason for which the bridge has ended the session.
#[derive(Clone, Default)]
struct Verdict(Arc<Mutex<Option<MpcError>>>);

impl Verdict {
    fn set(&self, error: MpcError) -> Ended {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        Ended
    }

    fn take(&self) -> Option<MpcError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Decodes and checks what the peers send. Waits for a round no longer than its limit.
pub(crate) struct Incomings<M> {
    channel: mpsc::Receiver<Inbound>,
    roll: RollCall,
    caps: Caps,
    round_limit: Duration,
    /// The round that is waited for, and until when. Set at the first wait of the round, so that this party's own
    /// computation is not held against its peers.
    timer: Option<(u16, Pin<Box<Sleep>>)>,
    accepted: u64,
    rule: Rule<M>,
    verdict: Verdict,
}

impl<M: Message> Stream for Incomings<M> {
    type Item = Result<Incoming<M>, Ended>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        match this.channel.poll_recv(context) {
            Poll::Ready(Some(message)) => {
                let accepted = this.accept(message);
                Poll::Ready(Some(accepted.map_err(|error| this.verdict.set(error))))
            }
            Poll::Ready(None) => Poll::Ready(Some(Err(this.verdict.set(MpcError::Closed)))),
            Poll::Pending => {
                let silent = ready!(this.poll_silence(context));
                Poll::Ready(Some(Err(this.verdict.set(silent))))
            }
        }
    }
}

impl<M: Message> Incomings<M> {
    fn accept(&mut self, message: Inbound) -> Result<Incoming<M>, MpcError> {
        let Inbound { from, broadcast, body } = message;
        self.roll.admit(from)?;
        let message: M = codec::decode(&body, self.caps).map_err(|error| MpcError::peer(from, 0, error.to_string()))?;
        let (round, kind) = message.slot();
        if broadcast != (kind == Kind::Broadcast) {
            return Err(MpcError::peer(from, round, format!("what must be a {kind} was sent as the other")));
        }
        self.roll.mark(from, (round, kind))?;
        (self.rule)(from, &message).map_err(|what| MpcError::peer(from, round, what))?;
        self.accepted = self.accepted.saturating_add(1);
        let msg_type = if broadcast { MessageType::Broadcast } else { MessageType::P2P };
        Ok(Incoming { id: self.accepted, sender: from, msg_type, msg: message })
    }

    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<MpcError> {
        let Some((round, parties)) = self.roll.waiting_for() else {
            return Poll::Pending;
        };
        if self.timer.as_ref().is_none_or(|(timed, _)| *timed != round) {
            self.timer = Some((round, Box::pin(tokio::time::sleep(self.round_limit))));
        }
        if let Some((_, sleep)) = &mut self.timer {
            ready!(sleep.as_mut().poll(context));
        }
        Poll::Ready(MpcError::Silent { parties, round })
    }
}

fn outgoings<M: Message>(channel: mpsc::Sender<Outbound>, verdict: Verdict) -> Outgoings<M> {
    Box::pin(futures::sink::unfold((channel, verdict), |(channel, verdict), message: Outgoing<M>| async move {
        let to = match message.recipient {
            MessageDestination::AllParties => Recipient::All,
            MessageDestination::OneParty(party) => Recipient::One(party),
        };
        let (round, _) = message.msg.slot();
        let body =
            codec::encode(&message.msg).map_err(|_| verdict.set(MpcError::Internal { step: "encoding a message" }))?;
        channel.send(Outbound { to, round, body }).await.map_err(|_| verdict.set(MpcError::Closed))?;
        Ok((channel, verdict))
    }))
}
