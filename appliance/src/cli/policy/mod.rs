//! `casemate policy`: the security staff's tools. All of them work offline, on a bundle's folder.
//!
//! | command | file |
//! |---|---|
//! | `init` | `init.rs`; the starter bundle itself: `starter.rs` |
//! | `check`, `test` | `check.rs`, `test.rs` |
//! | `explain` | `explain.rs` |
//! | `fmt`, `seal`, `sign` | `fmt.rs`, `seal.rs`, `sign.rs` |
//! | `diff`, `show` | `diff.rs`, `show.rs` |
//! | `schema` | here |
//!
//! Exit codes: 0 it holds (for `explain`: allowed), 1 it does not (refused), 2 it could not be looked at.

mod check;
mod clients;
mod diff;
mod explain;
mod fmt;
mod init;
mod lines;
mod report;
mod seal;
mod show;
mod sign;
pub(super) mod signers;
pub(crate) mod starter;
mod test;

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{CommandResult, Format, exit, say};

#[derive(Subcommand)]
pub(super) enum PolicyCommand {
    /// Write the commented starter bundle into a new folder.
    Init(init::InitArguments),
    /// Judge a bundle as an appliance does, its own tests included. Exit code 1 if it would be refused.
    Check(check::CheckArguments),
    /// Run a bundle's tests and list every failure. Exit code 1 if there is one.
    Test(test::TestArguments),
    /// Bring Cedar files into the one form that reviews expect.
    Fmt(fmt::FmtArguments),
    /// Say how a bundle decides a request, and why. Exit code 1 if it is refused.
    Explain(explain::ExplainArguments),
    /// Compare two bundles: policies, addresses, assets, key groups, tests, manifest.
    Diff(diff::DiffArguments),
    /// Write a bundle's manifest: the hashes of its files, which is what people sign.
    Seal(seal::SealArguments),
    /// Sign a sealed bundle with your SSH or FIDO key.
    Sign(sign::SignArguments),
    /// Print what stands in a bundle.
    Show(show::ShowArguments),
    /// Print the schema: everything that a policy can ask about a request.
    Schema(SchemaArguments),
}

#[derive(Args)]
pub(super) struct SchemaArguments {
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(command: PolicyCommand) -> CommandResult {
    match command {
        PolicyCommand::Init(arguments) => init::run(&arguments),
        PolicyCommand::Check(arguments) => check::run(&arguments),
        PolicyCommand::Test(arguments) => test::run(&arguments),
        PolicyCommand::Fmt(arguments) => fmt::run(&arguments),
        PolicyCommand::Explain(arguments) => explain::run(&arguments),
        PolicyCommand::Diff(arguments) => diff::run(&arguments),
        PolicyCommand::Seal(arguments) => seal::run(&arguments),
        PolicyCommand::Sign(arguments) => sign::run(&arguments),
        PolicyCommand::Show(arguments) => show::run(&arguments),
        PolicyCommand::Schema(arguments) => Ok(schema(&arguments)),
    }
}

fn schema(arguments: &SchemaArguments) -> std::process::ExitCode {
    match arguments.format {
        Format::Human => say(casemate_policy::SCHEMA.trim_end()),
        Format::Json => say(json!({"version": casemate_policy::SCHEMA_VERSION, "schema": casemate_policy::SCHEMA})),
    }
    exit::OK
}

/// A mistyped folder would otherwise be taken for a bundle that is wrong.
fn existing(dir: &Path) -> Result<(), String> {
    if dir.is_dir() {
        return Ok(());
    }
    Err(format!("{} is not a folder; `casemate policy init {0}` would make a starter bundle there", dir.display()))
}
