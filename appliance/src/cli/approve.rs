//! `casemate approve`: shows what is to be approved in plain words, then has `ssh-keygen` sign the statement.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use casemate_policy::approval::{Act, MAX_LIFE, Nonce, SignParameters, Statement};
use casemate_policy::intent::{Signer, preview};
use casemate_policy::signers::Namespace;
use casemate_policy::{Understood, bundle};
use casemate_wire::api::Approval;
use casemate_wire::{Digest32, Intent, KeyCertificate, PublicKey};
use clap::Args;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use rand::RngCore;
use rand::rngs::OsRng;
use serde_json::Value;

use super::ssh_keygen::sign;
use super::{CommandResult, exit, say};
use crate::pipeline::parse_path;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 256 * 1024;

#[derive(Args)]
pub(super) struct ApproveArguments {
    /// A JSON file: the intent of a transaction as clients send it (`type`, `payload`), or another act (`action`, `key` or
    /// `slot`, `parameters`).
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The policy that it is approved under: the bundle's folder, or its digest.
    #[arg(long, value_name = "DIR|DIGEST")]
    bundle: String,
    /// Your private key, or the .pub file of one that an agent or a FIDO key holds.
    #[arg(long, value_name = "FILE")]
    ssh_key: PathBuf,
    /// The public key that would sign the transaction (hex).
    #[arg(long, value_name = "HEX")]
    key: Option<PublicKey>,
    /// The derivation path below the key, as m/0/7.
    #[arg(long, value_name = "PATH", requires = "key")]
    path: Option<String>,
    /// The key's certificate (JSON). A Bitcoin transaction with a derivation path needs it, to tell its own outputs.
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The hash that you were asked to approve. Exit code 1 if the transaction has another.
    #[arg(long, value_name = "HEX", requires = "key")]
    message_hash: Option<Digest32>,
    /// How long the approval counts, at most 7 days: 30m, 8h, 2d.
    #[arg(long, value_name = "TIME", default_value = "8h", value_parser = life)]
    expires_in: SignedDuration,
    /// Where to write the approval; standard output if absent.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Sign without asking.
    #[arg(long)]
    yes: bool,
}

/// What is to be approved, and how it reads.
struct Proposal {
    act: Act,
    words: String,
}

pub(super) fn run(arguments: &ApproveArguments) -> CommandResult {
    let (bundle, policy) = policy(&arguments.bundle)?;
    let proposal = proposal(arguments)?;
    if let (Some(asked), Act::Sign { parameters, .. }) = (arguments.message_hash, &proposal.act)
        && asked != parameters.message_hash
    {
        eprintln!("casemate: NOT APPROVED: the transaction's hash is {}, not {asked}", parameters.message_hash);
        return Ok(exit::fails());
    }
    let statement = Statement { act: proposal.act, bundle, expires: expiry(arguments.expires_in)?, nonce: nonce()? };
    tell(&format!("You are asked to approve:\n{}\n", proposal.words));
    tell(&format!("under policy {policy}\nuntil {}\n", statement.expires));
    if !arguments.yes && !confirmed()? {
        eprintln!("casemate: not approved");
        return Ok(exit::fails());
    }
    let text = statement.to_text()?;
    let signature = sign(&arguments.ssh_key, Namespace::Approval, text.as_bytes())?;
    let approval = serde_json::to_string(&Approval::new(text, signature.armored)?)?;
    match &arguments.output {
        None => say(approval),
        Some(path) => {
            std::fs::write(path, approval + "\n").map_err(|e| format!("could not write {}: {e}", path.display()))?;
            tell(&format!("approved with {}: {}\n", signature.fingerprint, path.display()));
        }
    }
    Ok(exit::OK)
}

fn proposal(arguments: &ApproveArguments) -> Result<Proposal, Box<dyn std::error::Error>> {
    let file = &arguments.file;
    let text = read(file)?;
    let wrong = |why: String| format!("{} cannot be approved: {why}", file.display());
    let value: Value = serde_json::from_str(&text).map_err(|error| wrong(format!("it is not JSON: {error}")))?;
    if value.get("action").is_some() {
        // Read from the text, in which a repeated field still shows.
        let act: Act = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if arguments.key.is_some() || matches!(act, Act::Sign { .. }) {
            let why = "to approve a signature, give the transaction's intent and `--key`, so that it can be shown";
            return Err(wrong(why.into()).into());
        }
        let words = act.summary();
        return Ok(Proposal { act, words });
    }
    let intent: Intent = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let Some(key) = arguments.key else {
        return Err(wrong("`--key` is missing: the public key that would sign".into()).into());
    };
    let signer = signer(arguments, &key)?;
    let understood = preview(&intent, &signer).map_err(|error| wrong(error.to_string()))?;
    let parameters = SignParameters { message_hash: understood.digest(), derivation_path: arguments.path.clone() };
    let act = Act::Sign { key, parameters };
    let words = format!("{}\n\n{}", in_words(&arguments.bundle, &understood)?, act.summary());
    Ok(Proposal { act, words })
}

