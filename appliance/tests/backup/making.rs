//! What is in a backup, and what is not.

use casemate_appliance::backup::{Backup, BackupError, CustodyError, make};
use casemate_appliance::sealing::open;
use casemate_attest::ShareState;

use crate::site::{Custody, Site, plain};
use crate::support::{Module, on_fresh_store};

#[test]
fn a_backup_holds_every_share_that_has_a_body_and_shows_nothing_of_one() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let site = Site::begin(store.folder(), "one", store.provisioned("one")).await;
        let kept = [
            site.add(0, 2, ShareState::Active).await,
            site.add(1, 1, ShareState::Rotated).await,
            site.add(2, 1, ShareState::Pending).await,
        ];
        let custody = Custody::new(2, 3);
        let made = site.back_up(&custody).await;
        let mut ids: Vec<String> = kept.iter().map(|row| row.id.clone()).collect();
        ids.sort();
        assert_eq!(made.shares, ids);
        for which in 0..3 {
            let secret = plain(which);
            let secret = &secret[secret.len() / 2..][..16];
            assert!(!made.file.windows(16).any(|window| window == secret), "share {which} lies open");
        }
        let backup = Backup::read(&made.file).unwrap();
        assert_eq!(backup.digest(), made.digest);
        let head = backup.head();
        assert_eq!((head.id.clone(), head.threshold, head.custodians.len()), (made.id, 2, 3));
        assert_eq!(head.log.size, site.store.audit_head().size());
        // The rows are as they were, and still open.
        for row in site.shares().await {
            open(&site.hsm, "share", row.material.held().unwrap()).await.unwrap();
        }
        site.close().await;
    });
}

#[test]
fn without_shares_or_custodians_or_with_a_share_that_does_not_open_none_is_made() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let site = Site::begin(store.folder(), "one", store.provisioned("one")).await;
        let custody = Custody::new(2, 3);
        let checkpoint = site.checkpoint().await;
        let source = site.source(&custody.recipients, &checkpoint).await;
        assert!(matches!(make(&site.hsm, source).await, Err(BackupError::Nothing)));
        site.add(0, 1, ShareState::Active).await;
        let nobody = casemate_policy::bundle::Recipients::default();
        let source = site.source(&nobody, &checkpoint).await;
        let refused = make(&site.hsm, source).await;
        assert!(matches!(refused, Err(BackupError::Custody(CustodyError::NoCustodians))));
        let mut source = site.source(&custody.recipients, &checkpoint).await;
        let other = crate::site::row(&site.hsm, 1, 1).await;
        let (Some(mine), Some(theirs)) = (source.rows[0].material.held().cloned(), other.material.held()) else {
            panic!("both have bodies");
        };
        let mixed = casemate_appliance::store::SealedColumns { deks: theirs.deks.clone(), ..mine };
        source.rows[0].material = casemate_appliance::store::Material::Held(mixed);
        assert!(matches!(make(&site.hsm, source).await, Err(BackupError::Share { .. })));
        site.close().await;
    });
}
