//! `casemate hsm init` and `hsm status`.

use std::path::PathBuf;

use casemate_hsm::{Hsm, HsmConfig, HsmState, HsmStatus, PinSource, TokenSelector, init_keys, init_token};
use casemate_wire::IdentityKey;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{CommandResult, Format, exit, say};
use crate::config::load_hsm;

#[derive(Subcommand)]
pub(super) enum HsmCommand {
    /// Make the appliance's keys on the token. Never overwrites.
    Init(InitArguments),
    /// Open the token as the daemon does, check every key, and show what is there.
    Status(StatusArguments),
}

#[derive(Args)]
pub(super) struct InitArguments {
    /// The configuration; only its [hsm] section is read.
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

#[derive(Args)]
pub(super) struct StatusArguments {
    /// The configuration; only its [hsm] section is read.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(command: HsmCommand) -> CommandResult {
    match command {
        HsmCommand::Init(arguments) => init(&arguments),
        HsmCommand::Status(arguments) => status(&arguments),
    }
}

fn init(arguments: &InitArguments) -> CommandResult {
    let config = load_hsm(&arguments.config)?;
    if arguments.create_token {
        create_token(&config, arguments.so_pin_file.as_ref())?;
    }
    let keys = init_keys(&config)?;
    let identity = keys
        .iter()
        .find(|key| key.id == "identity")
        .and_then(|key| key.public_key.as_deref())
        .ok_or("the token made no identity key")?;
    let identity = IdentityKey::from_spki(identity)?;
    if arguments.format == Format::Json {
        let ids: Vec<&str> = keys.iter().map(|key| key.id.as_str()).collect();
        say(json!({"keys": ids, "identity": identity, "fingerprint": identity.fingerprint()}));
        return Ok(exit::OK);
    }
    for key in &keys {
        let limits = if key.mechanism_enforced { "limited to its one mechanism" } else { "checked by the daemon" };
        say(format!("made {:<9} {limits}", key.id));
    }
    show_identity(&identity);
    Ok(exit::OK)
}

fn create_token(config: &HsmConfig, so_pin: Option<&PathBuf>) -> Result<(), Box<dyn std::error::Error>> {
    let TokenSelector::Label(label) = &config.token else {
        return Err("a new token is found by its label: set hsm.token_label in the configuration".into());
    };
    let so_pin = PinSource::file(so_pin.ok_or("--create-token needs --so-pin-file")?).read()?;
    let pin = config.pin.read()?;
    init_token(&config.module, label, &so_pin, &pin)?;
    Ok(())
}

fn status(arguments: &StatusArguments) -> CommandResult {
    let config = load_hsm(&arguments.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(async {
        let hsm = Hsm::open(config).await?;
        let status = hsm.status();
        hsm.shutdown().await?;
        Ok::<_, casemate_hsm::HsmError>(status)
    })?;
    match arguments.format {
        Format::Json => say(to_json(&status)),
        Format::Human => show(&status)?,
    }
    Ok(if status.state == HsmState::Ready { exit::OK } else { exit::fails() })
}

fn to_json(status: &HsmStatus) -> Value {
    let keys: Vec<Value> = status
        .keys
        .iter()
        .map(|key| {
            json!({
                "id": key.id,
                "mechanism_enforced": key.mechanism_enforced,
                "public_key": key.public_key.as_ref().map(hex::encode),
            })
        })
        .collect();
    json!({
        "token": {
            "label": status.token.label, "serial": status.token.serial, "model": status.token.model,
            "manufacturer": status.token.manufacturer, "firmware": status.token.firmware,
        },
        "wrap": status.wrap.name(), "kek": status.kek_id, "kek_epoch": status.kek_epoch, "keys": keys,
        "ready": status.state == HsmState::Ready,
    })
}

fn show(status: &HsmStatus) -> Result<(), Box<dyn std::error::Error>> {
    let token = &status.token;
    say(format!(
        "token     {} (serial {}, {} {}, firmware {})",
        token.label, token.serial, token.manufacturer, token.model, token.firmware
    ));
    say(format!("wrapping  {} under {}", status.wrap.name(), status.kek_id));
    for key in &status.keys {
        let limits = if key.mechanism_enforced {
            "mechanism limited by the token"
        } else {
            "mechanism not limited by the token"
        };
        say(format!("key       {:<9} attributes as required, {limits}", key.id));
    }
    let identity = status.keys.iter().find(|key| key.id == "identity").and_then(|key| key.public_key.as_deref());
    if let Some(identity) = identity {
        show_identity(&IdentityKey::from_spki(identity)?);
    }
    Ok(())
}

fn show_identity(identity: &IdentityKey) {
    say(format!("identity  {identity}"));
    say(format!("          fingerprint {}", identity.fingerprint()));
    say("          put the identity into the other hosts' [[peer]] entries; compare the fingerprint by voice");
}
