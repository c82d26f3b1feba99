//! The recovery HSM: another token, with one RSA pair, that opens what hosts encrypted to it when their own HSM is lost.

use std::sync::{Mutex, MutexGuard, PoisonError};

use casemate_wire::{IdentityKey, RecoveryKey};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use zeroize::Zeroizing;

use crate::config::HsmConfig;
use crate::error::{Doing, HsmError};
use crate::facts::Facts;
use crate::keys::KeyObjects;
use crate::module::Module;
use crate::provision::{kept, limited_if_known, log_in_to_write};
use crate::recovery_entry::{RecoveryEntry, binding, key_in, plain};
use crate::secret::Secret32;

/// `CKA_ID` of the pair.
const ID: &str = "recovery";
/// Bits of the modulus.
const BITS: u64 = 3072;

/// A recovery HSM that is open and whose key is checked. Offline commands use it: its calls block.
pub struct RecoveryHsm {
    /// One call at a time: a PKCS#11 session is of one thread.
    session: Mutex<Session>,
    private: ObjectHandle,
    public: RecoveryKey,
    /// Dropped after the session.
    _module: Module,
}

impl RecoveryHsm {
    /// Finds the token, logs in, and checks that its recovery key is SENSITIVE, never EXTRACTABLE, and decrypts with OAEP
    /// and does nothing else. The PIN is tried at most once.
    ///
    /// # Errors
    /// [`HsmError::NoRecoveryKey`]; the errors of [`crate::Hsm::open`].
    pub fn open(config: &HsmConfig) -> Result<Self, HsmError> {
        config.check()?;
        let module = Module::load(&config.module)?;
        let session = log_in_to_write(&module, &module.enter(), config)?;
        let (private, public) = find(&session)?;
        let recovery = Self { session: Mutex::new(session), private, public, _module: module };
        recovery.canary()?;
        Ok(recovery)
    }

    /// The public key, which goes into the policy bundle.
    pub fn public_key(&self) -> &RecoveryKey {
        &self.public
    }

    /// Opens an entry that the host with this identity sealed for this context.
    ///
    /// # Errors
    /// [`HsmError::RecoveryNotSigned`], [`HsmError::OtherRecoveryKey`]; [`HsmError::Rejected`] when it was encrypted for
    /// another context; what the token said.
    ///
    /// # Security
    /// Without the signature anybody could have encrypted a key of their own, and what is opened here is sealed under a KEK
    /// again, as if it had always been.
    pub fn unwrap(&self, context: &[u8], entry: &RecoveryEntry, sealed_by: &IdentityKey) -> Result<Secret32, HsmError> {
        if !entry.is_for(&self.public) {
            let there = self.public.fingerprint().to_string();
            return Err(HsmError::OtherRecoveryKey { wanted: hex::encode(entry.key.as_slice()), there });
        }
        if !entry.is_signed_by(sealed_by, context) {
            return Err(HsmError::RecoveryNotSigned);
        }
        let bound = binding(entry.alg, &entry.key, context)?;
        key_in(&self.decrypt(entry.blob.as_slice())?, &bound)
    }

