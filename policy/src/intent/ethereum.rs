//! Unsigned Ethereum transactions: legacy with EIP-155, EIP-2930, EIP-1559, EIP-4844 and EIP-7702.

use alloy_eips::eip7702::SignedAuthorization;
use alloy_primitives::{Address, Bytes, U256, keccak256};
use casemate_wire::Digest32;
use serde_json::{Map, Value, json};

use super::effect::{Account, AssetRef, Chain, Effect, EffectKind, lower_hex};
use super::{Understood, words};

mod abi;
mod calls;
mod envelope;

pub(super) use calls::{PERMIT2, permit2_amount, unlimited};

/// Decodes the preimage of the hash that is signed: `type ‖ rlp([…])` (EIP-2718), or `rlp([…, chain id, 0, 0])` (EIP-155).
pub(super) fn decode(bytes: &[u8]) -> Result<Understood, String> {
    let tx = envelope::decode(bytes)?;
    let effects = effects(&tx)?;
    let preamble = match tx.nonce {
        nonce if tx.to.is_none() => format!("On Ethereum chain {}, as transaction number {nonce}", tx.chain_id),
        nonce => format!("On Ethereum chain {}, as transaction number {nonce} of the account", tx.chain_id),
    };
    let digest = Digest32(keccak256(bytes).0);
    Ok(Understood::new(digest, effects, describe(&tx), preamble))
}

/// An unsigned transaction of any type.
struct UnsignedTx {
    tx_type: u8,
    chain_id: u64,
    nonce: u64,
    gas_limit: u64,
    /// `None` creates a contract.
    to: Option<Address>,
    value: U256,
    input: Bytes,
    access_list_entries: usize,
    /// The most that gas and blobs can cost, in wei.
    max_fee: U256,
    /// The fee fields of its type, in wei, as they are named there.
    prices: Vec<(&'static str, u128)>,
    blobs: usize,
    authorizations: Vec<SignedAuthorization>,
}

/// What the transaction itself does comes first, then the accounts that it delegates. A call that moves both native coin
/// and tokens has an effect for each, so that policy sees both.
fn effects(tx: &UnsignedTx) -> Result<(Effect, Vec<Effect>), String> {
    let chain = Chain::Ethereum(tx.chain_id);
    let native = Effect {
        amount: tx.value,
        fee: tx.max_fee,
        to: tx.to.map(Account::Ethereum),
        ..Effect::bare(EffectKind::NativeTransfer, chain)
    };
    let (first, mut rest) = match tx.to {
        None => (Effect { kind: EffectKind::ContractCreation, ..native }, Vec::new()),
        Some(_) if tx.input.is_empty() => (native, Vec::new()),
        Some(to) => calls::effects(native, to, &tx.input)?,
    };
    for authorization in &tx.authorizations {
        rest.push(delegation(tx, authorization)?);
    }
    Ok((first, rest))
}

/// An authorization hands an account to a contract's code, on one chain or, with chain id 0, on all (EIP-7702). The zero
/// address takes an earlier delegation back.
fn delegation(tx: &UnsignedTx, authorization: &SignedAuthorization) -> Result<Effect, String> {
    let chain_id = u64::try_from(authorization.chain_id)
        .ok()
        .filter(|id| i64::try_from(*id).is_ok())
        .ok_or("the chain id of an authorization is larger than policies can hold")?;
    let delegate = *authorization.address();
    Ok(Effect {
        to: Some(Account::Ethereum(delegate)),
        asset: AssetRef::Anything,
        amount: if delegate.is_zero() { U256::ZERO } else { U256::MAX },
        fee: tx.max_fee,
        ..Effect::bare(EffectKind::AccountDelegation, Chain::Ethereum(chain_id))
    })
}

fn describe(tx: &UnsignedTx) -> Value {
    let mut fields = Map::new();
    let mut add = |name: &str, value: Value| {
        fields.insert(name.to_owned(), value);
    };
    add("type", "ethereum_transaction".into());
    add("tx_type", tx.tx_type.into());
    add("chain_id", words::number(tx.chain_id));
    add("nonce", words::number(tx.nonce));
    add("to", json!(tx.to.as_ref().map(lower_hex)));
    add("value", tx.value.to_string().into());
    add("gas_limit", words::number(tx.gas_limit));
    for (name, price) in &tx.prices {
        add(name, price.to_string().into());
    }
    add("fee", tx.max_fee.to_string().into());
    add("data_bytes", tx.input.len().into());
    add("data_hash", hex::encode(keccak256(&tx.input)).into());
    add("access_list_entries", tx.access_list_entries.into());
    if tx.blobs > 0 {
        add("blobs", tx.blobs.into());
    }
    if !tx.authorizations.is_empty() {
        add("authorizations", tx.authorizations.len().into());
    }
    fields.into()
}

#[cfg(test)]
mod tests;
