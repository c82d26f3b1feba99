//! Rows move to another token of the same module, first beside the old one, then without it.

use casemate_appliance::entries::{DekEntries, DekEntry};
use casemate_appliance::kek::{Plan, Report, Rewrap, needing};
use casemate_appliance::sealing::open;
use casemate_appliance::store::Urgency;

use crate::site::{Site, entries, vault};
use crate::support::{Module, Store, on_fresh_store};

/// Two rows under the first token's KEK, and the second token. Both name their KEKs alike.
async fn two_tokens(store: &Store) -> (Site, casemate_appliance::vault::Vault) {
    let (old, new) = (store.provisioned("old"), store.provisioned("new"));
    let site = Site::begin(store.folder(), old).await;
    site.add_share("a").await;
    site.add_primes().await;
    (site, vault(new).await)
}

#[test]
fn rows_open_on_either_hsm_and_then_on_the_new_one_alone() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let (site, new) = two_tokens(&store).await;
        let plan = Plan::beside(&site.hsm, &new, &[]).unwrap();
        assert_eq!(Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap().renewed, 2);
        assert_eq!(Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap().current, 2);
        site.all_open(&site.hsm).await;
        site.all_open(&new).await;
        assert!(site.keks().await.iter().all(|keks| keks.len() == 2));

        let plan = Plan::instead(&site.hsm, &new, &[]).unwrap();
        assert_eq!(Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap().renewed, 2);
        let again = Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap();
        assert_eq!(again, Report { rows: 2, current: 2, ..Report::default() });
        site.all_open(&new).await;
        for (_, sealed) in site.rows().await {
            assert!(open(&site.hsm, "row", &sealed).await.is_err());
        }
    });
}

#[test]
fn a_move_that_is_cut_off_is_ended_by_the_next_run() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let (site, new) = two_tokens(&store).await;
        let plan = Plan::instead(&site.hsm, &new, &[]).unwrap();
        let (row, _) = site.rows().await.remove(0);
        let casemate_appliance::kek::Renewal::Entries(moved) = plan.renew(&row).await.unwrap() else {
            panic!("it was not moved")
        };
        site.store.write(Urgency::Act, move |transaction| row.replace(transaction, &moved.column)).await.unwrap();
        let report = Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap();
        assert_eq!((report.current, report.renewed, report.unopened), (1, 1, 0));
        site.all_open(&new).await;
    });
}

#[test]
fn another_hsm_opens_nothing_and_changes_nothing() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let (site, wrong) = two_tokens(&store).await;
        let before = site.rows().await;
        let plan = Plan::here(&wrong, &[]).unwrap();
        let report = Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap();
        assert_eq!((report.renewed, report.unopened), (0, 2));
        for ((old, _), (new, _)) in before.iter().zip(site.rows().await) {
            assert_eq!(old.deks, new.deks);
        }
        site.all_open(&site.hsm).await;
    });
}

#[test]
fn an_entry_of_another_hsm_does_not_count_as_one_of_this_one_of_the_same_name() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let (site, other) = two_tokens(&store).await;
        let plan = Plan::beside(&site.hsm, &other, &[]).unwrap();
        Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap();
        // Only the other's is left in one row: to this HSM it opens nothing, though it is named like its own.
        let (row, _) = site.rows().await.remove(0);
        let mut left = DekEntries::default();
        left.push(DekEntry::Kek(entries(&row).keks().last().unwrap().clone()));
        let column = left.to_column().unwrap();
        site.store.write(Urgency::Act, move |transaction| row.replace(transaction, &column)).await.unwrap();
        let needed = needing(&site.store, &site.hsm, 9).await.unwrap();
        assert_eq!(needed.len(), 1);
        let report = Rewrap::new(&site.store, &Plan::here(&site.hsm, &[]).unwrap()).run(|_| {}).await.unwrap();
        assert_eq!((report.unopened, report.renewed), (1, 1));
    });
}
