#![allow(clippy::unwrap_used)]
use std::os::unix::fs::PermissionsExt;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::account::Account;
use crate::api_key::ApiKey;
use crate::session::testing::{self, certificate, keygen, party, pinned, start};
use crate::session::{Event, Purpose, Report, Session, Status, Tally};
use casemate_wire::Code;
use casemate_wire::frame::Outcome;

fn completed(seed: u8) -> (Session, Account) {
    let mut session = keygen();
    let mut tally = Tally::default();
    for index in 0..3 {
        let certificate = certificate(seed, |_| ());
        let outcome = Ok(Outcome::Keygen { public_key: certificate.statement.public_key, certificate });
        tally.add(Report { party: party(index), outcome });
    }
    let finding = tally.conclude(&session, pinned).unwrap();
    session.apply(Event::Inviting, start()).unwrap();
    for at in 0..3 {
        session.apply(Event::Joined(at), start()).unwrap();
        session.apply(Event::Attached(at), start()).unwrap();
    }
    session.apply(Event::Completed(Box::new(finding)), start()).unwrap();
    let Purpose::Keygen(new) = session.purpose() else { unreachable!() };
    let certificate = session.finding().unwrap().certificate().unwrap();
    let time = start() + SignedDuration::from_secs(seed.into());
    let account = Account::open(new, certificate, session.threshold(), session.participants(), time);
    (session, account)
}

async fn recorded(store: &Store, seed: u8) -> (Session, Account) {
    let (session, account) = completed(seed);
    store.create_session(&session).await.unwrap();
    store.end_session(&session, Some(account.clone())).await.unwrap();
    (session, account)
}

#[tokio::test]
async fn a_finished_session_and_its_account_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (session, account) = recorded(&store, 4).await;
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.interrupt_sessions(Timestamp::now()).await.unwrap(), 0);
    let found = store.session(session.id()).await.unwrap().unwrap();
    assert_eq!(found.status(), Status::Completed);
    assert_eq!(found.finding(), session.finding());
    assert_eq!(store.account(account.id).await.unwrap(), Some(account));
}

#[tokio::test]
async fn sessions_that_had_not_ended_are_interrupted_by_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let session = testing::sign();
    Store::open(folder.path()).unwrap().create_session(&session).await.unwrap();
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.interrupt_sessions(Timestamp::now()).await.unwrap(), 1);
    assert_eq!(store.interrupt_sessions(Timestamp::now()).await.unwrap(), 0);
    let found = store.session(session.id()).await.unwrap().unwrap();
    assert_eq!(found.status(), Status::Failed);
    assert_eq!(found.error().unwrap().code, Code::Interrupted);
}

#[tokio::test]
async fn only_sessions_that_are_overdue_are_expired() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (old, new) = (testing::sign(), testing::keygen_that_expires(start() + SignedDuration::from_hours(1)));
    store.create_session(&old).await.unwrap();
    store.create_session(&new).await.unwrap();
    let limit = start() + SignedDuration::from_mins(11);
    assert_eq!(store.expire_sessions(limit, limit).await.unwrap(), 1);
    let status = async |session: &Session| store.session(session.id()).await.unwrap().unwrap().status();
    assert_eq!(status(&old).await, Status::Expired);
    assert_eq!(status(&new).await, Status::Created);
}

#[tokio::test]
async fn a_session_ends_together_with_its_account_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (_, taken) = recorded(&store, 4).await;
    let mut session = keygen();
    store.create_session(&session).await.unwrap();
    session.apply(Event::Expired, start()).unwrap();
    // The same key a second time cannot be: the session must not end as if it had made it.
    assert!(store.end_session(&session, Some(taken)).await.is_err());
    let found = store.session(session.id()).await.unwrap().unwrap();
    assert_eq!(found.status(), Status::Created);
}

#[tokio::test]
async fn accounts_are_listed_in_pages_oldest_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut ids = Vec::new();
    for seed in [6, 4, 5] {
        ids.push((seed, recorded(&store, seed).await.1.id));
    }
    ids.sort_unstable_by_key(|(seed, _)| *seed);
    let (first, total) = store.accounts(0, 2).await.unwrap();
    let (rest, _) = store.accounts(2, 2).await.unwrap();
    let listed: Vec<_> = first.iter().chain(&rest).map(|account| account.id).collect();
    assert_eq!((listed, total), (ids.iter().map(|(_, id)| *id).collect(), 3));
}

#[tokio::test]
async fn a_revoked_key_stays_listed_and_frees_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (first, _) = ApiKey::generate("shop", start());
    let (second, _) = ApiKey::generate("shop", start() + SignedDuration::from_secs(1));
    assert!(store.add_key(first.clone()).await.unwrap());
    assert!(!store.add_key(second.clone()).await.unwrap());
    assert!(store.revoke_key("shop", start()).await.unwrap());
    assert!(!store.revoke_key("shop", start()).await.unwrap());
    assert!(store.add_key(second.clone()).await.unwrap());
    assert_eq!(store.key(&first.id).await.unwrap().unwrap().revoked_at, Some(start()));
    assert_eq!(store.key("000000000000").await.unwrap(), None);
    let keys = store.keys().await.unwrap();
    assert_eq!(keys.iter().map(|key| &key.id).collect::<Vec<_>>(), [&first.id, &second.id]);
}

#[test]
fn a_data_folder_belongs_to_one_daemon_and_is_closed_to_others() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let held = claim(&folder).unwrap();
    assert!(matches!(claim(&folder), Err(StoreError::InUse(_))));
    drop(held);
    assert!(claim(&folder).is_ok());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join(FILE))), (0o700, 0o600));
}

#[test]
fn a_store_of_a_later_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path()).unwrap());
    let db = Connection::open(folder.path().join(FILE)).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(Store::open(folder.path()), Err(StoreError::Newer { found: 99, .. })));
}
