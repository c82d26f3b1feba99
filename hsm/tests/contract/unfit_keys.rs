//! Keys that are not exactly what FORMATS.md, "Keys in the HSM", lists are refused.

use casemate_hsm::{Hsm, HsmError};
use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, KeyType, ObjectClass};

use crate::raw::{P256, Raw, replace};
use crate::support::{Module, Store, on_fresh_store};

const SECP256K1: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];

#[test]
fn a_kek_made_elsewhere_with_the_listed_attributes_is_accepted() {
    on_fresh_store(Module::SoftHsm, async |store| {
        Hsm::open(replace(&store, "kek/1", |raw| raw.make_kek("kek/1", &[]))).await.unwrap();
    });
}

/// Opens a token whose KEK differs, and says why it was refused.
fn kek_is_refused_with(changes: &'static [Attribute]) -> impl AsyncFnOnce(Store) -> String {
    async |store| {
        let config = replace(&store, "kek/1", |raw| raw.make_kek("kek/1", changes));
        match Hsm::open(config).await.unwrap_err() {
            HsmError::KeyUnfit { id, problem } if id == "kek/1" => problem,
            other => panic!("refused for another reason: {other}"),
        }
    }
}

#[test]
fn an_extractable_kek_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let problem = kek_is_refused_with(&[Attribute::Extractable(true)])(store).await;
        assert!(problem.contains("EXTRACTABLE"), "{problem}");
    });
}

#[test]
fn a_kek_that_shows_its_value_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let problem = kek_is_refused_with(&[Attribute::Sensitive(false)])(store).await;
        assert!(problem.contains("SENSITIVE"), "{problem}");
    });
}

#[test]
fn a_modifiable_kek_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let problem = kek_is_refused_with(&[Attribute::Modifiable(true)])(store).await;
        assert!(problem.contains("MODIFIABLE"), "{problem}");
    });
}

#[test]
fn a_public_kek_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let problem = kek_is_refused_with(&[Attribute::Private(false)])(store).await;
        assert!(problem.contains("PRIVATE"), "{problem}");
    });
}

#[test]
fn a_kek_with_one_more_use_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let problem = kek_is_refused_with(&[Attribute::Wrap(true)])(store).await;
        assert!(problem.contains("WRAP"), "{problem}");
    });
}

#[test]
fn a_kek_for_any_mechanism_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = replace(&store, "kek/1", |raw| {
            let both = vec![MechanismType::AES_GCM, MechanismType::AES_ECB];
            raw.make_kek("kek/1", &[Attribute::AllowedMechanisms(both)]);
        });
        let error = Hsm::open(config).await.unwrap_err();
        assert!(matches!(&error, HsmError::KeyUnfit { problem, .. } if problem.contains("ALLOWED")));
    });
}

#[test]
fn a_short_kek_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = replace(&store, "kek/1", |raw| {
            raw.make_kek("kek/1", &[Attribute::ValueLen(16.into())]);
        });
        let error = Hsm::open(config).await.unwrap_err();
        assert!(matches!(&error, HsmError::KeyUnfit { id, .. } if id == "kek/1"), "{error}");
    });
}

#[test]
fn an_imported_kek_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = replace(&store, "kek/1", |raw| {
            let template = [
                Attribute::Class(ObjectClass::SECRET_KEY),
                Attribute::KeyType(KeyType::AES),
                Attribute::Id("kek/1".into()),
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Modifiable(false),
                Attribute::Encrypt(true),
                Attribute::Decrypt(true),
                Attribute::Value(vec![1; 32]),
            ];
            raw.session().create_object(&template).unwrap();
        });
        let error = Hsm::open(config).await.unwrap_err();
        assert!(matches!(&error, HsmError::KeyUnfit { problem, .. } if problem.contains("LOCAL")));
    });
}

#[test]
fn two_keks_with_one_id_are_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        Raw::log_in(&store, "vault").make_kek("kek/1", &[]);
        let error = Hsm::open(config).await.unwrap_err();
        assert!(matches!(&error, HsmError::KeyAmbiguous { count: 2, .. }), "{error}");
    });
}

#[test]
fn two_pairs_with_one_id_are_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        Raw::log_in(&store, "vault").make_pair("identity", &P256, &[]);
        let error = Hsm::open(config).await.unwrap_err();
        assert!(matches!(&error, HsmError::KeyAmbiguous { id, .. } if id == "identity"), "{error}");
    });
}

#[test]
fn a_secret_key_under_the_id_of_a_pair_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        Raw::log_in(&store, "vault").make_kek("audit", &[]);
        let error = Hsm::open(config).await.unwrap_err();
        assert!(matches!(&error, HsmError::KeyUnfit { id, .. } if id == "audit"), "{error}");
    });
}

#[test]
fn an_extractable_signing_key_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = replace(&store, "identity", |raw| {
            raw.make_pair("identity", &P256, &[Attribute::Extractable(true)]);
        });
        let error = Hsm::open(config).await.unwrap_err();
        assert!(matches!(&error, HsmError::KeyUnfit { problem, .. } if problem.contains("EXTRACT")));
    });
}

#[test]
fn a_signing_key_that_also_derives_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = replace(&store, "audit", |raw| {
            raw.make_pair("audit", &P256, &[Attribute::Derive(true)]);
        });
        let error = Hsm::open(config).await.unwrap_err();
        assert!(matches!(&error, HsmError::KeyUnfit { problem, .. } if problem.contains("DERIVE")));
    });
}

#[test]
fn a_signing_key_on_another_curve_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = replace(&store, "identity", |raw| {
            raw.make_pair("identity", &SECP256K1, &[]);
        });
        let error = Hsm::open(config).await.unwrap_err();
        assert!(matches!(&error, HsmError::KeyUnfit { id, .. } if id == "identity"), "{error}");
    });
}
