//! `casemate init`: the commented configuration of a new host.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use clap::Args;

use super::{CommandResult, exit, say};
use crate::config::TEMPLATE;

#[derive(Args)]
pub(super) struct InitArguments {
    /// Where to write it.
    #[arg(long, value_name = "FILE", default_value = "/etc/casemate/casemate.toml")]
    config: PathBuf,
    /// Print it instead.
    #[arg(long)]
    print: bool,
}

pub(super) fn run(arguments: &InitArguments) -> CommandResult {
    if arguments.print {
        say(TEMPLATE.trim_end());
        return Ok(exit::OK);
    }
    let path = &arguments.config;
    let shown = path.display();
    let failed = |e: std::io::Error| format!("cannot write {shown}: {e}; give another path with --config");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path).map_err(failed)?;
    file.write_all(TEMPLATE.as_bytes()).map_err(failed)?;
    say(format!("wrote {shown}"));
    say("next: edit it, put the PIN in place, then run `casemate hsm init --config` on it");
    Ok(exit::OK)
}
