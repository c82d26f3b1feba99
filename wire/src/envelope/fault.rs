//! Who is to blame when a session's envelope does not hold.

use crate::ids::PartyId;
use crate::problem::Code;

/// Why a session cannot go on. Whatever caused it changed nothing in the state that raised it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The coordinator, or anything between the parties, could have caused it: no party is blamed.
    #[error("a message was not delivered as it was sent: {0}")]
    Transport(#[from] TransportFault),
    /// A party signed something that is faulty by itself or contradicts what it signed before.
    #[error("{party} signed a faulty message: {fault}")]
    Peer {
        /// The party that signed it.
        party: PartyId,
        /// What is wrong with it.
        fault: PeerFault,
    },
    /// A party validly states another view of the session than the own one; often the coordinator told them different things.
    #[error("{party} has another view of this session: its {field} differs from ours")]
    Mismatch {
        /// The party whose view differs.
        party: PartyId,
        /// The first field that differs.
        field: &'static str,
    },
    /// Two peers announced the same key or nonce; one copied it from the other, and it cannot be told which.
    #[error("{first} and {second} announced the same {field}")]
    Clash {
        /// The party that was heard first.
        first: PartyId,
        /// The party that was heard second.
        second: PartyId,
        /// What they share.
        field: &'static str,
    },
    /// This party's own doing.
    #[error("this party cannot go on: {0}")]
    Local(#[from] LocalFault),
}

impl Fault {
    /// The stable code for problem details and audit leaves.
    pub fn code(&self) -> Code {
        match self {
            Self::Transport(_) => Code::TransportFault,
            Self::Peer { .. } => Code::PeerFault,
            Self::Mismatch { .. }
            | Self::Clash { .. }
            | Self::Local(LocalFault::View { .. } | LocalFault::NotInRoster | LocalFault::Identity) => {
                Code::QuorumMismatch
            }
            Self::Local(_) => Code::Internal,
        }
    }

    /// The party that is to blame, where one is.
    pub fn culprit(&self) -> Option<&PartyId> {
        match self {
            Self::Peer { party, .. } => Some(party),
            _ => None,
        }
    }

    pub(super) fn peer(party: &PartyId, fault: PeerFault) -> Self {
        Self::Peer { party: party.clone(), fault }
    }
}

/// What the coordinator could have done to a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportFault {
    /// It belongs to another session.
    #[error("it belongs to session {0}")]
    ForeignSession(String),
    /// It claims to come from nobody in the roster.
    #[error("its sender is not in the roster")]
    UnknownSender,
    /// It is this party's own message coming back.
    #[error("it claims to come from this party itself")]
    Reflected,
    /// It is for another party.
    #[error("it is for another party")]
    WrongRecipient,
    /// The signature is not that of the party it claims to come from.
    #[error("it does not carry a valid signature of {0}")]
    BadSignature(PartyId),
    /// It was signed by a party that saw other hellos than this one.
    #[error("{0} signed it under another transcript, so not everyone saw the same hellos")]
    WrongTranscript(PartyId),
    /// A message before it is missing.
    #[error("message {expected} of {from} is missing; message {found} came instead")]
    Gap {
        /// The sender.
        from: PartyId,
        /// The number that should have come.
        expected: u32,
        /// The number that came.
        found: u32,
    },
    /// It was delivered before.
    #[error("a message of {0} was delivered twice")]
    Repeat(PartyId),
    /// It is larger than this session allows.
    #[error("it has {found} bytes; at most {limit} are accepted")]
    Oversized {
        /// Its size in bytes.
        found: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A hello's time is too far from the own clock: delayed on its way, or the clocks disagree.
    #[error("the hello of {party} is {milliseconds} ms away from our clock; check the clocks of both hosts")]
    Clock {
        /// The sender.
        party: PartyId,
        /// The distance in milliseconds, either way.
        milliseconds: u64,
    },
    /// Not every party's hello came.
    #[error("no hello came from {}", join(.0))]
    Missing(Vec<PartyId>),
}

fn join(parties: &[PartyId]) -> String {
    parties.iter().map(PartyId::as_str).collect::<Vec<_>>().join(", ")
}

/// What only the signer itself can have done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// Two different hellos for one session.
    #[error("it signed two different hellos for this session")]
    TwoHellos,
    /// A session key that no honest party makes.
    #[error("its hello announces an unusable {0}")]
    UnusableKey(&'static str),
    /// A key or nonce of this party's own.
    #[error("its hello announces our own {0}")]
    CopiedFromUs(&'static str),
    /// A checkpoint whose log name is empty or too long.
    #[error("its hello carries a checkpoint without a proper log name or size")]
    BadCheckpoint,
    /// It says that it has witnessed the log of nobody here, of itself, or too much of one log.
    #[error("its hello names what it has seen of other logs than its peers', or too much of one")]
    BadWitness,
    /// Two different messages with one number.
    #[error("it signed two different messages as number {seq}")]
    Contradiction {
        /// The number, in the lane that both belong to.
        seq: u32,
    },
    /// Sealed where it must not be, or not sealed where it must.
    #[error("the encapsulated key stands where it must not, or is missing")]
    Misplaced,
    /// A sealed body that does not open.
    #[error("the sealed body does not open")]
    Unopenable,
    /// More signed messages than a session may hold.
    #[error("its messages exceed the {limit} bytes that one session may keep")]
    Flood {
        /// The limit in bytes.
        limit: usize,
    },
}

/// What this party's own caller did wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocalFault {
    /// The view is not one that a session can have.
    #[error("the session is not well formed: {why}")]
    View {
        /// What is missing or too much.
        why: &'static str,
    },
    /// The own party is not in the roster.
    #[error("this party is not in the roster")]
    NotInRoster,
    /// The own signature does not verify under the identity that the roster names for this party.
    #[error("the HSM's identity key is not the one that the roster names for this party")]
    Identity,
    /// The own hello was not signed before the channel was asked for.
    #[error("the own hello is not signed yet")]
    Unsigned,
    /// A message to nobody, or to itself.
    #[error("position {0} is no recipient")]
    NoSuchRecipient(u16),
    /// An own message is too large.
    #[error("an own message has {found} bytes; at most {limit} may be sent")]
    TooLarge {
        /// Its size in bytes.
        found: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The clock stands before 1970, or a lane has run out of numbers.
    #[error("{0} is out of range")]
    OutOfRange(&'static str),
    /// A value could not be encoded.
    #[error("{what} could not be encoded: {why}")]
    Encoding {
        /// The domain of the value.
        what: String,
        /// The encoder's reason.
        why: String,
    },
    /// A body could not be sealed.
    #[error("a body could not be sealed: {0}")]
    Sealing(String),
}
