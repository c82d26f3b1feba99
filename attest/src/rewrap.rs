//! What a leaf says of a re-wrapping: a run over all sealed rows that replaces their wrapped keys. No secret changes, and no row
//! becomes readable to whom policy's signers did not name; but each row goes from one KEK to another, and may come to open on a
//! recovery HSM. So a run is announced before its first row and summed up after its last.
//!
//! A run whose second leaf is missing was cut off; the rows that it had done by then are done. The next run begins anew, and
//! finds them as they are to be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::leaf::{Leaf, Op, Phase};
use crate::rules::{MAX_INTEGER, only};
use crate::text::{At, Text};

/// The most names that one leaf holds.
pub const MAX_NAMES: usize = 64;

/// One end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case", deny_unknown_fields)]
pub enum Rewrap {
    /// Before its first row.
    Begun {
        /// What every row's DEK is to be wrapped by from now on, and nothing else: `kek/<epoch> on <serial number
        /// of its token>`, `recovery/<fingerprint>`.
        to: Vec<Text>,
        /// How many rows there are.
        rows: u64,
    },
    /// After its last row.
    Ended {
        /// The place of the leaf that announced it.
        begun: u64,
        /// What was done.
        done: Rewrapped,
    },
}

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewrapped {
    /// Rows that it looked at.
    pub rows: u64,
    /// Rows that have new wrapped keys.
    pub renewed: u64,
    /// Rows that had the right ones.
    pub current: u64,
    /// Rows that were changed or used up meanwhile.
    pub gone: u64,
    /// Rows that none of their wrapped keys opens; they are as they were.
    pub unopened: u64,
    /// From where: KEK or recovery HSM, and how many of the renewed rows lost a wrapped key of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub removed: BTreeMap<Text, u64>,
    /// To where: KEK or recovery HSM, and how many of the renewed rows got a wrapped key of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub added: BTreeMap<Text, u64>,
    /// Why it stopped before its last row, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Text>,
}

/// A run whose end the log does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenRewrap {
    /// The place of the leaf that announced it.
    pub seq: u64,
    /// When that was written.
    pub at: At,
    /// How many rows there were.
    pub rows: u64,
}

/// What a leaf by itself must hold.
pub(crate) fn check(leaf: &Leaf) -> Result<(), String> {
    let place = (leaf.phase, leaf.op) == (Phase::Admin, Op::Rewrap);
    only(leaf.rewrap.is_some() == place, "a re-wrapping is told in its own admin leaf, and such a leaf tells of one")?;
    match &leaf.rewrap {
        None => Ok(()),
        Some(Rewrap::Begun { to, rows }) => {
            only(!to.is_empty() && to.len() <= MAX_NAMES, "a re-wrapping says to what, in at most 64 names")?;
            let distinct: BTreeSet<_> = to.iter().collect();
            only(distinct.len() == to.len(), "a re-wrapping names each KEK and recovery HSM once")?;
            only(*rows <= MAX_INTEGER, "a number is above 2^53 - 1")
        }
        Some(Rewrap::Ended { begun, done }) => ended(*begun, leaf.seq, done),
    }
}

fn ended(begun: u64, seq: u64, done: &Rewrapped) -> Result<(), String> {
    only(begun < seq, "a re-wrapping ends after it began")?;
    let Rewrapped { rows, renewed, current, gone, unopened, removed, added, stopped } = done;
    let counts = [rows, renewed, current, gone, unopened].into_iter().chain(removed.values()).chain(added.values());
    only(counts.into_iter().all(|number| *number <= MAX_INTEGER), "a number is above 2^53 - 1")?;
    only(removed.len().max(added.len()) <= MAX_NAMES, "a re-wrapping names at most 64 KEKs and recovery HSMs")?;
    // Each number is at most 2^53 - 1, so that nothing wraps.
    let accounted: u64 = [renewed, current, gone, unopened].into_iter().sum();
    let all = if stopped.is_some() { accounted <= *rows } else { accounted == *rows };
    only(all, "the rows of a re-wrapping add up")?;
    let unchanged = removed.is_empty() && added.is_empty();
    only(*renewed > 0 || unchanged, "what changed by a re-wrapping changed in its rows")
}

/// In plain words.
pub(crate) fn describe(rewrap: &Rewrap) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = match rewrap {
        Rewrap::Begun { to, rows } => {
            let to: Vec<_> = to.iter().map(Text::as_str).collect();
            write!(text, "begins: {rows} rows to {}", to.join(", "))
        }
        Rewrap::Ended { begun, done } => {
            let Rewrapped { rows, renewed, current, gone, unopened, removed, added, stopped } = done;
            let _ = write!(
                text,
                "ends (begun in leaf {begun}): of {rows} rows {renewed} renewed, {current} as they should be"
            );
            for (count, what) in [(gone, "used up meanwhile"), (unopened, "NOT opened")] {
                if *count > 0 {
                    let _ = write!(text, ", {count} {what}");
                }
            }
            for (names, from) in [(removed, "from"), (added, "to")] {
                for (name, count) in names {
                    let _ = write!(text, "; {from} {name} {count}");
                }
            }
            stopped.as_ref().map_or(Ok(()), |why| write!(text, "; STOPPED: {why}"))
        }
    };
    text
}
