//! What can be amiss between the logs.

use casemate_wire::{PartyId, SessionId};
use serde::Serialize;

use super::Findings;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// The evidence does not fit together.
    Amiss,
    /// Good to know: something harmless, or something that could not be looked at.
    Note,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it weighs.
    pub weight: Weight,
    /// What kind, for scripts.
    pub kind: FindingKind,
    /// In words, with what to try where something helps.
    pub what: String,
    /// The session that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The party that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub party: Option<PartyId>,
}

/// Kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A signature with fewer allowed decisions than its key's threshold.
    TooFewDecisions,
    /// Nobody says how many decisions a key's signature needs.
    ThresholdUnknown,
    /// Two say different things about a key's threshold.
    ThresholdDiffers,
    /// Two rotations of one key led to the same epoch: its shares are of two kinds.
    EpochTwice,
    /// A signature outside the logs that no log tells of.
    SignatureUnknown,
    /// A signature in the logs that the list lacks.
    SignatureNotListed,
    /// A signature of the list does not verify.
    SignatureBad,
    /// Parties tell different stories of one session: another act, key, digest, result or signature.
    StoryDiffers,
    /// Parties name different participants of one session.
    ParticipantsDiffer,
    /// A party took part by others' word, and its log has no intent.
    IntentMissing,
    /// A party's intent has no outcome, where others' have.
    OutcomeMissing,
    /// A completed session that one log alone tells of.
    KnownToOne,
    /// A party recorded a checkpoint that is not on the log it speaks of: rewritten or forked.
    CheckpointDiffers,
    /// A party recorded a checkpoint beyond the end of the log it speaks of: cut off, or exported earlier.
    LogTooShort,
    /// A party recorded a checkpoint of a log that was not given.
    LogMissing,
    /// No log of a party that took part was given.
    PartyMissing,
    /// Two logs of one name were given, or one log for two parties.
    LogTwice,
    /// A log was compared with no checkpoint.
    NoCheckpoint,
    /// A session that was begun and not completed, known to one log.
    NotCompleted,
    /// Parties decided by different bundles.
    BundlesDiffer,
    /// A session is still open in all logs.
    StillOpen,
}

impl Findings {
    pub(super) fn amiss(&mut self, kind: FindingKind, about: About<'_>, what: String) {
        self.add(Weight::Amiss, kind, about, what);
    }

    pub(super) fn note(&mut self, kind: FindingKind, about: About<'_>, what: String) {
        self.add(Weight::Note, kind, about, what);
    }

    fn add(&mut self, weight: Weight, kind: FindingKind, about: About<'_>, what: String) {
        let (session, party) = match about {
            About::Nothing => (None, None),
            About::Session(session) => (Some(session.clone()), None),
            About::Party(party) => (None, Some(party.clone())),
            About::Both(session, party) => (Some(session.clone()), Some(party.clone())),
        };
        let finding = Finding { weight, kind, what, session, party };
        // One fact may come to light from several sides.
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

/// What a finding is about.
#[derive(Clone, Copy)]
pub(super) enum About<'a> {
    Nothing,
    Session(&'a SessionId),
    Party(&'a PartyId),
    Both(&'a SessionId, &'a PartyId),
}
