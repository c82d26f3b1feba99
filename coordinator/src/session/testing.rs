//! Sessions, identities and results for tests.
#![allow(clippy::unwrap_used)]

use casemate_wire::certificate::IdentitySignature;
use casemate_wire::{
    Digest32, EcdsaSignature, IdentityKey, KeyCertificate, KeyStatement, Member, PartyId, PublicKey, ShareType,
    Threshold,
};
use jiff::{SignedDuration, Timestamp};
use p256::ecdsa::signature::Signer;
use p256::pkcs8::EncodePublicKey;

use super::{NewAccount, Participant, Purpose, Session};
use crate::account::{AccountId, Device};

pub(crate) const HASH: Digest32 = Digest32([7; 32]);

/// `party-0`, `party-1`, `party-2`.
pub(crate) fn party(index: u16) -> PartyId {
    format!("party-{index}").parse().unwrap()
}

fn identity_secret(index: u16) -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&[u8::try_from(index).unwrap() + 1; 32]).unwrap()
}

/// The identity of the party with this index.
pub(crate) fn identity(index: u16) -> IdentityKey {
    let spki = identity_secret(index).verifying_key().to_public_key_der();
    IdentityKey::from_spki(spki.unwrap().as_bytes()).unwrap()
}

/// The pins of all three parties.
pub(crate) fn pinned(member: &Member) -> Option<IdentityKey> {
    (0..3).find(|index| party(*index) == member.party_id).map(identity)
}

pub(crate) fn threshold() -> Threshold {
    Threshold::new(2, 3).unwrap()
}

fn participants(indices: impl IntoIterator<Item = u16>, device: Option<&Device>) -> Vec<Participant> {
    let participant = |index| Participant::new(party(index), index, identity(index), device.cloned());
    indices.into_iter().map(participant).collect()
}

/// A 2-of-3 keygen session of ten minutes.
pub(crate) fn keygen() -> Session {
    keygen_that_expires(start() + SignedDuration::from_mins(10))
}

pub(crate) fn keygen_that_expires(expires: Timestamp) -> Session {
    let device = Device { kind: "server".into(), id: None, platform: Some("linux".into()) };
    let new = NewAccount {
        account_id: AccountId::random(),
        share_type: ShareType::Wallet,
        label: Some("treasury".into()),
        username: Some("acme".into()),
        email: None,
    };
    let id = uuid::Uuid::new_v4().to_string().parse().unwrap();
    let parties = participants(0..3, Some(&device));
    Session::new(id, Purpose::Keygen(new), threshold(), parties, (start(), expires))
}

/// A signing session of parties 0 and 2 of a 2-of-3 key.
pub(crate) fn sign() -> Session {
    let purpose = Purpose::Sign { account_id: AccountId::random(), public_key: public_key(9), message_hash: HASH };
    let id = uuid::Uuid::new_v4().to_string().parse().unwrap();
    let times = (start(), start() + SignedDuration::from_mins(10));
    Session::new(id, purpose, threshold(), participants([0, 2], None), times)
}

pub(crate) fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn secret(seed: u8) -> k256::ecdsa::SigningKey {
    k256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap()
}

pub(crate) fn public_key(seed: u8) -> PublicKey {
    PublicKey::from_bytes(secret(seed).verifying_key().to_encoded_point(true).as_bytes()).unwrap()
}

/// A signature by the key with this seed.
pub(crate) fn signature(seed: u8, hash: Digest32) -> EcdsaSignature {
    let (signature, v) = secret(seed).sign_prehash_recoverable(&hash.0).unwrap();
    let (r, s) = signature.split_bytes();
    EcdsaSignature { r: r.into(), s: s.into(), v: v.to_byte() }
}

/// A certificate of the key with this seed, changed by `edit` before all three sign it.
pub(crate) fn certificate(seed: u8, edit: impl FnOnce(&mut KeyStatement)) -> KeyCertificate {
    let member = |index| Member { party_id: party(index), party_index: index, identity: identity(index) };
    let mut statement = KeyStatement {
        public_key: public_key(seed),
        chain_code: [5; 32],
        scheme: "cggmp21-secp256k1".into(),
        threshold_t: 2,
        threshold_n: 3,
        roster: (0..3).map(member).collect::<Vec<_>>().try_into().unwrap(),
        epoch: 1,
        share_type: ShareType::Wallet,
        label: Some("treasury".into()),
        confirmation: Digest32([6; 32]),
    };
    edit(&mut statement);
    let text = statement.to_sign();
    let sign = |index| {
        let signature: p256::ecdsa::Signature = identity_secret(index).sign(&text);
        IdentitySignature(signature.to_bytes().into())
    };
    KeyCertificate { signatures: (0..3).map(sign).collect(), statement }
}
