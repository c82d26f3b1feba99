//! The envelope: which type a transaction has, in its one canonical encoding.

use alloy_consensus::{SignableTransaction, TxEip1559, TxEip2930, TxEip4844, TxEip7702, TxLegacy};
use alloy_primitives::{Address, TxKind, U256};
use alloy_rlp::{Decodable, Header};

use super::UnsignedTx;

/// EIP-4844's `GAS_PER_BLOB`.
const GAS_PER_BLOB: u64 = 1 << 17;
/// EIP-4844's `VERSIONED_HASH_VERSION_KZG`.
const KZG_VERSION: u8 = 1;
/// The first byte of what an EIP-7702 authorization signs.
const EIP7702_MAGIC: u8 = 0x05;
/// Fields of an unsigned legacy transaction before EIP-155.
const LEGACY_FIELDS: usize = 6;
/// Its fields with the chain id, and two empty places for r and s.
const EIP155_FIELDS: usize = 9;

const KNOWN: &str = "send an unsigned legacy transaction with its chain id (EIP-155), or one of type 1, 2, 3 or 4";

pub(super) fn decode(bytes: &[u8]) -> Result<UnsignedTx, String> {
    let tx = match bytes.split_first() {
        Some((1, rlp)) => eip2930(&exact(rlp, "EIP-2930")?),
        Some((2, rlp)) => eip1559(&exact(rlp, "EIP-1559")?),
        Some((3, rlp)) => eip4844(&exact(rlp, "EIP-4844")?)?,
        Some((4, rlp)) => eip7702(&exact(rlp, "EIP-7702")?)?,
        Some((&EIP7702_MAGIC, _)) => {
            return Err(
                "it is the preimage of an EIP-7702 authorization, not a transaction: whoever has it signed can \
                 do anything with the account, and this appliance signs none"
                    .into(),
            );
        }
        Some((0xc0.., _)) => legacy(bytes)?,
        Some((first, _)) => {
            return Err(format!("transactions that begin with 0x{first:02x} are not known here: {KNOWN}"));
        }
        None => return Err(format!("the payload is empty: {KNOWN}")),
    };
    if tx.chain_id == 0 {
        return Err("the chain id is missing: a signature would be valid on every chain".into());
    }
    if i64::try_from(tx.chain_id).is_err() {
        return Err("the chain id is larger than policies can hold".into());
    }
    Ok(tx)
}

/// Decodes all of `rlp`, encodes it again as it would be signed, and compares.
fn exact<T: Decodable + SignableTransaction<alloy_primitives::Signature>>(rlp: &[u8], name: &str) -> Result<T, String> {
    let mut remaining = rlp;
    let tx = T::decode(&mut remaining)
        .map_err(|error| format!("it is not the RLP of an unsigned {name} transaction: {error}"))?;
    if !remaining.is_empty() {
        return Err(format!("{} bytes follow the transaction", remaining.len()));
    }
    let again = tx.encoded_for_signing();
    // A typed transaction is signed with its type byte before it, which the caller has taken off.
    let typed = again.len() == rlp.len().saturating_add(1);
    if again.get(usize::from(typed)..) != Some(rlp) {
        return Err("it is not in RLP's canonical form".into());
    }
    Ok(tx)
}

fn legacy(bytes: &[u8]) -> Result<UnsignedTx, String> {
    let fields = fields_of(bytes)?;
    match fields.as_slice() {
        fields if fields.len() == LEGACY_FIELDS => {
            return Err("the chain id is missing: add it and two empty fields (EIP-155), since a signature would be \
                 valid on every chain"
                .into());
        }
        [.., _, r, s] if fields.len() == EIP155_FIELDS => {
            if *r != [0x80] || *s != [0x80] {
                return Err("its last two fields are not empty: a transaction that is signed already, or a preimage \
                     that no wallet makes"
                    .into());
            }
        }
        fields => {
            return Err(format!(
                "an unsigned legacy transaction has {EIP155_FIELDS} fields with the chain id (EIP-155), not {}",
                fields.len()
            ));
        }
    }
    let tx: TxLegacy = exact(bytes, "legacy")?;
    Ok(UnsignedTx {
        tx_type: 0,
        chain_id: tx.chain_id.unwrap_or(0),
        nonce: tx.nonce,
        gas_limit: tx.gas_limit,
        to: receiver(tx.to),
        value: tx.value,
        max_fee: gas_fee(tx.gas_limit, tx.gas_price),
        prices: vec![("gas_price", tx.gas_price)],
        input: tx.input,
        access_list_entries: 0,
        blobs: 0,
        authorizations: Vec::new(),
    })
}

