//! Sessions and tokens that go away and come back.

use std::fs;
use std::time::{Duration, Instant};

use casemate_hsm::{Hsm, HsmError, HsmState, KeyPurpose, Secret32};

use crate::raw::{P256, Raw};
use crate::support::{Module, Store, eventually, on_fresh_store};

#[test]
fn closed_sessions_are_reopened_without_the_caller_noticing() {
    on_fresh_store(Module::Faulty, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        let key = Secret32::random().unwrap();
        for _ in 0..5 {
            store.break_it("close-all-sessions");
            let entry = hsm.wrap(b"share", &key).await.unwrap();
            store.break_it("close-all-sessions");
            assert_eq!(hsm.unwrap(b"share", &entry).await.unwrap().expose(), key.expose());
            store.break_it("close-all-sessions");
            hsm.sign(KeyPurpose::Identity, b"message").await.unwrap();
        }
        assert_eq!(hsm.state(), HsmState::Ready);
    });
}

#[test]
fn a_lost_login_is_renewed_without_the_caller_noticing() {
    on_fresh_store(Module::Faulty, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        for _ in 0..5 {
            store.break_it("logout");
            hsm.sign(KeyPurpose::Identity, b"message").await.unwrap();
            store.break_it("logout");
            let key = Secret32::random().unwrap();
            let entry = hsm.wrap(b"share", &key).await.unwrap();
            store.break_it("logout");
            hsm.unwrap(b"share", &entry).await.unwrap();
        }
    });
}

async fn the_token_is_lost_and_back(store: &Store, lose: impl Fn(), give_back: impl Fn(), hsm: &Hsm) {
    let key = Secret32::random().unwrap();
    let entry = hsm.wrap(b"share", &key).await.unwrap();
    lose();
    let error = hsm.unwrap(b"share", &entry).await.unwrap_err();
    assert!(matches!(error, HsmError::Unavailable { .. }), "{error}");
    let HsmState::Unavailable { since, reason } = hsm.state() else {
        panic!("{:?}", hsm.state());
    };
    assert!(!reason.is_empty());

    // It stays so, refuses at once, and keeps the time at which it began, over several attempts to reload.
    tokio::time::sleep(Duration::from_millis(900)).await;
    let began = Instant::now();
    let error = hsm.sign(KeyPurpose::Identity, b"message").await.unwrap_err();
    assert!(began.elapsed() < Duration::from_millis(100));
    assert!(matches!(error, HsmError::Unavailable { since: same, .. } if same == since), "{error}");

    give_back();
    eventually("the HSM is back", || hsm.state() == HsmState::Ready).await;
    assert_eq!(hsm.unwrap(b"share", &entry).await.unwrap().expose(), key.expose());
    hsm.sign(KeyPurpose::Identity, b"message").await.unwrap();
    assert!(store.tokens().exists());
}

#[test]
fn a_removed_device_makes_the_hsm_unavailable_until_it_is_back() {
    on_fresh_store(Module::Faulty, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        let lose = || store.break_it("device-removed");
        the_token_is_lost_and_back(&store, lose, || store.mend_it("device-removed"), &hsm).await;
    });
}

#[test]
fn a_token_folder_moved_away_makes_the_hsm_unavailable_until_it_is_back() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        let (here, away) = (store.tokens(), store.folder().join("away"));
        let lose = || {
            fs::rename(&here, &away).unwrap();
            fs::create_dir(&here).unwrap();
        };
        let give_back = || {
            fs::remove_dir_all(&here).unwrap();
            fs::rename(&away, &here).unwrap();
        };
        the_token_is_lost_and_back(&store, lose, give_back, &hsm).await;
    });
}

#[test]
fn an_idle_hsm_notices_by_itself_that_the_token_is_gone() {
    on_fresh_store(Module::Faulty, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        store.break_it("device-removed");
        eventually("it is seen", || matches!(hsm.state(), HsmState::Unavailable { .. })).await;
    });
}

