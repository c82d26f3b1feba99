//! `casemate policy explain`.

use std::io::Read;
use std::path::{Path, PathBuf};

use casemate_policy::bundle::{Draft, Outline};
use casemate_policy::{Denied, PolicyNote, Verdict};
use clap::Args;
use serde_json::{Value, json};

use super::super::{CommandResult, Format, exit, say};
use super::clients::ClientArguments;
use super::existing;
use super::report::{error_json, error_lines};

#[derive(Args)]
pub(in crate::cli) struct ExplainArguments {
    /// The request, in the form of a test case's `request`; - for standard input.
    #[arg(value_name = "REQUEST.json")]
    request: PathBuf,
    /// The bundle's folder.
    #[arg(long, value_name = "DIR", default_value = "/etc/casemate/policy")]
    bundle: PathBuf,
    #[command(flatten)]
    clients: ClientArguments,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What every limit over time leaves open.
const COUNTED_HERE: &str = "limits over time are counted by each party for what it took part in: with changing quorums of t \
                            among n parties, a key or group can reach n/t times such a limit";

pub(super) fn run(arguments: &ExplainArguments) -> CommandResult {
    let dir = &arguments.bundle;
    existing(dir)?;
    let request = read(&arguments.request)?;
    let draft = match Draft::read(dir, &arguments.clients.known()?.clients) {
        Ok(draft) => draft,
        Err(error) => {
            match arguments.format {
                Format::Human => {
                    say(format!("{} would be refused, and every request with it:", dir.display()));
                    error_lines(&error).into_iter().for_each(say);
                }
                Format::Json => say(json!({"error": error_json(&error)})),
            }
            return Ok(exit::error());
        }
    };
    let verdict = draft.explain(&request)?;
    match arguments.format {
        Format::Human => tell(&verdict),
        Format::Json => say(in_json(&verdict)),
    }
    if counts(dir) && arguments.format == Format::Human {
        say(format!("note: {COUNTED_HERE}"));
    }
    Ok(match verdict {
        Verdict::Allow(_) => exit::OK,
        Verdict::Deny(_) => exit::fails(),
    })
}

/// A request is small; what is larger is another file.
const MAX_REQUEST: u64 = 1024 * 1024;

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let limit = MAX_REQUEST + 1;
    let result = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(limit).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text))
    };
    let shown = path.display();
    let read = result.map_err(|e| format!("cannot read the request {shown}: {e}"))?;
    if u64::try_from(read).is_ok_and(|read| read > MAX_REQUEST) {
        return Err(format!("{shown} is larger than {MAX_REQUEST} bytes; it cannot be one request"));
    }
    Ok(text)
}

/// Whether any policy of the bundle looks at what was signed before.
fn counts(dir: &Path) -> bool {
    let looks = ["context.spent", "context.group_spent", "context.fees", "context.count", "context.group_count"];
    Outline::read(dir).is_ok_and(|outline| {
        outline.policies.values().any(|policy| looks.iter().any(|attribute| policy.text.contains(attribute)))
    })
}

fn in_json(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Allow(allowed) => json!({
            "verdict": "allow", "policies": allowed.policies(), "bundle": allowed.bundle_digest(), "note": COUNTED_HERE,
        }),
        Verdict::Deny(denied) => json!({
            "verdict": "deny", "code": denied.code(), "policies": denied.policies(), "reason": denied.reason(),
            "observed": denied.observed(), "permitted": denied.permitted(), "bundle": denied.bundle_digest(),
            "note": COUNTED_HERE,
        }),
    }
}

fn tell(verdict: &Verdict) {
    match verdict {
        Verdict::Allow(allowed) => {
            say("ALLOWED by");
            allowed.policies().iter().for_each(tell_permit);
        }
        Verdict::Deny(denied) => tell_refusal(denied),
    }
}

fn tell_permit(note: &PolicyNote) {
    match &note.reason {
        Some(reason) => say(format!("  {}: {reason}", note.id)),
        None => say(format!("  {}", note.id)),
    }
}

fn tell_refusal(denied: &Denied) {
    say("REFUSED");
    denied.explanation().iter().for_each(|line| say(format!("  {line}")));
    for effect in denied.observed() {
        say("observed");
        for (name, value) in effect.as_object().into_iter().flatten().filter(|(_, value)| **value != "") {
            say(format!("  {name}: {}", plain(value)));
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
