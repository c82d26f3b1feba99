//! How many decisions a signature needs: the logs say it where the key was made or rotated, certificates say it, and the
//! asker may.

use std::collections::BTreeMap;

use casemate_wire::{PublicKey, SessionId, Threshold};

use super::account::{Account, End, Intent};
use super::finding::{About, FindingKind};
use super::{Findings, Given};
use crate::text::{At, LogId};

/// What is known of all keys' thresholds.
pub(super) struct Thresholds {
    /// By keygens, certificates and the asker. Where two differ the higher one counts, and the difference is amiss.
    first: BTreeMap<PublicKey, Threshold>,
    rotations: BTreeMap<PublicKey, Vec<Rotation>>,
}

/// A rotation as one log tells it.
struct Rotation {
    log: LogId,
    seq: u64,
    at: At,
    epoch: u64,
    threshold: Threshold,
}

impl Thresholds {
    /// What a key needed when a log began to sign with it: by that log itself, if it tells of rotations, and else by when
    /// others rotated the key.
    pub(super) fn when(&self, account: &Account, key: PublicKey, intent: &Intent) -> Option<Threshold> {
        let all = self.rotations.get(&key).map_or(&[][..], Vec::as_slice);
        let own = || all.iter().filter(|rotation| rotation.log == account.log);
        let newest = if own().next().is_some() {
            own().filter(|rotation| rotation.seq < intent.seq).max_by_key(|rotation| rotation.epoch)
        } else {
            all.iter().filter(|rotation| rotation.at <= intent.at).max_by_key(|rotation| rotation.epoch)
        };
        newest.map(|rotation| rotation.threshold).or_else(|| self.first.get(&key).copied())
    }
}

/// Collects what all say, and finds where they differ.
pub(super) fn collect(given: &Given, findings: &mut Findings) -> Thresholds {
    let rotations = rotations(given, findings);
    let mut first = given.thresholds.clone();
    for (account, session, end) in completed(given).filter(|(_, _, end)| end.epoch.is_none()) {
        let Some((key, threshold)) = end.key.zip(end.threshold) else { continue };
        let before = *first.entry(key).or_insert(threshold);
        // A certificate, or the asker, may speak of a later epoch.
        let later = rotations.get(&key).is_some_and(|all| all.iter().any(|rotation| rotation.threshold == before));
        if later && given.thresholds.get(&key) == Some(&before) {
            first.insert(key, threshold);
            continue;
        }
        if before != threshold {
            let what = format!(
                "{} says that the key {key} needs {threshold} parties, another log, its certificate or --threshold says {before}",
                account.party
            );
            findings.amiss(FindingKind::ThresholdDiffers, About::Both(session, &account.party), what);
        }
        if threshold.t() > before.t() {
            first.insert(key, threshold);
        }
    }
    Thresholds { first, rotations }
}

fn completed(given: &Given) -> impl Iterator<Item = (&Account, &SessionId, &End)> {
    given.accounts.iter().flat_map(|account| {
        account.sessions.iter().filter_map(move |(session, told)| Some((account, session, told.completed()?)))
    })
}

fn rotations(given: &Given, findings: &mut Findings) -> BTreeMap<PublicKey, Vec<Rotation>> {
    let mut rotations: BTreeMap<PublicKey, Vec<Rotation>> = BTreeMap::new();
    let mut sessions: BTreeMap<(PublicKey, u64), &SessionId> = BTreeMap::new();
    for (account, session, end) in completed(given) {
        let (Some(key), Some(threshold), Some(epoch)) = (end.key, end.threshold, end.epoch) else { continue };
        let before = *sessions.entry((key, epoch)).or_insert(session);
        if before != session {
            let what = format!(
                "{} rotated the key {key} to epoch {epoch} in this session, and a party did so in {before}: their shares do not fit together",
                account.party
            );
            findings.amiss(FindingKind::EpochTwice, About::Both(session, &account.party), what);
        }
        let rotation = Rotation { log: account.log.clone(), seq: end.seq, at: end.at, epoch, threshold };
        rotations.entry(key).or_default().push(rotation);
    }
    rotations
}
