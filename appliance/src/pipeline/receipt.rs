//! The receipt of a refusal by policy: its text becomes durable with its leaf, its signature as soon as the HSM gives it.
//!
//! Only what policy decided has a receipt: such a request came with a good join token, so that no flood of bad ones
//! reaches the HSM. A refusal never waits for more than one call to the HSM and is answered in any case; if no signature
//! came, the answer says so, and repeating the call signs the same text.

use casemate_attest::{Disclosure, Line, Receipt, SignedReceipt};
use casemate_hsm::KeyPurpose;
use casemate_wire::{PartyId, Problem, SessionId};
use serde::Deserialize;
use serde_json::json;

use crate::daemon::Node;
use crate::store::{SessionRow, StoreError, Urgency};

/// The problem's member that holds the signed receipt.
const SIGNED: &str = "receipt";
/// The one that holds its text until then.
const UNSIGNED: &str = "unsigned_receipt";
const NOT_YET: &str = "the HSM has not signed it, so it proves nothing; repeat the call to have it signed";

/// Adds the receipt's text to the problem, for the transaction that makes its leaf durable. A refusal by anything else
/// than policy stays as it is.
pub(super) fn promise(
    problem: Problem,
    party: &PartyId,
    line: &Line,
    disclosure: &Disclosure,
) -> Result<Problem, StoreError> {
    let Some(receipt) = Receipt::of(party, line) else { return Ok(problem) };
    let text = receipt.to_text().map_err(|e| StoreError::Audit(e.to_string()))?;
    Ok(problem.with(UNSIGNED, json!({"receipt": text, "disclosure": disclosure, "why": NOT_YET})))
}

/// Has a promised receipt signed, and kept for the next time that the call comes; `settled` is the session whose stored
/// problem this is. Without a promise, or without the HSM, the problem stays as it is.
pub(super) async fn fulfil(node: &Node, settled: Option<&SessionId>, problem: Problem) -> Problem {
    let Some((text, disclosure)) = promised(&problem) else { return problem };
    let signature = match node.hsm.sign(KeyPurpose::Audit, text.as_bytes()).await {
        Ok(signature) => signature,
        Err(error) => {
            tracing::warn!(event = "receipt_not_signed", %error, "the refusal is answered without");
            return problem;
        }
    };
    let signed = sign(problem.clone(), &SignedReceipt { receipt: text, signature, disclosure });
    let Some(session) = settled.cloned() else { return signed };
    let (from, to) = (problem, signed.clone());
    let kept = node
        .store
        .write(Urgency::Record, move |transaction| SessionRow::replace_error(transaction, &session, &from, &to))
        .await;
    match kept {
        // An equal call may have been faster; then its signature is the one that everybody gets.
        Ok(stands) => stands.unwrap_or(signed),
        Err(error) => {
            tracing::warn!(event = "receipt_not_kept", %error, "a repeated call gets another signature");
            signed
        }
    }
}

fn promised(problem: &Problem) -> Option<(String, Option<Disclosure>)> {
    let unsigned = problem.more.get(UNSIGNED)?;
    let disclosure = unsigned.get("disclosure").and_then(|found| Disclosure::deserialize(found).ok());
    Some((unsigned.get("receipt")?.as_str()?.to_owned(), disclosure))
}

fn sign(mut problem: Problem, signed: &SignedReceipt) -> Problem {
    problem.more.remove(UNSIGNED);
    problem.with(SIGNED, json!(signed))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use casemate_attest::{Decision, Detail, Effect, Entry, Head, Op, Origin};
    use casemate_wire::Code;
    use jiff::Timestamp;

    use super::*;

    fn line(decision: Option<Decision>) -> Line {
        let head = Head::genesis("log".parse().unwrap(), Entry::genesis(), Timestamp::now()).unwrap().head;
        let origin = Origin { req: "r".parse().unwrap(), actor: "a".parse().unwrap(), session: None };
        let entry = Entry::refusal(Op::Sign, origin, "policy_denied".parse().unwrap()).disclosing(no());
        let entry = match decision {
            Some(decision) => entry.decided(decision),
            None => entry,
        };
        head.append(entry, Timestamp::now()).unwrap().line
    }

    fn no() -> Disclosure {
        Disclosure { salt: [7; 32], detail: Detail { decoded: None, reason: Some("no".into()) } }
    }

    #[test]
    fn a_promise_becomes_a_signed_receipt_over_the_same_text() {
        let denied = line(Some(Decision { effect: Effect::Deny, policies: Vec::new(), bundle: None }));
        let problem = Problem::new(Code::PolicyDenied, "no");
        let promised_one = promise(problem.clone(), &"party-1".parse().unwrap(), &denied, &no()).unwrap();
        assert_eq!(promised_one.more[UNSIGNED]["why"], NOT_YET);
        assert!(promised_one.more.get(SIGNED).is_none());
        let (text, disclosure) = promised(&promised_one).unwrap();
        assert_eq!(disclosure, Some(no()));
        assert!(text.contains(&denied.hash().to_string()));
        let signed =
            sign(promised_one, &SignedReceipt { receipt: text.clone(), signature: [7; 64], disclosure: Some(no()) });
        assert!(signed.more.get(UNSIGNED).is_none() && promised(&signed).is_none());
        let receipt: SignedReceipt = serde_json::from_value(signed.more[SIGNED].clone()).unwrap();
        assert_eq!(receipt, SignedReceipt { receipt: text, signature: [7; 64], disclosure: Some(no()) });
    }

    #[test]
    fn a_refusal_that_policy_did_not_decide_promises_nothing() {
        let problem = Problem::new(Code::InvalidJoinToken, "no");
        assert_eq!(promise(problem.clone(), &"party-1".parse().unwrap(), &line(None), &no()).unwrap(), problem);
        assert_eq!(promised(&problem), None);
    }
}
