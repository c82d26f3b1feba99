//! Parties with identity keys, sessions among them, and the tools of an attacker.
#![allow(dead_code, unreachable_pub, clippy::cast_possible_truncation)]

use std::time::Duration;

use casemate_wire::envelope::{
    Channel, Checkpoint, Content, Handshake, Limits, Local, SessionView, SignedHello, SignedMessage,
};
use casemate_wire::{Digest32, IdentityKey, Member, Roster, SessionType, ShareType, Threshold};
use ciborium::Value;
use ed25519_dalek::SigningKey;
use jiff::{SignedDuration, Timestamp};
use p256::ecdsa::signature::Signer;
use p256::pkcs8::EncodePublicKey;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

pub const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
pub const OTHER_KEY: &str = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";

pub fn now() -> Timestamp {
    "2025-11-20T12:30:00.500Z".parse().unwrap()
}

pub fn later(milliseconds: i64) -> Timestamp {
    now() + SignedDuration::from_millis(milliseconds)
}

/// The HSM identity key of a party; a captured party's is the attacker's as well.
pub fn identity(party: u16) -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&[party as u8 + 1; 32]).unwrap()
}

pub fn name(party: u16) -> String {
    format!("party-{party}")
}

pub fn member(party: u16, identity_of: u16) -> Member {
    let spki = identity(identity_of).verifying_key().to_public_key_der().unwrap();
    Member {
        party_id: name(party).parse().unwrap(),
        party_index: party,
        identity: IdentityKey::from_spki(spki.as_bytes()).unwrap(),
    }
}

pub fn roster(parties: &[u16]) -> Roster {
    let members: Vec<_> = parties.iter().map(|party| member(*party, *party)).collect();
    Roster::try_from(members).unwrap()
}

pub fn keygen_view() -> SessionView {
    SessionView {
        session_id: "session-1".parse().unwrap(),
        session_type: SessionType::Keygen,
        share_type: Some(ShareType::Wallet),
        label: None,
        key: None,
        epoch: 0,
        threshold: Threshold::new(2, 3).unwrap(),
        roster: roster(&[0, 1, 2]),
        message_hash: None,
        derivation_path: None,
        rotation: None,
    }
}

pub fn sign_view() -> SessionView {
    SessionView {
        session_type: SessionType::Sign,
        share_type: None,
        key: Some(KEY.parse().unwrap()),
        epoch: 4,
        roster: roster(&[0, 2]),
        message_hash: Some(Digest32([0xaa; 32])),
        derivation_path: Some("m/0/7".into()),
        ..keygen_view()
    }
}

pub fn local(party: u16) -> Local {
    Local {
        party: name(party).parse().unwrap(),
        checkpoint: Checkpoint { log: format!("log-{party}"), size: 10, root: Digest32([party as u8; 32]) },
        witnessed: Vec::new(),
        attest: false,
        clock_skew: Duration::from_secs(30),
        limits: Limits::default(),
    }
}

/// A party's handshake; equal seeds make equal session keys, as a captured party could use them twice.
pub fn begin(view: &SessionView, party: u16, seed: u64) -> Handshake {
    begin_at(view, local(party), now(), seed)
}

pub fn begin_at(view: &SessionView, local: Local, at: Timestamp, seed: u64) -> Handshake {
    Handshake::begin(view.clone(), local, at, &mut StdRng::seed_from_u64(seed)).unwrap()
}

/// What an HSM does.
pub fn sign(party: u16, message: &[u8]) -> [u8; 64] {
    let signature: p256::ecdsa::Signature = identity(party).sign(message);
    signature.to_bytes().into()
}

pub fn signed(handshake: &mut Handshake, party: u16) -> SignedHello {
    let signature = sign(party, handshake.to_sign());
    handshake.signed(signature).unwrap()
}

/// The hello that `party` would send with this view.
pub fn hello(view: &SessionView, party: u16, seed: u64) -> SignedHello {
    signed(&mut begin(view, party, seed), party)
}

/// A hello of this content, validly signed by `party`: what a captured party can send.
pub fn forged_hello(mut forge: SignedHello, party: u16) -> SignedHello {
    forge.signature = sign(party, &canonical("casemate/hello/v1", &*forge.hello));
    forge
}

/// The channels of all parties of a view whose coordinator delivers everything.
pub fn channels(view: &SessionView) -> Vec<Channel> {
    let parties = view.roster.indices();
    let seeds: Vec<u64> = parties.iter().map(|party| u64::from(*party) + 100).collect();
    parties.iter().map(|party| channel(view, *party, &seeds, Limits::default())).collect()
}

/// One party's channel; every party's session keys come from its seed, so that calling it twice makes twins.
pub fn channel(view: &SessionView, party: u16, seeds: &[u64], limits: Limits) -> Channel {
    let own = view.roster.indices().iter().position(|index| *index == party).unwrap();
    let mut handshake = begin_at(view, Local { limits, ..local(party) }, now(), seeds[own]);
    signed(&mut handshake, party);
    for (peer, seed) in view.roster.indices().into_iter().zip(seeds) {
        if peer != party {
            handshake.accept(&hello(view, peer, *seed), now()).unwrap();
        }
    }
    handshake.finish(&mut StdRng::seed_from_u64(seeds[own] + 1000)).unwrap()
}

