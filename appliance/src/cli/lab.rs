//! `casemate lab`: several appliances and a coordinator on this machine, for trying things out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{CommandResult, exit, say};
use crate::clients::Role;
use crate::lab::demo::{self, Outcome};
use crate::lab::{Credentials, Lab, LabOptions, Output, Party, Progress, Running, stop_all};

/// The longest wait for one process to become healthy.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Steps before those of the main job.
const UP_STEPS: usize = 2;

#[derive(Subcommand)]
pub(super) enum LabCommand {
    /// Make a lab, or start one that was made before, and leave it running.
    Up(UpArguments),
    /// Stop the processes of a lab, and no others. Its files stay.
    Down(DownArguments),
    /// Do the main job: make a key, sign a transaction that the policy allows, have one over its limit refused, sign that
    /// one once two people approved it, and verify it all in the audit logs. Exit code 0 only if all holds.
    Demo(DemoArguments),
}

#[derive(Args)]
pub(super) struct UpArguments {
    /// The lab's folder.
    #[arg(long, value_name = "DIR", default_value = "lab")]
    dir: PathBuf,
    /// How many appliances a new lab has.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(2..=20))]
    parties: u16,
    /// Print where everything is as one JSON document on standard output, and progress on standard error.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct DownArguments {
    /// The lab's folder.
    #[arg(long, value_name = "DIR", default_value = "lab")]
    dir: PathBuf,
}

#[derive(Args)]
pub(super) struct DemoArguments {
    /// The lab's folder; a lab that is there is used.
    #[arg(long, value_name = "DIR", default_value = "lab")]
    dir: PathBuf,
    /// How many appliances a new lab has. The key can do without the smaller half of them.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..=20))]
    parties: u16,
    /// Leave the lab running.
    #[arg(long)]
    keep: bool,
    /// Print a summary as one JSON document on standard output, and progress on standard error.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: LabCommand) -> CommandResult {
    match command {
        LabCommand::Up(arguments) => up(&arguments),
        LabCommand::Down(arguments) => down(&arguments),
        LabCommand::Demo(arguments) => demonstrate(&arguments),
    }
}

/// Where everything of a lab is.
#[derive(Serialize)]
struct Places {
    lab: PathBuf,
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
        let place = |party: &Party| AppliancePlace {
            party_id: party.party_id.to_string(),
            url: party.url.clone(),
            config: party.config.clone(),
            ca: ca.clone(),
            client_cert: certificate.clone(),
            client_key: key.clone(),
        };
        Self {
            lab: lab.root.clone(),
            coordinator_url: lab.coordinator.url.clone(),
            api_key_file: lab.coordinator.api_key_file.clone(),
            appliances: lab.parties.iter().map(place).collect(),
        }
    }

    fn tell(&self, progress: &mut Progress) {
        progress.say(&format!("lab          {}", self.lab.display()));
        progress.say(&format!("coordinator  {}  (API key in {})", self.coordinator_url, self.api_key_file.display()));
        for appliance in &self.appliances {
            let AppliancePlace { party_id, url, config, .. } = appliance;
            progress.say(&format!("{party_id:<11}  {url}  {}", config.display()));
        }
    }
}

/// What `lab demo --json` prints.
#[derive(Serialize)]
struct Summary {
    #[serde(flatten)]
    outcome: Outcome,
    #[serde(flatten)]
    places: Places,
    /// Whether the processes were left running.
    running: bool,
    /// Seconds by step.
    timings: BTreeMap<&'static str, f64>,
}

fn up(arguments: &UpArguments) -> CommandResult {
    let mut progress = Progress::new(output(arguments.json), UP_STEPS);
    let (lab, started) = interruptible(async || bring_up(&arguments.dir, arguments.parties, &mut progress).await)?;
    started.into_iter().for_each(Running::leave);
    let places = Places::of(&lab);
    places.tell(&mut progress);
    progress.say(&how_to_stop(&lab));
    if arguments.json {
        say(serde_json::to_string(&places)?);
    }
    Ok(exit::OK)
}

fn down(arguments: &DownArguments) -> CommandResult {
    let stopped = Lab::open(&arguments.dir)?.stop()?;
    match stopped.as_slice() {
        [] => say("nothing of this lab was running"),
        names => say(format!("stopped {}", names.join(", "))),
    }
    Ok(exit::OK)
}

fn demonstrate(arguments: &DemoArguments) -> CommandResult {
    let mut progress = Progress::new(output(arguments.json), UP_STEPS + demo::STEPS);
    let (lab, started, outcome) = interruptible(async || {
        let (lab, started) = bring_up(&arguments.dir, arguments.parties, &mut progress).await?;
        let outcome = demo::run(&lab, &mut progress).await?;
        Ok((lab, started, outcome))
    })?;
    let timings = progress.timings();
    if arguments.keep {
        started.into_iter().for_each(Running::leave);
    } else {
        stop_all(started)?;
    }
    let places = Places::of(&lab);
    progress.say("everything held");
    places.tell(&mut progress);
    for path in &outcome.audit_logs {
        progress.say(&format!("audit log    {}  (casemate audit show)", path.display()));
    }
    if arguments.keep {
        progress.say(&how_to_stop(&lab));
    }
    if arguments.json {
        let summary = Summary { outcome, places, running: arguments.keep, timings };
        say(serde_json::to_string(&summary)?);
    }
    Ok(exit::OK)
}

