//! The values of typed data, each checked against its declared type.

use alloy_primitives::{Address, B256, I256, U256, keccak256};
use serde_json::{Map, Value};

use super::json::Json;
use super::types::{Kind, Types};

/// A value that fits its type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Checked {
    Bool(bool),
    Address(Address),
    Text(String),
    Bytes(Vec<u8>),
    /// The bytes at the front of a word.
    FixedBytes {
        word: B256,
        length: usize,
    },
    Uint(U256),
    Int(I256),
    List(Vec<Checked>),
    Struct(Struct),
}

/// A value of a struct type: exactly the declared members, in their order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Struct {
    type_name: String,
    members: Vec<(String, Checked)>,
}

impl Struct {
    /// Reads a JSON object as a value of type `type_name`; `at` says where it stands, for errors.
    pub(super) fn read(types: &Types, type_name: &str, json: &Json, at: &str) -> Result<Self, String> {
        let declared = types.members(type_name).ok_or_else(|| format!("type `{type_name}` is not declared"))?;
        let Json::Object(object) = json else {
            return Err(format!("`{at}` is not a JSON object"));
        };
        if let Some(unknown) = object.keys().find(|key| declared.iter().all(|member| member.name != **key)) {
            return Err(format!("`{at}` has a member {unknown:?}, which type `{type_name}` does not declare"));
        }
        let mut members = Vec::with_capacity(declared.len());
        for member in declared {
            let at = format!("{at}.{}", member.name);
            let json = object.get(&member.name).ok_or_else(|| format!("`{at}` is missing"))?;
            members.push((member.name.clone(), read(types, &member.kind, json, &at)?));
        }
        Ok(Self { type_name: type_name.to_owned(), members })
    }

