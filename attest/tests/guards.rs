//! Spend, approvals and bundles change in the leaves where a reader looks for them, and nowhere else.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_wrap)]

mod common;

use casemate_attest::{Act, Approval, Entry, FaultKind, Guard, GuardChange, IntentRef, Op, Origin, Outcome, describe};
use casemate_wire::Digest32;
use common::{Log, allow, deny, fault, key, origin, rechained, sample, sign, signature, time, values, verify};
use serde_json::json;

fn change(guard: Guard, id: &str, to: &str) -> GuardChange {
    GuardChange { guard, id: id.parse().unwrap(), to: Some(to.parse().unwrap()) }
}

fn reserved(session: &str) -> GuardChange {
    change(Guard::Spend, session, "reserved 1.5 ETH")
}

fn released(session: &str) -> GuardChange {
    change(Guard::Spend, session, "released")
}

fn approval(name: &str, statement: u8) -> Approval {
    Approval { name: name.parse().unwrap(), org: "ops".parse().unwrap(), statement: Digest32([statement; 32]) }
}

fn used(statement: u8) -> GuardChange {
    change(Guard::Approval, &Digest32([statement; 32]).to_string(), "used")
}

fn refusal() -> Entry {
    Entry::refusal(Op::Sign, origin("s-9"), "policy_denied".parse().unwrap()).decided(deny())
}

fn failed() -> Outcome {
    Outcome::failed("timeout".parse().unwrap(), "a party was silent".parse().unwrap())
}

/// Why the writer refuses this entry after the sample log.
fn refused(entry: Entry) -> String {
    sample().head.append(entry, time(20)).unwrap_err().to_string()
}

fn intent(act: Act, guards: Vec<GuardChange>) -> Entry {
    Entry::intent(act, origin("s-9"), allow()).guarding(guards)
}

/// A log with one signing session that reserved, or did not, and its intent.
fn begun(guards: Vec<GuardChange>) -> (Log, IntentRef) {
    let mut log = sample();
    let intent = log.add(intent(sign(), guards)).unwrap();
    (log, intent)
}

#[test]
fn spend_is_reserved_by_a_signing_intent_and_released_by_its_failure() {
    let (mut log, intent) = begun(vec![reserved("s-9")]);
    log.add(Entry::outcome(intent, failed()).guarding(vec![released("s-9")]));
    verify(&log.texts()).unwrap();
    // What may have left stays counted.
    let (mut log, intent) = begun(vec![reserved("s-9")]);
    log.add(Entry::outcome(intent, failed()));
    verify(&log.texts()).unwrap();
}

#[test]
fn spend_changes_at_no_other_place() {
    for (case, entry) in [
        ("another session's", intent(sign(), vec![reserved("s-8")])),
        ("by a keygen", intent(Act::Keygen, vec![reserved("s-9")])),
        ("released before the act", intent(sign(), vec![released("s-9")])),
        ("by a refusal", refusal().guarding(vec![reserved("s-9")])),
        ("released by a refusal", refusal().guarding(vec![released("s-9")])),
        ("by an operator", Entry::admin(Op::Policy).guarding(vec![released("s-9")])),
        ("by a start", Entry::boot().guarding(vec![released("s-9")])),
    ] {
        assert!(refused(entry).contains("spend"), "{case}");
    }
    let ends: [(&str, Outcome, GuardChange); 3] = [
        ("a signature that exists", Outcome::signed(signature()), released("s-9")),
        ("another session's", failed(), released("s-8")),
        ("reserved at the end", failed(), reserved("s-9")),
    ];
    for (case, outcome, change) in ends {
        let (log, intent) = begun(vec![reserved("s-9")]);
        let entry = Entry::outcome(intent, outcome).guarding(vec![change]);
        assert!(log.head.append(entry, time(30)).unwrap_err().to_string().contains("spend"), "{case}");
    }
}

#[test]
fn a_release_of_what_was_not_reserved_is_found() {
    let (mut log, intent) = begun(Vec::new());
    log.add(Entry::outcome(intent, failed()).guarding(vec![released("s-9")]));
    assert_eq!(fault(&log.texts()), (FaultKind::ReleaseWithoutReservation, 13));
}

#[test]
fn approvals_of_a_signature_are_named_and_not_used_up() {
    let mut log = sample();
    let both = vec![approval("anna", 1), approval("bob", 2)];
    for session in ["s-8", "s-9"] {
        let intent = Entry::intent(sign(), origin(session), allow()).approved(both.clone());
        log.add(intent).unwrap();
    }
    log.add(refusal().approved(both.clone()));
    verify(&log.texts()).unwrap();
    let spoken = describe::describe(log.lines[12].leaf(), None);
    assert!(spoken.contains("approved by anna of ops  approved by bob of ops"), "{spoken}");
    assert!(refused(intent(sign(), vec![used(1)]).approved(both)).contains("anything but a signature"));
}

