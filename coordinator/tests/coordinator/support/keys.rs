//! Identities of the fake appliances, and the keys that they pretend to hold shares of.

use std::collections::HashMap;
use std::sync::Mutex;

use casemate_wire::certificate::IdentitySignature;
use casemate_wire::rotation::{Endorsement, Switched, switched_text};
use casemate_wire::token::Claims;
use casemate_wire::{
    Digest32, EcdsaSignature, IdentityKey, KeyCertificate, KeyStatement, PartyId, PublicKey, Succession,
};
use p256::ecdsa::signature::Signer;
use p256::pkcs8::EncodePublicKey;
use sha2::{Digest, Sha256};

const CHAIN_CODE: [u8; 32] = [1; 32];

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
            chain_code: CHAIN_CODE,
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
        let of = |member: &casemate_wire::Member| self.sign_as(&member.party_id, &text);
        KeyCertificate { signatures: statement.roster.members().iter().map(of).collect(), statement }
    }

    /// What a rotation of this session ends with; with a `leap`, to a later epoch than was asked for.
    pub fn rotate(&self, claims: &Claims, leap: u64) -> Succession {
        let rotation = claims.rotation.as_ref().unwrap();
        let committee = claims.participants.iter().take(claims.threshold_n.into()).cloned().collect::<Vec<_>>();
        let statement = KeyStatement {
            public_key: claims.public_key.unwrap(),
            chain_code: CHAIN_CODE,
            scheme: "cggmp21-secp256k1".into(),
            threshold_t: claims.threshold_t,
            threshold_n: claims.threshold_n,
            roster: committee.try_into().unwrap(),
            epoch: rotation.epoch + leap,
            share_type: claims.share_type.unwrap(),
            label: claims.label.clone(),
            confirmation: Digest32([8; 32]),
        };
        let text = statement.to_sign();
        let endorse =
            |dealer: &PartyId| Endorsement { party_id: dealer.clone(), signature: self.sign_as(dealer, &text) };
        let endorsements = rotation.dealers.iter().map(endorse).collect();
        let members = statement.roster.members();
        let signatures = members.iter().map(|member| self.sign_as(&member.party_id, &text)).collect();
        Succession { certificate: KeyCertificate { statement, signatures }, endorsements }
    }

    /// A party's word that it has switched.
    pub fn switched(&self, index: u16, certificate: &KeyCertificate) -> Switched {
        let party_id = party(index);
        let signature = self.sign_as(&party_id, &switched_text(certificate, &party_id));
        Switched { party_id, signature }
    }

    fn sign_as(&self, party_id: &PartyId, text: &[u8]) -> IdentitySignature {
        let mine = (0u16..).zip(&self.identities).find(|(index, _)| party(*index) == *party_id);
        let signature: p256::ecdsa::Signature = mine.unwrap().1.sign(text);
        IdentitySignature(signature.to_bytes().into())
    }

    /// The child of a key at a path, derived from the secret: the other way than by which the coordinator does it.
    pub fn child(&self, key: &PublicKey, path: &str) -> PublicKey {
        use hmac::Mac;
        let mut secret = self.made.lock().unwrap()[key].clone();
        let mut chain_code = CHAIN_CODE;
        for index in path.strip_prefix("m/").unwrap().split('/') {
            let mut mac = hmac::Hmac::<sha2::Sha512>::new_from_slice(&chain_code).unwrap();
            mac.update(secret.verifying_key().to_encoded_point(true).as_bytes());
            mac.update(&index.parse::<u32>().unwrap().to_be_bytes());
            let digest = mac.finalize().into_bytes();
            let tweak = k256::NonZeroScalar::try_from(&digest[..32]).unwrap();
            let child = **secret.as_nonzero_scalar() + *tweak;
            secret = k256::ecdsa::SigningKey::from_slice(&child.to_bytes()).unwrap();
            chain_code = digest[32..].try_into().unwrap();
        }
        let public = PublicKey::from_bytes(secret.verifying_key().to_encoded_point(true).as_bytes()).unwrap();
        self.made.lock().unwrap().insert(public, secret);
        public
    }

    pub fn sign(&self, key: &PublicKey, hash: &Digest32) -> EcdsaSignature {
        let made = self.made.lock().unwrap();
        let (signature, v) = made[key].sign_prehash_recoverable(&hash.0).unwrap();
        let (r, s) = signature.split_bytes();
        EcdsaSignature { r: r.into(), s: s.into(), v: v.to_byte() }
    }
}
