//! A recovery HSM brings the rows of a lost HSM back, and nothing that the lost host did not seal.

use casemate_appliance::entries::{DekEntries, DekEntry};
use casemate_appliance::kek::{Plan, Rewrap, epoch_taken};
use casemate_appliance::sealing::seal;
use casemate_appliance::store::Urgency;
use casemate_appliance::vault::Vault;
use casemate_hsm::{KeyPurpose, RecoveryHsm, init_keys_from, init_recovery};
use casemate_wire::{IdentityKey, RecoveryKey};
use sha2::Digest;

use crate::site::{Site, entries, vault};
use crate::support::{Module, Store, on_fresh_store};

pub(crate) fn recovery(store: &Store, label: &str) -> RecoveryHsm {
    store.token(label);
    init_recovery(&store.config(label)).unwrap();
    RecoveryHsm::open(&store.config(label)).unwrap()
}

fn identity(hsm: &Vault) -> IdentityKey {
    IdentityKey::from_spki(&hsm.public_key(KeyPurpose::Identity)).unwrap()
}

#[test]
fn an_epoch_that_rows_of_another_hsm_name_is_taken_and_one_above_is_not() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let site = Site::begin(store.folder(), store.provisioned("lost")).await;
        site.add_share("a").await;
        assert_eq!(epoch_taken(&site.store, &site.hsm).await.unwrap(), None, "its own");
        let same = vault(store.provisioned("same")).await;
        assert_eq!(epoch_taken(&site.store, &same).await.unwrap(), Some(1));
        store.token("above");
        init_keys_from(&store.config("above"), 2).unwrap();
        let above = vault(store.config("above")).await;
        assert_eq!(above.status().kek_id, "kek/2");
        assert_eq!(epoch_taken(&site.store, &above).await.unwrap(), None);
    });
}

async fn renewed(site: &Site, hsm: &Vault, recipients: &[RecoveryKey]) -> u64 {
    let plan = Plan::here(hsm, recipients).unwrap();
    Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap().renewed
}

#[test]
fn new_rows_are_sealed_to_the_recipients_and_the_recovery_hsm_brings_them_to_a_new_one() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let recovery = recovery(&store, "recovery");
        let site = Site::begin(store.folder(), store.provisioned("lost")).await;
        site.hsm.set_recipients([recovery.public_key().clone()]);
        site.add_share("a").await;
        site.add_primes().await;
        let lost = identity(&site.hsm);
        let new = vault(store.provisioned("new")).await;
        // The lost HSM is not asked: only what stands in the rows counts.
        let plan = Plan::recovered(&new, (&recovery, &lost), &[]).unwrap();
        let report = Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap();
        assert_eq!((report.renewed, report.unopened), (2, 0));
        site.all_open(&new).await;
        assert_eq!(Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap().current, 2);
    });
}

#[test]
fn rewrapping_adds_the_entries_of_new_recipients_and_drops_those_that_are_listed_no_more() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let (one, two) = (recovery(&store, "one"), recovery(&store, "two"));
        let (one, two) = (one.public_key().clone(), two.public_key().clone());
        let site = Site::begin(store.folder(), store.provisioned("vault")).await;
        site.add_share("a").await;
        site.add_primes().await;
        let keys = async || -> Vec<Vec<bool>> {
            let rows = site.rows().await;
            rows.iter().map(|(row, _)| entries(row).recovery().map(|entry| entry.is_for(&one)).collect()).collect()
        };
        let both = [one.clone(), two.clone()];
        assert_eq!(renewed(&site, &site.hsm, &both).await, 2);
        assert_eq!(keys().await, [[true, false], [true, false]]);
        assert_eq!(renewed(&site, &site.hsm, &both).await, 0);
        assert_eq!(renewed(&site, &site.hsm, &both[1..]).await, 2);
        assert_eq!(keys().await, [[false], [false]]);
        assert_eq!(renewed(&site, &site.hsm, &[]).await, 2);
        site.all_open(&site.hsm).await;
    });
}

#[test]
fn a_damaged_recovery_entry_is_made_anew() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let recovery = recovery(&store, "recovery");
        let recipients = [recovery.public_key().clone()];
        let site = Site::begin(store.folder(), store.provisioned("vault")).await;
        site.add_share("a").await;
        renewed(&site, &site.hsm, &recipients).await;
        let (row, _) = site.rows().await.remove(0);
        let mut entry = entries(&row).recovery().next().unwrap().clone();
        entry.blob[0] ^= 1;
        let mut damaged = DekEntries::default();
        damaged.push(DekEntry::Kek(entries(&row).keks().next().unwrap().clone()));
        damaged.push(DekEntry::Recovery(Box::new(entry)));
        let column = damaged.to_column().unwrap();
        site.store.write(Urgency::Act, move |transaction| row.replace(transaction, &column)).await.unwrap();
        assert_eq!(renewed(&site, &site.hsm, &recipients).await, 1);
        let (row, _) = site.rows().await.remove(0);
        let entry = entries(&row).recovery().next().unwrap().clone();
        assert!(entry.is_signed_by(&identity(&site.hsm), &sha2::Sha256::digest(&row.header)));
    });
}

#[test]
fn a_row_that_somebody_else_sealed_to_the_recovery_hsm_is_not_brought_back() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let recovery = recovery(&store, "recovery");
        let site = Site::begin(store.folder(), store.provisioned("lost")).await;
        site.add_share("a").await;
        let lost = identity(&site.hsm);
        // Whoever writes to the disk has the public key and seals a share of their own choice, whole and sound.
        let forger = vault(store.provisioned("forger")).await;
        forger.set_recipients([recovery.public_key().clone()]);
        let planted = seal(&forger, &("share", "a"), b"a share of the forger's").await.unwrap();
        let change = "UPDATE shares SET header = ?1, deks = ?2, nonce = ?3, body = ?4";
        let put = site.store.write(Urgency::Act, move |transaction| {
            let row = (&planted.header, &planted.deks, planted.nonce, &planted.body);
            // What the database refuses, whoever has its file does past it.
            transaction.sql().execute_batch("DROP TRIGGER shares_keep").unwrap();
            Ok(transaction.sql().execute(change, row).unwrap())
        });
        put.await.unwrap();
        let new = vault(store.provisioned("new")).await;
        let plan = Plan::recovered(&new, (&recovery, &lost), &[]).unwrap();
        let report = Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap();
        assert_eq!((report.renewed, report.unopened), (0, 1));
        assert!(report.damaged[0].why.contains("not signed"), "{report:?}");
    });
}

#[test]
fn a_recovery_hsm_that_is_no_recipient_brings_nothing_back() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let (listed, stranger) = (recovery(&store, "listed"), recovery(&store, "stranger"));
        let site = Site::begin(store.folder(), store.provisioned("lost")).await;
        site.hsm.set_recipients([listed.public_key().clone()]);
        site.add_share("a").await;
        let new = vault(store.provisioned("new")).await;
        let lost = identity(&site.hsm);
        let plan = Plan::recovered(&new, (&stranger, &lost), &[]).unwrap();
        let report = Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap();
        assert!(report.damaged[0].why.contains("no entry for this recovery HSM"), "{report:?}");
    });
}
