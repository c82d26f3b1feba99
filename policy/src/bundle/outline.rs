//! What stands in a bundle, for people to read and compare. An outline judges nothing: a bundle may be outlined that would
//! be refused by the loader, as long as its files can be parsed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use casemate_wire::Digest32;
use cedar_policy::{Effect, Policy};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{BundleError, Position};
use super::files::{ENTITIES, Files};
use super::format;
use super::manifest::{Manifest, sha256};
use super::policies::{self, Source};
use super::recipients::Recipients;
use crate::stack::on_large_stack;

/// A bundle's contents by name.
#[derive(Debug, Clone, Serialize)]
pub struct Outline {
    /// What the manifest says; `None` for a bundle that was never sealed.
    pub manifest: Option<ManifestOutline>,
    /// Path inside the bundle → SHA-256 of the file as it stands there now.
    pub files: BTreeMap<String, Digest32>,
    /// Files that were changed, added or removed since the manifest was sealed.
    pub unsealed: BTreeSet<String>,
    /// The files beside the manifest that hold signatures over it, whoever made them.
    pub signatures: BTreeSet<String>,
    /// `@id` → policy.
    pub policies: BTreeMap<String, PolicyOutline>,
    /// `entities.json`.
    pub entities: EntitiesOutline,
    /// `recipients.toml`: `recovery NAME` → the key's fingerprint, `custodian NAME` → the age recipient, the threshold.
    pub recipients: BTreeMap<String, String>,
    /// File and name of each test case → the case, as formatted JSON.
    pub tests: BTreeMap<String, String>,
}

/// A manifest's fields.
#[derive(Debug, Clone, Serialize)]
pub struct ManifestOutline {
    /// The bundle's name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// The schema version that it was written for.
    pub schema: u64,
    /// When it comes into force.
    pub not_before: Timestamp,
    /// The digest of the bundle before it.
    pub previous: Option<Digest32>,
    /// The IANA zone of `context.time`.
    pub time_zone: String,
    /// SHA-256 of the manifest's bytes: the bundle's digest.
    pub digest: Digest32,
}

/// One policy.
#[derive(Debug, Clone, Serialize)]
pub struct PolicyOutline {
    /// The file that it stands in.
    pub file: String,
    /// `permit` or `forbid`.
    pub effect: &'static str,
    /// Its `@reason`.
    pub reason: Option<String>,
    /// Its text, formatted.
    pub text: String,
}

/// The tables of `entities.json`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct EntitiesOutline {
    /// Chain and contract (or `native`) → symbol and decimals.
    pub assets: BTreeMap<String, String>,
    /// Address book → address → note.
    pub address_books: BTreeMap<String, BTreeMap<String, String>>,
    /// Key group → its labels and public keys.
    pub key_groups: BTreeMap<String, BTreeSet<String>>,
    /// Calendar → its days.
    pub calendars: BTreeMap<String, BTreeSet<String>>,
}

impl Outline {
    /// Reads the folder of a bundle.
    ///
    /// # Errors
    /// [`BundleError`] if a file does not belong or cannot be parsed, or if a policy's `@id` is missing or stands twice.
    pub fn read(dir: &Path) -> Result<Self, BundleError> {
        let files = Files::read(dir)?;
        let hashes: BTreeMap<String, Digest32> =
            files.listed().iter().map(|(path, bytes)| (path.clone(), sha256(bytes))).collect();
        let sealed = files.manifest().map(|bytes| Manifest::parse(bytes).map(|parsed| (parsed, sha256(bytes))));
        let sealed = sealed.transpose()?;
        let listed = sealed.as_ref().map(|(manifest, _)| manifest.files.clone()).unwrap_or_default();
        let unsealed = hashes.keys().chain(listed.keys()).filter(|path| hashes.get(*path) != listed.get(*path));
        Ok(Self {
            unsealed: unsealed.cloned().collect(),
            manifest: sealed.map(|(manifest, digest)| ManifestOutline::of(&manifest, digest)),
            signatures: files.signatures().map(|(name, _)| name.to_owned()).collect(),
            policies: policies_of(&files)?,
            entities: entities_of(files.entities())?,
            recipients: Recipients::parse(files.recipients())?.outline(),
            tests: tests_of(&files)?,
            files: hashes,
        })
    }
}

