//! The manifest: which files make up a bundle, by their hashes.

use std::collections::BTreeMap;

use casemate_wire::Digest32;
use casemate_wire::ids::InvalidId;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::BundleError;
use super::files::Files;
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
    pub(super) time_zone: String,
    pub(super) files: BTreeMap<String, Digest32>,
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
            return Err(Self::missing());
        };
        let manifest = Self::parse(bytes)?;
        manifest.check(files)?;
        Ok((manifest, sha256(bytes)))
    }

    /// There is no manifest.
    pub(super) fn missing() -> BundleError {
        BundleError::Manifest("it is missing; `casemate policy seal` writes it".into())
    }

    /// The manifest of a folder that is being edited: a missing one is a new one, and the hashes may be out of date.
    pub(super) fn of_draft(files: &Files) -> Result<(Self, Digest32), BundleError> {
        match files.manifest() {
            None => Ok((Self::new(Timestamp::UNIX_EPOCH, BTreeMap::new()), Digest32([0; 32]))),
            Some(bytes) => Ok((Self::parse(bytes)?, sha256(bytes))),
        }
    }

    /// Version 1, in UTC.
    pub(super) fn new(not_before: Timestamp, files: BTreeMap<String, Digest32>) -> Self {
        Self {
            version: 1,
            name: "policy".into(),
            schema: SCHEMA_VERSION,
            not_before,
            previous: Previous(None),
            time_zone: utc(),
            files,
        }
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
        if i64::try_from(manifest.version).is_err() {
            return Err(BundleError::Manifest(format!(
                "version {} is larger than {}, the largest that an appliance can store; count versions up from 1",
                manifest.version,
                i64::MAX
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

/// SHA-256 of these bytes.
pub(super) fn sha256(bytes: &[u8]) -> Digest32 {
    Digest32(Sha256::digest(bytes).into())
}

fn utc() -> String {
    "UTC".into()
}
