//! Certificate, key, CA and list of revoked certificates: read once, checked, and used as one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use casemate_wire::Digest32;
use jiff::Timestamp;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, version};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::checks::{Certificates, check_lists};
use super::{Lifetime, TlsError, What};
use crate::config::TlsFiles;

const CA: &str = "the client CA";
const CERTIFICATE: &str = "the server certificate";
const KEY: &str = "the server key";
const CRL: &str = "the list of revoked certificates";

/// The bytes of all files at one moment. They are judged and used as they were read, whatever becomes of the files.
pub(super) struct Contents {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    crl: Option<Vec<u8>>,
}

impl Contents {
    /// Reads the files by the configured paths.
    ///
    /// # Errors
    /// Names the file that cannot be read, or that others may read.
    pub(super) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        check_private(&files.key)?;
        let read = |what, path: &Path| fs::read(path).map_err(|e| file(what, path, e.to_string()));
        Ok(Self {
            ca: read(CA, &files.ca)?,
            certificate: read(CERTIFICATE, &files.certificate)?,
            key: Zeroizing::new(read(KEY, &files.key)?),
            crl: files.crl.as_deref().map(|path| read(CRL, path)).transpose()?,
        })
    }

    /// Tells other contents from these.
    pub(super) fn digest(&self) -> Digest32 {
        let mut hash = Sha256::new();
        for part in [Some(&self.ca), Some(&self.certificate), Some(&*self.key), self.crl.as_ref()].into_iter().flatten()
        {
            hash.update(Sha256::digest(part));
        }
        Digest32(hash.finalize().into())
    }
}

/// Checked TLS material: whoever holds one may serve with it.
pub struct Material {
    config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    lifetimes: Vec<Lifetime>,
    spki: Digest32,
    contents: Digest32,
    loaded: Timestamp,
}

impl Material {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(files: &TlsFiles, now: Timestamp) -> Result<Arc<Self>, TlsError> {
        Self::judge(&Contents::read(files)?, files, now)
    }

    /// Checks what was read: the key is the certificate's, the chain holds now, a CA of the file signed each list, and none has expired.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub(super) fn judge(contents: &Contents, files: &TlsFiles, now: Timestamp) -> Result<Arc<Self>, TlsError> {
        let setup = |error: &dyn std::error::Error| TlsError::Setup(error.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;

        let ca = certificates(CA, &files.ca, &contents.ca)?;
        let mut roots = RootCertStore::empty();
        for certificate in &ca {
            roots.add(certificate.clone()).map_err(|e| file(CA, &files.ca, e.to_string()))?;
        }
        let cas = Certificates::parse(&ca).map_err(|why| file(CA, &files.ca, why))?;
        let chain = certificates(CERTIFICATE, &files.certificate, &contents.certificate)?;
        let own = Certificates::parse(&chain).map_err(|why| file(CERTIFICATE, &files.certificate, why))?;
        own.check_chain(&cas, algorithms, now).map_err(|why| file(CERTIFICATE, &files.certificate, why))?;
        let spki = own.first().map(|first| crate::digest(first.public_key().raw));
        let spki = spki.ok_or_else(|| file(CERTIFICATE, &files.certificate, "it holds no PEM certificate".into()))?;
        let mut lifetimes: Vec<Lifetime> =
            [own.lifetime(What::Certificate), cas.lifetime(What::Ca)].into_iter().flatten().collect();

        let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        if let (Some(path), Some(bytes)) = (&files.crl, &contents.crl) {
            let lists = lists(path, bytes)?;
            lifetimes.extend(check_lists(&lists, &cas, algorithms, now).map_err(|why| file(CRL, path, why))?);
            verifier = verifier.with_crls(lists).enforce_revocation_expiration();
        }
        let verifier = verifier.build().map_err(|e| setup(&e))?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|e| file(KEY, &files.key, e.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|e| setup(&e))?
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(chain, key)
            .map_err(|e| setup(&e))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Resumption would skip a look at the list of revoked certificates.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let (config, contents) = (Arc::new(config), contents.digest());
        Ok(Arc::new(Self { config, verifier, lifetimes, spki, contents, loaded: now }))
    }

    /// What rustls serves with.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Until when its parts hold.
    pub fn lifetimes(&self) -> &[Lifetime] {
        &self.lifetimes
    }

    /// SHA-256 of the SubjectPublicKeyInfo in the server certificate.
    pub fn spki(&self) -> Digest32 {
        self.spki
    }

    /// When it was checked.
    pub fn loaded(&self) -> Timestamp {
        self.loaded
    }

    /// Tells it from what files hold now.
    pub(super) fn contents(&self) -> Digest32 {
        self.contents
    }

    /// Judges the chain that a client showed, as a handshake would now.
    ///
    /// # Errors
    /// Why a handshake would refuse it.
    pub(super) fn judge_client(&self, shown: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let (first, others) = shown.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        self.verifier.verify_client_cert(first, others, UnixTime::now()).map(|_| ())
    }
}

/// A key that others may read or change is no secret.
fn check_private(path: &Path) -> Result<(), TlsError> {
    let mode = fs::metadata(path).map_err(|e| file(KEY, path, e.to_string()))?.permissions().mode();
    if mode & 0o137 == 0 {
        return Ok(());
    }
    Err(file(KEY, path, format!("its mode is {:04o}; run chmod 640 (or 600) on it", mode & 0o7777)))
}

fn certificates(what: &'static str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e: rustls_pki_types::pem::Error| file(what, path, e.to_string()))?;
    if all.is_empty() { Err(file(what, path, "it holds no PEM certificate".into())) } else { Ok(all) }
}

fn lists(path: &Path, pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let all: Vec<CertificateRevocationListDer<'static>> = CertificateRevocationListDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e: rustls_pki_types::pem::Error| file(CRL, path, e.to_string()))?;
    if all.is_empty() { Err(file(CRL, path, "it holds no PEM list".into())) } else { Ok(all) }
}

fn file(what: &'static str, path: &Path, why: String) -> TlsError {
    TlsError::File { what, path: path.to_owned(), why }
}
