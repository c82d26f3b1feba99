//! What is measured: the program file, once, when the daemon starts; the public key in a TLS certificate.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use casemate_wire::Digest32;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The program file of this process, also after it was replaced on disk.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// The measurements of one start.
#[derive(Debug)]
pub struct Measured {
    /// SHA-256 of the program file.
    pub(super) binary: Digest32,
    /// Whose turn it is to ask the TPM.
    pub(super) tpm: Arc<Mutex<()>>,
}

/// Why something cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasuringError {
    /// A program file cannot be read.
    #[error("cannot hash the program {path}: {source}; is it readable, and /proc mounted?")]
    Program {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The certificate cannot be read.
    #[error("cannot take the public key from the TLS certificate {path}: {why}")]
    Certificate {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
}

impl Measured {
    /// Measures this process.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn now() -> Result<Self, MeasuringError> {
        Ok(Self { binary: program(Path::new(OWN_PROGRAM))?, tpm: Arc::default() })
    }
}

/// SHA-256 of a program file.
///
/// # Errors
/// It cannot be read.
pub(crate) fn program(path: &Path) -> Result<Digest32, MeasuringError> {
    let failed = |source| MeasuringError::Program { path: path.display().to_string(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let count = file.read(&mut chunk).map_err(failed)?;
        match chunk.get(..count) {
            None | Some([]) => return Ok(Digest32(hash.finalize().into())),
            Some(read) => hash.update(read),
        }
    }
}

/// SHA-256 of the SubjectPublicKeyInfo in the first certificate of a PEM file.
///
/// # Errors
/// It holds no such certificate.
pub(crate) fn tls_spki(path: &Path) -> Result<Digest32, MeasuringError> {
    let failed = |why: String| MeasuringError::Certificate { path: path.display().to_string(), why };
    let der = CertificateDer::from_pem_file(path).map_err(|error| failed(error.to_string()))?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| failed(error.to_string()))?;
    Ok(crate::digest(certificate.public_key().raw))
}
