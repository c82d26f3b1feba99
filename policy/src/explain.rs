//! What a refusing policy compared, beside what it saw.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::amount::Decimal;
use crate::bundle::conditions::{Alternative, Condition};
use crate::counters::Counters;
use crate::evaluate::{Facts, LocalTime};
use crate::request::{Resource, SlotFacts};
use crate::tx::Tx;

/// Under this name an entity's own id stands beside its attributes.
const SELF: &str = "";

/// A request as policies see it, for looking attributes up by the names that policies use.
pub(crate) struct Observation(Value);

impl Observation {
    pub(crate) fn of(facts: &Facts<'_>, tx: Option<&Tx>, blind: bool, counters: &Counters, local: &LocalTime) -> Self {
        let Facts { principal, session, approvals, .. } = facts;
        let mut context = json!({
            "blind": blind,
            "spent": counters.spent, "group_spent": counters.group_spent, "fees": counters.fees,
            "count": counters.count, "group_count": counters.group_count,
            "approvals": {
                "count": approvals.count, "distinct_orgs": approvals.distinct_orgs, "names": approvals.names,
            },
            "time": {
                "weekday": local.weekday, "minute_of_day": local.minute_of_day, "unix": facts.time.as_second(),
                "calendars": local.calendars,
            },
            "session": {
                "participants": session.participants, "threshold_t": session.threshold_t, "devices": session.devices,
            },
            "peers_attested": facts.peers_attested,
        });
        if let Some(tx) = tx {
            set(&mut context, "tx", json!(tx));
        }
        if let Some(path) = facts.derivation_path {
            set(&mut context, "derivation_path", path.into());
        }
        if let Some(roster) = &session.new_roster
            && let Some(session) = context.get_mut("session")
        {
            set(session, "new_roster", json!(roster));
        }
        let client = json!({ SELF: principal.name, "roles": principal.roles, "org": principal.org });
        Self(json!({
            "principal": client, "action": facts.action.as_str(), "resource": resource(facts.resource), "context": context,
        }))
    }

    /// The value of an attribute such as `context.spent.day`; null if it is absent.
    fn value(&self, attribute: &str) -> Value {
        let found = attribute.split('.').try_fold(&self.0, |value, name| value.get(name));
        match found {
            Some(Value::Object(fields)) if fields.contains_key(SELF) => fields.get(SELF).cloned().unwrap_or_default(),
            Some(value) => value.clone(),
            None => Value::Null,
        }
    }

    /// The members of context beside `tx` that some alternative compares: `{"spent": {"day": "9.5000"}}`.
    pub(crate) fn compared<'a>(&self, alternatives: impl IntoIterator<Item = &'a Alternative>) -> Map<String, Value> {
        let names: BTreeSet<&String> = alternatives.into_iter().flatten().flat_map(Condition::attributes).collect();
        let mut shown = json!({});
        for name in names {
            let Some(path) = name.strip_prefix("context.").filter(|path| !path.starts_with("tx")) else { continue };
            put(&mut shown, path, self.value(name));
        }
        match shown {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    /// Alternatives with the observed value beside each condition.
    pub(crate) fn beside(&self, alternatives: &[Alternative]) -> Vec<Vec<Observed>> {
        alternatives.iter().map(|all| all.iter().map(|condition| self.observe(condition)).collect()).collect()
    }

    fn observe(&self, condition: &Condition) -> Observed {
        let (observed, met) = match condition {
            Condition::Compare { attribute, sign, permitted } => {
                let observed = self.value(attribute);
                let met = holds(&observed, sign, permitted);
                (observed, met)
            }
            Condition::Text { attributes, .. } => {
                (attributes.iter().map(|name| (name.clone(), self.value(name))).collect::<Map<_, _>>().into(), None)
            }
        };
        Observed { condition: condition.clone(), seen: observed, met }
    }
}

/// A condition with the value that was seen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Observed {
    condition: Condition,
    seen: Value,
    /// Whether it held, where that can be said without the evaluator.
    met: Option<bool>,
}

