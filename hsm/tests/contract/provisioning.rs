//! Keys are made once, as listed, and never overwritten.

use casemate_hsm::{Hsm, HsmError, KeyPurpose, Pin, init_keys, init_token};
use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, AttributeType, ObjectClass};

use crate::raw::Raw;
use crate::support::{Module, on_fresh_store};

#[test]
fn keys_have_exactly_the_listed_attributes() {
    on_fresh_store(Module::SoftHsm, async |store| {
        store.provisioned("vault");
        let raw = Raw::log_in(&store, "vault");
        let check = |class, id: &str, expected: &[Attribute]| {
            let [key] = raw.find(class, id)[..] else { panic!("{id} is not there once") };
            let types: Vec<AttributeType> = expected.iter().map(Attribute::attribute_type).collect();
            assert_eq!(raw.session().get_attributes(key, &types).unwrap(), expected, "{id}");
        };
        let kept = |others: &[Attribute]| {
            let kept = [
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Local(true),
                Attribute::Sensitive(true),
                Attribute::AlwaysSensitive(true),
                Attribute::Extractable(false),
                Attribute::NeverExtractable(true),
                Attribute::Modifiable(false),
                Attribute::Derive(false),
                Attribute::Unwrap(false),
            ];
            [&kept, others].concat()
        };
        let kek = kept(&[
            Attribute::ValueLen(32.into()),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::Sign(false),
            Attribute::Verify(false),
            Attribute::Wrap(false),
            Attribute::AllowedMechanisms(vec![MechanismType::AES_GCM]),
        ]);
        check(ObjectClass::SECRET_KEY, "kek/1", &kek);
        for purpose in KeyPurpose::ALL {
            let private = kept(&[
                Attribute::Sign(true),
                Attribute::SignRecover(false),
                Attribute::Decrypt(false),
                Attribute::AllowedMechanisms(vec![MechanismType::ECDSA]),
            ]);
            check(ObjectClass::PRIVATE_KEY, purpose.id(), &private);
            let public = [
                Attribute::Token(true),
                Attribute::Modifiable(false),
                Attribute::Verify(true),
                Attribute::Encrypt(false),
                Attribute::Wrap(false),
            ];
            check(ObjectClass::PUBLIC_KEY, purpose.id(), &public);
        }
    });
}

#[test]
fn what_was_made_is_reported_as_it_opens() {
    on_fresh_store(Module::SoftHsm, async |store| {
        store.token("vault");
        let config = store.config("vault");
        let made = init_keys(&config).unwrap();
        let hsm = Hsm::open(config).await.unwrap();
        let ids: Vec<_> = made.iter().map(|key| key.id.as_str()).collect();
        assert_eq!(ids, ["kek/1", "identity", "attest", "audit"]);
        for purpose in KeyPurpose::ALL {
            let key = made.iter().find(|key| key.id == purpose.id()).unwrap();
            assert_eq!(key.public_key.as_ref().unwrap(), &hsm.public_key(purpose));
        }
    });
}

#[test]
fn a_second_init_names_what_exists_and_changes_nothing() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let before = Hsm::open(config.clone()).await.unwrap().status().keys;
        let Err(HsmError::KeysExist { ids }) = init_keys(&config) else { panic!("keys were made") };
        assert_eq!(ids, ["kek/1", "identity", "attest", "audit"]);
        assert_eq!(Hsm::open(config).await.unwrap().status().keys, before);
    });
}

#[test]
fn one_existing_key_is_enough_to_refuse() {
    on_fresh_store(Module::SoftHsm, async |store| {
        store.token("vault");
        Raw::log_in(&store, "vault").make_kek("kek/3", &[]);
        let Err(HsmError::KeysExist { ids }) = init_keys(&store.config("vault")) else {
            panic!("keys were made");
        };
        assert_eq!(ids, ["kek/3"]);
    });
}

#[test]
fn a_failed_init_leaves_no_half_set_of_keys() {
    on_fresh_store(Module::Faulty, async |store| {
        store.token("vault");
        let config = store.config("vault");
        store.break_it("no-key-pairs");
        init_keys(&config).unwrap_err();
        store.mend_it("no-key-pairs");
        assert_eq!(init_keys(&config).unwrap().len(), 4);
    });
}

#[test]
fn an_existing_label_is_not_initialised_again() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let pin = Pin::new("another pin").unwrap();
        let error = init_token(store.module(), "vault", &pin, &pin).unwrap_err();
        assert!(matches!(error, HsmError::TokenExists { .. }), "{error}");
        Hsm::open(config).await.unwrap();
    });
}

#[test]
fn labels_that_a_token_cannot_hold_are_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let pin = Pin::new("1234").unwrap();
        for label in ["", "ends in a space ", "0123456789012345678901234567890123"] {
            let error = init_token(store.module(), label, &pin, &pin).unwrap_err();
            assert!(matches!(error, HsmError::Config(_)), "{error}");
        }
    });
}

#[test]
fn a_pin_too_short_for_the_token_is_refused_before_the_token_is_made() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let (good, short) = (Pin::new("1234").unwrap(), Pin::new("123").unwrap());
        for (so_pin, pin) in [(&good, &short), (&short, &good)] {
            let error = init_token(store.module(), "vault", so_pin, pin).unwrap_err();
            assert!(matches!(error, HsmError::PinLength { shortest: 4, .. }), "{error}");
        }
        init_token(store.module(), "vault", &good, &good).unwrap();
    });
}
