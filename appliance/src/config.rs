//! The daemon's configuration file: `casemate.toml`.
//!
//! Unknown keys are refused. Relative paths are taken from the folder of the file. `casemated --check-config` runs this
//! very loader. Every key is documented in the file that [`TEMPLATE`] gives.

mod attestation;
mod peers;
mod policy;
mod sandbox;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use casemate_hsm::{HsmConfig, PinSource, TokenSelector, WrapMode};
use casemate_policy::signers::AllowedSigners;
use casemate_wire::token::{PinnedKey, TokenAlgorithm};
use casemate_wire::{Digest32, IdentityKey, PartyId};
use serde::Deserialize;

use crate::clients::{ClientEntry, Clients};

pub use attestation::Attestation;
use attestation::AttestationSection;
pub use peers::Peer;
pub use policy::Policy;
use policy::{ApprovalsSection, PolicySection};
pub use sandbox::{Sandbox, SandboxMode};

/// The commented file that a new host starts from.
pub const TEMPLATE: &str = include_str!("config/casemate.toml");

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file, or one that it names, cannot be read.
    #[error("cannot read {what} {}: {source}; check the path and its permissions", path.display())]
    Read {
        /// What the file is.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// It is not TOML of the expected form.
    #[error("cannot understand {}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column.
        message: String,
    },
    /// A value cannot be used.
    #[error("{}: {key}: {why}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

/// A checked configuration.
pub struct Config {
    /// Where it was read from.
    pub path: PathBuf,
    /// SHA-256 of the file as it was read.
    pub digest: Digest32,
    /// This party.
    pub party: PartyId,
    /// Where the store lies.
    pub data_dir: PathBuf,
    /// Where to listen.
    pub listen: Listen,
    /// TLS files.
    pub tls: TlsFiles,
    /// Who may call.
    pub clients: Clients,
    /// Coordinators whose join tokens are accepted.
    pub coordinator_keys: Vec<PinnedKey>,
    /// The other appliances.
    pub peers: Vec<Peer>,
    /// Identity keys that this party had before, in HSMs that it has left.
    pub former_identities: Vec<IdentityKey>,
    /// The HSM.
    pub hsm: HsmConfig,
    /// The policy bundle, and who may sign it.
    pub policy: Policy,
    /// Who may approve requests.
    pub approvers: AllowedSigners,
    /// The TPM, and what peers' attestations are appraised by.
    pub attestation: Attestation,
    /// Checkpoints of the audit log.
    pub audit: Audit,
    /// Bounds.
    pub limits: Limits,
    /// Protocol threads and pools.
    pub mpc: Mpc,
    /// How the daemon closes itself in.
    pub sandbox: Sandbox,
    /// Log output.
    pub log: Log,
}

/// Where the listening socket comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// The daemon makes it, on this address.
    Address(SocketAddr),
    /// systemd has made it and hands it over (`casemated.socket`).
    Systemd,
}

/// Certificate files, PEM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Issues client certificates.
    pub ca: PathBuf,
    /// The server's chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Revoked client certificates.
    pub crl: Option<PathBuf>,
}

/// Checkpoints of the own audit log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// Milliseconds that a signed checkpoint may be behind the log while leaves arrive.
    pub checkpoint_interval: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Self { checkpoint_interval: 500 }
    }
}

impl Audit {
    /// How far a signed checkpoint may be behind the log while leaves arrive.
    pub fn checkpoint_interval(&self) -> Duration {
        Duration::from_millis(self.checkpoint_interval)
    }
}

/// Bounds that keep the daemon responsive.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Sessions that may run at once.
    pub sessions: usize,
    /// Seconds that a protocol may take, from the hellos on.
    pub session_ttl: u64,
    /// Seconds within which the coordinator must attach the message stream.
    pub attach: u64,
    /// Seconds of clock difference that are tolerated.
    pub clock_skew: u64,
    /// Connections that may be open at once.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sessions: 64, session_ttl: 600, attach: 30, clock_skew: 30, connections: 256 }
    }
}

impl Limits {
    /// The longest life of a session.
    pub fn session_ttl(&self) -> Duration {
        Duration::from_secs(self.session_ttl)
    }
    /// The longest wait for the message stream.
    pub fn attach(&self) -> Duration {
        Duration::from_secs(self.attach)
    }
    /// The tolerated clock difference.
    pub fn clock_skew(&self) -> Duration {
        Duration::from_secs(self.clock_skew)
    }
}

/// Protocol threads and the pool of safe primes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mpc {
    /// Protocol threads; 0 means one a core.
    pub threads: usize,
    /// Pairs of safe primes to hold ready.
    pub prime_pool: u32,
}

impl Default for Mpc {
    fn default() -> Self {
        Self { threads: 0, prime_pool: 2 }
    }
}