impl ManifestOutline {
    fn of(manifest: &Manifest, digest: Digest32) -> Self {
        Self {
            name: manifest.name.clone(),
            version: manifest.version,
            schema: manifest.schema,
            not_before: manifest.not_before,
            previous: manifest.previous.0,
            time_zone: manifest.time_zone.clone(),
            digest,
        }
    }
}

fn policies_of(files: &Files) -> Result<BTreeMap<String, PolicyOutline>, BundleError> {
    let sources = files.policies()?;
    let sources = sources.into_iter().map(|(path, text)| Source::within_bounds(path, text));
    let sources: Vec<Source<'_>> = sources.collect::<Result<_, _>>()?;
    let outlined = on_large_stack(|| {
        let mut found = BTreeMap::new();
        for source in &sources {
            for (policy, offset) in policies::parse(source)? {
                let refuse = |why| BundleError::at(source.path, Position::of(source.text, offset), why);
                let Some(id) = policy.annotation("id") else {
                    return Err(refuse("a policy has no @id(\"…\"); give each one its own".to_owned()));
                };
                if let Some(other) = found.insert(id.to_owned(), outline(source.path, &policy)?) {
                    return Err(refuse(format!("the @id `{id}` is taken by another policy, in {}", other.file)));
                }
            }
        }
        Ok(found)
    });
    outlined.map_err(|error| BundleError::Evaluator(error.to_string()))?
}

fn outline(path: &str, policy: &Policy) -> Result<PolicyOutline, BundleError> {
    let written = policy.to_cedar().unwrap_or_else(|| policy.to_string());
    Ok(PolicyOutline {
        file: path.to_owned(),
        effect: if policy.effect() == Effect::Permit { "permit" } else { "forbid" },
        reason: policy.annotation("reason").map(str::to_owned),
        text: format::pretty(path, &written)?.trim_end().to_owned(),
    })
}

fn tests_of(files: &Files) -> Result<BTreeMap<String, String>, BundleError> {
    let mut found = BTreeMap::new();
    for (path, bytes) in files.tests() {
        let cases: Vec<Value> = serde_json::from_slice(bytes).map_err(|error| BundleError::json(path, &error))?;
        for case in cases {
            let name = case.get("name").and_then(Value::as_str).unwrap_or("without a name");
            let text = serde_json::to_string_pretty(&case).unwrap_or_default();
            // Of cases that share a name none may hide the other.
            let entry: &mut String = found.entry(format!("{path}: {name}")).or_default();
            entry.push_str(&text);
        }
    }
    Ok(found)
}

/// As much of `entities.json` as people compare; the loader is the one that checks it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Tables {
    assets: Vec<Asset>,
    address_books: Vec<Book>,
    key_groups: Vec<Group>,
    calendars: Vec<Calendar>,
}

#[derive(Deserialize)]
struct Asset {
    chain: String,
    contract: Option<String>,
    symbol: String,
    decimals: u8,
}

#[derive(Deserialize)]
struct Book {
    name: String,
    #[serde(default)]
    addresses: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    address: String,
    #[serde(default)]
    note: String,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default)]
    public_keys: Vec<String>,
}

#[derive(Deserialize)]
struct Calendar {
    name: String,
    #[serde(default)]
    days: Vec<String>,
}

fn entities_of(bytes: Option<&[u8]>) -> Result<EntitiesOutline, BundleError> {
    let tables: Tables = match bytes {
        None => Tables::default(),
        Some(bytes) => serde_json::from_slice(bytes).map_err(|error| BundleError::json(ENTITIES, &error))?,
    };
    let mut outline = EntitiesOutline::default();
    for asset in tables.assets {
        let id = format!("{}/{}", asset.chain, asset.contract.as_deref().unwrap_or("native"));
        outline.assets.insert(id, format!("{}, {} decimals", asset.symbol, asset.decimals));
    }
    for book in tables.address_books {
        let addresses = book.addresses.into_iter().map(|entry| (entry.address, entry.note));
        outline.address_books.entry(book.name).or_default().extend(addresses);
    }
    for group in tables.key_groups {
        let labels = group.labels.into_iter().map(|label| format!("label {label}"));
        let keys = group.public_keys.into_iter().map(|key| format!("key {key}"));
        outline.key_groups.entry(group.name).or_default().extend(labels.chain(keys));
    }
    for calendar in tables.calendars {
        outline.calendars.entry(calendar.name).or_default().extend(calendar.days);
    }
    Ok(outline)
}
