//! `casemate policy test`.

use std::path::PathBuf;

use casemate_policy::bundle::{CaseReport, Draft};
use clap::Args;
use serde_json::json;

use super::super::{CommandResult, Format, exit, say};
use super::clients::ClientArguments;
use super::existing;
use super::report::{error_json, error_lines};

#[derive(Args)]
pub(in crate::cli) struct TestArguments {
    /// The bundle's folder.
    #[arg(value_name = "DIR")]
    bundle: PathBuf,
    #[command(flatten)]
    clients: ClientArguments,
    /// Name the tests that pass, too.
    #[arg(long, short)]
    verbose: bool,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(arguments: &TestArguments) -> CommandResult {
    existing(&arguments.bundle)?;
    let draft = match Draft::read(&arguments.bundle, &arguments.clients.known()?.clients) {
        Ok(draft) => draft,
        Err(error) => {
            match arguments.format {
                Format::Human => error_lines(&error).into_iter().for_each(say),
                Format::Json => say(json!({"passed": 0, "failed": [], "untested": [], "error": error_json(&error)})),
            }
            return Ok(exit::fails());
        }
    };
    let (reports, untested) = (draft.run_cases(), draft.untested());
    let failed: Vec<&CaseReport> = reports.iter().filter(|report| !report.passed()).collect();
    match arguments.format {
        Format::Human => {
            reports.iter().filter(|report| arguments.verbose || !report.passed()).for_each(tell);
            for missing in &untested {
                say(format!("UNTESTED {missing}"));
            }
            say(format!("{} passed, {} failed", reports.len() - failed.len(), failed.len()));
        }
        Format::Json => say(json!({
            "passed": reports.len() - failed.len(), "failed": failed, "untested": untested,
        })),
    }
    Ok(if failed.is_empty() && untested.is_empty() { exit::OK } else { exit::fails() })
}

fn tell(report: &CaseReport) {
    let CaseReport { file, name, expected, got, reason } = report;
    if report.passed() {
        say(format!("ok {file}: {name}"));
        return;
    }
    say(format!("FAILED {file}: {name}"));
    say(format!("    expected {}", in_words(expected)));
    match got {
        Some(got) => say(format!("    got      {}", in_words(got))),
        None => say("    got      no verdict: the request could not be judged"),
    }
    if !reason.is_empty() {
        say(format!("    {reason}"));
    }
}

fn in_words(outcome: &casemate_policy::bundle::Outcome) -> String {
    use casemate_policy::bundle::Effect;
    let verdict = match outcome.verdict {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    };
    let policies: Vec<&str> = outcome.policies.iter().map(String::as_str).collect();
    match (outcome.verdict, policies.as_slice()) {
        (_, [_, ..]) => format!("{verdict} by {}", policies.join(", ")),
        (Effect::Deny, []) => format!("{verdict}, since no permit matches"),
        (Effect::Allow, []) => format!("{verdict} by no policy"),
    }
}
