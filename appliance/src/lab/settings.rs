//! The configuration files of a lab, as text. Their keys are explained in `casemate init --print` and
//! `casemate-coordinator --print-config`.

use std::path::Path;

use casemate_attest::AuditKey;
use casemate_wire::{IdentityKey, PartyId};

use super::staff::QUORUM;

/// Overrides of the daemons' bounds; what is absent keeps the daemon's default.
#[derive(Debug, Clone, Default)]
pub struct LabLimits {
    /// Sessions that one appliance runs at once.
    pub sessions: Option<usize>,
    /// Seconds that a session may take, at appliances and coordinator.
    pub session_ttl: Option<u64>,
    /// Seconds within which the coordinator must attach the message stream.
    pub attach: Option<u64>,
    /// Seconds of clock difference that appliances tolerate.
    pub clock_skew: Option<u64>,
    /// Connections that one appliance holds open at once.
    pub connections: Option<usize>,
}

/// The name under which appliances pin the coordinator's token key.
pub(super) const ISSUER: &str = "lab-coordinator";

/// The clients that every appliance of a lab knows: name and role, which are the same word. The name in the certificate
/// is [`client_san`].
pub(super) const CLIENTS: [&str; 4] = ["coordinator", "operator", "auditor", "monitor"];

/// The DNS name in a client's certificate.
pub(super) fn client_san(name: &str) -> String {
    format!("{name}.lab")
}

/// What others pin of an appliance.
#[derive(Debug, Clone)]
pub(super) struct Pins {
    pub(super) party: PartyId,
    pub(super) identity: IdentityKey,
    pub(super) audit: AuditKey,
}

/// An appliance among its peers.
#[derive(Clone, Copy)]
pub(super) struct Appliance<'a> {
    pub(super) party: &'a PartyId,
    pub(super) port: u16,
    pub(super) module: &'a Path,
    /// All parties whose keys are known, this one included.
    pub(super) parties: &'a [Pins],
    pub(super) prime_pool: u32,
    pub(super) log_level: &'a str,
    pub(super) limits: &'a LabLimits,
}

impl Appliance<'_> {
    /// `casemate.toml`.
    pub(super) fn to_toml(self) -> String {
        let Self { party, port, module, parties, prime_pool, log_level, limits } = self;
        let mut text = format!(
            r#"# An appliance of a lab; `casemate init --print` explains every key.

[party]
id = "{party}"
data_dir = "data"

[listen]
address = "127.0.0.1:{port}"

[tls]
ca = "../ca/ca.pem"
certificate = "tls/server.pem"
key = "tls/server.key"

[hsm]
module = {module}
token_label = "{label}"
pin_file = "pin"

[policy]
dir = "policy"
allowed_signers = "../staff/allowed_signers"
quorum = "{QUORUM}"

[approvals]
allowed_approvers = "../staff/allowed_approvers"

[mpc]
prime_pool = {prime_pool}

[log]
level = {log_level}

[[coordinator_key]]
issuer = "{ISSUER}"
algorithm = "ES256"
public_key = "../coordinator/token.pub.pem"
"#,
            module = quoted(&module.to_string_lossy()),
            label = token_label(party),
            log_level = quoted(log_level),
        );
        text.extend(CLIENTS.map(|name| {
            let san = client_san(name);
            format!("\n[[client]]\nname = \"{name}\"\nsan = \"{san}\"\nroles = [\"{name}\"]\norg = \"lab\"\n")
        }));
        let peers = parties.iter().filter(|peer| peer.party != *party);
        text.extend(peers.map(|Pins { party, identity, audit }| {
            format!("\n[[peer]]\nparty_id = \"{party}\"\nidentity = \"{identity}\"\naudit = \"{audit}\"\n")
        }));
        text += &section(&[
            ("sessions", limits.sessions.map(|value| value as u64)),
            ("session_ttl", limits.session_ttl),
            ("attach", limits.attach),
            ("clock_skew", limits.clock_skew),
            ("connections", limits.connections.map(|value| value as u64)),
        ]);
        text
    }
}

/// The coordinator's configuration.
pub(super) fn coordinator(
    port: u16,
    appliances: &[(PartyId, IdentityKey, String)],
    log_level: &str,
    limits: &LabLimits,
) -> String {
    let mut text = format!(
        r#"# The coordinator of a lab; `casemate-coordinator --print-config` explains every key.

data_dir = "data"

[listen]
address = "127.0.0.1:{port}"

[token]
issuer = "{ISSUER}"
algorithm = "ES256"
key = "token.key"

[appliance_tls]
ca = "../ca/ca.pem"
certificate = "../clients/coordinator.pem"
key = "../clients/coordinator.key"

[log]
level = {log_level}
"#,
        log_level = quoted(log_level),
    );
    text.extend(appliances.iter().map(|(party, identity, url)| {
        format!("\n[[appliance]]\nparty_id = \"{party}\"\nurl = \"{url}\"\nidentity = \"{identity}\"\n")
    }));
    text += &section(&[("session_ttl", limits.session_ttl)]);
    text
}

/// `softhsm2.conf`: tokens below `tokens`, which must be absolute.
pub(super) fn softhsm(tokens: &Path) -> String {
    let tokens = tokens.display();
    format!("directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n")
}

/// The label of a party's token, within PKCS#11's 32 bytes.
fn token_label(party: &PartyId) -> String {
    format!("casemate-{party}").chars().take(32).collect()
}

fn section(limits: &[(&str, Option<u64>)]) -> String {
    let lines: Vec<String> =
        limits.iter().filter_map(|(key, value)| value.map(|value| format!("{key} = {value}\n"))).collect();
    if lines.is_empty() { String::new() } else { format!("\n[limits]\n{}", lines.concat()) }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
