#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jiff::{Timestamp, ToSpan};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls_pki_types::CertificateDer;

use super::{Looked, Material, TlsSlot, What};
use crate::config::TlsFiles;
use crate::metrics::Metrics;

type Year = i32;
type Ca = Issuer<'static, KeyPair>;

/// A moment within everything that these tests take for good.
fn now() -> Timestamp {
    "2030-01-15T00:00:00Z".parse().unwrap()
}

/// A CA of 2020 to 2040, and its certificate.
fn authority(name: &str) -> (Ca, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

fn server(from: Year, to: Year) -> CertificateParams {
    let mut params = CertificateParams::new(["party.lab".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
    params
}

fn list(ca: &Ca, from: Year, to: Year, revoked: &[u64]) -> String {
    let revoked = revoked.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2021, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(from, 1, 1),
        next_update: date_time_ymd(to, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(ca).unwrap().pem().unwrap()
}

/// Files of one appliance that are good at [`now`], and the CA behind them.
struct Host {
    _folder: tempfile::TempDir,
    files: TlsFiles,
    ca: Ca,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (ca, pem) = authority("Test CA");
        let files =
            TlsFiles { ca: path("ca.pem"), certificate: path("s.pem"), key: path("s.key"), crl: Some(path("crl")) };
        fs::write(&files.ca, pem).unwrap();
        let host = Self { _folder: folder, files, ca };
        host.renew(&server(2030, 2031));
        host.put_list(&list(&host.ca, 2025, 2032, &[]));
        host
    }

    fn renew(&self, params: &CertificateParams) {
        self.renew_by(params, &self.ca);
    }

    fn renew_by(&self, params: &CertificateParams, ca: &Ca) {
        let key = KeyPair::generate().unwrap();
        fs::write(&self.files.certificate, params.signed_by(&key, ca).unwrap().pem()).unwrap();
        put_key(&self.files.key, &key);
    }

    fn put_list(&self, pem: &str) {
        fs::write(self.files.crl.as_ref().unwrap(), pem).unwrap();
    }

    fn refusal(&self) -> String {
        match Material::load(&self.files, now()) {
            Ok(_) => panic!("it was taken"),
            Err(error) => error.to_string(),
        }
    }

    fn slot(&self) -> TlsSlot {
        TlsSlot::new(self.files.clone(), Material::load(&self.files, now()).unwrap())
    }
}

fn put_key(path: &Path, key: &KeyPair) {
    fs::write(path, key.serialize_pem()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let host = Host::new();
    put_key(&host.files.key, &KeyPair::generate().unwrap());
    let why = host.refusal();
    assert!(why.contains("do not fit together") && why.contains("KeyMismatch"), "{why}");
}

#[test]
fn a_server_certificate_must_hold_now_be_for_servers_and_be_signed_by_the_ca_that_it_names() {
    let host = Host::new();
    let mut for_clients = server(2030, 2031);
    for_clients.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    for (params, expected) in [
        (server(2028, 2029), "expired at"),
        (server(2031, 2032), "is valid only from"),
        (for_clients, "it is not for servers"),
    ] {
        host.renew(&params);
        let why = host.refusal();
        assert!(why.contains(expected) && why.contains("s.pem"), "{expected}: {why}");
    }
    let (impostor, _) = authority("Test CA");
    host.renew_by(&server(2030, 2031), &impostor);
    let why = host.refusal();
    assert!(why.contains("did not sign it"), "{why}");
    // A CA for servers alone need not be in the file of the clients' CA.
    let (other, _) = authority("Server CA");
    host.renew_by(&server(2030, 2031), &other);
    assert!(Material::load(&host.files, now()).is_ok());
}

#[test]
fn a_chain_in_the_wrong_order_is_refused() {
    let host = Host::new();
    let (_, unrelated) = authority("Unrelated CA");
    let leaf = fs::read_to_string(&host.files.certificate).unwrap();
    fs::write(&host.files.certificate, format!("{leaf}{unrelated}")).unwrap();
    let why = host.refusal();
    assert!(why.contains("sort the chain"), "{why}");
    let ca = fs::read_to_string(&host.files.ca).unwrap();
    fs::write(&host.files.certificate, format!("{leaf}{ca}")).unwrap();
    assert!(Material::load(&host.files, now()).is_ok());
}

#[test]
fn a_list_must_be_signed_by_the_ca_and_not_be_expired() {
    let host = Host::new();
    let (impostor, _) = authority("Test CA");
    let (other, _) = authority("Other CA");
    let good = list(&host.ca, 2025, 2032, &[7]);
    for (pem, expected) in [
        (list(&host.ca, 2025, 2029, &[]), "expired at"),
        (list(&host.ca, 2031, 2032, &[]), "still to come"),
        (list(&impostor, 2025, 2032, &[]), "did not sign it"),
        (list(&other, 2025, 2032, &[]), "not in the file of the client CA"),
        (format!("{good}{}", list(&impostor, 2025, 2032, &[])), "did not sign it"),
        (String::new(), "it holds no PEM list"),
        (format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", "MAMCAQE="), "it is no list"),
    ] {
        host.put_list(&pem);
        let why = host.refusal();
        assert!(why.contains(expected) && why.contains("revoked"), "{expected}: {why}");
    }
    host.put_list(&good);
    assert!(Material::load(&host.files, now()).is_ok());
}

#[test]
fn the_figures_say_in_seconds_when_each_part_ends() {
    let host = Host::new();
    let day = 86_400;
    let material = Material::load(&host.files, now()).unwrap();
    let figures: Vec<_> =
        material.lifetimes().iter().map(|life| (life.what(), life.left(now()), life.whole())).collect();
    let expected = [
        (What::Certificate, 351 * day, 365 * day),
        // Ten years less two weeks, with 2032 and 2036; twenty years with five leap years.
        (What::Ca, (10 * 365 + 2 - 14) * day, (20 * 365 + 5) * day),
        (What::Crl, (2 * 365 - 14) * day, (7 * 365 + 1) * day),
    ];
    assert_eq!(figures, expected);
    let late: Timestamp = "2031-01-01T00:01:00Z".parse().unwrap();
    let metrics = Metrics::new();
    metrics.tls(&host.slot(), late);
    let text = metrics.text(0, 0);
    for line in ["mpc_tls_expiry_seconds{what=\"certificate\"} -60\n", "mpc_tls_refused_seconds 0\n"] {
        assert!(text.contains(line), "{line} should be in {text}");
    }
    assert!(text.contains(&format!("mpc_tls_lifetime_seconds{{what=\"certificate\"}} {}\n", 365 * day)), "{text}");
}

#[test]
fn an_end_is_a_worry_for_thirty_days_or_for_the_last_third_of_a_short_life() {
    let host = Host::new();
    let slot = host.slot();
    let end: Timestamp = "2031-01-01T00:00:00Z".parse().unwrap();
    let before = |hours: i64| end.checked_sub(hours.hours()).unwrap();
    assert_eq!(slot.problem(before(30 * 24)), None);
    let soon = slot.problem(before(30 * 24 - 1)).unwrap();
    assert!(soon.contains("the server certificate ends at 2031-01-01T00:00:00Z, in 29 days"), "{soon}");
    let over = slot.problem(end).unwrap();
    assert!(over.contains("the server certificate ended at 2031-01-01T00:00:00Z"), "{over}");

    let mut weekly = server(2030, 2031);
    (weekly.not_before, weekly.not_after) = (date_time_ymd(2030, 1, 12), date_time_ymd(2030, 1, 21));
    host.renew(&weekly);
    let slot = host.slot();
    assert_eq!(slot.problem("2030-01-18T00:00:00Z".parse().unwrap()), None);
    let soon = slot.problem("2030-01-18T01:00:00Z".parse().unwrap()).unwrap();
    assert!(soon.contains("in 2 days"), "{soon}");
}

#[test]
fn bad_files_leave_the_old_in_use_and_say_why_and_since_when() {
    let host = Host::new();
    let slot = host.slot();
    let old = slot.current().spki();
    let kept = (fs::read(&host.files.certificate).unwrap(), fs::read(&host.files.key).unwrap());
    assert!(matches!(slot.look(now()), Looked::Same));
    // The certificate comes first, its key a minute later.
    let key = KeyPair::generate().unwrap();
    fs::write(&host.files.certificate, server(2030, 2031).signed_by(&key, &host.ca).unwrap().pem()).unwrap();
    let later = now().checked_add(1.minute()).unwrap();
    assert!(matches!(slot.look(now()), Looked::Refused(_)));
    assert!(matches!(slot.look(later), Looked::StillRefused(_)));
    assert_eq!((slot.current().spki(), slot.refused_for(later)), (old, Some(60)));
    let problem = slot.problem(later).unwrap();
    assert!(problem.contains("refused since 2030-01-15T00:00:00Z") && problem.contains("KeyMismatch"), "{problem}");
    // Another fault does not begin a new time.
    fs::remove_file(host.files.crl.as_ref().unwrap()).unwrap();
    assert!(matches!(slot.look(later), Looked::Refused(_)));
    assert_eq!(slot.refused_for(later), Some(60));
    host.put_list(&list(&host.ca, 2025, 2032, &[]));

    put_key(&host.files.key, &key);
    assert!(matches!(slot.look(later), Looked::Loaded));
    assert_eq!((slot.problem(later), slot.refused_for(later)), (None, None));
    assert_ne!(slot.current().spki(), old);

    // What is put back as it is in use is no fault any more.
    let (used, used_key) = (fs::read(&host.files.certificate).unwrap(), fs::read(&host.files.key).unwrap());
    fs::write(&host.files.certificate, &kept.0).unwrap();
    assert!(matches!(slot.look(later), Looked::Refused(_)));
    fs::write(&host.files.certificate, used).unwrap();
    fs::write(&host.files.key, used_key).unwrap();
    assert!(matches!(slot.look(later), Looked::Same));
    assert_eq!(slot.problem(later), None);
}

#[test]
fn a_key_that_others_may_read_is_not_taken_at_a_renewal_either() {
    let host = Host::new();
    let slot = host.slot();
    host.renew(&server(2030, 2031));
    fs::set_permissions(&host.files.key, fs::Permissions::from_mode(0o644)).unwrap();
    let Looked::Refused(why) = slot.look(now()) else { panic!("it was taken") };
    assert!(why.contains("chmod"), "{why}");
}

#[test]
fn whom_a_new_list_names_is_no_longer_trusted_and_others_are() {
    // Clients are judged by the clock of this machine, so everything here holds for long.
    let host = Host::new();
    host.renew(&server(2021, 2039));
    host.put_list(&list(&host.ca, 2021, 2039, &[]));
    let client = |serial: u64| -> CertificateDer<'static> {
        let mut params = server(2021, 2039);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(serial));
        params.signed_by(&KeyPair::generate().unwrap(), &host.ca).unwrap().der().clone()
    };
    let (good, bad) = (client(1), client(2));
    let slot = host.slot();
    for shown in [&good, &bad] {
        slot.current().judge_client(std::slice::from_ref(shown)).unwrap();
    }
    host.put_list(&list(&host.ca, 2021, 2039, &[2]));
    assert!(matches!(slot.look(now()), Looked::Loaded));
    slot.current().judge_client(&[good]).unwrap();
    let error = slot.current().judge_client(&[bad]).unwrap_err();
    assert!(error.to_string().contains("Revoked"), "{error}");
    assert!(slot.current().judge_client(&[]).is_err());
}
