//! Intents: what a 32-byte hash means.
//!
//! A decoder takes the payload apart strictly, encodes it again, compares the bytes, and computes the hash that would be
//! signed. Only then is the intent [`Understood`].
//!
//! | `type` | decoder | payload |
//! |---|---|---|
//! | `ethereum_transaction` | `ethereum` | hex of an unsigned legacy (EIP-155), 2930, 1559, 4844 or 7702 transaction |
//! | `eip191` | `eip191` | hex of a message's bytes |
//! | `eip712` | `eip712` | JSON text of typed data |
//! | `bitcoin_psbt` | `bitcoin_psbt` | base64 of a PSBT v0; the input stands in `input_index` |
//! | `raw` | none | empty: nothing is known, and policy sees a request to sign blindly |

use crate::stack::on_large_stack;
use casemate_wire::{Code, Digest32, Intent};
use serde_json::{Value, json};

mod bitcoin_psbt;
mod effect;
mod eip191;
mod eip712;
mod ethereum;
mod signer;
mod words;

pub use alloy_primitives::{Address, U256};
pub use effect::{
    Account, AssetRef, Chain, Effect, EffectKind, Method, Nature, OwnOutput, Reading, Standard, TypedData,
};
pub use signer::Signer;

/// The longest payload that is looked at, in characters.
pub const MAX_PAYLOAD: usize = 128 * 1024;

/// Why an intent is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntentError {
    /// The intent is well formed but means another hash.
    #[error(
        "the intent hashes to {computed}, but {asked} is asked to be signed: send the intent that the hash was made from"
    )]
    Mismatch {
        /// The hash of the intent.
        computed: Digest32,
        /// The hash that would be signed.
        asked: Digest32,
    },
    /// The payload cannot be decoded, or is not in the one form that it has.
    #[error("the {kind} intent cannot be decoded: {why}")]
    Malformed {
        /// The intent's type.
        kind: String,
        /// What is wrong, and what to send instead.
        why: String,
    },
    /// There is no decoder for this type.
    #[error(
        "intents of type `{0}` are not known here: known are `ethereum_transaction`, `eip191`, `eip712`, `bitcoin_psbt` \
         and `raw`"
    )]
    UnknownType(String),
    /// The key that would sign cannot be derived.
    #[error("the key that would sign cannot be derived: {0}")]
    Signer(String),
    /// The decoder itself failed.
    #[error("the intent could not be decoded: {0}")]
    Decoder(String),
    /// The intent says itself that nothing is to be decoded.
    #[error("a `raw` intent has no meaning that could be decoded")]
    Raw,
}

impl IntentError {
    /// The stable code for the answer.
    pub fn code(&self) -> Code {
        match self {
            Self::Mismatch { .. } => Code::IntentMismatch,
            Self::Malformed { .. } | Self::UnknownType(_) | Self::Signer(_) | Self::Decoder(_) => Code::BadRequest,
            Self::Raw => Code::BlindSigningDenied,
        }
    }
}

/// An intent that was decoded, and hashes to what would be signed. Only the decoders make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Understood {
    digest: Digest32,
    transaction_id: Digest32,
    outputs_external: usize,
    first: Effect,
    rest: Vec<Effect>,
    own_outputs: Vec<OwnOutput>,
    description: Value,
    preamble: String,
}

impl Understood {
    /// What a decoder found: the hash, the effects, the decoded fields for the audit log (a JSON object), and a phrase
    /// for people that says where this takes place.
    fn new(digest: Digest32, (first, rest): (Effect, Vec<Effect>), description: Value, preamble: String) -> Self {
        let outputs_external = rest.len().saturating_add(1);
        let own_outputs = Vec::new();
        Self { digest, transaction_id: digest, outputs_external, first, rest, own_outputs, description, preamble }
    }

    /// The 32 bytes that would be signed.
    pub fn digest(&self) -> Digest32 {
        self.digest
    }

    /// What makes this one unsigned transaction, however many of its inputs are asked for and how often: the hash itself,
    /// or for a PSBT the unsigned transaction's id, in the byte order in which people write it.
    pub fn transaction_id(&self) -> Digest32 {
        self.transaction_id
    }

    /// How many effects are on others. 0 for a Bitcoin transaction that pays to the signer alone; it still has one effect.
    pub fn outputs_external(&self) -> usize {
        self.outputs_external
    }

