//! The COSE_Sign1 (RFC 9052, section 4.2) around the claims: tagged 18, everything in the protected header, ES256.

use coset::cbor::Value;
use coset::iana::Algorithm;
use coset::{
    CborSerializable, CoseSign1, Header, Label, ProtectedHeader, RegisteredLabelWithPrivate, TaggedCborSerializable,
};

use super::claims::{Claims, InvalidClaims};
use super::key::AttestKey;
use super::verify::MAX_TOKEN;
use super::{cbor, decode, encode};

/// Names the profile of `docs/attestation.md` (RFC 9711, section 6). Another form of token has another name.
pub const PROFILE: &str = "urn:uuid:40aab704-8dab-4e1e-a6f1-3503fdd27bf6";
/// The media type of a token (RFC 9782), in HTTP and in its own header.
pub const MEDIA_TYPE: &str = "application/eat+cwt";

/// The header parameter `typ` (RFC 9596).
const TYP: i64 = 16;

/// A token that still needs its signature.
#[derive(Debug)]
pub struct Unsigned {
    message: CoseSign1,
    key: AttestKey,
    to_sign: Vec<u8>,
}

impl Claims {
    /// The token of these claims, to be signed by the owner of `key`.
    ///
    /// # Errors
    /// The claims do not fit the profile.
    pub fn unsigned(&self, key: &AttestKey) -> Result<Unsigned, InvalidClaims> {
        let message = CoseSign1 {
            protected: ProtectedHeader { original_data: None, header: protected(key) },
            unprotected: Header::default(),
            payload: Some(encode::payload(self)?),
            signature: Vec::new(),
        };
        // `tbs_data` writes this header; one that cannot be written must not reach it.
        protected(key).to_vec().map_err(|error| InvalidClaims::Encoding(error.to_string()))?;
        let to_sign = message.tbs_data(&[]);
        Ok(Unsigned { message, key: key.clone(), to_sign })
    }
}

impl Unsigned {
    /// The bytes to sign: the Sig_structure (RFC 9052, section 4.4), which holds its own context, so that nothing else
    /// that a key signs can pass for it.
    pub fn to_sign(&self) -> &[u8] {
        &self.to_sign
    }

    /// The token, once `signature` (ECDSA P-256 over SHA-256, `r ‖ s`) is found to be the key's.
    ///
    /// # Errors
    /// The signature is another one, or the token would be longer than any receiver takes.
    pub fn signed(mut self, signature: &[u8; 64]) -> Result<Vec<u8>, InvalidClaims> {
        if !self.key.verifies(&self.to_sign, signature) {
            return Err(InvalidClaims::Signature);
        }
        self.message.signature = signature.to_vec();
        let token = self.message.to_tagged_vec().map_err(|error| InvalidClaims::Encoding(error.to_string()))?;
        if token.len() > MAX_TOKEN {
            return Err(InvalidClaims::Encoding(format!("it would have more than {MAX_TOKEN} bytes")));
        }
        Ok(token)
    }
}

fn protected(key: &AttestKey) -> Header {
    Header {
        alg: Some(RegisteredLabelWithPrivate::Assigned(Algorithm::ES256)),
        key_id: key.fingerprint().0.to_vec(),
        rest: vec![(Label::Int(TYP), MEDIA_TYPE.into())],
        ..Header::default()
    }
}

/// A COSE_Sign1 as it came: in the one form that the profile allows, its signature not yet looked at.
pub(super) struct Envelope {
    message: CoseSign1,
    key_id: [u8; 32],
    signature: [u8; 64],
}

impl Envelope {
    pub(super) fn read(token: &[u8]) -> cbor::Read<Self> {
        let not_cose = |error: coset::CoseError| cbor::Bad(format!("it is not a COSE_Sign1 message: {error}"));
        let message = CoseSign1::from_tagged_slice(token).map_err(not_cose)?;
        let header = &message.protected.header;
        if header.alg != Some(RegisteredLabelWithPrivate::Assigned(Algorithm::ES256)) {
            return cbor::bad("the algorithm", "is not ES256 in the protected header");
        }
        let typ = header.rest.iter().find(|(label, _)| *label == Label::Int(TYP));
        typ.map_or_else(
            || cbor::bad("the header", "has no typ"),
            |(_, value): &(_, Value)| decode::media_type(value.clone()),
        )?;
        let Ok(key_id) = header.key_id.as_slice().try_into() else {
            return cbor::bad("the kid", "is not a key's SHA-256");
        };
        let Ok(signature) = message.signature.as_slice().try_into() else {
            return cbor::bad("the signature", "does not have 64 bytes");
        };
        // Whatever else a header may hold is not of the profile; nor is any other encoding of the same.
        let mut plain = message.clone();
        plain.protected = ProtectedHeader {
            original_data: None,
            header: Header {
                alg: header.alg.clone(),
                key_id: header.key_id.clone(),
                rest: vec![(Label::Int(TYP), MEDIA_TYPE.into())],
                ..Header::default()
            },
        };
        plain.unprotected = Header::default();
        match plain.to_tagged_vec() {
            Ok(written) if written == token => Ok(Self { message, key_id, signature }),
            _ => {
                cbor::bad("the COSE header", "holds more than this profile allows, or is not in deterministic encoding")
            }
        }
    }

