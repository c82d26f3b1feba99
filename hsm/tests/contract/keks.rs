//! A KEK is made in its turn, wraps from then on, and takes with it what it alone opens when it is destroyed.

use casemate_hsm::{Hsm, HsmError, Secret32, destroy_kek, new_kek};
use cryptoki::object::{Attribute, ObjectClass};

use crate::raw::Raw;
use crate::support::{Module, on_fresh_store};

fn dek() -> Secret32 {
    Secret32::random().unwrap()
}

#[test]
fn a_new_kek_wraps_from_the_next_opening_on_and_the_old_one_still_opens() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let key = dek();
        let hsm = Hsm::open(config.clone()).await.unwrap();
        let old = hsm.wrap(b"share", &key).await.unwrap();
        new_kek(&config, 2).unwrap();
        assert_eq!(hsm.wrap(b"share", &key).await.unwrap().kek_epoch, 1, "an open HSM goes on with what it knows");
        hsm.shutdown().await.unwrap();
        let hsm = Hsm::open(config).await.unwrap();
        let new = hsm.wrap(b"share", &key).await.unwrap();
        assert_eq!((new.kek_id.as_str(), hsm.status().kek_epoch), ("kek/2", 2));
        for entry in [&old, &new] {
            assert_eq!(hsm.unwrap(b"share", entry).await.unwrap().expose(), key.expose());
        }
    });
}

#[test]
fn a_kek_out_of_turn_is_not_made() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        for epoch in [0, 1, 3, u32::MAX] {
            assert!(matches!(new_kek(&config, epoch).unwrap_err(), HsmError::KekOutOfTurn { .. }), "{epoch}");
        }
        assert_eq!(Hsm::open(config).await.unwrap().status().kek_epoch, 1);
    });
}

#[test]
fn no_kek_is_made_beside_one_that_must_not_be_used() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        Raw::log_in(&store, "vault").make_kek("kek/2", &[Attribute::Wrap(true)]);
        assert!(matches!(new_kek(&config, 3).unwrap_err(), HsmError::KeyUnfit { .. }));
        assert!(Raw::log_in(&store, "vault").find(ObjectClass::SECRET_KEY, "kek/3").is_empty());
    });
}

#[test]
fn a_kek_that_fails_its_canary_is_removed_again() {
    on_fresh_store(Module::Faulty, async |store| {
        let config = store.provisioned("vault");
        store.break_it("ignore-aad");
        let error = new_kek(&config, 2).unwrap_err();
        assert!(matches!(error, HsmError::Canary { .. }), "{error}");
        assert!(Raw::log_in(&store, "vault").find(ObjectClass::SECRET_KEY, "kek/2").is_empty());
    });
}

#[test]
fn what_a_destroyed_kek_alone_opens_is_lost() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let old = Hsm::open(config.clone()).await.unwrap().wrap(b"share", &dek()).await.unwrap();
        new_kek(&config, 2).unwrap();
        destroy_kek(&config, 1).unwrap();
        assert!(Raw::log_in(&store, "vault").find(ObjectClass::SECRET_KEY, "kek/1").is_empty());
        let hsm = Hsm::open(config).await.unwrap();
        let error = hsm.unwrap(b"share", &old).await.unwrap_err();
        assert!(matches!(error, HsmError::UnknownKek { kek_epoch: 1, .. }), "{error}");
        let mut renamed = old.clone();
        (renamed.kek_id, renamed.kek_epoch) = ("kek/2".into(), 2);
        assert!(matches!(hsm.unwrap(b"share", &renamed).await.unwrap_err(), HsmError::Rejected));
    });
}

#[test]
fn the_kek_that_wraps_is_not_destroyed_and_neither_is_one_that_is_not_there() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        assert!(matches!(destroy_kek(&config, 1).unwrap_err(), HsmError::KekIsCurrent { .. }));
        assert!(matches!(destroy_kek(&config, 2).unwrap_err(), HsmError::NoSuchKek { .. }));
        Hsm::open(config).await.unwrap();
    });
}
