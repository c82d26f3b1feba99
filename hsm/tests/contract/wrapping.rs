//! A wrapped key opens for its own record under its own KEK, and in no other way.

use casemate_hsm::{Hsm, HsmError, Secret32, WrapAlgorithm, WrappedKey};

use crate::raw::Raw;
use crate::support::{Module, on_fresh_store};

/// An attacker's alteration of a stored entry.
type Change = fn(&mut WrappedKey);

fn dek() -> Secret32 {
    Secret32::random().unwrap()
}

async fn assert_rejected(hsm: &Hsm, context: &[u8], entry: &WrappedKey, what: &str) {
    match hsm.unwrap(context, entry).await {
        Err(HsmError::Rejected) => {}
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn a_key_comes_back_as_it_was() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        let key = dek();
        let entry = hsm.wrap(b"share 1", &key).await.unwrap();
        assert_eq!(hsm.unwrap(b"share 1", &entry).await.unwrap().expose(), key.expose());
        assert_eq!((entry.kek_id.as_str(), entry.kek_epoch), ("kek/1", 1));
    });
}

#[test]
fn a_key_comes_back_after_a_restart() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let key = dek();
        let entry = {
            let hsm = Hsm::open(config.clone()).await.unwrap();
            hsm.wrap(b"share 1", &key).await.unwrap()
        };
        let hsm = Hsm::open(config).await.unwrap();
        assert_eq!(hsm.unwrap(b"share 1", &entry).await.unwrap().expose(), key.expose());
    });
}

#[test]
fn one_key_is_wrapped_differently_each_time() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        let key = dek();
        let first = hsm.wrap(b"share 1", &key).await.unwrap();
        let second = hsm.wrap(b"share 1", &key).await.unwrap();
        assert_ne!(first.iv, second.iv);
        assert_ne!(first.blob, second.blob);
    });
}

#[test]
fn every_altered_bit_of_iv_and_blob_is_rejected() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        let entry = hsm.wrap(b"share 1", &dek()).await.unwrap();
        for bit in 0..entry.iv.len() * 8 {
            let mut altered = entry.clone();
            altered.iv[bit / 8] ^= 1 << (bit % 8);
            assert_rejected(&hsm, b"share 1", &altered, &format!("iv bit {bit}")).await;
        }
        for bit in 0..entry.blob.len() * 8 {
            let mut altered = entry.clone();
            altered.blob[bit / 8] ^= 1 << (bit % 8);
            assert_rejected(&hsm, b"share 1", &altered, &format!("blob bit {bit}")).await;
        }
        hsm.unwrap(b"share 1", &entry).await.unwrap();
    });
}

#[test]
fn an_altered_label_of_the_entry_is_rejected() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        let entry = hsm.wrap(b"share 1", &dek()).await.unwrap();
        let changes: [(&str, Change); 3] = [
            ("algorithm", |entry| entry.alg = WrapAlgorithm::TokenIv),
            ("mechanism", |entry| entry.ckm = 0x1085),
            ("kek id", |entry| entry.kek_id = "kek/2".into()),
        ];
        for (what, change) in changes {
            let mut altered = entry.clone();
            change(&mut altered);
            assert_rejected(&hsm, b"share 1", &altered, what).await;
        }
    });
}

#[test]
fn an_entry_moved_to_another_record_is_rejected() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        let first = hsm.wrap(b"share 1", &dek()).await.unwrap();
        let second = hsm.wrap(b"share 2", &dek()).await.unwrap();
        assert_rejected(&hsm, b"share 2", &first, "first in the place of the second").await;
        assert_rejected(&hsm, b"share 1", &second, "second in the place of the first").await;
        assert_rejected(&hsm, b"", &first, "no context").await;
    });
}

#[test]
fn ciphertexts_swapped_between_entries_are_rejected() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        let first = hsm.wrap(b"share 1", &dek()).await.unwrap();
        let mut mixed = hsm.wrap(b"share 1", &dek()).await.unwrap();
        mixed.blob = first.blob;
        assert_rejected(&hsm, b"share 1", &mixed, "another entry's blob").await;
    });
}

#[test]
fn the_newest_kek_wraps_and_older_ones_still_open() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let key = dek();
        let old = Hsm::open(config.clone()).await.unwrap().wrap(b"share 1", &key).await.unwrap();
        Raw::log_in(&store, "vault").make_kek("kek/10", &[]);
        Raw::log_in(&store, "vault").make_kek("kek/9", &[]);

        let hsm = Hsm::open(config).await.unwrap();
        let new = hsm.wrap(b"share 1", &key).await.unwrap();
        assert_eq!((new.kek_epoch, hsm.status().kek_epoch), (10, 10));
        for entry in [&old, &new] {
            assert_eq!(hsm.unwrap(b"share 1", entry).await.unwrap().expose(), key.expose());
        }
        let mut relabelled = old.clone();
        (relabelled.kek_id, relabelled.kek_epoch) = ("kek/9".into(), 9);
        assert_rejected(&hsm, b"share 1", &relabelled, "named another KEK").await;
    });
}

#[test]
fn an_entry_of_a_kek_that_is_not_there_is_told_apart() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        let mut entry = hsm.wrap(b"share 1", &dek()).await.unwrap();
        (entry.kek_id, entry.kek_epoch) = ("kek/7".into(), 7);
        let error = hsm.unwrap(b"share 1", &entry).await.unwrap_err();
        assert!(matches!(error, HsmError::UnknownKek { kek_epoch: 7, .. }), "{error}");
    });
}

#[test]
fn an_entry_of_another_token_is_rejected() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let (first, second) = (store.provisioned("first"), store.provisioned("second"));
        let (first, second) = (Hsm::open(first).await.unwrap(), Hsm::open(second).await.unwrap());
        let entry = first.wrap(b"share 1", &dek()).await.unwrap();
        assert_rejected(&second, b"share 1", &entry, "another token's entry").await;
    });
}

#[test]
fn a_key_comes_back_where_the_token_chooses_the_iv() {
    on_fresh_store(Module::Faulty, async |store| {
        let config = store.provisioned("vault");
        store.break_it("token-iv");
        let hsm = Hsm::open(config).await.unwrap();
        let key = dek();
        let entry = hsm.wrap(b"share 1", &key).await.unwrap();
        assert_eq!(entry.alg, WrapAlgorithm::TokenIv);
        assert_ne!(entry.iv.into_array(), [0; 12]);
        assert_eq!(hsm.unwrap(b"share 1", &entry).await.unwrap().expose(), key.expose());
        let mut altered = entry.clone();
        altered.blob[0] ^= 1;
        assert_rejected(&hsm, b"share 1", &altered, "altered blob").await;
    });
}

#[test]
fn a_token_that_begins_to_return_zero_ivs_wraps_nothing_more() {
    on_fresh_store(Module::Faulty, async |store| {
        let config = store.provisioned("vault");
        store.break_it("token-iv");
        let hsm = Hsm::open(config).await.unwrap();
        store.mend_it("token-iv");
        let error = hsm.wrap(b"share 1", &dek()).await.unwrap_err();
        assert!(error.to_string().contains("no IV of its own"), "{error}");
    });
}
