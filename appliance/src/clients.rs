//! Who calls: the client certificate's names, matched against the configured clients and their roles.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use casemate_wire::Digest32;

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Convenes sessions and carries messages.
    Coordinator,
    /// Runs the host.
    Operator,
    /// Reads evidence.
    Auditor,
    /// Reads metrics and health.
    Monitor,
}

impl Role {
    /// The role as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Monitor => "monitor",
        }
    }
}

/// One `[[client]]` of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientEntry {
    name: String,
    san: Option<String>,
    spki_sha256: Option<Digest32>,
    roles: Vec<Role>,
    org: Option<String>,
}

/// A client that the configuration names. Only [`Clients::identify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    name: String,
    roles: Vec<Role>,
    org: String,
}

impl Client {
    /// The configured name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Its roles, sorted.
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }
    /// Its organisation; empty where none is configured.
    pub fn org(&self) -> &str {
        &self.org
    }
    /// Whether it has one of `roles`.
    pub fn has_any(&self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.roles.contains(role))
    }
}

/// All configured clients.
#[derive(Debug, Clone)]
pub struct Clients(Vec<ClientEntry>);

impl Clients {
    /// Checks the entries.
    ///
    /// # Errors
    /// Says which entry is ambiguous or matches nothing.
    pub fn new(entries: Vec<ClientEntry>) -> Result<Self, String> {
        for (place, entry) in entries.iter().enumerate() {
            let name = &entry.name;
            if name.is_empty() || name.len() > 64 {
                return Err("a name must have 1 to 64 characters".into());
            }
            if entry.san.is_some() == entry.spki_sha256.is_some() {
                return Err(format!("{name:?} needs san or spki_sha256, exactly one"));
            }
            if entry.roles.is_empty() {
                return Err(format!("{name:?} has no role and could do nothing"));
            }
            for earlier in entries.iter().take(place) {
                if &earlier.name == name {
                    return Err(format!("{name:?} stands twice"));
                }
                let same_san = earlier.san.is_some() && earlier.san == entry.san;
                let same_key = earlier.spki_sha256.is_some() && earlier.spki_sha256 == entry.spki_sha256;
                if same_san || same_key {
                    return Err(format!("{:?} and {name:?} match the same certificate", earlier.name));
                }
            }
        }
        Ok(Self(entries))
    }

    /// Every configured client, for policies that name them.
    pub fn all(&self) -> impl Iterator<Item = Client> {
        self.0.iter().map(client)
    }

    /// The one client whose entry matches this certificate (DER). A certificate that matches two entries is nobody's.
    pub fn identify(&self, certificate: &[u8]) -> Option<Client> {
        let (rest, parsed) = X509Certificate::from_der(certificate).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let key = Digest32(Sha256::digest(parsed.public_key().raw).into());
        let names = names(&parsed);
        let mut matching = self.0.iter().filter(|entry| match (&entry.san, &entry.spki_sha256) {
            (Some(san), _) => names.iter().any(|name| name == san),
            (None, Some(wanted)) => wanted == &key,
            (None, None) => false,
        });
        let entry = matching.next()?;
        matching.next().is_none().then(|| client(entry))
    }
}

fn client(entry: &ClientEntry) -> Client {
    let mut roles = entry.roles.clone();
    roles.sort_unstable();
    roles.dedup();
    Client { name: entry.name.clone(), roles, org: entry.org.clone().unwrap_or_default() }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(name: &str, san: &str) -> ClientEntry {
        ClientEntry {
            name: name.into(),
            san: Some(san.into()),
            spki_sha256: None,
            roles: vec![Role::Coordinator],
            org: None,
        }
    }

    fn certificate(names: &[&str]) -> (Vec<u8>, Digest32) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let der = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap().der().to_vec();
        let spki = {
            let (_, parsed) = X509Certificate::from_der(&der).unwrap();
            Digest32(Sha256::digest(parsed.public_key().raw).into())
        };
        (der, spki)
    }

    #[test]
    fn a_certificate_is_known_by_a_name_in_it_or_by_its_key() {
        let (der, spki) = certificate(&["a.example"]);
        let by_name = Clients::new(vec![entry("a", "a.example"), entry("b", "b.example")]).unwrap();
        assert_eq!(by_name.identify(&der).unwrap().name(), "a");
        let keyed = ClientEntry { san: None, spki_sha256: Some(spki), ..entry("k", "") };
        assert_eq!(Clients::new(vec![keyed]).unwrap().identify(&der).unwrap().name(), "k");
    }

    #[test]
    fn unnamed_ambiguous_and_malformed_certificates_are_nobodys() {
        let clients = Clients::new(vec![entry("a", "a.example"), entry("b", "b.example")]).unwrap();
        assert_eq!(clients.identify(&certificate(&["c.example"]).0), None);
        assert_eq!(clients.identify(&certificate(&["a.example", "b.example"]).0), None);
        assert_eq!(clients.identify(&certificate(&["x.a.example"]).0), None);
        assert_eq!(clients.identify(b"garbage"), None);
        let (mut der, _) = certificate(&["a.example"]);
        der.push(0);
        assert_eq!(clients.identify(&der), None);
    }

    #[test]
    fn entries_that_overlap_or_match_nothing_are_refused() {
        assert!(Clients::new(vec![entry("a", "x"), entry("a", "y")]).is_err());
        assert!(Clients::new(vec![entry("a", "x"), entry("b", "x")]).is_err());
        assert!(Clients::new(vec![ClientEntry { san: None, ..entry("a", "") }]).is_err());
        assert!(Clients::new(vec![ClientEntry { roles: vec![], ..entry("a", "x") }]).is_err());
    }
}
