//! How many decisions a signature needs: the logs say it where the key was made, certificates say it, and the asker may.

use std::collections::BTreeMap;

use casemate_wire::{PublicKey, Threshold};

use super::finding::{About, FindingKind};
use super::{Findings, Given};

/// Each key's threshold. Where two differ the higher one counts, and the difference is amiss.
pub(super) fn collect(given: &Given, findings: &mut Findings) -> BTreeMap<PublicKey, Threshold> {
    let mut known = given.thresholds.clone();
    for account in &given.accounts {
        for (session, told) in &account.sessions {
            let Some((key, threshold)) = told.completed().and_then(|end| Some((end.key?, end.threshold?))) else {
                continue;
            };
            let before = *known.entry(key).or_insert(threshold);
            if before != threshold {
                let what = format!(
                    "{} says that the key {key} needs {threshold} parties, another log, its certificate or --threshold says {before}",
                    account.party
                );
                findings.amiss(FindingKind::ThresholdDiffers, About::Both(session, &account.party), what);
            }
            if threshold.t() > before.t() {
                known.insert(key, threshold);
            }
        }
    }
    known
}
