//! Finding and altering every field of a message, from its CBOR alone.

use cggmp21::rug::Integer;
use ciborium::Value;

/// Where a leaf lies: the positions to descend through arrays and maps.
pub type Path = Vec<usize>;

/// What is done to a leaf.
#[derive(Debug, Clone)]
pub enum Alteration {
    /// The lowest bit is flipped.
    FlipLow,
    /// A high bit is flipped.
    FlipHigh,
    /// An integer, scalar or point becomes its negative.
    Negate,
    /// It becomes zero, or empty.
    Zero,
    /// The integer gets this much larger: another representative of the same residue.
    Shift(Integer),
    /// The same integer in another encoding.
    Reencode,
    /// It is replaced by what stands at the same place in another message.
    Replace,
}

/// The alterations that need nothing else than the message itself.
pub const ALONE: [Alteration; 5] =
    [Alteration::FlipLow, Alteration::FlipHigh, Alteration::Negate, Alteration::Zero, Alteration::Reencode];

/// Reads a body.
pub fn parse(body: &[u8]) -> Value {
    ciborium::from_reader(body).expect("a protocol message")
}

/// Writes a body.
pub fn write(value: &Value) -> Vec<u8> {
    let mut body = Vec::new();
    ciborium::into_writer(value, &mut body).expect("encodes");
    body
}

/// Paths of all leaves: a big integer is one leaf, and so is everything that is neither map nor array.
pub fn leaves(value: &Value) -> Vec<Path> {
    let children: Vec<&Value> = match value {
        _ if integer(value).is_some() => return vec![vec![]],
        Value::Array(items) => items.iter().collect(),
        Value::Map(entries) => entries.iter().map(|(_, value)| value).collect(),
        _ => return vec![vec![]],
    };
    let below = children.into_iter().enumerate().flat_map(|(step, child)| {
        leaves(child).into_iter().map(move |mut path| {
            path.insert(0, step);
            path
        })
    });
    below.collect()
}

/// The names on the way to a leaf, for messages about it.
pub fn name(value: &Value, path: &[usize]) -> String {
    match (path.split_first(), value) {
        (Some((step, rest)), Value::Map(entries)) => {
            let (key, child) = &entries[*step];
            format!("{}.{}", key.as_text().unwrap_or("?"), name(child, rest))
        }
        (Some((step, rest)), Value::Array(items)) => {
            format!("{step}.{}", name(&items[*step], rest))
        }
        _ => String::new(),
    }
}

/// Alters the leaf at `path` of `body`. `None` where the alteration does not apply to such a leaf, or changes nothing.
pub fn alter(body: &[u8], path: &[usize], alteration: &Alteration, other: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut message = parse(body);
    let replacement = match (alteration, other) {
        (Alteration::Replace, Some(other)) => Some(at(&mut parse(other), path)?.clone()),
        (Alteration::Replace, None) => return None,
        _ => None,
    };
    let leaf = at(&mut message, path)?;
    *leaf = match replacement {
        Some(replacement) => replacement,
        None => altered(leaf, alteration)?,
    };
    let changed = write(&message);
    (changed != body).then_some(changed)
}

fn at<'a>(value: &'a mut Value, path: &[usize]) -> Option<&'a mut Value> {
    let Some((step, rest)) = path.split_first() else {
        return Some(value);
    };
    match value {
        Value::Array(items) => at(items.get_mut(*step)?, rest),
        Value::Map(entries) => at(&mut entries.get_mut(*step)?.1, rest),
        _ => None,
    }
}

fn altered(leaf: &Value, alteration: &Alteration) -> Option<Value> {
    if let Some(number) = integer(leaf) {
        return altered_integer(&number, alteration);
    }
    match leaf {
        Value::Bytes(bytes) => altered_bytes(bytes, alteration).map(Value::Bytes),
        Value::Text(text) => altered_text(text, alteration).map(Value::Text),
        Value::Integer(number) => {
            let number = i128::from(*number);
            let changed = match alteration {
                Alteration::FlipLow => number ^ 1,
                Alteration::FlipHigh => number ^ 0x80,
                Alteration::Zero => 0,
                Alteration::Negate => -number,
                _ => return None,
            };
            Some(Value::Integer(changed.try_into().ok()?))
        }
        Value::Null => matches!(alteration, Alteration::Zero).then(|| Value::from(0)),
        _ => None,
    }
}

