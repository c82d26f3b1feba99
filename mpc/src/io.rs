//! The messages of one protocol phase as they cross the border between the session layer and the engine.
//!
//! The engine knows no sockets: a session hands it a [`Wiring`], two bounded channels of opaque bodies. Who sent a body
//! comes from the authenticated envelope around it, never from the body.

use std::time::Duration;

use tokio::sync::mpsc;

/// A message that a peer has sent to this party.
#[derive(Debug)]
pub struct Inbound {
    /// Position of the sender in this session's ordered party list, as authenticated by the envelope.
    pub from: u16,
    /// Whether the envelope was addressed to all.
    pub broadcast: bool,
    /// The CBOR body.
    pub body: Vec<u8>,
}

/// Whom an [`Outbound`] message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipient {
    /// Every other party of the session.
    All,
    /// The party at this position alone; the envelope seals the body to it.
    One(u16),
}

/// A message that this party wants delivered.
#[derive(Debug)]
pub struct Outbound {
    /// Whom it is for.
    pub to: Recipient,
    /// Protocol round, from 1, for the envelope and for logs.
    pub round: u16,
    /// The CBOR body.
    pub body: Vec<u8>,
}

/// How a message travels: to all with a reliability check, or to one party, sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Sent to all parties.
    Broadcast,
    /// Sent to one party.
    Direct,
}

/// One session's channels. Closing either ends the session with [`MpcError::Closed`](crate::MpcError::Closed).
#[derive(Debug)]
pub struct Wiring {
    /// Messages from the peers, in the order in which the envelope layer accepted them.
    pub incoming: mpsc::Receiver<Inbound>,
    /// Messages to the peers.
    pub outgoing: mpsc::Sender<Outbound>,
}

/// Time and size limits of one protocol phase.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest wait for the peers' messages of one round; whoever has not sent by then is named.
    pub round: Duration,
    /// The longest time for the whole phase, waiting and computing.
    pub session: Duration,
    /// The longest body of one message, in bytes; checked before anything is decoded.
    pub max_body: usize,
}

impl Limits {
    /// Auxiliary information among `n` parties: 256 KiB a message up to three parties, 64 KiB more for each further one.
    pub fn aux(n: u16) -> Self {
        let further = usize::from(n.saturating_sub(3));
        Self {
            round: Duration::from_secs(90),
            session: Duration::from_secs(300),
            max_body: (256 + 64 * further) * 1024,
        }
    }

    /// Key generation among `n` parties: the longest message holds up to `n` points.
    pub fn dkg(n: u16) -> Self {
        Self {
            round: Duration::from_secs(15),
            session: Duration::from_secs(60),
            max_body: 2 * 1024 + 256 * usize::from(n),
        }
    }

    /// Redistribution of a key among `n` parties, leaving dealers included: the longest message holds up to `n` points.
    pub fn reshare(n: u16) -> Self {
        Self { round: Duration::from_secs(15), session: Duration::from_secs(60), max_body: 1024 + 64 * usize::from(n) }
    }

    /// Signing by `t` parties. Messages go from one party to one party and do not grow with `t`; the time does.
    pub fn sign(t: u16) -> Self {
        let further = u64::from(t.saturating_sub(2));
        Self { round: Duration::from_secs(30), session: Duration::from_secs(90 + 15 * further), max_body: 64 * 1024 }
    }
}
