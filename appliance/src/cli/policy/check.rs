//! `casemate policy check`.

use std::path::PathBuf;

use casemate_policy::bundle::Outline;
use casemate_policy::{Bundle, BundleError, bundle};
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::super::{CommandResult, Format, exit, say};
use super::clients::{ClientArguments, Known};
use super::existing;
use super::report::{error_json, error_lines, failed_tests};

#[derive(Args)]
pub(in crate::cli) struct CheckArguments {
    /// The bundle's folder; with --config, the configured one if absent.
    #[arg(value_name = "DIR", required_unless_present = "config")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    clients: ClientArguments,
    /// The manifest must fit the files. With --config it always must, and enough people must have signed it.
    #[arg(long)]
    sealed: bool,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A bundle that holds.
struct Valid {
    outline: Outline,
    tests: usize,
}

pub(super) fn run(arguments: &CheckArguments) -> CommandResult {
    let Known { clients, config } = arguments.clients.known()?;
    let configured = config.as_ref().map(|config| config.policy.dir.clone());
    let dir = arguments.bundle.clone().or(configured).ok_or("give the bundle's folder")?;
    existing(&dir)?;
    let as_it_stands = match &config {
        // As that appliance would take it, but that only its store knows which version was the last.
        Some(config) => {
            let anchors = &config.policy.anchors;
            Bundle::load_signed(&dir, &clients, anchors, None, Timestamp::now()).map(drop)
        }
        None if arguments.sealed => Bundle::load(&dir, &clients).map(drop),
        None => Ok(()),
    };
    let judged = as_it_stands.and_then(|()| valid(&dir, &clients));
    match (&judged, arguments.format) {
        (Ok(valid), Format::Human) => tell(&dir, valid),
        (Ok(Valid { outline, tests }), Format::Json) => {
            let manifest = outline.manifest.as_ref();
            say(json!({
                "valid": true, "sealed": is_sealed(outline), "unsealed": outline.unsealed, "tests": tests,
                "name": manifest.map(|m| &m.name), "version": manifest.map(|m| m.version),
                "digest": manifest.map(|m| m.digest), "not_before": manifest.map(|m| m.not_before),
            }));
        }
        (Err(error), Format::Human) => {
            say(format!("{} is REFUSED", dir.display()));
            error_lines(error).into_iter().for_each(say);
        }
        (Err(error), Format::Json) => say(json!({"valid": false, "error": error_json(error)})),
    }
    Ok(if judged.is_ok() { exit::OK } else { exit::fails() })
}

/// Judges everything but whether the manifest fits.
fn valid(dir: &std::path::Path, clients: &[casemate_policy::Client]) -> Result<Valid, BundleError> {
    let draft = bundle::Draft::read(dir, clients)?;
    let reports = draft.run_cases();
    failed_tests(&reports, &draft.untested())?;
    Ok(Valid { outline: Outline::read(dir)?, tests: reports.len() })
}

fn is_sealed(outline: &Outline) -> bool {
    outline.manifest.is_some() && outline.unsealed.is_empty()
}

fn tell(dir: &std::path::Path, valid: &Valid) {
    let Valid { outline, tests } = valid;
    let policies = outline.policies.len();
    say(format!("{} is valid: {policies} policies, {tests} tests pass", dir.display()));
    if let Some(manifest) = &outline.manifest {
        say(format!("{} version {}, in force from {}", manifest.name, manifest.version, manifest.not_before));
        if is_sealed(outline) {
            say(format!("digest {}", manifest.digest));
            return;
        }
    }
    let changed: Vec<&str> = outline.unsealed.iter().map(String::as_str).collect();
    say(format!(
        "NOT SEALED as it stands ({}): an appliance takes it after `casemate policy seal`",
        changed.join(", ")
    ));
}