/// Makes or opens the lab, and starts what does not run. What it started is killed again when the handles are dropped.
async fn bring_up(dir: &Path, parties: u16, progress: &mut Progress) -> Result<(Lab, Vec<Running>), Failure> {
    let lab = if Lab::exists(dir) {
        progress.begin("lab", &format!("The lab in {}", dir.display()));
        Lab::open(dir)?
    } else {
        let title = format!(
            "A lab in {}: certificates, configurations, policy, {parties} SoftHSM tokens with their keys (usually 2 s)",
            dir.display()
        );
        progress.begin("lab", &title);
        let (dir, options) = (dir.to_owned(), LabOptions { parties, ..LabOptions::default() });
        progress.during(tokio::task::spawn_blocking(move || Lab::create(&dir, &options))).await??
    };
    progress.done(&[]);
    progress
        .begin("start", &format!("{} appliances and a coordinator, each a process (usually 2 s)", lab.parties.len()));
    let started = lab.start_all()?;
    progress.during(lab.wait_healthy(START_LIMIT)).await?;
    progress.done(&[]);
    Ok((lab, started))
}

type Failure = Box<dyn std::error::Error>;

/// Runs the work until it ends or the user has enough of it; dropping it ends what it started.
fn interruptible<T>(work: impl AsyncFnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            result = work() => result,
            _ = interrupt.recv() => Err("interrupted; what was started is stopped again".into()),
            _ = terminate.recv() => Err("told to stop; what was started is stopped again".into()),
        }
    })
}

fn output(json: bool) -> Output {
    if json { Output::Stderr } else { Output::Stdout }
}

fn how_to_stop(lab: &Lab) -> String {
    let program = lab.bin_dir.join("casemate");
    format!("it runs on; stop it with: {} lab down --dir {}", program.display(), lab.root.display())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::lab::demo::{Approved, Attested, Refused, SignatureParts};
    use casemate_wire::{Code, Digest32};

    #[test]
    fn the_summary_has_every_field_that_scripts_rely_on() {
        let parts = SignatureParts { der: "3006".into(), r: "01".into(), s: "02".into(), v: 1 };
        let refused = Refused {
            code: Code::PolicyDenied,
            policies: vec!["per-transfer-limit".into()],
            detail: "too much".into(),
            message_hash: Digest32([2; 32]),
        };
        let outcome = Outcome {
            public_key: "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().unwrap(),
            address: "0x7E5F".into(),
            account_id: "account".into(),
            threshold: "2-of-3".into(),
            signers: vec!["party-1".parse().unwrap()],
            signed_transaction: "0x02".into(),
            transaction_hash: "0x03".into(),
            message_hash: Digest32([1; 32]),
            signature: parts,
            refused,
            approved: Approved {
                approvers: vec!["approver-1@treasury".into()],
                message_hash: Digest32([2; 32]),
                signed_transaction: "0x02".into(),
            },
            attestations: vec![Attested {
                party: "party-1".parse().unwrap(),
                verdict: "affirming",
                binary: Digest32([3; 32]),
                policy: Some(Digest32([4; 32])),
                audit_size: 7,
            }],
            audit_logs: vec!["a.jsonl".into()],
        };
        let appliance = AppliancePlace {
            party_id: "party-1".into(),
            url: "https://127.0.0.1:1".into(),
            config: "casemate.toml".into(),
            ca: "ca.pem".into(),
            client_cert: "operator.pem".into(),
            client_key: "operator.key".into(),
        };
        let places = Places {
            lab: "lab".into(),
            coordinator_url: "http://127.0.0.1:2".into(),
            api_key_file: "api.key".into(),
            appliances: vec![appliance],
        };
        let timings = BTreeMap::from([("total", 1.5)]);
        let summary = serde_json::to_value(Summary { outcome, places, running: false, timings }).unwrap();
        for pointer in [
            "/public_key",
            "/address",
            "/account_id",
            "/signed_transaction",
            "/message_hash",
            "/signature/der",
            "/signature/r",
            "/signature/s",
            "/signature/v",
            "/refused/code",
            "/refused/policies/0",
            "/approved/approvers/0",
            "/approved/signed_transaction",
            "/attestations/0/verdict",
            "/attestations/0/binary",
            "/audit_logs/0",
            "/coordinator_url",
            "/api_key_file",
            "/appliances/0/party_id",
            "/appliances/0/url",
            "/appliances/0/config",
            "/appliances/0/ca",
            "/appliances/0/client_cert",
            "/appliances/0/client_key",
            "/timings/total",
        ] {
            assert!(summary.pointer(pointer).is_some(), "{pointer} is missing");
        }
        assert_eq!(summary.pointer("/refused/code").unwrap(), "policy_denied");
    }
}