/// The session signing key that [`begin`] draws from a seed.
pub fn session_key(seed: u64) -> SigningKey {
    let mut rng = StdRng::seed_from_u64(seed);
    rng.fill_bytes(&mut [0; 32]);
    SigningKey::generate(&mut rng)
}

/// A message of this content, validly signed by the session key from `seed`.
pub fn forged_message(content: Content, seed: u64) -> SignedMessage {
    let signature = session_key(seed).sign(&canonical("casemate/message/v1", &content)).to_bytes();
    SignedMessage { content, signature }
}

/// Deterministic CBOR, written a second time and by other means than the product's own.
pub fn canonical(domain: &str, value: &impl serde::Serialize) -> Vec<u8> {
    let Value::Map(mut entries) = Value::serialized(value).unwrap() else {
        panic!("not a map");
    };
    entries.push(("domain".into(), domain.into()));
    let mut bytes = Vec::new();
    write(&Value::Map(entries), &mut bytes);
    bytes
}

fn write(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::Map(entries) => {
            let mut encoded: Vec<(Vec<u8>, Vec<u8>)> = entries
                .iter()
                .map(|(key, value)| {
                    let (mut k, mut v) = (Vec::new(), Vec::new());
                    write(key, &mut k);
                    write(value, &mut v);
                    (k, v)
                })
                .collect();
            encoded.sort();
            head(5, encoded.len() as u64, bytes);
            for (key, value) in encoded {
                bytes.extend(key);
                bytes.extend(value);
            }
        }
        Value::Array(items) => {
            head(4, items.len() as u64, bytes);
            for item in items {
                write(item, bytes);
            }
        }
        Value::Bytes(content) => {
            head(2, content.len() as u64, bytes);
            bytes.extend(content);
        }
        Value::Text(text) => {
            head(3, text.len() as u64, bytes);
            bytes.extend(text.as_bytes());
        }
        Value::Integer(number) => head(0, u64::try_from(*number).unwrap(), bytes),
        other => panic!("{other:?} does not occur"),
    }
}

fn head(major: u8, argument: u64, bytes: &mut Vec<u8>) {
    let first = major << 5;
    match argument {
        0..24 => bytes.push(first | argument as u8),
        24..=0xff => bytes.extend([first | 0x18, argument as u8]),
        0x100..=0xffff => {
            bytes.push(first | 0x19);
            bytes.extend((argument as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            bytes.push(first | 0x1a);
            bytes.extend((argument as u32).to_be_bytes());
        }
        _ => {
            bytes.push(first | 0x1b);
            bytes.extend(argument.to_be_bytes());
        }
    }
}

/// Every way to change one leaf of a value a little, with the leaf's place: each byte of byte strings, each character of
/// texts, numbers up and down, and each optional entry left out.
pub fn alterations(value: &Value) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    match value {
        Value::Map(entries) => {
            for (place, (key, inner)) in entries.iter().enumerate() {
                let key = key.as_text().unwrap();
                for (path, altered) in alterations(inner) {
                    let mut entries = entries.clone();
                    entries[place].1 = altered;
                    all.push((format!("{key}.{path}"), Value::Map(entries)));
                }
                let mut without = entries.clone();
                without.remove(place);
                all.push((format!("{key} left out"), Value::Map(without)));
            }
        }
        Value::Array(items) => {
            for (place, inner) in items.iter().enumerate() {
                for (path, altered) in alterations(inner) {
                    let mut items = items.clone();
                    items[place] = altered;
                    all.push((format!("{place}.{path}"), Value::Array(items)));
                }
            }
        }
        Value::Bytes(bytes) => {
            for place in 0..bytes.len() {
                for bit in [0x01, 0x80] {
                    let mut bytes = bytes.clone();
                    bytes[place] ^= bit;
                    all.push((format!("byte {place}"), Value::Bytes(bytes)));
                }
            }
            all.push(("one byte more".into(), Value::Bytes([bytes.as_slice(), &[0]].concat())));
            all.push((
                "one byte less".into(),
                Value::Bytes(bytes.split_last().map_or(vec![], |(_, rest)| rest.to_vec())),
            ));
        }
        Value::Text(text) => {
            for place in 0..text.len() {
                let mut bytes = text.clone().into_bytes();
                bytes[place] ^= 1;
                all.push((format!("character {place}"), Value::Text(String::from_utf8_lossy(&bytes).into_owned())));
            }
        }
        Value::Integer(number) => {
            let number = i128::from(*number);
            for other in [number + 1, number - 1, 0, 0xffff] {
                if other != number {
                    all.push((format!("as {other}"), Value::Integer(other.try_into().unwrap())));
                }
            }
        }
        other => panic!("{other:?} does not occur"),
    }
    all
}
