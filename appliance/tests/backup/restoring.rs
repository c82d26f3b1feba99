//! Shares that come back on another token.

use casemate_appliance::backup::Plan;
use casemate_appliance::pipeline::ShareHeader;
use casemate_appliance::sealing::{header, open};
use casemate_appliance::store::{BackupRow, BackupStage};
use casemate_attest::{Guard, Op, ShareState, Verifier};

use crate::site::{Custody, Signers, Site, an_hour, backup_guard, party, plain};
use crate::support::{Module, on_fresh_store};

#[test]
fn live_shares_come_back_on_another_token_marked_and_everything_uncertain_is_left_behind() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let old = Site::begin(store.folder(), "old", store.provisioned("old")).await;
        let live = old.add(0, 2, ShareState::Active).await;
        old.add(1, 1, ShareState::Pending).await;
        old.add(2, 1, ShareState::Rotated).await;
        let (custody, signers) = (Custody::new(2, 3), Signers::new());
        let made = old.back_up(&custody).await;
        old.close().await;

        let config = store.provisioned("new");
        let new = Site::begin(store.folder(), "new", config.clone()).await;
        new.add_primes().await;
        let checked = custody.check(&made.file);
        let party = party();
        let plan = Plan::of(&checked, &party, &new.store).await.unwrap();
        let left: Vec<ShareState> = plan.left_out().iter().map(|left| left.share.state).collect();
        assert_eq!(left.len(), 2);
        assert!(left.contains(&ShareState::Pending) && left.contains(&ShareState::Rotated));
        let (created, expires) = an_hour();
        let mandate = signers.mandate(&plan.statement(&new.store, created, expires).unwrap());
        let archive = new.folder.join("archive");
        let restored = plan.carry_out(&mandate, &new.hsm, &new.store, &archive, |_| {}).await.unwrap();
        assert_eq!((restored.shares.len(), restored.primes_destroyed, restored.superseded), (1, 1, 0));
        assert_eq!(restored.shares[0].share, live.id);
        let kept = archive.join(format!("restore-{}", mandate.digest()));
        assert_eq!(std::fs::read(kept.join("restore.json")).unwrap(), mandate.text());
        assert!(kept.join("restore.json.sig-1").exists());

        // The tables agree with the log, and the log verifies.
        let folder = new.close().await;
        let new = Site::open(folder, config).await;
        let rows = new.shares().await;
        assert_eq!((rows.len(), rows[0].status), (1, ShareState::Restored));
        let sealed = rows[0].material.held().unwrap();
        let said: ShareHeader = header("share", &sealed.header).unwrap();
        assert!(said.restored && said.share_id == live.id);
        assert_eq!(*open(&new.hsm, "share", sealed).await.unwrap(), *plain(0));
        assert_eq!(rows[0].certificate, live.certificate);
        let made_id = made.id.to_string();
        let row = new.store.read(move |store| BackupRow::find(store, &made_id)).await.unwrap().unwrap();
        assert_eq!((row.stage, row.digest), (BackupStage::Restored, made.digest));
        let lines = new.store.read(|store| casemate_appliance::store::audit_lines(store, 0, u64::MAX)).await.unwrap();
        let mut verifier = Verifier::new();
        let leaves: Vec<_> = lines.iter().map(|line| verifier.feed(line.as_bytes()).unwrap()).collect();
        verifier.finish().unwrap();
        let leaf = leaves.iter().rfind(|leaf| leaf.op == Op::Restore).unwrap();
        let signed: Vec<&str> = leaf.approvals.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(signed, ["signer-0@security", "signer-2@security"]);
        let backup = leaf.guards.iter().find_map(backup_guard);
        assert_eq!(backup, Some(format!("restored {}", made.digest).as_str()));
        assert!(leaves.iter().any(|leaf| leaf.op == Op::Primes && leaf.guards[0].guard == Guard::Primes));
        // What pipeline and till ask: nothing from before counts.
        assert_eq!(new.store.recovered(), Some(leaf.at));
        new.close().await;
    });
}

#[test]
fn a_later_epoch_from_a_backup_takes_the_place_of_an_earlier_one_here() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let old = Site::begin(store.folder(), "old", store.provisioned("old")).await;
        old.add(0, 5, ShareState::Active).await;
        let (custody, signers) = (Custody::new(2, 3), Signers::new());
        let made = old.back_up(&custody).await;
        old.close().await;
        let config = store.provisioned("new");
        let new = Site::begin(store.folder(), "new", config.clone()).await;
        new.add(0, 4, ShareState::Active).await;
        let checked = custody.check(&made.file);
        let party = party();
        let plan = Plan::of(&checked, &party, &new.store).await.unwrap();
        let (created, expires) = an_hour();
        let mandate = signers.mandate(&plan.statement(&new.store, created, expires).unwrap());
        let archive = new.folder.join("archive");
        let restored = plan.carry_out(&mandate, &new.hsm, &new.store, &archive, |_| {}).await.unwrap();
        assert_eq!(restored.superseded, 1);
        let folder = new.close().await;
        let new = Site::open(folder, config).await;
        let mut states: Vec<_> = new.shares().await.iter().map(|row| (row.statement.epoch, row.status)).collect();
        states.sort_unstable();
        assert_eq!(states, [(4, ShareState::Rotated), (5, ShareState::Restored)]);
        new.close().await;
    });
}
