//! The coordinator's program: parses its arguments, runs, and maps the outcome to an exit code.

use std::io::Write;
use std::process::ExitCode;

use casemate_coordinator::Command;
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    match Command::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; the exit code tells all the same.
            let _: Result<(), _> = writeln!(std::io::stderr(), "casemate-coordinator: {error}");
            error.exit_code()
        }
    }
}
