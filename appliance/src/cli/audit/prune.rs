//! `casemate audit prune`: exports the log so far, and goes on without it.

use std::path::PathBuf;

use casemate_attest::{AuditKey, Checkpoint, SignedCheckpoint};
use casemate_hsm::{Hsm, KeyPurpose};
use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use tokio::runtime::Runtime;

use super::super::{CommandResult, Format, exit, say};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::store::{HsmAnchor, Segment, Store, open_read_only, put_text};
use crate::vault::Vault;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// The daemon's configuration. The daemon must not run.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The folder that the lines go to, with details and checkpoints, in the form of an export.
    #[arg(long, value_name = "DIR")]
    segment: PathBuf,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

type Failed = Box<dyn std::error::Error>;

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    let config = Config::load(&arguments.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let hsm = runtime.block_on(Hsm::open(config.hsm.clone()))?;
    let key = AuditKey::from_spki(&hsm.public_key(KeyPurpose::Audit));
    let hsm = Vault::new(hsm, Metrics::new().hsm());
    let anchor = Box::new(HsmAnchor::new(hsm.clone(), runtime.handle().clone()));
    let done = key.map_err(Failed::from).and_then(|key| {
        let store = Store::open(&config.data_dir, anchor)?;
        let done = prune(arguments, &runtime, &store, &config, (&hsm, &key));
        store.close();
        done
    });
    runtime.block_on(hsm.shutdown())?;
    let (before, after) = done?;
    let Checkpoint { log, size, root } = before;
    let kept = after.saturating_sub(size);
    match arguments.format {
        Format::Json => {
            say(json!({"log": log, "pruned": size, "root": root, "size": after, "segment": arguments.segment}));
        }
        Format::Human => {
            say(format!("the first {size} leaves of {log} are in {}, with a checkpoint", arguments.segment.display()));
            say(format!("  {kept} stay here; keep that folder for good: nothing else holds those lines"));
        }
    }
    Ok(exit::OK)
}

/// Where the segment ends, and the log's size afterwards.
fn prune(
    arguments: &Arguments,
    runtime: &Runtime,
    store: &Store,
    config: &Config,
    (hsm, key): (&Vault, &AuditKey),
) -> Result<(Checkpoint, u64), Failed> {
    if let Some(quarantine) = store.quarantine() {
        return Err(quarantine.to_string().into());
    }
    let segment = Segment::at(&arguments.segment);
    let exported = segment.export(&open_read_only(&config.data_dir)?, now_at_most(config)?)?;
    let checkpoint = exported.checkpoint();
    sign(runtime, &checkpoint, &segment, hsm, key)?;
    Ok((checkpoint, runtime.block_on(store.prune(exported))?))
}

/// The latest time that this host's clock can mean.
fn now_at_most(config: &Config) -> Result<Timestamp, Failed> {
    Ok(Timestamp::now().checked_add(config.limits.clock_skew())?)
}

/// Signs the segment's end, unless an earlier run did.
fn sign(
    runtime: &Runtime,
    checkpoint: &Checkpoint,
    segment: &Segment,
    hsm: &Vault,
    key: &AuditKey,
) -> Result<(), Failed> {
    let path = segment.checkpoint();
    if path.try_exists()? {
        let note = std::fs::read_to_string(&path)?;
        if SignedCheckpoint::verify(&note, key)?.checkpoint() == checkpoint {
            return Ok(());
        }
        let path = path.display();
        return Err(format!("{path} is the checkpoint of another segment; name another folder with --segment").into());
    }
    let signature = runtime.block_on(hsm.sign(KeyPurpose::Audit, checkpoint.text().as_bytes()))?;
    let signed = checkpoint.clone().signed(key, &signature)?;
    Ok(put_text(&path, signed.note().as_bytes())?)
}
