//! Policy bundles: a folder of Cedar files with everything that they refer to.
//!
//! ```text
//! *.cedar          policies; each has a unique @id("...") and may carry @reason("shown to the requester")
//! entities.json    asset table, address books, key groups, calendars (see `tables`)
//! recipients.toml  to whom secrets may be encrypted beside the host's own HSM (see `recipients`)
//! tests/*.json     test cases: a request and the expected verdict (see `cases`)
//! manifest.toml    version, name, schema, not_before, previous, time_zone, and the SHA-256 of every file above
//! manifest.toml.sig*  signatures over the manifest, one for each person (see `signatures`)
//! ```
//!
//! [`Bundle::load`] reads all of it and refuses on the first thing that is wrong, so a bundle that exists is valid. It asks
//! for no signature: it is for tools that work offline. A daemon loads by [`Bundle::load_signed`] alone, which also asks for
//! the quorum of signers and a version that follows on the newest. A request from before `not_before` is denied in any case.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use casemate_wire::Digest32;
use cedar_policy::{ActionConstraint, Entity, EntityUid, PolicySet, Schema};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::evaluate::{Facts, Subject, evaluate};
use crate::intent::Understood;
use crate::narrate;
use crate::request::{Action, Client, Request};
use crate::totals::Totals;
use crate::tx::Tx;
use crate::verdict::{Denied, PolicyNote, Verdict};

mod bounds;
mod calendars;
mod case_request;
mod cases;
pub(crate) mod conditions;
mod difference;
mod draft;
mod error;
mod files;
mod format;
mod limits;
mod manifest;
mod outline;
mod policies;
mod recipients;
mod seal;
mod signatures;
pub(crate) mod tables;

pub use cases::{CaseReport, Effect, Outcome};
pub use difference::{Change, ChangeKind, Section, difference};
pub use draft::Draft;
pub use error::{BundleError, Diagnostic, Position};
pub use format::format;
pub use outline::{EntitiesOutline, ManifestOutline, Outline, PolicyOutline};
pub use recipients::{AgeRecipient, Recipients};
pub use seal::{SealFields, Sealed, seal, seal_as};
pub use signatures::{
    IgnoredSignature, Newest, SignatureReport, SignedBundle, ToBeSigned, TrustError, signatures, to_be_signed,
};

use files::Files;
use manifest::Manifest;
use tables::Tables;

/// A valid bundle.
pub struct Bundle {
    manifest: Manifest,
    rules: Rules,
    recipients: Recipients,
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
            alternatives: Vec::new(),
        })
    }

    /// The permits whose scope names this action, or every action; sorted.
    pub(crate) fn permits_for(&self, action: Action) -> BTreeSet<String> {
        let named = |uid: &EntityUid| uid.id().unescaped() == action.as_str();
        self.policies
            .policies()
            .filter(|policy| policy.effect() == cedar_policy::Effect::Permit)
            .filter(|policy| match policy.action_constraint() {
                ActionConstraint::Any => true,
                ActionConstraint::In(actions) => actions.iter().any(named),
                ActionConstraint::Eq(action) => named(&action),
            })
            .map(|policy| policy.id().to_string())
            .collect()
    }
}

impl Bundle {
    /// Reads a bundle from its folder and checks all of it: manifest and hashes, bounds, syntax, schema, literals, and its
    /// own test cases. No signature is looked at, so this is for offline tools alone. `clients` are the appliance's configured
    /// clients, the only ones that policies may name.
    ///
    /// # Errors
    /// [`BundleError`] names the file, the policy or the test case.
    pub fn load(dir: &Path, clients: &[Client]) -> Result<Self, BundleError> {
        Self::assemble(&Files::read(dir)?, clients)
    }

    fn assemble(files: &Files, clients: &[Client]) -> Result<Self, BundleError> {
        let (manifest, digest) = Manifest::of(files)?;
        Draft::compile(files, manifest, digest, clients)?.tested()
    }

    /// Decides a request. A request to sign is judged once for each effect of its intent.
    pub fn decide(&self, request: &Request<'_>) -> Verdict {
        if request.time < self.manifest.not_before {
            let why = format!("the policy bundle is not in force before {}", self.manifest.not_before);
            return Verdict::Deny(Denied::because(why, self.rules.digest));
        }
        let subject = match self.subject(request) {
            Ok(subject) => subject,
            Err(why) => return Verdict::Deny(Denied::because(why, self.rules.digest)),
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
        match (evaluate(&self.rules, &facts, &subject), request.spent.and_then(Totals::full)) {
            (Verdict::Deny(denied), Some(full)) => Verdict::Deny(denied.with_full_windows(full)),
            (verdict, _) => verdict,
        }
    }

    fn subject(&self, request: &Request<'_>) -> Result<Subject, &'static str> {
        match (request.action, request.understood, request.spent) {
            (Action::Sign, understood, Some(totals)) => {
                let counters = totals
                    .of_request(&self.rules, &request.resource, understood, request.derivation_path.as_deref())
                    .ok_or("what was entered into the ledger is another request, or the policy has changed since; ask again")?;
                match (understood, counters) {
                    (Some(understood), _) => {
                        let effects = Tx::all_of(understood, &self.rules.tables.assets);
                        Ok(Subject::Effects(effects.into_iter().zip(counters.iter().copied()).collect()))
                    }
                    (None, [counters, ..]) => Ok(Subject::Blind(*counters)),
                    (None, []) => Err("the ledger has no totals for this request"),
                }
            }
            (Action::Sign, _, None) => Err("the request is not entered into the ledger of what keys have spent"),
            (_, Some(_), _) => Err("only a request to sign carries an intent"),
            (_, None, Some(_)) => Err("only a request to sign is entered into the ledger"),
            (_, None, None) => Ok(Subject::NoMessage),
        }
    }

    /// What the evaluator needs.
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// To whom secrets may be encrypted beside the host's own HSM.
    pub fn recipients(&self) -> &Recipients {
        &self.recipients
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

/// What an intent does, a sentence for each effect and one for the fee, in whole units and with the names of a bundle's asset
/// table and address books: for people who approve it. Only `entities.json` is read.
///
/// # Errors
/// [`BundleError`] says what is wrong with the folder or the tables.
pub fn narrate(dir: &Path, understood: &Understood) -> Result<Vec<String>, BundleError> {
    let tables = Tables::parse(Files::read(dir)?.entities())?;
    Ok(narrate::sentences(understood, &tables))
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
