//! HPKE (RFC 9180) in auth mode with X25519, HKDF-SHA256 and AES-256-GCM: bodies that one party alone may read.
//!
//! One context stands for one direction of one pair. Its info names the transcript and both ends, so a ciphertext that
//! another party passes off as its own, or that is delivered to another party, does not open. Auth mode ties the sender's
//! own session key in as well, so the sealed body is authentic even apart from the message's signature.

use hpke::aead::{AeadCtxR, AeadCtxS, AesGcm256};
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, setup_receiver, setup_sender};
use rand_core::{CryptoRng, RngCore};
use zeroize::Zeroizing;

const DOMAIN: &[u8] = b"casemate/seal/v1";

type Suite = X25519HkdfSha256;
type Private = <Suite as Kem>::PrivateKey;
type Public = <Suite as Kem>::PublicKey;

/// The X25519 pair of one party for one session.
///
/// # Security
/// The private key is wiped on drop.
pub(super) struct KemPair {
    private: Private,
    public: Public,
}

impl KemPair {
    pub(super) fn generate(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let (private, public) = Suite::gen_keypair(rng);
        Self { private, public }
    }

    pub(super) fn public(&self) -> [u8; 32] {
        self.public.to_bytes().into()
    }

    /// Opens the direction from this party to `peer`.
    pub(super) fn to(
        &self,
        peer: &[u8; 32],
        info: &[u8],
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<Sealer, hpke::HpkeError> {
        let mode = OpModeS::Auth((self.private.clone(), self.public.clone()));
        let (encapsulated, context) = setup_sender(&mode, &Public::from_bytes(peer)?, info, rng)?;
        Ok(Sealer { context, encapsulated: Some(encapsulated.to_bytes().into()) })
    }

    /// Opens the direction from `peer` to this party.
    pub(super) fn from(
        &self,
        peer: &[u8; 32],
        encapsulated: &[u8; 32],
        info: &[u8],
    ) -> Result<Opener, hpke::HpkeError> {
        let mode = OpModeR::Auth(Public::from_bytes(peer)?);
        let encapsulated = <Suite as Kem>::EncappedKey::from_bytes(encapsulated)?;
        setup_receiver(&mode, &self.private, &encapsulated, info).map(Opener)
    }
}

/// The info of one direction of one pair.
pub(super) fn info(transcript: &[u8; 32], from: u16, to: u16) -> Vec<u8> {
    [DOMAIN, transcript, &from.to_be_bytes(), &to.to_be_bytes()].concat()
}

/// Seals bodies in order.
pub(super) struct Sealer {
    context: AeadCtxS<AesGcm256, HkdfSha256, Suite>,
    encapsulated: Option<[u8; 32]>,
}

impl Sealer {
    /// The ciphertext and, the first time, the encapsulated key.
    pub(super) fn seal(&mut self, body: &[u8], aad: &[u8]) -> Result<(Vec<u8>, Option<[u8; 32]>), hpke::HpkeError> {
        let sealed = self.context.seal(body, aad)?;
        Ok((sealed, self.encapsulated.take()))
    }
}

/// Opens bodies in order; a body that does not open leaves it as it was.
pub(super) struct Opener(AeadCtxR<AesGcm256, HkdfSha256, Suite>);

impl Opener {
    pub(super) fn open(&mut self, sealed: &[u8], aad: &[u8]) -> Result<Zeroizing<Vec<u8>>, hpke::HpkeError> {
        self.0.open(sealed, aad).map(Zeroizing::new)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::similar_names)]
    use super::*;

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    #[test]
    fn the_published_auth_mode_vector_opens() {
        // From the test vectors of RFC 9180: mode 2, KEM 0x0020, KDF 0x0001, AEAD 0x0002.
        let private = bytes::<32>("47f1eee3670dfaaf27c30a83d06ee9f257af174727c17b35328ef730dfc1cd81");
        let sender = bytes("4a91c3d0893433f5e31a79fc520f885527a1bc60bf2b0c72693dd7f0b2e41a5a");
        let encapsulated = bytes("9e59f4b1fa5c876f684765290c34e51145894cc4f244342b9fb1a4bdfd8bb426");
        let info = hex::decode("4f6465206f6e2061204772656369616e2055726e").unwrap();
        let private = Private::from_bytes(&private).unwrap();
        let public = Suite::sk_to_pk(&private);
        let expected = "3668d659cec6f338f4f8dc6da6733118d2a633f186a3c1415c895111a8eb7c7d";
        assert_eq!(hex::encode(public.to_bytes()), expected);
        let pair = KemPair { private, public };
        let mut opener = pair.from(&sender, &encapsulated, &info).unwrap();
        for (aad, sealed) in [
            ("Count-0", "10b964283ac2cc0bdc4c85ab617291b446bf3832e9359b2c3a0facc50ea75a3c1afd08aeaacd6041d02eb560ec"),
            ("Count-1", "83b24287a5ac672289ccebf5ec303d3c0a85bc60bb7a748014d85179b51c7552ca93a70817ee3140442f92e23b"),
        ] {
            let sealed = hex::decode(sealed).unwrap();
            let opened = opener.open(&sealed, aad.as_bytes()).unwrap();
            assert_eq!(opened.as_slice(), b"Beauty is truth, truth beauty");
        }
    }

    #[test]
    fn a_body_that_does_not_open_leaves_the_context_as_it_was() {
        let mut rng = rand::thread_rng();
        let (one, other) = (KemPair::generate(&mut rng), KemPair::generate(&mut rng));
        let mut sealer = one.to(&other.public(), b"info", &mut rng).unwrap();
        let (sealed, encapsulated) = sealer.seal(b"body", b"aad").unwrap();
        let mut opener = other.from(&one.public(), &encapsulated.unwrap(), b"info").unwrap();
        assert!(opener.open(&sealed, b"other").is_err());
        assert!(opener.open(b"", b"aad").is_err());
        assert_eq!(opener.open(&sealed, b"aad").unwrap().as_slice(), b"body");
    }

    #[test]
    fn info_and_sender_are_part_of_the_context() {
        let mut rng = rand::thread_rng();
        let [one, other, third] = [(); 3].map(|()| KemPair::generate(&mut rng));
        let mut sealer = one.to(&other.public(), &info(&[1; 32], 0, 1), &mut rng).unwrap();
        let (sealed, encapsulated) = sealer.seal(b"body", b"").unwrap();
        let key = encapsulated.unwrap();
        let open = |sender: &KemPair, info: &[u8]| other.from(&sender.public(), &key, info).unwrap().open(&sealed, b"");
        assert!(open(&one, &info(&[1; 32], 0, 1)).is_ok());
        assert!(open(&one, &info(&[2; 32], 0, 1)).is_err());
        assert!(open(&one, &info(&[1; 32], 1, 0)).is_err());
        assert!(open(&third, &info(&[1; 32], 0, 1)).is_err());
    }
}
