//! `casemated`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use casemate_appliance::daemon;
use casemate_mpc::gmp_wipe::WipingAllocator;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

/// Holds one share of a threshold key; inbound only, over mutual TLS.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and the files that it names, then exit.
    #[arg(long)]
    check_config: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.check_config {
        daemon::check_exit_code(daemon::report_config(&arguments.config))
    } else {
        daemon::exit_code(daemon::run(&arguments.config))
    }
}