    /// The payload; whoever calls this without [`Self::is_signed_by`] learns what somebody claims.
    pub(super) fn payload(&self) -> &[u8] {
        self.message.payload.as_deref().unwrap_or_default()
    }

    pub(super) fn key_id(&self) -> [u8; 32] {
        self.key_id
    }

    pub(super) fn is_signed_by(&self, key: &AttestKey) -> bool {
        is_signed_by(&self.message, &[], &self.signature, key)
    }
}

fn is_signed_by(message: &CoseSign1, external: &[u8], signature: &[u8; 64], key: &AttestKey) -> bool {
    // A message without a payload has nothing to sign; `tbs_data` is not made for it.
    message.payload.is_some() && key.verifies(&message.tbs_data(external), signature)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use p256::pkcs8::EncodePublicKey;

    use super::*;

    /// The key of the vectors below: `x` and `y` in their files.
    fn key() -> AttestKey {
        let point = hex::decode(concat!(
            "04bac5b11cad8f99f9c72b05cf4b9e26d244dc189f745228255a219a86d6a09eff",
            "20138bf82dc1b6d562be0fa54ab7804a3a64b6d72ccfed6b6fb6ed28bbfc117e"
        ));
        let key = p256::PublicKey::from_sec1_bytes(&point.unwrap()).unwrap();
        AttestKey::from_spki(key.to_public_key_der().unwrap().as_bytes()).unwrap()
    }

    fn verifies(message: &str, external: &str, to_sign: &str) -> bool {
        let message = CoseSign1::from_tagged_slice(&hex::decode(message).unwrap()).unwrap();
        let external = hex::decode(external).unwrap();
        assert_eq!(hex::encode_upper(message.tbs_data(&external)), to_sign);
        let signature = message.signature.as_slice().try_into().unwrap();
        is_signed_by(&message, &external, &signature, &key())
    }

    /// github.com/cose-wg/Examples, `sign1-tests/sign-pass-03.json` (tag put back), `sign-pass-02.json` and
    /// `sign-fail-02.json`.
    #[test]
    fn signatures_of_the_cose_working_group_verify() {
        assert!(verifies(
            concat!(
                "D28443A10126A10442313154546869732069732074686520636F6E74656E742E5840EAE868ECC176883766C5DC5BA5B8DCA2",
                "5DAB3C2E56A551CE5705B793914348E19F43D6C6BA654472DA301B645B293C9BA939295B97C4BDB847782BFF384C5794"
            ),
            "",
            "846A5369676E61747572653143A101264054546869732069732074686520636F6E74656E742E"
        ));
        assert!(verifies(
            concat!(
                "D28443A10126A10442313154546869732069732074686520636F6E74656E742E5840EAE868ECC176883766C5DC5BA5B8DCA2",
                "5DAB3C2E56A551CE5705B793914348E155388B10C4F1B59A6733EAB416870A945111A4B2FBDBEF33A77234B1DEFF2F9B"
            ),
            "11AA22BB33CC44DD55006699",
            "846A5369676E61747572653143A101264C11AA22BB33CC44DD5500669954546869732069732074686520636F6E74656E742E"
        ));
        assert!(!verifies(
            concat!(
                "D28443A10126A10442313154546869732069732074686520636F6E74656E742F5840EAE868ECC176883766C5DC5BA5B8DCA2",
                "5DAB3C2E56A551CE5705B793914348E19F43D6C6BA654472DA301B645B293C9BA939295B97C4BDB847782BFF384C5794"
            ),
            "",
            "846A5369676E61747572653143A101264054546869732069732074686520636F6E74656E742F"
        ));
    }
}
