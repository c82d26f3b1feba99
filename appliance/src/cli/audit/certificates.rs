//! Key certificates: what shows how many parties a key needs, and which keys are its children.

use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use casemate_attest::verify::ChildKeys;
use casemate_policy::intent::Signer;
use casemate_wire::{KeyCertificate, PublicKey, Threshold};

use super::source::read_text;
use crate::pipeline::parse_path;

/// The longest certificate that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// The certificates that were given, each signed by all parties that it names.
#[derive(Default)]
pub(super) struct Certificates(HashMap<PublicKey, Known>);

struct Known {
    chain_code: [u8; 32],
    threshold: Threshold,
}

impl Certificates {
    /// Reads certificates, alone or inside the answer of a call (`certificate`, or `result.certificate`).
    pub(super) fn read(paths: &[PathBuf]) -> Result<Self, Box<dyn Error>> {
        let mut known = HashMap::new();
        for path in paths {
            let KeyCertificate { statement, .. } = one(path).map_err(|why| format!("{}: {why}", path.display()))?;
            let threshold = Threshold::new(statement.threshold_t, statement.threshold_n)?;
            known.insert(statement.public_key, Known { chain_code: statement.chain_code, threshold });
        }
        Ok(Self(known))
    }

    pub(super) fn thresholds(&self) -> impl Iterator<Item = (PublicKey, Threshold)> {
        self.0.iter().map(|(key, known)| (*key, known.threshold))
    }
}

/// Reads a certificate, and checks its form and signatures by the identities that it names itself.
fn one(path: &Path) -> Result<KeyCertificate, Box<dyn Error>> {
    let certificate = read_certificate(path)?;
    certificate.verify_signatures()?;
    Ok(certificate)
}

/// Reads a certificate, alone or inside the answer of a call, and verifies nothing.
pub(in super::super) fn read_certificate(path: &Path) -> Result<KeyCertificate, Box<dyn Error>> {
    let answer: serde_json::Value = serde_json::from_str(&read_text("the certificate", path, MAX_FILE)?)?;
    let inside = answer.get("certificate").or_else(|| answer.pointer("/result/certificate")).unwrap_or(&answer);
    serde_json::from_value(inside.clone()).map_err(|e| format!("it is no key certificate: {e}").into())
}

impl ChildKeys for &Certificates {
    fn child(&self, key: &PublicKey, path: &str) -> Result<Option<PublicKey>, String> {
        let Some(known) = self.0.get(key) else { return Ok(None) };
        let path = parse_path(path).map_err(|problem| problem.detail)?;
        let signer = Signer::derive(key, known.chain_code, &path).map_err(|e| e.to_string())?;
        PublicKey::from_bytes(&signer.public_key()).map(Some).map_err(|e| e.to_string())
    }
}
