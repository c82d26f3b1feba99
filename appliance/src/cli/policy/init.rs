//! `casemate policy init`: the commented starter bundle.

use std::fs;
use std::path::{Path, PathBuf};

use casemate_policy::bundle::{self, SealFields};
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::super::{CommandResult, Format, exit, say};
use super::starter;

#[derive(Args)]
pub(in crate::cli) struct InitArguments {
    /// The bundle's folder: a new or an empty one.
    #[arg(value_name = "DIR")]
    bundle: PathBuf,
    /// The bundle's name.
    #[arg(long, default_value = "policy")]
    name: String,
    /// The IANA zone of weekdays and hours, as Europe/Zurich.
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(arguments: &InitArguments) -> CommandResult {
    let dir = &arguments.bundle;
    let shown = dir.display();
    if !is_free(dir)? {
        return Err(format!("{shown} is not empty; nothing was written. Give a new folder").into());
    }
    let moved = at_the_desk(&arguments.time_zone)?;
    for (path, text) in starter::FILES {
        let target = dir.join(path);
        let failed = |e: std::io::Error| format!("cannot write {}: {e}", target.display());
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let text = moved.iter().fold(text.to_owned(), |text, (utc, local)| text.replace(utc, local));
        fs::write(&target, text).map_err(failed)?;
    }
    let fields = SealFields {
        name: Some(arguments.name.clone()),
        not_before: None,
        time_zone: Some(arguments.time_zone.clone()),
    };
    let sealed = bundle::seal_as(dir, Timestamp::now(), &fields)?;
    match arguments.format {
        Format::Json => {
            let files: Vec<&str> = starter::FILES.iter().map(|(path, _)| *path).collect();
            say(json!({"bundle": dir, "files": files, "digest": sealed.digest, "version": sealed.version}));
        }
        Format::Human => {
            say(format!("wrote the starter bundle to {shown}: {} files and the manifest", starter::FILES.len()));
            NEXT.lines().for_each(say);
        }
    }
    Ok(exit::OK)
}

/// What a new owner does with the folder.
const NEXT: &str = "edit next, in this order:
  entities.json     your assets, and the addresses that may receive them
  transfers.cedar   chains, limits, hours; the numbers are examples
  recipients.toml   (yours to add) recovery HSMs, and custodians of backups
  keys.cedar        who may make, rotate and revoke keys
  tests/*.json      one case for every rule, with your own numbers
then: casemate policy fmt, check, test, seal, sign; and keep the folder in git";

/// The moments that the starter's tests take for hours at the desk, each with what it is in the bundle's own zone.
fn at_the_desk(name: &str) -> Result<Vec<(&'static str, String)>, String> {
    let known = |e: jiff::Error| format!("--time-zone {name} is not an IANA zone of this host: {e}");
    let zone = jiff::tz::TimeZone::get(name).map_err(known)?;
    let moved = |utc: &'static str| {
        let moment: Timestamp = utc.parse().map_err(known)?;
        let hour = moment.to_zoned(jiff::tz::TimeZone::UTC).datetime();
        Ok((utc, hour.to_zoned(zone.clone()).map_err(known)?.timestamp().to_string()))
    };
    starter::AT_THE_DESK.into_iter().map(moved).collect()
}

fn is_free(dir: &Path) -> Result<bool, String> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(format!("cannot look into {}: {error}", dir.display())),
    }
}
