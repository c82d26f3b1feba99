//! Tokens that do not do what they say.

use casemate_hsm::{Hsm, HsmError, WrapAlgorithm, WrapMode};
use cryptoki::object::{Attribute, ObjectClass};

use crate::raw::{P256, Raw};
use crate::support::{Module, on_fresh_store};

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
        raw.session().update_attributes(raw.find(public, "stray")[0], &renamed).unwrap();
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
        assert!(matches!(&error, HsmError::Canary { problem } if problem.contains("AAD")), "{error}");
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
