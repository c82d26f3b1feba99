//! An appliance that attests, and somebody who asks.

use std::time::Duration;

use casemate_attest::attestation::{
    AttestKey, AuditClaim, Claims, Expected, KekClaim, Measurements, Nonce, Nonces, Quote, TokenClaim, TokenError,
    Ueid, Verified, hardware_model, qualifying_data,
};
use casemate_wire::{Digest32, IdentityKey, PartyId};
use jiff::{SignedDuration, Timestamp};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey;
use sha2::{Digest, Sha256};

pub(super) const NOW: i64 = 1_790_000_000;

pub(super) fn key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).unwrap()
}

pub(super) fn public(key: &SigningKey) -> AttestKey {
    AttestKey::from_spki(key.verifying_key().to_public_key_der().unwrap().as_bytes()).unwrap()
}

pub(super) fn sign(key: &SigningKey, message: &[u8]) -> [u8; 64] {
    let signature: Signature = key.sign(message);
    signature.to_bytes().into()
}

pub(super) fn nonce(byte: u8) -> Nonce {
    Nonce::new(vec![byte; 32]).unwrap()
}

pub(super) fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

pub(super) fn party() -> PartyId {
    "party-1".parse().unwrap()
}

pub(super) fn claims() -> Claims {
    let identity = key(9);
    let spki = identity.verifying_key().to_public_key_der().unwrap();
    Claims {
        nonces: nonce(1).into(),
        issued_at: time(NOW),
        expires_at: time(NOW + 300),
        ueid: Ueid::of(&IdentityKey::from_spki(spki.as_bytes()).unwrap()),
        hwmodel: hardware_model("SoftHSM project", "SoftHSM v2"),
        boots: 3,
        version: "0.1.0".parse().unwrap(),
        measurements: Measurements {
            binary: Digest32([0xb1; 32]),
            config: Digest32([0xc0; 32]),
            policy: Some(Digest32([0x90; 32])),
        },
        party: party(),
        audit: AuditClaim {
            origin: "casemate/party-1/00c0ffee".parse().unwrap(),
            size: 41,
            root: Digest32([0xaa; 32]),
        },
        token: TokenClaim {
            model: "SoftHSM v2".parse().unwrap(),
            serial: "0123456789abcdef".parse().unwrap(),
            firmware: "2.6".parse().unwrap(),
        },
        kek: KekClaim { label: "kek/2".parse().unwrap(), epoch: 2 },
        tls_spki: Digest32([0x75; 32]),
        quote: None,
    }
}

pub(super) fn token(claims: &Claims) -> Vec<u8> {
    token_by(claims, &key(1))
}

pub(super) fn token_by(claims: &Claims, key: &SigningKey) -> Vec<u8> {
    let unsigned = claims.unsigned(&public(key)).unwrap();
    let signature = sign(key, unsigned.to_sign());
    unsigned.signed(&signature).unwrap()
}

/// Checks as the asker of nonce 1 does, at `seconds`, with a skew of 30 s.
pub(super) fn check_at(token: &[u8], seconds: i64) -> Result<Verified, TokenError> {
    let (key, party, nonce) = (public(&key(1)), party(), nonce(1));
    let now = time(seconds).checked_add(SignedDuration::ZERO).unwrap();
    Verified::check(token, &Expected { party: &party, key: &key, nonce: &nonce, now, skew: Duration::from_secs(30) })
}

pub(super) fn check(token: &[u8]) -> Result<Verified, TokenError> {
    check_at(token, NOW + 1)
}

pub(super) fn verified(claims: &Claims) -> Verified {
    check(&token(claims)).unwrap()
}

/// What a TPM with these PCRs signs for a token with these nonces by key 1.
pub(super) fn attested(nonces: &Nonces, pcrs: &[(u8, Digest32)]) -> Vec<u8> {
    let mut selected = [0_u8; 3];
    let mut digest = Sha256::new();
    for (index, value) in pcrs {
        selected[usize::from(index / 8)] |= 1 << (index % 8);
        digest.update(value.0);
    }
    let mut bytes = hex::decode("ff544347" /* TPM_GENERATED */).unwrap();
    bytes.extend([0x80, 0x18, 0, 2, 0xab, 0xcd]);
    bytes.extend([0, 32]);
    bytes.extend(qualifying_data(nonces, &public(&key(1))));
    bytes.extend(77_u64.to_be_bytes());
    bytes.extend(5_u32.to_be_bytes());
    bytes.extend(1_u32.to_be_bytes());
    bytes.push(1);
    bytes.extend(0x1234_u64.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0, 0x0b, 3]);
    bytes.extend(selected);
    bytes.extend([0, 32]);
    bytes.extend(digest.finalize());
    bytes
}

pub(super) fn pcrs() -> Vec<(u8, Digest32)> {
    vec![(0, Digest32([0x10; 32])), (7, Digest32([0x17; 32])), (14, Digest32([0x1e; 32]))]
}

/// A good quote for a token with these nonces; key 5 is the TPM's.
pub(super) fn quote(nonces: &Nonces) -> Quote {
    let attested = attested(nonces, &pcrs());
    let signature = sign(&key(5), &attested);
    Quote { ak: public(&key(5)), attested, signature, pcrs: pcrs() }
}
