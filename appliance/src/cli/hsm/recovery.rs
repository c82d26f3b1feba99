//! `casemate hsm init-recovery`: the key of a recovery HSM.

use std::path::PathBuf;

use casemate_hsm::init_recovery;
use clap::Args;
use serde_json::json;

use super::super::{CommandResult, Format, exit, say};
use super::create_token;
use crate::config::load_hsm;

#[derive(Args)]
pub(in crate::cli) struct InitArguments {
    /// A configuration of the recovery HSM; only its [hsm] section is read.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Initialise a free slot as the token first (software tokens and labs).
    #[arg(long, requires = "so_pin_file")]
    create_token: bool,
    /// The security officer's PIN, one line in a file that only you can read.
    #[arg(long, value_name = "FILE")]
    so_pin_file: Option<PathBuf>,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn init(arguments: &InitArguments) -> CommandResult {
    let config = load_hsm(&arguments.config)?;
    if arguments.create_token {
        create_token(&config, arguments.so_pin_file.as_ref())?;
    }
    let key = init_recovery(&config)?;
    match arguments.format {
        Format::Json => say(json!({"key": key, "fingerprint": key.fingerprint()})),
        Format::Human => {
            say("made recovery: RSA-3072, decrypts and nothing else, never leaves the token");
            say(format!("key          {key}"));
            say(format!("fingerprint  {}", key.fingerprint()));
            say("put it into recipients.toml of the policy bundle, as [[recovery]] with a name, and have that signed;");
            say("whoever holds this token and its PIN can open every share that is sealed to it");
        }
    }
    Ok(exit::OK)
}
