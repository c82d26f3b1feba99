//! Intents: what a 32-byte hash means.
//!
//! A decoder takes the payload apart strictly, encodes it again, compares the bytes, and computes the hash that would be
//! signed. Only then is the intent [`Understood`]. One file for each kind of intent; [`decode`] is the list of them.

use alloy_primitives::{B256, Selector, U256};
use casemate_wire::{Code, Digest32, Intent};
use serde_json::Value;

mod erc20;
mod ethereum;

pub use alloy_primitives::Address;

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
    #[error("intents of type `{0}` are not known here: known are `ethereum_transaction` and `raw`")]
    UnknownType(String),
    /// The intent says itself that nothing is to be decoded.
    #[error("a `raw` intent has no meaning that could be decoded")]
    Raw,
}

impl IntentError {
    /// The stable code for the answer.
    pub fn code(&self) -> Code {
        match self {
            Self::Mismatch { .. } => Code::IntentMismatch,
            Self::Malformed { .. } | Self::UnknownType(_) => Code::BadRequest,
            Self::Raw => Code::BlindSigningDenied,
        }
    }
}

/// What kind of thing an effect is, as policies see it in `context.tx.kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectKind {
    /// The chain's own coin goes to an address.
    NativeTransfer,
    /// A fungible token goes to an address.
    TokenTransfer,
    /// A contract is called in a way that is not decoded further.
    ContractCall,
    /// A contract is created.
    ContractCreation,
}

impl EffectKind {
    /// The kind as policies and logs spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NativeTransfer => "native_transfer",
            Self::TokenTransfer => "token_transfer",
            Self::ContractCall => "contract_call",
            Self::ContractCreation => "contract_creation",
        }
    }
}

/// The method of a contract that a call names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// One whose arguments were decoded.
    Known(&'static str),
    /// Any other, by its four bytes.
    Selector(Selector),
    /// Call data too short to hold a selector.
    Fallback,
}

impl Method {
    /// The name, `0x` and the selector, or `fallback`.
    pub fn to_text(&self) -> String {
        match self {
            Self::Known(name) => (*name).to_owned(),
            Self::Selector(selector) => selector.to_string(),
            Self::Fallback => "fallback".to_owned(),
        }
    }
}

/// What an amount is an amount of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AssetRef {
    /// The chain's own coin.
    Native,
    /// A token, by its contract.
    Token(Address),
}

/// One effect of a transaction, in base units and without names: those come from the bundle's asset table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// What it is.
    pub kind: EffectKind,
    /// The EIP-155 chain id; positive and at most `i64::MAX`.
    pub chain_id: u64,
    /// Who receives.
    pub to: Option<Address>,
    /// The contract that is called.
    pub contract: Option<Address>,
    /// Its method.
    pub method: Option<Method>,
    /// What leaves.
    pub asset: AssetRef,
    /// How much of it leaves, in base units.
    pub amount: U256,
    /// The most that the whole transaction can cost in fees, in base units of the native coin.
    pub fee: U256,
}

/// An intent that was decoded, and hashes to what would be signed. Only the decoders make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Understood {
    digest: Digest32,
    first: Effect,
    rest: Vec<Effect>,
    description: Value,
    summary: String,
}

impl Understood {
    /// The 32 bytes that would be signed.
    pub fn digest(&self) -> Digest32 {
        self.digest
    }

    /// What leaves and who is empowered; never empty.
    pub fn effects(&self) -> impl Iterator<Item = &Effect> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// The decoded fields, for the audit log. Hashes and addresses are lower-case hex; amounts and other numbers that
    /// canonical JSON could not hold exactly are decimal strings.
    pub fn describe(&self) -> Value {
        self.description.clone()
    }

    /// What it does, in plain words, in base units.
    pub fn summary(&self) -> String {
        self.summary.clone()
    }
}

/// Decodes an intent and ties it to the hash that would be signed.
///
/// # Errors
/// [`IntentError`]; its `code()` is the stable code for the answer.
///
/// # Security
/// The hash is recomputed from the bytes that were decoded, so policy judges exactly what would be signed.
pub fn decode(intent: &Intent, message_hash: &[u8; 32]) -> Result<Understood, IntentError> {
    let understood = decode_payload(intent)?;
    let asked = Digest32(*message_hash);
    if understood.digest != asked {
        return Err(IntentError::Mismatch { computed: understood.digest, asked });
    }
    Ok(understood)
}

/// Decodes the intent of a request, if it has one. None, or one of type `raw`, is a request to sign blindly.
///
/// # Errors
/// As [`decode`].
pub fn understand(intent: Option<&Intent>, message_hash: &[u8; 32]) -> Result<Option<Understood>, IntentError> {
    match intent.map(|intent| decode(intent, message_hash)) {
        None | Some(Err(IntentError::Raw)) => Ok(None),
        Some(Ok(understood)) => Ok(Some(understood)),
        Some(Err(error)) => Err(error),
    }
}

/// Decodes without a hash to compare with: for a bundle's own test cases.
pub(crate) fn decode_payload(intent: &Intent) -> Result<Understood, IntentError> {
    let malformed = |why: String| IntentError::Malformed { kind: intent.kind.clone(), why };
    if !matches!(intent.kind.as_str(), "ethereum_transaction" | "raw") {
        return Err(IntentError::UnknownType(intent.kind.chars().take(64).collect()));
    }
    if intent.input_index.is_some() {
        return Err(malformed("`input_index` belongs to Bitcoin intents".into()));
    }
    if intent.kind == "raw" {
        return Err(if intent.payload.is_empty() {
            IntentError::Raw
        } else {
            malformed("it must have an empty payload".into())
        });
    }
    ethereum::decode(&hex_payload(&intent.payload).map_err(malformed)?).map_err(malformed)
}

fn hex_payload(payload: &str) -> Result<Vec<u8>, String> {
    if payload.len() > MAX_PAYLOAD {
        return Err(format!("the payload has {} characters; at most {MAX_PAYLOAD} are looked at", payload.len()));
    }
    let digits = payload.strip_prefix("0x").unwrap_or(payload);
    hex::decode(digits).map_err(|error| format!("the payload is not hex: {error}"))
}

fn digest(hash: B256) -> Digest32 {
    Digest32(hash.0)
}