fn altered_integer(number: &Integer, alteration: &Alteration) -> Option<Value> {
    let changed = match alteration {
        Alteration::FlipLow => number.clone() ^ 1,
        Alteration::FlipHigh => {
            let mut number = number.clone();
            number.toggle_bit(number.significant_bits().saturating_sub(2));
            number
        }
        Alteration::Negate => -number.clone(),
        Alteration::Zero => Integer::new(),
        Alteration::Shift(by) => (number + by).into(),
        Alteration::Reencode => {
            return Some(encoded(
                16,
                format!("{}0{:x}", if *number < 0 { "-" } else { "" }, Integer::from(number.abs_ref())),
            ));
        }
        Alteration::Replace => return None,
    };
    let radix = if changed.significant_bits() <= 32 { 10 } else { 16 };
    Some(encoded(radix, changed.to_string_radix(radix)))
}

fn altered_bytes(bytes: &[u8], alteration: &Alteration) -> Option<Vec<u8>> {
    let mut changed = bytes.to_vec();
    match alteration {
        Alteration::FlipLow => *changed.last_mut()? ^= 1,
        Alteration::FlipHigh => *changed.first_mut()? ^= 0x40,
        Alteration::Zero => changed.fill(0),
        Alteration::Negate => return negated(bytes),
        // Another encoding of the same point: compressed.
        Alteration::Reencode if bytes.len() == 65 => {
            changed.truncate(33);
            changed[0] = 2 + (bytes[64] & 1);
        }
        _ => return None,
    }
    Some(changed)
}

/// Scalars and points have negatives.
fn negated(bytes: &[u8]) -> Option<Vec<u8>> {
    use k256::elliptic_curve::PrimeField;
    use k256::elliptic_curve::sec1::{FromEncodedPoint, ToEncodedPoint};
    match bytes.len() {
        32 => {
            let scalar = Option::<k256::Scalar>::from(k256::Scalar::from_repr(*k256::FieldBytes::from_slice(bytes)))?;
            (scalar != k256::Scalar::ZERO).then(|| (-scalar).to_bytes().to_vec())
        }
        // A compressed point's sign is in its first byte.
        33 => {
            let mut changed = bytes.to_vec();
            changed[0] ^= 1;
            Some(changed)
        }
        65 => {
            let point = k256::EncodedPoint::from_bytes(bytes).ok()?;
            let point = Option::<k256::AffinePoint>::from(k256::AffinePoint::from_encoded_point(&point))?;
            Some((-point).to_encoded_point(false).as_bytes().to_vec())
        }
        _ => None,
    }
}

fn altered_text(text: &str, alteration: &Alteration) -> Option<String> {
    let (first, rest) = text.split_at_checked(1)?;
    match alteration {
        Alteration::FlipLow => {
            let last = if text.ends_with('0') { "1" } else { "0" };
            Some(format!("{}{last}", &text[..text.len() - 1]))
        }
        Alteration::FlipHigh => Some(format!("{}{rest}", if first == "1" { "2" } else { "1" })),
        Alteration::Zero => Some(String::new()),
        Alteration::Reencode => Some(text.to_uppercase()),
        _ => None,
    }
}

/// A big integer as the protocol's messages hold it: `{"radix": …, "value": …}`.
fn integer(value: &Value) -> Option<Integer> {
    let entries = value.as_map()?;
    let [(radix_key, radix), (value_key, digits)] = entries.as_slice() else {
        return None;
    };
    if radix_key.as_text()? != "radix" || value_key.as_text()? != "value" {
        return None;
    }
    let radix = i32::try_from(i128::from(radix.as_integer()?)).ok()?;
    Integer::from_str_radix(digits.as_text()?, radix).ok()
}

fn encoded(radix: i32, digits: String) -> Value {
    Value::Map(vec![(Value::from("radix"), Value::from(radix)), (Value::from("value"), Value::from(digits))])
}
