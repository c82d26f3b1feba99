//! `casemate hsm rewrap` and `hsm recover-entries`: every row's wrapped keys are brought to what they are to be.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use casemate_hsm::RecoveryHsm;
use casemate_wire::IdentityKey;
use clap::Args;
use serde_json::json;

use super::super::{CommandResult, Format, exit, say};
use super::offline::{Failed, Offline, vault};
use crate::config::load_hsm;
use crate::kek::{Plan, Report, Rewrap, Step, epoch_taken};

#[derive(Args)]
pub(in crate::cli) struct RewrapArguments {
    /// The daemon's configuration. The daemon must not run; a running one takes POST kek/rewrap.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Add an entry for another HSM, the one of this configuration; only its [hsm] section is read.
    #[arg(long, value_name = "OTHER_CONFIG")]
    to: Option<PathBuf>,
    /// Remove this HSM's entries, so that the rows open on the other one alone.
    #[arg(long, requires = "to")]
    drop_old: bool,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Args)]
pub(in crate::cli) struct RecoverArguments {
    /// The daemon's configuration, with the HSM that is to hold the rows from now on. The daemon must not run.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// A configuration of the recovery HSM; only its [hsm] section is read.
    #[arg(long, value_name = "CONFIG")]
    recovery: PathBuf,
    /// The identity key (hex) of the HSM that is lost, as the peers' [[peer]] entries pin it: what it did not sign is not
    /// taken.
    #[arg(long, value_name = "KEY")]
    sealed_by: IdentityKey,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn rewrap(arguments: &RewrapArguments) -> CommandResult {
    let (report, keks) = Offline::with(&arguments.config, |offline| {
        let recipients = offline.recipients()?;
        let here = offline.hsm.status().kek_id;
        let Some(to) = &arguments.to else {
            let plan = Plan::here(&offline.hsm, &recipients)?;
            return Ok((run(offline, &plan)?, vec![here]));
        };
        let other = vault(&offline.runtime, load_hsm(to)?)?;
        let done = (|| {
            differ(offline, &other)?;
            let there = format!("{} of {}", other.status().kek_id, other.status().token.label);
            if arguments.drop_old {
                let plan = Plan::instead(&offline.hsm, &other, &recipients)?;
                return Ok((run(offline, &plan)?, vec![there]));
            }
            let plan = Plan::beside(&offline.hsm, &other, &recipients)?;
            Ok((run(offline, &plan)?, vec![here, there]))
        })();
        offline.runtime.block_on(other.shutdown())?;
        done
    })?;
    Ok(show(&report, &keks, arguments.format))
}

/// The other HSM is another token, and its KEK has an epoch of its own: the audit log tells KEKs by their epochs.
fn differ(offline: &Offline, other: &crate::vault::Vault) -> Result<(), Failed> {
    let (here, there) = (offline.hsm.status(), other.status());
    if here.token.serial == there.token.serial {
        return Err(format!("--to names this appliance's own token ({})", here.token.serial).into());
    }
    if there.kek_epoch <= here.kek_epoch {
        return Err(format!(
            "the other HSM's current KEK is {}, this one's is {}: KEKs are told apart by their epochs for good; make the \
             keys of the new HSM with casemate hsm init --kek-epoch {}",
            there.kek_id,
            here.kek_id,
            here.kek_epoch.saturating_add(1)
        )
        .into());
    }
    Ok(())
}

pub(super) fn recover(arguments: &RecoverArguments) -> CommandResult {
    let (report, kek) = Offline::with(&arguments.config, |offline| {
        let recipients = offline.recipients()?;
        if let Some(taken) = offline.runtime.block_on(epoch_taken(&offline.store, &offline.hsm))? {
            return Err(format!(
                "rows name kek/{taken} of another HSM, and this one's current KEK is {}: KEKs are told apart by their epochs \
                 for good; make the keys of this HSM with casemate hsm init --kek-epoch {}",
                offline.hsm.status().kek_id,
                taken.saturating_add(1)
            )
            .into());
        }
        let recovery = RecoveryHsm::open(&load_hsm(&arguments.recovery)?)?;
        let plan = Plan::recovered(&offline.hsm, (&recovery, &arguments.sealed_by), &recipients)?;
        Ok((run(offline, &plan)?, offline.hsm.status().kek_id))
    })?;
    Ok(show(&report, &[kek], arguments.format))
}

fn run(offline: &Offline, plan: &Plan<'_>) -> Result<Report, Failed> {
    let telling = std::io::stderr().is_terminal();
    let watch = |step| {
        if let (Step::Durable { done, of }, true) = (step, telling) {
            eprint!("\r{done} of {of} rows");
        }
    };
    let report = offline.runtime.block_on(Rewrap::new(&offline.store, plan).run(watch));
    if telling {
        eprintln!();
    }
    Ok(report?)
}

fn show(report: &Report, keks: &[String], format: Format) -> ExitCode {
    match format {
        Format::Json => say(json!({"keks": keks, "report": report})),
        Format::Human => {
            let Report { rows, current, renewed, gone, unopened, damaged } = report;
            say(format!("{rows} rows under {}: {renewed} re-wrapped, {current} were so before", keks.join(" and ")));
            if *gone > 0 {
                say(format!("  {gone} were used up or destroyed meanwhile"));
            }
            if *unopened > 0 {
                say(format!("  {unopened} do NOT open and are as they were:"));
                for row in damaged {
                    say(format!("    {} {}: {}", row.table, row.id, row.why));
                }
            }
        }
    }
    if report.unopened == 0 { exit::OK } else { exit::fails() }
}
