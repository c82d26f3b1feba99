//! `casemate lab`: several appliances and a coordinator on this machine, for trying things out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{CommandResult, exit, say};
use crate::clients::Role;
use crate::lab::{Credentials, Lab, LabError, LabOptions, Running};

/// The longest wait for one process to become healthy.
const START_LIMIT: Duration = Duration::from_secs(60);

#[derive(Subcommand)]
pub(super) enum LabCommand {
    /// Make a lab, or start one that was made before, and leave it running.
    Up(UpArguments),
    /// Stop the processes of a lab, and no others. Its files stay.
    Down(DownArguments),
}

#[derive(Args)]
pub(super) struct UpArguments {
    /// The lab's folder.
    #[arg(long, value_name = "DIR", default_value = "lab")]
    dir: PathBuf,
    /// How many appliances a new lab has.
    #[arg(long, value_name = "N", default_value_t = 3)]
    parties: u16,
    /// Print where everything is as one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct DownArguments {
    /// The lab's folder.
    #[arg(long, value_name = "DIR", default_value = "lab")]
    dir: PathBuf,
}

pub(super) fn run(command: LabCommand) -> CommandResult {
    match command {
        LabCommand::Up(arguments) => up(&arguments),
        LabCommand::Down(arguments) => down(&arguments),
    }
}

/// Where everything of a running lab is.
#[derive(Serialize)]
struct Places {
    coordinator_url: String,
    api_key_file: PathBuf,
    appliances: Vec<AppliancePlace>,
}

#[derive(Serialize)]
struct AppliancePlace {
    party_id: String,
    url: String,
    config: PathBuf,
    ca: PathBuf,
    client_cert: PathBuf,
    client_key: PathBuf,
}

impl Places {
    fn of(lab: &Lab) -> Self {
        let Credentials { ca, certificate, key } = lab.credentials(Role::Operator);
        let place = |party: &crate::lab::Party| AppliancePlace {
            party_id: party.party_id.to_string(),
            url: party.url.clone(),
            config: party.config.clone(),
            ca: ca.clone(),
            client_cert: certificate.clone(),
            client_key: key.clone(),
        };
        Self {
            coordinator_url: lab.coordinator.url.clone(),
            api_key_file: lab.coordinator.api_key_file.clone(),
            appliances: lab.parties.iter().map(place).collect(),
        }
    }
}

fn up(arguments: &UpArguments) -> CommandResult {
    let options = LabOptions { parties: arguments.parties, ..LabOptions::default() };
    let lab = open_or_create(&arguments.dir, &options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let started = lab.start_all()?;
    runtime.block_on(lab.wait_healthy(START_LIMIT))?;
    started.into_iter().for_each(Running::leave);
    let places = Places::of(&lab);
    if arguments.json {
        say(serde_json::to_string(&places)?);
        return Ok(exit::OK);
    }
    say(format!("the lab in {} is running", lab.root.display()));
    for appliance in &places.appliances {
        say(format!("  {}  {}  {}", appliance.party_id, appliance.url, appliance.config.display()));
    }
    say(format!("  coordinator  {}  API key in {}", places.coordinator_url, places.api_key_file.display()));
    say(format!("stop it with: casemate lab down --dir {}", arguments.dir.display()));
    Ok(exit::OK)
}

fn open_or_create(dir: &Path, options: &LabOptions) -> Result<Lab, LabError> {
    if Lab::exists(dir) { Lab::open(dir) } else { Lab::create(dir, options) }
}

fn down(arguments: &DownArguments) -> CommandResult {
    let stopped = Lab::open(&arguments.dir)?.stop()?;
    match stopped.as_slice() {
        [] => say("nothing of this lab was running"),
        names => say(format!("stopped {}", names.join(", "))),
    }
    Ok(exit::OK)
}
