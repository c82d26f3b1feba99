//! Policy bundles: a folder of Cedar files with everything that they refer to.
//!
//! ```text
//! *.cedar          policies; each has a unique @id("...") and may carry @reason("shown to the requester")
//! entities.json    asset table, address books, key groups (see `tables`)
//! tests/*.json     test cases: a request and the expected verdict (see `cases`)
//! manifest.toml    version, name, schema, not_before, previous, time_zone, and the SHA-256 of every file above
//! ```
//!
//! [`Bundle::load`] reads all of it and refuses on the first thing that is wrong, so a bundle that exists is valid. What
//! it cannot know (whether the version rises, whether `not_before` has come) the caller checks by the accessors; a request
//! from before `not_before` is denied in any case.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use casemate_wire::Digest32;
use cedar_policy::{Entity, EntityUid, PolicySet, Schema};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::evaluate::{Facts, Subject, evaluate};
use crate::intent::Understood;
use crate::narrate;
use crate::request::{Action, Client, Request};
use crate::stack::on_large_stack;
use crate::tx::Tx;
use crate::verdict::{Denied, PolicyNote, Verdict};

mod bounds;
mod cases;
mod error;
mod files;
mod limits;
mod manifest;
mod policies;
pub(crate) mod tables;

pub use error::BundleError;
pub use manifest::seal;

use files::Files;
use manifest::Manifest;
use tables::Tables;

/// A valid bundle.
pub struct Bundle {
    manifest: Manifest,
    rules: Rules,
}

/// What the evaluator needs of a bundle.
pub(crate) struct Rules {
    pub(crate) policies: PolicySet,
    pub(crate) schema: Schema,
    /// The entities that policies name, with their parents and attributes.
    pub(crate) literals: HashMap<EntityUid, Entity>,
    pub(crate) tables: Tables,
    pub(crate) notes: BTreeMap<String, PolicyNote>,
    pub(crate) time_zone: TimeZone,
    pub(crate) digest: Digest32,
}

impl Rules {
    /// What is known of a policy for explanations.
    pub(crate) fn note(&self, id: &str) -> PolicyNote {
        self.notes.get(id).cloned().unwrap_or_else(|| PolicyNote {
            id: id.to_owned(),
            reason: None,
            limits: Vec::new(),
        })
    }
}

impl Bundle {
    /// Reads a bundle from its folder and checks all of it: manifest and hashes, bounds, syntax, schema, literals, and its
    /// own test cases. `clients` are the appliance's configured clients, the only ones that policies may name.
    ///
    /// # Errors
    /// [`BundleError`] names the file, the policy or the test case.
    pub fn load(dir: &Path, clients: &[Client]) -> Result<Self, BundleError> {
        let files = Files::read(dir)?;
        let (manifest, digest) = Manifest::of(&files)?;
        let time_zone = manifest.time_zone()?;
        let tables = Tables::parse(files.entities())?;
        for (path, text) in files.policies()? {
            bounds::check(path, text)?;
        }
        let rules = on_large_stack(|| policies::compile(&files, tables, clients, time_zone, digest))
            .map_err(|error| BundleError::Evaluator(error.to_string()))??;
        cases::run(&files, &rules, manifest.not_before)?;
        Ok(Self { manifest, rules })
    }

    /// Decides a request. A request to sign is judged once for each effect of its intent.
    pub fn decide(&self, request: &Request<'_>) -> Verdict {
        if request.time < self.manifest.not_before {
            let why = format!("the policy bundle is not in force before {}", self.manifest.not_before);
            return Verdict::Deny(Denied::because(why, self.rules.digest));
        }
        let subject = match (request.action, request.understood) {
            (Action::Sign, Some(understood)) => Subject::Effects(Tx::all_of(understood, &self.rules.tables.assets)),
            (Action::Sign, None) => Subject::Blind,
            (_, None) => Subject::NoMessage,
            (_, Some(_)) => {
                let why = "only a request to sign carries an intent";
                return Verdict::Deny(Denied::because(why, self.rules.digest));
            }
        };
        let facts = Facts {
            principal: &request.principal,
            action: request.action,
            resource: &request.resource,
            approvals: &request.approvals,
            time: request.time,
            session: &request.session,
            derivation_path: request.derivation_path.as_deref(),
            peers_attested: request.peers_attested,
        };
        evaluate(&self.rules, &facts, &subject)
    }

    /// What an intent does, a sentence for each effect and one for the fee, in whole units and with the names of this
    /// bundle's asset table and address books: for people who approve it.
    pub fn narrate(&self, understood: &Understood) -> Vec<String> {
        let tables = &self.rules.tables;
        let effects = Tx::all_of(understood, &tables.assets);
        let fee = effects.first().and_then(narrate::fee);
        effects.iter().map(|tx| narrate::sentence(tx, tables)).chain(fee).collect()
    }

    /// SHA-256 of the manifest's bytes, which hold the hashes of all other files.
    pub fn digest(&self) -> Digest32 {
        self.rules.digest
    }

    /// The name in the manifest.
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// The version, which must be above that of every bundle loaded before.
    pub fn version(&self) -> u64 {
        self.manifest.version
    }

    /// When the bundle comes into force.
    pub fn not_before(&self) -> Timestamp {
        self.manifest.not_before
    }

    /// The digest of the bundle before this one.
    pub fn previous(&self) -> Option<Digest32> {
        self.manifest.previous.0
    }
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle")
            .field("name", &self.manifest.name)
            .field("version", &self.manifest.version)
            .field("digest", &self.rules.digest)
            .finish_non_exhaustive()
    }
}
