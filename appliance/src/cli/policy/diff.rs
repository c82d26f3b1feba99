//! `casemate policy diff`.

use std::path::PathBuf;
use std::process::ExitCode;

use casemate_policy::BundleError;
use casemate_policy::bundle::{Change, ChangeKind, Outline, Section, difference};
use clap::Args;
use serde_json::json;

use super::super::{CommandResult, Format, exit, say};
use super::report::{error_json, error_lines};
use super::{existing, lines};

#[derive(Args)]
pub(in crate::cli) struct DiffArguments {
    /// The bundle that is in force.
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The bundle that shall replace it.
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(arguments: &DiffArguments) -> CommandResult {
    let DiffArguments { old, new, format } = arguments;
    existing(old)?;
    existing(new)?;
    let outlines = Outline::read(old).map_err(|error| (old, error)).and_then(|before| {
        let after = Outline::read(new).map_err(|error| (new, error))?;
        Ok((before, after))
    });
    let (before, after) = match outlines {
        Ok(both) => both,
        Err((dir, error)) => return Ok(unreadable(&dir.display().to_string(), &error, *format)),
    };
    let changes = difference(&before, &after);
    match format {
        Format::Json => {
            say(json!({"same": changes.is_empty(), "changes": changes, "unsealed": after.unsealed}));
        }
        Format::Human => {
            changes.iter().flat_map(told).for_each(say);
            say(summary(&changes));
            if !after.unsealed.is_empty() {
                say(format!(
                    "{} has changes since it was sealed; `casemate policy seal` is still to come",
                    new.display()
                ));
            }
        }
    }
    Ok(exit::OK)
}

/// There was nothing to compare, which is an error and no answer.
fn unreadable(dir: &str, error: &BundleError, format: Format) -> ExitCode {
    match format {
        Format::Json => say(json!({"bundle": dir, "error": error_json(error)})),
        Format::Human => {
            say(format!("{dir} cannot be compared:"));
            error_lines(error).into_iter().for_each(say);
        }
    }
    exit::error()
}

fn told(change: &Change) -> Vec<String> {
    let what = match change.section {
        Section::Manifest => "manifest",
        Section::Policy => "policy",
        Section::Asset => "asset",
        Section::AddressBook => "address book",
        Section::Address => "address",
        Section::KeyGroup => "key group",
        Section::GroupMember => "key group member",
        Section::Calendar => "calendar",
        Section::CalendarDay => "calendar day",
        Section::Recipient => "recipient",
        Section::Test => "test",
    };
    let became = match change.change {
        ChangeKind::Added => "added",
        ChangeKind::Removed => "removed",
        ChangeKind::Changed => "changed",
    };
    let (old, new) = (change.old.as_deref().unwrap_or_default(), change.new.as_deref().unwrap_or_default());
    let mut told = vec![format!("{became} {what} {}", change.name)];
    if change.section == Section::Address && old.is_empty() != new.is_empty() {
        told.push(format!("    {old}{new}"));
    } else {
        told.extend(lines::compared(old, new).into_iter().map(|line| format!("    {line}")));
    }
    told
}

fn summary(changes: &[Change]) -> String {
    if changes.is_empty() {
        return "no differences: both bundles say the same".into();
    }
    let count = |kind| changes.iter().filter(|change| change.change == kind).count();
    format!(
        "{} added, {} removed, {} changed",
        count(ChangeKind::Added),
        count(ChangeKind::Removed),
        count(ChangeKind::Changed)
    )
}
