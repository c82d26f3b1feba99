//! Each log is the one that the others have seen.

use std::collections::BTreeMap;

use super::account::{Account, Seen};
use super::finding::{About, FindingKind};
use super::{Findings, Unwitnessed};
use crate::text::LogId;
use crate::tree::root_at;

pub(super) fn compare(accounts: &[Account], unwitnessed: Unwitnessed, findings: &mut Findings) {
    let mut logs: BTreeMap<&LogId, &Account> = BTreeMap::new();
    for account in accounts {
        if let Some(other) = logs.insert(&account.log, account) {
            let what = format!("the log {} was given twice, for {} and {}", account.log, other.party, account.party);
            findings.amiss(FindingKind::LogTwice, About::Party(&account.party), what);
        }
        if account.checkpoints == 0 {
            let what = format!(
                "the log of {} was compared with no signed checkpoint; its end may have been cut off, except as far as others saw it",
                account.party
            );
            let about = About::Party(&account.party);
            match unwitnessed {
                Unwitnessed::Amiss => findings.amiss(FindingKind::NoCheckpoint, about, what),
                Unwitnessed::Noted => findings.note(FindingKind::NoCheckpoint, about, what),
            }
        }
    }
    for witness in accounts {
        for seen in &witness.seen {
            check(witness, seen, accounts, &logs, findings);
        }
    }
}

fn check(
    witness: &Account,
    Seen { seq, checkpoint }: &Seen,
    accounts: &[Account],
    logs: &BTreeMap<&LogId, &Account>,
    findings: &mut Findings,
) {
    let party = &checkpoint.party;
    let about = About::Party(party);
    let by =
        format!("{} recorded in its leaf {seq} that the log of {party} had {} leaves", witness.party, checkpoint.size);
    let Some(log) = logs.get(&checkpoint.log) else {
        let has_others = accounts.iter().any(|account| account.party == *party);
        let what = format!("of {party} the log {} was seen, but no good one given", checkpoint.log);
        return if has_others {
            findings.amiss(
                FindingKind::LogMissing,
                about,
                format!("{what}; give it as well (another --party of the same name)"),
            );
        } else {
            findings.note(FindingKind::PartyMissing, about, what);
        };
    };
    if log.party != *party {
        let what = format!("{by}, but that log was given for {}", log.party);
        return findings.amiss(FindingKind::CheckpointDiffers, about, what);
    }
    if checkpoint.size > log.size {
        let what = format!(
            "{by}; the one given has {}: export it again, and if it is still shorter, its end was cut off",
            log.size
        );
        return findings.amiss(FindingKind::LogTooShort, about, what);
    }
    match root_at(checkpoint.size, &log.nodes) {
        Ok(root) if root == checkpoint.root => findings.checkpoints_found += 1,
        Ok(root) => {
            let what = format!(
                "{by} with the root {}; the one given has {root} there: it was rewritten or forked",
                checkpoint.root
            );
            findings.amiss(FindingKind::CheckpointDiffers, about, what);
        }
        Err(error) => findings.amiss(FindingKind::LogTooShort, about, format!("{by}; {error}")),
    }
}
