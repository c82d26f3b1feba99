//! The operator's commands. Each returns what to print and an exit code; nothing secret is taken from arguments.

mod approve;
mod attest;
mod audit;
mod backup;
mod call;
mod hsm;
mod init;
pub mod lab;
pub(crate) mod policy;
mod session;
mod share;
mod since;
mod ssh_keygen;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// Operates a Casemate appliance.
#[derive(Parser)]
#[command(name = "casemate", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a commented configuration file for a new host.
    Init(init::InitArguments),
    /// The HSM: make its keys, show its state.
    #[command(subcommand)]
    Hsm(hsm::HsmCommand),
    /// The signing policy, offline: write, check, test, explain, compare and seal bundles.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Approve a transaction or another act: it is shown in plain words, then signed by your SSH or FIDO key.
    Approve(approve::ApproveArguments),
    /// Attestations: ask an appliance what it says of itself, verify that, write down what it should say.
    #[command(subcommand)]
    Attest(attest::AttestCommand),
    /// The audit log, offline: verify, export.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// The shares of an appliance: list and show them, withdraw one, verify a key.
    #[command(subcommand)]
    Share(share::ShareCommand),
    /// The sessions of an appliance: list and show them.
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// Backups: made by the daemon, verified by the custodians, restored on another host.
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// A lab on this machine: several appliances and a coordinator, for trying things out.
    #[command(subcommand)]
    Lab(lab::LabCommand),
}

/// How results are printed.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON document.
    Json,
}

/// What a command reports: a failure is printed as one line on standard error.
pub(crate) type CommandResult = Result<ExitCode, Box<dyn std::error::Error>>;

/// Exit codes, the same for every command.
pub(crate) mod exit {
    use std::process::ExitCode;

    /// What was asked for holds.
    pub(crate) const OK: ExitCode = ExitCode::SUCCESS;
    /// It was looked at and does not hold.
    pub(crate) fn fails() -> ExitCode {
        ExitCode::from(1)
    }
    /// It could not be looked at.
    pub(crate) fn error() -> ExitCode {
        ExitCode::from(2)
    }
}

/// Runs the command.
pub fn run(arguments: Arguments) -> ExitCode {
    let result = match arguments.command {
        Command::Init(arguments) => init::run(&arguments),
        Command::Hsm(command) => hsm::run(command),
        Command::Policy(command) => policy::run(command),
        Command::Approve(arguments) => approve::run(&arguments),
        Command::Attest(command) => attest::run(command),
        Command::Audit(command) => audit::run(command),
        Command::Share(command) => share::run(&command),
        Command::Session(command) => session::run(&command),
        Command::Backup(command) => backup::run(command),
        Command::Lab(command) => lab::run(command),
    };
    result.unwrap_or_else(|error| {
        eprintln!("casemate: {error}");
        exit::error()
    })
}

/// Prints a line of a result.
#[expect(clippy::print_stdout, reason = "this is where commands print their results")]
pub(crate) fn say(line: impl std::fmt::Display) {
    println!("{line}");
}
