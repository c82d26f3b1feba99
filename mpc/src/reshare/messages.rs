//! What the parties send each other.
//!
//! Every party sends one message in every slot. Where a party has no part in a step, its payload is `null`, and anything
//! else is its fault.

use cggmp21::generic_ec::SecretScalar;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::{ByteArray, Bytes};
use zeroize::{Zeroize, Zeroizing};

use super::schnorr::Proof;
use crate::ecdsa::Curve;

/// Round 1, to all: what the sender takes the session to be about and, from a dealer, a hash that fixes its
/// [`RevealMessage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommitMessage {
    pub(super) inputs: ByteArray<32>,
    pub(super) commitment: Option<ByteArray<32>>,
}

/// Round 3, to all, from a dealer: Feldman commitments to its polynomial, and the proof that it knows the constant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RevealMessage {
    pub(super) coefficients: Vec<ByteArray<33>>,
    pub(super) proof: Proof,
    pub(super) nonce: ByteArray<32>,
}

/// Round 3, to one, from a dealer to a receiver: the value of its polynomial at the receiver's point. Secret.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EvaluationMessage {
    evaluation: SecretBytes,
}

/// Round 5, to all, from a receiver: the proof that it knows its new share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KnowledgeMessage {
    pub(super) proof: Proof,
}

/// 32 secret bytes, wiped when dropped.
struct SecretBytes(Zeroizing<[u8; 32]>);

impl EvaluationMessage {
    pub(super) fn new(evaluation: &SecretScalar<Curve>) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        bytes.copy_from_slice(evaluation.as_ref().to_be_bytes().as_bytes());
        Self { evaluation: SecretBytes(bytes) }
    }

    /// The evaluation; `None` if it is not below the group order.
    pub(super) fn read(&self) -> Option<SecretScalar<Curve>> {
        SecretScalar::from_be_bytes(self.evaluation.0.as_slice()).ok()
    }
}

impl Serialize for SecretBytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Bytes::new(self.0.as_slice()).serialize(to)
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut read = ByteArray::<32>::deserialize(from)?;
        let bytes = Zeroizing::new(*read);
        read.zeroize();
        Ok(Self(bytes))
    }
}
