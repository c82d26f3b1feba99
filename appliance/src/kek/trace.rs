//! What the audit log is told of a re-wrapping: before its first row, and after its last. A run that was cut off has the first
//! leaf alone, and the next run begins with one of its own.

use std::collections::{BTreeMap, BTreeSet};

use casemate_attest::rewrap::MAX_NAMES;
use casemate_attest::{Entry, Origin, Rewrap, Rewrapped, Text};

use super::KekError;
use super::plan::NewEntries;
use super::rewrap::Report;
use crate::store::{Store, StoreError, Urgency};

/// The name under which the rest is counted, where rows name more KEKs than a leaf holds. Ours never do; forged entries may.
const OTHERS: &str = "others";

/// Proof that a run stands in the log, durable and anchored. Only [`Announced::before`] makes one, and no row is touched
/// without it.
pub(super) struct Announced {
    leaf: u64,
    origin: Option<Origin>,
}

impl Announced {
    /// Writes the leaf before the first row.
    ///
    /// # Errors
    /// Says that the log cannot be written; then nothing may be done.
    pub(super) async fn before(
        store: &Store,
        origin: Option<Origin>,
        to: &[String],
        rows: u64,
    ) -> Result<Self, StoreError> {
        let to: BTreeSet<Text> = to.iter().map(|name| Text::fitted(name)).collect();
        let entry = told(Rewrap::Begun { to: to.into_iter().collect(), rows }, origin.clone());
        let line = store.write(Urgency::Act, move |transaction| transaction.append(entry)).await?;
        Ok(Self { leaf: line.leaf().seq, origin })
    }

    /// Writes the leaf after the last row, or after the one at which `stopped` ended the run.
    ///
    /// # Errors
    /// Says that the log cannot be written. What was done stays done, and the log shows a run without an end.
    pub(super) async fn after(
        self,
        store: &Store,
        report: &Report,
        changes: &Changes,
        stopped: Option<&KekError>,
    ) -> Result<(), StoreError> {
        let Report { rows, current, renewed, gone, unopened, .. } = *report;
        let done = Rewrapped {
            rows,
            renewed,
            current,
            gone,
            unopened,
            removed: bounded(&changes.removed),
            added: bounded(&changes.added),
            stopped: stopped.map(|why| Text::fitted(&why.to_string())),
        };
        let entry = told(Rewrap::Ended { begun: self.leaf, done }, self.origin);
        store.write(Urgency::Record, move |transaction| transaction.append(entry)).await.map(|_| ())
    }
}

fn told(rewrap: Rewrap, origin: Option<Origin>) -> Entry {
    match origin {
        Some(origin) => Entry::rewrap(rewrap).asked_by(origin),
        None => Entry::rewrap(rewrap),
    }
}

/// How many rows lost, and got, an entry of each KEK or recovery HSM. Only rows that were written count.
#[derive(Default)]
pub(super) struct Changes {
    rows: u64,
    removed: BTreeMap<String, u64>,
    added: BTreeMap<String, u64>,
}

impl Changes {
    /// Rows that were written.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Counts one row.
    pub(super) fn add(&mut self, entries: &NewEntries) {
        self.rows = self.rows.saturating_add(1);
        entries.removed.iter().for_each(|name| count(&mut self.removed, name, 1));
        entries.added.iter().for_each(|name| count(&mut self.added, name, 1));
    }

    /// Counts all that another has counted.
    pub(super) fn extend(&mut self, other: &Self) {
        self.rows = self.rows.saturating_add(other.rows);
        other.removed.iter().for_each(|(name, rows)| count(&mut self.removed, name, *rows));
        other.added.iter().for_each(|(name, rows)| count(&mut self.added, name, *rows));
    }
}

/// A name that is new where there are as many as a leaf holds is counted with the others.
fn count(names: &mut BTreeMap<String, u64>, name: &str, rows: u64) {
    let full = names.len() >= MAX_NAMES.saturating_sub(1) && !names.contains_key(name);
    let count = names.entry(if full { OTHERS } else { name }.to_owned()).or_default();
    *count = count.saturating_add(rows);
}

/// As a leaf holds them; two foreign names that become one there are counted together.
fn bounded(names: &BTreeMap<String, u64>) -> BTreeMap<Text, u64> {
    let mut fitted: BTreeMap<Text, u64> = BTreeMap::new();
    for (name, rows) in names {
        let count = fitted.entry(Text::fitted(name)).or_default();
        *count = count.saturating_add(*rows);
    }
    fitted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entries(removed: &[String], added: &[&str]) -> NewEntries {
        let names = |names: Vec<String>| names.into_iter().collect();
        let added = added.iter().map(|name| (*name).to_owned()).collect();
        NewEntries { column: Vec::new(), removed: names(removed.to_vec()), added: names(added) }
    }

    #[test]
    fn rows_are_counted_by_what_they_lost_and_got() {
        let mut changes = Changes::default();
        changes.add(&entries(&["kek/1".into()], &["kek/2", "recovery/ab"]));
        let mut more = Changes::default();
        more.add(&entries(&["kek/1".into()], &["kek/2"]));
        changes.extend(&more);
        assert_eq!(changes.rows(), 2);
        assert_eq!(changes.removed, BTreeMap::from([("kek/1".into(), 2)]));
        assert_eq!(changes.added, BTreeMap::from([("kek/2".into(), 2), ("recovery/ab".into(), 1)]));
    }

    #[test]
    fn forged_names_cannot_make_a_leaf_too_large() {
        let mut changes = Changes::default();
        for forged in 0..10 * MAX_NAMES {
            changes.add(&entries(&[format!("{forged}{}", "\u{202e}".repeat(1000))], &["kek/2"]));
        }
        let removed = bounded(&changes.removed);
        assert!(removed.len() <= MAX_NAMES, "{}", removed.len());
        assert_eq!(removed.values().sum::<u64>(), 10 * MAX_NAMES as u64);
        let longest = removed.keys().map(|name| name.as_str().len()).max().unwrap();
        assert!(longest * MAX_NAMES * 2 < casemate_attest::line::MAX_LINE);
    }
}
