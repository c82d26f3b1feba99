//! A lab on one machine: several appliances as processes, each with its own SoftHSM token, a certificate authority, a
//! coordinator and a starter policy. For trying the product out, and for its whole-system tests.
//!
//! ```text
//! lab.json                what is where
//! ca/                     the lab's certificate authority
//! clients/<name>.pem,.key coordinator, operator, auditor, monitor
//! staff/                  SSH keys of those who sign the policy and approve requests
//! <party>/                casemate.toml, data/, policy/, tls/, pin, so-pin, softhsm2.conf, tokens/
//! coordinator/            coordinator.toml, data/, token.key, token.pub.pem, api.key
//! logs/  run/             what the processes say; their process ids
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | [`Lab`]: making, opening, starting, stopping one |
//! | `create.rs` | everything that is made on disk |
//! | `settings.rs` | the configuration files |
//! | `authority.rs` | the certificate authority |
//! | `policy.rs` | the starter policy |
//! | `staff.rs` | who signs the policy and approves requests |
//! | `process.rs` | starting processes, and ending those and no others |
//! | `client.rs` | calling the coordinator and the appliances |
//! | `demo/` | the product's main job, end to end |
//! | `progress.rs` | saying what is being done |
//!
//! # Security
//! Tokens are software, PINs lie beside them, and everything belongs to one user of one machine: no key that is made in
//! a lab may hold anything of value.

mod authority;
mod client;
mod create;
pub mod demo;
mod error;
mod files;
mod policy;
mod process;
mod progress;
mod settings;
pub mod staff;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use casemate_attest::AuditKey;
use casemate_wire::{IdentityKey, PartyId};
use serde::{Deserialize, Serialize};

use crate::clients::Role;

pub use client::{Answer, ClientError, Service};
pub use error::LabError;
pub use policy::LabPolicy;
pub use process::{Running, stop_all};
pub use progress::{Output, Progress};
pub use settings::LabLimits;
pub use staff::{SIGNERS, Staff};

use error::file;
use process::Daemon;

const MANIFEST: &str = "lab.json";
/// How often health is asked for while a process starts.
const POLL: Duration = Duration::from_millis(100);

/// What a new lab is like.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// How many appliances, 2 to 20.
    pub parties: u16,
    /// Pairs of safe primes that each appliance holds ready; each new committee takes one.
    pub prime_pool: u32,
    /// Where `casemate`, `casemated` and `casemate-coordinator` lie.
    pub bin_dir: PathBuf,
    /// Overrides of the daemons' bounds.
    pub limits: LabLimits,
    /// The appliances' policy.
    pub policy: LabPolicy,
    /// A `tracing` filter for all daemons.
    pub log_level: String,
}

impl Default for LabOptions {
    /// Three appliances, one pair of primes each, the starter policy; programs from beside the one that is running.
    fn default() -> Self {
        Self {
            parties: 3,
            prime_pool: 1,
            bin_dir: own_folder().unwrap_or_default(),
            limits: LabLimits::default(),
            policy: LabPolicy::Starter,
            log_level: "info".into(),
        }
    }
}

/// The folder of the running program; cargo puts test programs one folder below the others.
fn own_folder() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    let folder = if folder.ends_with("deps") { folder.parent()? } else { folder };
    Some(folder.to_owned())
}

/// A lab on disk. It may run or not.
#[derive(Debug, Clone)]
pub struct Lab {
    /// Its folder, absolute.
    pub root: PathBuf,
    /// Where the programs lie.
    pub bin_dir: PathBuf,
    /// Its appliances, in order.
    pub parties: Vec<Party>,
    /// Its coordinator.
    pub coordinator: Coordinator,
}

/// One appliance of a lab.
#[derive(Debug, Clone)]
pub struct Party {
    /// Its name.
    pub party_id: PartyId,
    /// The identity key in its token.
    pub identity: IdentityKey,
    /// The audit key in its token.
    pub audit: AuditKey,
    /// Where it listens.
    pub address: SocketAddr,
    /// The same as `https://…`.
    pub url: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Its `casemate.toml`.
    pub config: PathBuf,
    /// Its store.
    pub data_dir: PathBuf,
    /// Its policy bundle.
    pub policy_dir: PathBuf,
    /// What `SOFTHSM2_CONF` must say in every process that uses its token.
    pub softhsm_conf: PathBuf,
    /// The PIN of its token.
    pub pin_file: PathBuf,
}

/// The coordinator of a lab.
#[derive(Debug, Clone)]
pub struct Coordinator {
    /// Where it listens.
    pub address: SocketAddr,
    /// The same as `http://…`.
    pub url: String,
    /// Its configuration.
    pub config: PathBuf,
    /// Its store.
    pub data_dir: PathBuf,
    /// The API key of the lab's business service, one line.
    pub api_key_file: PathBuf,
    /// The private key that signs join tokens (ES256, PKCS#8 PEM).
    pub token_key_file: PathBuf,
    /// The issuer's name in join tokens.
    pub issuer: &'static str,
}

