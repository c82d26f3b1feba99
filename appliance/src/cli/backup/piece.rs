//! `casemate backup piece`: one custodian's piece, encrypted to whoever restores.

use std::path::PathBuf;

use clap::Args;

use super::{Custodians, NewFile, backup};
use crate::cli::{CommandResult, exit, say};

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// The backup.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    custodian: Custodians,
    /// The age recipient of the ceremony, age1…: it was told to you by people, not by this machine.
    #[arg(long, value_name = "RECIPIENT")]
    to: String,
    /// Where the piece goes: a new file.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    let backup = backup(&arguments.file)?;
    let (name, piece) = arguments.custodian.keyring()?.piece_for(&backup, &arguments.to)?;
    NewFile::create(&arguments.out)?.keep(&piece)?;
    say(format!(
        "the piece of {name} of backup {}, for {}: {}",
        backup.head().id,
        arguments.to,
        arguments.out.display()
    ));
    Ok(exit::OK)
}
