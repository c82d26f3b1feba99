//! `casemate`: the operator's tool.

use std::process::ExitCode;

use casemate_appliance::cli;
use casemate_mpc::gmp_wipe::WipingAllocator;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

fn main() -> ExitCode {
    cli::run(cli::Arguments::parse())
}
