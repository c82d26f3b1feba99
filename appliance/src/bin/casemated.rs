//! `casemated`: the daemon.

use std::process::ExitCode;

use casemate_appliance::daemon::{self, Arguments};
use casemate_mpc::gmp_wipe::WipingAllocator;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.check_config {
        daemon::check_exit_code(daemon::report_config(&arguments.config))
    } else {
        daemon::exit_code(daemon::run(&arguments.config))
    }
}
