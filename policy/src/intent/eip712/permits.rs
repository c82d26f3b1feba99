//! Typed data that tokens act on: EIP-2612 and DAI permits, Uniswap's Permit2, and EIP-3009 transfers.
//!
//! A contract recognises these by the hash of the type, so they are recognised here by the whole type, not by its name.
//! Tokens check their own permits; those of Permit2 name a token, and are believed only if Permit2 itself checks them.

use alloy_primitives::{Address, U256};

use super::types::Types;
use super::values::Struct;
use crate::intent::effect::{Account, AssetRef, Effect, EffectKind, Reading, Standard};
use crate::intent::ethereum::{PERMIT2, permit2_amount, unlimited};

const EIP2612: &str = "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)";
const DAI: &str = "Permit(address holder,address spender,uint256 nonce,uint256 expiry,bool allowed)";
const EIP3009: [&str; 2] = [
    "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)",
    "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)",
];
const DETAILS: &str = "PermitDetails(address token,uint160 amount,uint48 expiration,uint48 nonce)";
const PERMISSIONS: &str = "TokenPermissions(address token,uint256 amount)";
/// Permit2's allowances, before their `PermitDetails`.
const ALLOWANCES: [&str; 2] = [
    "PermitSingle(PermitDetails details,address spender,uint256 sigDeadline)",
    "PermitBatch(PermitDetails[] details,address spender,uint256 sigDeadline)",
];
/// Permit2's transfers by signature, before their `TokenPermissions`.
const TRANSFERS: [&str; 2] = [
    "PermitTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline)",
    "PermitBatchTransferFrom(TokenPermissions[] permitted,address spender,uint256 nonce,uint256 deadline)",
];
/// The same with a witness: a last member of the application's own type.
const WITNESS_TRANSFERS: [&str; 2] = [
    "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,",
    "PermitBatchWitnessTransferFrom(TokenPermissions[] permitted,address spender,uint256 nonce,uint256 deadline,",
];

/// The effects of a message whose type is known; `unknown` is the effect of one that is not. A message that needs a
/// contract and names none, or permits nothing, is not one of them.
pub(super) fn effects(
    types: &Types,
    message: &Struct,
    unknown: &Effect,
) -> Result<Option<(Effect, Vec<Effect>)>, String> {
    let Some(verifier) = unknown.contract else { return Ok(None) };
    let encoded = types.encode_type(&type_name(unknown));
    let for_permit2 = verifier == PERMIT2;
    let permits = |token, to, amount| token_effect(unknown, EffectKind::Allowance, token, to, amount);
    let encoded = encoded.as_str();
    let all = if encoded == EIP2612 {
        vec![permits(verifier, address(message, "spender")?, uint(message, "value")?)]
    } else if encoded == DAI {
        let allowed = message.bool("allowed").ok_or("`message.allowed` is missing")?;
        vec![permits(verifier, address(message, "spender")?, unlimited(allowed))]
    } else if EIP3009.contains(&encoded) {
        let (to, amount) = (address(message, "to")?, uint(message, "value")?);
        vec![token_effect(unknown, EffectKind::TokenTransfer, verifier, to, amount)]
    } else if for_permit2 && ALLOWANCES.iter().any(|own| encoded.strip_prefix(own) == Some(DETAILS)) {
        let spender = address(message, "spender")?;
        let details = message.structs("details").into_iter();
        let each = details
            .map(|one| Ok::<_, String>(permits(address(one, "token")?, spender, permit2_amount(uint(one, "amount")?))));
        each.collect::<Result<_, _>>()?
    } else if for_permit2 && is_transfer(types, encoded) {
        let spender = address(message, "spender")?;
        let permitted = message.structs("permitted").into_iter();
        let each = permitted.map(|one| Ok::<_, String>(permits(address(one, "token")?, spender, uint(one, "amount")?)));
        each.collect::<Result<_, _>>()?
    } else {
        return Ok(None);
    };
    let mut all: std::vec::IntoIter<Effect> = all.into_iter();
    Ok(all.next().map(|first| (first, all.collect())))
}

fn is_transfer(types: &Types, encoded: &str) -> bool {
    TRANSFERS.iter().any(|own| encoded.strip_prefix(own) == Some(PERMISSIONS))
        || (WITNESS_TRANSFERS.iter().any(|own| encoded.starts_with(own))
            && types.encode_type("TokenPermissions") == PERMISSIONS)
}

fn type_name(unknown: &Effect) -> String {
    unknown.typed_data.as_ref().map(|data| data.primary_type.clone()).unwrap_or_default()
}

fn token_effect(unknown: &Effect, kind: EffectKind, token: Address, to: Address, amount: U256) -> Effect {
    Effect {
        kind,
        to: Some(Account::Ethereum(to)),
        asset: AssetRef::Token(token),
        amount,
        reading: Reading::Of(Standard::Erc20),
        ..unknown.clone()
    }
}

fn address(of: &Struct, name: &str) -> Result<Address, String> {
    of.address(name).ok_or_else(|| format!("`{name}` is not an address"))
}

fn uint(of: &Struct, name: &str) -> Result<U256, String> {
    of.uint(name).ok_or_else(|| format!("`{name}` is not a number"))
}
