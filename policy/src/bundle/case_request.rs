//! The request form of test cases and of `casemate policy explain`.
//!
//! ```json
//! { "principal": { "name": "coordinator", "roles": ["coordinator"] },
//!   "action": "Sign",
//!   "resource": { "key": { "kind": "wallet", "threshold_t": 2, "threshold_n": 3, "label": "hot-1" } },
//!   "effects": [ { "kind": "native_transfer", "chain_id": 1, "to": "eip155:1:0x35…", "asset": "ETH", "amount": "2.5" } ],
//!   "context": { "time": "2025-06-02T09:30:00Z", "spent": { "day": "9.5" }, "count": { "hour": 3 } } }
//! ```
//!
//! `resource` is `key`, `key_slot` or `appliance`. A request to sign gives its `effects`, or an `intent` as clients send it,
//! or neither, which is blind signing.
//!
//! `context` may set `time` (weekday, minute of the day and calendars follow from it), `approvals`, `session` (with
//! `new_roster`), `derivation_path`, `peers_attested`, and, as they stand with this request included, `spent`, `group_spent`,
//! `fees`, `count` and `group_count`, each with any of `hour`, `day` and `week`. What is not set is as if nothing had been
//! signed before: `spent` is what this request moves out of the effect's asset, with the fee for the native asset, `fees`
//! its fee, `count` 1. A longer window holds at least what a shorter one was set to, and a group at least what its key was
//! set to.

use std::collections::BTreeSet;

use casemate_wire::{Intent, ShareType};
use jiff::Timestamp;
use serde::Deserialize;

use super::Rules;
use crate::amount::Decimal;
use crate::counters::{Counters, Windows};
use crate::evaluate::{Facts, Subject, evaluate};
use crate::intent::{AssetRef, Chain, IntentError, Nature, Signer, decode_payload};
use crate::request::{Action, Approvals, Client, KeyFacts, NewRoster, Resource, SessionFacts, SlotFacts};
use crate::totals;
use crate::tx::Tx;
use crate::verdict::Verdict;

/// The public key of a test case that names none: the generator of secp256k1, whose secret everyone knows.
const TEST_KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

/// A request as people write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseRequest {
    principal: Client,
    action: Action,
    resource: CaseResource,
    intent: Option<Intent>,
    effects: Option<Vec<Tx>>,
    #[serde(default)]
    context: CaseContext,
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
    spent: CaseWindows<Decimal>,
    group_spent: CaseWindows<Decimal>,
    fees: CaseWindows<Decimal>,
    count: CaseWindows<u32>,
    group_count: CaseWindows<u32>,
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
    new_roster: Option<NewRoster>,
}

#[derive(Default, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default, bound(deserialize = "T: Deserialize<'de> + Default"))]
struct CaseWindows<T> {
    hour: Option<T>,
    day: Option<T>,
    week: Option<T>,
}

impl<T: Copy + Ord> CaseWindows<T> {
    /// The windows that are set, over `default`; a longer window holds at least what was set for a shorter one.
    fn over<U: Copy + Ord + From<T>>(self, name: &str, default: Windows<U>) -> Result<Windows<U>, String> {
        let hour = self.hour.map_or(default.hour, U::from);
        let day = self.day.map_or(default.day.max(hour), U::from);
        let week = self.week.map_or(default.week.max(day), U::from);
        let windows = Windows { hour, day, week };
        if windows.rises() {
            return Ok(windows);
        }
        Err(format!("context.{name}: an hour cannot hold more than its day, nor a day more than its week"))
    }
}

impl CaseRequest {
    /// What the policies say to it. Without a time it is asked at `not_before`.
    pub(super) fn judge(&self, rules: &Rules, not_before: Timestamp) -> Result<Verdict, String> {
        let resource = self.resource.facts()?;
        let subject = self.subject(&resource, rules)?;
        let context = &self.context;
        let approvals = Approvals {
            count: context.approvals.count,
            distinct_orgs: context.approvals.distinct_orgs,
            names: context.approvals.names.clone(),
        };
        let session = SessionFacts {
            participants: context.session.participants.clone(),
            threshold_t: context.session.threshold_t.unwrap_or_else(|| threshold(&resource)),
            devices: context.session.devices.clone(),
            new_roster: context.session.new_roster.clone(),
        };
        let facts = Facts {
            principal: &self.principal,
            action: self.action,
            approvals: &approvals,
            time: context.time.unwrap_or(not_before),
            session: &session,
            derivation_path: context.derivation_path.as_deref(),
            peers_attested: context.peers_attested,
            resource: &resource,
        };
        Ok(evaluate(rules, &facts, &subject))
    }

