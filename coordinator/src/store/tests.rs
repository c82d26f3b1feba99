#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use std::os::unix::fs::PermissionsExt;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::account::{Account, Advance};
use crate::api_key::ApiKey;
use crate::session::testing::{self, certificate, keygen, party, pinned, start};
use crate::session::{Event, Purpose, Report, Session, Status, Tally};
use crate::settle::{Settling, Standing};
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
    let opened = Effect::Open(Box::new(account.clone()));
    store.end_session(&session, true, Some(&opened)).await.unwrap();
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
    let taken = Effect::Open(Box::new(taken));
    assert!(store.end_session(&session, false, Some(&taken)).await.is_err());
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

/// A rotation of an account, recorded as begun.
async fn begun(store: &Store, account: &Account, epoch: u64) -> Session {
    let template = testing::rotate_to(&[0, 1, 3], &[0, 1]);
    let Purpose::Rotate(mut new) = template.purpose().clone() else { unreachable!() };
    new.account_id = account.id;
    new.rotation.epoch = epoch;
    let id = uuid::Uuid::new_v4().to_string().parse().unwrap();
    let times = (template.created_at(), template.expires_at());
    let participants = template.participants().to_vec();
    let mut session = Session::new(id, Purpose::Rotate(new), template.threshold(), participants, times);
    store.create_session(&session).await.unwrap();
    session.apply(Event::Inviting, start()).unwrap();
    session
}

fn advance(account: &Account, committee: &[u16], epoch: u64) -> Advance {
    let succession = testing::succession(committee, &[0, 1], |s| s.epoch = epoch);
    Advance::new(account.id, succession, |party| account.device(party).cloned())
}

fn failed(mut session: Session) -> Session {
    session.apply(Event::Failed(Problem::new(Code::PolicyDenied, "no")), start()).unwrap();
    session
}

async fn found(store: &Store, account: &Account) -> Account {
    store.account(account.id).await.unwrap().unwrap()
}

#[tokio::test]
async fn an_epoch_is_taken_before_any_party_is_asked_and_by_one_session_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (_, account) = recorded(&store, 4).await;
    let session = begun(&store, &account, 2).await;
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    let after = found(&store, &account).await;
    assert_eq!((after.epoch(), after.epoch_tried, after.doubt.as_ref()), (1, 2, Some(session.id())));
    let again = Session::new(
        "again".parse().unwrap(),
        session.purpose().clone(),
        session.threshold(),
        session.participants().to_vec(),
        (session.created_at(), session.expires_at()),
    );
    assert!(store.create_session(&again).await.is_err());
    assert!(store.session(again.id()).await.unwrap().is_none(), "both or neither");
    store.raise_epoch(account.id, 6).await.unwrap();
    store.raise_epoch(account.id, 3).await.unwrap();
    assert_eq!(found(&store, &account).await.epoch_tried, 6);
}

#[tokio::test]
async fn a_rotation_that_ran_and_failed_stays_in_doubt_until_it_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (_, account) = recorded(&store, 4).await;
    let refused = failed(begun(&store, &account, 2).await);
    store.end_session(&refused, false, None).await.unwrap();
    assert!(store.doubtful().await.unwrap().is_empty(), "its protocol never ran");
    let broken = failed(begun(&store, &account, 3).await);
    store.end_session(&broken, true, None).await.unwrap();
    assert_eq!(store.doubtful().await.unwrap(), [account.id]);
    store.resolve(account.id, refused.id()).await.unwrap();
    assert_eq!(store.doubtful().await.unwrap(), [account.id], "another session is meant");
    store.resolve(account.id, broken.id()).await.unwrap();
    assert!(store.doubtful().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_rotation_ends_together_with_its_accounts_new_epoch_and_leaves_old_and_new_parties_to_settle() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (_, account) = recorded(&store, 4).await;
    let mut session = begun(&store, &account, 2).await;
    for at in 0..3 {
        session.apply(Event::Joined(at), start()).unwrap();
        session.apply(Event::Attached(at), start()).unwrap();
    }
    let mut tally = Tally::default();
    let succession = testing::succession(&[0, 1, 3], &[0, 1], |_| ());
    let outcome = Ok(Outcome::Rotate { succession: Box::new(succession.clone()) });
    tally.add(Report { party: party(1), outcome });
    let finding = tally.conclude(&session, pinned).unwrap();
    session.apply(Event::Completed(Box::new(finding)), start()).unwrap();
    let effect = Effect::Advance(Box::new(advance(&account, &[0, 1, 3], 2)));
    store.end_session(&session, true, Some(&effect)).await.unwrap();
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    let after = found(&store, &account).await;
    assert_eq!((after.epoch(), after.epoch_tried, after.doubt.as_ref()), (2, 2, None));
    assert_eq!(after.certificate, succession.certificate);
    let holders: Vec<_> = after.shares.iter().map(|share| share.party_id.clone()).collect();
    assert_eq!(holders, [party(0), party(1), party(3)]);
    assert_eq!(after.device(&party(0)), account.device(&party(0)));
    assert_eq!(store.unsettled().await.unwrap(), [account.id]);
    let settling = store.settling(account.id).await.unwrap().unwrap();
    assert_eq!(settling.due(), [party(0), party(1), party(2), party(3)]);
    assert_eq!(settling.request().succession, succession);
    let kept = store.session(session.id()).await.unwrap().unwrap();
    assert_eq!(kept.finding(), session.finding());
}

