//! The audit anchor on a token that loses sessions, hangs, refuses or forgets.

use std::fs;
use std::time::{Duration, Instant};

use casemate_hsm::{Hsm, HsmError, HsmState, KeyPurpose};

use crate::anchors::{anchor, before, data_objects, labels};
use crate::raw::Raw;
use crate::support::{Module, Store, eventually, on_fresh_store};

#[test]
fn a_session_lost_at_any_step_of_a_put_is_reopened_and_leaves_one_anchor() {
    on_fresh_store(Module::Faulty, async |store| lose_it_at_every_step(&store).await);
}

#[test]
fn where_the_token_does_not_copy_objects_anchors_are_written_directly_and_as_safely() {
    on_fresh_store(Module::Faulty, async |store| {
        store.break_it("no-copies");
        lose_it_at_every_step(&store).await;
    });
}

async fn lose_it_at_every_step(store: &Store) {
    let mut config = store.provisioned("vault");
    // One thread: a second one would lose its idle session too, and each call bears one loss only.
    config.threads = 1;
    let hsm = Hsm::open(config).await.unwrap();
    let mut size = 0;
    hsm.put_anchor(None, &anchor(size)).await.unwrap();
    for fault in [
        "close-all-sessions",
        "logout",
        "lost-before-create",
        "lost-after-create",
        "lost-before-destroy",
        "lost-after-destroy",
        "id-changes",
        "class-changes",
    ] {
        for _ in 0..3 {
            size += 1;
            store.break_it(fault);
            hsm.put_anchor(before(size).as_ref(), &anchor(size)).await.unwrap();
            assert!(!store.is_broken(fault), "{fault} never struck");
            assert_eq!(labels(&Raw::log_in(store, "vault")), [format!("anchor/{size}")], "{fault}");
        }
    }
    assert!(!store.is_broken("key-destroyed"), "an object was destroyed that said that it is a key");
    assert_eq!(hsm.state(), HsmState::Ready);
}

#[test]
fn a_session_lost_while_reading_or_replacing_is_reopened() {
    on_fresh_store(Module::Faulty, async |store| {
        let mut config = store.provisioned("vault");
        // One thread: a second one would lose its idle session too, and each call bears one loss only.
        config.threads = 1;
        let hsm = Hsm::open(config).await.unwrap();
        hsm.put_anchor(None, &anchor(9)).await.unwrap();
        // A session that is logged out finds no private object and says nothing: that is not an absent anchor.
        for fault in ["close-all-sessions", "logout", "id-changes"] {
            for _ in 0..3 {
                store.break_it(fault);
                assert_eq!(hsm.anchor().await.unwrap(), Some(anchor(9)), "{fault}");
                assert!(!store.is_broken(fault), "{fault} never struck");
            }
        }
        for (fault, size) in [("lost-after-create", 5), ("lost-before-destroy", 4), ("lost-after-destroy", 3)] {
            store.break_it(fault);
            hsm.replace_anchor(&anchor(size)).await.unwrap();
            assert!(!store.is_broken(fault), "{fault} never struck");
            assert_eq!(labels(&Raw::log_in(&store, "vault")), [format!("anchor/{size}")], "{fault}");
        }
    });
}

#[test]
fn a_token_that_goes_away_is_an_error_and_the_earlier_anchor_counts_when_it_is_back() {
    on_fresh_store(Module::Faulty, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        hsm.put_anchor(None, &anchor(1)).await.unwrap();
        for fault in ["device-removed", "create-fails"] {
            store.break_it(fault);
            let error = hsm.put_anchor(Some(&anchor(1)), &anchor(2)).await.unwrap_err();
            assert!(matches!(error, HsmError::Unavailable { .. }), "{fault}: {error}");
            store.mend_it(fault);
            eventually("the HSM is back", || hsm.state() == HsmState::Ready).await;
            assert_eq!(hsm.anchor().await.unwrap(), Some(anchor(1)));
        }
        hsm.put_anchor(Some(&anchor(1)), &anchor(2)).await.unwrap();
    });
}

