//! A coordinator that the test controls: it convenes sessions itself and passes frames on as a hook says.

use std::time::Duration;

use bytes::Bytes;
use casemate_wire::api::SessionView;
use casemate_wire::frame::{Frame, Outcome};
use casemate_wire::{Code, EcdsaSignature, KeyCertificate, Problem, SessionId, Succession};
use hyper::Method;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::convene::{Convener, Proposal};
use crate::http::{Answer, ApplianceClient};
use crate::stream::{FromParty, Stream, ToParty, attach};

/// The longest that any session of a test may take.
const LIMIT: Duration = Duration::from_secs(150);
/// After the first failure the others get this long to notice by themselves; then their streams are closed.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What is put onto a party's stream.
#[derive(Debug, Clone)]
pub enum Parcel {
    /// A frame.
    Frame(Box<Frame>),
    /// Bytes as they are.
    Bytes(Bytes),
    /// The end of the stream, in order.
    Close,
    /// The end of the stream, as when a connection is lost.
    BreakOff,
}

impl From<Frame> for Parcel {
    fn from(frame: Frame) -> Self {
        Self::Frame(Box::new(frame))
    }
}

/// How a session ended at one party.
#[derive(Debug, Clone)]
pub struct End {
    /// Which appliance of the lab, from 0.
    pub party: usize,
    /// Its outcome frame; `None` if its stream ended without one.
    pub outcome: Option<Outcome>,
    /// How long after the streams were attached.
    pub after: Duration,
}

impl End {
    /// The problem of a session that failed here.
    pub fn problem(&self) -> &Problem {
        match &self.outcome {
            Some(Outcome::Failed { problem }) => problem,
            other => panic!("party {} should have failed: {other:?}", self.party),
        }
    }

    /// The code of a session that failed here.
    pub fn code(&self) -> Code {
        self.problem().code
    }

    /// The signature of a session that signed here.
    pub fn signature(&self) -> EcdsaSignature {
        match &self.outcome {
            Some(Outcome::Sign { signature }) => *signature,
            other => panic!("party {} should have signed: {other:?}", self.party),
        }
    }

    /// What proves a rotation that was completed here.
    pub fn succession(&self) -> &Succession {
        match &self.outcome {
            Some(Outcome::Rotate { succession }) => succession,
            other => panic!("party {} should have switched: {other:?}", self.party),
        }
    }

    /// The certificate of a session that made a key here.
    pub fn certificate(&self) -> &KeyCertificate {
        match &self.outcome {
            Some(Outcome::Keygen { certificate, .. }) => certificate,
            other => panic!("party {} should have made a key: {other:?}", self.party),
        }
    }
}

/// Convenes sessions among the appliances of a lab, honestly or not.
pub struct LyingCoordinator {
    /// Makes its tokens and bodies.
    pub convener: Convener,
    /// Its connections, one to each appliance of the lab.
    pub appliances: Vec<ApplianceClient>,
}

impl LyingCoordinator {
    /// Asks every party of a proposal to take part; the answers, in roster order.
    pub async fn ask(&self, proposal: &Proposal) -> Vec<Answer> {
        let calls = proposal.invitations.iter().map(|invitation| {
            let body = self.convener.body(invitation);
            async move { self.appliances[invitation.party].post(proposal.route(), &body).await }
        });
        futures::future::join_all(calls).await
    }

    /// Asks every party to take part, which all must accept, and carries their messages through `hook`.
    ///
    /// The hook is given each hello and each message once for each of its recipients: position of the sender, position
    /// of the recipient, the frame; it returns what goes where instead.
    pub async fn run<P: Into<Parcel>>(
        &self,
        proposal: &Proposal,
        hook: impl FnMut(usize, usize, Frame) -> Vec<(usize, P)>,
    ) -> Vec<End> {
        for answer in self.ask(proposal).await {
            assert_eq!(answer.status, 202, "{answer}");
        }
        self.relay(proposal, hook).await
    }

    /// Carries the messages of a session as an honest coordinator does.
    pub async fn run_honestly(&self, proposal: &Proposal) -> Vec<End> {
        self.run(proposal, pass).await
    }

    /// Attaches to a session that all parties have accepted, and carries their messages through `hook`.
    pub async fn relay<P: Into<Parcel>>(
        &self,
        proposal: &Proposal,
        hook: impl FnMut(usize, usize, Frame) -> Vec<(usize, P)>,
    ) -> Vec<End> {
        let parties: Vec<usize> = proposal.invitations.iter().map(|invitation| invitation.party).collect();
        let attaching = parties.iter().map(|party| attach(&self.appliances[*party], &proposal.session));
        let streams = futures::future::join_all(attaching).await.into_iter();
        let streams = streams.map(|stream| Some(stream.unwrap_or_else(|why| panic!("{why}"))));
        carry(&parties, streams.collect(), hook).await
    }