    /// EIP-712's `hashStruct`.
    pub(super) fn hash(&self, types: &Types) -> Result<B256, String> {
        let mut encoded = types.type_hash(&self.type_name)?.to_vec();
        for (_, value) in &self.members {
            encoded.extend(value.encode(types)?);
        }
        Ok(keccak256(encoded))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Checked> {
        self.members.iter().find(|(member, _)| member == name).map(|(_, value)| value)
    }

    pub(super) fn address(&self, name: &str) -> Option<Address> {
        match self.get(name)? {
            Checked::Address(address) => Some(*address),
            _ => None,
        }
    }

    pub(super) fn uint(&self, name: &str) -> Option<U256> {
        match self.get(name)? {
            Checked::Uint(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            Checked::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.get(name)? {
            Checked::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// The structs of a member that is one, or a list of them.
    pub(super) fn structs(&self, name: &str) -> Vec<&Struct> {
        match self.get(name) {
            Some(Checked::Struct(one)) => vec![one],
            Some(Checked::List(list)) => {
                list.iter().filter_map(|each| if let Checked::Struct(one) = each { Some(one) } else { None }).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The values in the one form that they have here: numbers as decimal texts, bytes and addresses as lower-case hex.
    pub(super) fn to_json(&self) -> Value {
        Value::Object(self.members.iter().map(|(name, value)| (name.clone(), value.to_json())).collect::<Map<_, _>>())
    }
}

impl Checked {
    /// EIP-712's `encodeData` of one member.
    fn encode(&self, types: &Types) -> Result<B256, String> {
        Ok(match self {
            Self::Bool(value) => B256::with_last_byte(u8::from(*value)),
            Self::Address(address) => address.into_word(),
            Self::Text(text) => keccak256(text),
            Self::Bytes(bytes) => keccak256(bytes),
            Self::FixedBytes { word, .. } => *word,
            Self::Uint(number) => B256::from(*number),
            Self::Int(number) => B256::from(number.into_raw()),
            Self::Struct(value) => value.hash(types)?,
            Self::List(list) => {
                let mut encoded = Vec::with_capacity(list.len().saturating_mul(32));
                for value in list {
                    encoded.extend(value.encode(types)?);
                }
                keccak256(encoded)
            }
        })
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Bool(value) => (*value).into(),
            Self::Address(address) => format!("0x{}", hex::encode(address)).into(),
            Self::Text(text) => text.as_str().into(),
            Self::Bytes(bytes) => format!("0x{}", hex::encode(bytes)).into(),
            Self::FixedBytes { word, length } => {
                format!("0x{}", hex::encode(word.get(..*length).unwrap_or_default())).into()
            }
            Self::Uint(number) => number.to_string().into(),
            Self::Int(number) => number.to_string().into(),
            Self::List(list) => list.iter().map(Self::to_json).collect(),
            Self::Struct(value) => value.to_json(),
        }
    }
}

fn read(types: &Types, kind: &Kind, json: &Json, at: &str) -> Result<Checked, String> {
    let refuse = |what: &str| Err(format!("`{at}` is not {what}"));
    match (kind, json) {
        (Kind::Bool, Json::Bool(value)) => Ok(Checked::Bool(*value)),
        (Kind::Bool, _) => refuse("true or false"),
        (Kind::Text, Json::Text(text)) => Ok(Checked::Text(text.clone())),
        (Kind::Text, _) => refuse("a text"),
        (Kind::Address, Json::Text(text)) => address(text).map(Checked::Address).map_err(|why| format!("`{at}` {why}")),
        (Kind::Address, _) => refuse("an address"),
        (Kind::Bytes, json) => match bytes(json) {
            Some(bytes) => Ok(Checked::Bytes(bytes)),
            None => refuse("0x and hex"),
        },
        (Kind::FixedBytes(length), json) => match bytes(json).filter(|bytes| bytes.len() == *length) {
            Some(bytes) => Ok(Checked::FixedBytes { word: B256::right_padding_from(&bytes), length: *length }),
            None => refuse(&format!("0x and the hex of {length} bytes")),
        },
        (Kind::Uint(bits), json) => match uint(json).filter(|number| number.bit_len() <= *bits) {
            Some(number) => Ok(Checked::Uint(number)),
            None => refuse(&format!("a whole number of at most {bits} bits")),
        },
        (Kind::Int(bits), json) => match int(json).filter(|number| fits(*number, *bits)) {
            Some(number) => Ok(Checked::Int(number)),
            None => refuse(&format!("a whole number of {bits} bits with its sign")),
        },
        (Kind::List(inner, length), Json::List(list)) => {
            if length.is_some_and(|length| length != list.len()) {
                return refuse(&format!("a list of {} values", length.unwrap_or_default()));
            }
            let each = list.iter().enumerate().map(|(index, json)| read(types, inner, json, &format!("{at}[{index}]")));
            each.collect::<Result<_, _>>().map(Checked::List)
        }
        (Kind::List(..), _) => refuse("a list"),
        (Kind::Struct(name), json) => Struct::read(types, name, json, at).map(Checked::Struct),
    }
}

/// Mixed case is a checksum (EIP-55), and then it must be right.
fn address(text: &str) -> Result<Address, String> {
    let bytes = text.strip_prefix("0x").and_then(|digits| hex::decode(digits).ok());
    let bytes: [u8; 20] = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or("is not 0x and 40 hex digits")?;
    let digits = || text.bytes().skip(2);
    let mixed = digits().any(|b| b.is_ascii_uppercase()) && digits().any(|b| b.is_ascii_lowercase());
    if mixed && Address::parse_checksummed(text, None).is_err() {
        return Err("has a wrong checksum (EIP-55): check the address, or write it in lower case".into());
    }
    Ok(Address::from(bytes))
}

fn bytes(json: &Json) -> Option<Vec<u8>> {
    let Json::Text(text) = json else { return None };
    hex::decode(text.strip_prefix("0x")?).ok()
}

/// A JSON number, a decimal text, or `0x` and hex.
fn uint(json: &Json) -> Option<U256> {
    match json {
        Json::Number(number) => u128::try_from(*number).ok().map(U256::from),
        Json::Text(text) => match text.strip_prefix("0x") {
            Some(digits) => digits_of(digits, 16),
            None => digits_of(text, 10),
        },
        _ => None,
    }
}

fn digits_of(digits: &str, radix: u32) -> Option<U256> {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    U256::from_str_radix(digits, radix.into()).ok()
}

fn int(json: &Json) -> Option<I256> {
    match json {
        Json::Number(number) => I256::try_from(*number).ok(),
        Json::Text(text) => match text.strip_prefix('-') {
            Some(digits) => I256::checked_from_sign_and_abs(alloy_primitives::Sign::Negative, digits_of(digits, 10)?),
            None => I256::checked_from_sign_and_abs(alloy_primitives::Sign::Positive, uint(json)?),
        },
        _ => None,
    }
}

/// Whether a number has a form of this many bits in two's complement.
fn fits(number: I256, bits: usize) -> bool {
    let magnitude = if number.is_negative() { !number.into_raw() } else { number.into_raw() };
    magnitude.bit_len() < bits
}
