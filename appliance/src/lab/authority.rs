//! The lab's certificate authority. Its certificates are good for one year, and nowhere but in the lab.

use std::path::Path;

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::error::LabError;
use super::files;

/// What a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    Server,
    Client,
}

/// A certificate authority that lives as long as the lab is being made.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new one and writes its certificate and key into `folder`, as `ca.pem` and `ca.key`.
    pub(super) fn create(folder: &Path) -> Result<Self, LabError> {
        let failed = |source| LabError::Certificate { what: "CA certificate".into(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = params(Vec::new(), "Casemate lab CA").map_err(failed)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        files::public(&folder.join("ca.pem"), &params.self_signed(&key).map_err(failed)?.pem())?;
        files::secret(&folder.join("ca.key"), &key.serialize_pem())?;
        Ok(Self { issuer: Issuer::new(params, key) })
    }

    /// Makes a key with a certificate for `names`, and writes both into `folder`, as `<stem>.pem` and `<stem>.key`.
    pub(super) fn issue(&self, folder: &Path, stem: &str, names: &[&str], usage: Usage) -> Result<(), LabError> {
        let failed = |source| LabError::Certificate { what: format!("certificate {stem}"), source };
        let key = KeyPair::generate().map_err(failed)?;
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = params(names, stem).map_err(failed)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        files::public(&folder.join(format!("{stem}.pem")), &certificate.pem())?;
        files::secret(&folder.join(format!("{stem}.key")), &key.serialize_pem())
    }
}

fn params(names: Vec<String>, common_name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let day = |date: jiff::civil::Date| {
        let part = |value: i8| u8::try_from(value).unwrap_or(1);
        rcgen::date_time_ymd(date.year().into(), part(date.month()), part(date.day()))
    };
    params.not_before = day(today.saturating_sub(1.day()));
    params.not_after = day(today.saturating_add(1.year()));
    Ok(params)
}