    /// Runs a session as an honest coordinator does, while parties may crash: one that is not reached has no outcome.
    pub async fn attempt(&self, proposal: &Proposal) -> Vec<End> {
        let joining = proposal.invitations.iter().map(|invitation| async {
            let client = &self.appliances[invitation.party];
            let body = self.convener.body(invitation).to_string();
            let answer = client.call(Method::POST, proposal.route(), Some(body.into())).await.ok()?;
            assert_eq!(answer.status, 202, "{answer}");
            attach(client, &proposal.session).await.ok()
        });
        let streams = futures::future::join_all(joining).await;
        let parties: Vec<usize> = proposal.invitations.iter().map(|invitation| invitation.party).collect();
        carry(&parties, streams, pass).await
    }

    /// How a session stands at each of its parties, in roster order.
    pub async fn views(&self, proposal: &Proposal) -> Vec<SessionView> {
        let views = proposal.invitations.iter().map(|invitation| self.view(invitation.party, &proposal.session));
        futures::future::join_all(views).await
    }

    /// How a session stands at one appliance.
    pub async fn view(&self, party: usize, session: &SessionId) -> SessionView {
        self.appliances[party].read(&format!("sessions/{session}")).await
    }
}

/// Passes everything on.
pub fn pass(_from: usize, to: usize, frame: Frame) -> Vec<(usize, Frame)> {
    vec![(to, frame)]
}

/// Carries frames between attached streams, in roster order, until every party has ended. A party without a stream has
/// ended already.
async fn carry<P: Into<Parcel>>(
    parties: &[usize],
    streams: Vec<Option<Stream>>,
    mut hook: impl FnMut(usize, usize, Frame) -> Vec<(usize, P)>,
) -> Vec<End> {
    let begun = Instant::now();
    let (events, mut heard) = mpsc::unbounded_channel();
    let mut sinks = Vec::new();
    for (position, stream) in streams.into_iter().enumerate() {
        let (sink, source) = stream.unzip();
        sinks.push(sink);
        tokio::spawn(listen(position, source, events.clone()));
    }
    let mut ends: Vec<Option<End>> = vec![None; parties.len()];
    let mut close_at = begun + LIMIT;
    while ends.iter().any(Option::is_none) {
        let event = tokio::select! {
            event = heard.recv() => event,
            () = sleep_until(close_at) => {
                assert!(begun.elapsed() < LIMIT, "a session did not end: {ends:?}");
                sinks.fill_with(|| None);
                close_at = begun + LIMIT;
                continue;
            }
        };
        let Some((from, frame)) = event else { break };
        let to: Vec<usize> = match &frame {
            None | Some(Frame::Outcome(_)) => {
                let outcome = frame.and_then(|frame| match frame {
                    Frame::Outcome(outcome) => Some(*outcome),
                    _ => None,
                });
                if !matches!(outcome, Some(Outcome::Sign { .. } | Outcome::Keygen { .. } | Outcome::Rotate { .. })) {
                    close_at = close_at.min(Instant::now() + PATIENCE);
                }
                ends[from].get_or_insert(End { party: parties[from], outcome, after: begun.elapsed() });
                continue;
            }
            Some(Frame::Hello(_)) => others(from, parties.len()),
            Some(Frame::Message(message)) => match message.content.to {
                casemate_wire::envelope::To::All => others(from, parties.len()),
                casemate_wire::envelope::To::Party(position) => vec![position.into()],
            },
        };
        let Some(frame) = frame else { continue };
        for to in to {
            for (to, parcel) in hook(from, to, frame.clone()) {
                deliver(&mut sinks[to], parcel.into()).await;
            }
        }
    }
    ends.into_iter().map(|end| end.expect("every stream has ended")).collect()
}

async fn deliver(sink: &mut Option<ToParty>, parcel: Parcel) {
    let Some(stream) = sink else { return };
    match parcel {
        Parcel::Frame(frame) => stream.frame(&frame).await,
        Parcel::Bytes(bytes) => stream.bytes(bytes).await,
        Parcel::Close => *sink = None,
        Parcel::BreakOff => {
            stream.break_off().await;
            *sink = None;
        }
    }
}

fn others(from: usize, parties: usize) -> Vec<usize> {
    (0..parties).filter(|position| *position != from).collect()
}

/// Reports every frame of a party, then the end of its stream.
async fn listen(position: usize, source: Option<FromParty>, events: mpsc::UnboundedSender<(usize, Option<Frame>)>) {
    if let Some(mut source) = source {
        while let Ok(Some(frame)) = source.next().await {
            drop(events.send((position, Some(frame))));
        }
    }
    drop(events.send((position, None)));
}
