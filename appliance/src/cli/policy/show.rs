//! `casemate policy show`.

use std::path::{Path, PathBuf};

use casemate_policy::bundle::{ManifestOutline, Outline};
use clap::Args;
use serde_json::json;

use super::super::{CommandResult, Format, exit, say};
use super::existing;
use super::report::{error_json, error_lines};

#[derive(Args)]
pub(in crate::cli) struct ShowArguments {
    /// The bundle's folder.
    #[arg(value_name = "DIR")]
    bundle: PathBuf,
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
    match arguments.format {
        Format::Json => say(json!(outline)),
        Format::Human => tell(dir, &outline),
    }
    Ok(exit::OK)
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
        addresses.iter().for_each(|(address, note)| say(format!("    {address}  {note}").trim_end()));
    }
    say("key groups");
    for (group, members) in &entities.key_groups {
        say(format!("  {group}: {}", members.iter().cloned().collect::<Vec<_>>().join(", ")));
    }
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
