//! Decisions, with their reasons inside.

use casemate_wire::{Code, Digest32};
use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::{Value, json};

use crate::bundle::conditions::Alternative;
use crate::explain::Observed;
use crate::full::Full;

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyNote {
    /// Its `@id`.
    pub id: String,
    /// Its `@reason`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it compares with literals, as `context.tx.amount <= 1.0`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// What it would permit.
    #[serde(skip)]
    pub(crate) alternatives: Vec<Alternative>,
}

/// A policy that refused, with what it saw.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) policy: PolicyNote,
    /// Which effects of the request it refused, counted from 0.
    pub(crate) effects: Vec<usize>,
    /// What it would permit, beside what it saw of the first of them.
    pub(crate) any_of: Vec<Vec<Observed>>,
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
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) problems: Vec<String>,
    pub(crate) observed: Vec<Value>,
    pub(crate) bundle: Option<Digest32>,
}

impl Denied {
    pub(crate) fn no_bundle() -> Self {
        Self {
            code: Code::PolicyDenied,
            policies: Vec::new(),
            refusals: Vec::new(),
            problems: vec!["no valid policy bundle is loaded".into()],
            observed: Vec::new(),
            bundle: None,
        }
    }

    pub(crate) fn because(problem: impl Into<String>, bundle: Digest32) -> Self {
        Self { problems: vec![problem.into()], bundle: Some(bundle), ..Self::no_bundle() }
    }

    /// Says so where a refusing policy compared a window that counts as full.
    pub(crate) fn with_full_windows(mut self, full: Full) -> Self {
        let conditions = self.refusals.iter().flat_map(|refusal| refusal.any_of.iter().flatten());
        let compared = |attribute: &str| {
            // Where no permit matched, any of them may have compared a window.
            self.refusals.is_empty() || conditions.clone().any(|seen| seen.attributes().any(|name| name == attribute))
        };
        self.problems.extend(full.explain(compared));
        self
    }

    /// The stable code: `blind_signing_denied` where nothing was decoded, else `policy_denied`.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The policies that refused, sorted by id; empty if none permitted the request.
    pub fn policies(&self) -> &[PolicyNote] {
        &self.policies
    }

    /// The effects that were refused, as policies saw them: `context.tx`, and beside it what else of the context the
    /// refusing policies compared, such as `spent.day`.
    pub fn observed(&self) -> &[Value] {
        &self.observed
    }

    /// What the refusing policies would permit: for each its id, its reason, and in `any_of` the alternatives. All
    /// conditions of one alternative must hold, and each stands beside what was observed. `limits` is the flat list of
    /// what the policy compares with literals; `effects` says which effects it refused, where there are several.
    pub fn permitted(&self) -> Value {
        self.refusals.iter().map(Refusal::to_json).collect()
    }

    /// The refusal for people, one line each: every refusing policy with its reason, and under it the conditions that
    /// failed in the alternative that came closest.
    pub fn explanation(&self) -> Vec<String> {
        let policies = self.refusals.iter().flat_map(|refusal| {
            let failed = refusal.closest().into_iter().filter(|condition| !condition.held());
            std::iter::once(refusal.policy.line()).chain(failed.map(|condition| format!("  {}", condition.to_line())))
        });
        policies.chain(self.problems.iter().cloned()).collect()
    }

    /// The digest of the bundle that decided, if there was one.
    pub fn bundle_digest(&self) -> Option<Digest32> {
        self.bundle
    }

    /// Why, in one line for the requester: the reasons of all refusing policies, and what else went wrong.
    pub fn reason(&self) -> String {
        self.policies.iter().map(PolicyNote::line).chain(self.problems.iter().cloned()).collect::<Vec<_>>().join("; ")
    }
}

impl PolicyNote {
    fn line(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{}: {reason}", self.id),
            None => format!("{} forbids it", self.id),
        }
    }
}

impl Refusal {
    fn to_json(&self) -> Value {
        let PolicyNote { id, reason, limits, .. } = &self.policy;
        let any_of: Vec<Vec<Value>> =
            self.any_of.iter().map(|all| all.iter().map(Observed::to_json).collect()).collect();
        let mut refusal = json!({ "policy": id, "reason": reason, "limits": limits });
        if let Value::Object(fields) = &mut refusal {
            if !any_of.is_empty() {
                fields.insert("any_of".into(), json!(any_of));
            }
            if self.effects != [0] {
                fields.insert("effects".into(), json!(self.effects));
            }
        }
        refusal
    }

    /// The alternative of which the fewest conditions failed.
    fn closest(&self) -> Vec<&Observed> {
        let failed = |all: &&Vec<Observed>| all.iter().filter(|condition| !condition.held()).count();
        self.any_of.iter().min_by_key(failed).into_iter().flatten().collect()
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
