//! The hello: one party's signed statement of what it is about to do, with whom, and under which session keys.

use serde::{Deserialize, Serialize};

use super::canonical;
use super::fault::LocalFault;
use super::view::{Checkpoint, SessionView, Witnessed};
use crate::ids::PartyId;

const DOMAIN: &str = "casemate/hello/v1";

/// What an identity key signs: the agreed view, then what is the party's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// What all parties must state alike.
    pub view: SessionView,
    /// What only this party states.
    pub own: Introduction,
}

/// One party's own part of a hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Introduction {
    /// Who speaks.
    pub party: PartyId,
    /// Its X25519 key for this session alone: bodies for this party are sealed to it.
    #[serde(with = "serde_bytes")]
    pub kem_key: [u8; 32],
    /// Its Ed25519 key for this session alone: it signs every message.
    #[serde(with = "serde_bytes")]
    pub signing_key: [u8; 32],
    /// Fresh randomness.
    #[serde(with = "serde_bytes")]
    pub nonce: [u8; 32],
    /// Its wall clock, in milliseconds since 1970 UTC.
    pub time: u64,
    /// Where its audit log stands.
    pub checkpoint: Checkpoint,
    /// What it has seen of its peers' logs before: at most [`super::MAX_WITNESSED`] checkpoints of each peer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnessed: Vec<Witnessed>,
    /// Whether every peer must attest itself to this party, over this hello's nonce, before the first protocol message.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attest: bool,
}

impl Hello {
    /// The bytes that are signed and that the transcript is made of: deterministic CBOR with the domain.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, LocalFault> {
        canonical::encode(DOMAIN, self)
    }
}

/// A hello with the signature of its party's HSM identity key (ECDSA P-256 with SHA-256, `r ‖ s`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHello {
    /// The statement.
    pub hello: Box<Hello>,
    /// The signature over its deterministic encoding.
    #[serde(with = "serde_bytes")]
    pub signature: [u8; 64],
}
