//! `casemated` that wipes neither what Rust frees nor its stacks: what a scan of its memory finds shows what the wiping
//! is for. It is of this test-only package, and a release build of it does not run: no released program can be without.

use std::process::ExitCode;

#[cfg(debug_assertions)]
fn main() -> ExitCode {
    use casemate_appliance::daemon;
    casemate_wire::stack::keep();
    let config = std::env::args_os().skip_while(|word| word != "--config").nth(1).unwrap_or_default();
    daemon::exit_code(daemon::run(std::path::Path::new(&config)))
}

#[cfg(not(debug_assertions))]
fn main() -> ExitCode {
    ExitCode::FAILURE
}
