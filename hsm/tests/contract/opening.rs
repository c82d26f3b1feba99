//! One token, the right keys, or nothing.

use casemate_hsm::{Hsm, HsmError, HsmState, KeyPurpose, TokenSelector, WrapAlgorithm, WrapMode};
use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, KeyType, ObjectClass};

use crate::raw::{P256, Raw, replace};
use crate::support::{Module, on_fresh_store};

const SECP256K1: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];

#[test]
fn a_provisioned_token_opens_and_says_what_it_is() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        let status = hsm.status();
        assert_eq!(status.token.label, "vault");
        assert_eq!(status.token.model, "SoftHSM v2");
        assert_eq!(status.wrap, WrapAlgorithm::HostIv);
        assert_eq!((status.kek_id.as_str(), status.kek_epoch), ("kek/1", 1));
        assert_eq!(status.state, HsmState::Ready);
        let ids: Vec<_> = status.keys.iter().map(|key| key.id.as_str()).collect();
        assert_eq!(ids, ["kek/1", "identity", "attest", "audit"]);
        assert!(status.keys.iter().all(|key| key.mechanism_enforced));
    });
}

#[test]
fn a_token_is_found_by_serial() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let mut config = store.provisioned("vault");
        store.token("another");
        let serial = Hsm::open(config.clone())
            .await
            .unwrap()
            .status()
            .token
            .serial;
        config.token = TokenSelector::Serial(serial.clone());
        assert_eq!(
            Hsm::open(config).await.unwrap().status().token.serial,
            serial
        );
    });
}

#[test]
fn a_missing_token_is_refused_with_a_list_of_those_present() {
    on_fresh_store(Module::SoftHsm, async |store| {
        store.token("another");
        let error = Hsm::open(store.config("vault")).await.unwrap_err();
        assert!(matches!(&error, HsmError::NoToken { .. }));
        assert!(error.to_string().contains("another"), "{error}");
    });
}

#[test]
fn an_empty_module_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let error = Hsm::open(store.config("vault")).await.unwrap_err();
        assert!(matches!(&error, HsmError::NoToken { present, .. } if present == "none"));
    });
}

#[test]
fn two_tokens_with_one_label_are_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let made = std::process::Command::new("softhsm2-util")
            .args([
                "--init-token",
                "--free",
                "--label",
                "vault",
                "--pin",
                "1234",
                "--so-pin",
                "1234",
            ])
            .output()
            .unwrap();
        assert!(made.status.success());
        let error = Hsm::open(config).await.unwrap_err();
        assert!(matches!(error, HsmError::SeveralTokens { .. }), "{error}");
    });
}

#[test]
fn a_module_that_is_not_there_is_named() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let mut config = store.config("vault");
        config.module = "/nonexistent/module.so".into();
        let error = Hsm::open(config).await.unwrap_err();
        assert!(matches!(error, HsmError::Module { .. }));
        assert!(error.to_string().contains("/nonexistent/module.so"));
    });
}

#[test]
fn a_token_without_keys_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        store.token("vault");
        let error = Hsm::open(store.config("vault")).await.unwrap_err();
        assert!(
            matches!(&error, HsmError::KeyMissing { id } if id == "kek/1"),
            "{error}"
        );
    });
}

#[test]
fn a_missing_pair_is_named() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = replace(&store, "attest", |_| {});
        let error = Hsm::open(config).await.unwrap_err();
        assert!(
            matches!(&error, HsmError::KeyMissing { id } if id == "attest"),
            "{error}"
        );
    });
}

#[test]
fn a_kek_made_elsewhere_with_the_listed_attributes_is_accepted() {
    on_fresh_store(Module::SoftHsm, async |store| {
        Hsm::open(replace(&store, "kek/1", |raw| raw.make_kek("kek/1", &[])))
            .await
            .unwrap();
    });
}

/// Opens a token whose KEK differs, and says why it was refused.
fn kek_is_refused_with(
    changes: &'static [Attribute],
) -> impl AsyncFnOnce(crate::support::Store) -> String {
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
        assert!(
            matches!(&error, HsmError::KeyUnfit { problem, .. } if problem.contains("ALLOWED"))
        );
    });
}

#[test]
fn a_short_kek_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = replace(&store, "kek/1", |raw| {
            raw.make_kek("kek/1", &[Attribute::ValueLen(16.into())]);
        });
        let error = Hsm::open(config).await.unwrap_err();
        assert!(
            matches!(&error, HsmError::KeyUnfit { id, .. } if id == "kek/1"),
            "{error}"
        );
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
        assert!(
            matches!(&error, HsmError::KeyAmbiguous { count: 2, .. }),
            "{error}"
        );
    });
}

