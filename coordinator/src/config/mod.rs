//! The configuration: read once, checked as a whole, then handed around as types.

mod files;
mod raw;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use casemate_attest::attestation::Reference;
use casemate_wire::token::TokenSigner;
use casemate_wire::{IdentityKey, Member, PartyId};
use rustls::pki_types::ServerName;

pub use files::FileError;
pub use raw::LogFormat;
use raw::Raw;

/// A configuration file with every key documented, as `--print-config` writes it.
pub const SAMPLE: &str = include_str!("sample.toml");

/// A checked configuration; every file that it names has been read.
pub struct Config {
    pub(crate) listen: SocketAddr,
    /// TLS of the front door; `None` only on a loopback address.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) data_dir: PathBuf,
    pub(crate) token: Arc<TokenSigner>,
    pub(crate) appliances: Vec<ApplianceConfig>,
    pub(crate) appliance_tls: Arc<rustls::ClientConfig>,
    pub(crate) limits: Limits,
    pub(crate) log: Log,
}

/// One appliance that sessions can be convened with.
#[derive(Debug, Clone)]
pub(crate) struct ApplianceConfig {
    pub(crate) party_id: PartyId,
    pub(crate) identity: IdentityKey,
    /// Identities that it had before, in HSMs that it has left. It cannot prove itself by them any more.
    pub(crate) former_identities: Vec<IdentityKey>,
    pub(crate) address: Address,
    pub(crate) server_name: ServerName<'static>,
    /// What its attestation must say before it is asked to take part in anything.
    pub(crate) reference: Option<Arc<Reference>>,
}

/// Host and port of an `https` URL without a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "https://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "https://{}:{}", self.host, self.port)
        }
    }
}

/// Bounds on what runs at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Sessions that may run at the same time.
    pub(crate) sessions: usize,
    /// How long a session may take.
    pub(crate) session_ttl: Duration,
    /// Bytes that may wait for one party of one session.
    pub(crate) queue: usize,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) level: String,
    pub(crate) format: LogFormat,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read or does not hold what it should.
    #[error(transparent)]
    File(#[from] FileError),
    /// The text is not TOML of the documented form.
    #[error("{path} is not a valid configuration (see --print-config):\n{source}")]
    Syntax {
        /// The configuration file.
        path: PathBuf,
        /// Line and reason.
        source: Box<toml::de::Error>,
    },
    /// A value is of the right type but makes no sense.
    #[error("the configuration key {key} is not valid: {why}")]
    Value {
        /// The key, as `section.name`.
        key: &'static str,
        /// What is wrong, and what to do.
        why: String,
    },
}

fn invalid(key: &'static str, why: impl Into<String>) -> ConfigError {
    ConfigError::Value { key, why: why.into() }
}

impl Config {
    /// Reads and checks a configuration file and every file that it names. Relative paths start at its folder.
    ///
    /// # Errors
    /// Names the file or key, what is wrong with it, and what to do.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = files::text(path, "the configuration")?;
        let raw: Raw = toml::from_str(&text)
            .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::from_raw(raw, folder)
    }

    fn from_raw(raw: Raw, folder: &Path) -> Result<Self, ConfigError> {
        let tls = match raw.tls {
            Some(tls) => Some(files::server_tls(&folder.join(tls.certificate), &folder.join(tls.key))?),
            None if raw.listen.address.ip().is_loopback() => None,
            None => {
                let why = format!(
                    "{} is not a loopback address, where API keys would travel in the clear; add a [tls] section or listen on 127.0.0.1",
                    raw.listen.address
                );
                return Err(invalid("listen.address", why));
            }
        };
        let key_path = folder.join(raw.token.key);
        let pem = files::secret(&key_path, "the key that signs join tokens")?;
        let token = TokenSigner::new(raw.token.issuer, raw.token.algorithm, &pem)
            .map_err(|e| invalid("token.key", format!("{}: {e}", key_path.display())))?;
        if token.issuer().is_empty() || token.issuer().len() > 64 {
            return Err(invalid("token.issuer", "it must have 1 to 64 characters"));
        }
        let appliance_tls = files::client_tls(
            &folder.join(raw.appliance_tls.ca),
            &folder.join(raw.appliance_tls.certificate),
            &folder.join(raw.appliance_tls.key),
        )?;
        Ok(Self {
            listen: raw.listen.address,
            tls,
            data_dir: folder.join(raw.data_dir),
            token: Arc::new(token),
            appliances: appliances(raw.appliance, folder)?,
            appliance_tls,
            limits: limits(&raw.limits)?,
            log: log(raw.log)?,
        })
    }

    /// The identity that is configured for a party.
    pub(crate) fn identity(&self, party: &PartyId) -> Option<&IdentityKey> {
        self.appliance(party).map(|appliance| &appliance.identity)
    }

    /// The identity by which a member of a key's committee is to be verified: the one that it is named with, if that is
    /// configured for its party as a former one; else the configured one, which is then another or the same.
    pub(crate) fn known_member(&self, member: &Member) -> Option<IdentityKey> {
        let appliance = self.appliance(&member.party_id)?;
        let former = appliance.former_identities.contains(&member.identity);
        Some(if former { member.identity.clone() } else { appliance.identity.clone() })
    }

    /// Whether a member of a key's committee is the configured party of that name, today or before it moved to another HSM.
    pub(crate) fn is_same_party(&self, member: &Member) -> bool {
        self.known_member(member).as_ref() == Some(&member.identity)
    }

    fn appliance(&self, party: &PartyId) -> Option<&ApplianceConfig> {
        self.appliances.iter().find(|a| &a.party_id == party)
    }
}