/// What the transaction does: with the bundle's names and whole units if its folder is at hand, else in base units.
fn in_words(folder_or_digest: &str, understood: &Understood) -> Result<String, Box<dyn std::error::Error>> {
    let dir = Path::new(folder_or_digest);
    if !dir.is_dir() {
        return Ok(understood.summary());
    }
    let sentences = bundle::narrate(dir, understood)?;
    Ok(format!("{}\n\nin base units: {}", sentences.join("\n"), understood.summary()))
}

fn signer(arguments: &ApproveArguments, key: &PublicKey) -> Result<Signer, Box<dyn std::error::Error>> {
    let path = arguments.path.as_deref().map(parse_path).transpose().map_err(|problem| problem.detail)?;
    let Some(file) = &arguments.certificate else { return Ok(Signer::alone(key)?) };
    let certificate: KeyCertificate = serde_json::from_str(&read(file)?)
        .map_err(|error| format!("{} is not a key certificate: {error}", file.display()))?;
    if certificate.statement.public_key != *key {
        return Err(format!("{} is the certificate of {}", file.display(), certificate.statement.public_key).into());
    }
    Ok(Signer::derive(key, certificate.statement.chain_code, &path.unwrap_or_default())?)
}

/// The bundle's digest, and how to name it to people.
fn policy(folder_or_digest: &str) -> Result<(Digest32, String), Box<dyn std::error::Error>> {
    let dir = Path::new(folder_or_digest);
    if dir.is_dir() {
        let sealed = bundle::to_be_signed(dir)?;
        return Ok((sealed.digest, format!("{} version {}, digest {}", sealed.name, sealed.version, sealed.digest)));
    }
    let digest: Digest32 = folder_or_digest
        .parse()
        .map_err(|_| format!("{folder_or_digest:?} is neither a bundle's folder nor its digest, 64 hex characters"))?;
    Ok((digest, digest.to_string()))
}

/// Reads `30m`, `8h` or `2d`; a day has 24 hours.
fn life(text: &str) -> Result<SignedDuration, String> {
    let span: Span = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|error| error.to_string())
}

fn expiry(expires_in: SignedDuration) -> Result<Timestamp, String> {
    // An appliance's clock may be a little behind, and the approval must not live too long there.
    if !expires_in.is_positive() || expires_in > MAX_LIFE {
        return Err("`--expires-in` must be more than nothing and at most 7 days".into());
    }
    let expires = Timestamp::now().checked_add(expires_in.min(MAX_LIFE - SignedDuration::from_mins(10)));
    let whole_seconds = expires.and_then(|expires| Timestamp::from_second(expires.as_second()));
    whole_seconds.map_err(|error| format!("`--expires-in` leads nowhere: {error}"))
}

fn nonce() -> Result<Nonce, String> {
    let mut random = [0; 16];
    OsRng.try_fill_bytes(&mut random).map_err(|error| format!("the system has no randomness: {error}"))?;
    Ok(Nonce::from_bytes(random))
}

fn read(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("could not read {}: {error}", path.display());
    let mut text = String::new();
    File::open(path).map_err(failed)?.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if u64::try_from(text.len()).is_ok_and(|length| length <= MAX_FILE) {
        return Ok(text);
    }
    Err(format!("{} is larger than {MAX_FILE} bytes", path.display()))
}

/// Shows text on standard error, since standard output is for the approval. What was decoded may hold foreign text: no
/// character of it may move the cursor or turn the direction of writing.
fn tell(text: &str) {
    let harmless = |c: char| -> String {
        let invisible =
            matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if (c.is_control() && c != '\n') || invisible { c.escape_unicode().to_string() } else { c.to_string() }
    };
    eprint!("{}", text.chars().map(harmless).collect::<String>());
}

fn confirmed() -> Result<bool, String> {
    eprint!("Type `yes` to approve: ");
    let failed = |error: std::io::Error| format!("could not ask: {error}; `--yes` approves without asking");
    std::io::stderr().flush().map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(answer.trim() == "yes")
}
