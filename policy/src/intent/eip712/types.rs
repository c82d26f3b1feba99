//! The `types` of typed data.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{B256, keccak256};
use serde_json::{Value, json};

use super::json::Json;

/// The most values that one message of a type may have, not counting the length of its lists. Types that hold each other
/// several times over grow without bound, and implementations unfold them.
const MAX_UNFOLDED: usize = 4096;
/// The most types that one message may be made of. Seaport's has three.
const MAX_TYPES: usize = 64;
/// How deep types may hold each other. Implementations follow them by recursion, each level on their stack.
const MAX_DEPTH: usize = 32;
/// The longest `encodeType` text of a message, in bytes. Implementations hash it for every value; Seaport's has 1,000.
const MAX_TYPE_TEXT: usize = 8 * 1024;
/// The most dimensions of a list.
const MAX_DIMENSIONS: usize = 8;

/// Struct types by name.
#[derive(Debug)]
pub(super) struct Types(BTreeMap<String, Declared>);

/// A struct type.
#[derive(Debug)]
struct Declared {
    members: Vec<Member>,
    /// EIP-712's `typeHash`. A list can hold thousands of values of a type, so it is computed once.
    hash: OnceCell<B256>,
}

/// A member of a struct type.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    /// As it is declared, and hashed.
    pub(super) type_name: String,
    pub(super) kind: Kind,
}

/// What a value may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Address,
    Text,
    Bytes,
    /// Of this many bytes.
    FixedBytes(usize),
    /// Of this many bits.
    Uint(usize),
    /// Of this many bits.
    Int(usize),
    /// A list, of a fixed length or any.
    List(Box<Kind>, Option<usize>),
    Struct(String),
}

/// How large a type is.
#[derive(Debug, Clone, Copy)]
struct Unfolded {
    /// Values, not counting the length of lists.
    size: usize,
    /// Levels of types, itself the first.
    depth: usize,
}

impl Types {
    pub(super) fn read(types: &Json) -> Result<Self, String> {
        let Json::Object(declared) = types else {
            return Err("`types` is not a JSON object".into());
        };
        let mut read = BTreeMap::new();
        for (name, members) in declared {
            if !is_identifier(name) || basic(name).is_some() {
                return Err(format!("{name:?} cannot be the name of a type"));
            }
            let Json::List(members) = members else {
                return Err(format!("type `{name}` is not a list of members"));
            };
            let mut names = BTreeSet::new();
            let members: Vec<Member> =
                members.iter().map(|member| read_member(name, member)).collect::<Result<_, _>>()?;
            if let Some(twice) = members.iter().find(|member| !names.insert(&member.name)) {
                return Err(format!("type `{name}` has two members `{}`", twice.name));
            }
            read.insert(name.clone(), Declared { members, hash: OnceCell::new() });
        }
        let types = Self(read);
        for (name, declared) in &types.0 {
            for member in &declared.members {
                match member.kind.innermost() {
                    Kind::Struct(other) if !types.0.contains_key(other) => {
                        return Err(format!("type `{name}` has a member of type `{other}`, which is not declared"));
                    }
                    _ => {}
                }
            }
        }
        Ok(types)
    }

    pub(super) fn members(&self, name: &str) -> Option<&[Member]> {
        self.0.get(name).map(|declared| declared.members.as_slice())
    }

    /// Refuses types that hold themselves, nest too deep, are too many, or unfold to too much.
    pub(super) fn bound(&self, name: &str) -> Result<(), String> {
        let unfolded = self.unfolded(name, MAX_DEPTH, &mut BTreeMap::new())?.size;
        if unfolded > MAX_UNFOLDED {
            return Err(format!("type `{name}` unfolds to more than {MAX_UNFOLDED} values"));
        }
        let length = self.encode_type(name).len();
        if length > MAX_TYPE_TEXT {
            return Err(format!("type `{name}` is {length} bytes long as a text; at most {MAX_TYPE_TEXT} are hashed"));
        }
        Ok(())
    }

