//! `casemate share`: the shares of an appliance: listed, shown with addresses, withdrawn; key certificates verified.

mod reach;
mod revoke;
mod show;
mod verify_key;

use clap::Subcommand;

use super::{CommandResult, Format};

#[derive(Subcommand)]
pub(super) enum ShareCommand {
    /// List the shares: key, label, epoch, state, KEK, last use, last backup and its age.
    List(show::ListArguments),
    /// Show one share, and addresses of its key.
    Show(show::ShowArguments),
    /// Withdraw a share, and every other one of its key that this appliance holds, for good.
    Revoke(revoke::Arguments),
    /// Verify a key certificate: all parties' signatures, by pinned identities. Exit code 1 if it proves nothing.
    VerifyKey(verify_key::Arguments),
}

pub(super) fn run(command: &ShareCommand) -> CommandResult {
    match command {
        ShareCommand::List(arguments) => show::list(arguments),
        ShareCommand::Show(arguments) => show::show(arguments),
        ShareCommand::Revoke(arguments) => revoke::run(arguments),
        ShareCommand::VerifyKey(arguments) => verify_key::run(arguments),
    }
}
