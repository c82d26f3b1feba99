//! What the exported audit logs of the main job must show.

use std::fs;
use std::path::{Path, PathBuf};

use casemate_attest::{Effect, Leaf, Phase, Report, Verdict, Verifier};
use casemate_wire::{Digest32, EcdsaSignature, PublicKey};

use super::ethereum::Transfer;
use super::{BROKEN_RULE, DemoError, wrong};
use crate::lab::Party;

/// Says what each log shows, once it is clear that it shows all that happened.
pub(super) fn check(
    logs: &[(&Party, PathBuf)],
    key: &PublicKey,
    (signed, signature): (&Transfer, &EcdsaSignature),
    (refused, signers): (&Transfer, &[&Party]),
) -> Result<Vec<String>, DemoError> {
    let doing = "checking the audit logs";
    let mut shown = Vec::new();
    let mut refusals = 0;
    for (party, path) in logs {
        let name = &party.party_id;
        let log = Log::verify(path).map_err(|why| wrong(doing, &why))?;
        let mut sees = vec!["the key"];
        if !log.shows_key(key) {
            return Err(wrong(doing, &format!("the log of {name} does not show that the key was made")));
        }
        if signers.iter().any(|signer| &signer.party_id == name) {
            sees.push("the signature");
            if !log.shows_signature(&signed.hash(), signature) {
                return Err(wrong(doing, &format!("the log of {name} does not show the signature")));
            }
        }
        if log.shows_intent(&refused.hash()) {
            return Err(wrong(doing, &format!("{name} set out to sign what its policy refuses")));
        }
        if log.shows_refusal(&refused.hash(), BROKEN_RULE) {
            sees.push("the refusal");
            refusals += 1;
        }
        let size = log.report.size;
        shown.push(format!("{name}: {size} leaves, chain valid, shows {}", sees.join(", ")));
    }
    if refusals == 0 {
        return Err(wrong(doing, "no log shows the refusal"));
    }
    Ok(shown)
}

/// A log whose every line was found good.
struct Log {
    report: Report,
    leaves: Vec<Leaf>,
}

impl Log {
    /// Verifies an exported log as somebody would who has only this file.
    fn verify(path: &Path) -> Result<Self, String> {
        let bytes = fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        Self::of(&bytes).map_err(|fault| format!("{} is not valid: {fault}", path.display()))
    }

    fn of(bytes: &[u8]) -> Result<Self, String> {
        let mut verifier = Verifier::new();
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let leaves: Result<Vec<Leaf>, _> = text.split(|byte| *byte == b'\n').map(|line| verifier.feed(line)).collect();
        let leaves = leaves.map_err(|fault| fault.to_string())?;
        let report = verifier.finish().map_err(|fault| fault.to_string())?;
        Ok(Self { report, leaves })
    }

    /// Whether this party made its share of the key, and recorded its intent before.
    fn shows_key(&self, key: &PublicKey) -> bool {
        self.completed(|outcome| outcome.key.as_ref() == Some(key))
    }

    /// Whether this party took part in this signature: allowed by policy, recorded before and after.
    fn shows_signature(&self, hash: &Digest32, signature: &EcdsaSignature) -> bool {
        self.completed(|outcome| outcome.outcome.as_ref().and_then(|o| o.signature.as_ref()) == Some(signature))
            && self.leaves.iter().any(|leaf| {
                let allowed = leaf.decision.as_ref().is_some_and(|decision| decision.effect == Effect::Allow);
                leaf.phase == Phase::Intent && allowed && is_about(leaf, hash)
            })
    }

    /// Whether this party refused to sign this hash because of one of its policies.
    fn shows_refusal(&self, hash: &Digest32, policy: &str) -> bool {
        self.leaves.iter().any(|leaf| {
            let denied = leaf.decision.as_ref().is_some_and(|decision| {
                decision.effect == Effect::Deny && decision.policies.iter().any(|id| id.as_str() == policy)
            });
            leaf.phase == Phase::Refusal && denied && is_about(leaf, hash)
        })
    }

    /// Whether this party ever set out to sign this hash.
    fn shows_intent(&self, hash: &Digest32) -> bool {
        self.leaves.iter().any(|leaf| leaf.phase == Phase::Intent && is_about(leaf, hash))
    }

    fn completed(&self, wanted: impl Fn(&Leaf) -> bool) -> bool {
        let completed = |leaf: &Leaf| leaf.outcome.as_ref().is_some_and(|o| o.result == Verdict::Completed);
        self.leaves.iter().any(|leaf| leaf.phase == Phase::Outcome && completed(leaf) && wanted(leaf))
    }
}

fn is_about(leaf: &Leaf, hash: &Digest32) -> bool {
    leaf.tx.as_ref().is_some_and(|tx| tx.digest == *hash)
}
