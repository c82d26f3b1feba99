//! How a log stands against its anchor when the daemon starts: whether going on is safe, and if not, why.
//!
//! The anchor is the last `(log, size, root)` that the HSM was given, in the order: database, anchor, effect. So at a crash
//! the database may be ahead of it by what one commit group writes, and by nothing else. Pure: the appliance collects
//! the [`Facts`].

use casemate_wire::Digest32;
use serde::{Deserialize, Serialize};

use crate::leaf::Place;

/// How many leaves the database may be ahead of the anchor: the most that one commit group writes.
pub const WINDOW: u64 = 64;

/// What the HSM holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchored {
    /// No anchor.
    Nothing,
    /// This one.
    At(Place),
    /// What is there contradicts itself or cannot be read; in words.
    Unusable(String),
}

/// What the data folder holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No database, or one without any log.
    Nothing,
    /// A log whose lines do not verify; in words.
    Damaged(String),
    /// A log that verifies by itself.
    Log(Place),
}

/// All that the verdict rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What the HSM holds.
    pub anchored: Anchored,
    /// What the data folder holds.
    pub found: Found,
    /// The root of the found log at the anchored size, if it is that long.
    pub root_at_anchored: Option<Digest32>,
    /// How the tables differ from what the found log says of them; each in words.
    pub differences: Vec<String>,
}

/// Whether a log may be continued.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Standing {
    /// There is neither log nor anchor: nothing was ever begun here.
    New,
    /// The log ends where the anchor says.
    Equal,
    /// The log is ahead by a commit group whose anchor was not put: it is put now.
    CatchUp {
        /// How many leaves.
        leaves: u64,
    },
    /// It must not be continued.
    Refused(Finding),
}

/// Why a log must not be continued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// In one word.
    pub verdict: Refusal,
    /// What the HSM holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchored: Option<Place>,
    /// What the database holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Place>,
    /// What differs, in words: for [`Refusal::TablesDiffer`] each row, otherwise what was read. May be empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
}

/// Why a log must not be continued, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The database is behind the anchor: an older copy was put in its place.
    Rollback,
    /// At the anchored size the log has another root: it was rewritten, or goes on from an older copy.
    Fork,
    /// The database is further ahead of the anchor than any crash leaves it: the HSM's state is an older copy.
    AheadOfWindow,
    /// There is a log, and the HSM knows of none.
    DatabaseWithoutAnchor,
    /// The HSM knows of a log, and there is none.
    AnchorWithoutDatabase,
    /// The HSM knows of another log than the one that is there.
    OtherLog,
    /// The log is as anchored, but rows that it guards were changed beside it.
    TablesDiffer,
    /// The lines of the log do not verify.
    LogDamaged,
    /// The anchors in the HSM contradict each other or cannot be read.
    AnchorUnusable,
}

impl Refusal {
    /// Every one of them.
    pub const ALL: [Self; 9] = [
        Self::Rollback,
        Self::Fork,
        Self::AheadOfWindow,
        Self::DatabaseWithoutAnchor,
        Self::AnchorWithoutDatabase,
        Self::OtherLog,
        Self::TablesDiffer,
        Self::LogDamaged,
        Self::AnchorUnusable,
    ];

    /// The word, as scripts and metrics see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Fork => "fork",
            Self::AheadOfWindow => "ahead_of_window",
            Self::DatabaseWithoutAnchor => "database_without_anchor",
            Self::AnchorWithoutDatabase => "anchor_without_database",
            Self::OtherLog => "other_log",
            Self::TablesDiffer => "tables_differ",
            Self::LogDamaged => "log_damaged",
            Self::AnchorUnusable => "anchor_unusable",
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::Rollback => "the database is older than what the HSM has anchored",
            Self::Fork => "the log differs from what the HSM has anchored at the same size",
            Self::AheadOfWindow => {
                "the database is further ahead of the HSM's anchor than a crash leaves it: the HSM's state is older"
            }
            Self::DatabaseWithoutAnchor => "there is a log, but the HSM has anchored none",
            Self::AnchorWithoutDatabase => "the HSM has anchored a log, but the data folder holds none",
            Self::OtherLog => "the HSM has anchored another log than the one in the data folder",
            Self::TablesDiffer => "rows that the log guards were changed beside it",
            Self::LogDamaged => "the lines of the log do not verify",
            Self::AnchorUnusable => "the HSM's anchors contradict each other or cannot be read",
        }
    }
}

impl std::fmt::Display for Finding {
    /// One sentence with the verdict, both places and the first differences.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 3;
        let place = |place: &Option<Place>| match place {
            Some(Place { log, size, root }) => format!("{size} leaves of {log} with root {root}"),
            None => "nothing that can be used".into(),
        };
        let (verdict, meaning) = (self.verdict.as_str(), self.verdict.meaning());
        write!(f, "{verdict}: {meaning} (anchored: {}; found: {})", place(&self.anchored), place(&self.found))?;
        let shown: Vec<&str> = self.differences.iter().take(SHOWN).map(String::as_str).collect();
        match self.differences.len().saturating_sub(SHOWN) {
            _ if shown.is_empty() => Ok(()),
            0 => write!(f, ": {}", shown.join("; ")),
            more => write!(f, ": {}; and {more} more", shown.join("; ")),
        }
    }
}

