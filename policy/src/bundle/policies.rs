//! From Cedar text to rules: parsing, identities, strict validation, literals.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::str::FromStr;

use casemate_wire::Digest32;
use cedar_policy::{Entity, EntityUid, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use jiff::tz::TimeZone;

use super::error::BundleError;
use super::files::Files;
use super::tables::Tables;
use super::{Rules, conditions, limits};
use crate::evaluate::{chain, client_entity};
use crate::request::Client;
use crate::verdict::PolicyNote;

/// The most policies in one bundle.
const MAX_POLICIES: usize = 2_000;

/// Builds the rules. Runs on the large stack.
pub(super) fn compile(
    files: &Files,
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
    let mut homes = BTreeMap::new();
    for (path, text) in files.policies()? {
        for policy in parse(path, text)? {
            add(&mut rules, &mut homes, path, &policy)?;
        }
    }
    if homes.len() > MAX_POLICIES {
        return Err(BundleError::Manifest(format!("the bundle has more than {MAX_POLICIES} policies")));
    }
    validate(&rules, &homes)?;
    for policy in rules.policies.policies() {
        let literals =
            known_literals(policy, &rules.tables, clients).map_err(|why| refusal(&homes, policy.id().as_ref(), why))?;
        rules.literals.extend(literals);
    }
    Ok(rules)
}

/// The policies of one file, as they stand there. Runs on the large stack.
pub(super) fn parse(path: &str, text: &str) -> Result<Vec<Policy>, BundleError> {
    let parsed = PolicySet::from_str(text).map_err(|errors| {
        BundleError::file(path, errors.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; "))
    })?;
    if parsed.num_of_templates() > 0 {
        return Err(BundleError::file(path, "templates (`?principal`, `?resource`) are refused; write the policy out"));
    }
    Ok(parsed.policies().cloned().collect())
}

fn add(
    rules: &mut Rules,
    homes: &mut BTreeMap<String, String>,
    path: &str,
    policy: &Policy,
) -> Result<(), BundleError> {
    let refuse = |why: &str| BundleError::Policy {
        path: path.to_owned(),
        policy: policy.annotation("id").unwrap_or("without @id").to_owned(),
        why: why.to_owned(),
    };
    let id = policy.annotation("id").unwrap_or_default();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if id.is_empty() || id.len() > 64 || !id.chars().all(fits) {
        return Err(refuse("every policy needs @id(\"…\") with 1 to 64 of A-Z a-z 0-9 . _ -"));
    }
    if let Some(other) = homes.insert(id.to_owned(), path.to_owned()) {
        return Err(refuse(&format!("its @id is taken by another policy, in {other}")));
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
fn validate(rules: &Rules, homes: &BTreeMap<String, String>) -> Result<(), BundleError> {
    let outcome = Validator::new(rules.schema.clone()).validate(&rules.policies, ValidationMode::Strict);
    let errors: BTreeSet<(String, String)> =
        outcome.validation_errors().map(|error| (error.policy_id().to_string(), chain(error))).collect();
    let warnings: BTreeSet<(String, String)> =
        outcome.validation_warnings().map(|warning| (warning.policy_id().to_string(), chain(warning))).collect();
    match errors.into_iter().chain(warnings).next() {
        None => Ok(()),
        Some((policy, why)) => Err(refusal(homes, &policy, why)),
    }
}

fn refusal(homes: &BTreeMap<String, String>, policy: &str, why: String) -> BundleError {
    BundleError::Policy { path: homes.get(policy).cloned().unwrap_or_default(), policy: policy.to_owned(), why }
}

/// The entities that a policy names, each of which must exist: Cedar would take a misspelt name for one that nothing
/// belongs to, and a forbid about it would never apply.
fn known_literals(policy: &Policy, tables: &Tables, clients: &[Client]) -> Result<Vec<(EntityUid, Entity)>, String> {
    let literals: HashSet<EntityUid> = policy.entity_literals().into_iter().collect();
    let addresses = literals.iter().filter(|literal| literal.type_name().to_string() == "Mpc::Address");
    if addresses.count() > 1 {
        return Err("a list of addresses belongs into an address book of entities.json, not into a policy".into());
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