    fn decrypt(&self, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, HsmError> {
        let opened = self.session().decrypt(&oaep(), self.private, blob).doing("opening a recovery entry");
        opened.map(Zeroizing::new)
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The private key belongs to the public one.
    fn canary(&self) -> Result<(), HsmError> {
        let sample = Secret32::fill(|bytes| bytes.fill(0x5a));
        let blob = encrypt(&self.session(), &self.public, plain(&sample, &[0; 32]).as_slice())?;
        match key_in(&self.decrypt(&blob)?, &[0; 32]) {
            Ok(back) if back.expose() == sample.expose() => Ok(()),
            _ => Err(HsmError::Canary { problem: "the recovery pair does not open what is encrypted to it".into() }),
        }
    }
}

/// Makes the RSA pair of a recovery HSM and gives its public key.
///
/// # Errors
/// [`HsmError::KeysExist`]; the errors of [`crate::Hsm::open`]. Nothing is left then.
pub fn init_recovery(config: &HsmConfig) -> Result<RecoveryKey, HsmError> {
    config.check()?;
    let module = Module::load(&config.module)?;
    let session = log_in_to_write(&module, &module.enter(), config)?;
    if !KeyObjects::with_id(&session, ID)?.is_empty() {
        return Err(HsmError::KeysExist { ids: vec![ID.into()] });
    }
    let made = make(&session)?;
    let checked = RecoveryHsm::open(config).map(|recovery| recovery.public);
    if checked.is_err() {
        for object in made {
            if let Err(left) = session.destroy_object(object).doing("removing an unfit recovery key") {
                tracing::error!(event = "hsm_init_left_key", %left);
            }
        }
    }
    checked
}

fn make(session: &Session) -> Result<[ObjectHandle; 2], HsmError> {
    let label = "Casemate recovery key";
    let public = [
        Attribute::Id(ID.into()),
        Attribute::Label(label.into()),
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Modifiable(false),
        Attribute::ModulusBits(BITS.into()),
        Attribute::PublicExponent(RecoveryKey::EXPONENT.to_vec()),
        Attribute::Encrypt(true),
        Attribute::Verify(false),
        Attribute::VerifyRecover(false),
        Attribute::Wrap(false),
        Attribute::Derive(false),
    ];
    let mut private = kept(ID, label);
    private.extend([
        Attribute::Decrypt(true),
        Attribute::Sign(false),
        Attribute::SignRecover(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::AllowedMechanisms(vec![MechanismType::RSA_PKCS_OAEP]),
    ]);
    let made = limited_if_known(&private, |private| {
        session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, private)
    });
    let (public, private) = made.doing("making the recovery key")?;
    Ok([public, private])
}

fn find(session: &Session) -> Result<(ObjectHandle, RecoveryKey), HsmError> {
    let objects = KeyObjects::with_id(session, ID)?;
    if objects.is_empty() {
        return Err(HsmError::NoRecoveryKey);
    }
    let (private, public) = objects.only_pair()?;
    let facts = Facts::read(session, private, ID)?;
    facts.check_kept()?;
    facts.check_type(KeyType::RSA)?;
    facts.check_uses(&[AttributeType::Decrypt])?;
    facts.check_mechanism(MechanismType::RSA_PKCS_OAEP)?;
    let attributes = session.get_attributes(public, &[AttributeType::Modulus, AttributeType::PublicExponent]);
    let (mut modulus, mut exponent) = (Vec::new(), Vec::new());
    for attribute in attributes.doing("reading the recovery key")? {
        match attribute {
            Attribute::Modulus(bytes) => modulus = bytes,
            Attribute::PublicExponent(bytes) => exponent = bytes,
            _ => {}
        }
    }
    let unfit = || HsmError::KeyUnfit { id: ID.into(), problem: "it is not RSA-3072 with the exponent 65537".into() };
    let significant = exponent.iter().skip_while(|byte| **byte == 0);
    if !significant.eq(&RecoveryKey::EXPONENT) {
        return Err(unfit());
    }
    Ok((private, RecoveryKey::from_modulus(&modulus).map_err(|_| unfit())?))
}

/// Encrypts to a recovery key, by means of the local token: the public key is an object of this session alone.
pub(crate) fn encrypt(session: &Session, key: &RecoveryKey, plain: &[u8]) -> Result<Vec<u8>, HsmError> {
    let template = [
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::KeyType(KeyType::RSA),
        Attribute::Token(false),
        Attribute::Private(false),
        Attribute::Modulus(key.modulus().to_vec()),
        Attribute::PublicExponent(RecoveryKey::EXPONENT.to_vec()),
        Attribute::Encrypt(true),
        Attribute::Verify(false),
        Attribute::Wrap(false),
    ];
    let object = session.create_object(&template).doing("showing the token a recovery key")?;
    let blob = session.encrypt(&oaep(), object, plain).doing("encrypting to a recovery key");
    // It would end with the session in any case.
    if let Err(left) = session.destroy_object(object).doing("taking a recovery key away again") {
        tracing::debug!(event = "hsm_session_object_left", %left);
    }
    blob
}

/// [`crate::RecoveryAlgorithm::OaepSha1`].
fn oaep() -> Mechanism<'static> {
    let params = PkcsOaepParams::new(MechanismType::SHA1, PkcsMgfType::MGF1_SHA1, PkcsOaepSource::empty());
    Mechanism::RsaPkcsOaep(params)
}