/// Log output.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A `tracing` filter, for example `info` or `casemate=debug,info`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Human }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    party: PartySection,
    listen: ListenSection,
    tls: TlsFiles,
    #[serde(default)]
    client: Vec<ClientEntry>,
    #[serde(default)]
    coordinator_key: Vec<CoordinatorKeyEntry>,
    #[serde(default)]
    peer: Vec<Peer>,
    hsm: HsmSection,
    policy: PolicySection,
    #[serde(default)]
    approvals: ApprovalsSection,
    #[serde(default)]
    attestation: AttestationSection,
    #[serde(default)]
    audit: Audit,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    mpc: Mpc,
    #[serde(default)]
    sandbox: Sandbox,
    #[serde(default)]
    log: Log,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartySection {
    id: PartyId,
    data_dir: PathBuf,
    #[serde(default)]
    former_identities: Vec<IdentityKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenSection {
    address: Option<SocketAddr>,
    socket: Option<SocketSetting>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum SocketSetting {
    Systemd,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CoordinatorKeyEntry {
    issuer: String,
    algorithm: TokenAlgorithm,
    public_key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HsmSection {
    module: PathBuf,
    token_label: Option<String>,
    serial: Option<String>,
    pin_file: Option<PathBuf>,
    pin_credential: Option<PathBuf>,
    #[serde(default)]
    wrap: WrapSetting,
    #[serde(default = "default_hsm_threads")]
    threads: usize,
    #[serde(default = "default_hsm_queue")]
    queue: usize,
    #[serde(default = "default_hsm_timeout")]
    timeout: u64,
}

fn default_hsm_threads() -> usize {
    2
}
fn default_hsm_queue() -> usize {
    128
}
fn default_hsm_timeout() -> u64 {
    10
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WrapSetting {
    #[default]
    Auto,
    HostIv,
    TokenIv,
}

impl Config {
    /// Reads and checks the file and the key files that it names.
    ///
    /// # Errors
    /// Names the file, the key and what to mend.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read("the configuration", path)?;
        let file: File =
            toml::from_str(&text).map_err(|e| ConfigError::Parse { path: path.to_owned(), message: e.to_string() })?;
        let digest = crate::digest(text.as_bytes());
        Loader { path, folder: path.parent().unwrap_or(Path::new(".")) }.check(file, digest)
    }
}

/// Reads only the `[hsm]` section: what `casemate hsm init` needs before the rest can exist.
///
/// # Errors
/// As [`Config::load`], for that section.
pub fn load_hsm(path: &Path) -> Result<HsmConfig, ConfigError> {
    #[derive(Deserialize)]
    struct HsmOnly {
        hsm: HsmSection,
    }
    let text = read("the configuration", path)?;
    let file: HsmOnly =
        toml::from_str(&text).map_err(|e| ConfigError::Parse { path: path.to_owned(), message: e.to_string() })?;
    Loader { path, folder: path.parent().unwrap_or(Path::new(".")) }.hsm(file.hsm)
}

/// Reads only the data folder, if one is named.
///
/// # Errors
/// As [`Config::load`], for that entry.
pub fn load_data_dir(path: &Path) -> Result<Option<PathBuf>, ConfigError> {
    #[derive(Deserialize)]
    struct FolderOnly {
        party: Option<PartySection>,
    }
    let text = read("the configuration", path)?;
    let file: FolderOnly =
        toml::from_str(&text).map_err(|e| ConfigError::Parse { path: path.to_owned(), message: e.to_string() })?;
    let folder = path.parent().unwrap_or(Path::new("."));
    Ok(file.party.map(|party| folder.join(party.data_dir)))
}

fn read(what: &'static str, path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|source| ConfigError::Read { what, path: path.to_owned(), source })
}

struct Loader<'a> {
    path: &'a Path,
    folder: &'a Path,
}

impl Loader<'_> {
    fn check(&self, file: File, digest: Digest32) -> Result<Config, ConfigError> {
        let coordinator_keys =
            file.coordinator_key.into_iter().map(|entry| self.coordinator_key(entry)).collect::<Result<Vec<_>, _>>()?;
        for (place, key) in coordinator_keys.iter().enumerate() {
            if coordinator_keys.iter().take(place).any(|earlier| earlier.issuer() == key.issuer()) {
                return Err(self.bad("coordinator_key", format!("issuer {:?} stands twice", key.issuer())));
            }
        }
        peers::check(&file.party.id, &file.peer).map_err(|why| self.bad("peer", why))?;
        self.check_limits(&file.limits, &file.mpc, &file.audit)?;
        Ok(Config {
            path: self.path.to_owned(),
            digest,
            attestation: file.attestation.check(self.folder, &file.peer).map_err(|(key, why)| self.bad(key, why))?,
            party: file.party.id,
            data_dir: self.folder.join(file.party.data_dir),
            listen: self.listen(&file.listen)?,
            tls: TlsFiles {
                ca: self.existing("tls.ca", &file.tls.ca)?,
                certificate: self.existing("tls.certificate", &file.tls.certificate)?,
                key: self.existing("tls.key", &file.tls.key)?,
                crl: file.tls.crl.map(|crl| self.existing("tls.crl", &crl)).transpose()?,
            },
            clients: Clients::new(file.client).map_err(|why| self.bad("client", why))?,
            coordinator_keys,
            former_identities: file.party.former_identities,
            peers: file.peer,
            hsm: self.hsm(file.hsm)?,
            policy: file.policy.check(self.folder).map_err(|(key, why)| self.bad(key, why))?,
            approvers: file.approvals.check(self.folder).map_err(|(key, why)| self.bad(key, why))?,
            audit: file.audit,
            limits: file.limits,
            mpc: file.mpc,
            sandbox: file.sandbox.check(self.folder).map_err(|(key, why)| self.bad(key, why))?,
            log: file.log,
        })
    }

    fn coordinator_key(&self, entry: CoordinatorKeyEntry) -> Result<PinnedKey, ConfigError> {
        let path = self.folder.join(&entry.public_key);
        let pem = read("the coordinator's public key", &path)?;
        PinnedKey::new(entry.issuer, entry.algorithm, pem.as_bytes())
            .map_err(|e| self.bad("coordinator_key.public_key", format!("{}: {e}", path.display())))
    }

    fn check_limits(&self, limits: &Limits, mpc: &Mpc, audit: &Audit) -> Result<(), ConfigError> {
        let bounds = [
            ("limits.sessions", limits.sessions as u64, 1, 10_000),
            ("limits.session_ttl", limits.session_ttl, 10, 3600),
            ("limits.attach", limits.attach, 1, 600),
            ("limits.clock_skew", limits.clock_skew, 2, 300),
            ("limits.connections", limits.connections as u64, 1, 100_000),
            ("audit.checkpoint_interval", audit.checkpoint_interval, 100, 900),
            ("mpc.threads", mpc.threads as u64, 0, 1024),
            ("mpc.prime_pool", u64::from(mpc.prime_pool), 1, 1000),
        ];
        for (key, value, low, high) in bounds {
            if value < low || value > high {
                return Err(self.bad(key, format!("{value} is outside {low} to {high}")));
            }
        }
        Ok(())
    }

    fn listen(&self, section: &ListenSection) -> Result<Listen, ConfigError> {
        match (section.address, &section.socket) {
            (Some(address), None) => Ok(Listen::Address(address)),
            (None, Some(SocketSetting::Systemd)) => Ok(Listen::Systemd),
            _ => Err(self.bad("listen", "give address, or socket = \"systemd\": exactly one".into())),
        }
    }

    fn hsm(&self, section: HsmSection) -> Result<HsmConfig, ConfigError> {
        let token = match (section.token_label, section.serial) {
            (Some(label), None) => TokenSelector::Label(label),
            (None, Some(serial)) => TokenSelector::Serial(serial),
            _ => return Err(self.bad("hsm", "give token_label or serial, exactly one".into())),
        };
        let pin = match (section.pin_file, section.pin_credential) {
            (Some(file), None) => PinSource::file(self.folder.join(file)),
            (None, Some(credential)) => PinSource::credential(credential_path(&credential)),
            _ => return Err(self.bad("hsm", "give pin_file or pin_credential, exactly one".into())),
        };
        Ok(HsmConfig {
            module: self.existing("hsm.module", &section.module)?,
            token,
            pin,
            wrap: match section.wrap {
                WrapSetting::Auto => WrapMode::Auto,
                WrapSetting::HostIv => WrapMode::HostIv,
                WrapSetting::TokenIv => WrapMode::TokenIv,
            },
            threads: section.threads,
            queue: section.queue,
            timeout: Duration::from_secs(section.timeout),
        })
    }

    fn existing(&self, key: &str, path: &Path) -> Result<PathBuf, ConfigError> {
        let full = self.folder.join(path);
        if full.is_file() { Ok(full) } else { Err(self.bad(key, format!("there is no file {}", full.display()))) }
    }

    fn bad(&self, key: &str, why: String) -> ConfigError {
        ConfigError::Value { path: self.path.to_owned(), key: key.into(), why }
    }
}

/// A bare name is looked up where systemd puts the unit's credentials.
fn credential_path(name: &Path) -> PathBuf {
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(folder) if name.is_relative() => Path::new(&folder).join(name),
        _ => name.to_owned(),
    }
}