fn appliances(raw: Vec<raw::Appliance>, folder: &Path) -> Result<Vec<ApplianceConfig>, ConfigError> {
    let mut appliances: Vec<ApplianceConfig> = Vec::new();
    for entry in raw {
        if appliances.iter().any(|a| a.party_id == entry.party_id) {
            let why = format!("{} is configured twice", entry.party_id);
            return Err(invalid("appliance.party_id", why));
        }
        if let Some(other) = appliances.iter().find(|a| a.identity == entry.identity) {
            let why = format!("{} and {} share one", other.party_id, entry.party_id);
            return Err(invalid("appliance.identity", why));
        }
        let taken = |appliance: &ApplianceConfig| {
            let former = |a: &[IdentityKey], b: &IdentityKey| a.contains(b);
            former(&appliance.former_identities, &entry.identity)
                || entry
                    .former_identities
                    .iter()
                    .any(|identity| *identity == appliance.identity || former(&appliance.former_identities, identity))
        };
        if let Some(other) = appliances.iter().find(|a| taken(a)) {
            let why = format!("{} and {} share one", other.party_id, entry.party_id);
            return Err(invalid("appliance.former_identities", why));
        }
        let address = address(&entry.url)?;
        let name = entry.server_name.unwrap_or_else(|| address.host.clone());
        let server_name = ServerName::try_from(name.clone())
            .map_err(|e| invalid("appliance.server_name", format!("{name:?}: {e}")))?;
        let reference = entry.reference.map(|path| reference(&entry.party_id, &folder.join(path))).transpose()?;
        appliances.push(ApplianceConfig {
            party_id: entry.party_id,
            identity: entry.identity,
            former_identities: entry.former_identities,
            address,
            server_name,
            reference,
        });
    }
    if appliances.len() < 2 {
        let why = "a threshold key needs at least two; add one [[appliance]] section for each";
        return Err(invalid("appliance", why));
    }
    Ok(appliances)
}

fn reference(party: &PartyId, path: &Path) -> Result<Arc<Reference>, ConfigError> {
    let text = files::text(path, "the reference for an appliance's attestations")?;
    let wrong = |why: String| invalid("appliance.reference", format!("{}: {why}", path.display()));
    let reference = Reference::parse(&text).map_err(|e| wrong(e.to_string()))?;
    if reference.party != *party {
        return Err(wrong(format!("it is of {}, not of {party}", reference.party)));
    }
    Ok(Arc::new(reference))
}

fn address(url: &str) -> Result<Address, ConfigError> {
    let wrong = |why: &str| invalid("appliance.url", format!("{url:?}: {why}; write https://host:port"));
    let uri: hyper::Uri = url.parse().map_err(|_| wrong("it is not a URL"))?;
    if uri.scheme_str() != Some("https") {
        return Err(wrong("appliances speak TLS only"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong("it must not have a path"));
    }
    let host = uri.host().ok_or_else(|| wrong("it names no host"))?;
    let port = uri.port_u16().ok_or_else(|| wrong("it names no port"))?;
    if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        return Err(wrong("it must not hold a user name"));
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Address { host, port })
}

fn limits(raw: &raw::Limits) -> Result<Limits, ConfigError> {
    if raw.sessions == 0 {
        return Err(invalid("limits.sessions", "it must be at least 1"));
    }
    if !(10..=3600).contains(&raw.session_ttl) {
        return Err(invalid("limits.session_ttl", "it must lie between 10 and 3600 seconds"));
    }
    if raw.queue < casemate_wire::frame::MAX_FRAME {
        let why = format!("it must hold at least one frame, {} bytes", casemate_wire::frame::MAX_FRAME);
        return Err(invalid("limits.queue", why));
    }
    Ok(Limits { sessions: raw.sessions, session_ttl: Duration::from_secs(raw.session_ttl), queue: raw.queue })
}

fn log(raw: raw::Log) -> Result<Log, ConfigError> {
    tracing_subscriber::EnvFilter::try_new(&raw.level).map_err(|e| invalid("log.level", e.to_string()))?;
    Ok(Log { level: raw.level, format: raw.format })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_sample_parses_and_has_every_key() {
        let raw: Raw = toml::from_str(SAMPLE).unwrap();
        assert_eq!(raw.listen.address.port(), 4000);
        let uncommented = SAMPLE.replace("\n#: ", "\n");
        let all: Raw = toml::from_str(&uncommented).unwrap();
        assert!(all.tls.is_some());
        assert!(all.appliance.iter().any(|a| a.server_name.is_some()));
        assert!(all.appliance.iter().any(|a| a.reference.is_some()));
    }

    #[test]
    fn unknown_keys_are_refused_in_every_section() {
        for (section, key) in [
            ("[listen]", "adress = 1"),
            ("[token]", "keys = 1"),
            ("[limits]", "sesions = 1"),
            ("[log]", "colour = true"),
            ("[appliance_tls]", "crl = 1"),
            ("[[appliance]]", "name = 1"),
        ] {
            let text = SAMPLE.replacen(section, &format!("{section}\n{key}"), 1);
            let error = toml::from_str::<Raw>(&text).err().unwrap().to_string();
            assert!(error.contains("unknown field"), "{section}: {error}");
        }
        assert!(toml::from_str::<Raw>(&format!("surprise = 1\n{SAMPLE}")).is_err());
    }

    #[test]
    fn appliance_urls_are_https_with_host_and_port_and_nothing_else() {
        assert_eq!(
            address("https://hsm-1.example:7443").unwrap(),
            Address { host: "hsm-1.example".into(), port: 7443 }
        );
        let v6 = address("https://[::1]:7443").unwrap();
        assert_eq!((v6.host.as_str(), v6.to_string().as_str()), ("::1", "https://[::1]:7443"));
        for bad in ["http://a:1", "https://a", "https://a:1/x", "https://u@a:1", "a:1", "", "https://a:1?x"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
