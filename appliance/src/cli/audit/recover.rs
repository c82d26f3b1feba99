//! `casemate audit recover`: shows what the policy quorum must sign before the appliance goes on in a new log; and with
//! their signatures begins it.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use casemate_attest::recovery::MAX_STATEMENT;
use casemate_attest::{At, LogId, Place};
use casemate_hsm::Hsm;
use casemate_policy::signers::{GivenSignature, MAX_SIGNATURE, Namespace};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::super::{CommandResult, Format, exit, say};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::store::{HsmAnchor, Mandate, Proposal, Recovered, Stopped};
use crate::vault::Vault;

#[derive(Args)]
#[command(group(clap::ArgGroup::new("step").required(true).args(["show_statement", "statement"])))]
pub(in crate::cli) struct Arguments {
    /// The daemon's configuration. The daemon must not run.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Write the statement that the policy's signers must sign to standard output, and what it means to standard error.
    #[arg(long)]
    show_statement: bool,
    /// With --show-statement: log and HSM agree, but you know that both were restored to an older moment.
    #[arg(long, requires = "show_statement")]
    restored: bool,
    /// With --show-statement: how many hours the statement can be used, at most 168.
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(i64).range(1..=168))]
    expires_in: i64,
    /// The statement, exactly as it was shown.
    #[arg(long, value_name = "FILE", requires = "signatures", conflicts_with = "restored")]
    statement: Option<PathBuf>,
    /// A signature by one of the policy's signers: ssh-keygen -Y sign -n casemate-recovery. Once for each.
    #[arg(long = "signature", value_name = "FILE", requires = "statement")]
    signatures: Vec<PathBuf>,
    /// How to print the result of a recovery.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    let config = Config::load(&arguments.config)?;
    // Signatures are checked before anything is opened: without the quorum nothing at all is done.
    let mandate = match &arguments.statement {
        None => None,
        Some(path) => {
            let signatures = arguments.signatures.iter().map(|path| signature(path)).collect::<Result<_, _>>()?;
            Some(Mandate::of(read(path, MAX_STATEMENT)?, signatures, &config.policy.anchors, Timestamp::now())?)
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let hsm = Vault::new(runtime.block_on(Hsm::open(config.hsm.clone()))?, Metrics::new().hsm());
    let anchor = Box::new(HsmAnchor::new(hsm.clone(), runtime.handle().clone()));
    let done = Stopped::open(&config.data_dir, anchor).map_err(Into::into).and_then(|stopped| match &mandate {
        None => propose(arguments, &config, &stopped),
        Some(mandate) => {
            let recovered = stopped.recover(&config.party, mandate, Timestamp::now())?;
            tell(arguments, mandate, &recovered);
            Ok(exit::OK)
        }
    });
    runtime.block_on(hsm.shutdown())?;
    done
}

fn propose(arguments: &Arguments, config: &Config, stopped: &Stopped) -> CommandResult {
    let now = Timestamp::now();
    let expires = At::new(now + SignedDuration::from_hours(arguments.expires_in))?;
    // Two logs never share a name, and so no two statements are one.
    let log: LogId = format!("casemate/{}/{:08x}", config.party, rand::random::<u32>()).parse()?;
    let proposal = stopped.propose(&config.party, arguments.restored, log, At::new(now)?, expires)?;
    let text = proposal.statement.to_text()?;
    std::io::stdout().lock().write_all(text.as_bytes())?;
    for line in explain(&proposal, config) {
        eprintln!("{line}");
    }
    Ok(exit::OK)
}

/// What the statement means, for people: on standard error, as the statement itself goes into a file.
fn explain(proposal: &Proposal, config: &Config) -> Vec<String> {
    let Proposal { statement, finding, carried, latest } = proposal;
    let mut lines = vec![format!("{}: {}", statement.party, statement.verdict.as_str())];
    let place = |place: &Option<Place>| match place {
        Some(Place { log, size, root }) => format!("{size} leaves of {log}, root {root}"),
        None => "nothing".into(),
    };
    lines.push(format!("  the HSM has anchored {}", place(&statement.anchored)));
    lines.push(format!("  the database holds   {}", place(&statement.found)));
    lines.push(format!("  the new log will be  {}", statement.log));
    lines.push(format!("  made at {}, to be used until {}", statement.created, statement.expires));
    if let Some(latest) = latest.filter(|latest| *latest > statement.created) {
        lines.push(format!(
            "  WARNING: the old log was still written at {latest}: this host's clock is wrong, set it first"
        ));
    }
    let differences = finding.iter().flat_map(|finding| &finding.differences);
    lines.extend(differences.map(|difference| format!("  differs: {difference}")));
    lines.push(format!("the new log takes over (SHA-256 {}):", statement.tables));
    lines.extend(carried.shares.iter().map(|(id, status)| format!("  share {id}: {status}")));
    lines.extend(carried.bundle.values().map(|bundle| format!("  policy bundle: {bundle}")));
    lines.extend(carried.peers.iter().map(|(party, at)| format!("  log of {party}: {} leaves of {}", at.size, at.log)));
    lines.push(format!("  sessions: {}; used approvals: {}", carried.sessions.len(), carried.approvals.len()));
    let quorum = config.policy.anchors.quorum();
    let namespace = Namespace::Recovery;
    lines.push(format!(
        "next: {} of the policy's signers look into it (docs/runbook.md), and each signs the statement's file: \
         ssh-keygen -Y sign -n {namespace} -f KEY STATEMENT",
        quorum.needed()
    ));
    lines
}

fn tell(arguments: &Arguments, mandate: &Mandate, recovered: &Recovered) {
    let (what, place) = match recovered {
        Recovered::Begun(place) => ("begun", place),
        Recovered::Finished(place) => ("finished", place),
        Recovered::Before(place) => ("done before", place),
    };
    let signers = mandate.signers();
    if arguments.format == Format::Json {
        say(json!({
            "recovery": what, "log": place.log, "size": place.size, "root": place.root, "signers": signers,
            "statement": mandate.digest(),
        }));
        return;
    }
    say(format!(
        "{what}: the audit log {} takes the place of the old one, signed for by {}",
        place.log,
        signers.join(", ")
    ));
    say("  the old log lies in the data folder, in archive/; keep a copy elsewhere");
    say(
        "  join tokens from before are refused, spend windows count as full until they have passed, primes are made anew",
    );
    say(
        "next: start the daemon; have each peer's operator accept the new log; seal and sign the policy again, which ends",
    );
    say("  approvals from before (docs/runbook.md)");
}

pub(super) fn signature(path: &Path) -> Result<GivenSignature, Box<dyn std::error::Error>> {
    Ok(GivenSignature { name: path.display().to_string(), armored: read(path, MAX_SIGNATURE)? })
}

/// A file, up to one byte more than may be.
pub(super) fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let limit = u64::try_from(limit)?.saturating_add(1);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    file.take(limit).read_to_end(&mut bytes).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(bytes)
}
