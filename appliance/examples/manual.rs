//! Writes man pages and shell completions of `casemated` and `casemate` for the packages (`packaging/deb/build`) into the folder
//! that its argument names. An example, so that no program links what only this needs.

use std::io::{Error, Result};
use std::path::PathBuf;

use casemate_appliance::{cli, daemon};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or_else(|| Error::other("usage: manual FOLDER"))?);
    let (daemon, tool) = (daemon::Arguments::command(), cli::Arguments::command());
    for command in [&daemon, &tool] {
        for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
            let mut command: Command = command.clone();
            let name = command.get_name().to_owned();
            clap_complete::generate_to(shell, &mut command, name, &folder)?;
        }
    }
    Man::new(daemon).section("8").generate_to(&folder)?;
    // One page for the command and one for each command below it: casemate-hsm-init.1 and the like.
    clap_mangen::generate_to(tool, &folder)
}
