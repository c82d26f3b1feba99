//! The key certificate: every party's identity signature over one new public key.
//!
//! The coordinator, which nobody trusts, cannot pass a key of its own off as the committee's: clients check all n
//! signatures against the identities that they have pinned before they show an address.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest32, IdentityKey, PartyId, PublicKey, ShareType};
use crate::roster::{Member, Roster, Threshold};

const DOMAIN: &str = "casemate/key-certificate/v1";

/// What the parties of a key state about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyStatement {
    /// The threshold public key.
    pub public_key: PublicKey,
    /// The SLIP-10 / BIP-32 chain code.
    #[serde(with = "hex::serde")]
    pub chain_code: [u8; 32],
    /// The scheme and curve, for example `cggmp21-secp256k1`.
    pub scheme: String,
    /// Parties needed to sign.
    pub threshold_t: u16,
    /// Parties that hold a share.
    pub threshold_n: u16,
    /// The whole committee.
    pub roster: Roster,
    /// 1 for a new key; each refresh adds one.
    pub epoch: u64,
    /// What the key is for.
    pub share_type: ShareType,
    /// The key's label, by which policy may put it into groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Over all that the parties said to each other when the key was made, and its public shares: a certificate exists
    /// only if all of them saw the same.
    pub confirmation: Digest32,
}

impl KeyStatement {
    /// The bytes that each identity key signs: CBOR of `[domain, statement]`, fields in the order above.
    pub fn to_sign(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Writing CBOR of plain data into memory has no way to fail; were it to, the empty text verifies nowhere.
        if ciborium::into_writer(&(DOMAIN, self), &mut bytes).is_err() {
            bytes.clear();
        }
        bytes
    }
}

/// A statement with the signatures of all n parties, in roster order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyCertificate {
    /// What is stated.
    pub statement: KeyStatement,
    /// One ECDSA P-256 signature (`r ‖ s`, hex) a party.
    pub signatures: Vec<IdentitySignature>,
}

/// A P-256 signature by an identity key, `r ‖ s`, 64 bytes; hex as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdentitySignature(#[serde(with = "hex::serde")] pub [u8; 64]);

/// Why a certificate proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is not one signature for each of n parties, or t, n and roster do not fit each other.
    #[error("the key certificate is misshapen: {0}")]
    Misshapen(String),
    /// A signature does not verify.
    #[error("the signature of {0} in the key certificate does not verify")]
    BadSignature(PartyId),
    /// The certificate names another identity than the one that is pinned for this party.
    #[error("the key certificate names another identity for {0} than the one pinned here")]
    OtherIdentity(PartyId),
    /// No identity is pinned for this party.
    #[error("no identity is pinned here for {0}, which the key certificate names")]
    UnknownParty(PartyId),
}

impl KeyCertificate {
    /// Checks shape, all n signatures, and every identity against what is `pinned` for that member's party.
    ///
    /// # Errors
    /// Says what is wrong, and with which party.
    pub fn verify(&self, pinned: impl Fn(&Member) -> Option<IdentityKey>) -> Result<(), CertificateError> {
        for member in self.statement.roster.members() {
            match pinned(member) {
                None => return Err(CertificateError::UnknownParty(member.party_id.clone())),
                Some(identity) if identity != member.identity => {
                    return Err(CertificateError::OtherIdentity(member.party_id.clone()));
                }
                Some(_) => {}
            }
        }
        self.verify_signatures()
    }

