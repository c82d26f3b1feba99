//! `casemate hsm`: making keys, showing them, and the life of the KEKs.

mod kek;
mod offline;
mod recovery;
mod rewrap;
mod rows;

use std::path::PathBuf;

use casemate_attest::AuditKey;
use casemate_attest::attestation::AttestKey;
use casemate_hsm::{
    Anchor, Hsm, HsmConfig, HsmError, HsmState, HsmStatus, KeyPurpose, PinSource, TokenSelector, init_keys_from,
    init_token,
};
use casemate_wire::IdentityKey;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{CommandResult, Format, exit, say};
use crate::config::load_hsm;
pub(in crate::cli) use offline::Offline;
use rows::Rows;

#[derive(Subcommand)]
pub(super) enum HsmCommand {
    /// Make the appliance's keys on the token. Never overwrites.
    Init(InitArguments),
    /// Open the token as the daemon does, check every key, and show what is there.
    Status(StatusArguments),
    /// Make the next KEK, which wraps from then on. The daemon must not run.
    NewKek(kek::NewArguments),
    /// Bring the wrapped keys of all rows to the current KEK and the recovery HSMs of the policy bundle, or to another HSM.
    /// No share is opened. It may be cut off and run again.
    Rewrap(rewrap::RewrapArguments),
    /// Destroy an old KEK, once every row opens without it. The daemon must not run.
    DestroyKek(kek::DestroyArguments),
    /// Make the key of a recovery HSM, on the host that has it.
    InitRecovery(recovery::InitArguments),
    /// After the loss of an HSM: open the rows by the recovery HSM, and wrap them under the current KEK of this one.
    RecoverEntries(rewrap::RecoverArguments),
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
    /// The epoch of the first KEK. For an HSM that takes the place of another: above all epochs of that one, since the audit
    /// log tells KEKs by their epochs.
    #[arg(long, value_name = "EPOCH", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    kek_epoch: u32,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Args)]
pub(super) struct StatusArguments {
    /// The configuration; only its [hsm] section and the data folder are read.
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
        HsmCommand::NewKek(arguments) => kek::make(&arguments),
        HsmCommand::Rewrap(arguments) => rewrap::rewrap(&arguments),
        HsmCommand::DestroyKek(arguments) => kek::destroy(&arguments),
        HsmCommand::InitRecovery(arguments) => recovery::init(&arguments),
        HsmCommand::RecoverEntries(arguments) => rewrap::recover(&arguments),
    }
}

fn init(arguments: &InitArguments) -> CommandResult {
    let config = load_hsm(&arguments.config)?;
    if arguments.create_token {
        create_token(&config, arguments.so_pin_file.as_ref())?;
    }
    let keys = init_keys_from(&config, arguments.kek_epoch)?;
    let pins = Pins::of(|id| keys.iter().find(|key| key.id == id)?.public_key.as_deref())?;
    if arguments.format == Format::Json {
        let ids: Vec<&str> = keys.iter().map(|key| key.id.as_str()).collect();
        let Pins { identity, audit, attest } = &pins;
        say(json!({
            "keys": ids, "identity": identity, "fingerprint": identity.fingerprint(), "audit": audit, "attest": attest,
        }));
        return Ok(exit::OK);
    }
    for key in &keys {
        let limits = if key.mechanism_enforced { "limited to its one mechanism" } else { "checked by the daemon" };
        say(format!("made {:<9} {limits}", key.id));
    }
    pins.show();
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
    let (status, anchor) = runtime.block_on(async {
        let hsm = Hsm::open(config).await?;
        // Shown even if it is damaged: whoever looks into that wants to see the rest as well.
        let anchor = hsm.anchor().await;
        let status = hsm.status();
        hsm.shutdown().await?;
        Ok::<_, HsmError>((status, anchor))
    })?;
    let rows = Rows::of(&arguments.config);
    match arguments.format {
        Format::Json => say(to_json(&status, &anchor, &rows)?),
        Format::Human => {
            show(&status)?;
            rows.show(&status);
            say(format!("anchor    {}", in_words(&anchor)));
        }
    }
    Ok(if status.state == HsmState::Ready && anchor.is_ok() { exit::OK } else { exit::fails() })
}

fn in_words(anchor: &Result<Option<Anchor>, HsmError>) -> String {
    match anchor {
        Ok(Some(anchor)) => {
            format!("{}: {} leaves, root {}", anchor.log(), anchor.size(), hex::encode(anchor.root()))
        }
        Ok(None) => "none yet: no audit log was anchored in this token".into(),
        Err(error) => error.to_string(),
    }
}

fn to_json(status: &HsmStatus, anchor: &Result<Option<Anchor>, HsmError>, rows: &Rows) -> Result<Value, InvalidPin> {
    let anchor = match anchor {
        Ok(Some(anchor)) => {
            json!({"log": anchor.log(), "size": anchor.size(), "root": hex::encode(anchor.root())})
        }
        Ok(None) => Value::Null,
        Err(error) => json!({"error": error.to_string()}),
    };
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
    let Pins { identity, audit, attest } =
        Pins::of(|id| status.keys.iter().find(|key| key.id == id)?.public_key.as_deref())?;
    Ok(json!({
        "token": {
            "label": status.token.label, "serial": status.token.serial, "model": status.token.model,
            "manufacturer": status.token.manufacturer, "firmware": status.token.firmware,
        },
        "wrap": status.wrap.name(), "kek": status.kek_id, "kek_epoch": status.kek_epoch, "keys": keys,
        "identity": identity, "audit": audit, "attest": attest, "anchor": anchor, "sealed": rows.to_json(),
        "ready": status.state == HsmState::Ready,
    }))
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
    Pins::of(|id| status.keys.iter().find(|key| key.id == id)?.public_key.as_deref())?.show();
    Ok(())
}

/// The public keys by which other hosts and auditors know this one.
struct Pins {
    identity: IdentityKey,
    audit: AuditKey,
    attest: AttestKey,
}

/// Boxed, since it is only printed.
type InvalidPin = Box<dyn std::error::Error>;

impl Pins {
    /// `spki` gives the public key of a pair, by its `CKA_ID`.
    fn of<'a>(spki: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Self, InvalidPin> {
        let spki = |purpose: KeyPurpose| {
            spki(purpose.id())
                .ok_or_else(|| format!("the token shows no {} key; run `casemate hsm init`", purpose.id()))
        };
        Ok(Self {
            identity: IdentityKey::from_spki(spki(KeyPurpose::Identity)?)?,
            audit: AuditKey::from_spki(spki(KeyPurpose::Audit)?)?,
            attest: AttestKey::from_spki(spki(KeyPurpose::Attest)?)?,
        })
    }

    fn show(&self) {
        say(format!("identity  {}", self.identity));
        say(format!("          fingerprint {}", self.identity.fingerprint()));
        say(format!("audit     {}", self.audit));
        say(format!("          fingerprint {}", self.audit.fingerprint()));
        say(format!("attest    {}", self.attest));
        say(format!("          fingerprint {}", self.attest.fingerprint()));
        say("          put all three into the other hosts' [[peer]] entries; compare the fingerprints by voice");
    }
}
