//! What commands on a stopped appliance share: its configuration, HSM and store, under the data folder's lock.

use std::path::Path;

use casemate_hsm::{Hsm, HsmConfig};
use casemate_policy::bundle::Newest;
use casemate_wire::RecoveryKey;
use tokio::runtime::Runtime;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::policy_slot;
use crate::store::{HsmAnchor, PolicyRow, Store};
use crate::vault::Vault;

pub(in crate::cli) type Failed = Box<dyn std::error::Error>;

/// A stopped appliance that a command works on.
pub(in crate::cli) struct Offline {
    pub(in crate::cli) config: Config,
    pub(in crate::cli) runtime: Runtime,
    pub(in crate::cli) hsm: Vault,
    pub(in crate::cli) store: Store,
}

impl Offline {
    /// Opens it, has `work` done, and closes it in order whatever came of that.
    pub(in crate::cli) fn with<T>(path: &Path, work: impl FnOnce(&Self) -> Result<T, Failed>) -> Result<T, Failed> {
        let config = Config::load(path)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let hsm = vault(&runtime, config.hsm.clone())?;
        let anchor = Box::new(HsmAnchor::new(hsm.clone(), runtime.handle().clone()));
        match Store::open(&config.data_dir, anchor) {
            Ok(store) => {
                let offline = Self { config, runtime, hsm, store };
                let done = match offline.store.quarantine() {
                    Some(quarantine) => Err(quarantine.to_string().into()),
                    None => work(&offline),
                };
                offline.store.close();
                offline.runtime.block_on(offline.hsm.shutdown())?;
                done
            }
            Err(error) => {
                runtime.block_on(hsm.shutdown())?;
                Err(error.into())
            }
        }
    }

    /// The recovery HSMs that the signed policy bundle names.
    pub(in crate::cli) fn recipients(&self) -> Result<Vec<RecoveryKey>, Failed> {
        let newest = self.runtime.block_on(self.store.read(PolicyRow::newest))?;
        let bundle = policy_slot::load(&self.config, newest.map(Newest::from)).map_err(|why| {
            format!("the policy bundle, which alone says to whom shares are sealed, does not load: {why}")
        })?;
        Ok(bundle.bundle().recipients().recovery().values().cloned().collect())
    }
}

/// Opens an HSM as the daemon does.
pub(in crate::cli) fn vault(runtime: &Runtime, config: HsmConfig) -> Result<Vault, Failed> {
    Ok(Vault::new(runtime.block_on(Hsm::open(config))?, Metrics::new().hsm()))
}
