//! What the exported audit logs of the main job must show.

use std::fs;
use std::path::{Path, PathBuf};

use casemate_attest::{Effect, Leaf, Op, Phase, Report, Verdict, Verifier};
use casemate_wire::{Digest32, EcdsaSignature, PublicKey};

use super::ethereum::Transfer;
use super::{BROKEN_RULE, DemoError, wrong};
use crate::lab::Party;

/// What the main job did with one transaction.
#[derive(Clone, Copy)]
pub(super) struct Deed<'a> {
    pub(super) transfer: &'a Transfer,
    pub(super) signature: &'a EcdsaSignature,
}

/// Everything that the logs must show.
#[derive(Clone, Copy)]
pub(super) struct Story<'a> {
    pub(super) key: &'a PublicKey,
    pub(super) signers: &'a [&'a Party],
    /// Signed at once.
    pub(super) small: Deed<'a>,
    /// Refused first, then signed because these people approved it.
    pub(super) large: Deed<'a>,
    pub(super) approvers: &'a [&'a str],
}

/// Says what each log shows, once it is clear that it shows all that happened.
pub(super) fn check(logs: &[(&Party, PathBuf)], story: Story<'_>) -> Result<Vec<String>, DemoError> {
    let doing = "checking the audit logs";
    let Story { key, signers, small, large, approvers } = story;
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
            sees.push("both signatures");
            for deed in [small, large] {
                if !log.shows_signature(key, &deed.transfer.hash(), deed.signature) {
                    return Err(wrong(doing, &format!("the log of {name} does not show a signature")));
                }
            }
        }
        if log.acted_without(&large.transfer.hash(), approvers) {
            return Err(wrong(
                doing,
                &format!("{name} set out to sign without approvals what its policy then refuses"),
            ));
        }
        if log.shows_refusal(key, &large.transfer.hash()) {
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
        self.completed(|outcome| outcome.op == Op::Keygen && outcome.key.as_ref() == Some(key))
    }

    /// Whether this party took part in this signature: allowed by policy, recorded before and after.
    fn shows_signature(&self, key: &PublicKey, hash: &Digest32, signature: &EcdsaSignature) -> bool {
        let allowed = |leaf: &Leaf| leaf.decision.as_ref().is_some_and(|decision| decision.effect == Effect::Allow);
        let intended =
            |leaf: &Leaf| leaf.phase == Phase::Intent && leaf.key.as_ref() == Some(key) && is_about(leaf, hash);
        self.leaves.iter().any(|leaf| intended(leaf) && allowed(leaf))
            && self.completed(|outcome| outcome.outcome.as_ref().and_then(|o| o.signature.as_ref()) == Some(signature))
    }

    /// Whether this party refused to sign this hash with this key, because of the rule that it breaks.
    fn shows_refusal(&self, key: &PublicKey, hash: &Digest32) -> bool {
        self.leaves.iter().any(|leaf| {
            let denied = leaf.decision.as_ref().is_some_and(|decision| {
                decision.effect == Effect::Deny && decision.policies.iter().any(|id| id.as_str() == BROKEN_RULE)
            });
            leaf.phase == Phase::Refusal && denied && leaf.key.as_ref() == Some(key) && is_about(leaf, hash)
        })
    }

    /// Whether this party ever set out to sign this hash although one of these people had not approved it.
    fn acted_without(&self, hash: &Digest32, approvers: &[&str]) -> bool {
        let approved =
            |leaf: &Leaf, person: &&str| leaf.approvals.iter().any(|approval| approval.name.as_str() == *person);
        let mut intents = self.leaves.iter().filter(|leaf| leaf.phase == Phase::Intent && is_about(leaf, hash));
        intents.any(|leaf| !approvers.iter().all(|person| approved(leaf, person)))
    }

    fn completed(&self, wanted: impl Fn(&Leaf) -> bool) -> bool {
        let completed = |leaf: &Leaf| leaf.outcome.as_ref().is_some_and(|o| o.result == Verdict::Completed);
        self.leaves.iter().any(|leaf| leaf.phase == Phase::Outcome && completed(leaf) && wanted(leaf))
    }
}

