//! Who lets an appliance go on in a new audit log, by signatures of the real `ssh-keygen`.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use casemate_policy::signers::{Endorsed, GivenSignature, NotEndorsed, Principal};
use casemate_policy::{AllowedSigners, TrustAnchors};
use casemate_wire::Digest32;
use common::noon;
use common::ssh::{APPROVAL, Key, POLICY};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

const RECOVERY: &str = "casemate-recovery";
const STATEMENT: &[u8] = b"{\"domain\":\"casemate/audit-recovery/v1\"}\n";

struct People {
    anna: Key,
    bert: Key,
    carl: Key,
    /// May sign recoveries, but no bundles.
    dora: Key,
    /// May sign bundles and nothing else.
    emil: Key,
    /// Stands in no file.
    fred: Key,
    /// Another key of Anna's.
    spare: Key,
}

impl People {
    fn new() -> Self {
        let key = || Key::new("ed25519");
        Self { anna: key(), bert: key(), carl: key(), dora: key(), emil: key(), fred: key(), spare: key() }
    }

    fn anchors(&self) -> TrustAnchors {
        let lines = [
            self.anna.line("anna@acme"),
            self.spare.line("anna@acme"),
            self.bert.line(r#"bert@globex namespaces="casemate-policy,casemate-recovery""#),
            self.carl.line(r#"carl@acme valid-before="20250101Z""#),
            self.dora.line(r#"dora@acme namespaces="casemate-recovery""#),
            self.emil.line(r#"emil@acme namespaces="casemate-policy""#),
        ];
        TrustAnchors::new(AllowedSigners::parse(&lines.concat()).unwrap(), "2 of 4".parse().unwrap()).unwrap()
    }

    fn endorse(&self, signatures: &[String]) -> Result<Endorsed, NotEndorsed> {
        self.endorse_at(signatures, noon())
    }

    fn endorse_at(&self, signatures: &[String], now: Timestamp) -> Result<Endorsed, NotEndorsed> {
        let given = signatures.iter().enumerate().map(|(number, armored)| GivenSignature {
            name: format!("sig-{number}"),
            armored: armored.clone().into_bytes(),
        });
        self.anchors().endorse_recovery(STATEMENT, &given.collect::<Vec<_>>(), now)
    }
}

fn sign(key: &Key) -> String {
    key.sign(RECOVERY, STATEMENT)
}

#[test]
fn the_quorum_of_the_policy_endorses_a_recovery() {
    let people = People::new();
    let endorsed = people.endorse(&[sign(&people.anna), sign(&people.bert)]).unwrap();
    let names: Vec<&str> = endorsed.signers().iter().map(Principal::as_str).collect();
    assert_eq!(names, ["anna@acme", "bert@globex"]);
    assert_eq!(endorsed.statement(), Digest32(Sha256::digest(STATEMENT).into()));
}

#[test]
fn signatures_that_do_not_count_are_named_and_too_few_endorse_nothing() {
    let people = People::new();
    let anna = || sign(&people.anna);
    let cases = [
        (String::new(), "not a signature"),
        (sign(&people.fred), "nobody's"),
        (sign(&people.dora), "may not sign policy bundles"),
        (sign(&people.emil), "not allowed for `casemate-recovery`"),
        (sign(&people.carl), "was valid until"),
        (people.bert.sign(POLICY, STATEMENT), "namespace \"casemate-policy\""),
        (people.bert.sign(APPROVAL, STATEMENT), "namespace \"casemate-approval\""),
        (people.bert.sign(RECOVERY, b"another statement"), "does not fit"),
    ];
    for (signature, why) in cases {
        let refused = people.endorse(&[anna(), signature]).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.starts_with("1 of 2 needed people have signed the recovery statement (anna@acme); sig-1: "),
            "{text}"
        );
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn a_person_counts_once_whatever_keys_they_have() {
    let people = People::new();
    let twice = [sign(&people.anna), sign(&people.anna), sign(&people.spare)];
    assert_eq!(people.endorse(&twice).unwrap_err().signed.len(), 1);
    assert!(people.endorse(&[]).is_err());
    // What does not count does no harm beside enough that do.
    people.endorse(&[sign(&people.fred), sign(&people.spare), sign(&people.bert)]).unwrap();
}

#[test]
fn a_key_must_be_valid_when_the_statement_is_used() {
    let people = People::new();
    let signatures = [sign(&people.anna), sign(&people.carl)];
    people.endorse_at(&signatures, "2024-12-31T00:00:00Z".parse().unwrap()).unwrap();
    assert!(people.endorse(&signatures).is_err());
}

#[test]
fn a_recovery_endorsement_signs_no_policy() {
    use casemate_policy::signers::{Namespace, SignatureError, verify};
    let people = People::new();
    let (anchors, signature) = (people.anchors(), sign(&people.anna));
    let refused = verify(signature.as_bytes(), STATEMENT, Namespace::Policy, anchors.signers(), noon());
    assert!(matches!(refused, Err(SignatureError::Namespace { .. })), "{refused:?}");
}