/// How to connect to appliances as one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The CA of the appliances' certificates.
    pub ca: PathBuf,
    /// The client's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// `lab.json`: all that paths do not tell.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    bin_dir: PathBuf,
    coordinator_port: u16,
    parties: Vec<PartyEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartyEntry {
    party_id: PartyId,
    identity: IdentityKey,
    audit: AuditKey,
    port: u16,
}

impl Lab {
    /// Makes everything on disk, with keys on new tokens, and starts nothing. Takes about a second.
    ///
    /// # Errors
    /// `root` is there and not empty; a program or SoftHSM is missing; a step failed, and what was made so far is left
    /// in `root`.
    pub fn create(root: &Path, options: &LabOptions) -> Result<Self, LabError> {
        create::create(root, options)
    }

    /// Finds a lab that was made before.
    ///
    /// # Errors
    /// [`LabError::NotALab`].
    pub fn open(root: &Path) -> Result<Self, LabError> {
        let not_a_lab = |why: String| LabError::NotALab { root: root.to_owned(), why };
        let root = root.canonicalize().map_err(|e| not_a_lab(e.to_string()))?;
        let text = fs::read(root.join(MANIFEST)).map_err(|e| not_a_lab(format!("{MANIFEST}: {e}")))?;
        let manifest = serde_json::from_slice(&text).map_err(|e| not_a_lab(format!("{MANIFEST}: {e}")))?;
        Ok(Self::of(root, manifest))
    }

    /// Whether `root` holds a lab that was made to the end.
    pub fn exists(root: &Path) -> bool {
        root.join(MANIFEST).is_file()
    }

    fn of(root: PathBuf, manifest: Manifest) -> Self {
        let site = root.join("coordinator");
        let address = local(manifest.coordinator_port);
        let coordinator = Coordinator {
            address,
            url: format!("http://{address}"),
            config: site.join("coordinator.toml"),
            data_dir: site.join("data"),
            api_key_file: site.join("api.key"),
            token_key_file: site.join("token.key"),
            issuer: settings::ISSUER,
        };
        let parties = manifest.parties.into_iter().map(|entry| Party::of(&root, entry)).collect();
        Self { root, bin_dir: manifest.bin_dir, parties, coordinator }
    }

    fn manifest(&self) -> Manifest {
        let entry = |party: &Party| PartyEntry {
            party_id: party.party_id.clone(),
            identity: party.identity.clone(),
            audit: party.audit.clone(),
            port: party.address.port(),
        };
        Manifest {
            bin_dir: self.bin_dir.clone(),
            coordinator_port: self.coordinator.address.port(),
            parties: self.parties.iter().map(entry).collect(),
        }
    }

    /// The party with this name.
    pub fn party(&self, name: &PartyId) -> Option<&Party> {
        self.parties.iter().find(|party| &party.party_id == name)
    }

    /// The certificate of the client with this role; every appliance knows one for each role.
    pub fn credentials(&self, role: Role) -> Credentials {
        let clients = self.root.join("clients");
        let name = role.as_str();
        Credentials {
            ca: self.root.join("ca").join("ca.pem"),
            certificate: clients.join(format!("{name}.pem")),
            key: clients.join(format!("{name}.key")),
        }
    }

    /// An appliance, called as the client with this role.
    ///
    /// # Errors
    /// The lab's certificates cannot be read.
    pub fn appliance(&self, party: &Party, role: Role) -> Result<Service, LabError> {
        let Credentials { ca, certificate, key } = self.credentials(role);
        Ok(Service::with_certificate(party.address, &ca, &certificate, &key)?)
    }

    /// The coordinator's front door, called with the lab's API key.
    ///
    /// # Errors
    /// The key's file cannot be read.
    pub fn front_door(&self) -> Result<Service, LabError> {
        let path = &self.coordinator.api_key_file;
        let key = fs::read_to_string(path).map_err(file("read the API key", path))?;
        Ok(Service::with_api_key(self.coordinator.address, key.trim()))
    }

    /// Starts an appliance. Its output goes to `logs/<party>.log`.
    ///
    /// # Errors
    /// It runs already, or cannot be started.
    pub fn start_party(&self, party: &Party) -> Result<Running, LabError> {
        self.party_daemon(party).start()
    }

    /// Starts the coordinator. Its output goes to `logs/coordinator.log`.
    ///
    /// # Errors
    /// It runs already, or cannot be started.
    pub fn start_coordinator(&self) -> Result<Running, LabError> {
        self.coordinator_daemon().start()
    }

    /// Starts what does not run.
    ///
    /// # Errors
    /// Something cannot be started; what was started before it is killed again.
    pub fn start_all(&self) -> Result<Vec<Running>, LabError> {
        let mut started = Vec::new();
        for daemon in self.daemons() {
            if daemon.pid()?.is_none() {
                started.push(daemon.start()?);
            }
        }
        Ok(started)
    }

