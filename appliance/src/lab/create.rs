//! Everything of a lab that is made on disk.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use casemate_attest::AuditKey;
use casemate_wire::{IdentityKey, PartyId};
use rand::Rng;
use rand::rngs::OsRng;
use rcgen::KeyPair;
use serde::Deserialize;

use super::authority::{Authority, Usage};
use super::error::{LabError, file};
use super::policy::LabPolicy;
use super::settings::{self, Appliance, Pins, client_san};
use super::staff::Staff;
use super::{Lab, LabOptions, MANIFEST, Manifest, Party, PartyEntry, files, policy, process};

/// Where Debian, Ubuntu, Fedora and Arch put SoftHSM.
const MODULES: [&str; 6] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// Below the ports that the kernel hands out for outgoing connections, so that a port that is free now stays free.
const PORTS: (u16, u16) = (20_000, 31_999);

pub(super) fn create(root: &Path, options: &LabOptions) -> Result<Lab, LabError> {
    if !(2..=20).contains(&options.parties) {
        return Err(LabError::Parties(options.parties));
    }
    if !files::is_free(root)? {
        return Err(LabError::NotEmpty(root.to_owned()));
    }
    let module = module()?;
    files::folder(root)?;
    let root = root.canonicalize().map_err(file("find the folder", root))?;
    for name in ["ca", "clients", "coordinator", "coordinator/data", "logs", "run"] {
        files::folder(&root.join(name))?;
    }
    let authority = Authority::create(&root.join("ca"))?;
    for name in settings::CLIENTS {
        authority.issue(&root.join("clients"), name, &[&client_san(name)], Usage::Client)?;
    }
    token_key(&root.join("coordinator"))?;
    let staff = Staff::of(&root);
    staff.create()?;
    let maker = Maker { root: &root, options, module, authority, staff };
    let mut ports = free_ports(usize::from(options.parties) + 1)?;
    let coordinator_port = ports.pop().unwrap_or_default();
    let entries: Vec<PartyEntry> =
        (1..).zip(ports).map(|(number, port)| maker.party(number, port)).collect::<Result<_, _>>()?;
    let manifest = Manifest { bin_dir: options.bin_dir.clone(), coordinator_port, parties: entries };
    let lab = Lab::of(root.clone(), manifest);
    maker.introduce(&lab)?;
    maker.coordinator(&lab)?;
    let text = serde_json::to_string_pretty(&lab.manifest()).unwrap_or_default();
    files::public(&root.join(MANIFEST), &text)?;
    Ok(lab)
}

/// The public keys on a new token.
#[derive(Deserialize)]
struct Made {
    identity: IdentityKey,
    audit: AuditKey,
}

struct Maker<'a> {
    root: &'a Path,
    options: &'a LabOptions,
    module: PathBuf,
    authority: Authority,
    staff: Staff,
}

