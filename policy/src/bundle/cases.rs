//! A bundle's own test cases, run each time that it loads: `tests/*.json`, each a list.
//!
//! ```json
//! [ { "name": "a transfer above the limit is refused",
//!     "request": { "principal": …, "action": "Sign", "resource": …, "effects": […], "context": {…} },
//!     "expect": { "verdict": "deny", "policies": ["per-transfer-limit"] } } ]
//! ```
//!
//! The form of `request` stands in [`case_request`](super::case_request). `policies` are the deciding ones: all permits that
//! matched, or all forbids that refused. There must be one case that is allowed, and one that is refused by each forbid.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Rules;
use super::case_request::CaseRequest;
use super::error::BundleError;
use super::files::Files;
use crate::verdict::{PolicyNote, Verdict};

/// One test case, with what the policies said to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaseReport {
    /// The path inside the bundle.
    pub file: String,
    /// The case's name.
    pub name: String,
    /// What it expects.
    pub expected: Outcome,
    /// What the policies said; nothing if the request could not be judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub got: Option<Outcome>,
    /// Why the request was refused, or why it could not be judged. Empty for an allowed one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// A verdict and the policies that decided it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Allowed or denied.
    pub verdict: Effect,
    /// The ids of the permits that matched, or of the forbids that refused.
    #[serde(default)]
    pub policies: BTreeSet<String>,
}

/// Allowed or denied, as test cases spell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Every effect is permitted and none is forbidden.
    Allow,
    /// Anything else.
    Deny,
}

impl CaseReport {
    /// Whether the verdict and the deciding policies are the expected ones.
    pub fn passed(&self) -> bool {
        self.got.as_ref() == Some(&self.expected)
    }

    /// What was expected and what came instead, in one line.
    pub fn difference(&self) -> String {
        let Self { expected, got, reason, .. } = self;
        match got {
            None => reason.clone(),
            Some(got) => format!("expected {expected}, got {got} {reason}").trim_end().to_owned(),
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} by {:?}", self.verdict, self.policies)
    }
}

impl From<&Verdict> for Outcome {
    fn from(verdict: &Verdict) -> Self {
        let ids = |policies: &[PolicyNote]| policies.iter().map(|note| note.id.clone()).collect();
        match verdict {
            Verdict::Allow(allowed) => Self { verdict: Effect::Allow, policies: ids(allowed.policies()) },
            Verdict::Deny(denied) => Self { verdict: Effect::Deny, policies: ids(denied.policies()) },
        }
    }
}

/// All test cases of a bundle.
pub(super) struct Cases(Vec<(String, Case)>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    request: CaseRequest,
    expect: Outcome,
}

impl Cases {
    /// Reads every test file.
    pub(super) fn parse(files: &Files) -> Result<Self, BundleError> {
        let mut cases = Vec::new();
        for (path, bytes) in files.tests() {
            let found: Vec<Case> = serde_json::from_slice(bytes).map_err(|error| BundleError::json(path, &error))?;
            cases.extend(found.into_iter().map(|case| (path.to_owned(), case)));
        }
        Ok(Self(cases))
    }

    /// Runs every case.
    pub(super) fn run(&self, rules: &Rules, not_before: Timestamp) -> Vec<CaseReport> {
        self.0.iter().map(|(file, case)| case.run(file, rules, not_before)).collect()
    }
}

impl Case {
    fn run(&self, file: &str, rules: &Rules, not_before: Timestamp) -> CaseReport {
        let (got, reason) = match self.request.judge(rules, not_before) {
            Ok(verdict) => {
                let outcome = Outcome::from(&verdict);
                let reason = match verdict {
                    Verdict::Allow(_) => String::new(),
                    Verdict::Deny(denied) => denied.reason(),
                };
                (Some(outcome), reason)
            }
            Err(why) => (None, why),
        };
        CaseReport { file: file.to_owned(), name: self.name.clone(), expected: self.expect.clone(), got, reason }
    }
}

/// Refuses a failed case, and cases that leave something untested.
pub(super) fn check(reports: &[CaseReport], rules: &Rules) -> Result<(), BundleError> {
    if let Some(failed) = reports.iter().find(|report| !report.passed()) {
        return Err(BundleError::Case {
            path: failed.file.clone(),
            case: failed.name.clone(),
            why: failed.difference(),
        });
    }
    match untested(reports, rules).into_iter().next() {
        None => Ok(()),
        Some(why) => Err(BundleError::Untested(why)),
    }
}

/// What no case tests: whether anything is allowed, and each forbid.
pub(super) fn untested(reports: &[CaseReport], rules: &Rules) -> Vec<String> {
    let expects = |verdict| reports.iter().map(|r| &r.expected).filter(move |expected| expected.verdict == verdict);
    let mut missing = Vec::new();
    if expects(Effect::Allow).next().is_none() {
        missing.push("no test expects a request to be allowed".to_owned());
    }
    let forbids: BTreeSet<String> = rules
        .policies
        .policies()
        .filter(|policy| policy.effect() == cedar_policy::Effect::Forbid)
        .map(|policy| policy.id().to_string())
        .collect();
    for id in forbids {
        if !expects(Effect::Deny).any(|expected| expected.policies.contains(&id)) {
            missing.push(format!("no test expects a refusal by `{id}`"));
        }
    }
    missing
}
