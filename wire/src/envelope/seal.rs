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
        Ok(Sealer {
            context,
            encapsulated: Some(encapsulated.to_bytes().into()),
        })
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
    pub(super) fn seal(
        &mut self,
        body: &[u8],
        aad: &[u8],
    ) -> Result<(Vec<u8>, Option<[u8; 32]>), hpke::HpkeError> {
        let sealed = self.context.seal(body, aad)?;
        Ok((sealed, self.encapsulated.take()))
    }
}

/// Opens bodies in order; a body that does not open leaves it as it was.
pub(super) struct Opener(AeadCtxR<AesGcm256, HkdfSha256, Suite>);

impl Opener {
    pub(super) fn open(
        &mut self,
        sealed: &[u8],
        aad: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, hpke::HpkeError> {
        self.0.open(sealed, aad).map(Zeroizing::new)
    }
}
