#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use std::os::unix::fs::PermissionsExt;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::authority::{Authority, Usage};
use super::settings::{Appliance, Pins, client_san};
use super::*;
use crate::config::{Config, Listen};
use crate::tls;

fn spki(seed: u8) -> Vec<u8> {
    let key = p256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap();
    p256::pkcs8::EncodePublicKey::to_public_key_der(key.verifying_key()).unwrap().into_vec()
}

fn parties() -> Vec<Pins> {
    let pins = |number: u8| Pins {
        party: format!("party-{number}").parse().unwrap(),
        identity: IdentityKey::from_spki(&spki(number)).unwrap(),
        audit: AuditKey::from_spki(&spki(number + 100)).unwrap(),
    };
    (1..=3).map(pins).collect()
}

/// The files of one appliance, without a token.
fn appliance(root: &Path, limits: &LabLimits) -> PathBuf {
    for folder in ["ca", "clients", "coordinator", "party-1/tls", "party-1/data"] {
        files::folder(&root.join(folder)).unwrap();
    }
    let authority = Authority::create(&root.join("ca")).unwrap();
    for name in settings::CLIENTS {
        authority.issue(&root.join("clients"), name, &[&client_san(name)], Usage::Client).unwrap();
    }
    authority.issue(&root.join("party-1/tls"), "server", &["localhost", "127.0.0.1"], Usage::Server).unwrap();
    create::token_key(&root.join("coordinator")).unwrap();
    Staff::of(root).create().unwrap();
    let module = root.join("mod\"ule.so");
    fs::write(&module, "").unwrap();
    let parties = parties();
    let settings = Appliance {
        party: &parties[0].party,
        port: 20_001,
        module: &module,
        parties: &parties,
        prime_pool: 3,
        log_level: "info",
        limits,
    };
    let config = root.join("party-1/casemate.toml");
    files::public(&config, &settings.to_toml()).unwrap();
    config
}

#[test]
fn the_daemon_loads_the_settings_of_an_appliance() {
    let root = tempfile::tempdir().unwrap();
    let limits = LabLimits { attach: Some(7), sessions: Some(5), ..LabLimits::default() };
    let config = Config::load(&appliance(root.path(), &limits)).unwrap();
    tls::Material::load(&config.tls, jiff::Timestamp::now()).unwrap();
    assert_eq!((config.limits.attach, config.limits.sessions, config.limits.session_ttl), (7, 5, 600));
    assert_eq!((config.mpc.prime_pool, config.listen), (3, Listen::Address(local(20_001))));
    assert_eq!(config.policy.anchors.quorum().to_string(), "2 of 3");
    assert_eq!(config.approvers.keys().count(), 3);
    let pinned: Vec<_> = config.peers.iter().map(|peer| (&peer.party_id, &peer.identity, &peer.audit)).collect();
    let parties = parties();
    let others: Vec<_> = parties[1..].iter().map(|peer| (&peer.party, &peer.identity, &peer.audit)).collect();
    assert_eq!((&config.party, pinned), (&parties[0].party, others));
    assert_eq!(config.audit.checkpoint_interval, 500);
}

#[test]
fn each_client_of_the_lab_is_known_with_its_one_role() {
    let root = tempfile::tempdir().unwrap();
    let config = Config::load(&appliance(root.path(), &LabLimits::default())).unwrap();
    for role in [Role::Coordinator, Role::Operator, Role::Auditor, Role::Monitor] {
        let path = root.path().join("clients").join(format!("{}.pem", role.as_str()));
        let certificate = CertificateDer::from_pem_file(path).unwrap();
        let client = config.clients.identify(&certificate).unwrap();
        assert_eq!((client.name(), client.roles()), (role.as_str(), &[role][..]));
    }
}

#[test]
fn keys_are_for_their_owner_alone() {
    let root = tempfile::tempdir().unwrap();
    appliance(root.path(), &LabLimits::default());
    for path in ["ca/ca.key", "clients/operator.key", "party-1/tls/server.key", "coordinator/token.key"] {
        let mode = fs::metadata(root.path().join(path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{path}");
    }
    let mode = fs::metadata(root.path().join("party-1/data")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_lab_is_found_again_as_it_was_made() {
    let root = tempfile::tempdir().unwrap();
    let entry = |(place, Pins { party, identity, audit }): (u16, Pins)| PartyEntry {
        party_id: party,
        identity,
        audit,
        port: 20_000 + place,
    };
    let parties = (1..).zip(parties()).map(entry).collect();
    let manifest = Manifest { bin_dir: "/opt/bin".into(), coordinator_port: 20_000, parties };
    let lab = Lab::of(root.path().canonicalize().unwrap(), manifest);
    assert!(!Lab::exists(root.path()));
    fs::write(root.path().join(MANIFEST), serde_json::to_string(&lab.manifest()).unwrap()).unwrap();
    let again = Lab::open(root.path()).unwrap();
    assert_eq!(format!("{again:?}"), format!("{lab:?}"));
    assert_eq!(again.party(&"party-2".parse().unwrap()).unwrap().url, "https://127.0.0.1:20002");
}

#[test]
fn a_folder_with_something_in_it_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("mine"), "x").unwrap();
    assert!(matches!(Lab::create(root.path(), &LabOptions::default()), Err(LabError::NotEmpty(_))));
    assert!(matches!(Lab::open(root.path()), Err(LabError::NotALab { .. })));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn ports_are_as_many_as_asked_for_and_all_different() {
    let ports = create::free_ports(21).unwrap();
    let different: std::collections::BTreeSet<u16> = ports.iter().copied().collect();
    assert_eq!((ports.len(), different.len()), (21, 21));
}
