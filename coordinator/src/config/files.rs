//! Reads the files that the configuration names.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use zeroize::Zeroizing;

/// Group may read; nobody else may do anything, and only the owner may write.
const FORBIDDEN_MODE: u32 = 0o037;
const MAX_FILE: u64 = 1024 * 1024;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refuses to read it.
    #[error("{what} could not be read from {path}: {source}")]
    Unreadable {
        /// What the file is for.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Others than its owner and group may use it.
    #[error("{what} in {path} is open to others (mode {mode:04o}); run: chmod 600 {path}")]
    Exposed {
        /// What the file is for.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold what it should.
    #[error("{what} in {path} cannot be used: {why}")]
    Unusable {
        /// What the file is for.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

pub(super) fn text(path: &Path, what: &'static str) -> Result<String, FileError> {
    let bytes = read(path, what, |_| Ok(()))?;
    String::from_utf8(bytes.to_vec()).map_err(|_| unusable(path, what, "it is not UTF-8 text"))
}

/// Reads a file that must not be open to others.
pub(super) fn secret(path: &Path, what: &'static str) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read(path, what, |mode| {
        if mode & FORBIDDEN_MODE == 0 {
            return Ok(());
        }
        Err(FileError::Exposed { what, path: path.to_owned(), mode })
    })
}

fn read(
    path: &Path,
    what: &'static str,
    check_mode: impl Fn(u32) -> Result<(), FileError>,
) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let unreadable = |source| FileError::Unreadable { what, path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(unusable(path, what, "it is not a regular file"));
    }
    if metadata.len() > MAX_FILE {
        return Err(unusable(path, what, "it is larger than 1 MiB"));
    }
    check_mode(metadata.mode() & 0o7777)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0)));
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn unusable(path: &Path, what: &'static str, why: impl std::fmt::Display) -> FileError {
    FileError::Unusable { what, path: path.to_owned(), why: why.to_string() }
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let pem = read(path, what, |_| Ok(()))?;
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| unusable(path, what, e))?;
    if certificates.is_empty() {
        return Err(unusable(path, what, "it holds no PEM certificate"));
    }
    Ok(certificates)
}

fn private_key(path: &Path, what: &'static str) -> Result<PrivateKeyDer<'static>, FileError> {
    let pem = secret(path, what)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|e| unusable(path, what, e))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// TLS 1.3 for the front door.
pub(super) fn server_tls(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, FileError> {
    let chain = certificates(certificate, "the server certificate")?;
    let key = private_key(key, "the server certificate's key")?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| unusable(certificate, "the server certificate", e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// TLS 1.3 towards appliances, with the coordinator's client certificate.
pub(super) fn client_tls(ca: &Path, certificate: &Path, key: &Path) -> Result<Arc<ClientConfig>, FileError> {
    let mut roots = RootCertStore::empty();
    for root in certificates(ca, "the appliances' CA")? {
        roots.add(root).map_err(|e| unusable(ca, "the appliances' CA", e))?;
    }
    let chain = certificates(certificate, "the client certificate")?;
    let key = private_key(key, "the client certificate's key")?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(chain, key))
        .map_err(|e| unusable(certificate, "the client certificate", e))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn secrets_that_others_can_read_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "x").unwrap();
        for (mode, accepted) in [(0o600, true), (0o640, true), (0o644, false), (0o660, false), (0o604, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(secret(&path, "a key").is_ok(), accepted, "{mode:o}");
        }
    }

    #[test]
    fn a_missing_file_is_named_with_its_purpose() {
        let error = secret(Path::new("/nowhere/key"), "the key").unwrap_err().to_string();
        assert!(error.contains("/nowhere/key") && error.contains("the key"), "{error}");
    }
}
