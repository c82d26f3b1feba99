//! `casemate audit`: the log, from its beginning to what auditors make of it.
//!
//! The auditors' commands are offline: they need files and nothing else, and a running daemon is not disturbed.
//!
//! | command | file |
//! |---|---|
//! | `init`, `recover`, `prune` | `init.rs`, `recover.rs`, `prune.rs`: the operator's, with the daemon stopped |
//! | `verify` | `verify.rs` |
//! | `prove` | `prove.rs` |
//! | `export` | `export.rs` |
//! | `show` | `show.rs` |
//! | `reconcile` | `reconcile.rs`; signatures and transactions outside the logs: `released.rs` |
//! | `verify-receipt` | `receipt.rs` |
//!
//! Where a log comes from: `source.rs`; audit keys and checkpoints: `notes.rs`; key certificates: `certificates.rs`; who let a
//! log take the place of another: `mandate.rs`.
//!
//! Exit codes: 0 it holds, 1 it does not, 2 it could not be looked at.

mod certificates;
mod export;
mod init;
mod mandate;
mod notes;
mod progress;
mod prove;
mod prune;
mod receipt;
mod reconcile;
mod recover;
mod released;
mod show;
mod source;
mod verify;

use clap::{Args, Subcommand};

use super::{CommandResult, Format};

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// Begin the audit log of a new appliance: its database, and its anchor in the HSM. Once, and never again.
    Init(init::Arguments),
    /// After a rollback or restore: show the statement that the policy's signers must sign, then begin a new log with it.
    Recover(recover::Arguments),
    /// Export all lines so far and delete them here: the log goes on, and rests on a snapshot that it vouches for.
    Prune(prune::Arguments),
    /// Check a log: form, order, hashes, that each outcome has its intent, that signatures verify, and, with checkpoints that
    /// were kept elsewhere, that no end was cut off and nothing rewritten. Exit code 1 if anything is wrong.
    Verify(verify::VerifyArguments),
    /// Prove that a leaf stands in a log, or that a log continues an earlier one; or check such a proof.
    #[command(subcommand)]
    Prove(prove::ProveCommand),
    /// Write a log with its details and checkpoints into a new folder, beside a running daemon.
    Export(export::ExportArguments),
    /// Print a log in plain words: all of it, one session, or one key.
    Show(show::ShowArguments),
    /// Compare the logs of all parties, with each other and with signatures. Exit code 1 if anything is amiss.
    Reconcile(reconcile::ReconcileArguments),
    /// Check the receipt of a refusal: who signed it, and whether the log bears it out. Exit code 1 if anything is wrong.
    VerifyReceipt(receipt::Arguments),
}

/// How to print the result.
#[derive(Args)]
struct Shape {
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

impl Shape {
    fn is_json(&self) -> bool {
        self.json || self.format == Format::Json
    }
}

pub(super) fn run(command: AuditCommand) -> CommandResult {
    match command {
        AuditCommand::Init(arguments) => init::run(&arguments),
        AuditCommand::Recover(arguments) => recover::run(&arguments),
        AuditCommand::Prune(arguments) => prune::run(&arguments),
        AuditCommand::Verify(arguments) => verify::run(&arguments),
        AuditCommand::Prove(command) => prove::run(command),
        AuditCommand::Export(arguments) => export::run(&arguments),
        AuditCommand::Show(arguments) => show::run(&arguments),
        AuditCommand::Reconcile(arguments) => reconcile::run(&arguments),
        AuditCommand::VerifyReceipt(arguments) => receipt::verify(&arguments),
    }
}

/// Text that may hold what an attacker wrote, so that it cannot act on a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}
