//! `casemate backup restore`: shows what the policy quorum must sign, and with their signatures brings the shares back.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use casemate_attest::restoration::MAX_STATEMENT;
use casemate_attest::{At, AuditKey, Place};
use casemate_hsm::KeyPurpose;
use casemate_policy::signers::{GivenSignature, MAX_SIGNATURE, Namespace};
use casemate_wire::IdentityKey;
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{Custodians, Failed, backup, line, read};
use crate::backup::{Checked, LeftOut, Mandate, Opened, Plan, Restored, ShareReport};
use crate::cli::hsm::Offline;
use crate::cli::{CommandResult, Format, exit, say};
use crate::config::Config;

#[derive(Args)]
#[command(group(clap::ArgGroup::new("step").required(true).args(["show_statement", "statement"])))]
pub(in crate::cli) struct Arguments {
    /// The backup.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The daemon's configuration on this host. The daemon must not run; `casemate audit init` must have been.
    #[arg(long, value_name = "CONFIG")]
    config: PathBuf,
    #[command(flatten)]
    custodians: Custodians,
    /// Write the statement that the policy's signers must sign to standard output, and what it means to standard error.
    #[arg(long)]
    show_statement: bool,
    /// With --show-statement: how many hours the statement can be used, at most 168.
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(i64).range(1..=168))]
    expires_in: i64,
    /// The statement, exactly as it was shown.
    #[arg(long, value_name = "FILE", requires = "signatures")]
    statement: Option<PathBuf>,
    /// A signature by one of the policy's signers: ssh-keygen -Y sign -n casemate-recovery. Once for each.
    #[arg(long = "signature", value_name = "FILE", requires = "statement")]
    signatures: Vec<PathBuf>,
    /// How to print the result of a restore.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    // Signatures and pieces are checked before anything is opened: without the people nothing at all is done.
    let mandate = mandate(arguments)?;
    let opened = Opened::by(backup(&arguments.file)?, &arguments.custodians.keyring()?)?;
    let checked = opened.check(progress("shares looked at")).map_err(|reports| {
        let lines: Vec<String> = reports.iter().map(line).collect();
        format!("the backup is not complete, so nothing is restored:\n{}", lines.join("\n"))
    })?;
    Offline::with(&arguments.config, |offline| {
        let party = &offline.config.party;
        let plan = offline.runtime.block_on(Plan::of(&checked, party, &offline.store))?;
        match &mandate {
            None => propose(arguments, offline, &plan),
            Some(mandate) => {
                offline.hsm.set_recipients(offline.recipients()?);
                let archive = offline.config.data_dir.join("archive");
                let work = plan.carry_out(mandate, &offline.hsm, &offline.store, &archive, progress("shares sealed"));
                let restored = offline.runtime.block_on(work)?;
                tell(arguments, offline, &checked, mandate, &restored, plan.left_out())
            }
        }
    })?;
    Ok(exit::OK)
}

/// Tells people how far it is.
fn progress(what: &'static str) -> impl FnMut(usize) {
    let telling = std::io::stderr().is_terminal();
    move |done| {
        if telling {
            eprint!("\r{done} {what}   ");
        }
    }
}

fn mandate(arguments: &Arguments) -> Result<Option<Mandate>, Failed> {
    let Some(path) = &arguments.statement else { return Ok(None) };
    let config = Config::load(&arguments.config)?;
    let signatures: Vec<GivenSignature> = arguments
        .signatures
        .iter()
        .map(|path| Ok(GivenSignature { name: path.display().to_string(), armored: read(path, MAX_SIGNATURE)? }))
        .collect::<Result<_, Failed>>()?;
    let text = read(path, MAX_STATEMENT)?;
    Ok(Some(Mandate::of(text, signatures, &config.policy.anchors, Timestamp::now())?))
}

fn propose(arguments: &Arguments, offline: &Offline, plan: &Plan<'_>) -> Result<(), Failed> {
    let now = Timestamp::now();
    let expires = At::new(now + SignedDuration::from_hours(arguments.expires_in))?;
    let statement = plan.statement(&offline.store, At::new(now)?, expires)?;
    std::io::stdout().lock().write_all(statement.to_text()?.as_bytes())?;
    let place = |Place { log, size, root }: &Place| format!("{size} leaves of {log}, root {root}");
    eprintln!("{}: restore the backup with SHA-256 {}", statement.party, statement.backup);
    eprintln!("  it was made at {}", place(&statement.made));
    eprintln!("  it goes into   {}", place(&statement.onto));
    eprintln!("  made at {}, to be used until {}", statement.created, statement.expires);
    eprintln!("it would bring back:");
    plan.shares().iter().map(line).for_each(|line| eprintln!("{line}"));
    for LeftOut { share, why } in plan.left_out() {
        eprintln!("  left out ({why}):\n  {}", line(share));
    }
    eprintln!(
        "next: {} of the policy's signers make sure that the host of this backup is lost or destroyed, and each signs the \
         statement's file: ssh-keygen -Y sign -n {} -f KEY STATEMENT",
        offline.config.policy.anchors.quorum().needed(),
        Namespace::Recovery
    );
    Ok(())
}

fn tell(
    arguments: &Arguments,
    offline: &Offline,
    checked: &Checked,
    mandate: &Mandate,
    restored: &Restored,
    left_out: &[LeftOut],
) -> Result<(), Failed> {
    let head = checked.opened().head();
    let identity = IdentityKey::from_spki(&offline.hsm.public_key(KeyPurpose::Identity)).map_err(|e| e.to_string())?;
    let audit = AuditKey::from_spki(&offline.hsm.public_key(KeyPurpose::Audit)).map_err(|e| e.to_string())?;
    let former = formers(&identity, &restored.shares, checked);
    if arguments.format == Format::Json {
        say(json!({
            "backup": head.id, "restored": restored, "left_out": left_out, "signers": mandate.signers(),
            "statement": mandate.digest(), "identity": identity, "audit": audit, "former_identities": former,
        }));
        return Ok(());
    }
    say(format!("restored from backup {}, signed for by {}:", head.id, mandate.signers().join(", ")));
    restored.shares.iter().map(line).for_each(say);
    for LeftOut { share, why } in left_out {
        say(format!("  left out ({why}):\n  {}", line(share)));
    }
    say(format!("  {} prime pairs were destroyed; new ones are made by themselves", restored.primes_destroyed));
    say("  join tokens from before are refused, and spend windows count as full until they have passed");
    if !former.is_empty() {
        let list = former.iter().map(|key| format!("\"{key}\"")).collect::<Vec<_>>().join(", ");
        say("this HSM has another identity than the shares were made with. On this host:");
        say(format!("  [party]\n  former_identities = [{list}]"));
        say("at each peer, in place of what it has pinned for this party:");
        say(format!(
            "  [[peer]]\n  party_id = \"{}\"\n  identity = \"{identity}\"\n  former_identities = [{list}]\n  audit = \"{audit}\"",
            head.party
        ));
    }
    say(
        "next: start the daemon; have each peer's operator accept this log; rotate every key that came back, so that what was lost",
    );
    say("  serves nobody (docs/runbook.md)");
    Ok(())
}

/// Identities that this party had in the committees of its keys, other than the one of this HSM.
fn formers(own: &IdentityKey, shares: &[ShareReport], checked: &Checked) -> Vec<IdentityKey> {
    let mut found: Vec<IdentityKey> = Vec::new();
    for identity in checked.opened().identities_of(shares) {
        if identity != *own && !found.contains(&identity) {
            found.push(identity);
        }
    }
    found
}
