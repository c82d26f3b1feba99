//! Calling a running appliance as one of its clients.

use std::error::Error;
use std::path::PathBuf;

use casemate_wire::Problem;
use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::audit::plain;
use crate::lab::Service;

type Failure = Box<dyn Error>;

/// How to call an appliance.
#[derive(Args)]
pub(super) struct CallArguments {
    /// The appliance, for example https://party-1.example:7443.
    #[arg(long, value_name = "URL", requires_all = ["ca", "cert", "key"])]
    url: Option<String>,
    /// PEM: the CA of the appliance's certificate.
    #[arg(long, value_name = "FILE", requires = "url")]
    ca: Option<PathBuf>,
    /// PEM: the certificate to call with; the appliance must know it by a role that may ask.
    #[arg(long, value_name = "FILE", requires = "url")]
    cert: Option<PathBuf>,
    /// PEM: its private key.
    #[arg(long, value_name = "FILE", requires = "url")]
    key: Option<PathBuf>,
}

impl CallArguments {
    pub(super) fn service(&self) -> Result<Service, Failure> {
        let (Some(url), Some(ca), Some(cert), Some(key)) = (&self.url, &self.ca, &self.cert, &self.key) else {
            return Err("say which appliance: --url, --ca, --cert, --key".into());
        };
        Ok(Service::at(url, ca, cert, key)?)
    }
}

/// Reads what an appliance answers.
pub(super) fn get<T: DeserializeOwned>(service: &Service, path: &str) -> Result<T, Failure> {
    let answer = runtime()?.block_on(service.get(path))?;
    taken(answer.status, answer.body)
}

/// Sends a body, and reads what is answered.
pub(super) fn post<T: DeserializeOwned>(service: &Service, path: &str, body: &Value) -> Result<T, Failure> {
    let answer = runtime()?.block_on(service.post(path, body, None))?;
    taken(answer.status, answer.body)
}

/// An answer, or the problem that it is.
fn taken<T: DeserializeOwned>(status: u16, body: Value) -> Result<T, Failure> {
    if (200..300).contains(&status) {
        return serde_json::from_value(body).map_err(|e| format!("the appliance's answer cannot be read: {e}").into());
    }
    let why = match serde_json::from_value::<Problem>(body.clone()) {
        Ok(problem) => format!("{}: {}", problem.code, problem.detail),
        Err(_) => body.to_string(),
    };
    Err(format!("the appliance answered {status}: {}", plain(&why.chars().take(2000).collect::<String>())).into())
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
