//! The life of a share, and of a KEK: which states there are, and which changes between them. What is not a variant here
//! cannot happen: log, store and verifier all use these types.
//!
//! ```text
//! Create ─► pending ─ Confirm ─► active ─ Supersede ─► rotated ─ Destroy ─► destroyed
//!              └─ Abandon ─► destroyed                    ▲
//! Restore ─► restored ───────── SupersedeRestored ────────┘
//! pending | active | rotated | restored ─ Revoke… ─► revoked
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a share stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareState {
    /// Made, and not known to be confirmed by all parties.
    Pending,
    /// The share of its key's newest certified epoch: it signs.
    Active,
    /// A share of a later epoch took its place; its body is kept until all parties have switched.
    Rotated,
    /// Brought back from a backup.
    Restored,
    /// Withdrawn by an operator; final. Its body and DEKs are gone, its metadata stays.
    Revoked,
    /// Its body and DEKs are gone because a later epoch took its place; final.
    Destroyed,
}

impl ShareState {
    /// Every one of them.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Active, Self::Rotated, Self::Restored, Self::Revoked, Self::Destroyed];

    /// The word that stands in leaves and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Rotated => "rotated",
            Self::Restored => "restored",
            Self::Revoked => "revoked",
            Self::Destroyed => "destroyed",
        }
    }

    /// Whether nothing follows it.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Revoked | Self::Destroyed)
    }
}

impl fmt::Display for ShareState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is no state of {of}")]
pub struct UnknownState {
    of: &'static str,
    word: String,
}

impl FromStr for ShareState {
    type Err = UnknownState;
    fn from_str(word: &str) -> Result<Self, UnknownState> {
        let unknown = || UnknownState { of: "a share", word: word.to_owned() };
        Self::ALL.into_iter().find(|state| state.as_str() == word).ok_or_else(unknown)
    }
}

/// A legal change of a share's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transition {
    /// A keygen or rotation made it.
    Create,
    /// It came from a backup.
    Restore,
    /// All parties confirmed it.
    Confirm,
    /// Its epoch was never confirmed, and a later or other one was certified.
    Abandon,
    /// A share of a later epoch became active.
    Supersede,
    /// The same, for one that came from a backup.
    SupersedeRestored,
    /// All parties have switched to a later epoch.
    Destroy,
    /// An operator withdrew it before it was confirmed.
    RevokePending,
    /// An operator withdrew it.
    Revoke,
    /// An operator withdrew it after a later epoch had taken its place.
    RevokeRotated,
    /// An operator withdrew it after it had come from a backup.
    RevokeRestored,
}

impl Transition {
    /// Every one of them.
    pub const ALL: [Self; 11] = [
        Self::Create,
        Self::Restore,
        Self::Confirm,
        Self::Abandon,
        Self::Supersede,
        Self::SupersedeRestored,
        Self::Destroy,
        Self::RevokePending,
        Self::Revoke,
        Self::RevokeRotated,
        Self::RevokeRestored,
    ];

    /// The state before; `None` where there was no share.
    pub fn from(self) -> Option<ShareState> {
        match self {
            Self::Create | Self::Restore => None,
            Self::Confirm | Self::Abandon | Self::RevokePending => Some(ShareState::Pending),
            Self::Supersede | Self::Revoke => Some(ShareState::Active),
            Self::SupersedeRestored | Self::RevokeRestored => Some(ShareState::Restored),
            Self::Destroy | Self::RevokeRotated => Some(ShareState::Rotated),
        }
    }

    /// The state after.
    pub fn to(self) -> ShareState {
        match self {
            Self::Create => ShareState::Pending,
            Self::Restore => ShareState::Restored,
            Self::Confirm => ShareState::Active,
            Self::Supersede | Self::SupersedeRestored => ShareState::Rotated,
            Self::Abandon | Self::Destroy => ShareState::Destroyed,
            Self::RevokePending | Self::Revoke | Self::RevokeRotated | Self::RevokeRestored => ShareState::Revoked,
        }
    }

    /// The change that leads from one state to another, if there is one.
    pub fn between(from: Option<ShareState>, to: ShareState) -> Option<Self> {
        Self::ALL.into_iter().find(|change| change.from() == from && change.to() == to)
    }
}

/// Where a KEK stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KekState {
    /// The HSM has made it; it wraps nothing yet.
    Made,
    /// What is sealed from now on is wrapped by it. One KEK at a time.
    Current,
    /// Another one is current; it still opens what was not re-wrapped.
    Retired,
    /// Gone from the HSM; final.
    Destroyed,
}

impl KekState {
    /// Every one of them.
    pub const ALL: [Self; 4] = [Self::Made, Self::Current, Self::Retired, Self::Destroyed];

    /// The word that stands in leaves and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Current => "current",
            Self::Retired => "retired",
            Self::Destroyed => "destroyed",
        }
    }

    /// Whether a KEK may pass from one state to the next. One that the log has not named before was made before it told of
    /// KEKs, and may be anything but destroyed already.
    pub fn follows(self, before: Option<Self>) -> bool {
        match before {
            None => self != Self::Destroyed,
            Some(Self::Made) => matches!(self, Self::Current | Self::Destroyed),
            Some(Self::Current) => self == Self::Retired,
            Some(Self::Retired) => self == Self::Destroyed,
            Some(Self::Destroyed) => false,
        }
    }
}

impl fmt::Display for KekState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KekState {
    type Err = UnknownState;
    fn from_str(word: &str) -> Result<Self, UnknownState> {
        let unknown = || UnknownState { of: "a KEK", word: word.to_owned() };
        Self::ALL.into_iter().find(|state| state.as_str() == word).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn states_are_their_words() {
        for state in ShareState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        for state in KekState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert!("Active".parse::<ShareState>().is_err());
        assert!("".parse::<KekState>().is_err());
    }

    #[test]
    fn each_change_is_found_by_its_ends_and_no_two_share_them() {
        for change in Transition::ALL {
            assert_eq!(Transition::between(change.from(), change.to()), Some(change));
        }
    }

    /// Written out, so that a new change must be put here too.
    #[test]
    fn these_changes_are_legal_and_no_others() {
        let legal = [
            ("", "pending"),
            ("", "restored"),
            ("pending", "active"),
            ("pending", "destroyed"),
            ("active", "rotated"),
            ("restored", "rotated"),
            ("rotated", "destroyed"),
            ("pending", "revoked"),
            ("active", "revoked"),
            ("rotated", "revoked"),
            ("restored", "revoked"),
        ];
        let from = ShareState::ALL.into_iter().map(Some).chain([None]);
        for from in from {
            for to in ShareState::ALL {
                let words = (from.map_or("", ShareState::as_str), to.as_str());
                assert_eq!(Transition::between(from, to).is_some(), legal.contains(&words), "{words:?}");
            }
        }
    }

    #[test]
    fn nothing_follows_a_final_state() {
        for from in ShareState::ALL {
            let leads_on = ShareState::ALL.into_iter().any(|to| Transition::between(Some(from), to).is_some());
            assert_eq!(leads_on, !from.is_final(), "{from}");
        }
        assert!(KekState::ALL.into_iter().all(|to| !to.follows(Some(KekState::Destroyed))));
    }
}
