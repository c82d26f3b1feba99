//! One signed message of a session, and where it goes.

use serde::{Deserialize, Serialize};

use super::canonical;
use super::fault::LocalFault;
use crate::ids::{Digest32, SessionId};

const DOMAIN: &str = "casemate/message/v1";
const HEADER_DOMAIN: &str = "casemate/sealed-header/v1";

/// Who a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum To {
    /// Every other party; the body is readable by the coordinator.
    All,
    /// The party at this position of the roster; the body is sealed to it.
    Party(u16),
}

/// What a session key signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// The session.
    pub session: SessionId,
    /// The hash of all hellos.
    pub transcript: Digest32,
    /// The sender's position in the roster.
    pub from: u16,
    /// The recipient.
    pub to: To,
    /// The protocol round.
    pub round: u16,
    /// 0, 1, 2, … in this sender's lane to this recipient; messages to all are a lane of their own.
    pub seq: u32,
    /// HPKE's encapsulated key: in the first message of a sealed lane, and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_bytes")]
    pub encapsulated: Option<[u8; 32]>,
    /// The body, or its ciphertext where the message is for one party.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

impl Content {
    /// The bytes that are signed: deterministic CBOR with the domain.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, LocalFault> {
        canonical::encode(DOMAIN, self)
    }
}

/// A message with the Ed25519 signature of its sender's session key.
///
/// The coordinator routes it by [`Content::to`]; it can check nothing in it and change nothing in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedMessage {
    /// What is signed.
    pub content: Content,
    /// The signature over its deterministic encoding.
    #[serde(with = "serde_bytes")]
    pub signature: [u8; 64],
}

/// What a sealed body is bound to besides the transcript: the place of its message in the session.
#[derive(Serialize)]
pub(super) struct Header<'a> {
    pub(super) session: &'a SessionId,
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) round: u16,
    pub(super) seq: u32,
}

impl Header<'_> {
    pub(super) fn bytes(&self) -> Result<Vec<u8>, LocalFault> {
        canonical::encode(HEADER_DOMAIN, self)
    }
}
