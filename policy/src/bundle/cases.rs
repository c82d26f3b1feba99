//! A bundle's own test cases, run each time that it loads.
//!
//! ```json
//! [ { "name": "a transfer above the limit is refused",
//!     "request": {
//!       "principal": { "name": "coordinator", "roles": ["coordinator"] },
//!       "action": "Sign",
//!       "resource": { "key": { "kind": "wallet", "threshold_t": 2, "threshold_n": 3, "label": "hot-1" } },
//!       "effects": [ { "kind": "native_transfer", "chain_id": 1, "to": "eip155:1:0x35…", "asset": "ETH", "amount": "2.5" } ],
//!       "context": { "time": "2025-06-02T09:30:00Z" } },
//!     "expect": { "verdict": "deny", "policies": ["per-transfer-limit"] } } ]
//! ```
//!
//! `resource` is `key`, `key_slot` or `appliance`. A request to sign gives its `effects`, or an `intent` as clients send it,
//! or neither, which is blind signing. `context` may set `time`, `approvals`, `session`, `derivation_path` and
//! `peers_attested`. `policies` are the deciding ones: all permits that matched, or all forbids that refused.

use std::collections::BTreeSet;

use casemate_wire::{Intent, ShareType};
use jiff::Timestamp;
use serde::Deserialize;

use super::Rules;
use super::error::BundleError;
use super::files::Files;
use crate::evaluate::{Facts, Subject, evaluate};
use crate::intent::{IntentError, Signer, decode_payload};
use crate::request::{Action, Approvals, Client, KeyFacts, Resource, SessionFacts, SlotFacts};
use crate::tx::Tx;
use crate::verdict::{PolicyNote, Verdict};

/// The public key of a test case that names none: the generator of secp256k1, whose secret everyone knows.
const TEST_KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

