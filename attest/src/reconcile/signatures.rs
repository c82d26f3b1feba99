//! Signatures: in the logs with the decisions behind them, and outside.

use std::collections::{BTreeMap, BTreeSet};

use casemate_wire::{EcdsaSignature, Threshold};

use super::finding::{About, FindingKind};
use super::stories::Session;
use super::thresholds::Thresholds;
use super::{Allowed, Findings, Justified, Released};

/// Finds the decisions behind every signature that a log holds.
pub(super) fn justify<'a>(
    sessions: impl Iterator<Item = &'a Session<'a>>,
    thresholds: &Thresholds,
    findings: &mut Findings,
) {
    for session in sessions {
        let mut made: Vec<EcdsaSignature> = Vec::new();
        for (account, end) in session.completed() {
            let Some(signature) = end.signature.filter(|signature| !made.contains(signature)) else { continue };
            made.push(signature);
            let own = session.intents().find(|(other, _)| other.log == account.log);
            let asked = own.and_then(|(_, intent)| Some((intent, intent.key?, intent.tx.as_ref()?)));
            let Some((intent, key, tx)) = asked else {
                let what =
                    format!("the intent of the signature stands before the lines of {} that were given", account.party);
                findings.note(FindingKind::IntentMissing, About::Both(session.id, &account.party), what);
                continue;
            };
            let needed = thresholds.when(account, key, intent).map(Threshold::t);
            let justified = Justified {
                session: session.id.clone(),
                key,
                signer: tx.child.unwrap_or(key),
                message_hash: tx.digest,
                signature,
                needed,
                decisions: decisions(session, &|other| other.key == Some(key) && other.tx.as_ref() == Some(tx)),
            };
            judge(&justified, findings);
            findings.signatures.push(justified);
        }
    }
}

/// One decision a party, however many logs it has.
fn decisions(session: &Session<'_>, same: &dyn Fn(&super::account::Intent) -> bool) -> Vec<Allowed> {
    let mut parties = BTreeSet::new();
    let allowed = session.intents().filter(|(account, intent)| same(intent) && parties.insert(&account.party));
    allowed
        .map(|(account, intent)| Allowed {
            party: account.party.clone(),
            log: account.log.clone(),
            seq: intent.seq,
            policies: intent.policies.clone(),
            bundle: intent.bundle,
        })
        .collect()
}

fn judge(justified: &Justified, findings: &mut Findings) {
    let about = About::Session(&justified.session);
    let found = justified.decisions.len();
    match justified.needed {
        None => {
            let what = format!(
                "nobody says how many parties the key {} needs: give the log that tells of its keygen, its certificate, or --threshold",
                justified.key
            );
            findings.amiss(FindingKind::ThresholdUnknown, about, what);
        }
        Some(needed) if found < usize::from(needed) => {
            let who: Vec<&str> = justified.decisions.iter().map(|allowed| allowed.party.as_str()).collect();
            let what = format!(
                "the signature over {} has {found} allowed decisions ({}), but its key needs {needed}; a log is missing, or a party signed without deciding",
                justified.message_hash,
                who.join(", ")
            );
            findings.amiss(FindingKind::TooFewDecisions, about, what);
        }
        Some(_) => {}
    }
}

/// Compares the signatures in the logs with those outside.
pub(super) fn compare(released: Option<&[Released]>, findings: &mut Findings) {
    let Some(released) = released else { return };
    let mut in_logs: BTreeMap<([u8; 32], [u8; 32]), Vec<Justified>> = BTreeMap::new();
    for justified in &findings.signatures {
        let EcdsaSignature { r, s, .. } = justified.signature;
        in_logs.entry((r, s)).or_default().push(justified.clone());
    }
    let mut listed = BTreeSet::new();
    for one in released {
        let name = format!("the signature over {} by {}", one.message_hash, one.public_key);
        if !one.signature.verifies(&one.public_key, &one.message_hash) {
            findings.amiss(
                FindingKind::SignatureBad,
                About::Nothing,
                format!("{name} does not verify, so it signs nothing"),
            );
            continue;
        }
        let EcdsaSignature { r, s, .. } = one.signature;
        let told = in_logs.get(&(r, s)).into_iter().flatten();
        let same = told.filter(|told| told.signer == one.public_key && told.message_hash == one.message_hash).count();
        if same == 0 {
            let what =
                format!("{name} verifies, and no log tells of it: somebody has shares or logs that are not shown");
            findings.amiss(FindingKind::SignatureUnknown, About::Nothing, what);
        }
        listed.insert((r, s));
    }
    let missing = in_logs.iter().filter(|(signature, _)| !listed.contains(*signature)).flat_map(|(_, told)| told);
    for told in missing {
        let what = format!("the signature over {} was made, and the list lacks it", told.message_hash);
        findings.amiss(FindingKind::SignatureNotListed, About::Session(&told.session), what);
    }
}