#[test]
fn two_pairs_with_one_id_are_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        Raw::log_in(&store, "vault").make_pair("identity", &P256, &[]);
        let error = Hsm::open(config).await.unwrap_err();
        assert!(
            matches!(&error, HsmError::KeyAmbiguous { id, .. } if id == "identity"),
            "{error}"
        );
    });
}

#[test]
fn a_secret_key_under_the_id_of_a_pair_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        Raw::log_in(&store, "vault").make_kek("audit", &[]);
        let error = Hsm::open(config).await.unwrap_err();
        assert!(
            matches!(&error, HsmError::KeyUnfit { id, .. } if id == "audit"),
            "{error}"
        );
    });
}

#[test]
fn an_extractable_signing_key_is_refused() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = replace(&store, "identity", |raw| {
            raw.make_pair("identity", &P256, &[Attribute::Extractable(true)]);
        });
        let error = Hsm::open(config).await.unwrap_err();
        assert!(
            matches!(&error, HsmError::KeyUnfit { problem, .. } if problem.contains("EXTRACT"))
        );
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
        assert!(
            matches!(&error, HsmError::KeyUnfit { id, .. } if id == "identity"),
            "{error}"
        );
    });
}

#[test]
fn a_public_key_that_is_not_the_private_ones_fails_the_canary() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let raw = Raw::log_in(&store, "vault");
        raw.destroy("identity");
        raw.make_pair("identity", &P256, &[]);
        raw.make_pair("stray", &P256, &[]);
        // The private half of one pair and the public half of the other, under one id.
        let (private, public) = (ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY);
        for object in [raw.find(private, "stray"), raw.find(public, "identity")].concat() {
            raw.session().destroy_object(object).unwrap();
        }
        let renamed = [Attribute::Id("identity".into())];
        raw.session()
            .update_attributes(raw.find(public, "stray")[0], &renamed)
            .unwrap();
        drop(raw);
        let error = Hsm::open(config).await.unwrap_err();
        assert!(matches!(error, HsmError::Canary { .. }), "{error}");
    });
}

#[test]
fn a_token_that_does_not_write_its_own_iv_back_is_refused_in_that_mode() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let mut config = store.provisioned("vault");
        config.wrap = WrapMode::TokenIv;
        let error = Hsm::open(config).await.unwrap_err();
        assert!(matches!(error, HsmError::WrapUnsupported { .. }), "{error}");
    });
}

#[test]
fn a_token_that_chooses_its_own_iv_is_used_that_way() {
    on_fresh_store(Module::Faulty, async |store| {
        let config = store.provisioned("vault");
        store.break_it("token-iv");
        let hsm = Hsm::open(config).await.unwrap();
        assert_eq!(hsm.status().wrap, WrapAlgorithm::TokenIv);
    });
}

#[test]
fn a_token_that_chooses_its_own_iv_is_refused_where_the_hosts_is_configured() {
    on_fresh_store(Module::Faulty, async |store| {
        let mut config = store.provisioned("vault");
        config.wrap = WrapMode::HostIv;
        store.break_it("token-iv");
        let error = Hsm::open(config).await.unwrap_err();
        assert!(matches!(error, HsmError::WrapUnsupported { .. }), "{error}");
    });
}

#[test]
fn a_token_that_repeats_its_iv_fails_the_canary() {
    on_fresh_store(Module::Faulty, async |store| {
        let config = store.provisioned("vault");
        store.break_it("constant-token-iv");
        let error = Hsm::open(config).await.unwrap_err();
        assert!(matches!(&error, HsmError::Canary { problem } if problem.contains("IV twice")));
    });
}

#[test]
fn a_token_that_ignores_the_aad_fails_the_canary() {
    on_fresh_store(Module::Faulty, async |store| {
        let config = store.provisioned("vault");
        store.break_it("ignore-aad");
        let error = Hsm::open(config).await.unwrap_err();
        assert!(
            matches!(&error, HsmError::Canary { problem } if problem.contains("AAD")),
            "{error}"
        );
    });
}

#[test]
fn a_token_that_cannot_limit_mechanisms_is_used_and_shown_as_such() {
    on_fresh_store(Module::Faulty, async |store| {
        store.break_it("no-allowed-mechanisms");
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        assert!(hsm.status().keys.iter().all(|key| !key.mechanism_enforced));
    });
}

#[test]
fn one_process_may_open_a_token_twice() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let first = Hsm::open(config.clone()).await.unwrap();
        let second = Hsm::open(config).await.unwrap();
        drop(first);
        second
            .sign(KeyPurpose::Identity, b"still open")
            .await
            .unwrap();
    });
}
