//! The manifest: which files make up a bundle, by their hashes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use casemate_wire::Digest32;
use casemate_wire::ids::InvalidId;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::BundleError;
use super::files::{Files, MANIFEST};
use super::outline::ManifestOutline;
use crate::SCHEMA_VERSION;

/// `manifest.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) version: u64,
    pub(super) name: String,
    pub(super) schema: u64,
    pub(super) not_before: Timestamp,
    pub(super) previous: Previous,
    #[serde(default = "utc")]
    time_zone: String,
    files: BTreeMap<String, Digest32>,
}

/// The digest of the bundle before; an empty string without one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Previous(pub(super) Option<Digest32>);

impl TryFrom<String> for Previous {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        text.parse().map(Some).map(Self)
    }
}

impl From<Previous> for String {
    fn from(previous: Previous) -> Self {
        previous.0.map(|digest| digest.to_string()).unwrap_or_default()
    }
}

impl Manifest {
    /// The folder's manifest and its digest, checked against the files beside it.
    pub(super) fn of(files: &Files) -> Result<(Self, Digest32), BundleError> {
        let Some(bytes) = files.manifest() else {
            return Err(BundleError::Manifest("it is missing; `casemate policy seal` writes it".into()));
        };
        let manifest = Self::parse(bytes)?;
        manifest.check(files)?;
        Ok((manifest, sha256(bytes)))
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        let manifest: Self =
            toml::from_slice(bytes).map_err(|error| BundleError::Manifest(error.to_string().trim_end().to_owned()))?;
        if manifest.schema != SCHEMA_VERSION {
            return Err(BundleError::Manifest(format!(
                "schema {} is not known to this release, which has schema {SCHEMA_VERSION}",
                manifest.schema
            )));
        }
        Ok(manifest)
    }

    fn check(&self, files: &Files) -> Result<(), BundleError> {
        for (path, expected) in &self.files {
            let Some(bytes) = files.listed().get(path) else {
                return Err(BundleError::file(path, "the manifest lists it, but it is not in the bundle's folder"));
            };
            let actual = sha256(bytes);
            if actual != *expected {
                return Err(BundleError::file(
                    path,
                    format!("its SHA-256 is {actual}, but the manifest says {expected}"),
                ));
            }
        }
        match files.listed().keys().find(|path| !self.files.contains_key(*path)) {
            None => Ok(()),
            Some(path) => {
                Err(BundleError::file(path, "the manifest does not list it; remove it, or run `casemate policy seal`"))
            }
        }
    }

    /// The zone in which policies see weekday and time of day.
    pub(super) fn time_zone(&self) -> Result<TimeZone, BundleError> {
        if self.time_zone == "UTC" {
            return Ok(TimeZone::UTC);
        }
        TimeZone::get(&self.time_zone).map_err(|error| {
            BundleError::Manifest(format!("time_zone `{}` is not an IANA zone of this host: {error}", self.time_zone))
        })
    }
}

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
    let signatures = signatures_in(dir)?;
    let manifest = Manifest::draft(&files, now, fields, !signatures.is_empty())?;
    manifest.time_zone()?;
    let (text, digest) = manifest.written()?;
    let sealed = Sealed { digest, version: manifest.version, signatures_removed: signatures.len() };
    if let Some(bytes) = files.manifest().filter(|bytes| manifest.is(bytes)) {
        return Ok(Sealed { digest: sha256(bytes), signatures_removed: 0, ..sealed });
    }
    for path in signatures {
        fs::remove_file(&path).map_err(|source| BundleError::Io { doing: "remove", path, source })?;
    }
    let path = dir.join(MANIFEST);
    fs::write(&path, &text).map_err(|source| BundleError::Io { doing: "write", path, source })?;
    Ok(sealed)
}

/// The signatures beside a manifest, sorted.
fn signatures_in(dir: &Path) -> Result<Vec<PathBuf>, BundleError> {
    let failed = |source| BundleError::Io { doing: "list", path: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with("manifest.toml.sig") {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

impl Manifest {
    /// The manifest that fits the files as they stand: the one that is there if it does, else its successor.
    pub(super) fn draft(
        files: &Files,
        now: Timestamp,
        fields: &SealFields,
        published: bool,
    ) -> Result<Self, BundleError> {
        let old = files.manifest().map(Self::parse).transpose()?;
        let fresh = Self {
            version: 1,
            name: "policy".into(),
            schema: SCHEMA_VERSION,
            not_before: now,
            previous: Previous(None),
            time_zone: utc(),
            files: BTreeMap::new(),
        };
        let mut draft = old.clone().unwrap_or(fresh);
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

    /// Its text and digest.
    pub(super) fn written(&self) -> Result<(String, Digest32), BundleError> {
        let text = toml::to_string(self).map_err(|error| BundleError::Manifest(error.to_string()))?;
        let digest = sha256(text.as_bytes());
        Ok((text, digest))
    }

    /// Whether these bytes say the same, in whatever layout.
    fn is(&self, bytes: &[u8]) -> bool {
        Self::parse(bytes).is_ok_and(|parsed| parsed == *self)
    }

    /// Path → SHA-256, as the manifest says.
    pub(super) fn files(&self) -> &BTreeMap<String, Digest32> {
        &self.files
    }

    /// For people.
    pub(super) fn outline(&self, digest: Digest32) -> ManifestOutline {
        ManifestOutline {
            name: self.name.clone(),
            version: self.version,
            schema: self.schema,
            not_before: self.not_before,
            previous: self.previous.0,
            time_zone: self.time_zone.clone(),
            digest,
        }
    }
}

/// SHA-256 of these bytes.
pub(super) fn sha256(bytes: &[u8]) -> Digest32 {
    Digest32(Sha256::digest(bytes).into())
}

fn utc() -> String {
    "UTC".into()
}
