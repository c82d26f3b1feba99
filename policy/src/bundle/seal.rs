//! Sealing: the manifest that fits a folder's files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use casemate_wire::Digest32;
use jiff::Timestamp;

use super::error::BundleError;
use super::files::{Files, MANIFEST};
use super::manifest::{Manifest, Previous, sha256};

/// What a manifest is to say besides its files; what is absent stays as it was.
#[derive(Debug, Clone, Default)]
pub struct SealFields {
    /// The bundle's name; `policy` at first.
    pub name: Option<String>,
    /// When it comes into force; the time of sealing at first.
    pub not_before: Option<Timestamp>,
    /// The IANA zone of `context.time`; UTC at first.
    pub time_zone: Option<String>,
}

/// A sealed bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// SHA-256 of the manifest: what people sign and compare.
    pub digest: Digest32,
    /// The version that it says.
    pub version: u64,
    /// Signatures over the manifest before, which were removed because they fit no more.
    pub signatures_removed: usize,
}

/// Writes `manifest.toml` for the files that stand in `dir` and returns the bundle's digest, as [`seal_as`] does.
///
/// # Errors
/// As [`seal_as`].
pub fn seal(dir: &Path, now: Timestamp) -> Result<Digest32, BundleError> {
    seal_as(dir, now, &SealFields::default()).map(|sealed| sealed.digest)
}

/// Writes `manifest.toml` for the files that stand in `dir`.
///
/// If nothing has changed, nothing is written. A manifest with signatures beside it may be in force somewhere, so the new one
/// succeeds it: its version is higher by one, its `previous` is the old one's digest, and the old signatures are removed. A
/// manifest without signatures is a draft: it keeps its version and `previous`, however often it is sealed.
///
/// # Errors
/// [`BundleError`] if a file does not belong, is too large or cannot be read, if the manifest that is there cannot be
/// understood, if a field has no meaning, or if the new one cannot be written. The contents of the other files are not
/// judged: load the bundle.
pub fn seal_as(dir: &Path, now: Timestamp, fields: &SealFields) -> Result<Sealed, BundleError> {
    let files = Files::read(dir)?;
    let signatures: Vec<PathBuf> = files.signatures().map(|(name, _)| dir.join(name)).collect();
    // A whole second that has passed: people read and compare it.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let manifest = draft(&files, now, fields, !signatures.is_empty())?;
    manifest.time_zone()?;
    let version = manifest.version;
    if let Some(bytes) = files.manifest() {
        // The layout may be another: only what it says counts.
        if Manifest::parse(bytes)? == manifest {
            return Ok(Sealed { digest: sha256(bytes), version, signatures_removed: 0 });
        }
    }
    let text = toml::to_string(&manifest).map_err(|error| BundleError::Manifest(error.to_string()))?;
    let sealed = Sealed { digest: sha256(text.as_bytes()), version, signatures_removed: signatures.len() };
    for path in signatures {
        fs::remove_file(&path).map_err(|source| BundleError::Io { doing: "remove", path, source })?;
    }
    let path = dir.join(MANIFEST);
    fs::write(&path, &text).map_err(|source| BundleError::Io { doing: "write", path, source })?;
    Ok(sealed)
}

/// The manifest that fits the files as they stand: the one that is there if it does, else its successor or a new draft.
fn draft(files: &Files, now: Timestamp, fields: &SealFields, published: bool) -> Result<Manifest, BundleError> {
    let old = files.manifest().map(Manifest::parse).transpose()?;
    let mut draft = old.clone().unwrap_or_else(|| Manifest::new(now, BTreeMap::new()));
    draft.files = files.listed().iter().map(|(path, bytes)| (path.clone(), sha256(bytes))).collect();
    draft.name = fields.name.clone().unwrap_or(draft.name);
    draft.not_before = fields.not_before.unwrap_or(draft.not_before);
    draft.time_zone = fields.time_zone.clone().unwrap_or(draft.time_zone);
    if published && old.as_ref() != Some(&draft) {
        draft.version = draft.version.saturating_add(1);
        draft.previous = Previous(files.manifest().map(sha256));
    }
    Ok(draft)
}
