//! Altering one field of one message.

use cggmp21::rug::Integer;
use cggmp21::rug::integer::Order;
use ciborium::Value;

use crate::support::alter::{Alteration, name, parse, write};

/// Every alteration that needs nothing but the message and the sender's modulus.
pub fn alone(modulus: &Integer) -> [Alteration; 6] {
    [
        Alteration::FlipLow,
        Alteration::FlipHigh,
        Alteration::Negate,
        Alteration::Zero,
        Alteration::Shift(modulus.clone()),
        Alteration::Reencode,
    ]
}

/// Fields whose integers have a sign.
const SIGNED: [&str; 6] = ["sigma.", "z1.", "z2.", "w1.", "w2.", "v."];
/// Fields that are hashes or random bytes; so are all 32-byte fields.
const HASH_LENGTH: usize = 32;

/// Alters the leaf at `path` of `body`; `None` where that does not apply to such a leaf, or changes nothing.
pub fn alter(
    body: &[u8],
    path: &[usize],
    alteration: &Alteration,
    other: Option<&[u8]>,
    modulus: &Integer,
) -> Option<Vec<u8>> {
    let mut message = parse(body);
    let field = name(&message, path);
    let foreign = other.and_then(|other| at(&mut parse(other), path).cloned());
    let leaf = at(&mut message, path)?;
    *leaf = match (alteration, &*leaf) {
        // Another party's or session's flag is the same flag or the flipped one.
        (Alteration::Replace, Value::Bool(_)) => return None,
        (Alteration::Replace, _) => foreign?,
        (_, Value::Bytes(bytes)) if bytes.len() == HASH_LENGTH => Value::Bytes(altered_hash(bytes, alteration)?),
        (_, Value::Bytes(bytes)) if SIGNED.iter().any(|signed| field.ends_with(signed)) => {
            Value::Bytes(altered_signed(bytes, alteration)?)
        }
        (_, Value::Bytes(bytes)) => Value::Bytes(altered_natural(bytes, alteration, modulus)?),
        (Alteration::FlipLow, Value::Bool(flag)) => Value::Bool(!flag),
        (_, Value::Integer(number)) => {
            let number = i128::from(*number);
            let changed = match alteration {
                Alteration::FlipLow => number ^ 1,
                Alteration::FlipHigh => number ^ 0x80,
                Alteration::Negate => -number,
                Alteration::Zero => 0,
                _ => return None,
            };
            Value::Integer(changed.try_into().ok()?)
        }
        _ => return None,
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

fn altered_hash(bytes: &[u8], alteration: &Alteration) -> Option<Vec<u8>> {
    let mut changed = bytes.to_vec();
    match alteration {
        Alteration::FlipLow => *changed.last_mut()? ^= 1,
        Alteration::FlipHigh => *changed.first_mut()? ^= 0x80,
        Alteration::Negate => changed.iter_mut().for_each(|byte| *byte = !*byte),
        Alteration::Zero => changed.fill(0),
        Alteration::Reencode => changed.push(0),
        _ => return None,
    }
    Some(changed)
}

/// An integer of `0 < x < N`: big-endian, no leading zero.
fn altered_natural(bytes: &[u8], alteration: &Alteration, modulus: &Integer) -> Option<Vec<u8>> {
    let value = Integer::from_digits(bytes, Order::Msf);
    let mut changed = bytes.to_vec();
    match alteration {
        Alteration::FlipLow => *changed.last_mut()? ^= 1,
        Alteration::FlipHigh => *changed.first_mut()? ^= 0x40,
        Alteration::Negate => changed = (Integer::from(modulus * 2u32) - value).modulo(modulus).to_digits(Order::Msf),
        Alteration::Zero => changed.fill(0),
        Alteration::Shift(by) => changed = (value + by).to_digits(Order::Msf),
        Alteration::Reencode => changed.insert(0, 0),
        Alteration::Replace => return None,
    }
    Some(changed)
}

/// A sign byte, then the magnitude.
fn altered_signed(bytes: &[u8], alteration: &Alteration) -> Option<Vec<u8>> {
    let mut changed = bytes.to_vec();
    match alteration {
        Alteration::FlipLow => *changed.last_mut()? ^= 1,
        Alteration::FlipHigh => *changed.get_mut(1)? ^= 0x40,
        Alteration::Negate => *changed.first_mut()? ^= 1,
        Alteration::Zero => changed = vec![0],
        Alteration::Shift(by) => {
            changed = vec![changed[0]];
            changed.extend((Integer::from_digits(&bytes[1..], Order::Msf) + by).to_digits::<u8>(Order::Msf));
        }
        Alteration::Reencode => changed.insert(1, 0),
        Alteration::Replace => return None,
    }
    Some(changed)
}
