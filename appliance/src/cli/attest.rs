//! `casemate attest`: what an appliance says of itself: asked for, shown, verified, and what it should say.

mod fetch;
mod reference;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use casemate_attest::attestation::{
    Appraisal, Expected, Finding, MAX_TOKEN, Nonce, Reference, TokenError, Unverified, Verified, describe,
};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{CommandResult, Format, exit, say};

#[derive(Subcommand)]
pub(super) enum AttestCommand {
    /// Show what a token says, without verifying it.
    Show(ShowArguments),
    /// Verify a token and compare it with a reference file. Exit code 1 if it is not genuine, not fresh, or differs.
    Verify(VerifyArguments),
    /// Write a reference file for this host: what its attestations should say, for peers and verifiers to keep.
    Reference(reference::Arguments),
    /// Ask an appliance for a token, with a nonce made here unless one is given.
    Fetch(fetch::Arguments),
}

#[derive(Args)]
pub(super) struct ShowArguments {
    /// The token; - is standard input.
    #[arg(value_name = "TOKEN")]
    token: PathBuf,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Args)]
pub(super) struct VerifyArguments {
    /// What the token should say, as `casemate attest reference` writes it on that host.
    #[arg(long, value_name = "FILE")]
    reference: PathBuf,
    /// The nonce that was sent with the question (hex).
    #[arg(long, value_name = "HEX")]
    nonce: Nonce,
    /// The time at which it should be good, if not now: for a token that was kept as evidence.
    #[arg(long, value_name = "RFC3339")]
    at: Option<Timestamp>,
    /// Seconds of clock difference that are tolerated.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    skew: u32,
    /// The token; - is standard input.
    #[arg(value_name = "TOKEN")]
    token: PathBuf,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(command: AttestCommand) -> CommandResult {
    match command {
        AttestCommand::Show(arguments) => show(&arguments),
        AttestCommand::Verify(arguments) => verify(&arguments),
        AttestCommand::Reference(arguments) => reference::run(&arguments),
        AttestCommand::Fetch(arguments) => fetch::run(&arguments),
    }
}

fn show(arguments: &ShowArguments) -> CommandResult {
    let token = read_token(&arguments.token)?;
    let read = match Unverified::read(&token) {
        Ok(read) => read,
        Err(error) => {
            say(match arguments.format {
                Format::Json => json!({"verified": false, "error": error.to_string()}).to_string(),
                Format::Human => format!("NOT A TOKEN: {error}"),
            });
            return Ok(exit::fails());
        }
    };
    let claims = describe(&read.claims);
    match arguments.format {
        Format::Json => say(json!({"verified": false, "kid": read.key_id, "claims": object(claims)})),
        Format::Human => {
            say(
                "NOT VERIFIED: anybody can write this; `casemate attest verify` tells whether it is true to its key and fresh",
            );
            say(line(&("kid", read.key_id.to_string())));
            claims.iter().map(line).for_each(say);
        }
    }
    Ok(exit::OK)
}

fn verify(arguments: &VerifyArguments) -> CommandResult {
    let path = &arguments.reference;
    let text = fs::read_to_string(path).map_err(|e| format!("cannot read the reference {}: {e}", path.display()))?;
    let reference = Reference::parse(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let token = read_token(&arguments.token)?;
    let verdict = appraise(&reference, &token, arguments);
    match arguments.format {
        Format::Json => say(to_json(&verdict)),
        Format::Human => tell(&verdict),
    }
    Ok(if matches!(verdict, Ok((_, Appraisal::Affirming))) { exit::OK } else { exit::fails() })
}

type Verdict = Result<(Verified, Appraisal), TokenError>;

fn appraise(reference: &Reference, token: &[u8], arguments: &VerifyArguments) -> Verdict {
    let expected = Expected {
        party: &reference.party,
        key: &reference.attest_key,
        nonce: &arguments.nonce,
        now: arguments.at.unwrap_or_else(Timestamp::now),
        skew: Duration::from_secs(arguments.skew.into()),
    };
    let verified = Verified::check(token, &expected)?;
    let appraisal = reference.appraise(&verified);
    Ok((verified, appraisal))
}

fn to_json(verdict: &Verdict) -> Value {
    match verdict {
        Err(error) => json!({"verdict": "not_genuine", "why": error.to_string()}),
        Ok((token, appraisal)) => {
            let word = if *appraisal == Appraisal::Affirming { "affirming" } else { "contraindicated" };
            let quote = token.quote().map(ToString::to_string);
            let claims = object(describe(token.claims()));
            json!({"verdict": word, "findings": appraisal.findings(), "claims": claims, "tpm": quote})
        }
    }
}

fn tell(verdict: &Verdict) {
    let (token, appraisal) = match verdict {
        Ok(verdict) => verdict,
        Err(error) => return say(format!("NOT GENUINE: {error}")),
    };
    match appraisal {
        Appraisal::Affirming => say("affirming: signed by the attest key, fresh, and as the reference says"),
        Appraisal::Contraindicated(findings) => {
            say("CONTRAINDICATED: signed by the attest key and fresh, but not as the reference says");
            for Finding { claim, expected, found } in findings {
                say(format!("  {claim}"));
                say(format!("    expected {expected}"));
                say(format!("    found    {found}"));
            }
        }
    }
    if let Some(quote) = token.quote() {
        say(format!("  TPM quote bound to this token: {quote}"));
    }
    for claim in &describe(token.claims()) {
        say(format!("  {}", line(claim)));
    }
}

/// Claims by name; where a name stands more than once, its values in an array.
fn object(claims: Vec<(&'static str, String)>) -> Value {
    let mut object = serde_json::Map::new();
    for (name, value) in claims {
        match object.get_mut(name) {
            None => drop(object.insert(name.to_owned(), value.into())),
            Some(Value::Array(several)) => several.push(value.into()),
            Some(one) => *one = Value::Array(vec![one.take(), value.into()]),
        }
    }
    Value::Object(object)
}

fn line((name, value): &(&'static str, String)) -> String {
    format!("{name:<16} {value}")
}

/// The bytes of a file or of standard input, as far as a token can be long.
fn read_token(path: &Path) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let failed = |e: std::io::Error| format!("cannot read the token {}: {e}", path.display());
    let source: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin().lock()),
        _ => Box::new(File::open(path).map_err(failed)?),
    };
    // One byte more shows that it is too long.
    let bound = u64::try_from(MAX_TOKEN)?.saturating_add(1);
    let mut token = Vec::new();
    source.take(bound).read_to_end(&mut token).map_err(failed)?;
    Ok(token)
}

/// Writes to a file, or to standard output without one.
fn write_out(output: Option<&Path>, bytes: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    match output {
        None => std::io::stdout().lock().write_all(bytes)?,
        Some(path) => fs::write(path, bytes).map_err(|e| format!("cannot write {}: {e}", path.display()))?,
    }
    Ok(())
}
