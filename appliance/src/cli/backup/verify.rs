//! `casemate backup verify` and `record`: the custodians prove that a backup is complete and opens, and the daemon is told.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Custodians, Daemon, backup, line};
use crate::backup::{Head, Opened, Proof, ShareReport};
use crate::cli::{CommandResult, Format, exit, say};

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// The backup.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    custodians: Custodians,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Args)]
pub(in crate::cli) struct RecordArguments {
    /// The backup.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What `casemate backup verify` printed: only who has opened the backup can make it, and it gives nothing away.
    #[arg(long, value_name = "HEX")]
    proof: Proof,
    #[command(flatten)]
    daemon: Daemon,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    let opened = Opened::by(backup(&arguments.file)?, &arguments.custodians.keyring()?)?;
    let (head, digest, proof) = (opened.head().clone(), opened.digest(), opened.proof());
    let telling = std::io::stderr().is_terminal();
    let checked = opened.check(|done| {
        if telling {
            eprint!("\r{done} shares");
        }
    });
    if telling {
        eprintln!();
    }
    let (complete, reports) = match checked {
        Ok(checked) => (true, checked.reports().to_vec()),
        Err(reports) => (false, reports),
    };
    match arguments.format {
        Format::Json => say(json!({
            "backup": head.id, "digest": digest, "party": head.party, "made_at": head.made_at, "log": head.log,
            "complete": complete, "shares": reports, "proof": complete.then_some(proof),
        })),
        Format::Human => tell(arguments, &head, &reports, complete.then_some(proof)),
    }
    Ok(if complete { exit::OK } else { exit::fails() })
}

fn tell(arguments: &Arguments, head: &Head, reports: &[ShareReport], proof: Option<Proof>) {
    say(format!("backup {} of {}, made at {}", head.id, head.party, head.made_at));
    say(format!("  audit log then: {} leaves of {}, root {}", head.log.size, head.log.log, head.log.root));
    reports.iter().map(line).for_each(say);
    match proof {
        Some(proof) => {
            say(format!("COMPLETE: all {} shares open and are what is said of them", reports.len()));
            say("next, so that it counts, where the daemon can be called:");
            say(format!("  casemate backup record {} --proof {proof} --url …", arguments.file.display()));
        }
        None => say("NOT COMPLETE: make another backup, and find out what happened to the stored shares"),
    }
}

pub(super) fn record(arguments: &RecordArguments) -> CommandResult {
    let backup = backup(&arguments.file)?;
    let id = &backup.head().id;
    let body = json!({ "digest": backup.digest(), "proof": arguments.proof });
    arguments.daemon.post(&format!("backups/{id}/verified"), &body)?;
    match arguments.format {
        Format::Json => say(json!({ "backup": id, "digest": backup.digest(), "verified": true })),
        Format::Human => say(format!("backup {id} is verified, and counts from now on")),
    }
    Ok(exit::OK)
}