#[test]
fn approvals_of_a_new_key_are_used_up_all_of_them_and_once() {
    let keygen = |session: &str, approvals: Vec<Approval>, guards: Vec<GuardChange>| {
        Entry::intent(Act::Keygen, origin(session), allow()).approved(approvals).guarding(guards)
    };
    let mut log = sample();
    // Two people may sign one statement.
    let both = vec![approval("anna", 1), approval("bob", 1), approval("carol", 2)];
    log.add(keygen("s-8", both.clone(), vec![used(1), used(2)]));
    verify(&log.texts()).unwrap();
    log.add(keygen("s-9", vec![approval("dora", 2)], vec![used(2)]));
    assert_eq!(fault(&log.texts()), (FaultKind::ApprovalUsedTwice, 13));

    let twice = keygen("s-9", both.clone(), vec![used(1), used(2), used(2)]);
    let mut log = sample();
    log.add(twice);
    assert_eq!(fault(&log.texts()).0, FaultKind::ApprovalUsedTwice);

    assert!(
        refused(keygen("s-9", both.clone(), vec![used(1)])).contains("is used up"),
        "one was left for another time"
    );
    assert!(refused(keygen("s-9", both.clone(), Vec::new())).contains("is used up"));
    assert!(refused(keygen("s-9", Vec::new(), vec![used(1)])).contains("where it was counted"));
    let freed = GuardChange { to: None, ..used(1) };
    assert!(refused(keygen("s-9", both.clone(), vec![freed, used(2)])).contains("never taken away"));
    assert!(refused(refusal().approved(both.clone()).guarding(vec![used(1)])).contains("intent of anything"));
    assert!(refused(Entry::admin(Op::Policy).guarding(vec![used(1)])).contains("intent of anything"));
    let keys = vec![approval("anna", 1), approval("anna", 2)];
    assert!(refused(keygen("s-9", keys, vec![used(1), used(2)])).contains("a person approves once"));
    for entry in [Entry::admin(Op::Policy).approved(both.clone()), Entry::boot().approved(both)] {
        assert!(refused(entry).contains("fields of an act"));
    }
}

#[test]
fn a_bundle_changes_in_its_own_leaf_alone() {
    let loaded = || vec![change(Guard::Bundle, "starter", "version 4 b0b0")];
    let mut log = sample();
    log.add(Entry::admin(Op::Policy).guarding(loaded()));
    verify(&log.texts()).unwrap();
    for entry in [
        intent(sign(), loaded()),
        refusal().guarding(loaded()),
        Entry::admin(Op::Stop).guarding(loaded()),
        Entry::boot().guarding(loaded()),
    ] {
        assert!(refused(entry).contains("bundle"));
    }
}

#[test]
fn an_operators_reload_is_recorded_with_who_asked_and_its_end() {
    let asked = || Origin { session: None, ..origin("r-1") };
    let why = common::reason("its version is not above 4");
    let not_taken = || Entry::policy_refused("bundle_refused".parse().unwrap());
    let mut log = sample();
    log.add(Entry::admin(Op::Policy).asked_by(asked()).guarding(vec![change(Guard::Bundle, "starter", "version 4")]));
    log.add(not_taken().disclosing(why.clone()).asked_by(asked()));
    log.add(not_taken());
    verify(&log.texts()).unwrap();
    let spoken = describe::describe(log.lines[13].leaf(), Some(&why.detail));
    for words in ["policy", "by coordinator-1", "refused: bundle_refused", "because its version is not above 4"] {
        assert!(spoken.contains(words), "{spoken}");
    }
    assert!(refused(Entry::admin(Op::Policy).asked_by(origin("s-9"))).contains("no session"));
    let changed = not_taken().guarding(vec![change(Guard::Bundle, "starter", "version 5")]);
    assert!(refused(changed).contains("changes nothing"));

    let nobody = |field: &str| {
        let mut leaves = values(&log);
        leaves[12].as_object_mut().unwrap().remove(field).unwrap();
        fault(&rechained(&leaves, 12))
    };
    assert_eq!((nobody("req"), nobody("actor")), ((FaultKind::Shape, 12), (FaultKind::Shape, 12)));
    let mut leaves = values(&log);
    leaves[14]["op"] = json!("stop");
    assert_eq!(fault(&rechained(&leaves, 14)), (FaultKind::Shape, 14));
    let mut leaves = values(&log);
    leaves[14]["outcome"]["result"] = json!("completed");
    assert_eq!(fault(&rechained(&leaves, 14)), (FaultKind::Shape, 14));
    let mut leaves = values(&log);
    leaves[14]["key"] = json!(key());
    assert_eq!(fault(&rechained(&leaves, 14)), (FaultKind::Shape, 14));
}
