//! One function for each parser of evidence from outside: bytes in, and a panic if a promise is broken.
//!
//! `cargo test -p casemate-attest-fuzz` runs them over seeds and a few thousand mutations. To go on for longer, with a
//! nightly compiler and cargo-fuzz:
//!
//! ```text
//! cargo +nightly fuzz run --fuzz-dir attest/fuzz --features libfuzzer attestation_token -- -max_total_time=600
//! ```

#![allow(clippy::panic, clippy::expect_used)] // a broken promise must stop the fuzzer

use std::time::Duration;

use casemate_attest::attestation::{
    AttestKey, AuditClaim, Claims, Expected, KekClaim, MAX_TOKEN, Measurements, Nonce, TokenClaim, Ueid, Unverified,
    Verified, hardware_model,
};
use casemate_wire::{Digest32, IdentityKey, PartyId};
use jiff::Timestamp;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey as _;

/// When the seed's token was made, in seconds since 1970.
const MADE: i64 = 1_790_000_000;

/// What a parser made of its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It understood it.
    Decoded,
    /// It refused it.
    Refused,
}

/// An attestation token. What is read can be written again, and is read the same; what is taken for signed is the one token
/// that was.
///
/// # Panics
/// A promise is broken.
pub fn attestation_token(bytes: &[u8]) -> Outcome {
    let (key, nonce, party) = (public(), nonce(), party());
    let now = Timestamp::from_second(MADE + 1).expect("a time");
    let expected = Expected { party: &party, key: &key, nonce: &nonce, now, skew: Duration::from_secs(30) };
    let verified = Verified::check(bytes, &expected);
    assert!(verified.is_err() || bytes == seed(), "a token that nobody signed verifies: {}", hex::encode(bytes));
    match Unverified::read(bytes) {
        Ok(read) => {
            assert!(bytes.len() <= MAX_TOKEN, "a token of {} bytes is read", bytes.len());
            let again = Unverified::read(&token(&read.claims)).expect("what was read is written in the one form");
            assert_eq!(again.claims, read.claims, "what was read is written as something else");
            Outcome::Decoded
        }
        Err(_) => Outcome::Refused,
    }
}

/// The token that was signed.
///
/// # Panics
/// Its claims do not fit into a token.
pub fn seed() -> Vec<u8> {
    let claims = Claims {
        nonces: nonce().into(),
        issued_at: Timestamp::from_second(MADE).expect("a time"),
        expires_at: Timestamp::from_second(MADE + 300).expect("a time"),
        ueid: Ueid::of(&IdentityKey::from_spki(&spki()).expect("a key")),
        hwmodel: hardware_model("SoftHSM project", "SoftHSM v2"),
        boots: 3,
        version: "0.1.0".parse().expect("a text"),
        measurements: Measurements {
            binary: Digest32([0xb1; 32]),
            config: Digest32([0xc0; 32]),
            policy: Some(Digest32([0x90; 32])),
        },
        party: party(),
        audit: AuditClaim { origin: "casemate/party-1/0a".parse().expect("a log"), size: 41, root: Digest32([7; 32]) },
        token: TokenClaim {
            model: "SoftHSM v2".parse().expect("a text"),
            serial: "0123456789abcdef".parse().expect("a text"),
            firmware: "2.6".parse().expect("a text"),
        },
        kek: KekClaim { label: "kek/2".parse().expect("a text"), epoch: 2 },
        tls_spki: Digest32([0x75; 32]),
        quote: None,
    };
    token(&claims)
}

fn token(claims: &Claims) -> Vec<u8> {
    let unsigned = claims.unsigned(&public()).expect("claims of a token");
    let signature: Signature = secret().sign(unsigned.to_sign());
    unsigned.signed(&signature.to_bytes().into()).expect("a token")
}

fn secret() -> SigningKey {
    SigningKey::from_slice(&[1; 32]).expect("a key")
}

fn spki() -> Vec<u8> {
    secret().verifying_key().to_public_key_der().expect("a key").as_bytes().to_vec()
}

fn public() -> AttestKey {
    AttestKey::from_spki(&spki()).expect("a key")
}

fn nonce() -> Nonce {
    Nonce::new(vec![1; 32]).expect("a nonce")
}

fn party() -> PartyId {
    "party-1".parse().expect("a party")
}
