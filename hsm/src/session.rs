//! One logged-in session and what is done in it.

use casemate_wire::RecoveryKey;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki::session::Session;
use p256::ecdsa::Signature;
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use rand_core::{OsRng, RngCore};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::anchor_objects::AnchorObjects;
use crate::config::HsmConfig;
use crate::error::{Doing, Fault, HsmError};
use crate::keys::{KeyPurpose, Keys};
use crate::login::{Occasion, Target, log_in};
use crate::module::{Lease, Module};
use crate::profile::Profile;
use crate::recovery;
use crate::recovery_entry::{BLOB_LEN, CKM_RSA_PKCS_OAEP, RecoveryAlgorithm, RecoveryEntry, binding, plain, statement};
use crate::secret::Secret32;
use crate::token::{self, TokenDescription};
use crate::wrapped::{Binding, IV_LEN, TAG_LEN, WrapAlgorithm, WrappedKey};

/// A session in which the user is logged in and all keys are found and checked.
pub(crate) struct OpenSession {
    session: Session,
    token: TokenDescription,
    keys: Keys,
    epoch: u64,
}

impl OpenSession {
    /// Finds the token, logs in, and finds and checks the keys.
    ///
    /// With `known`, which an earlier opening learned, only the same token is logged in to, and only with the same
    /// keys on it; and after a refused PIN none is tried.
    pub(crate) fn log_in(
        module: &Module,
        lease: &Lease<'_>,
        config: &HsmConfig,
        known: Option<&Profile>,
    ) -> Result<Self, HsmError> {
        // Found anew each time: slots change their numbers when a module is initialised anew.
        let (slot, token) = token::find(lease.pkcs11(), &config.token)?;
        known.map_or(Ok(()), |known| known.expect_same_token(&token))?;
        let occasion = if known.is_some() { Occasion::Background } else { Occasion::Configured };
        // To write, which the audit anchor needs: a token that cannot be written is found out at opening.
        // Not closed on drop: after the module was initialised anew its handle may be another session's.
        let session = lease.pkcs11().open_rw_session_no_drop(slot).doing("opening a session to write")?;
        let target = Target { module: module.path(), pkcs11: lease.pkcs11(), slot, serial: &token.serial };
        let keys =
            log_in(&session, &target, &config.pin, occasion).and_then(|()| Keys::find(&session)).and_then(|keys| {
                match known {
                    Some(known) => known.expect_same_keys(&keys.status()?).map(|()| keys),
                    None => Ok(keys),
                }
            });
        match keys {
            Ok(keys) => Ok(Self { session, token, keys, epoch: lease.epoch() }),
            Err(error) => {
                close(session);
                Err(error)
            }
        }
    }

    pub(crate) fn token(&self) -> &TokenDescription {
        &self.token
    }

    /// Whether the module is still the one in which this session was opened.
    pub(crate) fn is_of(&self, lease: &Lease<'_>) -> bool {
        self.epoch == lease.epoch()
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(crate) fn close(self, lease: &Lease<'_>) {
        if self.is_of(lease) {
            close(self.session);
        }
    }

    /// Wraps under the KEK of an epoch, and unwraps again before the entry is given out: an entry that does not open
    /// is a lost share.
    pub(crate) fn wrap(
        &self,
        alg: WrapAlgorithm,
        kek_epoch: u32,
        context: &[u8],
        key: &Secret32,
    ) -> Result<WrappedKey, HsmError> {
        let binding = Binding { alg, kek_epoch };
        let kek = self.kek(&binding)?;
        let aad = binding.aad(context)?;
        let (iv, blob) = self.encrypt(alg, kek, &aad, key.expose())?;
        let entry = binding.entry(iv, blob);
        match self.unwrap(context, &entry) {
            Ok(back) if back.expose() == key.expose() => Ok(entry),
            Ok(_) => Err(canary("a wrapped key came back changed")),
            Err(HsmError::Rejected) => Err(canary("it does not open what it just wrapped")),
            Err(other) => Err(other),
        }
    }

    pub(crate) fn unwrap(&self, context: &[u8], entry: &WrappedKey) -> Result<Secret32, HsmError> {
        let binding = Binding::of(entry)?;
        let kek = self.kek(&binding)?;
        let aad = binding.aad(context)?;
        let opened = self.decrypt(kek, entry.iv.into_array(), &aad, entry.blob.as_slice());
        match opened {
            Ok(plain) => Secret32::from_slice(&plain).ok_or(HsmError::Rejected),
            Err(error) if error.fault() == Fault::Session => Err(error),
            // Tokens name a wrong tag in many ways, CKR_GENERAL_ERROR among them: if the token still opens what it
            // wraps itself, then the entry was at fault.
            Err(_) if self.opens_own(kek) => Err(HsmError::Rejected),
            Err(error) => Err(error),
        }
    }

    /// Encrypts to a recovery key, and signs that with the identity key.
    pub(crate) fn wrap_for_recovery(
        &self,
        recipient: &RecoveryKey,
        context: &[u8],
        key: &Secret32,
    ) -> Result<RecoveryEntry, HsmError> {
        let alg = RecoveryAlgorithm::OaepSha1;
        let fingerprint = recipient.fingerprint().0;
        let bound = binding(alg, &fingerprint, context)?;
        let blob = recovery::encrypt(&self.session, recipient, plain(key, &bound).as_slice())?;
        let blob: [u8; BLOB_LEN] = blob.try_into().map_err(|_| canary("its RSA ciphertext has the wrong length"))?;
        let digest = Sha256::digest(statement(&bound, &blob)).into();
        let signature = self.sign(KeyPurpose::Identity, &digest)?;
        Ok(RecoveryEntry {
            alg,
            ckm: CKM_RSA_PKCS_OAEP,
            key: fingerprint.into(),
            blob: blob.into(),
            signature: signature.into(),
        })
    }

    /// ECDSA over a SHA-256 digest; `r ‖ s`, verified.
    pub(crate) fn sign(&self, purpose: KeyPurpose, digest: &[u8; 32]) -> Result<[u8; 64], HsmError> {
        let pair = self.keys.pair(purpose)?;
        let bytes = self.session.sign(&Mechanism::Ecdsa, pair.private, digest).doing("signing a digest")?;
        let bad = || HsmError::BadSignature { id: purpose.id() };
        let signature = Signature::from_slice(&bytes).map_err(|_| bad())?;
        pair.public.verify_prehash(digest, &signature).map_err(|_| bad())?;
        bytes.try_into().map_err(|_| bad())
    }

    pub(crate) fn random(&self, count: usize) -> Result<Zeroizing<Vec<u8>>, HsmError> {
        let mut bytes = Zeroizing::new(vec![0; count]);
        self.session.generate_random_slice(&mut bytes).doing("drawing random bytes")?;
        Ok(bytes)
    }

    /// The audit anchors on the token.
    pub(crate) fn anchors(&self) -> AnchorObjects<'_> {
        AnchorObjects::of(self, &self.session)
    }