    /// Checks shape and all n signatures against the identities that the certificate itself names.
    ///
    /// # Security
    /// Proves nothing about who the parties are; for display by those who pin nothing. Use [`Self::verify`] else.
    ///
    /// # Errors
    /// Says what is wrong, and with which party.
    pub fn verify_signatures(&self) -> Result<(), CertificateError> {
        let statement = &self.statement;
        let misshapen = CertificateError::Misshapen;
        Threshold::new(statement.threshold_t, statement.threshold_n).map_err(|e| misshapen(e.to_string()))?;
        let members: &[Member] = statement.roster.members();
        if !statement.roster.is_full() || members.len() != usize::from(statement.threshold_n) {
            return Err(misshapen("its roster is not the whole committee".into()));
        }
        if self.signatures.len() != members.len() {
            return Err(misshapen(format!("{} signatures for {} parties", self.signatures.len(), members.len())));
        }
        let text = statement.to_sign();
        for (member, signature) in members.iter().zip(&self.signatures) {
            if !member.identity.verifies(&text, &signature.0) {
                return Err(CertificateError::BadSignature(member.party_id.clone()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use p256::ecdsa::{Signature, SigningKey, signature::Signer};
    use p256::pkcs8::EncodePublicKey;

    fn keys() -> Vec<SigningKey> {
        (1u8..=3).map(|seed| SigningKey::from_slice(&[seed; 32]).unwrap()).collect()
    }

    fn identity(key: &SigningKey) -> IdentityKey {
        IdentityKey::from_spki(key.verifying_key().to_public_key_der().unwrap().as_bytes()).unwrap()
    }

    fn certificate() -> KeyCertificate {
        let members: Vec<Member> = (0u16..)
            .zip(keys())
            .map(|(index, key)| Member {
                party_id: format!("party-{index}").parse().unwrap(),
                party_index: index,
                identity: identity(&key),
            })
            .collect();
        let statement = KeyStatement {
            public_key: "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().unwrap(),
            chain_code: [5; 32],
            scheme: "cggmp21-secp256k1".into(),
            threshold_t: 2,
            threshold_n: 3,
            roster: members.try_into().unwrap(),
            epoch: 1,
            share_type: ShareType::Wallet,
            label: Some("treasury".into()),
            confirmation: Digest32([6; 32]),
        };
        let text = statement.to_sign();
        let sign = |key: &SigningKey| -> IdentitySignature {
            let signature: Signature = key.sign(&text);
            IdentitySignature(signature.to_bytes().into())
        };
        KeyCertificate { signatures: keys().iter().map(sign).collect(), statement }
    }

    fn pinned(member: &Member) -> Option<IdentityKey> {
        let index: usize = member.party_id.as_str().strip_prefix("party-")?.parse().ok()?;
        keys().get(index).map(identity)
    }

    #[test]
    fn all_signatures_and_all_identities_are_checked() {
        let good = certificate();
        assert_eq!(good.verify(pinned), Ok(()));

        let mut two = good.clone();
        two.signatures.pop();
        assert!(matches!(two.verify(pinned), Err(CertificateError::Misshapen(_))));

        let mut forged = good.clone();
        forged.signatures[2].0[10] ^= 1;
        let third = "party-2".parse().unwrap();
        assert_eq!(forged.verify(pinned), Err(CertificateError::BadSignature(third)));

        let stranger = |member: &Member| pinned(member).filter(|_| member.party_id.as_str() != "party-1");
        let second: PartyId = "party-1".parse().unwrap();
        assert_eq!(good.verify(stranger), Err(CertificateError::UnknownParty(second.clone())));

        let swapped = |member: &Member| {
            if member.party_id.as_str() == "party-1" { keys().first().map(identity) } else { pinned(member) }
        };
        assert_eq!(good.verify(swapped), Err(CertificateError::OtherIdentity(second)));
    }

    #[test]
    fn every_stated_field_is_signed() {
        let changes: [fn(&mut KeyStatement); 8] = [
            |s| s.chain_code[0] ^= 1,
            |s| s.scheme.push('x'),
            |s| s.threshold_t = 3,
            |s| s.epoch = 2,
            |s| s.share_type = ShareType::Admin,
            |s| s.label = None,
            |s| s.confirmation = Digest32([7; 32]),
            |s| {
                s.public_key = "03 79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
                    .replace(' ', "")
                    .parse()
                    .unwrap();
            },
        ];
        for change in changes {
            let mut altered = certificate();
            change(&mut altered.statement);
            assert!(altered.verify(pinned).is_err());
        }
    }

    #[test]
    fn it_survives_its_json_form() {
        let good = certificate();
        let text = serde_json::to_string(&good).unwrap();
        assert_eq!(serde_json::from_str::<KeyCertificate>(&text).unwrap(), good);
    }
}
