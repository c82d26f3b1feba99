//! The daemon's command line, apart from its program so that its man page is made of it.

use std::path::PathBuf;

use clap::Parser;

/// Holds one share of a threshold key; inbound only, over mutual TLS.
#[derive(Parser)]
#[command(name = "casemated", version)]
pub struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Check the configuration and the files that it names, then exit.
    #[arg(long)]
    pub check_config: bool,
}
