//! `casemate attest fetch`: asks an appliance for a token.

use std::path::PathBuf;

use casemate_attest::attestation::{MAX_TOKEN, Nonce};
use casemate_wire::api::BASE_PATH;
use clap::Args;
use rand::RngCore;
use rand::rngs::OsRng;

use super::write_out;
use crate::cli::{CommandResult, exit};
use crate::lab::Service;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// The appliance, for example https://party-1.example:7443.
    #[arg(long, value_name = "URL")]
    url: String,
    /// PEM: the CA of the appliance's certificate.
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// PEM: the certificate to call with; the appliance must know it as coordinator, operator or auditor.
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// PEM: its private key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The nonce (hex); made here if absent, and printed on standard error.
    #[arg(long, value_name = "HEX")]
    nonce: Option<Nonce>,
    /// Where to write the token; standard output if absent.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    let service = Service::at(&arguments.url, &arguments.ca, &arguments.cert, &arguments.key)?;
    let nonce = match &arguments.nonce {
        Some(nonce) => nonce.clone(),
        None => fresh()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (status, body) = runtime.block_on(service.get_bytes(&format!("{BASE_PATH}/attestation?nonce={nonce}")))?;
    if status != 200 {
        let why: String = String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(1000).collect();
        return Err(format!("{} answered {status}: {why}", arguments.url).into());
    }
    if body.len() > MAX_TOKEN {
        return Err(format!("{} answered with more than {MAX_TOKEN} bytes", arguments.url).into());
    }
    write_out(arguments.output.as_deref(), &body)?;
    if arguments.nonce.is_none() {
        eprintln!("nonce {nonce}");
    }
    Ok(exit::OK)
}

fn fresh() -> Result<Nonce, Box<dyn std::error::Error>> {
    let mut bytes = [0; 32];
    OsRng.try_fill_bytes(&mut bytes)?;
    Ok(Nonce::new(bytes)?)
}