/// Runs every case. There must be one that is allowed, and one that is refused by each forbid.
pub(super) fn run(files: &Files, rules: &Rules, not_before: Timestamp) -> Result<(), BundleError> {
    let mut untested: BTreeSet<String> = rules
        .policies
        .policies()
        .filter(|policy| policy.effect() == cedar_policy::Effect::Forbid)
        .map(|policy| policy.id().to_string())
        .collect();
    let mut allowed = false;
    for (path, bytes) in files.tests() {
        let cases: Vec<Case> =
            serde_json::from_slice(bytes).map_err(|error| BundleError::file(path, error.to_string()))?;
        for case in cases {
            let name = case.name.clone();
            let expect = case.check(rules, not_before).map_err(|why| BundleError::Case {
                path: path.to_owned(),
                case: name,
                why,
            })?;
            match expect.verdict {
                Effect::Allow => allowed = true,
                Effect::Deny => untested.retain(|id| !expect.policies.contains(id)),
            }
        }
    }
    if !allowed {
        return Err(BundleError::Untested("no test expects a request to be allowed".into()));
    }
    match untested.first() {
        None => Ok(()),
        Some(id) => Err(BundleError::Untested(format!("no test expects a refusal by `{id}`"))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    request: CaseRequest,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseRequest {
    principal: Client,
    action: Action,
    resource: CaseResource,
    intent: Option<Intent>,
    effects: Option<Vec<Tx>>,
    #[serde(default)]
    context: CaseContext,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    verdict: Effect,
    #[serde(default)]
    policies: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Effect {
    Allow,
    Deny,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum CaseResource {
    Key(CaseKey),
    KeySlot(CaseSlot),
    Appliance {},
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseKey {
    #[serde(default = "test_key")]
    public_key: String,
    kind: ShareType,
    threshold_t: u16,
    threshold_n: u16,
    label: Option<String>,
    #[serde(default)]
    age_days: u32,
    #[serde(default)]
    restored: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseSlot {
    kind: ShareType,
    threshold_t: u16,
    threshold_n: u16,
    label: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CaseContext {
    time: Option<Timestamp>,
    approvals: CaseApprovals,
    session: CaseSession,
    derivation_path: Option<String>,
    peers_attested: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CaseApprovals {
    count: u16,
    distinct_orgs: u16,
    names: BTreeSet<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CaseSession {
    participants: BTreeSet<String>,
    threshold_t: Option<u16>,
    devices: BTreeSet<String>,
}

impl Case {
    fn check(self, rules: &Rules, not_before: Timestamp) -> Result<Expect, String> {
        let verdict = self.request.evaluate(rules, not_before)?;
        let (effect, policies, reason) = match &verdict {
            Verdict::Allow(allowed) => (Effect::Allow, ids(allowed.policies()), String::new()),
            Verdict::Deny(denied) => (Effect::Deny, ids(denied.policies()), denied.reason()),
        };
        if effect == self.expect.verdict && policies == self.expect.policies {
            return Ok(self.expect);
        }
        Err(format!(
            "expected {:?} by {:?}, got {effect:?} by {policies:?} {reason}",
            self.expect.verdict, self.expect.policies
        )
        .trim_end()
        .to_owned())
    }
}

fn ids(policies: &[PolicyNote]) -> BTreeSet<String> {
    policies.iter().map(|note| note.id.clone()).collect()
}

impl CaseRequest {
    fn evaluate(self, rules: &Rules, not_before: Timestamp) -> Result<Verdict, String> {
        let resource = self.resource.facts()?;
        let subject = subject(self.action, &resource, self.intent.as_ref(), self.effects, rules)?;
        let context = self.context;
        let facts = Facts {
            principal: &self.principal,
            action: self.action,
            approvals: &Approvals {
                count: context.approvals.count,
                distinct_orgs: context.approvals.distinct_orgs,
                names: context.approvals.names,
            },
            time: context.time.unwrap_or(not_before),
            session: &SessionFacts {
                participants: context.session.participants,
                threshold_t: context.session.threshold_t.unwrap_or_else(|| threshold(&resource)),
                devices: context.session.devices,
            },
            derivation_path: context.derivation_path.as_deref(),
            peers_attested: context.peers_attested,
            resource: &resource,
        };
        Ok(evaluate(rules, &facts, &subject))
    }
}

fn subject(
    action: Action,
    resource: &Resource,
    intent: Option<&Intent>,
    effects: Option<Vec<Tx>>,
    rules: &Rules,
) -> Result<Subject, String> {
    if action != Action::Sign {
        return if intent.is_none() && effects.is_none() {
            Ok(Subject::NoMessage)
        } else {
            Err("only a request to sign has an intent or effects".into())
        };
    }
    match (intent, effects) {
        (None, None) => Ok(Subject::Blind),
        (None, Some(effects)) => Ok(Subject::Effects(effects)),
        (Some(_), Some(_)) => Err("give an intent or effects, not both".into()),
        (Some(intent), None) => match signer(resource).and_then(|signer| decode_payload(intent, &signer)) {
            Ok(understood) => Ok(Subject::Effects(Tx::all_of(&understood, &rules.tables.assets))),
            Err(IntentError::Raw) => Ok(Subject::Blind),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// The key of the case signs itself: a case has no chain code to derive children by.
fn signer(resource: &Resource) -> Result<Signer, IntentError> {
    match resource {
        Resource::Key(key) => Signer::alone(&key.public_key),
        Resource::KeySlot(_) | Resource::Appliance => Err(IntentError::Signer("only a key signs".into())),
    }
}

fn threshold(resource: &Resource) -> u16 {
    match resource {
        Resource::Key(key) => key.slot.threshold_t,
        Resource::KeySlot(slot) => slot.threshold_t,
        Resource::Appliance => 0,
    }
}

impl CaseResource {
    fn facts(self) -> Result<Resource, String> {
        Ok(match self {
            Self::Appliance {} => Resource::Appliance,
            Self::KeySlot(slot) => Resource::KeySlot(SlotFacts {
                kind: slot.kind,
                threshold_t: slot.threshold_t,
                threshold_n: slot.threshold_n,
                label: slot.label,
            }),
            Self::Key(key) => Resource::Key(KeyFacts {
                public_key: key.public_key.parse().map_err(|error| format!("{error}"))?,
                slot: SlotFacts {
                    kind: key.kind,
                    threshold_t: key.threshold_t,
                    threshold_n: key.threshold_n,
                    label: key.label,
                },
                age_days: key.age_days,
                restored: key.restored,
            }),
        })
    }
}

fn test_key() -> String {
    TEST_KEY.into()
}
