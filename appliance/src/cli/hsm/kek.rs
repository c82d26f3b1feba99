//! `casemate hsm new-kek` and `hsm destroy-kek`: both ends of a KEK's life.

use std::path::PathBuf;

use casemate_hsm::{HsmError, destroy_kek, new_kek};
use clap::Args;
use serde_json::json;

use super::super::{CommandResult, Format, exit, say};
use super::offline::{Failed, Offline};
use crate::kek::{Ledger, needing};

/// Rows that a refusal names.
const NAMED: usize = 10;

#[derive(Args)]
pub(in crate::cli) struct NewArguments {
    /// The daemon's configuration. The daemon must not run.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Args)]
pub(in crate::cli) struct DestroyArguments {
    /// The epoch of the KEK.
    #[arg(value_name = "EPOCH")]
    epoch: u32,
    /// The daemon's configuration. The daemon must not run.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Do it: what this KEK alone opens, in old copies of the database too, can never be opened again.
    #[arg(long)]
    yes: bool,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn make(arguments: &NewArguments) -> CommandResult {
    let (epoch, before) = Offline::with(&arguments.config, make_next)?;
    match arguments.format {
        Format::Json => say(json!({"kek": format!("kek/{epoch}"), "kek_epoch": epoch, "before": before})),
        Format::Human => {
            say(format!("kek/{epoch} wraps from now on, in the place of kek/{before}"));
            say("  next: casemate hsm rewrap; then casemate hsm destroy-kek for the old one");
        }
    }
    Ok(exit::OK)
}

/// Its epoch, and that of the one before. The log says so first; a run that was cut off is ended by the next one.
fn make_next(offline: &Offline) -> Result<(u32, u32), Failed> {
    let status = offline.hsm.status();
    let live = status.kek_epoch;
    let mut ledger = Ledger::of(&offline.store, &status);
    if ledger.was_made_only(live) {
        offline.runtime.block_on(ledger.current(&offline.store, live))?;
        return Ok((live, live.saturating_sub(1)));
    }
    let next = live.checked_add(1).ok_or("this is the last epoch that there is")?;
    offline.runtime.block_on(ledger.made(&offline.store, next))?;
    new_kek(&offline.config.hsm, next)?;
    offline.runtime.block_on(ledger.current(&offline.store, next))?;
    Ok((next, live))
}

pub(super) fn destroy(arguments: &DestroyArguments) -> CommandResult {
    let epoch = arguments.epoch;
    let kek = format!("kek/{epoch}");
    if !arguments.yes {
        return Err(format!(
            "destroying {kek} cannot be undone: no old copy of the database opens after that; say --yes to do it"
        )
        .into());
    }
    let needing = Offline::with(&arguments.config, |offline| destroy_unneeded(offline, epoch))?;
    let destroyed = needing.is_empty();
    match arguments.format {
        Format::Json => say(json!({"kek": kek, "destroyed": destroyed, "needed_by": needing})),
        Format::Human if destroyed => say(format!("{kek} is destroyed; every row was opened without it before")),
        Format::Human => {
            say(format!("{kek} is NOT destroyed: {} rows stand against it", needing.len()));
            for row in needing.iter().take(NAMED) {
                say(format!("  {} {}: {}", row.table, row.id, row.why));
            }
            say("  run casemate hsm rewrap, and see docs/runbook.md for rows that open under no KEK");
        }
    }
    Ok(if destroyed { exit::OK } else { exit::fails() })
}

/// The rows that stand against it; it is destroyed if there are none.
fn destroy_unneeded(offline: &Offline, epoch: u32) -> Result<Vec<crate::kek::Needed>, Failed> {
    let status = offline.hsm.status();
    let kek_id = format!("kek/{epoch}");
    // The log must not tell of what the token will refuse.
    if status.kek_epoch == epoch {
        return Err(HsmError::KekIsCurrent { kek_id }.into());
    }
    if status.keys.iter().all(|key| key.id != kek_id) {
        return Err(HsmError::NoSuchKek { kek_id }.into());
    }
    let mut ledger = Ledger::of(&offline.store, &status);
    ledger.may_be_destroyed(epoch)?;
    let needing = offline.runtime.block_on(needing(&offline.store, &offline.hsm, epoch))?;
    if needing.is_empty() {
        offline.runtime.block_on(ledger.destroyed(&offline.store, epoch))?;
        destroy_kek(&offline.config.hsm, epoch)?;
    }
    Ok(needing)
}
