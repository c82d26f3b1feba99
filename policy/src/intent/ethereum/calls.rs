//! Calls whose meaning is known: tokens (EIP-20, EIP-721, EIP-1155), permits (EIP-2612, DAI) and Uniswap's Permit2.

use alloy_primitives::{Address, U256, address};

use super::abi::{self, Arguments};
use crate::intent::effect::{Account, AssetRef, Effect, EffectKind, Method, Reading, Standard};

/// Permit2. Deployed by CREATE2, so that its address is the same on every chain that computes addresses as Ethereum does.
/// What names the token beside the contract is believed of this contract alone: on another one the token would be an
/// argument that need not mean anything.
pub(in crate::intent) const PERMIT2: Address = address!("000000000022d473030f116ddee9f6b43ac78ba3");

/// A known method: its selector, which a test recomputes from the signature.
pub(super) struct KnownCall {
    pub(super) selector: [u8; 4],
    pub(super) signature: &'static str,
    /// The one contract that has it; `None` for a method of every token.
    pub(super) only_on: Option<Address>,
    does: fn(&Call, &Arguments<'_>) -> Result<Vec<Effect>, String>,
}

const fn known(
    selector: u32,
    signature: &'static str,
    does: fn(&Call, &Arguments<'_>) -> Result<Vec<Effect>, String>,
) -> KnownCall {
    KnownCall { selector: selector.to_be_bytes(), signature, only_on: None, does }
}

const fn on_permit2(
    selector: u32,
    signature: &'static str,
    does: fn(&Call, &Arguments<'_>) -> Result<Vec<Effect>, String>,
) -> KnownCall {
    KnownCall { selector: selector.to_be_bytes(), signature, only_on: Some(PERMIT2), does }
}

/// A known selector with arguments of another shape is malformed, on whatever contract it is called; those of Permit2 are
/// known on Permit2 alone.
pub(super) const KNOWN: &[KnownCall] = &[
    known(0xa905_9cbb, "transfer(address,uint256)", transfer),
    known(0x23b8_72dd, "transferFrom(address,address,uint256)", transfer_from),
    known(0x095e_a7b3, "approve(address,uint256)", approve),
    known(0x3950_9351, "increaseAllowance(address,uint256)", increase_allowance),
    known(0x4284_2e0e, "safeTransferFrom(address,address,uint256)", safe_transfer_721),
    known(0xb88d_4fde, "safeTransferFrom(address,address,uint256,bytes)", safe_transfer_721),
    known(0xf242_432a, "safeTransferFrom(address,address,uint256,uint256,bytes)", safe_transfer_1155),
    known(0x2eb2_c2d6, "safeBatchTransferFrom(address,address,uint256[],uint256[],bytes)", safe_batch_transfer),
    known(0xa22c_b465, "setApprovalForAll(address,bool)", set_approval_for_all),
    known(0xd505_accf, "permit(address,address,uint256,uint256,uint8,bytes32,bytes32)", permit_eip2612),
    known(0x8fcb_af0c, "permit(address,address,uint256,uint256,bool,uint8,bytes32,bytes32)", permit_dai),
    on_permit2(0x8751_7c45, "approve(address,address,uint160,uint48)", permit2_approve),
    on_permit2(0x2b67_b570, "permit(address,((address,uint160,uint48,uint48),address,uint256),bytes)", permit2_permit),
    on_permit2(
        0x2a2d_80d1,
        "permit(address,((address,uint160,uint48,uint48)[],address,uint256),bytes)",
        permit2_permit_batch,
    ),
    on_permit2(0x36c7_8516, "transferFrom(address,address,uint160,address)", permit2_transfer_from),
];

/// A call before its arguments are read.
pub(super) struct Call {
    /// The transaction's own coin, as it goes to the contract.
    native: Effect,
    contract: Address,
    method: Method,
}

/// What a call does. `native` is the transfer of its value to `contract`.
pub(super) fn effects(native: Effect, contract: Address, input: &[u8]) -> Result<(Effect, Vec<Effect>), String> {
    let Some((selector, arguments)) = input.split_first_chunk::<4>() else {
        return Ok((contract_call(native, contract, Method::Fallback), Vec::new()));
    };
    let here = |known: &&KnownCall| known.only_on.is_none_or(|only| only == contract);
    let Some(known) = KNOWN.iter().find(|known| known.selector == *selector).filter(here) else {
        return Ok((contract_call(native, contract, Method::Selector((*selector).into())), Vec::new()));
    };
    let name = known.signature.split('(').next().unwrap_or(known.signature);
    let call = Call { native, contract, method: Method::Known(name) };
    let tokens = abi::decode(known.signature, arguments, |arguments| (known.does)(&call, arguments))?;
    let native = Effect { contract: Some(contract), method: Some(call.method), ..call.native };
    let mut tokens = tokens.into_iter();
    match tokens.next() {
        // An empty batch: nothing but the call itself and its value.
        None => Ok((Effect { kind: EffectKind::ContractCall, ..native }, Vec::new())),
        Some(first) if native.amount.is_zero() => Ok((first, tokens.collect())),
        Some(first) => Ok((native, std::iter::once(first).chain(tokens).collect())),
    }
}

fn contract_call(native: Effect, contract: Address, method: Method) -> Effect {
    Effect { kind: EffectKind::ContractCall, contract: Some(contract), method: Some(method), ..native }
}

impl Call {
    /// An effect on `asset`, of which `amount` goes to or may be taken by `to`.
    fn token(&self, kind: EffectKind, asset: Address, to: Address, amount: U256, reading: Reading) -> Effect {
        Effect {
            kind,
            to: Some(Account::Ethereum(to)),
            contract: Some(self.contract),
            method: Some(self.method.clone()),
            asset: AssetRef::Token(asset),
            amount,
            reading,
            ..self.native.clone()
        }
    }

    fn one(&self, kind: EffectKind, to: Address, amount: U256, reading: Reading) -> Vec<Effect> {
        vec![self.token(kind, self.contract, to, amount, reading)]
    }
}

fn transfer(call: &Call, arguments: &Arguments<'_>) -> Result<Vec<Effect>, String> {
    let (to, amount) = (arguments.address(0)?, arguments.uint(1)?);
    Ok(call.one(EffectKind::TokenTransfer, to, amount, Reading::Of(Standard::Erc20)))
}

/// ERC-20 and ERC-721 share this method: the asset table says whether the number is an amount or an id.
fn transfer_from(call: &Call, arguments: &Arguments<'_>) -> Result<Vec<Effect>, String> {
    let (to, value) = (arguments.address(1)?, arguments.uint(2)?);
    let native = Effect { amount: U256::ZERO, ..call.native.clone() };
    let effect = contract_call(native, call.contract, call.method.clone());
    Ok(vec![Effect { reading: Reading::TransferFrom { to, value }, ..effect }])
}

fn approve(call: &Call, arguments: &Arguments<'_>) -> Result<Vec<Effect>, String> {
    let (to, amount) = (arguments.address(0)?, arguments.uint(1)?);
    Ok(call.one(EffectKind::Allowance, to, amount, Reading::Approve))
}

fn increase_allowance(call: &Call, arguments: &Arguments<'_>) -> Result<Vec<Effect>, String> {
    let (to, amount) = (arguments.address(0)?, arguments.uint(1)?);
    Ok(call.one(EffectKind::Allowance, to, amount, Reading::Of(Standard::Erc20)))
}

fn safe_transfer_721(call: &Call, arguments: &Arguments<'_>) -> Result<Vec<Effect>, String> {
    let (to, id) = (arguments.address(1)?, arguments.uint(2)?);
    let nft = call.token(EffectKind::NftTransfer, call.contract, to, U256::ONE, Reading::Of(Standard::Erc721));
    Ok(vec![Effect { token_id: Some(id), ..nft }])
}

fn safe_transfer_1155(call: &Call, arguments: &Arguments<'_>) -> Result<Vec<Effect>, String> {
    let (to, id, amount) = (arguments.address(1)?, arguments.uint(2)?, arguments.uint(3)?);
    let nft = call.token(EffectKind::NftTransfer, call.contract, to, amount, Reading::Of(Standard::Erc1155));
    Ok(vec![Effect { token_id: Some(id), ..nft }])
}

fn safe_batch_transfer(call: &Call, arguments: &Arguments<'_>) -> Result<Vec<Effect>, String> {
    let (to, ids, amounts) = (arguments.address(1)?, arguments.uints(2)?, arguments.uints(3)?);
    if ids.len() != amounts.len() {
        return Err(format!("`safeBatchTransferFrom` has {} ids but {} amounts", ids.len(), amounts.len()));
    }
    let nft = call.token(EffectKind::NftTransfer, call.contract, to, U256::ZERO, Reading::Of(Standard::Erc1155));
    Ok(ids.into_iter().zip(amounts).map(|(id, amount)| Effect { token_id: Some(id), amount, ..nft.clone() }).collect())
}

fn set_approval_for_all(call: &Call, arguments: &Arguments<'_>) -> Result<Vec<Effect>, String> {
    let (to, approved) = (arguments.address(0)?, arguments.bool(1)?);
    Ok(call.one(EffectKind::OperatorApproval, to, unlimited(approved), Reading::Settled))
}

fn permit_eip2612(call: &Call, arguments: &Arguments<'_>) -> Result<Vec<Effect>, String> {
    let (to, amount) = (arguments.address(1)?, arguments.uint(2)?);
    Ok(call.one(EffectKind::Allowance, to, amount, Reading::Of(Standard::Erc20)))
}

fn permit_dai(call: &Call, arguments: &Arguments<'_>) -> Result<Vec<Effect>, String> {
    let (to, allowed) = (arguments.address(1)?, arguments.bool(4)?);
    Ok(call.one(EffectKind::Allowance, to, unlimited(allowed), Reading::Of(Standard::Erc20)))
}

fn permit2_approve(call: &Call, arguments: &Arguments<'_>) -> Result<Vec<Effect>, String> {
    let (token, to, amount) = (arguments.address(0)?, arguments.address(1)?, arguments.uint(2)?);
    Ok(vec![call.token(EffectKind::Allowance, token, to, permit2_amount(amount), Reading::Of(Standard::Erc20))])
}

fn permit2_permit(call: &Call, arguments: &Arguments<'_>) -> Result<Vec<Effect>, String> {
    let permit = arguments.tuple(1)?;
    Ok(vec![permit2_details(call, &permit.tuple(0)?, permit.address(1)?)?])
}

fn permit2_permit_batch(call: &Call, arguments: &Arguments<'_>) -> Result<Vec<Effect>, String> {
    let permit = arguments.tuple(1)?;
    let spender = permit.address(1)?;
    permit.tuples(0)?.iter().map(|details| permit2_details(call, details, spender)).collect()
}

fn permit2_details(call: &Call, details: &Arguments<'_>, spender: Address) -> Result<Effect, String> {
    let (token, amount) = (details.address(0)?, details.uint(1)?);
    Ok(call.token(EffectKind::Allowance, token, spender, permit2_amount(amount), Reading::Of(Standard::Erc20)))
}

fn permit2_transfer_from(call: &Call, arguments: &Arguments<'_>) -> Result<Vec<Effect>, String> {
    let (to, amount, token) = (arguments.address(1)?, arguments.uint(2)?, arguments.address(3)?);
    Ok(vec![call.token(EffectKind::TokenTransfer, token, to, amount, Reading::Of(Standard::Erc20))])
}

/// Everything, or nothing where it is taken back.
pub(in crate::intent) fn unlimited(granted: bool) -> U256 {
    if granted { U256::MAX } else { U256::ZERO }
}

/// Permit2 counts in 160 bits, and takes the largest number for no limit.
pub(in crate::intent) fn permit2_amount(amount: U256) -> U256 {
    let no_limit = (U256::ONE << 160) - U256::ONE;
    if amount == no_limit { U256::MAX } else { amount }
}
