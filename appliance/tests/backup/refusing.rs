//! Restores that must not be: each is refused with its reason, and nothing is done.

use casemate_appliance::backup::{Mandate, MandateError, Plan, RestoreError, Restored};
use casemate_attest::restoration::Statement;
use casemate_attest::{At, Place, ShareState};
use casemate_policy::signers::Namespace;
use casemate_wire::{Digest32, PartyId};
use jiff::{SignedDuration, Timestamp};

use crate::site::{Custody, Signers, Site, an_hour, party};
use crate::support::{Module, on_fresh_store};

/// Restores as an operator would, with a statement that the quorum signs.
async fn restore(site: &Site, custody: &Custody, signers: &Signers, file: &[u8]) -> Result<Restored, RestoreError> {
    let checked = custody.check(file);
    let party = party();
    let plan = Plan::of(&checked, &party, &site.store).await?;
    let (created, expires) = an_hour();
    let mandate = signers.mandate(&plan.statement(&site.store, created, expires).unwrap());
    plan.carry_out(&mandate, &site.hsm, &site.store, &site.folder.join("archive"), |_| {}).await
}

#[test]
fn what_is_older_revoked_foreign_or_restored_before_is_not_restored() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let site = Site::begin(store.folder(), "one", store.provisioned("one")).await;
        let (custody, signers) = (Custody::new(2, 3), Signers::new());
        let pending = site.add(2, 1, ShareState::Pending).await;
        let none = site.back_up(&custody).await;
        let refused = restore(&site, &custody, &signers, &none.file).await.unwrap_err();
        assert!(matches!(refused, RestoreError::NothingInUse), "{refused}");
        let live = site.add(0, 2, ShareState::Active).await;
        let made = site.back_up(&custody).await;
        let before = (site.store.audit_head(), site.shares().await.len());

        let refused = restore(&site, &custody, &signers, &made.file).await.unwrap_err();
        assert!(matches!(refused, RestoreError::OlderThanLive { backup: 2, here: 2, .. }), "{refused}");
        assert!(refused.to_string().contains("older than the live epoch"), "{refused}");
        let other: PartyId = "party-2".parse().unwrap();
        let checked = custody.check(&made.file);
        let refused = Plan::of(&checked, &other, &site.store).await.err().unwrap();
        assert!(matches!(refused, RestoreError::OtherParty { .. }), "{refused}");
        assert_eq!((site.store.audit_head(), site.shares().await.len()), before);

        let new = Site::begin(store.folder(), "new", store.provisioned("new")).await;
        restore(&new, &custody, &signers, &made.file).await.unwrap();
        let refused = restore(&new, &custody, &signers, &made.file).await.unwrap_err();
        assert!(matches!(&refused, RestoreError::RestoredBefore(id) if *id == made.id), "{refused}");
        // Another backup of the same share is as old.
        let again = site.back_up(&custody).await;
        let refused = restore(&new, &custody, &signers, &again.file).await.unwrap_err();
        assert!(matches!(refused, RestoreError::OlderThanLive { .. }), "{refused}");
        assert!(site.shares().await.iter().any(|row| row.id == pending.id) && live.id != pending.id);

        let third = Site::begin(store.folder(), "third", store.provisioned("third")).await;
        third.add(0, 1, ShareState::Revoked).await;
        let refused = restore(&third, &custody, &signers, &made.file).await.unwrap_err();
        assert!(matches!(refused, RestoreError::Revoked { .. }), "{refused}");
        for site in [site, new, third] {
            site.close().await;
        }
    });
}

#[test]
fn nothing_comes_back_without_the_quorums_signature_over_this_very_restore() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let old = Site::begin(store.folder(), "old", store.provisioned("old")).await;
        old.add(0, 2, ShareState::Active).await;
        let (custody, signers) = (Custody::new(2, 3), Signers::new());
        let (made, other) = (old.back_up(&custody).await, old.back_up(&custody).await);
        old.close().await;
        let new = Site::begin(store.folder(), "new", store.provisioned("new")).await;
        let checked = custody.check(&made.file);
        let party = party();
        let plan = Plan::of(&checked, &party, &new.store).await.unwrap();
        let (created, expires) = an_hour();
        let good = plan.statement(&new.store, created, expires).unwrap();
        let text = good.to_text().unwrap().into_bytes();
        let one = signers.signature(1, &text);
        for signatures in [vec![], vec![one.clone()], vec![one.clone(), one.clone()]] {
            let few = Mandate::of(text.clone(), signatures, &signers.anchors, Timestamp::now()).unwrap_err();
            assert!(matches!(few, MandateError::NotEndorsed(_)), "{few}");
        }
        let stranger = Signers::new().signature(0, &text);
        let few = Mandate::of(text.clone(), vec![one, stranger], &signers.anchors, Timestamp::now()).unwrap_err();
        assert!(few.to_string().contains("1 of 2 needed people"), "{few} {}", Namespace::Recovery);

        let archive = new.folder.join("archive");
        let changed = |change: &dyn Fn(&mut Statement)| {
            let mut statement = good.clone();
            change(&mut statement);
            statement
        };
        let before = Timestamp::now() - SignedDuration::from_hours(3);
        let elsewhere = Place { log: "casemate/party-1/else".parse().unwrap(), ..good.onto.clone() };
        let fork = Place { root: Digest32([9; 32]), ..good.onto.clone() };
        for (field, statement) in [
            ("backup", changed(&|statement| statement.backup = other.digest)),
            ("party", changed(&|statement| statement.party = "party-2".parse().unwrap())),
            ("made", changed(&|statement| statement.made.size += 1)),
            ("onto", changed(&|statement| statement.onto = elsewhere.clone())),
            ("onto", changed(&|statement| statement.onto = fork.clone())),
            (
                "serves from",
                changed(&|statement| {
                    statement.created = At::new(before).unwrap();
                    statement.expires = At::new(before + SignedDuration::from_hours(1)).unwrap();
                }),
            ),
        ] {
            let mandate = signers.mandate(&statement);
            let refused = plan.carry_out(&mandate, &new.hsm, &new.store, &archive, |_| {}).await.unwrap_err();
            assert!(matches!(refused, RestoreError::Mandate(_)) && refused.to_string().contains(field), "{refused}");
        }
        assert_eq!((new.shares().await.len(), new.store.audit_head().size()), (0, 1), "nothing was done");
        assert!(!archive.exists());

        // The log may have gone on since the statement was shown.
        new.add(1, 1, ShareState::Active).await;
        let mandate = signers.mandate(&good);
        plan.carry_out(&mandate, &new.hsm, &new.store, &archive, |_| {}).await.unwrap();
        let again = plan.carry_out(&mandate, &new.hsm, &new.store, &archive, |_| {}).await.unwrap_err();
        assert!(matches!(again, RestoreError::RestoredBefore(_)), "{again}");
        new.close().await;
    });
}