/// Judges how a log stands against its anchor.
pub fn judge(facts: Facts) -> Standing {
    let Facts { anchored, found, root_at_anchored, differences } = facts;
    let refused =
        |verdict, anchored, found, differences| Standing::Refused(Finding { verdict, anchored, found, differences });
    let (place, damage) = match found {
        Found::Nothing => (None, None),
        Found::Damaged(what) => (None, Some(what)),
        Found::Log(place) => (Some(place), None),
    };
    let anchor = match anchored {
        Anchored::Unusable(what) => return refused(Refusal::AnchorUnusable, None, place, vec![what]),
        Anchored::At(anchor) => Some(anchor),
        Anchored::Nothing => None,
    };
    if let Some(what) = damage {
        return refused(Refusal::LogDamaged, anchor, None, vec![what]);
    }
    let (anchor, place) = match (anchor, place) {
        (None, None) => return Standing::New,
        (None, place) => return refused(Refusal::DatabaseWithoutAnchor, None, place, differences),
        (anchor, None) => return refused(Refusal::AnchorWithoutDatabase, anchor, None, differences),
        (Some(anchor), Some(place)) => (anchor, place),
    };
    let verdict = if place.log != anchor.log {
        Some(Refusal::OtherLog)
    } else if place.size < anchor.size {
        Some(Refusal::Rollback)
    } else if root_at_anchored != Some(anchor.root) {
        Some(Refusal::Fork)
    } else if place.size - anchor.size > WINDOW {
        Some(Refusal::AheadOfWindow)
    } else if differences.is_empty() {
        None
    } else {
        Some(Refusal::TablesDiffer)
    };
    match verdict {
        Some(verdict) => refused(verdict, Some(anchor), Some(place), differences),
        None if place.size == anchor.size => Standing::Equal,
        None => Standing::CatchUp { leaves: place.size - anchor.size },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn place(log: &str, size: u64, root: u8) -> Place {
        Place { log: log.parse().unwrap(), size, root: Digest32([root; 32]) }
    }

    /// A log of `size` leaves that has the root 7 at the anchored size.
    fn facts(anchored: Option<Place>, found: Option<Place>) -> Facts {
        Facts {
            anchored: anchored.map_or(Anchored::Nothing, Anchored::At),
            found: found.map_or(Found::Nothing, Found::Log),
            root_at_anchored: Some(Digest32([7; 32])),
            differences: Vec::new(),
        }
    }

    fn verdict(facts: Facts) -> Refusal {
        match judge(facts) {
            Standing::Refused(finding) => finding.verdict,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_end_of_the_log_and_the_anchor_agree_or_are_one_group_apart() {
        let anchor = || Some(place("a", 10, 7));
        assert_eq!(judge(facts(None, None)), Standing::New);
        assert_eq!(judge(facts(anchor(), Some(place("a", 10, 7)))), Standing::Equal);
        assert_eq!(judge(facts(anchor(), Some(place("a", 11, 8)))), Standing::CatchUp { leaves: 1 });
        assert_eq!(judge(facts(anchor(), Some(place("a", 74, 8)))), Standing::CatchUp { leaves: 64 });
        assert_eq!(verdict(facts(anchor(), Some(place("a", 75, 8)))), Refusal::AheadOfWindow);
    }

    #[test]
    fn every_other_standing_is_refused_by_its_name() {
        let (anchor, found) = (|| Some(place("a", 10, 7)), |size| Some(place("a", size, 8)));
        assert_eq!(verdict(facts(anchor(), found(9))), Refusal::Rollback);
        assert_eq!(verdict(facts(anchor(), None)), Refusal::AnchorWithoutDatabase);
        assert_eq!(verdict(facts(None, found(10))), Refusal::DatabaseWithoutAnchor);
        assert_eq!(verdict(facts(anchor(), Some(place("b", 10, 7)))), Refusal::OtherLog);
        for root_at_anchored in [None, Some(Digest32([8; 32]))] {
            for size in [10, 11, 500] {
                assert_eq!(verdict(Facts { root_at_anchored, ..facts(anchor(), found(size)) }), Refusal::Fork);
            }
        }
        let damaged = Facts { found: Found::Damaged("line 3".into()), ..facts(anchor(), None) };
        assert_eq!(verdict(damaged), Refusal::LogDamaged);
        let unusable = Facts { anchored: Anchored::Unusable("two".into()), ..facts(None, found(10)) };
        assert_eq!(verdict(unusable), Refusal::AnchorUnusable);
    }

    #[test]
    fn a_difference_in_the_tables_stops_a_log_that_is_otherwise_as_anchored() {
        for size in [10, 12] {
            let differences = vec!["a".into(), "b".into(), "c".into(), "d".into()];
            let standing = judge(Facts { differences, ..facts(Some(place("a", 10, 7)), Some(place("a", size, 7))) });
            let Standing::Refused(finding) = standing else { panic!("{standing:?}") };
            assert_eq!(finding.verdict, Refusal::TablesDiffer);
            let text = finding.to_string();
            assert!(text.starts_with("tables_differ: ") && text.ends_with(": a; b; c; and 1 more"), "{text}");
        }
    }

    #[test]
    fn verdicts_are_their_words_in_json() {
        for verdict in Refusal::ALL {
            assert_eq!(serde_json::to_value(verdict).unwrap(), verdict.as_str());
        }
    }
}
