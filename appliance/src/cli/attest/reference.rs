//! `casemate attest reference`: what this host's attestations should say, read from the host itself.
//!
//! It asks the files and the HSM, not the daemon, so that it does not repeat what a daemon claims.

use std::path::{Path, PathBuf};

use casemate_attest::attestation::{AttestKey, KekReference, Nonce, Reference, TokenReference, TpmReference};
use casemate_attest::{Line, LogId, Text};
use casemate_hsm::{Hsm, HsmStatus, KeyPurpose};
use clap::Args;
use rand::RngCore;
use rand::rngs::OsRng;

use super::write_out;
use crate::attestation::{program, tls_spki};
use crate::cli::{CommandResult, exit};
use crate::config::Config;
use crate::store::{audit_lines, open_read_only};
use crate::{VERSION, policy_slot};

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// The daemon's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The daemon's program, if it is not the casemated beside this program.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Where to write; standard output if absent.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    let config = Config::load(&arguments.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(async {
        let hsm = Hsm::open(config.hsm.clone()).await?;
        let status = hsm.status();
        hsm.shutdown().await?;
        Ok::<_, casemate_hsm::HsmError>(status)
    })?;
    let program = match &arguments.program {
        Some(program) => program.clone(),
        None => beside_this_one()?,
    };
    let text = of(&config, &status, &program)?.to_toml()?;
    write_out(arguments.output.as_deref(), (HEADER.to_owned() + &text).as_bytes())?;
    Ok(exit::OK)
}

const HEADER: &str = "\
# What the attestations of this appliance should say. Whatever is left out is not compared; lists name all that is allowed.
# Compare the fingerprint of attest_key by voice before you trust this file. `casemate attest verify --reference` reads it.
";

fn of(config: &Config, status: &HsmStatus, binary: &Path) -> Result<Reference, Box<dyn std::error::Error>> {
    let spki = status.keys.iter().find(|key| key.id == KeyPurpose::Attest.id()).and_then(|key| key.public_key.as_ref());
    let attest_key = AttestKey::from_spki(spki.ok_or("the token shows no attest key; run `casemate hsm init`")?)?;
    let bundle = policy_slot::load(config, None)
        .map_err(|e| format!("the policy bundle does not load, so no reference can name it: {e}"))?;
    let tpm = tpm(config, &attest_key)?;
    Ok(Reference {
        party: config.party.clone(),
        attest_key,
        binary: vec![program(binary)?],
        config: Some(vec![config.digest]),
        policy: Some(vec![bundle.bundle().digest()]),
        versions: Some(vec![Text::fitted(VERSION)]),
        tls_spki: Some(tls_spki(&config.tls.certificate)?),
        audit_log: audit_log(&config.data_dir)?,
        token: Some(TokenReference {
            model: Some(Text::fitted(&status.token.model)),
            serial: Some(Text::fitted(&status.token.serial)),
            firmware: Some(vec![Text::fitted(&status.token.firmware)]),
        }),
        kek: Some(KekReference { min_epoch: status.kek_epoch }),
        tpm,
    })
}

/// The log's name; none before the daemon's first start.
fn audit_log(data_dir: &Path) -> Result<Option<LogId>, Box<dyn std::error::Error>> {
    let Ok(store) = open_read_only(data_dir) else { return Ok(None) };
    let Some(first) = audit_lines(&store, 0, 1)?.pop() else { return Ok(None) };
    Ok(Some(Line::read(first.as_bytes())?.leaf().log.clone()))
}

/// The TPM's key and the PCRs of this moment, so of how the host was started.
fn tpm(config: &Config, key: &AttestKey) -> Result<Option<TpmReference>, Box<dyn std::error::Error>> {
    let Some(tpm) = &config.attestation.tpm else { return Ok(None) };
    let mut nonce = [0; 32];
    OsRng.try_fill_bytes(&mut nonce)?;
    let quote = tpm.quote(&Nonce::new(nonce)?.into(), key)?;
    let pcrs = quote.pcrs.iter().map(|(index, value)| (index.to_string(), *value)).collect();
    Ok(Some(TpmReference { ak: quote.ak, pcrs }))
}

fn beside_this_one() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let this = std::env::current_exe().map_err(|e| format!("cannot find this program's folder: {e}"))?;
    let daemon = this.with_file_name("casemated");
    if daemon.is_file() {
        Ok(daemon)
    } else {
        Err("there is no casemated beside this program; name it by --program".into())
    }
}