    fn subject(&self, resource: &Resource, rules: &Rules) -> Result<Subject, String> {
        if self.action != Action::Sign {
            return if self.intent.is_none() && self.effects.is_none() {
                Ok(Subject::NoMessage)
            } else {
                Err("only a request to sign has an intent or effects".into())
            };
        }
        let blind = || self.context.counters(Counters::BLIND).map(Subject::Blind);
        let effects: Vec<(Tx, Counters)> = match (&self.intent, &self.effects) {
            (None, None) => return blind(),
            (None, Some(effects)) => effects.iter().map(|tx| (tx.clone(), alone(tx, effects, rules))).collect(),
            (Some(_), Some(_)) => return Err("give an intent or effects, not both".into()),
            (Some(intent), None) => match signer(resource).and_then(|signer| decode_payload(intent, &signer)) {
                Ok(understood) => {
                    let effects = Tx::all_of(&understood, &rules.tables.assets);
                    effects.into_iter().zip(totals::alone(rules, &understood)).collect()
                }
                Err(IntentError::Raw) => return blind(),
                Err(error) => return Err(error.to_string()),
            },
        };
        let counted = effects.into_iter().map(|(tx, alone)| Ok((tx, self.context.counters(alone)?)));
        counted.collect::<Result<_, String>>().map(Subject::Effects)
    }
}

impl CaseContext {
    /// The counters that are set, over those of the request alone.
    fn counters(&self, alone: Counters) -> Result<Counters, String> {
        let spent = self.spent.over("spent", alone.spent)?;
        let count = self.count.over("count", alone.count)?;
        Ok(Counters {
            spent,
            group_spent: self.group_spent.over("group_spent", alone.group_spent.max(spent))?,
            fees: self.fees.over("fees", alone.fees)?,
            count,
            group_count: self.group_count.over("group_count", alone.group_count.max(count))?,
        })
    }
}

/// What one effect's counters are if nothing was signed before.
fn alone(tx: &Tx, effects: &[Tx], rules: &Rules) -> Counters {
    let on_this_chain = || effects.iter().filter(|other| (&other.chain, other.chain_id) == (&tx.chain, tx.chain_id));
    let fee = on_this_chain().map(|other| other.fee).max().unwrap_or_default();
    let moved = on_this_chain()
        .filter(|other| other.asset == tx.asset && other.kind.nature() == Nature::MovesValue)
        .fold(Decimal::ZERO, |sum, other| sum.saturating_add(other.amount));
    let spent = if is_native(tx, rules) { moved.saturating_add(fee) } else { moved };
    Counters::of(spent, fee, 1)
}

/// Whether the effect is about the chain's own coin, by the symbol that the asset table gives it.
fn is_native(tx: &Tx, rules: &Rules) -> bool {
    let chain = match tx.chain.as_str() {
        "bitcoin" => Chain::Bitcoin,
        _ => Chain::Ethereum(u64::try_from(tx.chain_id).unwrap_or_default()),
    };
    match rules.tables.assets.find(chain, AssetRef::Native) {
        Some(native) => native.symbol == tx.asset,
        None => tx.asset.ends_with("/native"),
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
    fn facts(&self) -> Result<Resource, String> {
        Ok(match self {
            Self::Appliance {} => Resource::Appliance,
            Self::KeySlot(slot) => Resource::KeySlot(SlotFacts {
                kind: slot.kind,
                threshold_t: slot.threshold_t,
                threshold_n: slot.threshold_n,
                label: slot.label.clone(),
            }),
            Self::Key(key) => Resource::Key(KeyFacts {
                public_key: key.public_key.parse().map_err(|error| format!("{error}"))?,
                slot: SlotFacts {
                    kind: key.kind,
                    threshold_t: key.threshold_t,
                    threshold_n: key.threshold_n,
                    label: key.label.clone(),
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
