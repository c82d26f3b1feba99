//! Decisions, with their reasons inside.

use casemate_wire::{Code, Digest32};
use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::Value;

/// What policy says to a request.
#[must_use = "a verdict that nobody reads refuses nothing"]
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Every effect is permitted and none is forbidden.
    Allow(Allowed),
    /// Anything else.
    Deny(Denied),
}

/// A policy that decided.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PolicyNote {
    /// Its `@id`.
    pub id: String,
    /// Its `@reason`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it compares with literals, as `context.tx.amount <= 1.0`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
}

/// An allowed request. Only the evaluator makes one. Serializes as the `decision` of an audit leaf.
#[derive(Debug, Clone, PartialEq)]
pub struct Allowed {
    pub(crate) policies: Vec<PolicyNote>,
    pub(crate) bundle: Digest32,
}

impl Allowed {
    /// The permits that matched, sorted by id.
    pub fn policies(&self) -> &[PolicyNote] {
        &self.policies
    }

    /// The digest of the bundle that decided.
    pub fn bundle_digest(&self) -> Digest32 {
        self.bundle
    }
}

/// A refused request. Serializes as the `decision` of an audit leaf.
#[derive(Debug, Clone, PartialEq)]
pub struct Denied {
    pub(crate) code: Code,
    pub(crate) policies: Vec<PolicyNote>,
    pub(crate) problems: Vec<String>,
    pub(crate) observed: Vec<Value>,
    pub(crate) bundle: Option<Digest32>,
}

impl Denied {
    pub(crate) fn no_bundle() -> Self {
        Self {
            code: Code::PolicyDenied,
            policies: Vec::new(),
            problems: vec!["no valid policy bundle is loaded".into()],
            observed: Vec::new(),
            bundle: None,
        }
    }

    pub(crate) fn because(problem: impl Into<String>, bundle: Digest32) -> Self {
        Self { problems: vec![problem.into()], bundle: Some(bundle), ..Self::no_bundle() }
    }

    /// The stable code: `blind_signing_denied` where nothing was decoded, else `policy_denied`.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The policies that refused, sorted by id; empty if none permitted the request.
    pub fn policies(&self) -> &[PolicyNote] {
        &self.policies
    }

    /// The effects that were refused, as policies saw them.
    pub fn observed(&self) -> &[Value] {
        &self.observed
    }

    /// What the refusing policies would permit: their reasons, and the literals that they compare with.
    pub fn permitted(&self) -> Value {
        self.policies
            .iter()
            .map(|note| serde_json::json!({"policy": note.id, "reason": note.reason, "limits": note.limits}))
            .collect()
    }

    /// The digest of the bundle that decided, if there was one.
    pub fn bundle_digest(&self) -> Option<Digest32> {
        self.bundle
    }

    /// Why, in one line for the requester: the reasons of all refusing policies, and what else went wrong.
    pub fn reason(&self) -> String {
        let notes = self.policies.iter().map(|note| match &note.reason {
            Some(reason) => format!("{}: {reason}", note.id),
            None => format!("{} forbids it", note.id),
        });
        notes.chain(self.problems.iter().cloned()).collect::<Vec<_>>().join("; ")
    }
}

impl Serialize for Allowed {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        decision(to, "allow", &self.policies, Some(self.bundle), None)
    }
}

impl Serialize for Denied {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        decision(to, "deny", &self.policies, self.bundle, Some(self.reason()))
    }
}

fn decision<S: serde::Serializer>(
    to: S,
    effect: &str,
    policies: &[PolicyNote],
    bundle: Option<Digest32>,
    reason: Option<String>,
) -> Result<S::Ok, S::Error> {
    let ids: Vec<&str> = policies.iter().map(|note| note.id.as_str()).collect();
    let mut map = to.serialize_map(None)?;
    map.serialize_entry("effect", effect)?;
    map.serialize_entry("policies", &ids)?;
    map.serialize_entry("bundle", &bundle)?;
    if let Some(reason) = reason {
        map.serialize_entry("reason", &reason)?;
    }
    map.end()
}
