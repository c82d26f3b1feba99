//! An old KEK is destroyed only when every row opens without it; an old copy of the database is dead then.

use casemate_appliance::kek::{Plan, Rewrap, holders, needing};
use casemate_appliance::sealing::open;
use casemate_appliance::store::Urgency;
use casemate_hsm::{destroy_kek, new_kek};

use crate::site::{Site, columns};
use crate::support::{Module, on_fresh_store};

#[test]
fn an_old_kek_is_needed_until_every_row_is_rewrapped() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let site = Site::begin(store.folder(), config.clone()).await;
        for id in ["a", "b", "c"] {
            site.add_share(id).await;
        }
        let folder = site.close().await;
        new_kek(&config, 2).unwrap();
        let site = Site::open(folder, config.clone()).await;
        site.add_share("d").await;
        let needed = needing(&site.store, &site.hsm, 1).await.unwrap();
        assert_eq!(needed.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        let counted = site.store.read(holders).await.unwrap();
        assert_eq!((counted.rows, counted.keks["kek/1"], counted.keks["kek/2"]), (4, 3, 1));
        let plan = Plan::here(&site.hsm, &[]).unwrap();
        Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap();
        assert_eq!(needing(&site.store, &site.hsm, 1).await.unwrap(), []);
        // The current one is needed by all.
        assert_eq!(needing(&site.store, &site.hsm, 2).await.unwrap().len(), 4);
    });
}

#[test]
fn a_row_that_opens_under_no_other_kek_keeps_the_old_one_whatever_its_entries_are_named() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let site = Site::begin(store.folder(), config.clone()).await;
        site.add_share("a").await;
        let folder = site.close().await;
        new_kek(&config, 2).unwrap();
        let site = Site::open(folder, config).await;
        // Renamed by hand, so that it does not name kek/1 any more.
        let (row, _) = site.rows().await.remove(0);
        let mut entry = crate::site::entries(&row).keks().next().unwrap().clone();
        (entry.kek_id, entry.kek_epoch) = ("kek/2".into(), 2);
        let mut renamed = casemate_appliance::entries::DekEntries::default();
        renamed.push(casemate_appliance::entries::DekEntry::Kek(entry));
        let column = renamed.to_column().unwrap();
        site.store.write(Urgency::Act, move |transaction| row.replace(transaction, &column)).await.unwrap();
        let needed = needing(&site.store, &site.hsm, 1).await.unwrap();
        assert!(needed[0].why.contains("no KEK"), "{needed:?}");
    });
}

#[test]
fn an_old_copy_of_the_database_is_dead_once_its_kek_is_destroyed() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let site = Site::begin(store.folder(), config.clone()).await;
        for id in ["a", "b"] {
            site.add_share(id).await;
        }
        site.add_primes().await;
        let folder = site.close().await;
        let copy = store.folder().join("copy.db");
        std::fs::copy(folder.join("casemate.db"), &copy).unwrap();
        new_kek(&config, 2).unwrap();
        let site = Site::open(folder, config.clone()).await;
        let plan = Plan::here(&site.hsm, &[]).unwrap();
        Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap();
        let copied = columns(&rusqlite::Connection::open(&copy).unwrap());
        assert_eq!(copied.len(), 3);
        for (_, sealed) in &copied {
            open(&site.hsm, "row", sealed).await.unwrap();
        }
        let folder = site.close().await;
        destroy_kek(&config, 1).unwrap();
        let site = Site::open(folder, config).await;
        site.all_open(&site.hsm).await;
        for (row, sealed) in &copied {
            let refused = open(&site.hsm, "row", sealed).await.unwrap_err().to_string();
            assert!(refused.contains("kek/1"), "{}: {refused}", row.id);
        }
    });
}
