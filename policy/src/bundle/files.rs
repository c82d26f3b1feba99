//! The files of a bundle, read once, bounded before anything parses them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::error::BundleError;

/// The manifest's name.
pub(super) const MANIFEST: &str = "manifest.toml";
/// The tables' name.
pub(super) const ENTITIES: &str = "entities.json";
/// The recipients' name.
pub(super) const RECIPIENTS: &str = "recipients.toml";
/// The folder of test cases.
const TESTS: &str = "tests";
/// The largest file, in bytes.
const MAX_FILE: u64 = 256 * 1024;
/// The largest `entities.json`: room for 10,000 addresses with notes.
const MAX_ENTITIES: u64 = 4 * 1024 * 1024;
/// The most files in one bundle.
const MAX_FILES: usize = 256;

/// How the names of the manifest's signatures begin.
const SIGNATURE: &str = "manifest.toml.sig";
/// The largest file of a signature, in bytes.
const MAX_SIGNATURE: u64 = 4 * 1024;
/// The most signatures of one bundle.
const MAX_SIGNATURES: usize = 32;

/// What stands in a bundle's folder.
pub(super) struct Files {
    manifest: Option<Vec<u8>>,
    signatures: BTreeMap<String, Vec<u8>>,
    listed: BTreeMap<String, Vec<u8>>,
}

impl Files {
    /// Reads every file of the folder. Links, other folders and files that have no place in a bundle are refused.
    pub(super) fn read(dir: &Path) -> Result<Self, BundleError> {
        let mut found = Self { manifest: None, signatures: BTreeMap::new(), listed: BTreeMap::new() };
        found.read_folder(dir, "")?;
        Ok(found)
    }

    fn read_folder(&mut self, dir: &Path, prefix: &str) -> Result<(), BundleError> {
        let failed = |source| BundleError::Io { doing: "list", path: dir.to_owned(), source };
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(BundleError::file(&entry.file_name().to_string_lossy(), "the name is not UTF-8"));
            };
            let path = format!("{prefix}{name}");
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() && path == TESTS {
                self.read_folder(&entry.path(), "tests/")?;
            } else if !kind.is_file() {
                return Err(BundleError::file(
                    &path,
                    "only regular files and the folder `tests` belong in a bundle; no links",
                ));
            } else {
                self.take(path, &entry.path())?;
            }
        }
        Ok(())
    }

    fn take(&mut self, path: String, on_disk: &Path) -> Result<(), BundleError> {
        if path != MANIFEST && !is_signature(&path) && !belongs(&path) {
            return Err(BundleError::file(
                &path,
                "it does not belong in a bundle: only *.cedar, entities.json, recipients.toml, tests/*.json and manifest.toml do",
            ));
        }
        let limit = match path.as_str() {
            ENTITIES => MAX_ENTITIES,
            signature if is_signature(signature) => MAX_SIGNATURE,
            _ => MAX_FILE,
        };
        let bytes = read_bounded(on_disk, limit).map_err(|source| BundleError::Io {
            doing: "read",
            path: on_disk.to_owned(),
            source,
        })?;
        let Some(bytes) = bytes else {
            return Err(BundleError::file(&path, format!("it is larger than {limit} bytes; split it")));
        };
        if path == MANIFEST {
            self.manifest = Some(bytes);
            return Ok(());
        }
        if is_signature(&path) {
            self.signatures.insert(path, bytes);
            if self.signatures.len() > MAX_SIGNATURES {
                let why =
                    format!("the bundle has more than {MAX_SIGNATURES} signatures; remove those that do not count");
                return Err(BundleError::Manifest(why));
            }
            return Ok(());
        }
        self.listed.insert(path, bytes);
        if self.listed.len() > MAX_FILES {
            return Err(BundleError::Manifest(format!("the bundle has more than {MAX_FILES} files")));
        }
        Ok(())
    }

    /// The manifest's bytes, if there is one.
    pub(super) fn manifest(&self) -> Option<&[u8]> {
        self.manifest.as_deref()
    }

    /// The manifest's signatures: name and armored bytes.
    pub(super) fn signatures(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.signatures.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// Every other file: path inside the bundle and bytes.
    pub(super) fn listed(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.listed
    }

    /// The bytes of `entities.json`, if there is one.
    pub(super) fn entities(&self) -> Option<&[u8]> {
        self.listed.get(ENTITIES).map(Vec::as_slice)
    }

    /// The bytes of `recipients.toml`, if there is one.
    pub(super) fn recipients(&self) -> Option<&[u8]> {
        self.listed.get(RECIPIENTS).map(Vec::as_slice)
    }

    /// The Cedar files: path and text.
    pub(super) fn policies(&self) -> Result<Vec<(&str, &str)>, BundleError> {
        self.listed
            .iter()
            .filter(|(path, _)| is_policy(path))
            .map(|(path, bytes)| match std::str::from_utf8(bytes) {
                Ok(text) => Ok((path.as_str(), text)),
                Err(_) => Err(BundleError::file(path, "it is not UTF-8 text")),
            })
            .collect()
    }

    /// The files of test cases: path and bytes.
    pub(super) fn tests(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.listed.iter().filter(|(path, _)| is_test(path)).map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }
}

fn belongs(path: &str) -> bool {
    path == ENTITIES || path == RECIPIENTS || is_policy(path) || is_test(path)
}

fn is_signature(path: &str) -> bool {
    path.starts_with(SIGNATURE)
}

fn is_policy(path: &str) -> bool {
    !path.contains('/') && has_extension(path, "cedar")
}

fn is_test(path: &str) -> bool {
    path.strip_prefix("tests/").is_some_and(|name| has_extension(name, "json"))
}

fn has_extension(name: &str, extension: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(stem, last)| !stem.is_empty() && last == extension)
}

/// The file's bytes, or nothing if there are more than `limit`.
fn read_bounded(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((u64::try_from(read).is_ok_and(|read| read <= limit)).then_some(bytes))
}
