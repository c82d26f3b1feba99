//! `casemate policy seal` and `policy check`.

use std::path::PathBuf;

use casemate_policy::{Bundle, bundle};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use super::{CommandResult, Format, exit, say};
use crate::config::Config;
use crate::pipeline::policy_client;

#[derive(Subcommand)]
pub(super) enum PolicyCommand {
    /// Write a bundle's manifest: the hashes of its files, and a higher version if any has changed.
    Seal(SealArguments),
    /// Load a bundle as the daemon does, its own tests included. Exit code 1 if it is refused.
    Check(CheckArguments),
}

#[derive(Args)]
pub(super) struct SealArguments {
    /// The bundle's folder.
    #[arg(value_name = "DIR")]
    bundle: PathBuf,
}

#[derive(Args)]
pub(super) struct CheckArguments {
    /// The appliance's configuration: its clients are those that policies may name.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The bundle's folder; the configured one if absent.
    #[arg(value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(command: PolicyCommand) -> CommandResult {
    match command {
        PolicyCommand::Seal(arguments) => seal(&arguments),
        PolicyCommand::Check(arguments) => check(&arguments),
    }
}

fn seal(arguments: &SealArguments) -> CommandResult {
    let digest = bundle::seal(&arguments.bundle, Timestamp::now())?;
    say(format!("sealed {}", arguments.bundle.display()));
    say(format!("digest {digest}"));
    say("next: `casemate policy check`, then restart the daemons that use it");
    Ok(exit::OK)
}

fn check(arguments: &CheckArguments) -> CommandResult {
    let config = Config::load(&arguments.config)?;
    let clients: Vec<_> = config.clients.all().map(|client| policy_client(&client)).collect();
    let dir = arguments.bundle.as_ref().unwrap_or(&config.policy_dir);
    let loaded = Bundle::load(dir, &clients);
    match (&loaded, arguments.format) {
        (Ok(bundle), Format::Human) => {
            say(format!("{} is valid: {} version {}", dir.display(), bundle.name(), bundle.version()));
            say(format!("digest {}, in force from {}", bundle.digest(), bundle.not_before()));
        }
        (Ok(bundle), Format::Json) => say(json!({
            "valid": true, "name": bundle.name(), "version": bundle.version(), "digest": bundle.digest(),
            "not_before": bundle.not_before().to_string(),
        })),
        (Err(error), Format::Human) => say(format!("REFUSED: {error}")),
        (Err(error), Format::Json) => say(json!({"valid": false, "why": error.to_string()})),
    }
    Ok(if loaded.is_ok() { exit::OK } else { exit::fails() })
}
