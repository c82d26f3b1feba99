//! Business calendars: named lists of days, which policies see as the names of those that hold today.
//!
//! A rule names a calendar by text, which Cedar's validator cannot check; [`unknown`] finds the names that no calendar has,
//! since a rule about a misspelt one would never apply.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use serde::Deserialize;
use serde_json::Value;

use super::limits::attribute;
use super::tables::check_name;

/// The most calendars of a bundle. Each is looked up for each effect of a request.
const MAX_CALENDARS: usize = 64;
/// The most days of one calendar: every day of ten years.
const MAX_DAYS: usize = 3_660;
/// What policies ask.
const ATTRIBUTE: &str = "context.time.calendars";

/// The calendars of a bundle, by name.
#[derive(Debug, Default)]
pub(crate) struct Calendars(BTreeMap<String, BTreeSet<Date>>);

/// A calendar in `entities.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CalendarRow {
    name: String,
    days: Vec<String>,
}

impl Calendars {
    pub(super) fn build(rows: Vec<CalendarRow>) -> Result<Self, String> {
        if rows.len() > MAX_CALENDARS {
            return Err(format!("there are more than {MAX_CALENDARS} calendars"));
        }
        let mut calendars = BTreeMap::new();
        for CalendarRow { name, days } in rows {
            check_name("calendar", &name)?;
            if days.len() > MAX_DAYS {
                return Err(format!("calendar `{name}` has more than {MAX_DAYS} days; remove those that are past"));
            }
            let mut dates = BTreeSet::new();
            for day in days {
                let date = date(&day).ok_or_else(|| {
                    format!("{day:?} in calendar `{name}` is not a day: write YYYY-MM-DD, for example 2026-12-25")
                })?;
                if !dates.insert(date) {
                    return Err(format!("{day} stands twice in calendar `{name}`"));
                }
            }
            if calendars.insert(name.clone(), dates).is_some() {
                return Err(format!("calendar `{name}` stands twice"));
            }
        }
        Ok(Self(calendars))
    }

    /// The names of the calendars in which a day stands.
    pub(crate) fn on(&self, day: Date) -> BTreeSet<String> {
        self.0.iter().filter(|(_, days)| days.contains(&day)).map(|(name, _)| name.clone()).collect()
    }

    /// The first name, of those that a policy (in Cedar's JSON form) compares `context.time.calendars` with, that no
    /// calendar has.
    pub(super) fn unknown(&self, policy: &Value) -> Option<String> {
        let mut names = BTreeSet::new();
        compared(policy, &mut names);
        names.into_iter().find(|name| !self.0.contains_key(name))
    }
}

/// A day in the one form that people do not mix up. The parser takes others too, and times.
fn date(text: &str) -> Option<Date> {
    let date: Date = text.parse().ok()?;
    (text.len() == 10 && date.to_string() == text).then_some(date)
}

/// The texts beside every `context.time.calendars`.
fn compared(expression: &Value, names: &mut BTreeSet<String>) {
    match expression {
        Value::Object(fields) => {
            let operands = [fields.get("left"), fields.get("right")];
            if operands.iter().flatten().any(|operand| attribute(operand).is_some_and(|name| name == ATTRIBUTE)) {
                operands.into_iter().flatten().for_each(|operand| texts(operand, names));
            }
            fields.values().for_each(|value| compared(value, names));
        }
        Value::Array(items) => items.iter().for_each(|item| compared(item, names)),
        _ => {}
    }
}

/// The literal texts of an expression.
fn texts(expression: &Value, names: &mut BTreeSet<String>) {
    match expression {
        Value::Object(fields) => {
            names.extend(fields.get("Value").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| texts(value, names));
        }
        Value::Array(items) => items.iter().for_each(|item| texts(item, names)),
        _ => {}
    }
}
