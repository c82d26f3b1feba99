//! Keys made past the crate, as an attacker or a careless operator would.

use casemate_hsm::HsmConfig;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;

use crate::support::{PIN, Store};

/// A session of its own with the user logged in. A module that was not in use before is finalised at the end.
pub(crate) struct Raw {
    session: Option<Session>,
    pkcs11: Pkcs11,
    finalize: bool,
}

impl Raw {
    pub(crate) fn log_in(store: &Store, label: &str) -> Self {
        let pkcs11 = Pkcs11::new(store.module()).unwrap();
        let args = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        let finalize = match pkcs11.initialize(args) {
            Ok(()) => true,
            Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => false,
            Err(error) => panic!("{error}"),
        };
        let slots = pkcs11.get_slots_with_initialized_token().unwrap();
        let slot = slots.into_iter().find(|slot| pkcs11.get_token_info(*slot).unwrap().label() == label).unwrap();
        let session = pkcs11.open_rw_session(slot).unwrap();
        match session.login(UserType::User, Some(&AuthPin::from(PIN))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => panic!("{error}"),
        }
        Self { session: Some(session), pkcs11, finalize }
    }

    pub(crate) fn session(&self) -> &Session {
        self.session.as_ref().unwrap()
    }

    pub(crate) fn find(&self, class: ObjectClass, id: &str) -> Vec<ObjectHandle> {
        let wanted = [Attribute::Class(class), Attribute::Id(id.into())];
        self.session().find_objects(&wanted).unwrap()
    }

    pub(crate) fn destroy(&self, id: &str) {
        for class in [ObjectClass::SECRET_KEY, ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
            for object in self.find(class, id) {
                self.session().destroy_object(object).unwrap();
            }
        }
    }

    /// Makes a KEK with some attributes other than they should be.
    pub(crate) fn make_kek(&self, id: &str, changes: &[Attribute]) {
        let template = changed(
            vec![
                Attribute::Id(id.into()),
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Modifiable(false),
                Attribute::ValueLen(32.into()),
                Attribute::Encrypt(true),
                Attribute::Decrypt(true),
                Attribute::Sign(false),
                Attribute::Verify(false),
                Attribute::Wrap(false),
                Attribute::Unwrap(false),
                Attribute::Derive(false),
                Attribute::AllowedMechanisms(vec![MechanismType::AES_GCM]),
            ],
            changes,
        );
        self.session().generate_key(&Mechanism::AesKeyGen, &template).unwrap();
    }

    /// Makes a signing pair on the curve `oid` with some private attributes other than they should be.
    pub(crate) fn make_pair(&self, id: &str, oid: &[u8], changes: &[Attribute]) {
        let public = [
            Attribute::Id(id.into()),
            Attribute::Token(true),
            Attribute::Verify(true),
            Attribute::Encrypt(false),
            Attribute::Wrap(false),
            Attribute::VerifyRecover(false),
            Attribute::EcParams(oid.to_vec()),
        ];
        let private = changed(
            vec![
                Attribute::Id(id.into()),
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Modifiable(false),
                Attribute::Sign(true),
                Attribute::SignRecover(false),
                Attribute::Decrypt(false),
                Attribute::Unwrap(false),
                Attribute::Derive(false),
                Attribute::AllowedMechanisms(vec![MechanismType::ECDSA]),
            ],
            changes,
        );
        self.session().generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap();
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        drop(self.session.take());
        if self.finalize {
            self.pkcs11.clone().finalize().unwrap();
        }
    }
}

/// DER of the object identifier of P-256.
pub(crate) const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// Replaces the good KEK or pair of a provisioned token.
pub(crate) fn replace(store: &Store, id: &str, make: impl FnOnce(&Raw)) -> HsmConfig {
    let config = store.provisioned("vault");
    let raw = Raw::log_in(store, "vault");
    raw.destroy(id);
    make(&raw);
    config
}

fn changed(mut template: Vec<Attribute>, changes: &[Attribute]) -> Vec<Attribute> {
    let types: Vec<AttributeType> = changes.iter().map(Attribute::attribute_type).collect();
    template.retain(|attribute| !types.contains(&attribute.attribute_type()));
    template.extend_from_slice(changes);
    template
}