impl Observed {
    pub(crate) fn to_json(&self) -> Value {
        match &self.condition {
            Condition::Compare { attribute, sign, permitted } => {
                json!({ "attribute": attribute, "op": sign, "permitted": permitted, "observed": self.seen })
            }
            Condition::Text { text, .. } => json!({ "condition": text, "observed": self.seen }),
        }
    }

    /// What it compares.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = &String> {
        self.condition.attributes()
    }

    /// Whether it is known to have held.
    pub(crate) fn held(&self) -> bool {
        self.met == Some(true)
    }

    /// `context.tx.amount is 2.5000, permitted is <= 1.0`.
    pub(crate) fn to_line(&self) -> String {
        match &self.condition {
            Condition::Compare { attribute, sign, permitted } => {
                let seen = if self.seen.is_null() { "absent".into() } else { plain(&self.seen) };
                format!("{attribute} is {seen}, permitted is {sign} {}", plain(permitted))
            }
            Condition::Text { text, .. } => format!("permitted is {text}, seen was {}", self.seen),
        }
    }
}

impl Condition {
    fn attributes(&self) -> impl Iterator<Item = &String> {
        match self {
            Self::Compare { attribute, .. } => std::slice::from_ref(attribute).iter(),
            Self::Text { attributes, .. } => attributes.iter(),
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether a comparison holds, for those that need no entities.
fn holds(observed: &Value, sign: &str, permitted: &Value) -> Option<bool> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    if sign == "is" {
        return Some(observed.is_null() == (permitted == "absent"));
    }
    if observed.is_null() {
        return Some(false);
    }
    let order = match (observed, permitted) {
        (Value::Number(seen), Value::Number(limit)) => seen.as_i64()?.cmp(&limit.as_i64()?),
        (Value::String(seen), Value::String(limit)) if !matches!(sign, "==" | "!=") => {
            seen.parse::<Decimal>().ok()?.cmp(&limit.parse().ok()?)
        }
        (Value::String(_), Value::String(_)) | (Value::Bool(_), Value::Bool(_)) => {
            let equal = observed == permitted;
            return match sign {
                "==" => Some(equal),
                "!=" => Some(!equal),
                _ => None,
            };
        }
        (seen, Value::Array(items)) if seen.is_string() => {
            let entities = items.iter().any(|item| item.as_str().is_some_and(|text| text.starts_with("Mpc::")));
            return match sign {
                _ if entities => None,
                "in" => Some(items.contains(seen)),
                "not in" => Some(!items.contains(seen)),
                _ => None,
            };
        }
        (Value::Array(seen), text @ Value::String(_)) => {
            return match sign {
                "contains" => Some(seen.contains(text)),
                "does not contain" => Some(!seen.contains(text)),
                _ => None,
            };
        }
        _ => return None,
    };
    match sign {
        "<" => Some(order == Less),
        "<=" => Some(order != Greater),
        ">" => Some(order == Greater),
        ">=" => Some(order != Less),
        "==" => Some(order == Equal),
        "!=" => Some(order != Equal),
        _ => None,
    }
}

fn resource(resource: &Resource) -> Value {
    let of = |id: String, slot: &SlotFacts| {
        json!({
            SELF: id, "kind": slot.kind.to_string(), "threshold_t": slot.threshold_t, "threshold_n": slot.threshold_n,
            "label": slot.label.as_deref().unwrap_or_default(),
        })
    };
    match resource {
        Resource::Appliance => json!({ SELF: "self" }),
        Resource::KeySlot(slot) => of("new".into(), slot),
        Resource::Key(key) => {
            let mut value = of(key.public_key.to_string(), &key.slot);
            set(&mut value, "age_days", key.age_days.into());
            set(&mut value, "restored", key.restored.into());
            value
        }
    }
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(name.to_owned(), value);
    }
}

/// Sets a value at `spent.day`, making the objects on the way.
fn put(object: &mut Value, path: &str, value: Value) {
    let Value::Object(fields) = object else { return };
    match path.split_once('.') {
        None => {
            fields.insert(path.to_owned(), value);
        }
        Some((first, rest)) => put(fields.entry(first).or_insert_with(|| json!({})), rest, value),
    }
}
