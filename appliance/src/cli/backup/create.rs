//! `casemate backup create`: has the daemon make a backup, and keeps the file.

use std::path::PathBuf;

use casemate_wire::api::Approval;
use clap::Args;
use serde_json::{Value, json};

use super::{Daemon, NewFile, read};
use crate::backup::Backup;
use crate::cli::{CommandResult, Format, exit, say};

/// The largest file with an approval, in bytes.
const MAX_APPROVAL: usize = 64 * 1024;

#[derive(Args)]
#[command(group(clap::ArgGroup::new("step").required(true).args(["out", "show_act"])))]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    daemon: Daemon,
    /// Where the backup goes: a new file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print what people must approve first, for `casemate approve`, and make nothing.
    #[arg(long)]
    show_act: bool,
    /// An approval, as `casemate approve` wrote it. Once for each.
    #[arg(long = "approval", value_name = "FILE", requires = "out")]
    approvals: Vec<PathBuf>,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    let Some(out) = &arguments.out else { return show_act(&arguments.daemon) };
    let approvals: Vec<Approval> = arguments
        .approvals
        .iter()
        .map(|path| {
            let text = read(path, MAX_APPROVAL)?;
            let wrong = |error| format!("{} is not an approval: {error}", path.display()).into();
            serde_json::from_slice(&text).map_err(wrong)
        })
        .collect::<Result<_, super::Failed>>()?;
    // Before the approvals are used up for it.
    let file = NewFile::create(out)?;
    let bytes = arguments.daemon.post("backups", &json!({ "approvals": approvals }))?;
    let backup = Backup::read(&bytes)?;
    file.keep(&bytes)?;
    let (head, digest) = (backup.head(), backup.digest());
    let custodians: Vec<&str> = head.custodians.iter().map(|custodian| custodian.name.as_str()).collect();
    match arguments.format {
        Format::Json => say(json!({
            "backup": head.id, "digest": digest, "file": out, "shares": backup.size(), "log": head.log,
            "threshold": head.threshold, "custodians": custodians, "verified": false,
        })),
        Format::Human => {
            say(format!("backup {} of {} with {} shares: {}", head.id, head.party, backup.size(), out.display()));
            say(format!("  SHA-256 {digest}"));
            say(format!("  it opens with {} of: {}", head.threshold, custodians.join(", ")));
            say(
                "IT DOES NOT COUNT YET: nobody knows whether it opens. Next, with enough custodians and away from this host:",
            );
            say(format!("  casemate backup verify {} --identity FILE --identity FILE …", out.display()));
        }
    }
    Ok(exit::OK)
}

fn show_act(daemon: &Daemon) -> CommandResult {
    let answer: Value = serde_json::from_slice(&daemon.get("backups")?)?;
    match answer.get("act") {
        Some(act) => {
            say(act);
            Ok(exit::OK)
        }
        None => Err("the active policy bundle names no custodians: add recipients.toml to it".into()),
    }
}