impl Maker<'_> {
    /// One appliance's folder, with its token and the keys on it.
    fn party(&self, number: u16, port: u16) -> Result<PartyEntry, LabError> {
        let name = format!("party-{number}");
        let folder = self.root.join(&name);
        for path in [&folder, &folder.join("data"), &folder.join("tls"), &folder.join("tokens")] {
            files::folder(path)?;
        }
        self.authority.issue(&folder.join("tls"), "server", &["localhost", "127.0.0.1"], Usage::Server)?;
        files::secret(&folder.join("pin"), &random_pin())?;
        files::secret(&folder.join("so-pin"), &random_pin())?;
        files::public(&folder.join("softhsm2.conf"), &settings::softhsm(&folder.join("tokens")))?;
        let policy = folder.join("policy");
        policy::install(&self.options.policy, &policy)?;
        if self.options.policy != LabPolicy::None {
            self.staff.sign_bundle(&policy)?;
        }
        let party_id: PartyId = name.parse().map_err(|e| self.broken(format!("{name}: {e}")))?;
        let config = folder.join("casemate.toml");
        files::public(&config, &self.appliance(&party_id, port, &[]).to_toml())?;
        let Made { identity, audit } = self.make_keys(&folder, &config)?;
        Ok(PartyEntry { party_id, identity, audit, port })
    }

    /// In a process of its own, since one process can hold one configuration of SoftHSM only.
    fn make_keys(&self, folder: &Path, config: &Path) -> Result<Made, LabError> {
        let so_pin = folder.join("so-pin");
        let arguments: [&OsStr; 9] = [
            "hsm".as_ref(),
            "init".as_ref(),
            "--config".as_ref(),
            config.as_ref(),
            "--create-token".as_ref(),
            "--so-pin-file".as_ref(),
            so_pin.as_ref(),
            "--format".as_ref(),
            "json".as_ref(),
        ];
        let program = self.options.bin_dir.join("casemate");
        let printed = process::run(&program, &arguments, Some(&folder.join("softhsm2.conf")))?;
        serde_json::from_str(&printed).map_err(|e| self.broken(format!("`casemate hsm init` printed {printed:?}: {e}")))
    }

    /// Tells every appliance who the others are, and begins its audit log.
    fn introduce(&self, lab: &Lab) -> Result<(), LabError> {
        let pins = |party: &Party| Pins {
            party: party.party_id.clone(),
            identity: party.identity.clone(),
            audit: party.audit.clone(),
        };
        let parties: Vec<Pins> = lab.parties.iter().map(pins).collect();
        for party in &lab.parties {
            let Party { party_id, address, config, softhsm_conf, .. } = party;
            files::replace(config, &self.appliance(party_id, address.port(), &parties).to_toml())?;
            let arguments: [&OsStr; 4] = ["audit".as_ref(), "init".as_ref(), "--config".as_ref(), config.as_ref()];
            process::run(&self.options.bin_dir.join("casemate"), &arguments, Some(softhsm_conf))?;
        }
        Ok(())
    }

    fn coordinator(&self, lab: &Lab) -> Result<(), LabError> {
        let site = &lab.coordinator;
        let appliances: Vec<_> = lab
            .parties
            .iter()
            .map(|party| (party.party_id.clone(), party.identity.clone(), party.url.clone()))
            .collect();
        let LabOptions { log_level, limits, bin_dir, .. } = self.options;
        files::public(&site.config, &settings::coordinator(site.address.port(), &appliances, log_level, limits))?;
        let arguments: [&OsStr; 6] = [
            "api-key".as_ref(),
            "create".as_ref(),
            "--config".as_ref(),
            site.config.as_ref(),
            "--name".as_ref(),
            "lab".as_ref(),
        ];
        let key = process::run(&bin_dir.join("casemate-coordinator"), &arguments, None)?;
        files::secret(&site.api_key_file, &format!("{key}\n"))
    }

    fn appliance<'b>(&'b self, party: &'b PartyId, port: u16, parties: &'b [Pins]) -> Appliance<'b> {
        let LabOptions { prime_pool, log_level, limits, .. } = self.options;
        Appliance { party, port, module: &self.module, parties, prime_pool: *prime_pool, log_level, limits }
    }

    fn broken(&self, why: String) -> LabError {
        LabError::NotALab { root: self.root.to_owned(), why }
    }
}

/// The coordinator's key pair for join tokens.
pub(super) fn token_key(folder: &Path) -> Result<(), LabError> {
    let key = KeyPair::generate().map_err(|source| LabError::Certificate { what: "token key".into(), source })?;
    files::secret(&folder.join("token.key"), &key.serialize_pem())?;
    files::public(&folder.join("token.pub.pem"), &key.public_key_pem())
}

fn module() -> Result<PathBuf, LabError> {
    let found = MODULES.iter().map(Path::new).find(|path| path.is_file());
    found.map(Path::to_owned).ok_or_else(|| LabError::NoModule(MODULES.join(", ")))
}

fn random_pin() -> String {
    (0..16).map(|_| char::from(OsRng.gen_range(b'0'..=b'9'))).chain(['\n']).collect()
}

/// Ports that nothing listens on, chosen at random, so that labs made at the same time hardly meet.
pub(super) fn free_ports(count: usize) -> Result<Vec<u16>, LabError> {
    let (first, last) = PORTS;
    let mut found = BTreeSet::new();
    for _ in 0..1000 {
        let port = OsRng.gen_range(first..=last);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            found.insert(port);
        }
        if found.len() == count {
            return Ok(found.into_iter().collect());
        }
    }
    Err(LabError::NoPorts(first, last))
}
