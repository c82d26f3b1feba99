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
