//! The log speaks of KEKs before the HSM acts, whatever moment a run is cut off at, and never goes back.

use casemate_appliance::kek::{Ledger, Plan, Report, Rewrap};
use casemate_appliance::store::Urgency;
use casemate_attest::{Op, Origin, Rewrap as Told, Rewrapped, Text};
use casemate_hsm::{HsmConfig, destroy_kek, new_kek};

use crate::site::Site;
use crate::support::{Module, on_fresh_store};

/// What all leaves about KEKs say, in order.
async fn told(site: &Site) -> Vec<String> {
    let leaves = site.leaves().await;
    let keks = leaves.iter().filter(|leaf| leaf.op == Op::Kek).flat_map(|leaf| &leaf.guards);
    keks.map(|change| format!("{} {}", change.id.as_str(), change.to.as_ref().unwrap().as_str())).collect()
}

async fn reopened(site: Site, config: &HsmConfig) -> (Site, Ledger) {
    let folder = site.close().await;
    let site = Site::open(folder, config.clone()).await;
    let ledger = Ledger::of(&site.store, &site.hsm.status());
    (site, ledger)
}

#[test]
fn a_kek_is_made_current_and_destroyed_once_however_often_a_run_is_cut_off() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let site = Site::begin(store.folder(), config.clone()).await;
        let (site, mut ledger) = reopened(site, &config).await;
        ledger.made(&site.store, 2).await.unwrap();
        // Cut off before the HSM made it: the next run makes it, and says nothing new.
        let (site, mut ledger) = reopened(site, &config).await;
        ledger.made(&site.store, 2).await.unwrap();
        new_kek(&config, 2).unwrap();
        // Cut off before it was called current.
        let (site, mut ledger) = reopened(site, &config).await;
        assert!(ledger.was_made_only(2));
        ledger.current(&site.store, 2).await.unwrap();
        let (site, mut ledger) = reopened(site, &config).await;
        assert!(!ledger.was_made_only(2));
        ledger.current(&site.store, 2).await.unwrap();
        ledger.destroyed(&site.store, 1).await.unwrap();
        // Cut off before the HSM destroyed it.
        let (site, mut ledger) = reopened(site, &config).await;
        ledger.destroyed(&site.store, 1).await.unwrap();
        destroy_kek(&config, 1).unwrap();
        let (site, _) = reopened(site, &config).await;
        assert_eq!(told(&site).await, ["2 made", "1 retired", "2 current", "1 destroyed"]);
    });
}

#[test]
fn a_token_that_was_put_back_to_before_its_new_kek_is_found_out_and_nothing_is_written() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let site = Site::begin(store.folder(), config.clone()).await;
        let (site, mut ledger) = reopened(site, &config).await;
        ledger.made(&site.store, 2).await.unwrap();
        // The token never gets it, as after a restore.
        ledger.current(&site.store, 2).await.unwrap();
        let (site, mut ledger) = reopened(site, &config).await;
        let refused = ledger.made(&site.store, 2).await.unwrap_err().to_string();
        assert!(refused.contains("old copy"), "{refused}");
        assert!(ledger.destroyed(&site.store, 2).await.is_err(), "the current one");
        assert!(ledger.current(&site.store, 1).await.is_err(), "it is retired");
        assert_eq!(told(&site).await, ["2 made", "1 retired", "2 current"]);
    });
}

fn counts(names: &[(&str, u64)]) -> std::collections::BTreeMap<Text, u64> {
    names.iter().map(|(name, rows)| (name.parse().unwrap(), *rows)).collect()
}

