//! Call arguments in the contract ABI, decoded strictly.
//!
//! Contracts read addresses by their low 20 bytes, follow whatever offsets they find, and ignore what is left over. Here
//! the arguments are encoded again and must come out the same: exact length, zero padding, 0 or 1 for a bool, offsets and
//! order as every compiler writes them. Two call data that do the same must not look different.

use alloy_dyn_abi::{DynSolType, DynSolValue};
use alloy_primitives::{Address, U256};

/// Bytes of an ABI word.
const WORD: usize = 32;

/// The decoded arguments of one call, or the members of a tuple in it.
#[derive(Debug)]
pub(super) struct Arguments<'a> {
    method: &'a str,
    values: &'a [DynSolValue],
}

/// Decodes what follows the selector of `signature`, such as `transfer(address,uint256)`, and hands it to `read`.
pub(super) fn decode<T>(
    signature: &str,
    arguments: &[u8],
    read: impl FnOnce(&Arguments<'_>) -> Result<T, String>,
) -> Result<T, String> {
    let (method, parameters) = signature.split_at(signature.find('(').unwrap_or(signature.len()));
    let tuple = DynSolType::parse(parameters).map_err(|error| format!("`{signature}` cannot be read: {error}"))?;
    let DynSolType::Tuple(members) = &tuple else {
        return Err(format!("`{signature}` has no parameters"));
    };
    if !members.iter().any(is_dynamic) {
        let expected = tuple.minimum_words().saturating_mul(WORD);
        if arguments.len() != expected {
            return Err(format!("`{method}` takes {expected} bytes of arguments, not {}", arguments.len()));
        }
    }
    let decoded = tuple
        .abi_decode_params(arguments)
        .map_err(|error| format!("the arguments are not those of `{signature}`: {error}"))?;
    if decoded.abi_encode_params() != arguments {
        return Err(format!(
            "the arguments of `{method}` are not in the ABI's canonical form: something is not padded with zeros, is no \
             bool, lies elsewhere, or follows them"
        ));
    }
    if !in_range(&decoded) {
        return Err(format!("a number of `{method}` is larger than its type: it is not padded with zeros"));
    }
    match &decoded {
        DynSolValue::Tuple(values) => read(&Arguments { method, values }),
        _ => Err(format!("`{signature}` has no parameters")),
    }
}

fn is_dynamic(parameter: &DynSolType) -> bool {
    match parameter {
        DynSolType::Bytes | DynSolType::String | DynSolType::Array(_) => true,
        DynSolType::FixedArray(inner, _) => is_dynamic(inner),
        DynSolType::Tuple(members) => members.iter().any(is_dynamic),
        _ => false,
    }
}

/// The decoder keeps the bits that a narrow number does not have.
fn in_range(value: &DynSolValue) -> bool {
    match value {
        DynSolValue::Uint(number, bits) => number.bit_len() <= *bits,
        DynSolValue::Array(inner) | DynSolValue::FixedArray(inner) | DynSolValue::Tuple(inner) => {
            inner.iter().all(in_range)
        }
        _ => true,
    }
}

impl<'a> Arguments<'a> {
    fn at<T>(&self, index: usize, read: impl FnOnce(&'a DynSolValue) -> Option<T>) -> Result<T, String> {
        self.values
            .get(index)
            .and_then(read)
            .ok_or_else(|| format!("argument {index} of `{}` is of another type", self.method))
    }

    pub(super) fn address(&self, index: usize) -> Result<Address, String> {
        self.at(index, DynSolValue::as_address)
    }

    pub(super) fn uint(&self, index: usize) -> Result<U256, String> {
        self.at(index, |value| value.as_uint().map(|(number, _)| number))
    }

    pub(super) fn bool(&self, index: usize) -> Result<bool, String> {
        self.at(index, DynSolValue::as_bool)
    }

    pub(super) fn uints(&self, index: usize) -> Result<Vec<U256>, String> {
        let array = self.at(index, DynSolValue::as_array)?;
        (0..array.len()).map(|at| Arguments { method: self.method, values: array }.uint(at)).collect()
    }

    pub(super) fn tuple(&self, index: usize) -> Result<Arguments<'a>, String> {
        Ok(Arguments { method: self.method, values: self.at(index, DynSolValue::as_tuple)? })
    }

    pub(super) fn tuples(&self, index: usize) -> Result<Vec<Arguments<'a>>, String> {
        let array = self.at(index, DynSolValue::as_array)?;
        (0..array.len()).map(|at| Arguments { method: self.method, values: array }.tuple(at)).collect()
    }
}
