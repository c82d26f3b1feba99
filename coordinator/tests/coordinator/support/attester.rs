//! What a fake appliance says of itself.

use casemate_attest::attestation::{AttestKey, AuditClaim, Claims, KekClaim, Measurements, Nonce, TokenClaim, Ueid};
use casemate_wire::{Digest32, IdentityKey};
use jiff::{SignedDuration, Timestamp};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey;

use super::keys::party;

pub use casemate_attest::attestation::MEDIA_TYPE;

/// How it answers the next question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Attesting {
    #[default]
    Honest,
    /// Runs another program.
    OtherBinary,
    /// Gives what it gave the last time.
    Again,
    /// Signs with another key.
    OtherKey,
    /// Gives this many bytes that are no token.
    Garbage(usize),
    /// Refuses.
    Refuse,
}

pub struct Attester {
    index: u16,
    last: Vec<u8>,
    pub how: Attesting,
    pub asked: usize,
}

fn key(index: u16) -> SigningKey {
    SigningKey::from_slice(&[100 + index as u8; 32]).unwrap()
}

fn spki(key: &SigningKey) -> Vec<u8> {
    key.verifying_key().to_public_key_der().unwrap().as_bytes().to_vec()
}

/// The reference file that an honest appliance fits.
pub fn reference(index: u16) -> String {
    let key = AttestKey::from_spki(&spki(&key(index))).unwrap();
    format!("party = \"{}\"\nattest_key = \"{key}\"\nbinary = [\"{}\"]\n", party(index), Digest32([1; 32]))
}

impl Attester {
    pub fn new(index: u16) -> Self {
        Self { index, last: Vec::new(), how: Attesting::Honest, asked: 0 }
    }

    pub fn answer(&mut self, nonce: &str) -> Option<Vec<u8>> {
        self.asked += 1;
        let signer = if self.how == Attesting::OtherKey { key(self.index + 50) } else { key(self.index) };
        let binary = if self.how == Attesting::OtherBinary { [2; 32] } else { [1; 32] };
        match self.how {
            Attesting::Again => return Some(self.last.clone()),
            Attesting::Garbage(length) => return Some(vec![0xd2; length]),
            Attesting::Refuse => return None,
            _ => {}
        }
        let unsigned = self.claims(nonce, binary).unsigned(&AttestKey::from_spki(&spki(&signer)).unwrap()).unwrap();
        let signature: Signature = signer.sign(unsigned.to_sign());
        self.last = unsigned.signed(&signature.to_bytes().into()).unwrap();
        Some(self.last.clone())
    }

    fn claims(&self, nonce: &str, binary: [u8; 32]) -> Claims {
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
        let text = |text: &str| text.parse().unwrap();
        Claims {
            nonces: nonce.parse::<Nonce>().unwrap().into(),
            issued_at: now,
            expires_at: now + SignedDuration::from_secs(300),
            ueid: Ueid::of(&IdentityKey::from_spki(&spki(&key(self.index))).unwrap()),
            hwmodel: [3; 32],
            boots: 1,
            version: text("0.1.0"),
            measurements: Measurements { binary: Digest32(binary), config: Digest32([4; 32]), policy: None },
            party: party(self.index),
            audit: AuditClaim { origin: "log".parse().unwrap(), size: 1, root: Digest32([5; 32]) },
            token: TokenClaim { model: text("fake"), serial: text("1"), firmware: text("1.0") },
            kek: KekClaim { label: text("kek/1"), epoch: 1 },
            tls_spki: Digest32([6; 32]),
            quote: None,
        }
    }
}