#[test]
fn a_re_wrapping_is_told_before_its_first_row_and_summed_up_with_who_asked_after_its_last() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let site = Site::begin(store.folder(), config.clone()).await;
        for id in ["a", "b", "c"] {
            site.add_share(id).await;
        }
        new_kek(&config, 2).unwrap();
        let hsm = crate::site::vault(config).await;
        let plan = Plan::here(&hsm, &[]).unwrap();
        let origin = Origin { req: "req-1".parse().unwrap(), actor: "operator-1".parse().unwrap(), session: None };
        let rows = site.rows().await;
        let (row, spoilt) = (rows[2].0.clone(), rows[1].0.deks.clone());
        site.store.write(Urgency::Act, move |transaction| row.replace(transaction, &spoilt)).await.unwrap();
        let before = site.store.audit_head().size();
        let mut at_first_row = None;
        let watch = |_| {
            at_first_row.get_or_insert_with(|| site.store.audit_head().size());
        };
        let run = Rewrap::new(&site.store, &plan).asked_by(origin);
        let report = run.run(watch).await.unwrap();
        assert_eq!((report.renewed, report.unopened), (2, 1));
        assert_eq!(at_first_row, Some(before + 1), "the log spoke first");
        let told = site.rewraps().await;
        let to = vec![format!("kek/2 on {}", hsm.status().token.serial).parse().unwrap()];
        assert_eq!(told[0], (before, Told::Begun { to, rows: 3 }));
        let done = Rewrapped {
            rows: 3,
            renewed: 2,
            unopened: 1,
            removed: counts(&[("kek/1", 2)]),
            added: counts(&[("kek/2", 2)]),
            ..Rewrapped::default()
        };
        assert_eq!(told[1..], [(before + 1, Told::Ended { begun: before, done })]);
        let actors: Vec<_> = site.leaves().await.into_iter().filter(|leaf| leaf.op == Op::Rewrap).collect();
        assert!(actors.iter().all(|leaf| leaf.actor.as_ref().unwrap().as_str() == "operator-1"), "{actors:?}");

        // Where nothing is to be done, that is told too.
        let again = Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap();
        assert_eq!(
            again,
            Report { rows: 3, current: 2, unopened: 1, damaged: again.damaged.clone(), ..Report::default() }
        );
        assert_eq!(site.rewraps().await.len(), 4);
    });
}

#[test]
fn a_run_that_the_hsm_leaves_alone_says_in_its_end_why_it_stopped() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let config = store.provisioned("vault");
        let site = Site::begin(store.folder(), config.clone()).await;
        for id in ["a", "b", "c"] {
            site.add_share(id).await;
        }
        new_kek(&config, 2).unwrap();
        let hsm = crate::site::vault(config).await;
        let plan = Plan::here(&hsm, &[]).unwrap();
        hsm.shutdown().await.unwrap();
        let stopped = Rewrap::new(&site.store, &plan).run(|_| {}).await.unwrap_err();
        let told = site.rewraps().await;
        let Told::Ended { begun, done } = &told[1].1 else { panic!("{told:?}") };
        assert_eq!((*begun, done.renewed), (told[0].0, 0));
        assert_eq!(done.stopped.as_ref().unwrap().as_str(), Text::fitted(&stopped.to_string()).as_str());
        assert_eq!(site.keks().await, vec![vec!["kek/1".to_owned()]; 3]);
    });
}

#[test]
fn entries_for_recovery_hsms_that_come_and_go_are_told_by_their_fingerprints() {
    on_fresh_store(Module::SoftHsm, async |store| {
        let site = Site::begin(store.folder(), store.provisioned("vault")).await;
        site.add_share("a").await;
        let key = crate::recovering::recovery(&store, "recovery").public_key().clone();
        let name = format!("recovery/{}", key.fingerprint());
        let recipients = [key];
        let with = Plan::here(&site.hsm, &recipients).unwrap();
        let without = Plan::here(&site.hsm, &[]).unwrap();
        for plan in [&with, &without] {
            assert_eq!(Rewrap::new(&site.store, plan).run(|_| {}).await.unwrap().renewed, 1);
        }
        let told = site.rewraps().await;
        let ends = told.iter().filter_map(|(_, told)| match told {
            Told::Ended { done, .. } => Some((done.removed.clone(), done.added.clone())),
            Told::Begun { .. } => None,
        });
        let one = counts(&[(&name, 1)]);
        assert_eq!(ends.collect::<Vec<_>>(), [(counts(&[]), one.clone()), (one, counts(&[]))]);
        let Told::Begun { to, .. } = &told[0].1 else { panic!("{told:?}") };
        assert!(to.iter().any(|to| to.as_str() == name), "{to:?}");
    });
}
