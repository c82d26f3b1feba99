//! Group commit: savepoints, lost transactions, the lock of the folder.

use casemate_appliance::store::{JOB_LEAVES, Store, StoreError, Transaction, Urgency};
use casemate_attest::{Entry, Verifier};

use super::site::{Site, lines, note, run};

fn put(transaction: &Transaction<'_>, jti: &str) -> Result<(), StoreError> {
    run(transaction, &format!("INSERT INTO tokens (issuer, jti, exp) VALUES ('i', '{jti}', 0)")).map(|_| ())
}

async fn count(store: &Store) -> i64 {
    store.read(|c| Ok(c.query_row("SELECT COUNT(*) FROM tokens", [], |r| r.get(0)).unwrap())).await.unwrap()
}

#[tokio::test]
async fn a_failed_job_takes_back_its_own_writes_and_leaves_only() {
    let site = Site::begun();
    let store = site.open();
    let good = store.write(Urgency::Record, |t| put(t, "a"));
    let bad = store.write::<(), _>(Urgency::Record, |t| {
        put(t, "b")?;
        t.append(Entry::boot())?;
        Err(StoreError::Audit("no".into()))
    });
    let also_good = store.write(Urgency::Record, |t| {
        put(t, "c")?;
        t.append(Entry::boot())
    });
    let (good, bad, also_good) = tokio::join!(good, bad, also_good);
    good.unwrap();
    assert!(matches!(bad, Err(StoreError::Audit(_))));
    let seq = also_good.unwrap().leaf().seq;
    assert_eq!(count(&store).await, 2);
    assert_eq!(store.audit_head().size(), seq + 1);
}

#[tokio::test]
async fn a_transaction_that_is_lost_midway_takes_every_job_of_its_group_along() {
    let site = Site::begun();
    let store = site.open();
    store.write(Urgency::Record, |t| put(t, "before")).await.unwrap();
    let lose = store.write::<(), _>(Urgency::Record, |t| {
        t.append(Entry::boot())?;
        t.sql().execute_batch("ROLLBACK").unwrap();
        Ok(())
    });
    let later = store.write(Urgency::Record, |t| {
        put(t, "later")?;
        t.append(Entry::boot())
    });
    let (lose, later) = tokio::join!(lose, later);
    assert!(lose.is_err());
    let landed = i64::from(later.is_ok());
    assert_eq!(count(&store).await, 1 + landed, "what was reported as failed is not there");
    store.write(Urgency::Record, |t| t.append(Entry::boot())).await.unwrap();
    let mut verifier = Verifier::new();
    for line in &lines(&store).await {
        verifier.feed(line.as_bytes()).unwrap();
    }
}

#[tokio::test]
async fn the_log_goes_on_after_a_restart_and_the_folder_is_locked_meanwhile() {
    let site = Site::begun();
    let first = site.open();
    first.write(Urgency::Record, |t| t.append(Entry::boot())).await.unwrap();
    let head = first.audit_head();
    assert!(matches!(site.try_open(), Err(StoreError::Folder { .. })));
    first.close();
    assert!(matches!(first.write(Urgency::Record, |_| Ok(())).await, Err(StoreError::Closed)));
    drop(first);
    assert_eq!(site.open().audit_head(), head);
}

#[test]
fn a_folder_that_others_may_read_is_refused() {
    let site = Site::begun();
    std::fs::set_permissions(site.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert!(matches!(site.try_open(), Err(StoreError::Folder { .. })));
}

#[tokio::test]
async fn no_job_appends_more_leaves_than_a_group_can_carry() {
    let site = Site::begun();
    let store = site.open();
    let write = |count: u64| {
        store.write(Urgency::Record, move |t| {
            for _ in 0..count {
                t.append(note())?;
            }
            Ok(())
        })
    };
    assert!(matches!(write(JOB_LEAVES + 1).await, Err(StoreError::Audit(_))));
    assert_eq!(store.audit_head().size(), 1);
    write(JOB_LEAVES).await.unwrap();
    assert_eq!(store.audit_head().size(), 1 + JOB_LEAVES);
}
