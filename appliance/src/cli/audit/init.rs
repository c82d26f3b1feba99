//! `casemate audit init`: begins the audit log, in the data folder and in the HSM at once.

use std::path::PathBuf;

use casemate_attest::LogId;
use casemate_hsm::Hsm;
use clap::Args;
use serde_json::json;

use super::super::{CommandResult, Format, exit, say};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::store::{HsmAnchor, Store, StoreError};
use crate::vault::Vault;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// The daemon's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    let config = Config::load(&arguments.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // Two logs never share a name: one that is begun anew is never taken for the old one.
    let log: LogId = format!("casemate/{}/{:08x}", config.party, rand::random::<u32>()).parse()?;
    let hsm = Vault::new(runtime.block_on(Hsm::open(config.hsm.clone()))?, Metrics::new().hsm());
    let mut anchor = HsmAnchor::new(hsm.clone(), runtime.handle().clone());
    let begun = Store::create(&config.data_dir, &log, &mut anchor);
    runtime.block_on(hsm.shutdown())?;
    let place = begun.map_err(|error: StoreError| error.to_string())?;
    match arguments.format {
        Format::Json => say(json!({"log": place.log, "size": place.size, "root": place.root})),
        Format::Human => {
            say(format!("the audit log {} begins in {}", place.log, config.data_dir.display()));
            say(format!("  its first leaf is anchored in the HSM, with the root {}", place.root));
        }
    }
    Ok(exit::OK)
}
