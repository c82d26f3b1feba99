//! Parties for unit tests: made from a seed, with keys in the clear.
#![allow(clippy::unwrap_used)]

use p256::ecdsa::{Signature, SigningKey, signature::Signer};
use p256::pkcs8::EncodePublicKey;

use crate::certificate::IdentitySignature;
use crate::ids::IdentityKey;
use crate::roster::{Member, Roster};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).unwrap()
}

pub(crate) fn member(seed: u8, index: u16) -> Member {
    let identity = IdentityKey::from_spki(key(seed).verifying_key().to_public_key_der().unwrap().as_bytes());
    Member { party_id: format!("party-{seed}").parse().unwrap(), party_index: index, identity: identity.unwrap() }
}

pub(crate) fn roster(seeds: &[u8]) -> Roster {
    seeds.iter().zip(0u16..).map(|(seed, index)| member(*seed, index)).collect::<Vec<_>>().try_into().unwrap()
}

pub(crate) fn sign(seed: u8, text: &[u8]) -> IdentitySignature {
    let signature: Signature = key(seed).sign(text);
    IdentitySignature(signature.to_bytes().into())
}
