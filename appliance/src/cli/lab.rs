//! `casemate lab`.

/// Placeholder.
#[derive(clap::Subcommand)]
pub enum LabCommand {
    /// x
    Up,
}

pub(super) fn run(_command: LabCommand) -> super::CommandResult {
    Ok(super::exit::OK)
}