#[tokio::test]
async fn an_account_moves_forward_only_and_what_is_settled_is_settled_for_its_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (_, account) = recorded(&store, 4).await;
    assert!(store.advance(&advance(&account, &[0, 1, 2], 4)).await.unwrap());
    for epoch in [3, 4] {
        assert!(!store.advance(&advance(&account, &[0, 1, 3], epoch)).await.unwrap());
    }
    assert_eq!(found(&store, &account).await.shares.len(), 3);
    let standing = |index: u16, done| Standing { party: party(index), word: None, done };
    let of_epoch = |epoch, done: [bool; 3]| {
        let succession = testing::succession(&[0, 1, 2], &[0, 1], |s| s.epoch = epoch);
        Settling::new(succession, Vec::new(), (0..).zip(done).map(|(index, done)| standing(index, done)).collect())
    };
    store.keep_settling(account.id, &of_epoch(3, [true; 3])).await.unwrap();
    assert_eq!(store.settling(account.id).await.unwrap().unwrap().due().len(), 3, "words of an epoch that is over");
    store.keep_settling(account.id, &of_epoch(4, [true, true, false])).await.unwrap();
    assert_eq!(store.settling(account.id).await.unwrap().unwrap().due(), [party(2)]);
    // The next rotation takes over whoever is left.
    assert!(store.advance(&advance(&account, &[0, 1, 3], 5)).await.unwrap());
    let due = store.settling(account.id).await.unwrap().unwrap().due();
    assert_eq!(due, [party(0), party(1), party(2), party(3)]);
    assert!(store.advance(&advance(&account, &[0, 1, 3], 6)).await.unwrap());
    let due = store.settling(account.id).await.unwrap().unwrap().due();
    assert!(due.contains(&party(2)), "it was never settled");
    let all = due.into_iter().map(|party| Standing { party, word: None, done: true }).collect();
    let over = Settling::new(testing::succession(&[0, 1, 3], &[0, 1], |s| s.epoch = 6), Vec::new(), all);
    store.keep_settling(account.id, &over).await.unwrap();
    assert!(store.unsettled().await.unwrap().is_empty() && store.settling(account.id).await.unwrap().is_none());
}

#[tokio::test]
async fn the_way_of_a_key_is_kept_and_told_and_so_is_who_took_part_in_vain() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (_, account) = recorded(&store, 4).await;
    assert!(store.parent_committee(account.id).await.unwrap().is_none());
    // Nobody was reached by the first attempt; what came of the second is not known.
    let unheard = failed(begun(&store, &account, 2).await);
    store.end_session(&unheard, false, None).await.unwrap();
    assert!(store.advance(&advance(&account, &[0, 1, 2], 3)).await.unwrap());
    let due = async || store.settling(account.id).await.unwrap().unwrap().due();
    assert_eq!(due().await, [party(0), party(1), party(2)]);
    let broken = failed(begun(&store, &account, 4).await);
    store.end_session(&broken, true, None).await.unwrap();
    assert_eq!(due().await.len(), 3, "there is nothing to tell them yet");
    assert!(store.advance(&advance(&account, &[0, 1, 2], 5)).await.unwrap());
    assert_eq!(due().await, [party(0), party(1), party(2), party(3)]);
    for epoch in 6..100 {
        assert!(store.advance(&advance(&account, &[0, 1, 2], epoch)).await.unwrap());
    }
    assert_eq!(store.parent_committee(account.id).await.unwrap().unwrap().epoch, 98);
    // Where more must agree now than in the committee before, that one has no say any more.
    let raised = testing::succession(&[0, 1, 2], &[0, 1], |s| (s.epoch, s.threshold_t) = (100, 3));
    assert!(store.advance(&Advance::new(account.id, raised, |_| None)).await.unwrap());
    assert_eq!(store.parent_committee(account.id).await.unwrap(), None);
    assert!(store.advance(&advance(&account, &[0, 1, 2], 101)).await.unwrap());
    let request = store.settling(account.id).await.unwrap().unwrap().request();
    let told: Vec<u64> = request.earlier.iter().map(|step| step.certificate.statement.epoch).collect();
    assert_eq!((told.first() > Some(&60), told.last(), told.is_sorted()), (true, Some(&100), true), "{told:?}");
    let size = serde_json::to_vec(&request).unwrap().len();
    assert!(size < casemate_wire::api::MAX_BODY, "{size} bytes");
}

#[tokio::test]
async fn a_store_of_the_first_version_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let (session, account) = completed(4);
    let signed = serde_json::to_value(testing::sign()).unwrap();
    assert!(signed["purpose"]["sign"].get("child").is_none(), "as sessions stood in the first version");
    let certificate = serde_json::to_string(&account.certificate).unwrap();
    let db = Connection::open(folder.path().join(FILE)).unwrap();
    db.execute_batch(MIGRATIONS[0]).unwrap();
    db.pragma_update(None, "user_version", 1).unwrap();
    db.execute(
        "INSERT INTO sessions VALUES (?1, 'sign', 'created', ?2, ?2, ?3)",
        [session.id().as_str(), "2027-01-15T08:00:00.000Z", &signed.to_string()],
    )
    .unwrap();
    db.execute(
        "INSERT INTO accounts VALUES (?1, NULL, NULL, NULL, 'wallet', ?2, 3, 2, 'active', '2027-01-15T08:00:00.000Z', ?3)",
        [&account.id.to_string(), &account.public_key.to_string(), &certificate],
    )
    .unwrap();
    drop(db);
    let store = Store::open(folder.path()).unwrap();
    let after = found(&store, &account).await;
    assert_eq!((after.epoch(), after.epoch_tried, after.doubt), (1, 1, None));
    assert!(store.session(session.id()).await.unwrap().is_some());
    assert!(store.unsettled().await.unwrap().is_empty());
}