    /// Asks the token for something that it cannot answer from memory if it is gone.
    pub(crate) fn probe(&self) -> Result<(), HsmError> {
        self.session.get_session_info().doing("probing the session")?;
        let identity = self.keys.pair(KeyPurpose::Identity)?;
        let doing = "probing the token";
        let id = self.session.get_attributes(identity.private, &[AttributeType::Id]).doing(doing)?;
        if id != [Attribute::Id(KeyPurpose::Identity.id().into())] {
            return Err(HsmError::HandleStale { doing });
        }
        Ok(())
    }

    fn kek(&self, binding: &Binding) -> Result<ObjectHandle, HsmError> {
        let kek = self
            .keys
            .kek(binding.kek_epoch)
            .ok_or_else(|| HsmError::UnknownKek { kek_id: binding.kek_id(), kek_epoch: binding.kek_epoch })?;
        Ok(kek.handle)
    }

    /// AES-GCM with the IV of the host or of the token, which must have kept the one or written the other.
    fn encrypt(
        &self,
        alg: WrapAlgorithm,
        kek: ObjectHandle,
        aad: &[u8; 32],
        plain: &[u8; 32],
    ) -> Result<([u8; IV_LEN], [u8; 32 + TAG_LEN]), HsmError> {
        let asked = match alg {
            WrapAlgorithm::HostIv => random_iv()?,
            WrapAlgorithm::TokenIv => [0; IV_LEN],
        };
        let mut iv = asked;
        let blob = {
            let mechanism = gcm(&mut iv, aad)?;
            self.session.encrypt(&mechanism, kek, plain).doing("wrapping a key")?
        };
        match alg {
            WrapAlgorithm::HostIv if iv != asked => Err(canary("it changed the host's IV")),
            WrapAlgorithm::TokenIv if iv == asked => Err(canary("it wrote no IV of its own back")),
            _ => {
                let blob = blob.try_into();
                Ok((iv, blob.map_err(|_| canary("its ciphertext has the wrong length"))?))
            }
        }
    }

    fn decrypt(
        &self,
        kek: ObjectHandle,
        mut iv: [u8; IV_LEN],
        aad: &[u8],
        blob: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, HsmError> {
        let mechanism = gcm(&mut iv, aad)?;
        self.session.decrypt(&mechanism, kek, blob).doing("unwrapping a key").map(Zeroizing::new)
    }

    /// Whether the token decrypts what it encrypts, tried on a public constant.
    fn opens_own(&self, kek: ObjectHandle) -> bool {
        [WrapAlgorithm::HostIv, WrapAlgorithm::TokenIv].into_iter().any(|alg| {
            let sealed = self.encrypt(alg, kek, &[0; 32], &[0; 32]);
            let opened = sealed.and_then(|(iv, blob)| self.decrypt(kek, iv, &[0; 32], &blob));
            opened.is_ok_and(|plain| *plain == [0; 32])
        })
    }
}

fn gcm<'a>(iv: &'a mut [u8; IV_LEN], aad: &'a [u8]) -> Result<Mechanism<'a>, HsmError> {
    let tag_bits = (TAG_LEN as u64 * 8).into();
    Ok(Mechanism::AesGcm(GcmParams::new(iv, aad, tag_bits).doing("preparing AES-GCM")?))
}

fn random_iv() -> Result<[u8; IV_LEN], HsmError> {
    let mut iv = [0; IV_LEN];
    OsRng.try_fill_bytes(&mut iv).map_err(|_| HsmError::NoRandomness)?;
    Ok(iv)
}

fn canary(problem: &str) -> HsmError {
    HsmError::Canary { problem: problem.to_owned() }
}

fn close(session: Session) {
    if let Err(error) = session.close().doing("closing a session") {
        tracing::debug!(event = "hsm_session_close_failed", %error);
    }
}
