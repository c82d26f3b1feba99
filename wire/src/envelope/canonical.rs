//! Deterministic CBOR (RFC 8949, section 4.2.1): one value has exactly one encoding, so that a signature over an
//! encoding is a signature over the value.

use ciborium::Value;
use serde::Serialize;

use super::fault::LocalFault;

/// The deterministic encoding of a map with `domain` as one more entry, so that bytes signed for one purpose can never
/// pass for another's. `value` must serialise as a map with text keys.
pub(super) fn encode<T: Serialize>(domain: &str, value: &T) -> Result<Vec<u8>, LocalFault> {
    let failed = |why: String| LocalFault::Encoding { what: domain.to_owned(), why };
    let mut value = Value::serialized(value).map_err(|e| failed(e.to_string()))?;
    let Value::Map(entries) = &mut value else {
        return Err(failed("the value is not a map".into()));
    };
    entries.push((Value::from("domain"), Value::from(domain)));
    let mut bytes = Vec::new();
    sort(&mut value)
        .and_then(|()| ciborium::into_writer(&value, &mut bytes).map_err(|e| e.to_string()))
        .map_err(failed)?;
    Ok(bytes)
}

/// Orders the entries of every map by their keys' encodings. `ciborium` itself writes the shortest heads and definite
/// lengths, which are the other rules of section 4.2.1.
fn sort(value: &mut Value) -> Result<(), String> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(sort),
        Value::Map(entries) => {
            let mut keyed = Vec::with_capacity(entries.len());
            for (key, mut entry) in std::mem::take(entries) {
                sort(&mut entry)?;
                let mut encoded = Vec::new();
                ciborium::into_writer(&key, &mut encoded).map_err(|e| e.to_string())?;
                keyed.push((encoded, key, entry));
            }
            keyed.sort_by(|a, b| a.0.cmp(&b.0));
            entries.extend(keyed.into_iter().map(|(_, key, entry)| (key, entry)));
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Serialize)]
    struct Sample {
        z: u8,
        aa: u16,
        inner: Inner,
    }
    #[derive(Serialize)]
    struct Inner {
        b: u64,
        a: bool,
    }

    #[test]
    fn keys_are_sorted_by_their_encoding_at_every_depth() {
        let sample = Sample { z: 10, aa: 500, inner: Inner { b: 1 << 40, a: true } };
        let bytes = encode("d", &sample).unwrap();
        // {"z": 10, "aa": 500, "inner": {"a": true, "b": 2^40}, "domain": "d"}: shorter keys first, then by bytes.
        let expected = "a4617a0a6261611901f465696e6e6572a26161f561621b000001000000000066646f6d61696e6164";
        assert_eq!(hex::encode(bytes), expected);
    }

    #[test]
    fn the_domain_separates_equal_values() {
        let value = Inner { b: 0, a: false };
        assert_ne!(encode("one", &value).unwrap(), encode("two", &value).unwrap());
    }
}
