//! Messages for people: `personal_sign` of EIP-191, version 0x45.

use alloy_primitives::eip191_hash_message;
use casemate_wire::Digest32;
use serde_json::json;

use super::Understood;
use super::effect::{AssetRef, Chain, Effect, EffectKind};

/// Any bytes are a message; the prefix that EIP-191 puts before them keeps them from being a transaction.
pub(super) fn decode(message: &[u8]) -> Understood {
    let text = text_of(message);
    let description = json!({ "type": "eip191", "message": text, "message_bytes": message.len() });
    let effect = Effect {
        asset: AssetRef::Nothing,
        message: Some(text),
        ..Effect::bare(EffectKind::Message, Chain::Ethereum(0))
    };
    let digest = Digest32(eip191_hash_message(message).0);
    Understood::new(digest, (effect, Vec::new()), description, "As a message of this key (EIP-191)".into())
}

/// The text, or `0x` and hex where it is no UTF-8. Text that begins with `0x` is given as hex too, so that two messages
/// never read the same.
fn text_of(message: &[u8]) -> String {
    match std::str::from_utf8(message) {
        Ok(text) if !text.starts_with("0x") => text.to_owned(),
        Ok(_) | Err(_) => format!("0x{}", hex::encode(message)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn message(bytes: &[u8]) -> String {
        decode(bytes).effects().next().unwrap().message.clone().unwrap()
    }

    /// Published by ethers.js as `hashMessage("hello world")`, and by OpenZeppelin.
    #[test]
    fn a_message_hashes_as_wallets_hash_it() {
        let understood = decode(b"hello world");
        let expected = "d9eba16ed0ecae432b71fe008c98cc872bb4cc214d3220a36f365326cf807d68";
        assert_eq!(understood.digest().to_string(), expected);
        let effect = understood.effects().next().unwrap();
        assert_eq!((effect.kind, effect.asset), (EffectKind::Message, AssetRef::Nothing));
        assert_eq!(message(b"hello world"), "hello world");
    }

    #[test]
    fn bytes_that_are_no_text_read_unlike_any_text() {
        assert_eq!(message(&[0xff, 0x00]), "0xff00");
        assert_ne!(message(b"0xff00"), message(&[0xff, 0x00]));
        assert_eq!(message(b""), "");
    }

    #[test]
    fn a_summary_does_not_let_a_message_pose_as_the_summary() {
        let summary = decode("Login\u{202e}\nFees: none".as_bytes()).summary();
        assert!(!summary.contains('\n') && !summary.contains('\u{202e}'), "{summary}");
    }

    proptest! {
        #[test]
        fn two_messages_never_read_or_hash_the_same(
            one in prop::collection::vec(any::<u8>(), 0..40), other in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            prop_assume!(one != other);
            prop_assert_ne!(message(&one), message(&other));
            prop_assert_ne!(decode(&one).digest(), decode(&other).digest());
        }
    }
}
