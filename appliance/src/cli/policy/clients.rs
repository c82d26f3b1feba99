//! The clients that policies may name.

use std::path::PathBuf;

use casemate_policy::Client;
use clap::Args;

use crate::config::{Config, ConfigError};
use crate::pipeline::policy_client;

/// Which clients a bundle may name. Staff have no appliance at hand, so they can be given one by one.
#[derive(Args)]
pub(super) struct ClientArguments {
    /// An appliance's configuration: its clients are those that policies may name.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// A client that policies may name, as it will be configured; may be repeated.
    #[arg(long = "client", value_name = "NAME[:ROLE,ROLE[:ORG]]", value_parser = parse, conflicts_with = "config")]
    clients: Vec<Client>,
}

/// The clients, and the configuration if they came from one.
pub(super) struct Known {
    pub(super) clients: Vec<Client>,
    pub(super) config: Option<Config>,
}

impl ClientArguments {
    /// Reads them.
    ///
    /// # Errors
    /// [`ConfigError`] if there is a configuration that cannot be used.
    pub(super) fn known(&self) -> Result<Known, ConfigError> {
        let Some(path) = &self.config else {
            return Ok(Known { clients: self.clients.clone(), config: None });
        };
        let config = Config::load(path)?;
        let clients = config.clients.all().map(|client| policy_client(&client)).collect();
        Ok(Known { clients, config: Some(config) })
    }
}

fn parse(text: &str) -> Result<Client, String> {
    let mut parts = text.splitn(3, ':');
    let name = parts.next().unwrap_or_default();
    if name.is_empty() {
        return Err("it has no name; write NAME, NAME:ROLE,ROLE or NAME:ROLE,ROLE:ORG".into());
    }
    let roles = parts.next().unwrap_or_default().split(',').filter(|role| !role.is_empty());
    Ok(Client {
        name: name.to_owned(),
        roles: roles.map(str::to_owned).collect(),
        org: parts.next().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_client_is_a_name_with_roles_and_an_organisation() {
        let client = parse("desk:coordinator,auditor:acme").unwrap();
        let expected = Client {
            name: "desk".into(),
            roles: ["coordinator".to_owned(), "auditor".to_owned()].into(),
            org: "acme".into(),
        };
        assert_eq!(client, expected);
        assert_eq!(parse("desk").unwrap(), Client { roles: [].into(), org: String::new(), ..expected });
        assert!(parse(":coordinator").is_err());
    }
}
