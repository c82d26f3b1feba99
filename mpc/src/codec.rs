//! CBOR bodies of protocol messages.
//!
//! A body is accepted only if it is not longer than its cap, nests no deeper than [`MAX_DEPTH`], holds no string longer
//! than allowed, decodes to the expected type, and is **byte for byte what that value encodes to**. The last rule leaves
//! every value one encoding: no trailing bytes, unknown or repeated fields, other integer radix, leading zeros, negative
//! zero, or uncompressed points. All caps are checked before any big integer is made.

use ciborium::Value;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How deep a body may nest. The deepest message of the protocols (a point in a proof in a tuple in a variant) needs 8.
pub const MAX_DEPTH: usize = 12;

/// Caps that a body must keep before it is decoded.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// Longest body, in bytes.
    pub body: usize,
    /// Longest text or byte string inside, in bytes. This is what bounds the integers.
    pub string: usize,
}

/// Why a body was refused. Never quotes the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The body is longer than its cap.
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    /// The body is no well-formed CBOR item, or nests too deep.
    #[error("the body is not well-formed CBOR")]
    Malformed,
    /// A text or byte string in it is longer than allowed.
    #[error("a string or integer in the body is longer than {0} bytes")]
    StringTooLong(usize),
    /// It is well-formed, but not the expected message.
    #[error("the body is not a message of this protocol")]
    Unexpected,
    /// It decodes, but is not the one encoding of its value.
    #[error("the body is not canonically encoded")]
    NotCanonical,
    /// An own value could not be encoded.
    #[error("the message could not be encoded")]
    Encode,
}

/// Encodes a message.
///
/// # Errors
/// [`CodecError::Encode`] if the type's `Serialize` fails, which the protocols' types never do.
pub fn encode<T: Serialize + ?Sized>(message: &T) -> Result<Vec<u8>, CodecError> {
    let mut body = Vec::new();
    ciborium::into_writer(message, &mut body).map_err(|_| CodecError::Encode)?;
    Ok(body)
}

/// Decodes a body under `caps`; see the [module](self) for what is refused.
///
/// # Errors
/// The first rule that the body breaks.
pub fn decode<T: Serialize + DeserializeOwned>(body: &[u8], caps: Caps) -> Result<T, CodecError> {
    if body.len() > caps.body {
        return Err(CodecError::TooLong(caps.body));
    }
    let shape: Value =
        ciborium::de::from_reader_with_recursion_limit(body, MAX_DEPTH).map_err(|_| CodecError::Malformed)?;
    check_strings(&shape, caps.string)?;
    drop(shape);
    let message: T =
        ciborium::de::from_reader_with_recursion_limit(body, MAX_DEPTH).map_err(|_| CodecError::Unexpected)?;
    if encode(&message)? != body {
        return Err(CodecError::NotCanonical);
    }
    Ok(message)
}

fn check_strings(value: &Value, cap: usize) -> Result<(), CodecError> {
    match value {
        Value::Bytes(bytes) if bytes.len() > cap => Err(CodecError::StringTooLong(cap)),
        Value::Text(text) if text.len() > cap => Err(CodecError::StringTooLong(cap)),
        Value::Array(items) => items.iter().try_for_each(|item| check_strings(item, cap)),
        Value::Map(entries) => entries.iter().try_for_each(|(key, value)| {
            check_strings(key, cap)?;
            check_strings(value, cap)
        }),
        Value::Tag(_, inner) => check_strings(inner, cap),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use proptest::prelude::*;
    use rug::Integer;
    use serde::Deserialize;

    use super::*;

    const CAPS: Caps = Caps { body: 4096, string: 256 };

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        number: Integer,
        list: Vec<u16>,
    }

    fn sample() -> Sample {
        Sample { number: Integer::from(-255), list: vec![1, 2, 3] }
    }

    fn body_of(value: &Value) -> Vec<u8> {
        encode(value).expect("encodes")
    }

    fn integer(radix: i32, digits: &str) -> Vec<u8> {
        body_of(&Value::Map(vec![
            (
                Value::from("number"),
                Value::Map(vec![
                    (Value::from("radix"), Value::from(radix)),
                    (Value::from("value"), Value::from(digits)),
                ]),
            ),
            (Value::from("list"), Value::Array(vec![])),
        ]))
    }

    #[test]
    fn a_value_survives_the_round_trip() {
        let body = encode(&sample()).expect("encodes");
        assert_eq!(decode::<Sample>(&body, CAPS), Ok(sample()));
    }

    #[test]
    fn an_integer_has_one_encoding_only() {
        assert!(
            decode::<Sample>(&integer(10, "-255"), CAPS).is_ok() != decode::<Sample>(&integer(16, "-ff"), CAPS).is_ok()
        );
        for (radix, digits) in
            [(10, "0255"), (10, "+255"), (10, "-0"), (16, "FF"), (16, "0ff"), (2, "11"), (10, "2_5"), (10, " 1")]
        {
            assert!(decode::<Sample>(&integer(radix, digits), CAPS).is_err(), "{radix} {digits}");
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut body = encode(&sample()).expect("encodes");
        body.push(0);
        assert_eq!(decode::<Sample>(&body, CAPS), Err(CodecError::NotCanonical));
    }

    #[test]
    fn unknown_fields_are_refused() {
        let mut value = Value::serialized(&sample()).expect("a value");
        value.as_map_mut().expect("a map").push((Value::from("more"), Value::from(1)));
        assert!(decode::<Sample>(&body_of(&value), CAPS).is_err());
    }

    #[test]
    fn caps_hold_before_decoding() {
        assert_eq!(decode::<Sample>(&vec![0; 4097], CAPS), Err(CodecError::TooLong(4096)));
        let long = integer(16, &"f".repeat(257));
        assert_eq!(decode::<Sample>(&long, CAPS), Err(CodecError::StringTooLong(256)));
        let mut deep = vec![0x81; 64];
        deep.push(0);
        assert_eq!(decode::<Sample>(&deep, CAPS), Err(CodecError::Malformed));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_and_what_decodes_is_canonical(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(value) = decode::<Sample>(&body, CAPS) {
                prop_assert_eq!(encode(&value).expect("encodes"), body);
            }
        }

        #[test]
        fn a_changed_byte_changes_the_value_or_is_refused(at in 0usize..40, flip in 1u8..=255) {
            let mut body = encode(&sample()).expect("encodes");
            let at = at % body.len();
            body[at] ^= flip;
            if let Ok(value) = decode::<Sample>(&body, CAPS) {
                prop_assert_ne!(value, sample());
            }
        }
    }
}
