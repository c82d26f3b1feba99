//! Reading CBOR values with exactly the expected form, and writing them deterministically.

use ciborium::Value;

/// What is wrong with a value that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bad(pub(super) String);

pub(super) type Read<T> = Result<T, Bad>;

pub(super) fn bad<T>(what: &str, why: &str) -> Read<T> {
    Err(Bad(format!("{what} {why}")))
}

/// Nesting that a token has at most; deeper input is not followed.
const DEPTH: usize = 8;

/// The one value that the bytes hold.
pub(super) fn read(what: &str, bytes: &[u8]) -> Read<Value> {
    let mut rest = bytes;
    match ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH) {
        Ok(value) if rest.is_empty() => Ok(value),
        Ok(_) => bad(what, "has bytes after its end"),
        Err(_) => bad(what, "is not CBOR, or is cut off"),
    }
}

/// The encoding of a value whose maps are already in order. `ciborium` writes the shortest heads and definite lengths
/// (RFC 8949, section 4.2.1).
pub(super) fn write(value: &Value) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// A map that is read entry by entry; what is left at the end is unknown.
pub(super) struct Fields {
    what: &'static str,
    entries: Vec<(Value, Value)>,
}

impl Fields {
    pub(super) fn of(what: &'static str, value: Value) -> Read<Self> {
        match value {
            Value::Map(entries) => Ok(Self { what, entries }),
            _ => bad(what, "is not a map"),
        }
    }

    pub(super) fn optional(&mut self, key: impl Into<Value>) -> Option<Value> {
        let key = key.into();
        let place = self.entries.iter().position(|(found, _)| *found == key)?;
        Some(self.entries.remove(place).1)
    }

    pub(super) fn required(&mut self, name: &str, key: impl Into<Value>) -> Read<Value> {
        self.optional(key).ok_or_else(|| Bad(format!("{} has no {name}", self.what)))
    }

    /// Refuses claims that the profile does not have: an appraiser must not affirm what it does not understand.
    pub(super) fn end(self) -> Read<()> {
        match self.entries.first() {
            None => Ok(()),
            Some((Value::Integer(key), _)) => bad(self.what, &format!("has the unknown claim {}", i128::from(*key))),
            Some((Value::Text(key), _)) => bad(self.what, &format!("has the unknown claim {:?}", shortened(key))),
            Some(_) => bad(self.what, "has a claim whose key is neither a number nor a text"),
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(32).collect()
}

pub(super) fn array(what: &str, value: Value) -> Read<Vec<Value>> {
    value.into_array().or_else(|_| bad(what, "is not an array"))
}

/// An array of exactly `N` values.
pub(super) fn tuple<const N: usize>(what: &str, value: Value) -> Read<[Value; N]> {
    array(what, value)?.try_into().or_else(|_| bad(what, &format!("does not have {N} members")))
}

pub(super) fn bytes(what: &str, value: Value) -> Read<Vec<u8>> {
    value.into_bytes().or_else(|_| bad(what, "is not a byte string"))
}

pub(super) fn fixed<const N: usize>(what: &str, value: Value) -> Read<[u8; N]> {
    bytes(what, value)?.try_into().or_else(|_| bad(what, &format!("does not have {N} bytes")))
}

pub(super) fn text(what: &str, value: Value) -> Read<String> {
    value.into_text().or_else(|_| bad(what, "is not a text"))
}

/// A text that another type's constructor takes.
pub(super) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(what: &str, value: Value) -> Read<T> {
    text(what, value)?.parse().or_else(|error: T::Err| bad(what, &format!("cannot be used: {error}")))
}

pub(super) fn unsigned<T: TryFrom<u64>>(what: &str, value: Value) -> Read<T> {
    let number = value.into_integer().ok().and_then(|number| u64::try_from(number).ok());
    number.and_then(|number| T::try_from(number).ok()).map_or_else(|| bad(what, "is not a number in its range"), Ok)
}

/// Refuses any other value than this one.
pub(super) fn only(what: &str, value: &Value, expected: &Value) -> Read<()> {
    if value == expected { Ok(()) } else { bad(what, "is not the one of this profile") }
}
