//! Every row comes under the current KEK, with its body untouched.

use casemate_appliance::kek::{Plan, Report, Rewrap, Step};
use casemate_appliance::store::Urgency;
use casemate_hsm::new_kek;

use crate::site::{Site, entries};
use crate::support::{Module, on_fresh_store};

/// Rows in all three tables, under kek/1.
async fn filled(site: &Site) {
    for id in ["a", "b", "c"] {
        site.add_share(id).await;
    }
    site.add_committee("roster-1").await;
    site.add_primes().await;
}

#[test]
fn every_row_of_every_table_comes_under_the_new_kek_and_no_body_is_touched() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let site = Site::begin(store.folder(), config.clone()).await;
        filled(&site).await;
        let before = site.rows().await;
        new_kek(&config, 2).unwrap();
        // The log is told nothing of the committee, so the store stays open, with the HSM opened anew beside it.
        let hsm = crate::site::vault(config).await;
        let plan = Plan::here(&hsm, &[]).unwrap();
        let mut steps = Vec::new();
        let report = Rewrap::new(&site.store, &plan).in_batches_of(2).run(|step| steps.push(step)).await.unwrap();
        assert_eq!(report, Report { rows: 5, renewed: 5, ..Report::default() });
        assert_eq!(site.keks().await, vec![vec!["kek/2".to_owned()]; 5]);
        assert_eq!(steps.iter().filter(|step| matches!(step, Step::Row { of: 5, .. })).count(), 5);
        let durable = |done| Step::Durable { done, of: 5 };
        assert_eq!(steps.last(), Some(&durable(5)));
        assert!(steps.contains(&durable(2)) && steps.contains(&durable(4)));
        site.all_open(&hsm).await;
        for ((_, old), (_, new)) in before.iter().zip(site.rows().await) {
            assert_eq!((&old.header, old.nonce, &old.body), (&new.header, new.nonce, &new.body));
        }
        let again = Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap();
        assert_eq!(again, Report { rows: 5, current: 5, ..Report::default() });
    });
}

#[test]
fn a_forged_entry_of_the_current_kek_s_name_is_seen_through_and_replaced() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let site = Site::begin(store.folder(), config.clone()).await;
        filled(&site).await;
        new_kek(&config, 2).unwrap();
        let hsm = crate::site::vault(config).await;
        // One row's entry claims to be under kek/2 already; another row's own is moved to it as well.
        let rows = site.rows().await;
        let mut forged = casemate_appliance::entries::DekEntries::default();
        let mut claimed = entries(&rows[0].0).keks().next().unwrap().clone();
        (claimed.kek_id, claimed.kek_epoch) = ("kek/2".into(), 2);
        let own = entries(&rows[0].0).keks().next().unwrap().clone();
        let moved = entries(&rows[1].0).keks().next().unwrap().clone();
        for entry in [claimed, moved, own] {
            forged.push(casemate_appliance::entries::DekEntry::Kek(entry));
        }
        let (row, column) = (rows[0].0.clone(), forged.to_column().unwrap());
        assert!(site.store.write(Urgency::Act, move |transaction| row.replace(transaction, &column)).await.unwrap());
        let plan = Plan::here(&hsm, &[]).unwrap();
        let report = Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap();
        assert_eq!((report.renewed, report.unopened), (5, 0));
        assert_eq!(site.keks().await, vec![vec!["kek/2".to_owned()]; 5]);
        site.all_open(&hsm).await;
    });
}

#[test]
fn a_row_that_does_not_open_is_named_and_left_as_it_is() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let site = Site::begin(store.folder(), config.clone()).await;
        filled(&site).await;
        new_kek(&config, 2).unwrap();
        let hsm = crate::site::vault(config).await;
        let rows = site.rows().await;
        let (row, other) = (rows[0].0.clone(), rows[1].0.deks.clone());
        site.store.write(Urgency::Act, move |transaction| row.replace(transaction, &other)).await.unwrap();
        let (row, unreadable) = (rows[2].0.clone(), b"no list".to_vec());
        site.store.write(Urgency::Act, move |transaction| row.replace(transaction, &unreadable)).await.unwrap();
        let plan = Plan::here(&hsm, &[]).unwrap();
        let report = Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap();
        assert_eq!((report.rows, report.renewed, report.unopened), (5, 3, 2));
        let named: Vec<_> = report.damaged.iter().map(|row| (row.table, row.id.as_str())).collect();
        assert_eq!(named, [("shares", "a"), ("shares", "c")]);
        let after = site.rows().await;
        assert_eq!(after[0].0.deks, rows[1].0.deks);
        assert_eq!(after[2].0.deks, b"no list");
    });
}

#[test]
fn a_row_that_is_changed_or_used_up_meanwhile_is_left_alone() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let site = Site::begin(store.folder(), config.clone()).await;
        filled(&site).await;
        new_kek(&config, 2).unwrap();
        let hsm = crate::site::vault(config).await;
        let plan = Plan::here(&hsm, &[]).unwrap();
        let rows = site.rows().await;
        let stale = rows[0].0.clone();
        Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap();
        // As a slower run beside this one would do it.
        let replaced = site.store.write(Urgency::Act, move |transaction| stale.replace(transaction, b"late")).await;
        assert!(!replaced.unwrap());
        site.all_open(&hsm).await;
    });
}
