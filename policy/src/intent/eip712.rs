//! Typed data (EIP-712), from its JSON text.
//!
//! Every member must be declared, and everything declared must be there, in the type's range and once. The hash is computed
//! here from the values that were read, and a second time by alloy; they must agree.

use alloy_primitives::{U256, keccak256};
use casemate_wire::Digest32;
use serde_json::json;

use super::Understood;
use super::effect::{AssetRef, Chain, Effect, EffectKind, TypedData, lower_hex};

mod json;
mod permits;
mod second_opinion;
mod types;
mod values;

use json::Json;
use types::Types;
use values::Struct;

/// The type of the domain.
const DOMAIN: &str = "EIP712Domain";
/// What a domain may have, in EIP-712's order.
const DOMAIN_MEMBERS: [(&str, &str); 5] = [
    ("name", "string"),
    ("version", "string"),
    ("chainId", "uint256"),
    ("verifyingContract", "address"),
    ("salt", "bytes32"),
];

/// Reads the JSON text of typed data: exactly `types`, `primaryType`, `domain` and `message`.
pub(super) fn decode(text: &str) -> Result<Understood, String> {
    let [types, primary_type, domain, message] =
        json::parse(text)?.members(["types", "primaryType", "domain", "message"], "typed data")?;
    let types = Types::read(&types)?;
    let Json::Text(primary_type) = primary_type else {
        return Err("`primaryType` is not a text".into());
    };
    if primary_type == DOMAIN {
        return Err("`primaryType` is the domain itself: there is no message in it".into());
    }
    check_domain_type(&types)?;
    types.bound(&primary_type)?;
    let domain = Struct::read(&types, DOMAIN, &domain, "domain")?;
    let message = Struct::read(&types, &primary_type, &message, "message")?;

    let mut preimage = vec![0x19, 0x01];
    preimage.extend(domain.hash(&types)?);
    preimage.extend(message.hash(&types)?);
    let digest = keccak256(preimage);
    if digest != second_opinion::digest(&types, &primary_type, &domain, &message)? {
        return Err(
            "two ways to hash it disagree: it uses something that implementations of EIP-712 differ about".into()
        );
    }

    let chain = chain(&domain)?;
    let contract = domain.address("verifyingContract");
    let facts = TypedData {
        domain_name: domain.text("name"),
        verifying_contract: contract.as_ref().map(lower_hex),
        primary_type: primary_type.clone(),
    };
    let unknown = Effect {
        contract,
        asset: AssetRef::Anything,
        amount: U256::MAX,
        typed_data: Some(facts),
        ..Effect::bare(EffectKind::TypedData, chain)
    };
    let effects = permits::effects(&types, &message, &unknown)?.unwrap_or_else(|| (unknown, Vec::new()));
    let description = json!({
        "type": "eip712",
        "primary_type": primary_type,
        "domain": domain.to_json(),
        "message": message.to_json(),
    });
    Ok(Understood::new(Digest32(digest.0), effects, description, "As typed data (EIP-712)".into()))
}

/// The domain must have at least one of the standard's members, with their types, in its order: wallets hash them in that
/// order whatever the declaration says.
fn check_domain_type(types: &Types) -> Result<(), String> {
    let declared = types.members(DOMAIN).ok_or("`types` does not declare EIP712Domain")?;
    let mut standard = DOMAIN_MEMBERS.iter();
    let in_order = declared
        .iter()
        .all(|member| standard.any(|(name, type_name)| *name == member.name && *type_name == member.type_name));
    if declared.is_empty() || !in_order {
        return Err("EIP712Domain must have one or more of name (string), version (string), chainId (uint256), \
             verifyingContract (address) and salt (bytes32), in this order"
            .into());
    }
    Ok(())
}

fn chain(domain: &Struct) -> Result<Chain, String> {
    match domain.uint("chainId") {
        // A signature for no chain is one for every chain.
        None => Ok(Chain::Ethereum(0)),
        Some(id) => u64::try_from(id)
            .ok()
            .filter(|id| i64::try_from(*id).is_ok())
            .map(Chain::Ethereum)
            .ok_or_else(|| "the domain's chain id is larger than policies can hold".into()),
    }
}

#[cfg(test)]
mod tests;