    /// What leaves and who is empowered; never empty.
    pub fn effects(&self) -> impl Iterator<Item = &Effect> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// What a Bitcoin transaction sends back to the key: no effects, but people should see where it goes.
    pub fn own_outputs(&self) -> &[OwnOutput] {
        &self.own_outputs
    }

    /// The decoded fields, for the audit log. Hashes and addresses are lower-case hex; amounts and other numbers that
    /// canonical JSON could not hold exactly are decimal strings.
    pub fn describe(&self) -> Value {
        let mut description = self.description.clone();
        if let Value::Object(fields) = &mut description {
            fields.insert("effects".into(), self.effects().map(words::describe).collect());
            if self.transaction_id != self.digest {
                fields.insert("transaction_id".into(), json!(self.transaction_id));
            }
        }
        description
    }

    /// What it does, in plain words, in base units.
    pub fn summary(&self) -> String {
        words::summarize(&self.preamble, self.effects(), &self.own_outputs)
    }
}

/// Decodes an intent and ties it to the hash that would be signed by this key.
///
/// # Errors
/// [`IntentError`]; its `code()` is the stable code for the answer.
///
/// # Security
/// The hash is recomputed from the bytes that were decoded, so policy judges exactly what would be signed.
pub fn decode(intent: &Intent, message_hash: &[u8; 32], signer: &Signer) -> Result<Understood, IntentError> {
    let understood = decode_payload(intent, signer)?;
    let asked = Digest32(*message_hash);
    if understood.digest != asked {
        return Err(IntentError::Mismatch { computed: understood.digest, asked });
    }
    Ok(understood)
}

/// Decodes the intent of a request, if it has one. None, or one of type `raw`, is a request to sign blindly.
///
/// Works on a thread of its own with a large stack, and waits for it: what is decoded comes from outside.
///
/// # Errors
/// As [`decode`].
pub fn understand(
    intent: Option<&Intent>,
    message_hash: &[u8; 32],
    signer: &Signer,
) -> Result<Option<Understood>, IntentError> {
    let Some(intent) = intent else { return Ok(None) };
    let decoded = on_large_stack(|| decode(intent, message_hash, signer));
    match decoded.unwrap_or_else(|error| Err(IntentError::Decoder(error.to_string()))) {
        Err(IntentError::Raw) => Ok(None),
        Ok(understood) => Ok(Some(understood)),
        Err(error) => Err(error),
    }
}

/// Decodes for people who are to approve before there is a request: what they see, and the hash that follows from it.
///
/// # Errors
/// As [`decode`], but for the hash, which there is none to compare with; [`IntentError::Raw`] has nothing to show.
pub fn preview(intent: &Intent, signer: &Signer) -> Result<Understood, IntentError> {
    decode_payload(intent, signer)
}

/// Decodes without a hash to compare with: for a bundle's own test cases.
pub(crate) fn decode_payload(intent: &Intent, signer: &Signer) -> Result<Understood, IntentError> {
    let malformed = |why: String| IntentError::Malformed { kind: intent.kind.clone(), why };
    let payload = &intent.payload;
    if payload.len() > MAX_PAYLOAD {
        let length = payload.len();
        let why = format!("the payload has {length} bytes; at most {MAX_PAYLOAD} are looked at");
        return Err(IntentError::Malformed { kind: intent.kind.chars().take(64).collect(), why });
    }
    if intent.input_index.is_some() && intent.kind != "bitcoin_psbt" {
        return Err(malformed("`input_index` belongs to `bitcoin_psbt` intents".into()));
    }
    match intent.kind.as_str() {
        "ethereum_transaction" => from_hex(payload).and_then(|bytes| ethereum::decode(&bytes)),
        "eip191" => from_hex(payload).map(|bytes| eip191::decode(&bytes)),
        "eip712" => eip712::decode(payload),
        "bitcoin_psbt" => bitcoin_psbt::decode(payload, intent.input_index, signer),
        "raw" if payload.is_empty() => return Err(IntentError::Raw),
        "raw" => Err("it must have an empty payload".into()),
        _ => return Err(IntentError::UnknownType(intent.kind.chars().take(64).collect())),
    }
    .map_err(malformed)
}

fn from_hex(payload: &str) -> Result<Vec<u8>, String> {
    let digits = payload.strip_prefix("0x").unwrap_or(payload);
    hex::decode(digits).map_err(|error| format!("the payload is not hex: {error}"))
}
