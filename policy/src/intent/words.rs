//! Effects in words for people, and as JSON for the audit log.

use alloy_primitives::U256;
use serde_json::{Map, Value};

use super::effect::{Account, AssetRef, Chain, Effect, EffectKind, Method, OwnOutput, Reading, lower_hex};

/// An effect as it stands in the audit log.
pub(super) fn describe(effect: &Effect) -> Value {
    let mut fields = Map::new();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            fields.insert(name.into(), value.into());
        }
    };
    add("kind", Some(effect.kind.as_str().to_owned()));
    add("amount", Some(effect.amount.to_string()));
    add("to", effect.to.as_ref().map(Account::to_text));
    add("contract", effect.contract.as_ref().map(lower_hex));
    add("method", effect.method.as_ref().map(Method::to_text));
    add("token", token(effect.asset).filter(|token| effect.contract.as_ref().map(lower_hex).as_ref() != Some(token)));
    add("token_id", effect.token_id.map(|id| id.to_string()));
    if let Reading::TransferFrom { to, value } = &effect.reading {
        add("token_to", Some(lower_hex(to)));
        add("token_amount_or_id", Some(value.to_string()));
    }
    if effect.kind == EffectKind::AccountDelegation {
        add("chain_id", Some(effect.chain.id().to_string()));
    }
    fields.into()
}

/// All effects in one sentence after `preamble`, with what comes back and the fee.
pub(super) fn summarize<'a>(
    preamble: &str,
    effects: impl Iterator<Item = &'a Effect>,
    own_outputs: &[OwnOutput],
) -> String {
    let mut fee = None;
    let mut parts = Vec::new();
    for effect in effects {
        fee = Some((effect.fee, effect.chain));
        parts.push(sentence(effect) + &through(effect));
    }
    let keep =
        |own: &OwnOutput| format!("keep {} satoshi at {} of this key (output {})", own.amount, own.path, own.index);
    parts.extend(own_outputs.iter().map(keep));
    let what = parts.join("; and ");
    match fee {
        Some((fee, Chain::Ethereum(_))) if !fee.is_zero() => format!("{preamble}: {what}. Fees: at most {fee} wei."),
        Some((fee, Chain::Bitcoin)) => format!("{preamble}: {what}. Fees: {fee} satoshi."),
        _ => format!("{preamble}: {what}."),
    }
}

fn sentence(effect: &Effect) -> String {
    let amount = amount(effect);
    let to = effect.to.as_ref().map_or_else(|| "nobody".to_owned(), Account::to_text);
    let contract = effect.contract.as_ref().map(lower_hex).unwrap_or_default();
    let id = effect.token_id.map(|id| format!(" with id {id}")).unwrap_or_default();
    let token = token(effect.asset).map_or_else(|| "all tokens".into(), |token| format!("the token {token}"));
    match effect.kind {
        EffectKind::NativeTransfer => format!("send {amount} wei to {to}"),
        EffectKind::TokenTransfer => format!("send {amount} base units of {token} to {to}"),
        EffectKind::NftTransfer => format!("send {amount} of {token}{id} to {to}"),
        EffectKind::Allowance => match effect.reading {
            Reading::Approve => format!("allow {to} to take {amount} base units of {token}, or the one with that id"),
            _ => format!("allow {to} to take {amount} base units of {token}"),
        },
        EffectKind::OperatorApproval if effect.amount.is_zero() => {
            format!("no longer let {to} take what this account has of {token}")
        }
        EffectKind::OperatorApproval => format!("let {to} take everything that this account has of {token}"),
        EffectKind::ContractCall => {
            let method = effect.method.as_ref().map(Method::to_text).unwrap_or_default();
            let call = format!("call method {method} of the contract {contract} with {amount} wei");
            match &effect.reading {
                Reading::TransferFrom { to, value } => {
                    format!(
                        "{call}, which sends {value} base units of its token, or the one with that id, to {}",
                        lower_hex(to)
                    )
                }
                _ => call,
            }
        }
        EffectKind::ContractCreation => format!("create a contract with {amount} wei"),
        EffectKind::AccountDelegation if effect.amount.is_zero() => "take an account's delegation back".into(),
        EffectKind::AccountDelegation => {
            let chain = match effect.chain.id() {
                0 => "every chain".to_owned(),
                id => format!("chain {id}"),
            };
            format!("let the contract {to} act as an account on {chain}, with all that it holds")
        }
        EffectKind::BitcoinOutput if effect.to.is_none() => "pay to nobody but this key".into(),
        EffectKind::BitcoinOutput => format!("send {amount} satoshi to the script {to}"),
        EffectKind::TypedData => {
            let data = effect.typed_data.as_ref();
            let primary = data.map(|data| data.primary_type.as_str()).unwrap_or_default();
            let domain = data.and_then(|data| data.domain_name.as_deref()).unwrap_or_default();
            format!("sign typed data `{primary}` for {domain:?} of the contract {contract}, whose meaning is not known")
        }
        EffectKind::Message => format!("sign the message {:?}", effect.message.as_deref().unwrap_or_default()),
    }
}

/// Permit2 and the like, which move a token that is not theirs.
fn through(effect: &Effect) -> String {
    match (effect.contract_beside_token(), &effect.method) {
        (None, _) => String::new(),
        (Some(contract), Some(method)) => {
            format!(", by method {} of the contract {}", method.to_text(), lower_hex(&contract))
        }
        (Some(contract), None) => format!(", by typed data for the contract {}", lower_hex(&contract)),
    }
}

fn amount(effect: &Effect) -> String {
    match effect.kind {
        EffectKind::Allowance if effect.amount == U256::MAX => "unlimited".into(),
        _ => effect.amount.to_string(),
    }
}

fn token(asset: AssetRef) -> Option<String> {
    match asset {
        AssetRef::Token(contract) => Some(lower_hex(&contract)),
        AssetRef::Native | AssetRef::Anything | AssetRef::Nothing => None,
    }
}

/// The largest whole number that canonical JSON (RFC 8785) holds exactly.
const MAX_JSON_NUMBER: u64 = (1 << 53) - 1;

/// A number, or its decimal text where canonical JSON could not hold it exactly.
pub(super) fn number(value: u64) -> Value {
    if value <= MAX_JSON_NUMBER { value.into() } else { value.to_string().into() }
}
