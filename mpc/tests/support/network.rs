//! A network in memory, with a man in the middle.

use std::time::Duration;

use casemate_mpc::{Inbound, MpcError, Outbound, Recipient, Session, Wiring};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

/// How long the others may go on once a party's session has failed, before the session layer would tell them.
const GRACE: Duration = Duration::from_millis(250);

/// One copy of a message on its way to one party.
#[derive(Debug, Clone)]
pub struct Copy {
    pub from: u16,
    pub to: u16,
    pub broadcast: bool,
    pub round: u16,
    pub body: Vec<u8>,
}

impl Copy {
    /// Whether this is the message that `from` sends in a slot, on its way to anybody.
    pub fn is(&self, from: u16, round: u16, broadcast: bool) -> bool {
        self.from == from && self.round == round && self.broadcast == broadcast
    }
}

/// The outcome of each party's session, and all that was delivered.
pub struct Run<T> {
    pub outcomes: Vec<Result<T, MpcError>>,
    pub delivered: Vec<Copy>,
}

impl<T> Run<T> {
    /// The results, if every party has one.
    pub fn all(self) -> Vec<T> {
        self.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|error| panic!("{error}"))).collect()
    }
}

/// Starts one session per party, and passes every copy of every message through `middle`, which returns what to deliver
/// instead.
pub async fn run<T>(
    parties: u16,
    mut start: impl FnMut(u16, Wiring) -> Session<T>,
    mut middle: impl FnMut(Copy) -> Vec<Copy>,
) -> Run<T> {
    let (post, mut office) = mpsc::channel::<(u16, Outbound)>(64);
    let mut inboxes = Vec::new();
    let mut sessions = FuturesUnordered::new();
    for party in 0..parties {
        let (inbox, incoming) = mpsc::channel(256);
        let (outgoing, mut outbox) = mpsc::channel(64);
        inboxes.push(inbox);
        let session = start(party, Wiring { incoming, outgoing });
        sessions.push(async move { (party, session.await) });
        let post = post.clone();
        tokio::spawn(async move {
            while let Some(message) = outbox.recv().await {
                if post.send((party, message)).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(post);

    let mut outcomes: Vec<Option<Result<T, MpcError>>> = (0..parties).map(|_| None).collect();
    let mut delivered = Vec::new();
    let mut closing: Option<tokio::time::Instant> = None;
    loop {
        let deadline = closing.unwrap_or_else(|| tokio::time::Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            Some((party, outcome)) = sessions.next() => {
                if outcome.is_err() && closing.is_none() {
                    closing = Some(tokio::time::Instant::now() + GRACE);
                }
                outcomes[usize::from(party)] = Some(outcome);
            }
            Some((from, message)) = office.recv() => {
                for copy in copies(parties, from, &message) {
                    for copy in middle(copy) {
                        let body = copy.body.clone();
                        let inbound = Inbound { from: copy.from, broadcast: copy.broadcast, body };
                        if let Some(inbox) = inboxes.get(usize::from(copy.to)) {
                            drop(inbox.try_send(inbound));
                        }
                        delivered.push(copy);
                    }
                }
            }
            () = tokio::time::sleep_until(deadline) => inboxes.clear(),
            else => break,
        }
        if outcomes.iter().all(Option::is_some) {
            break;
        }
    }
    let outcomes = outcomes.into_iter().map(|outcome| outcome.expect("every session has ended")).collect();
    Run { outcomes, delivered }
}

/// The man in the middle who only passes on.
pub fn pass(copy: Copy) -> Vec<Copy> {
    vec![copy]
}

fn copies(parties: u16, from: u16, message: &Outbound) -> Vec<Copy> {
    let to = match message.to {
        Recipient::All => (0..parties).filter(|party| *party != from).collect(),
        Recipient::One(party) => vec![party],
    };
    to.into_iter()
        .map(|to| Copy {
            from,
            to,
            broadcast: message.to == Recipient::All,
            round: message.round,
            body: message.body.clone(),
        })
        .collect()
}