fn is_about(leaf: &Leaf, hash: &Digest32) -> bool {
    leaf.tx.as_ref().is_some_and(|tx| tx.digest == *hash)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use casemate_attest::entry::Act;
    use casemate_attest::{Appended, Decision, Entry, Head, Line, Origin, Outcome, Text, Tx};
    use jiff::Timestamp;

    const SIGNATURE: EcdsaSignature = EcdsaSignature { r: [1; 32], s: [2; 32], v: 0 };
    const ASKED: Digest32 = Digest32([7; 32]);
    const DENIED: Digest32 = Digest32([8; 32]);

    fn key() -> PublicKey {
        "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().unwrap()
    }

    fn other_key() -> PublicKey {
        "0379be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().unwrap()
    }

    fn decision(effect: Effect, policy: &str) -> Decision {
        Decision { effect, policies: vec![Text::fitted(policy)], bundle: Some(Digest32([9; 32])) }
    }

    fn origin(session: &str) -> Origin {
        Origin {
            req: Text::fitted(session),
            actor: Text::fitted("coordinator"),
            session: Some(session.parse().unwrap()),
        }
    }

    /// The lines of a party that has signed once and refused once.
    fn lines() -> Vec<u8> {
        let now = Timestamp::from_second(1_780_000_000).unwrap();
        let Appended { line: genesis, head, .. } =
            Head::genesis("casemate/party-1".parse().unwrap(), Entry::genesis(), now).unwrap();
        let act = Act::Sign { key: key(), tx: Tx::of(ASKED) };
        let intent = Entry::intent(act, origin("session-1"), decision(Effect::Allow, "sign-transfers"));
        let Appended { line: intent, head, .. } = head.append(intent, now).unwrap();
        let outcome = Entry::outcome(intent.intent().unwrap(), Outcome::signed(SIGNATURE));
        let Appended { line: outcome, head, .. } = head.append(outcome, now).unwrap();
        let refusal = Entry::refusal(Op::Sign, origin("session-2"), Text::fitted("policy_denied"))
            .about(Some(key()), Some(Tx::of(DENIED)))
            .decided(decision(Effect::Deny, BROKEN_RULE));
        let refusal = head.append(refusal, now).unwrap().line;
        let bytes = |line: Line| format!("{}\n", line.as_str()).into_bytes();
        [genesis, intent, outcome, refusal].map(bytes).concat()
    }

    #[test]
    fn a_log_shows_what_it_holds_and_nothing_else() {
        let log = Log::of(&lines()).unwrap();
        assert_eq!(log.report.size, 4);
        assert!(log.shows_signature(&key(), &ASKED, &SIGNATURE));
        assert!(!log.shows_signature(&other_key(), &ASKED, &SIGNATURE));
        assert!(!log.shows_signature(&key(), &DENIED, &SIGNATURE));
        assert!(!log.shows_signature(&key(), &ASKED, &EcdsaSignature { v: 1, ..SIGNATURE }));
        assert!(log.shows_refusal(&key(), &DENIED));
        assert!(!log.shows_refusal(&key(), &ASKED) && !log.shows_refusal(&other_key(), &DENIED));
        assert!(log.acted_without(&ASKED, &["approver-1@treasury"]) && !log.acted_without(&ASKED, &[]));
        assert!(!log.acted_without(&DENIED, &["approver-1@treasury"]));
        assert!(!log.shows_key(&key()));
    }

    #[test]
    fn a_log_in_which_one_byte_was_changed_is_refused() {
        let text = String::from_utf8(lines()).unwrap();
        let altered = text.replace("sign-transfers", "sign-transferz");
        assert!(Log::of(altered.as_bytes()).is_err());
        assert!(Log::of(b"").is_err());
    }
}
