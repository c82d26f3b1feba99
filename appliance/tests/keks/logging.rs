//! The log speaks of KEKs before the HSM acts, whatever moment a run is cut off at, and never goes back.

use casemate_appliance::kek::Ledger;
use casemate_attest::{Line, Op};
use casemate_hsm::{HsmConfig, destroy_kek, new_kek};

use crate::site::Site;
use crate::support::{Module, on_fresh_store};

/// What all leaves about KEKs say, in order.
async fn told(site: &Site) -> Vec<String> {
    let lines = site.store.read(|store| casemate_appliance::store::audit_lines(store, 0, u64::MAX)).await.unwrap();
    let leaves: Vec<_> = lines.iter().map(|line| Line::read(line.as_bytes()).unwrap().leaf().clone()).collect();
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
