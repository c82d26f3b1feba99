//! The bodies of what parties exchange, one message each: CBOR, of exactly one form.

use casemate_wire::{Code, Roster};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Failure;

/// How deep a body may be nested.
const MAX_DEPTH: usize = 8;

/// A body's bytes.
///
/// # Errors
/// It cannot be written.
pub(crate) fn to_body<T: Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(|e| Failure::new(Code::Internal, e.to_string()))?;
    Ok(bytes)
}

/// Reads what the party at this position signed.
///
/// # Errors
/// Names that party.
pub(crate) fn read_body<T: DeserializeOwned>(roster: &Roster, position: u16, bytes: &[u8]) -> Result<T, Failure> {
    let mut rest = bytes;
    match ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH) {
        Ok(value) if rest.is_empty() => Ok(value),
        _ => Err(Failure::by(roster, position, "it cannot be decoded")),
    }
}
