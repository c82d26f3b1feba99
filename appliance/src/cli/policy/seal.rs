//! `casemate policy seal`.

use std::path::PathBuf;

use casemate_policy::bundle::{self, SealFields};
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::super::{CommandResult, Format, exit, say};
use super::existing;

#[derive(Args)]
pub(in crate::cli) struct SealArguments {
    /// The bundle's folder.
    #[arg(value_name = "DIR")]
    bundle: PathBuf,
    /// The bundle's name; stays as it was if absent.
    #[arg(long)]
    name: Option<String>,
    /// When it comes into force, as 2026-12-01T08:00:00Z; stays as it was if absent.
    #[arg(long, value_name = "TIME")]
    not_before: Option<Timestamp>,
    /// The IANA zone of weekdays and hours, as Europe/Zurich; stays as it was if absent.
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(arguments: &SealArguments) -> CommandResult {
    let SealArguments { bundle: dir, name, not_before, time_zone, format } = arguments;
    existing(dir)?;
    let fields = SealFields { name: name.clone(), not_before: *not_before, time_zone: time_zone.clone() };
    let sealed = bundle::seal_as(dir, Timestamp::now(), &fields)?;
    match format {
        Format::Json => say(json!({
            "digest": sealed.digest, "version": sealed.version, "signatures_removed": sealed.signatures_removed,
        })),
        Format::Human => {
            say(format!("sealed {}: version {}", dir.display(), sealed.version));
            say(format!("digest {}", sealed.digest));
            if sealed.signatures_removed > 0 {
                say(format!("removed {} signatures of the manifest before", sealed.signatures_removed));
            }
            say("next: `casemate policy check`, then have it signed: the digest is what every signer compares");
        }
    }
    Ok(exit::OK)
}
