//! Writes man pages and shell completions of `casemate-coordinator` for its package (`packaging/deb/build`) into the folder that
//! its argument names. An example, so that the program does not link what only this needs.

use std::io::{Error, Result};
use std::path::PathBuf;

use casemate_coordinator::Command;
use clap::CommandFactory;
use clap_complete::Shell;

fn main() -> Result<()> {
    let folder =
        PathBuf::from(std::env::args_os().nth(1).ok_or_else(|| Error::other("usage: coordinator-manual FOLDER"))?);
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut Command::command(), "casemate-coordinator", &folder)?;
    }
    clap_mangen::generate_to(Command::command(), &folder)
}
