//! `casemate policy fmt`.

use std::fs;
use std::path::{Path, PathBuf};

use casemate_policy::bundle;
use clap::Args;
use serde_json::json;

use super::super::{CommandResult, Format, exit, say};
use super::report::{error_json, error_lines};

#[derive(Args)]
pub(in crate::cli) struct FmtArguments {
    /// Bundles' folders, or single Cedar files.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Change nothing; exit code 1 if a file would change.
    #[arg(long)]
    check: bool,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(arguments: &FmtArguments) -> CommandResult {
    let mut changed = Vec::new();
    let mut faults = Vec::new();
    for path in cedar_files(&arguments.paths)? {
        let shown = path.display().to_string();
        let text = fs::read_to_string(&path).map_err(|e| format!("cannot read {shown}: {e}"))?;
        match bundle::format(&shown, &text) {
            Err(error) => faults.push(error),
            Ok(formatted) if formatted == text => {}
            Ok(formatted) => {
                if !arguments.check {
                    fs::write(&path, formatted).map_err(|e| format!("cannot write {shown}: {e}"))?;
                }
                changed.push(shown);
            }
        }
    }
    match arguments.format {
        Format::Json => {
            let faults: Vec<_> = faults.iter().map(error_json).collect();
            say(json!({"changed": changed, "written": !arguments.check, "errors": faults}));
        }
        Format::Human => {
            let done = if arguments.check { "is not formatted" } else { "formatted" };
            for path in &changed {
                say(format!("{path}: {done}"));
            }
            faults.iter().flat_map(error_lines).for_each(say);
            if arguments.check && !changed.is_empty() {
                say("run `casemate policy fmt` on it");
            }
        }
    }
    let holds = faults.is_empty() && (changed.is_empty() || !arguments.check);
    Ok(if holds { exit::OK } else { exit::fails() })
}

/// The Cedar files of these folders and the files themselves, sorted.
fn cedar_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(in_folder(path)?);
        } else {
            found.push(path.clone());
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn in_folder(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |e: std::io::Error| format!("cannot list {}: {e}", dir.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "cedar") {
            found.push(path);
        }
    }
    Ok(found)
}