#[test]
fn a_token_folder_moved_away_is_an_error_and_never_an_absent_anchor() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        hsm.put_anchor(None, &anchor(1)).await.unwrap();
        let (here, away) = (store.tokens(), store.folder().join("away"));
        for _ in 0..3 {
            fs::rename(&here, &away).unwrap();
            fs::create_dir(&here).unwrap();
            let error = hsm.anchor().await.unwrap_err();
            assert!(matches!(error, HsmError::Unavailable { .. }), "{error}");
            fs::remove_dir_all(&here).unwrap();
            fs::rename(&away, &here).unwrap();
            eventually("the HSM is back", || hsm.state() == HsmState::Ready).await;
            assert_eq!(hsm.anchor().await.unwrap(), Some(anchor(1)));
        }
    });
}

#[test]
fn a_token_without_data_objects_says_so_and_goes_on_signing() {
    on_fresh_store(Module::Faulty, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        store.break_it("no-data-objects");
        let error = hsm.put_anchor(None, &anchor(1)).await.unwrap_err();
        assert!(matches!(error, HsmError::AnchorUnsupported { .. }), "{error}");
        assert!(error.to_string().contains("CKO_DATA"), "{error}");
        hsm.sign(KeyPurpose::Audit, b"message").await.unwrap();
    });
}

#[test]
fn a_token_that_keeps_another_value_than_it_was_given_is_found_out_and_the_earlier_anchor_counts() {
    on_fresh_store(Module::Faulty, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        hsm.put_anchor(None, &anchor(1)).await.unwrap();
        store.break_it("value-changes");
        for _ in 0..2 {
            let error = hsm.put_anchor(Some(&anchor(1)), &anchor(2)).await.unwrap_err();
            assert!(matches!(&error, HsmError::AnchorDamaged { id, .. } if id == "anchor/2"), "{error}");
        }
        store.mend_it("value-changes");
        assert_eq!(hsm.anchor().await.unwrap(), Some(anchor(1)));
        assert_eq!(labels(&Raw::log_in(&store, "vault")), ["anchor/1"]);
    });
}

#[test]
fn an_earlier_anchor_that_cannot_be_destroyed_is_an_error_until_it_can() {
    on_fresh_store(Module::Faulty, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        hsm.put_anchor(None, &anchor(1)).await.unwrap();
        store.break_it("destroy-fails");
        for _ in 0..3 {
            let error = hsm.put_anchor(Some(&anchor(1)), &anchor(2)).await.unwrap_err();
            assert!(error.to_string().contains("destroying an earlier audit anchor"), "{error}");
        }
        // What was repeated did not pile up, and the new one counts.
        assert_eq!(data_objects(&Raw::log_in(&store, "vault")).len(), 2);
        assert_eq!(hsm.anchor().await.unwrap(), Some(anchor(2)));
        store.mend_it("destroy-fails");
        hsm.put_anchor(Some(&anchor(1)), &anchor(2)).await.unwrap();
        assert_eq!(labels(&Raw::log_in(&store, "vault")), ["anchor/2"]);
    });
}

#[test]
fn anchor_calls_that_wait_for_a_stuck_one_are_given_up_in_time_and_hold_no_thread() {
    on_fresh_store(Module::Faulty, async |store| {
        let mut config = store.provisioned("vault");
        (config.threads, config.timeout) = (2, Duration::from_secs(2));
        let hsm = Hsm::open(config).await.unwrap();
        hsm.put_anchor(None, &anchor(1)).await.unwrap();
        store.break_it("hang-data");
        let began = Instant::now();
        let (first, second, third) = (anchor(1), anchor(2), anchor(3));
        let last = Some(&first);
        let puts = async {
            let calls =
                tokio::join!(hsm.put_anchor(last, &second), hsm.put_anchor(last, &third), hsm.anchor(), hsm.anchor());
            assert!(matches!(calls, (Err(_), Err(_), Err(_), Err(_))), "{calls:?}");
        };
        // Were the three that wait inside threads, none would be left to sign.
        let signs = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            for _ in 0..5 {
                hsm.sign(KeyPurpose::Audit, b"message").await.unwrap();
            }
        };
        tokio::join!(puts, signs);
        assert!(began.elapsed() < Duration::from_millis(3500), "{:?}", began.elapsed());

        // One that has been given up still has its turn: nothing overtakes it.
        let error = hsm.put_anchor(Some(&second), &anchor(4)).await.unwrap_err();
        assert!(matches!(error, HsmError::Timeout { .. }), "{error}");
        store.mend_it("hang-data");
        hsm.put_anchor(Some(&second), &anchor(5)).await.unwrap();
        assert_eq!(labels(&Raw::log_in(&store, "vault")), ["anchor/5"]);
    });
}