/// The items of an RLP list, each with its header; nothing may follow the list.
fn fields_of(bytes: &[u8]) -> Result<Vec<&[u8]>, String> {
    let broken = |error: alloy_rlp::Error| format!("it is not the RLP of an unsigned legacy transaction: {error}");
    let mut remaining = bytes;
    let mut list = Header::decode_bytes(&mut remaining, true).map_err(broken)?;
    if !remaining.is_empty() {
        return Err(format!("{} bytes follow the transaction", remaining.len()));
    }
    let mut fields = Vec::new();
    while !list.is_empty() {
        let before = list;
        let header = Header::decode(&mut list).map_err(broken)?;
        list = list.get(header.payload_length..).ok_or_else(|| broken(alloy_rlp::Error::InputTooShort))?;
        fields.push(before.get(..before.len() - list.len()).unwrap_or(before));
    }
    Ok(fields)
}

fn eip2930(tx: &TxEip2930) -> UnsignedTx {
    UnsignedTx {
        tx_type: 1,
        chain_id: tx.chain_id,
        nonce: tx.nonce,
        gas_limit: tx.gas_limit,
        to: receiver(tx.to),
        value: tx.value,
        input: tx.input.clone(),
        access_list_entries: tx.access_list.len(),
        max_fee: gas_fee(tx.gas_limit, tx.gas_price),
        prices: vec![("gas_price", tx.gas_price)],
        blobs: 0,
        authorizations: Vec::new(),
    }
}

fn eip1559(tx: &TxEip1559) -> UnsignedTx {
    UnsignedTx {
        tx_type: 2,
        chain_id: tx.chain_id,
        nonce: tx.nonce,
        gas_limit: tx.gas_limit,
        to: receiver(tx.to),
        value: tx.value,
        input: tx.input.clone(),
        access_list_entries: tx.access_list.len(),
        max_fee: gas_fee(tx.gas_limit, tx.max_fee_per_gas),
        prices: prices(tx.max_fee_per_gas, tx.max_priority_fee_per_gas),
        blobs: 0,
        authorizations: Vec::new(),
    }
}

fn eip4844(tx: &TxEip4844) -> Result<UnsignedTx, String> {
    if tx.blob_versioned_hashes.is_empty() {
        return Err("a transaction of type 3 has at least one blob (EIP-4844)".into());
    }
    if tx.blob_versioned_hashes.iter().any(|hash| hash.first() != Some(&KZG_VERSION)) {
        return Err("a versioned hash of a blob does not begin with 0x01 (EIP-4844)".into());
    }
    let blobs = tx.blob_versioned_hashes.len();
    let blob_fee =
        U256::from(GAS_PER_BLOB).saturating_mul(U256::from(blobs)).saturating_mul(U256::from(tx.max_fee_per_blob_gas));
    let mut prices = prices(tx.max_fee_per_gas, tx.max_priority_fee_per_gas);
    prices.push(("max_fee_per_blob_gas", tx.max_fee_per_blob_gas));
    Ok(UnsignedTx {
        tx_type: 3,
        chain_id: tx.chain_id,
        nonce: tx.nonce,
        gas_limit: tx.gas_limit,
        to: Some(tx.to),
        value: tx.value,
        input: tx.input.clone(),
        access_list_entries: tx.access_list.len(),
        max_fee: gas_fee(tx.gas_limit, tx.max_fee_per_gas).saturating_add(blob_fee),
        prices,
        blobs,
        authorizations: Vec::new(),
    })
}

fn eip7702(tx: &TxEip7702) -> Result<UnsignedTx, String> {
    if tx.authorization_list.is_empty() {
        return Err("a transaction of type 4 has at least one authorization (EIP-7702)".into());
    }
    Ok(UnsignedTx {
        tx_type: 4,
        chain_id: tx.chain_id,
        nonce: tx.nonce,
        gas_limit: tx.gas_limit,
        to: Some(tx.to),
        value: tx.value,
        input: tx.input.clone(),
        access_list_entries: tx.access_list.len(),
        max_fee: gas_fee(tx.gas_limit, tx.max_fee_per_gas),
        prices: prices(tx.max_fee_per_gas, tx.max_priority_fee_per_gas),
        blobs: 0,
        authorizations: tx.authorization_list.clone(),
    })
}

fn prices(max_fee_per_gas: u128, max_priority_fee_per_gas: u128) -> Vec<(&'static str, u128)> {
    vec![("max_fee_per_gas", max_fee_per_gas), ("max_priority_fee_per_gas", max_priority_fee_per_gas)]
}

fn receiver(to: TxKind) -> Option<Address> {
    to.to().copied()
}

/// 64 bits times 128 bits always fit.
fn gas_fee(gas_limit: u64, price: u128) -> U256 {
    U256::from(gas_limit).saturating_mul(U256::from(price))
}
