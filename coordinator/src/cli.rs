//! The command line.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::api_key::ApiKey;
use crate::config::{Config, ConfigError, LogFormat, SAMPLE};
use crate::server::{ServeError, serve};
use crate::store::{Store, StoreError};

/// Convenes threshold-signature sessions among Casemate appliances and carries their messages.
#[derive(Debug, Parser)]
#[command(name = "casemate-coordinator", version, args_conflicts_with_subcommands = true)]
pub struct Command {
    #[command(flatten)]
    daemon: Daemon,
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Debug, Args)]
struct Daemon {
    /// The configuration file.
    #[arg(long, value_name = "FILE", required_unless_present = "print_config")]
    config: Option<PathBuf>,
    /// Check the configuration and every file that it names, then exit.
    #[arg(long)]
    check_config: bool,
    /// Write a configuration file with every key explained to standard output, then exit.
    #[arg(long, exclusive = true)]
    print_config: bool,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Make, list and revoke the API keys of business services; works while the daemon runs.
    #[command(subcommand)]
    ApiKey(KeyTask),
}

#[derive(Debug, Subcommand)]
enum KeyTask {
    /// Make a key and show it, this once.
    Create(Named),
    /// List all keys by name; keys themselves are not stored.
    List {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Refuse a key from now on.
    Revoke(Named),
}

#[derive(Debug, Args)]
struct Named {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Who the key is for.
    #[arg(long)]
    name: String,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The daemon did not start, or had to stop.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The operating system refuses something that every program needs.
    #[error("the coordinator could not {0}: {1}")]
    System(&'static str, io::Error),
    /// A key with this name cannot be made or revoked.
    #[error("{0}")]
    Name(String),
}

impl CommandError {
    /// The process's exit code: 2 for a bad configuration or argument, 1 for everything else.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Name(_) => 2.into(),
            Self::Store(_) | Self::Serve(_) | Self::System(..) => 1.into(),
        }
    }
}

impl Command {
    /// Does what the command line says.
    ///
    /// # Errors
    /// Says what was being done, why it failed and what to try.
    pub async fn run(self) -> Result<(), CommandError> {
        match (self.task, self.daemon) {
            (Some(Task::ApiKey(task)), _) => task.run().await,
            (None, Daemon { config: Some(path), check_config: true, .. }) => {
                Config::load(&path)?;
                print(&format!("{} is valid", path.display()))
            }
            (None, Daemon { config: Some(path), .. }) => daemon(&path).await,
            (None, Daemon { config: None, .. }) => print(SAMPLE.trim_end()),
        }
    }
}

async fn daemon(path: &Path) -> Result<(), CommandError> {
    let config = Config::load(path)?;
    start_log(&config);
    let heed = |kind| signal(kind).map_err(|e| CommandError::System("watch for signals", e));
    let (mut terminate, mut interrupt) = (heed(SignalKind::terminate())?, heed(SignalKind::interrupt())?);
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(serve(config, shutdown).await?)
}

fn start_log(config: &Config) {
    // The filter was checked when the configuration was loaded.
    let filter = EnvFilter::try_new(&config.log.level).unwrap_or_default();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match config.log.format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).init(),
    }
}

impl KeyTask {
    async fn run(self) -> Result<(), CommandError> {
        let now = Timestamp::now();
        match self {
            Self::Create(Named { config, name }) => {
                if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
                    return Err(CommandError::Name(
                        "--name must have 1 to 64 characters, none of them control characters".into(),
                    ));
                }
                let (key, text) = ApiKey::generate(&name, now);
                if !store(&config)?.add_key(key).await? {
                    let why = format!("a key named {name:?} is in use; choose another name, or revoke it first");
                    return Err(CommandError::Name(why));
                }
                print(&text)
            }
            Self::List { config } => {
                for key in store(&config)?.keys().await? {
                    let state = match key.revoked_at {
                        None => "in use".to_owned(),
                        Some(time) => format!("revoked {time:.0}"),
                    };
                    print(&format!("{}  created {:.0}  {state}  {}", key.id, key.created_at, key.name))?;
                }
                Ok(())
            }
            Self::Revoke(Named { config, name }) => {
                if !store(&config)?.revoke_key(&name, now).await? {
                    let why = format!("no key named {name:?} is in use; see: casemate-coordinator api-key list");
                    return Err(CommandError::Name(why));
                }
                print(&format!("the key {name:?} is revoked; the daemon refuses it from now on"))
            }
        }
    }
}

fn store(config: &Path) -> Result<Store, CommandError> {
    Ok(Store::open(&Config::load(config)?.data_dir)?)
}

fn print(text: &str) -> Result<(), CommandError> {
    writeln!(io::stdout(), "{text}").map_err(|e| CommandError::System("write to standard output", e))
}
