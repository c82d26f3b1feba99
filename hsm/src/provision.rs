//! Making a token and its keys, once. Nothing here overwrites anything.

use std::path::Path;

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error as Cryptoki, RvError};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};

use crate::config::{HsmConfig, TokenSelector};
use crate::error::{Doing, HsmError};
use crate::keys::{self, KeyPurpose, Keys, P256_OID};
use crate::login::{Occasion, Target, log_in};
use crate::module::{Lease, Module};
use crate::pin::Pin;
use crate::token::{self, TokenDescription};
use crate::wrapped::kek_id;

/// Bytes of a PKCS#11 token label.
const MAX_LABEL: usize = 32;

/// A key that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedKey {
    /// `CKA_ID`, as text.
    pub id: String,
    /// Whether the token itself limits the key to its one mechanism (`CKA_ALLOWED_MECHANISMS`).
    pub mechanism_enforced: bool,
    /// SubjectPublicKeyInfo in DER; `None` for the KEK.
    pub public_key: Option<Vec<u8>>,
}

/// Makes a token with this label in a free slot, and sets its user PIN. For software tokens and lab use; the tokens of
/// hardware modules are usually made with the vendor's tool.
///
/// # Errors
/// [`HsmError::TokenExists`] when a token has the label already; [`HsmError::PinLength`]; [`HsmError::NoFreeSlot`]; what
/// the module said.
pub fn init_token(module: &Path, label: &str, so_pin: &Pin, pin: &Pin) -> Result<TokenDescription, HsmError> {
    if label.is_empty() || label.len() > MAX_LABEL || label.trim_end() != label {
        return Err(HsmError::Config("a token label has 1 to 32 bytes and does not end in a space"));
    }
    let module = Module::load(module)?;
    let lease = module.enter();
    let pkcs11 = lease.pkcs11();
    let existing = token::initialized(pkcs11)?;
    if let Some((_, token)) = existing.into_iter().find(|(_, token)| token.label == label) {
        return Err(HsmError::TokenExists { label: label.to_owned(), serial: token.serial });
    }
    let (free, info) = free_slot(pkcs11)?;
    // Checked beforehand: a token that refuses the PIN later is left without one.
    let (shortest, longest) = (info.min_pin_length(), info.max_pin_length());
    if [so_pin, pin].iter().any(|pin| !(shortest..=longest).contains(&pin.len())) {
        return Err(HsmError::PinLength { shortest, longest });
    }
    pkcs11.init_token(free, so_pin.expose(), label).doing("initialising the token")?;

    // Some modules give an initialised token another slot.
    let (slot, token) = token::find(pkcs11, &TokenSelector::Label(label.to_owned()))?;
    let session = pkcs11.open_rw_session(slot).doing("opening a session")?;
    session.login(UserType::So, Some(so_pin.expose())).doing("logging in as security officer")?;
    session.init_pin(pin.expose()).doing("setting the user PIN")?;
    session.logout().doing("logging out")?;
    Ok(token)
}

fn free_slot(pkcs11: &Pkcs11) -> Result<(Slot, TokenInfo), HsmError> {
    let slots = pkcs11.get_slots_with_token().doing("listing the slots")?;
    let mut free = slots.into_iter().filter_map(|slot| {
        let info = pkcs11.get_token_info(slot).ok()?;
        (!info.token_initialized()).then_some((slot, info))
    });
    free.next().ok_or(HsmError::NoFreeSlot)
}

/// Makes the keys that [`crate::Hsm::open`] expects, with exactly the attributes of FORMATS.md, "Keys in the HSM":
/// `kek/1`, `identity`, `attest` and `audit`. They are checked as at opening; when a step fails, the keys made so far
/// are removed again.
///
/// # Errors
/// [`HsmError::KeysExist`], which names them, when any of the keys or any KEK is there; the errors of
/// [`crate::Hsm::open`].
pub fn init_keys(config: &HsmConfig) -> Result<Vec<CreatedKey>, HsmError> {
    init_keys_from(config, 1)
}

