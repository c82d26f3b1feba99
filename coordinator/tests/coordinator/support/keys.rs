//! Identities of the fake appliances, and the keys that they pretend to hold shares of.

use std::collections::HashMap;
use std::sync::Mutex;

use casemate_wire::certificate::IdentitySignature;
use casemate_wire::token::Claims;
use casemate_wire::{Digest32, EcdsaSignature, IdentityKey, KeyCertificate, KeyStatement, PartyId, PublicKey};
use p256::ecdsa::signature::Signer;
use p256::pkcs8::EncodePublicKey;
use sha2::{Digest, Sha256};

pub struct Keys {
    identities: Vec<p256::ecdsa::SigningKey>,
    made: Mutex<HashMap<PublicKey, k256::ecdsa::SigningKey>>,
}

pub fn party(index: u16) -> PartyId {
    format!("party-{index}").parse().unwrap()
}

impl Keys {
    pub fn new(count: u16) -> Self {
        let identity = |index: u16| p256::ecdsa::SigningKey::from_slice(&[index as u8 + 1; 32]);
        Self { identities: (0..count).map(|index| identity(index).unwrap()).collect(), made: Mutex::default() }
    }

    pub fn identity(&self, index: u16) -> IdentityKey {
        let key = self.identities[usize::from(index)].verifying_key();
        IdentityKey::from_spki(key.to_public_key_der().unwrap().as_bytes()).unwrap()
    }

    /// The key that every party of this session makes; with another `twist`, another key.
    pub fn make(&self, claims: &Claims, twist: &str) -> KeyCertificate {
        let seed = Sha256::digest(format!("{}{twist}", claims.session_id));
        let secret = k256::ecdsa::SigningKey::from_slice(&seed).unwrap();
        let point = secret.verifying_key().to_encoded_point(true);
        let public_key = PublicKey::from_bytes(point.as_bytes()).unwrap();
        self.made.lock().unwrap().insert(public_key, secret);
        let statement = KeyStatement {
            public_key,
            chain_code: [1; 32],
            scheme: "cggmp21-secp256k1".into(),
            threshold_t: claims.threshold_t,
            threshold_n: claims.threshold_n,
            roster: claims.participants.clone().try_into().unwrap(),
            epoch: 1,
            share_type: claims.share_type.unwrap(),
            label: claims.label.clone(),
            confirmation: Digest32([6; 32]),
        };
        let text = statement.to_sign();
        let sign = |identity: &p256::ecdsa::SigningKey| {
            let signature: p256::ecdsa::Signature = identity.sign(&text);
            IdentitySignature(signature.to_bytes().into())
        };
        let of = |member: &casemate_wire::Member| {
            let identities = self.identities.iter();
            let mine = (0u16..).zip(identities).find(|(i, _)| party(*i) == member.party_id);
            sign(mine.unwrap().1)
        };
        KeyCertificate { signatures: statement.roster.members().iter().map(of).collect(), statement }
    }

    pub fn sign(&self, key: &PublicKey, hash: &Digest32) -> EcdsaSignature {
        let made = self.made.lock().unwrap();
        let (signature, v) = made[key].sign_prehash_recoverable(&hash.0).unwrap();
        let (r, s) = signature.split_bytes();
        EcdsaSignature { r: r.into(), s: s.into(), v: v.to_byte() }
    }
}
