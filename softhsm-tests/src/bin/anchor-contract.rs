//! Runs the contract of an anchor against a real token: `anchor-contract CONFIG`. In a process of its own, since one process
//! can hold one configuration of SoftHSM only. The token must hold no anchor yet.

#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub, missing_docs, reason = "test code")]

#[path = "../../../appliance/tests/store/contract.rs"]
mod contract;

use std::path::Path;

use casemate_appliance::config::Config;
use casemate_appliance::metrics::Metrics;
use casemate_appliance::store::HsmAnchor;
use casemate_appliance::vault::Vault;
use casemate_hsm::Hsm;

fn main() {
    let path = std::env::args().nth(1).unwrap();
    let config = Config::load(Path::new(&path)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let vault = Vault::new(runtime.block_on(Hsm::open(config.hsm.clone())).unwrap(), Metrics::new().hsm());
    contract::holds(|| HsmAnchor::new(vault.clone(), runtime.handle().clone()));
    runtime.block_on(vault.shutdown()).unwrap();
}
