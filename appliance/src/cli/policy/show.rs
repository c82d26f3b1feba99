//! `casemate policy show`.

use std::path::{Path, PathBuf};

use casemate_policy::bundle::{ManifestOutline, Outline, SignatureReport, signatures};
use casemate_policy::signers::Principal;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::{CommandResult, Format, exit, say};
use super::existing;
use super::report::{error_json, error_lines};
use super::signers::SignerArguments;

#[derive(Args)]
pub(in crate::cli) struct ShowArguments {
    /// The bundle's folder.
    #[arg(value_name = "DIR")]
    bundle: PathBuf,
    #[command(flatten)]
    signers: SignerArguments,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(arguments: &ShowArguments) -> CommandResult {
    let dir = &arguments.bundle;
    existing(dir)?;
    let outline = match Outline::read(dir) {
        Ok(outline) => outline,
        Err(error) => {
            match arguments.format {
                Format::Json => say(json!({"error": error_json(&error)})),
                Format::Human => error_lines(&error).into_iter().for_each(say),
            }
            return Ok(exit::error());
        }
    };
    let report = match (arguments.signers.anchors()?, &outline.manifest) {
        (Some(anchors), Some(_)) => Some(signatures(dir, &anchors, Timestamp::now())?),
        _ => None,
    };
    match arguments.format {
        Format::Json => {
            let mut shown = json!(outline);
            if let (Some(report), Value::Object(fields)) = (&report, &mut shown) {
                fields.insert("signed".into(), in_json(report));
            }
            say(shown);
        }
        Format::Human => {
            tell(dir, &outline);
            tell_signatures(&outline, report.as_ref());
        }
    }
    Ok(exit::OK)
}

fn in_json(report: &SignatureReport) -> Value {
    let ignored: Vec<String> = report.ignored.iter().map(ToString::to_string).collect();
    let signers: Vec<&str> = report.signers.iter().map(Principal::as_str).collect();
    json!({"quorum": report.quorum, "signers": signers, "ignored": ignored, "reached": reached(report)})
}

fn reached(report: &SignatureReport) -> bool {
    report.signers.len() >= usize::from(report.quorum.needed())
}

fn tell_signatures(outline: &Outline, report: Option<&SignatureReport>) {
    let Some(report) = report else {
        let names: Vec<&str> = outline.signatures.iter().map(String::as_str).collect();
        say(format!("signature files, not looked at (--allowed-signers and --quorum would): {}", names.join(", ")));
        return;
    };
    let state = if reached(report) { "reached" } else { "NOT reached" };
    say(format!("quorum {} {state}", report.quorum));
    report.signers.iter().for_each(|name| say(format!("  signed by {name}")));
    report.ignored.iter().for_each(|ignored| say(format!("  does not count: {ignored}")));
}

fn tell(dir: &Path, outline: &Outline) {
    match &outline.manifest {
        Some(manifest) => tell_manifest(manifest),
        None => say(format!("{} was never sealed; `casemate policy seal` writes its manifest", dir.display())),
    }
    for path in &outline.unsealed {
        if outline.manifest.is_some() {
            say(format!("  CHANGED since it was sealed: {path}"));
        }
    }
    say("policies");
    for (id, policy) in &outline.policies {
        let reason = policy.reason.as_deref().unwrap_or("(no @reason)");
        say(format!("  {} {id} ({}): {reason}", policy.effect, policy.file));
    }
    let entities = &outline.entities;
    say("assets");
    entities.assets.iter().for_each(|(id, asset)| say(format!("  {id}: {asset}")));
    say("address books");
    for (book, addresses) in &entities.address_books {
        say(format!("  {book}: {} addresses", addresses.len()));
        for (address, note) in addresses {
            say(format!("    {address}  {note}").trim_end());
        }
    }
    say("key groups");
    for (group, members) in &entities.key_groups {
        say(format!("  {group}: {}", members.iter().cloned().collect::<Vec<_>>().join(", ")));
    }
    say("calendars");
    for (calendar, days) in &entities.calendars {
        say(format!("  {calendar}: {}", days.iter().cloned().collect::<Vec<_>>().join(", ")));
    }
    say("recipients");
    outline.recipients.iter().for_each(|(name, recipient)| say(format!("  {name}: {recipient}")));
    say(format!("tests: {}", outline.tests.len()));
    outline.tests.keys().for_each(|name| say(format!("  {name}")));
    say("files");
    outline.files.iter().for_each(|(path, digest)| say(format!("  {digest}  {path}")));
}

fn tell_manifest(manifest: &ManifestOutline) {
    say(format!("{} version {}, for schema {}", manifest.name, manifest.version, manifest.schema));
    say(format!("digest {}", manifest.digest));
    say(format!("in force from {}, hours in {}", manifest.not_before, manifest.time_zone));
    match manifest.previous {
        Some(previous) => say(format!("succeeds {previous}")),
        None => say("succeeds no other"),
    }
}
