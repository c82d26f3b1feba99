//! What can end a protocol session, and who is to blame.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::io::Kind;

/// Why a session of the engine ended without a result.
///
/// Parties are positions in the session's ordered party list. No variant carries a secret, nor bytes a peer has sent.
#[derive(Debug, thiserror::Error)]
pub enum MpcError {
    /// A peer's validly delivered message is faulty. The peer can be held to account: the message was signed by it.
    #[error("party {party} sent a faulty message in round {round}: {what}")]
    PeerFault {
        /// Position of the peer that sent the message.
        party: u16,
        /// Protocol round of the message, from 1; 0 where the message does not even tell its round.
        round: u16,
        /// What is wrong with it.
        what: Cow<'static, str>,
    },
    /// The protocol failed in a way that does not tell who is at fault, such as broadcasts that differ between
    /// receivers. Nobody may be ejected on this.
    #[error("the protocol failed in round {round} and the culprit cannot be told: {what}; start a new session")]
    Unattributed {
        /// Protocol round in which the failure showed, from 1; 0 where it is not known.
        round: u16,
        /// What was seen.
        what: Cow<'static, str>,
    },
    /// Parties did not send their message within the round's limit.
    #[error(
        "no message from parties {parties:?} in round {round} within the limit; check that they run and are connected"
    )]
    Silent {
        /// Positions of the parties that were waited for, ascending.
        parties: Vec<u16>,
        /// The round whose messages are missing.
        round: u16,
    },
    /// The session as a whole took longer than its limit.
    #[error("the session took longer than its limit of {limit:?}")]
    SessionTimeout {
        /// The limit that has passed.
        limit: Duration,
    },
    /// The other end of the session's channels is gone.
    #[error("the session's message channels were closed before the protocol ended")]
    Closed,
    /// The session's computation panicked. Other sessions are not affected.
    #[error("the protocol computation panicked; this session has ended, others are not affected")]
    Panicked,
    /// This party's own inputs do not fit together; nothing was sent.
    #[error("cannot run the protocol: {0}")]
    Invalid(Cow<'static, str>),
    /// Stored bytes (a share, auxiliary info, primes) are not what they should be.
    #[error("cannot load {what}: {why}; restore it from a backup or make it anew")]
    Corrupt {
        /// Which object was being read.
        what: &'static str,
        /// What is wrong with it.
        why: Cow<'static, str>,
    },
    /// The engine is shutting down, or its threads are gone.
    #[error("the protocol engine is shutting down")]
    Stopped,
    /// The engine's threads could not be started.
    #[error("cannot start the protocol threads: {0}")]
    Threads(#[source] std::io::Error),
    /// The CPU lacks instructions that the built-in GMP needs.
    #[error(
        "this CPU lacks {missing}; Casemate's big-integer arithmetic is built for Intel Broadwell, AMD Zen and later: \
         run it on such a host, or check that the virtual machine passes these CPU features on"
    )]
    Cpu {
        /// The instruction sets that are missing.
        missing: &'static str,
    },
    /// A step that cannot fail on valid inputs did.
    #[error("internal error in {step}; please report it")]
    Internal {
        /// The step that failed.
        step: &'static str,
    },
}

impl MpcError {
    /// A fault of `party` in `round`.
    pub fn peer(party: u16, round: u16, what: impl Into<Cow<'static, str>>) -> Self {
        Self::PeerFault { party, round, what: what.into() }
    }

    /// A failure in `round` that tells nobody's fault.
    pub fn unattributed(round: u16, what: impl Into<Cow<'static, str>>) -> Self {
        Self::Unattributed { round, what: what.into() }
    }

    /// Own inputs that cannot be used.
    pub fn invalid(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(what.into())
    }

    /// Stored bytes that cannot be used.
    pub fn corrupt(what: &'static str, why: impl Into<Cow<'static, str>>) -> Self {
        Self::Corrupt { what, why: why.into() }
    }

    /// The party that is to blame, where that is certain.
    pub fn culprit(&self) -> Option<u16> {
        match self {
            Self::PeerFault { party, .. } => Some(*party),
            _ => None,
        }
    }
}

/// The execution id of one protocol run: SHA-256(domain ‖ phase ‖ transcript of the session's hellos).
///
/// # Security
/// Never use one twice: messages of two runs with the same id can be mixed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExecutionId([u8; 32]);

impl ExecutionId {
    /// Takes the 32 bytes that the session layer has derived.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExecutionId({})", hex::encode(self.0))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broadcast => "broadcast",
            Self::Direct => "direct message",
        })
    }
}