#[test]
fn a_token_whose_identity_key_was_replaced_is_not_used() {
    on_fresh_store(Module::Faulty, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        let raw = Raw::log_in(&store, "vault");
        raw.destroy("identity");
        raw.make_pair("identity", &P256, &[]);
        drop(raw);
        store.break_it("close-all-sessions");
        for _ in 0..2 {
            let error = hsm.sign(KeyPurpose::Identity, b"message").await.unwrap_err();
            assert!(error.to_string().contains("other keys than before"), "{error}");
            // Reloading does not make it acceptable either.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
}

#[test]
fn another_token_with_the_same_label_is_not_used() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let (here, away) = (store.tokens(), store.folder().join("away"));
        store.provisioned("vault");
        fs::rename(&here, &away).unwrap();
        fs::create_dir(&here).unwrap();
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        fs::remove_dir_all(&here).unwrap();
        fs::rename(&away, &here).unwrap();
        hsm.sign(KeyPurpose::Identity, b"message").await.unwrap_err();
        eventually("the other token is seen", || match hsm.state() {
            HsmState::Unavailable { reason, .. } => reason.contains("another token came back"),
            _ => false,
        })
        .await;
    });
}

#[test]
fn one_token_that_is_lost_leaves_the_others_of_the_module_alone() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let lost = Hsm::open(store.provisioned("lost")).await.unwrap();
        let folder = fs::read_dir(store.tokens()).unwrap().next().unwrap().unwrap().path();
        let kept = Hsm::open(store.provisioned("kept")).await.unwrap();
        let key = Secret32::random().unwrap();
        let entry = kept.wrap(b"share", &key).await.unwrap();

        let away = store.folder().join("away");
        fs::rename(&folder, &away).unwrap();
        lost.sign(KeyPurpose::Identity, b"message").await.unwrap_err();
        // Long enough for the module to be initialised anew twice, under the other's sessions.
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(2200) {
            assert_eq!(kept.unwrap(b"share", &entry).await.unwrap().expose(), key.expose());
            kept.sign(KeyPurpose::Identity, b"message").await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(matches!(lost.state(), HsmState::Unavailable { .. }));
        fs::rename(&away, &folder).unwrap();
        eventually("the lost one is back", || lost.state() == HsmState::Ready).await;
        lost.sign(KeyPurpose::Identity, b"message").await.unwrap();
        kept.sign(KeyPurpose::Identity, b"message").await.unwrap();
    });
}

#[test]
fn a_session_from_before_the_module_restarted_is_never_used_again() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let mut restarting = store.provisioned("restarting");
        let folder = fs::read_dir(store.tokens()).unwrap().next().unwrap().unwrap().path();
        let mut waiting = store.provisioned("waiting");
        (restarting.threads, waiting.threads) = (1, 1);
        let key = Secret32::random().unwrap();

        let waiting = Hsm::open(waiting).await.unwrap();
        let entry = waiting.wrap(b"share", &key).await.unwrap();
        let restarting = Hsm::open(restarting).await.unwrap();
        let away = store.folder().join("away");
        fs::rename(&folder, &away).unwrap();
        restarting.sign(KeyPurpose::Identity, b"message").await.unwrap_err();
        tokio::time::sleep(Duration::from_millis(900)).await;
        fs::rename(&away, &folder).unwrap();
        eventually("the lost one is back", || restarting.state() == HsmState::Ready).await;
        restarting.wrap(b"share", &key).await.unwrap();

        // The handles of both now have the same numbers: a stale one would reach the other token's keys.
        assert_eq!(waiting.unwrap(b"share", &entry).await.unwrap().expose(), key.expose());
    });
}

#[test]
fn shutdown_does_not_wait_for_the_next_attempt_to_reload() {
    on_fresh_store(Module::Faulty, async |store| {
        let hsm = Hsm::open(store.provisioned("vault")).await.unwrap();
        store.break_it("device-removed");
        hsm.sign(KeyPurpose::Identity, b"message").await.unwrap_err();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let began = Instant::now();
        hsm.shutdown().await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(300), "{:?}", began.elapsed());
    });
}
