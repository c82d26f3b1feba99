//! Unsigned Ethereum transactions: EIP-1559 (type 2).

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, TxKind, U256, keccak256};
use alloy_rlp::{Decodable, Encodable};
use serde_json::{Value, json};

use super::erc20;
use super::{AssetRef, Effect, EffectKind, Method, Understood, digest};

/// The type byte of EIP-1559 in EIP-2718's envelope.
const TYPE_EIP1559: u8 = 2;
/// The largest whole number that canonical JSON (RFC 8785) holds exactly.
const MAX_JSON_NUMBER: u64 = (1 << 53) - 1;

/// Decodes `0x02 ‖ rlp([chain_id, nonce, …, access_list])`, the preimage of the hash that is signed (EIP-1559).
pub(super) fn decode(bytes: &[u8]) -> Result<Understood, String> {
    let tx = match bytes.split_first() {
        Some((&TYPE_EIP1559, rlp)) => decode_eip1559(rlp)?,
        Some((first, _)) => {
            return Err(format!(
                "transactions that begin with 0x{first:02x} are not known here: send an unsigned EIP-1559 transaction \
                 (0x02 and its RLP)"
            ));
        }
        None => return Err("the payload is empty".into()),
    };
    let (first, rest) = effects(&tx)?;
    let description = describe(&tx, std::iter::once(&first).chain(&rest));
    let summary = summarize(&tx, std::iter::once(&first).chain(&rest));
    Ok(Understood { digest: digest(keccak256(bytes)), first, rest, description, summary })
}

fn decode_eip1559(rlp: &[u8]) -> Result<TxEip1559, String> {
    let mut remaining = rlp;
    let tx = TxEip1559::decode(&mut remaining)
        .map_err(|error| format!("it is not the RLP of an unsigned EIP-1559 transaction: {error}"))?;
    if !remaining.is_empty() {
        return Err(format!("{} bytes follow the transaction", remaining.len()));
    }
    let mut again = Vec::with_capacity(rlp.len());
    tx.encode(&mut again);
    if again != rlp {
        return Err("it is not in RLP's canonical form".into());
    }
    if tx.chain_id == 0 {
        return Err("the chain id is missing: a signature would be valid on every chain".into());
    }
    if i64::try_from(tx.chain_id).is_err() {
        return Err("the chain id is larger than policies can hold".into());
    }
    Ok(tx)
}

/// A call that moves both native coin and tokens has two effects, so that policy sees both.
fn effects(tx: &TxEip1559) -> Result<(Effect, Vec<Effect>), String> {
    let native = Effect {
        kind: EffectKind::NativeTransfer,
        chain_id: tx.chain_id,
        to: None,
        contract: None,
        method: None,
        asset: AssetRef::Native,
        amount: tx.value,
        fee: max_fee(tx),
    };
    let TxKind::Call(to) = tx.to else {
        let creation = Effect { kind: EffectKind::ContractCreation, ..native };
        return Ok((creation, Vec::new()));
    };
    let native = Effect { to: Some(to), ..native };
    if tx.input.is_empty() {
        return Ok((native, Vec::new()));
    }
    let Some((selector, arguments)) = tx.input.split_first_chunk::<4>() else {
        return Ok((contract_call(&native, to, Method::Fallback), Vec::new()));
    };
    if *selector != erc20::TRANSFER {
        let method = Method::Selector((*selector).into());
        return Ok((contract_call(&native, to, method), Vec::new()));
    }
    let transfer = erc20::transfer_arguments(arguments)?;
    let token = Effect {
        kind: EffectKind::TokenTransfer,
        to: Some(transfer.to),
        contract: Some(to),
        method: Some(Method::Known("transfer")),
        asset: AssetRef::Token(to),
        amount: transfer.amount,
        ..native.clone()
    };
    if tx.value.is_zero() {
        return Ok((token, Vec::new()));
    }
    let attached = Effect { contract: Some(to), method: token.method.clone(), ..native };
    Ok((attached, vec![token]))
}

fn contract_call(native: &Effect, contract: Address, method: Method) -> Effect {
    Effect { kind: EffectKind::ContractCall, contract: Some(contract), method: Some(method), ..native.clone() }
}

fn max_fee(tx: &TxEip1559) -> U256 {
    // 64 bits times 128 bits always fit.
    U256::from(tx.gas_limit).saturating_mul(U256::from(tx.max_fee_per_gas))
}

fn describe<'a>(tx: &TxEip1559, effects: impl Iterator<Item = &'a Effect>) -> Value {
    let effects: Vec<Value> = effects.map(describe_effect).collect();
    json!({
        "type": "ethereum_transaction",
        "tx_type": TYPE_EIP1559,
        "chain_id": number(tx.chain_id),
        "nonce": number(tx.nonce),
        "to": tx.to.to().map(lower_hex),
        "value": tx.value.to_string(),
        "gas_limit": number(tx.gas_limit),
        "max_fee_per_gas": tx.max_fee_per_gas.to_string(),
        "max_priority_fee_per_gas": tx.max_priority_fee_per_gas.to_string(),
        "fee": max_fee(tx).to_string(),
        "data_bytes": tx.input.len(),
        "data_hash": hex::encode(keccak256(&tx.input)),
        "access_list_entries": tx.access_list.len(),
        "effects": effects,
    })
}

fn describe_effect(effect: &Effect) -> Value {
    let mut fields = serde_json::Map::new();
    fields.insert("kind".into(), effect.kind.as_str().into());
    fields.insert("amount".into(), effect.amount.to_string().into());
    if let Some(to) = &effect.to {
        fields.insert("to".into(), lower_hex(to).into());
    }
    if let Some(contract) = &effect.contract {
        fields.insert("contract".into(), lower_hex(contract).into());
    }
    if let Some(method) = &effect.method {
        fields.insert("method".into(), method.to_text().into());
    }
    fields.into()
}

fn summarize<'a>(tx: &TxEip1559, effects: impl Iterator<Item = &'a Effect>) -> String {
    let parts: Vec<String> = effects.map(summarize_effect).collect();
    format!(
        "On Ethereum chain {}, as transaction number {} of the account: {}. Fees: at most {} wei.",
        tx.chain_id,
        tx.nonce,
        parts.join("; and "),
        max_fee(tx),
    )
}

fn summarize_effect(effect: &Effect) -> String {
    let amount = effect.amount;
    let account = |address: &Option<Address>| address.as_ref().map(lower_hex).unwrap_or_default();
    let (to, contract) = (account(&effect.to), account(&effect.contract));
    match effect.kind {
        EffectKind::NativeTransfer => format!("send {amount} wei to {to}"),
        EffectKind::TokenTransfer => {
            format!("send {amount} base units of the token {contract} to {to}")
        }
        EffectKind::ContractCall => {
            let method = effect.method.as_ref().map(Method::to_text).unwrap_or_default();
            format!("call method {method} of the contract {contract} with {amount} wei")
        }
        EffectKind::ContractCreation => format!("create a contract with {amount} wei"),
    }
}

pub(crate) fn lower_hex(address: &Address) -> String {
    format!("0x{}", hex::encode(address))
}

fn number(value: u64) -> Value {
    if value <= MAX_JSON_NUMBER { value.into() } else { value.to_string().into() }
}

#[cfg(test)]
mod tests;
