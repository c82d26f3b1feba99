//! A wrong PIN is tried once and never again.

use casemate_hsm::{Hsm, HsmError, HsmState, KeyPurpose, init_keys};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};

use crate::support::{Module, PIN, Store, eventually, on_fresh_store};

/// The token's PIN flags: count low, final try, locked.
fn pin_flags(store: &Store) -> (bool, bool, bool) {
    let pkcs11 = Pkcs11::new(store.module()).unwrap();
    let ours = pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).is_ok();
    let slot = pkcs11.get_slots_with_initialized_token().unwrap()[0];
    let info = pkcs11.get_token_info(slot).unwrap();
    let flags = (info.user_pin_count_low(), info.user_pin_final_try(), info.user_pin_locked());
    if ours {
        pkcs11.finalize().unwrap();
    }
    flags
}

#[test]
fn a_wrong_pin_is_tried_once_however_often_one_asks() {
    on_fresh_store(Module::Faulty, async |store| {
        let config = store.provisioned("vault");
        let before = store.logins();
        store.write_pin("wrong");
        for _ in 0..20 {
            let error = Hsm::open(config.clone()).await.unwrap_err();
            assert!(matches!(error, HsmError::PinRefused { .. }), "{error}");
            assert!(matches!(init_keys(&config), Err(HsmError::PinRefused { .. })));
        }
        assert_eq!(store.logins() - before, 1);
        assert_eq!(pin_flags(&store), (true, false, false));
    });
}

#[test]
fn a_corrected_pin_opens_the_token_in_the_same_process() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        store.write_pin("wrong");
        Hsm::open(config.clone()).await.unwrap_err();
        store.write_pin(PIN);
        Hsm::open(config).await.unwrap();
        assert_eq!(pin_flags(&store), (false, false, false));
    });
}

#[test]
fn a_pin_that_becomes_wrong_while_running_is_tried_once_by_all_threads() {
    on_fresh_store(Module::Faulty, async |store| {
        let mut config = store.provisioned("vault");
        config.threads = 4;
        let hsm = Hsm::open(config).await.unwrap();
        for _ in 0..8 {
            hsm.sign(KeyPurpose::Audit, b"opens the sessions").await.unwrap();
        }
        let before = store.logins();
        store.write_pin("wrong");
        store.break_it("close-all-sessions");
        for _ in 0..20 {
            let error = hsm.sign(KeyPurpose::Audit, b"message").await.unwrap_err();
            assert!(matches!(error, HsmError::PinRefused { .. }), "{error}");
        }
        tokio::time::sleep(std::time::Duration::from_millis(800)).await;
        assert_eq!(store.logins() - before, 1);
        assert!(matches!(hsm.state(), HsmState::PinRefused { .. }));
    });
}

#[test]
fn a_pin_file_lost_while_running_makes_the_hsm_unavailable_until_it_is_back() {
    on_fresh_store(Module::Faulty, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        std::fs::remove_file(store.folder().join("pin")).unwrap();
        store.break_it("close-all-sessions");
        let error = hsm.sign(KeyPurpose::Audit, b"message").await.unwrap_err();
        assert!(matches!(error, HsmError::Unavailable { .. }), "{error}");
        store.write_pin(PIN);
        eventually("the HSM is back", || hsm.state() == HsmState::Ready).await;
        hsm.sign(KeyPurpose::Audit, b"message").await.unwrap();
    });
}

#[test]
fn the_last_try_before_a_lock_is_not_taken() {
    on_fresh_store(Module::Faulty, async |store| {
        let config = store.provisioned("vault");
        let before = store.logins();
        store.break_it("pin-final-try");
        let error = Hsm::open(config).await.unwrap_err();
        assert!(matches!(error, HsmError::PinFinalTry { .. }), "{error}");
        assert_eq!(store.logins(), before);
    });
}

#[test]
fn a_locked_pin_is_said_and_not_tried() {
    on_fresh_store(Module::Faulty, async |store| {
        let config = store.provisioned("vault");
        let before = store.logins();
        store.break_it("pin-locked");
        let error = Hsm::open(config).await.unwrap_err();
        assert!(matches!(error, HsmError::PinLocked { .. }), "{error}");
        assert_eq!(store.logins(), before);
    });
}
