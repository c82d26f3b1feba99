//! One token with all its keys, or nothing.

use casemate_hsm::{Hsm, HsmError, HsmState, KeyPurpose, TokenSelector, WrapAlgorithm};

use crate::raw::replace;
use crate::support::{Module, on_fresh_store};

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
        let serial = Hsm::open(config.clone()).await.unwrap().status().token.serial;
        config.token = TokenSelector::Serial(serial.clone());
        assert_eq!(Hsm::open(config).await.unwrap().status().token.serial, serial);
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
            .args(["--init-token", "--free", "--label", "vault", "--pin", "1234", "--so-pin", "1234"])
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
        assert!(matches!(&error, HsmError::KeyMissing { id } if id == "kek/1"), "{error}");
    });
}

#[test]
fn a_missing_pair_is_named() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = replace(&store, "attest", |_| {});
        let error = Hsm::open(config).await.unwrap_err();
        assert!(matches!(&error, HsmError::KeyMissing { id } if id == "attest"), "{error}");
    });
}

#[test]
fn one_process_may_open_a_token_twice() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let first = Hsm::open(config.clone()).await.unwrap();
        let second = Hsm::open(config).await.unwrap();
        drop(first);
        second.sign(KeyPurpose::Identity, b"still open").await.unwrap();
    });
}
