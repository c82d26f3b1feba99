//! The configuration as it stands in the file; unknown keys are refused.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use casemate_wire::token::TokenAlgorithm;
use casemate_wire::{IdentityKey, PartyId};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) data_dir: PathBuf,
    #[serde(default)]
    pub(super) listen: Listen,
    pub(super) tls: Option<Tls>,
    pub(super) token: Token,
    pub(super) appliance_tls: ApplianceTls,
    pub(super) appliance: Vec<Appliance>,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) log: Log,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Listen {
    pub(super) address: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        Self { address: (Ipv4Addr::LOCALHOST, 4000).into() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    pub(super) issuer: String,
    pub(super) algorithm: TokenAlgorithm,
    pub(super) key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApplianceTls {
    pub(super) ca: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Appliance {
    pub(super) party_id: PartyId,
    pub(super) url: String,
    pub(super) identity: IdentityKey,
    #[serde(default)]
    pub(super) former_identities: Vec<IdentityKey>,
    pub(super) server_name: Option<String>,
    pub(super) reference: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) sessions: usize,
    pub(super) session_ttl: u64,
    pub(super) queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sessions: 256, session_ttl: 600, queue: 16 * 1024 * 1024 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub(super) level: String,
    pub(super) format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
