//! From Cedar text to rules: parsing, identities, strict validation, literals.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::str::FromStr;

use casemate_wire::Digest32;
use cedar_policy::{Entity, EntityUid, ParseErrors, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use jiff::tz::TimeZone;
use miette::Diagnostic;

use super::error::{BundleError, Position};
use super::tables::Tables;
use super::{Rules, bounds, conditions, limits};
use crate::evaluate::{chain, client_entity};
use crate::request::Client;
use crate::verdict::PolicyNote;

/// The most policies in one bundle.
const MAX_POLICIES: usize = 2_000;

/// One Cedar file that is within bounds.
pub(super) struct Source<'a> {
    pub(super) path: &'a str,
    pub(super) text: &'a str,
    /// Where each policy begins, in bytes.
    pub(super) statements: Vec<usize>,
}

impl<'a> Source<'a> {
    /// A file whose text is within bounds.
    pub(super) fn within_bounds(path: &'a str, text: &'a str) -> Result<Self, BundleError> {
        Ok(Self { path, text, statements: bounds::check(path, text)? })
    }
}

/// Where a policy stands.
#[derive(Clone, Copy)]
struct Home<'a> {
    source: &'a Source<'a>,
    offset: usize,
}

impl Home<'_> {
    fn refuse(self, policy: &str, why: impl Into<String>) -> BundleError {
        BundleError::Policy {
            path: self.source.path.to_owned(),
            policy: policy.to_owned(),
            position: Some(Position::of(self.source.text, self.offset)),
            why: why.into(),
            hint: None,
        }
    }
}

type Homes<'a> = BTreeMap<String, Home<'a>>;

/// Builds the rules. Runs on the large stack.
pub(super) fn compile(
    sources: &[Source<'_>],
    tables: Tables,
    clients: &[Client],
    time_zone: TimeZone,
    digest: Digest32,
) -> Result<Rules, BundleError> {
    let schema = Schema::from_str(crate::SCHEMA)
        .map_err(|error| BundleError::Evaluator(format!("the shipped schema is not valid: {}", chain(&error))))?;
    let mut rules = Rules {
        policies: PolicySet::new(),
        schema,
        literals: HashMap::new(),
        tables,
        notes: BTreeMap::new(),
        time_zone,
        digest,
    };
    let mut homes = Homes::new();
    for source in sources {
        for (policy, offset) in parse(source)? {
            add(&mut rules, &mut homes, Home { source, offset }, &policy)?;
        }
    }
    if homes.len() > MAX_POLICIES {
        return Err(BundleError::Manifest(format!("the bundle has more than {MAX_POLICIES} policies")));
    }
    validate(&rules, &homes)?;
    for policy in rules.policies.policies() {
        let literals = known_literals(policy, &rules.tables, clients)
            .map_err(|why| refusal(&homes, policy.id().as_ref(), why, None))?;
        rules.literals.extend(literals);
    }
    Ok(rules)
}

/// The policies of a file in their order, each with the byte at which it begins. Runs on the large stack.
pub(super) fn parse(source: &Source<'_>) -> Result<Vec<(Policy, usize)>, BundleError> {
    let parsed = PolicySet::from_str(source.text).map_err(|errors| syntax_error(source, &errors))?;
    if parsed.num_of_templates() > 0 {
        let why = "templates (`?principal`, `?resource`) are refused; write the policy out";
        return Err(BundleError::file(source.path, why));
    }
    // Cedar names the policies of a text by their order.
    let place = |policy: &Policy| policy.id().to_string().strip_prefix("policy")?.parse::<usize>().ok();
    let offset = |policy: &Policy| place(policy).and_then(|place| source.statements.get(place).copied());
    let mut policies: Vec<(Policy, usize)> =
        parsed.policies().map(|policy| (policy.clone(), offset(policy).unwrap_or_default())).collect();
    policies.sort_by_key(|(_, offset)| *offset);
    Ok(policies)
}

fn syntax_error(source: &Source<'_>, errors: &ParseErrors) -> BundleError {
    BundleError::File {
        path: source.path.to_owned(),
        position: errors.iter().find_map(|error| offset_in(error)).map(|offset| Position::of(source.text, offset)),
        why: errors.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; "),
        hint: errors.iter().find_map(|error| error.help().map(|help| help.to_string())),
    }
}

/// Where in its text an error of Cedar stands, in bytes.
fn offset_in(error: &dyn Diagnostic) -> Option<usize> {
    error.labels()?.next().map(|label| label.offset())
}

fn add<'a>(rules: &mut Rules, homes: &mut Homes<'a>, home: Home<'a>, policy: &Policy) -> Result<(), BundleError> {
    let refuse = |why: &str| home.refuse(policy.annotation("id").unwrap_or("without @id"), why);
    let id = policy.annotation("id").unwrap_or_default();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if id.is_empty() || id.len() > 64 || !id.chars().all(fits) {
        return Err(refuse("every policy needs @id(\"…\") with 1 to 64 of A-Z a-z 0-9 . _ -"));
    }
    if let Some(other) = homes.insert(id.to_owned(), home) {
        return Err(refuse(&format!("its @id is taken by another policy, in {}", other.source.path)));
    }
    let known = ["id", "reason"];
    if let Some((name, _)) = policy.annotations().find(|(name, _)| !known.contains(name)) {
        return Err(refuse(&format!("@{name} is not known: write @id and @reason")));
    }
    let note = PolicyNote {
        id: id.to_owned(),
        reason: policy.annotation("reason").map(str::to_owned),
        limits: policy.to_json().as_ref().map_or_else(|_| Vec::new(), limits::of),
        alternatives: conditions::of(policy),
    };
    rules.notes.insert(id.to_owned(), note);
    rules.policies.add(policy.new_id(PolicyId::new(id))).map_err(|error| refuse(&chain(&error)))
}