    /// Measures a type that may go `levels` deep. `known` holds those that were met, and nothing for those on the way here.
    fn unfolded<'a>(
        &'a self,
        name: &'a str,
        levels: usize,
        known: &mut BTreeMap<&'a str, Option<Unfolded>>,
    ) -> Result<Unfolded, String> {
        let too_deep = || format!("types nest deeper than {MAX_DEPTH} levels, down to `{name}`");
        match known.get(name) {
            Some(Some(measured)) if measured.depth > levels => return Err(too_deep()),
            Some(Some(measured)) => return Ok(*measured),
            Some(None) => return Err(format!("type `{name}` holds itself, which is not taken here")),
            None => known.insert(name, None),
        };
        let below = levels.checked_sub(1).ok_or_else(too_deep)?;
        if known.len() > MAX_TYPES {
            return Err(format!("a message is made of at most {MAX_TYPES} types; `{name}` is one more"));
        }
        let members = self.members(name).ok_or_else(|| format!("type `{name}` is not declared"))?;
        let mut sum = Unfolded { size: 1, depth: 1 };
        for member in members {
            let inner = match member.kind.innermost() {
                Kind::Struct(other) => self.unfolded(other, below, known)?,
                _ => Unfolded { size: 1, depth: 0 },
            };
            sum.size = sum.size.saturating_add(inner.size);
            sum.depth = sum.depth.max(inner.depth.saturating_add(1));
        }
        known.insert(name, Some(sum));
        Ok(sum)
    }

    /// EIP-712's `typeHash`. `name` must have been bounded.
    pub(super) fn type_hash(&self, name: &str) -> Result<B256, String> {
        let declared = self.0.get(name).ok_or_else(|| format!("type `{name}` is not declared"))?;
        Ok(*declared.hash.get_or_init(|| keccak256(self.encode_type(name))))
    }

    /// EIP-712's `encodeType`: the type, and those that it refers to sorted by name.
    pub(super) fn encode_type(&self, name: &str) -> String {
        let mut referred = BTreeSet::new();
        self.collect(name, &mut referred);
        referred.remove(name);
        std::iter::once(name).chain(referred).map(|each| self.encode_one(each)).collect()
    }

    fn collect<'a>(&'a self, name: &'a str, into: &mut BTreeSet<&'a str>) {
        if into.insert(name) {
            for member in self.members(name).unwrap_or_default() {
                if let Kind::Struct(other) = member.kind.innermost() {
                    self.collect(other, into);
                }
            }
        }
    }

    fn encode_one(&self, name: &str) -> String {
        let members = self.members(name).unwrap_or_default();
        let members: Vec<String> = members.iter().map(|m| format!("{} {}", m.type_name, m.name)).collect();
        format!("{name}({})", members.join(","))
    }

    pub(super) fn to_json(&self) -> Value {
        let members = |declared: &Declared| -> Value {
            let members = declared.members.iter();
            members.map(|member| json!({ "name": member.name, "type": member.type_name })).collect()
        };
        Value::Object(self.0.iter().map(|(name, declared)| (name.clone(), members(declared))).collect())
    }
}

fn read_member(of: &str, member: &Json) -> Result<Member, String> {
    let [name, type_name] = member.clone().members(["name", "type"], &format!("a member of type `{of}`"))?;
    let (Json::Text(name), Json::Text(type_name)) = (name, type_name) else {
        return Err(format!("a member of type `{of}` has a name or a type that is not a text"));
    };
    if !is_identifier(&name) {
        return Err(format!("{name:?} cannot be the name of a member of type `{of}`"));
    }
    let kind = kind(&type_name).ok_or_else(|| format!("member `{name}` of type `{of}` has no type {type_name:?}"))?;
    Ok(Member { name, type_name, kind })
}

impl Kind {
    /// What the innermost list holds.
    pub(super) fn innermost(&self) -> &Self {
        match self {
            Self::List(inner, _) => inner.innermost(),
            other => other,
        }
    }
}

/// `uint256`, `Person[]`, `bytes32[2][]`.
fn kind(text: &str) -> Option<Kind> {
    let (root, mut suffix) = text.split_at(text.find('[').unwrap_or(text.len()));
    let mut kind = basic(root).or_else(|| is_identifier(root).then(|| Kind::Struct(root.to_owned())))?;
    let mut dimensions = 0;
    while !suffix.is_empty() {
        let (length, rest) = suffix.strip_prefix('[')?.split_once(']')?;
        let length = match length {
            "" => None,
            digits => Some(number(digits).filter(|length| *length > 0)?),
        };
        kind = Kind::List(Box::new(kind), length);
        suffix = rest;
        dimensions += 1;
        if dimensions > MAX_DIMENSIONS {
            return None;
        }
    }
    Some(kind)
}

/// A type that is not a struct. The names `uint` and `int` hash unlike `uint256`, and are refused in `kind` by being none.
fn basic(name: &str) -> Option<Kind> {
    let bits = |digits: &str| number(digits).filter(|bits| bits % 8 == 0 && (8..=256).contains(bits));
    match name {
        "bool" => return Some(Kind::Bool),
        "address" => return Some(Kind::Address),
        "string" => return Some(Kind::Text),
        "bytes" => return Some(Kind::Bytes),
        _ => {}
    }
    if let Some(digits) = name.strip_prefix("uint") {
        return bits(digits).map(Kind::Uint);
    }
    if let Some(digits) = name.strip_prefix("int") {
        return bits(digits).map(Kind::Int);
    }
    let length = number(name.strip_prefix("bytes")?).filter(|length| (1..=32).contains(length));
    length.map(Kind::FixedBytes)
}

fn number(digits: &str) -> Option<usize> {
    digits.parse::<usize>().ok().filter(|number| number.to_string() == digits)
}

fn is_identifier(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || c == '$';
    text.starts_with(letter) && text.len() <= 128 && text.chars().all(|c| letter(c) || c.is_ascii_digit())
}
