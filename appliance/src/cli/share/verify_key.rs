//! `casemate share verify-key`: whether a public key is one that all its parties have made.

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;

use casemate_hsm::{Hsm, KeyPurpose};
use casemate_policy::address::Addresses;
use casemate_wire::{IdentityKey, KeyCertificate, Member, PartyId};
use clap::Args;
use serde_json::json;

use super::super::audit::{plain, read_certificate};
use super::super::{CommandResult, exit, say};
use super::Format;
use crate::config::Config;

#[derive(Args)]
pub(in super::super) struct Arguments {
    /// The certificate (JSON), alone or inside the answer of a call.
    #[arg(value_name = "CERTIFICATE")]
    certificate: PathBuf,
    /// An appliance's configuration: its peers' pins count, and its own identity as its HSM has it.
    #[arg(long, value_name = "FILE", required_unless_present = "pin")]
    config: Option<PathBuf>,
    /// A party's identity that you have pinned yourself, as party-1=HEX; repeated for each party. Before the configuration's.
    #[arg(long, value_name = "PARTY=IDENTITY")]
    pin: Vec<Pin>,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone)]
struct Pin(PartyId, IdentityKey);

impl FromStr for Pin {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (party, identity) = text.split_once('=').ok_or("write PARTY=IDENTITY")?;
        let party = party.parse().map_err(|e| format!("{e}"))?;
        Ok(Self(party, identity.parse().map_err(|e| format!("{e}"))?))
    }
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    let certificate = read_certificate(&arguments.certificate)
        .map_err(|why| format!("cannot read {}: {why}", arguments.certificate.display()))?;
    let pins: HashMap<&PartyId, &IdentityKey> = arguments.pin.iter().map(|Pin(party, key)| (party, key)).collect();
    let known = match &arguments.config {
        None => None,
        Some(path) => {
            let config = Config::load(path)?;
            // Of a party that is not in it, the HSM need not be asked.
            let members = certificate.statement.roster.members();
            let asked =
                members.iter().any(|member| member.party_id == config.party && !pins.contains_key(&config.party));
            let own = if asked { Some(own_identity(&config)?) } else { None };
            Some((config, own))
        }
    };
    let pinned = |member: &Member| {
        if let Some(identity) = pins.get(&member.party_id) {
            return Some((*identity).clone());
        }
        let (config, own) = known.as_ref()?;
        match own {
            Some(own) => config.known_member(member, own),
            None => config.known_member(member, &member.identity).filter(|_| member.party_id != config.party),
        }
    };
    let verdict = certificate.verify(pinned);
    report(arguments, &certificate, verdict.as_ref().err().map(ToString::to_string))?;
    Ok(if verdict.is_ok() { exit::OK } else { exit::fails() })
}

fn own_identity(config: &Config) -> Result<IdentityKey, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let hsm = Hsm::open(config.hsm.clone()).await?;
        let identity = IdentityKey::from_spki(&hsm.public_key(KeyPurpose::Identity));
        hsm.shutdown().await?;
        Ok(identity?)
    })
}

fn report(
    arguments: &Arguments,
    certificate: &KeyCertificate,
    problem: Option<String>,
) -> Result<(), Box<dyn std::error::Error>> {
    let statement = &certificate.statement;
    if arguments.format == Format::Json {
        let addresses = Addresses::of(&statement.public_key)?;
        say(json!({"verified": problem.is_none(), "problem": problem, "statement": statement, "addresses": addresses}));
        return Ok(());
    }
    let key = statement.public_key;
    match problem {
        None => {
            let (t, n) = (statement.threshold_t, statement.threshold_n);
            say(format!("{key} is a key of these parties, {t}-of-{n}, epoch {}: all {n} have signed", statement.epoch));
            for member in statement.roster.members() {
                say(format!("  {} {}", member.party_id, member.identity.fingerprint()));
            }
            let Addresses { ethereum, bitcoin, .. } = Addresses::of(&key)?;
            say(format!("Ethereum {ethereum}\nBitcoin  {bitcoin}"));
        }
        Some(why) => say(format!("NOT VERIFIED: {}; send nothing to any address of {key}", plain(&why))),
    }
    Ok(())
}
