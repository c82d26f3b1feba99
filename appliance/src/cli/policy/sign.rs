//! `casemate policy sign`.

use std::path::PathBuf;

use casemate_policy::bundle;
use casemate_policy::signers::Namespace;
use casemate_wire::Digest32;
use clap::Args;
use serde_json::json;

use super::super::ssh_keygen::sign;
use super::super::{CommandResult, Format, exit, say};
use super::existing;

#[derive(Args)]
pub(in crate::cli) struct SignArguments {
    /// The bundle's folder, sealed.
    #[arg(value_name = "DIR")]
    bundle: PathBuf,
    /// Your private key, or the .pub file of one that an agent or a FIDO key holds.
    #[arg(long, value_name = "FILE")]
    ssh_key: PathBuf,
    /// Your name: the signature goes into manifest.toml.sig-NAME. Without one, the key's fingerprint names it.
    #[arg(long)]
    name: Option<String>,
    /// The digest that was agreed on. Exit code 1 if the bundle has another.
    #[arg(long, value_name = "HEX")]
    digest: Option<Digest32>,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(arguments: &SignArguments) -> CommandResult {
    let dir = &arguments.bundle;
    existing(dir)?;
    if let Some(name) = &arguments.name {
        check_name(name)?;
    }
    let sealed = bundle::to_be_signed(dir)?;
    if let Some(agreed) = arguments.digest.filter(|agreed| *agreed != sealed.digest) {
        eprintln!("casemate: NOT SIGNED: the digest of {} is {}, not {agreed}", dir.display(), sealed.digest);
        return Ok(exit::fails());
    }
    // On standard error, so that it stands above what ssh-keygen asks.
    eprintln!("signing {} version {}, in force from {}", sealed.name, sealed.version, sealed.not_before);
    eprintln!("digest {}: compare it with what the others sign", sealed.digest);
    let signature = sign(&arguments.ssh_key, Namespace::Policy, &sealed.manifest)?;
    let name = arguments.name.clone().unwrap_or_else(|| in_file_name(&signature.fingerprint));
    let path = dir.join(format!("manifest.toml.sig-{name}"));
    std::fs::write(&path, &signature.armored)
        .map_err(|error| format!("could not write {}: {error}", path.display()))?;
    match arguments.format {
        Format::Json => say(json!({
            "digest": sealed.digest, "version": sealed.version, "key": signature.fingerprint, "file": path,
        })),
        Format::Human => {
            say(format!("signed by {}: {}", signature.fingerprint, path.display()));
            say("next: once enough people have signed, put the folder in place and have the appliances reload it");
        }
    }
    Ok(exit::OK)
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        return Err("the name becomes a part of a file's name: 1 to 64 letters, digits, `.`, `_`, `-` or `@`".into());
    }
    Ok(())
}

/// A fingerprint without the characters that have a meaning in paths.
fn in_file_name(fingerprint: &str) -> String {
    fingerprint.chars().filter(char::is_ascii_alphanumeric).collect()
}
