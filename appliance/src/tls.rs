//! TLS: version 1.3 only, a client certificate on every connection.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, version};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::config::TlsFiles;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file does not hold what it should.
    #[error("cannot use {what} {}: {why}", path.display())]
    File {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The files do not fit together.
    #[error("the TLS files do not fit together: {0}; check that certificate and key belong to each other")]
    Setup(String),
}

/// The server's TLS configuration, from its files.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let setup = |error: &dyn std::error::Error| TlsError::Setup(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates("the client CA", &files.ca)? {
        roots.add(certificate).map_err(|e| file("the client CA", &files.ca, &e))?;
    }
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    if let Some(path) = &files.crl {
        let what = "the list of revoked certificates";
        let lists: Vec<CertificateRevocationListDer<'static>> = CertificateRevocationListDer::pem_file_iter(path)
            .map_err(|e| file(what, path, &e))?
            .collect::<Result<_, _>>()
            .map_err(|e| file(what, path, &e))?;
        if lists.is_empty() {
            return Err(TlsError::File { what, path: path.clone(), why: "it holds no PEM list".into() });
        }
        verifier = verifier.with_crls(lists).enforce_revocation_expiration();
    }
    let verifier = verifier.build().map_err(|e| setup(&e))?;
    let chain = certificates("the server certificate", &files.certificate)?;
    check_private(&files.key)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| file("the server key", &files.key, &e))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|e| setup(&e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|e| setup(&e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Resumption would skip a look at the list of revoked certificates.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A key that others may read or change is no secret.
fn check_private(path: &Path) -> Result<(), TlsError> {
    let what = "the server key";
    let mode = std::fs::metadata(path).map_err(|e| file(what, path, &e))?.permissions().mode();
    if mode & 0o137 == 0 {
        return Ok(());
    }
    let why = format!("its mode is {:04o}; run chmod 640 (or 600) on it", mode & 0o7777);
    Err(TlsError::File { what, path: path.to_owned(), why })
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
        .map_err(|e| file(what, path, &e))?
        .collect::<Result<_, _>>()
        .map_err(|e| file(what, path, &e))?;
    if all.is_empty() {
        return Err(TlsError::File { what, path: path.to_owned(), why: "it holds no PEM certificate".into() });
    }
    Ok(all)
}

fn file(what: &'static str, path: &Path, error: &dyn std::error::Error) -> TlsError {
    TlsError::File { what, path: path.to_owned(), why: error.to_string() }
}
