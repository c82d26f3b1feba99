//! The hash of typed data computed with alloy, from the values that were read here rather than from the text.

use std::collections::BTreeMap;

use alloy_dyn_abi::DynSolValue;
use alloy_dyn_abi::eip712::Resolver;
use alloy_primitives::{B256, keccak256};
use alloy_sol_types::Eip712Domain;

use super::types::Types;
use super::values::{Checked, Struct};

/// What alloy says is signed. `primary_type` must have been bounded: alloy follows types by recursion.
pub(super) fn digest(types: &Types, primary_type: &str, domain: &Struct, message: &Struct) -> Result<B256, String> {
    let resolver: Resolver = serde_json::from_value(types.to_json()).map_err(|error| refuse(&error))?;
    let root = resolver.resolve(primary_type).map_err(|error| refuse(&error))?;
    let value = root.coerce_json(&message.to_json()).map_err(|error| refuse(&error))?;
    let message = Hasher { resolver: &resolver, type_hashes: BTreeMap::new() }.word(&value)?;
    let salt = domain.get("salt").and_then(|salt| match salt {
        Checked::FixedBytes { word, .. } => Some(*word),
        _ => None,
    });
    let domain = Eip712Domain::new(
        domain.text("name").map(Into::into),
        domain.text("version").map(Into::into),
        domain.uint("chainId"),
        domain.address("verifyingContract"),
        salt,
    );
    Ok(keccak256([&[0x19, 0x01], domain.separator().as_slice(), message.as_slice()].concat()))
}

/// EIP-712's `hashStruct` with alloy's type hashes and leaves. Alloy itself derives a type's hash again for each of its
/// values, which makes lists of small values quadratic.
struct Hasher<'a> {
    resolver: &'a Resolver,
    type_hashes: BTreeMap<String, B256>,
}

impl Hasher<'_> {
    /// The word that stands for a value in the struct or list around it.
    fn word(&mut self, value: &DynSolValue) -> Result<B256, String> {
        let (mut encoded, inner) = match value {
            DynSolValue::CustomStruct { name, tuple, .. } => (self.type_hash(name)?.to_vec(), tuple),
            DynSolValue::Array(list) | DynSolValue::FixedArray(list) => (Vec::new(), list),
            leaf => return self.resolver.eip712_data_word(leaf).map_err(|error| refuse(&error)),
        };
        for value in inner {
            encoded.extend(self.word(value)?);
        }
        Ok(keccak256(encoded))
    }

    fn type_hash(&mut self, name: &str) -> Result<B256, String> {
        if let Some(known) = self.type_hashes.get(name) {
            return Ok(*known);
        }
        let hash = self.resolver.type_hash(name).map_err(|error| refuse(&error))?;
        self.type_hashes.insert(name.to_owned(), hash);
        Ok(hash)
    }
}

fn refuse(error: &dyn std::fmt::Display) -> String {
    format!("it cannot be hashed: {error}")
}
