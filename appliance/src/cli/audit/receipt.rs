//! `casemate audit verify-receipt`: whether a refusal's receipt was signed by the appliance that it names, and whether
//! that appliance's log bears it out.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use casemate_attest::{Receipt, ReceiptError, Report, SignedReceipt, Text};
use clap::Args;
use serde_json::{Value, json};

use super::notes;
use super::source::Source;
use super::verify::line_of;
use crate::cli::{CommandResult, Format, exit, say};

/// Longer than any answer that holds a receipt.
const MAX_FILE: u64 = 1024 * 1024;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// The receipt with its signature, or the whole answer that holds it: the problem, or the failed session.
    #[arg(value_name = "RECEIPT.json")]
    receipt: PathBuf,
    /// The audit key that is pinned for the appliance: a PEM file, a file with its hex, or the hex itself.
    #[arg(long, value_name = "AUDIT_PUBLIC_KEY")]
    key: String,
    /// The appliance's log, an exported file or a data folder: it must verify, and hold the refusal that the receipt names.
    #[arg(long, value_name = "LOG")]
    log: Option<PathBuf>,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Why a receipt does not hold.
#[derive(Debug, thiserror::Error)]
enum Doubt {
    #[error("the answer holds a receipt that was never signed; repeat the call to have it signed")]
    Unsigned,
    #[error("it is no receipt with a signature: {0}")]
    Misshapen(String),
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    #[error("the log is not valid: {0}")]
    Log(String),
    #[error(
        "the log ends after {size} leaves, before leaf {seq}: it is older than the refusal, or its end was cut off"
    )]
    TooShort { size: u64, seq: u64 },
}

/// What holds.
struct Held {
    receipt: Receipt,
    /// The log, if it was looked at.
    log: Option<Report>,
}

pub(super) fn verify(arguments: &Arguments) -> CommandResult {
    let key = notes::key("--key", &arguments.key)?;
    let answer = read_answer(&arguments.receipt)?;
    let found = signed_receipt(&answer, &arguments.receipt)?;
    let verdict = match found.and_then(|signed| Ok(signed.verify(&key)?)) {
        Ok(receipt) => in_log(receipt, arguments.log.as_deref())?,
        Err(doubt) => Err(doubt),
    };
    match arguments.format {
        Format::Json => say(to_json(&verdict)),
        Format::Human => tell(&verdict),
    }
    Ok(if verdict.is_ok() { exit::OK } else { exit::fails() })
}

fn read_answer(path: &Path) -> Result<Value, Box<dyn std::error::Error>> {
    let shown = path.display();
    let mut text = String::new();
    let file = File::open(path).map_err(|e| format!("cannot read the receipt {shown}: {e}"))?;
    let read = file.take(MAX_FILE + 1).read_to_string(&mut text);
    if read.map_err(|e| format!("cannot read the receipt {shown}: {e}"))? as u64 > MAX_FILE {
        return Err(format!("{shown} has more than {MAX_FILE} bytes; no receipt is that long").into());
    }
    serde_json::from_str(&text).map_err(|e| format!("{shown} is not JSON: {e}").into())
}

/// Finds the receipt by itself, in a problem, or in the problem of a session.
fn signed_receipt(answer: &Value, path: &Path) -> Result<Result<SignedReceipt, Doubt>, Box<dyn std::error::Error>> {
    let problem = answer.get("error").filter(|error| error.is_object()).unwrap_or(answer);
    let receipt = match problem.get("receipt") {
        Some(inside @ Value::Object(_)) => inside,
        Some(_) => problem,
        None if problem.get("unsigned_receipt").is_some() => return Ok(Err(Doubt::Unsigned)),
        None => return Err(format!("{} holds no receipt; only refusals by policy have one", path.display()).into()),
    };
    let misshapen = |e: serde_json::Error| Doubt::Misshapen(Text::fitted(&e.to_string()).to_string());
    Ok(serde_json::from_value(receipt.clone()).map_err(misshapen))
}

/// Verifies the whole log, so that the leaf stands in an unbroken chain, and compares that leaf.
fn in_log(receipt: Receipt, log: Option<&Path>) -> Result<Result<Held, Doubt>, Box<dyn std::error::Error>> {
    let Some(log) = log else { return Ok(Ok(Held { receipt, log: None })) };
    let (report, line) = line_of(&Source::open(&[log.to_owned()])?, receipt.seq)?;
    let compared = line.map(|line| receipt.check_against(&line));
    let report = match report {
        Ok(report) => report,
        Err(fault) => return Ok(Err(Doubt::Log(Text::fitted(&fault.to_string()).to_string()))),
    };
    Ok(match compared {
        Some(Ok(())) => Ok(Held { receipt, log: Some(report) }),
        Some(Err(other)) => Err(other.into()),
        None => Err(Doubt::TooShort { size: report.size, seq: receipt.seq }),
    })
}

fn to_json(verdict: &Result<Held, Doubt>) -> Value {
    match verdict {
        Ok(Held { receipt, log }) => {
            let log = log.as_ref().map(|report| json!({"size": report.size, "head": report.head}));
            json!({"valid": true, "receipt": receipt, "log": log})
        }
        Err(doubt) => json!({"valid": false, "why": doubt.to_string()}),
    }
}

fn tell(verdict: &Result<Held, Doubt>) {
    let Held { receipt, log } = match verdict {
        Ok(held) => held,
        Err(doubt) => return say(format!("NOT VALID: {doubt}")),
    };
    say(format!("valid: {} refused request {} at {}: {}", receipt.party, receipt.request, receipt.at, receipt.code));
    let policies: Vec<&str> = receipt.policies.iter().map(Text::as_str).collect();
    let facts: [(&str, Option<String>); 7] = [
        ("why", receipt.detail.map(|digest| format!("the words whose salted hash is {digest}"))),
        ("policies", (!policies.is_empty()).then(|| policies.join(", "))),
        ("bundle", receipt.bundle.map(|digest| digest.to_string())),
        ("session", receipt.session.as_ref().map(ToString::to_string)),
        ("key", receipt.key.map(|key| key.to_string())),
        ("hash to sign", receipt.message_hash.map(|hash| hash.to_string())),
        ("leaf", Some(format!("{} of {}, hash {}", receipt.seq, receipt.log, receipt.leaf))),
    ];
    for (name, fact) in facts {
        if let Some(fact) = fact {
            say(format!("  {name:<12}  {fact}"));
        }
    }
    say(match log {
        Some(report) => {
            format!("  the log holds it; it is valid, with {} leaves and the head {}", report.size, report.head)
        }
        None => "  it was not compared with the appliance's log; give that by --log".into(),
    });
}