/// As [`init_keys`], with the KEK of another epoch: for a token that takes the place of one with older KEKs.
///
/// # Errors
/// As [`init_keys`].
pub fn init_keys_from(config: &HsmConfig, epoch: u32) -> Result<Vec<CreatedKey>, HsmError> {
    config.check()?;
    let module = Module::load(&config.module)?;
    let lease = module.enter();
    let session = log_in_to_write(&module, &lease, config)?;
    let taken = keys::taken(&session)?;
    if !taken.is_empty() {
        return Err(HsmError::KeysExist { ids: taken });
    }
    let mut made = Vec::new();
    let outcome = make_all(&session, epoch, &mut made).and_then(|()| Keys::find(&session)?.status());
    match outcome {
        Ok(keys) => Ok(keys
            .into_iter()
            .map(|key| CreatedKey {
                id: key.id,
                mechanism_enforced: key.mechanism_enforced,
                public_key: key.public_key,
            })
            .collect()),
        Err(error) => {
            for object in made {
                if let Err(left) = session.destroy_object(object).doing("removing a half-made set") {
                    tracing::error!(event = "hsm_init_left_key", %left);
                }
            }
            Err(error)
        }
    }
}

pub(crate) fn log_in_to_write(module: &Module, lease: &Lease<'_>, config: &HsmConfig) -> Result<Session, HsmError> {
    let (slot, token) = token::find(lease.pkcs11(), &config.token)?;
    let session = lease.pkcs11().open_rw_session(slot).doing("opening a session")?;
    let target = Target { module: module.path(), pkcs11: lease.pkcs11(), slot, serial: &token.serial };
    log_in(&session, &target, &config.pin, Occasion::Configured)?;
    Ok(session)
}

fn make_all(session: &Session, epoch: u32, made: &mut Vec<ObjectHandle>) -> Result<(), HsmError> {
    made.push(make_kek(session, epoch)?);
    for purpose in KeyPurpose::ALL {
        made.extend(make_pair(session, purpose)?);
    }
    Ok(())
}

pub(crate) fn make_kek(session: &Session, epoch: u32) -> Result<ObjectHandle, HsmError> {
    let id = kek_id(epoch);
    let mut template = kept(&id, &format!("Casemate KEK, epoch {epoch}"));
    template.extend([
        Attribute::ValueLen(32.into()),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Sign(false),
        Attribute::Verify(false),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::AllowedMechanisms(vec![MechanismType::AES_GCM]),
    ]);
    limited_if_known(&template, |template| session.generate_key(&Mechanism::AesKeyGen, template))
        .doing("making the KEK")
}

fn make_pair(session: &Session, purpose: KeyPurpose) -> Result<[ObjectHandle; 2], HsmError> {
    let id = purpose.id();
    let label = format!("Casemate {id} key");
    let public = [
        Attribute::Id(id.into()),
        Attribute::Label(label.clone().into_bytes()),
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Modifiable(false),
        Attribute::EcParams(P256_OID.to_vec()),
        Attribute::Verify(true),
        Attribute::VerifyRecover(false),
        Attribute::Encrypt(false),
        Attribute::Wrap(false),
        Attribute::Derive(false),
    ];
    let mut private = kept(id, &label);
    private.extend([
        Attribute::Sign(true),
        Attribute::SignRecover(false),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::AllowedMechanisms(vec![MechanismType::ECDSA]),
    ]);
    let made =
        limited_if_known(&private, |private| session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, private));
    let (public, private) = made.doing("making a signing key")?;
    Ok([public, private])
}

/// Makes a key limited to its mechanism, or without the limit on a token that does not know `CKA_ALLOWED_MECHANISMS`;
/// the key's `mechanism_enforced` tells which.
pub(crate) fn limited_if_known<T>(
    template: &[Attribute],
    make: impl Fn(&[Attribute]) -> cryptoki::error::Result<T>,
) -> cryptoki::error::Result<T> {
    match make(template) {
        Err(Cryptoki::Pkcs11(RvError::AttributeTypeInvalid, _)) => {
            let mut plain = template.to_vec();
            plain.retain(|attribute| !matches!(attribute, Attribute::AllowedMechanisms(_)));
            make(&plain)
        }
        other => other,
    }
}

/// What all secret and private keys have in common: they stay on the token, as they are.
pub(crate) fn kept(id: &str, label: &str) -> Vec<Attribute> {
    vec![
        Attribute::Id(id.into()),
        Attribute::Label(label.into()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Modifiable(false),
    ]
}