    /// Waits until an appliance answers and neither HSM, store nor audit log are failing.
    ///
    /// # Errors
    /// It ended, or is not healthy within `limit`.
    pub async fn wait_party_healthy(&self, party: &Party, limit: Duration) -> Result<(), LabError> {
        let service = self.appliance(party, Role::Monitor)?;
        let path = format!("{}/health", casemate_wire::api::BASE_PATH);
        wait_healthy(&self.party_daemon(party), &service, &path, limit, |answer| answer.status == 200).await
    }

    /// Waits until the coordinator answers and is connected with every appliance.
    ///
    /// # Errors
    /// It ended, or is not healthy within `limit`.
    pub async fn wait_coordinator_healthy(&self, limit: Duration) -> Result<(), LabError> {
        let healthy = |answer: &Answer| answer.body.get("status").is_some_and(|status| status == "ok");
        wait_healthy(&self.coordinator_daemon(), &self.front_door()?, "/health", limit, healthy).await
    }

    /// Waits for all appliances and the coordinator, `limit` for each.
    ///
    /// # Errors
    /// As [`Self::wait_party_healthy`] and [`Self::wait_coordinator_healthy`].
    pub async fn wait_healthy(&self, limit: Duration) -> Result<(), LabError> {
        for party in &self.parties {
            self.wait_party_healthy(party, limit).await?;
        }
        self.wait_coordinator_healthy(limit).await
    }

    /// Stops every process of this lab, whoever started it, and no other process. Returns the names of those that ran.
    ///
    /// # Errors
    /// One does not stop; the others were told to.
    pub fn stop(&self) -> Result<Vec<String>, LabError> {
        let mut told = Vec::new();
        // The coordinator first, so that sessions end before their parties do.
        for daemon in self.daemons().into_iter().rev() {
            if let Some(pid) = daemon.tell_to_stop()? {
                told.push((daemon, pid));
            }
        }
        for (daemon, pid) in &told {
            daemon.wait_stopped(*pid)?;
        }
        Ok(told.into_iter().map(|(daemon, _)| daemon.name).collect())
    }

    /// Runs `casemate` to its end, as an operator of this party would, and returns what it printed.
    ///
    /// # Errors
    /// It is missing, or it failed: with what it said.
    pub fn casemate(&self, party: &Party, arguments: &[&std::ffi::OsStr]) -> Result<String, LabError> {
        process::run(&self.bin_dir.join("casemate"), arguments, Some(&party.softhsm_conf))
    }

    /// Who signs its policy and approves requests.
    pub fn staff(&self) -> Staff {
        Staff::of(&self.root)
    }

    fn daemons(&self) -> Vec<Daemon> {
        let appliances = self.parties.iter().map(|party| self.party_daemon(party));
        appliances.chain([self.coordinator_daemon()]).collect()
    }

    fn party_daemon(&self, party: &Party) -> Daemon {
        self.daemon(party.party_id.as_str(), "casemated", &party.config, Some(&party.softhsm_conf))
    }

    fn coordinator_daemon(&self) -> Daemon {
        self.daemon("coordinator", "casemate-coordinator", &self.coordinator.config, None)
    }

    fn daemon(&self, name: &str, program: &str, config: &Path, softhsm_conf: Option<&Path>) -> Daemon {
        Daemon {
            name: name.to_owned(),
            program: self.bin_dir.join(program),
            config: config.to_owned(),
            softhsm_conf: softhsm_conf.map(Path::to_owned),
            log: self.root.join("logs").join(format!("{name}.log")),
            pid_file: self.root.join("run").join(format!("{name}.pid")),
        }
    }
}

impl Party {
    fn of(root: &Path, entry: PartyEntry) -> Self {
        let folder = root.join(entry.party_id.as_str());
        let address = local(entry.port);
        Self {
            party_id: entry.party_id,
            identity: entry.identity,
            audit: entry.audit,
            address,
            url: format!("https://{address}"),
            config: folder.join("casemate.toml"),
            data_dir: folder.join("data"),
            policy_dir: folder.join("policy"),
            softhsm_conf: folder.join("softhsm2.conf"),
            pin_file: folder.join("pin"),
            folder,
        }
    }
}

async fn wait_healthy(
    daemon: &Daemon,
    service: &Service,
    path: &str,
    limit: Duration,
    is_healthy: impl Fn(&Answer) -> bool,
) -> Result<(), LabError> {
    let begun = Instant::now();
    loop {
        let why = match service.get(path).await {
            Ok(answer) if is_healthy(&answer) => return Ok(()),
            Ok(answer) => answer.body.to_string(),
            Err(error) => error.to_string(),
        };
        let (name, log) = (daemon.name.clone(), daemon.log.clone());
        if daemon.pid()?.is_none() {
            return Err(LabError::Ended { name, log, tail: daemon.log_tail() });
        }
        if begun.elapsed() > limit {
            return Err(LabError::Unhealthy { name, seconds: limit.as_secs(), why, log });
        }
        tokio::time::sleep(POLL).await;
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

#[cfg(test)]
mod tests;
