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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;
    use rand::rngs::OsRng;
    use serde::de::DeserializeOwned;

    use super::super::attacks::OldShares;
    use super::*;
    use crate::codec::{Caps, decode, encode};
    use crate::io::Limits;

    type Commit = (u16, CommitMessage);
    type Reveal = (u16, Option<RevealMessage>);
    type Evaluation = (u16, Option<EvaluationMessage>);
    type Knowledge = (u16, Option<KnowledgeMessage>);

    fn caps() -> Caps {
        let body = Limits::reshare(3).max_body;
        Caps { body, string: body }
    }

    /// One body of each message, and the empty one.
    fn bodies() -> [Vec<u8>; 5] {
        let reveal = OldShares::deal(2, 3).reveal();
        let commit = CommitMessage { inputs: ByteArray::new([1; 32]), commitment: Some(ByteArray::new([2; 32])) };
        let evaluation = EvaluationMessage::new(&SecretScalar::random(&mut OsRng));
        let knowledge = KnowledgeMessage { proof: reveal.proof.clone() };
        [
            encode(&(1, commit)).unwrap(),
            encode(&(3, Some(reveal))).unwrap(),
            encode(&(3, Some(evaluation))).unwrap(),
            encode(&(5, Some(knowledge))).unwrap(),
            encode(&(5, None::<KnowledgeMessage>)).unwrap(),
        ]
    }

    fn reads<T: Serialize + DeserializeOwned>(body: &[u8]) -> bool {
        decode::<T>(body, caps()).is_ok()
    }

    /// Whether `body` is refused, or decodes to something whose one encoding it is.
    fn one_meaning(body: &[u8]) -> bool {
        fn holds<T: Serialize + DeserializeOwned>(body: &[u8]) -> bool {
            decode::<T>(body, caps()).map_or(true, |message| encode(&message).unwrap() == body)
        }
        holds::<Commit>(body) && holds::<Reveal>(body) && holds::<Evaluation>(body) && holds::<Knowledge>(body)
    }

    #[test]
    fn every_message_is_read_as_itself_and_as_no_other() {
        let kinds: [fn(&[u8]) -> bool; 4] = [reads::<Commit>, reads::<Reveal>, reads::<Evaluation>, reads::<Knowledge>];
        let bodies = bodies();
        for (sent, body) in bodies.iter().enumerate() {
            for (expected, reads) in kinds.iter().enumerate() {
                let empty = sent == 4 && expected != 0;
                assert_eq!(reads(body), sent == expected || empty, "message {sent} read as {expected}");
            }
        }
    }

    #[test]
    fn a_number_beyond_the_group_order_is_no_evaluation() {
        let message = EvaluationMessage { evaluation: SecretBytes(Zeroizing::new([0xFF; 32])) };
        assert!(message.read().is_none());
    }

    proptest! {
        #[test]
        fn changed_bytes_have_no_two_meanings(message in 0usize..5, at: prop::sample::Index, byte: u8) {
            let mut body = bodies()[message].clone();
            let at = at.index(body.len());
            body[at] = byte;
            prop_assert!(one_meaning(&body));
        }

        #[test]
        fn random_bytes_have_no_two_meanings(body in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(one_meaning(&body));
        }
    }
}