/// Strict validation; a warning (an impossible policy, confusable characters) refuses as an error does.
fn validate(rules: &Rules, homes: &Homes<'_>) -> Result<(), BundleError> {
    let outcome = Validator::new(rules.schema.clone()).validate(&rules.policies, ValidationMode::Strict);
    let errors = outcome.validation_errors().map(|error| (error.policy_id(), chain(error), error as &dyn Diagnostic));
    let warnings =
        outcome.validation_warnings().map(|warning| (warning.policy_id(), chain(warning), warning as &dyn Diagnostic));
    // Cedar's order is that of a hash table; people get the first of errors, then the first of warnings.
    let sorted = |mut found: Vec<(&PolicyId, String, &dyn Diagnostic)>| {
        found.sort_by_key(|(policy, why, _)| (policy.to_string(), why.clone()));
        found.into_iter().map(|(policy, why, cause)| refusal(homes, policy.as_ref(), why, Some(cause))).next()
    };
    match sorted(errors.collect()).or_else(|| sorted(warnings.collect())) {
        None => Ok(()),
        Some(refusal) => Err(refusal),
    }
}

fn refusal(homes: &Homes<'_>, policy: &str, reason: String, cause: Option<&dyn Diagnostic>) -> BundleError {
    let Some(home) = homes.get(policy) else {
        return BundleError::Evaluator(format!("policy `{policy}`: {reason}"));
    };
    let offset = cause.and_then(offset_in).unwrap_or(home.offset);
    BundleError::Policy {
        path: home.source.path.to_owned(),
        policy: policy.to_owned(),
        position: Some(Position::of(home.source.text, offset)),
        why: reason,
        hint: cause.and_then(Diagnostic::help).map(|help| help.to_string()),
    }
}

/// The entities that a policy names. They must exist, and so must the calendars that it names: Cedar would take a misspelt name for one that nothing
/// belongs to, and a forbid about it would never apply.
fn known_literals(policy: &Policy, tables: &Tables, clients: &[Client]) -> Result<Vec<(EntityUid, Entity)>, String> {
    let literals: HashSet<EntityUid> = policy.entity_literals().into_iter().collect();
    let addresses = literals.iter().filter(|literal| literal.type_name().to_string() == "Mpc::Address");
    if addresses.count() > 1 {
        return Err("a list of addresses belongs into an address book of entities.json, not into a policy".into());
    }
    let form = policy.to_json().map_err(|error| chain(&error))?;
    if let Some(name) = tables.calendars.unknown(&form) {
        return Err(format!("there is no calendar {name:?}; add it to entities.json or correct the name"));
    }
    let mut entities = Vec::new();
    for literal in literals {
        let type_name = literal.type_name().to_string();
        let id = literal.id().unescaped();
        match type_name.as_str() {
            // The validator knows the actions.
            "Mpc::Action" => {}
            "Mpc::Client" => {
                let client = clients.iter().find(|client| client.name == id).ok_or_else(|| {
                    format!("{literal} is not a configured client; known are {}", client_names(clients))
                })?;
                entities.push((literal.clone(), client_entity(client)?));
            }
            _ if !tables.has(&type_name, id) => {
                return Err(format!("{literal} does not exist; add it to entities.json or correct the name"));
            }
            "Mpc::Address" => entities.push((literal.clone(), tables.address_entity(id)?)),
            _ => {}
        }
    }
    Ok(entities)
}

fn client_names(clients: &[Client]) -> String {
    clients.iter().map(|client| client.name.as_str()).collect::<Vec<_>>().join(", ")
}
