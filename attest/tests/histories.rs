//! What the guards said before binds what follows: leaves that are good by themselves, in a chain that is good, and yet tell
//! what cannot have happened. So whoever adds leaves to the end of a log can say little.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_wrap)]

mod common;

use casemate_attest::state::Snapshot;
use casemate_attest::{
    Act, Approval, Entry, FaultKind, Guard, GuardChange, IntentRef, Op, Origin, Outcome, Place, Recovery, State,
    Verifier,
};
use casemate_wire::Digest32;
use common::{Log, allow, change, fault, key, origin, sample, sign, signature, threshold, time, verify};

fn token(id: &str) -> GuardChange {
    change(Guard::Token, id, "used")
}

fn session(id: &str, to: &str) -> GuardChange {
    change(Guard::Session, id, to)
}

fn failed() -> Outcome {
    Outcome::failed("timeout".parse().unwrap(), "a party was silent".parse().unwrap())
}

fn intent(id: &str, guards: Vec<GuardChange>) -> Entry {
    Entry::intent(sign(), origin(id), allow()).guarding(guards)
}

fn refusal(id: &str, guards: Vec<GuardChange>) -> Entry {
    Entry::refusal(Op::Sign, origin(id), "policy_denied".parse().unwrap()).guarding(guards)
}

fn refused(entry: Entry) -> String {
    sample().head.append(entry, time(20)).unwrap_err().to_string()
}

fn begun(id: &str) -> (Log, IntentRef) {
    let mut log = sample();
    let intent = log.add(intent(id, vec![token("t-1"), session(id, "accepted")])).unwrap();
    (log, intent)
}

/// The fault of the last line.
fn last_fault(log: &Log) -> String {
    assert_eq!(fault(&log.texts()), (FaultKind::Guard, log.lines.len() - 1));
    verify(&log.texts()).unwrap_err().what
}

#[test]
fn a_token_is_used_once_by_an_intent_or_a_refusal() {
    let (mut log, _) = begun("s-9");
    log.add(refusal("s-10", vec![token("t-2"), session("s-10", "failed")]));
    verify(&log.texts()).unwrap();
    for again in [intent("s-11", vec![token("t-1")]), refusal("s-11", vec![token("t-1")])] {
        let (mut log, _) = begun("s-9");
        log.add(again);
        assert!(last_fault(&log).contains("the token t-1 was used before"));
    }
}

#[test]
fn a_tokens_name_may_come_again_once_the_store_may_have_forgotten_it() {
    let (mut log, _) = begun("s-9");
    let later = |hours: i64| time(12 + hours * 3600);
    let made = log.head.append(intent("s-10", vec![token("t-1")]), later(22)).unwrap();
    let mut texts = log.texts();
    texts.push(made.line.as_str().to_owned());
    assert_eq!(fault(&texts).0, FaultKind::Guard);
    let made = log.head.append(intent("s-10", vec![token("t-1")]), later(25)).unwrap();
    log.lines.push(made.line);
    verify(&log.texts()).unwrap();
}

#[test]
fn tokens_are_used_nowhere_else() {
    let (log, intent_ref) = begun("s-9");
    let outcome = Entry::outcome(intent_ref, failed()).guarding(vec![token("t-2")]);
    assert!(log.head.append(outcome, time(30)).unwrap_err().to_string().contains("token"));
    let nameless = Origin { session: None, ..origin("x") };
    for entry in [
        Entry::admin(Op::Share).guarding(vec![token("t-2")]),
        Entry::boot().guarding(vec![token("t-2")]),
        Entry::refusal(Op::Sign, nameless, "policy_denied".parse().unwrap()).guarding(vec![token("t-2")]),
        intent("s-9", vec![token("t-2"), token("t-3")]),
        intent("s-9", vec![change(Guard::Token, "t-2", "unused")]),
    ] {
        assert!(refused(entry).contains("token"));
    }
}

#[test]
fn a_session_changes_in_its_own_leaves_as_they_say() {
    for (case, entry) in [
        ("another's intent", intent("s-9", vec![session("s-8", "accepted")])),
        ("ended by an intent", intent("s-9", vec![session("s-9", "completed")])),
        ("accepted by a refusal", refusal("s-9", vec![session("s-9", "accepted")])),
        ("another's refusal", refusal("s-9", vec![session("s-8", "failed")])),
        ("by a boot", Entry::boot().guarding(vec![session("s-5", "failed")])),
        ("by an operator", Entry::admin(Op::Share).guarding(vec![session("s-5", "failed")])),
    ] {
        assert!(refused(entry).contains("session"), "{case}");
    }
    for (outcome, to) in [
        (failed(), "completed"),
        (failed(), "accepted"),
        (Outcome::signed(signature()), "failed"),
        (Outcome::signed(signature()), "expired"),
    ] {
        let (log, intent) = begun("s-9");
        let entry = Entry::outcome(intent, outcome).guarding(vec![session("s-9", to)]);
        assert!(log.head.append(entry, time(30)).unwrap_err().to_string().contains("session"), "{to}");
    }
    for (outcome, to) in [(failed(), "failed"), (failed(), "expired"), (Outcome::signed(signature()), "completed")] {
        let (mut log, intent) = begun("s-9");
        log.add(Entry::outcome(intent, outcome).guarding(vec![session("s-9", to)]));
        verify(&log.texts()).unwrap();
    }
}

#[test]
fn a_session_that_ended_does_not_open_or_end_again() {
    let (mut log, intent) = begun("s-9");
    log.add(Entry::outcome(intent, failed()).guarding(vec![session("s-9", "failed")]));
    log.add(refusal("s-9", vec![token("t-2"), session("s-9", "failed")]));
    assert!(last_fault(&log).contains("the session s-9 goes from failed to failed"));
    // Nor is one settled by a refusal while it runs.
    let (mut log, _) = begun("s-9");
    log.add(refusal("s-9", vec![token("t-2"), session("s-9", "failed")]));
    let place = log.lines.len();
    let intent = log.lines[place - 2].intent().unwrap();
    log.add(Entry::outcome(intent, Outcome::signed(signature())).guarding(vec![session("s-9", "completed")]));
    assert!(last_fault(&log).contains("goes from failed to completed"));
}

#[test]
fn auxiliary_info_changes_where_a_key_was_made() {
    let aux = || change(Guard::AuxInfo, "roster", "aux-1");
    let keygen = |outcome: fn(IntentRef) -> Entry| {
        let mut log = sample();
        let intent = log.intend(Act::Keygen, "s-9");
        log.head.append(outcome(intent).guarding(vec![aux()]), time(30)).map(|_| ())
    };
    keygen(|intent| Entry::key_made(intent, key(), threshold())).unwrap();
    assert!(keygen(|intent| Entry::outcome(intent, failed())).is_err());
    for entry in [
        Entry::admin(Op::Share).guarding(vec![aux()]),
        intent("s-9", vec![aux()]),
        Entry::intent(Act::Keygen, origin("s-9"), allow()).guarding(vec![aux()]),
    ] {
        assert!(refused(entry).contains("auxiliary"));
    }
}

#[test]
fn a_bundles_version_only_rises() {
    let load = |log: &mut Log, name: &str, to: &str| {
        log.add(Entry::admin(Op::Policy).guarding(vec![change(Guard::Bundle, name, to)]));
    };
    for (name, to) in
        [("lab", "version 4 aa"), ("lab", "version 5 bb"), ("other", "version 5 aa"), ("other", "version 1 cc")]
    {
        let mut log = sample();
        load(&mut log, "lab", "version 5 aa");
        // Each start loads it again.
        load(&mut log, "lab", "version 5 aa");
        if (name, to) == ("other", "version 5 aa") {
            // The same version of the same bytes: a log that replaced another knows no name.
            load(&mut log, name, to);
            verify(&log.texts()).unwrap();
            continue;
        }
        load(&mut log, name, to);
        assert!(last_fault(&log).contains("its version must rise"), "{name} {to}");
    }
    assert!(refused(Entry::admin(Op::Policy).guarding(vec![change(Guard::Bundle, "lab", "5")])).contains("version"));
}

#[test]
fn primes_are_taken_once_and_only_where_they_lay_ready() {
    let primes = |log: &mut Log, to: &str| {
        log.add(Entry::admin(Op::Primes).guarding(vec![change(Guard::Primes, "pair-1", to)]));
    };
    let mut log = sample();
    primes(&mut log, "taken");
    assert!(last_fault(&log).contains("do not lie ready"));
    let mut log = sample();
    for to in ["stored", "taken"] {
        primes(&mut log, to);
    }
    verify(&log.texts()).unwrap();
    primes(&mut log, "taken");
    assert!(last_fault(&log).contains("do not lie ready"));
    let mut log = sample();
    for to in ["stored", "stored"] {
        primes(&mut log, to);
    }
    assert!(last_fault(&log).contains("were before"));
}

/// What was taken over is known to whoever has its snapshot; whoever has not can still read the log.
#[test]
fn a_log_that_replaces_another_is_judged_by_the_guards_that_it_took_over() {
    let mut state = State::default();
    state.shares.insert("share-1".parse().unwrap(), "revoked".parse().unwrap());
    let at = casemate_attest::At::new(time(0)).unwrap();
    let snapshot = Snapshot::before_first("casemate/party-1/new".parse().unwrap(), state.clone(), at);
    let text = snapshot.to_text().unwrap();
    let recovery = Recovery {
        verdict: "rollback".parse().unwrap(),
        anchored: None,
        found: Some(Place { log: "old".parse().unwrap(), size: 1, root: Digest32([1; 32]) }),
        statement: Digest32([5; 32]),
    };
    let signer =
        Approval { name: "ann".parse().unwrap(), org: "security".parse().unwrap(), statement: Digest32([5; 32]) };
    let genesis = Entry::genesis().recovering(recovery, vec![signer]).guarding(vec![Snapshot::guard(&text)]);
    let made = casemate_attest::Head::genesis("casemate/party-1/new".parse().unwrap(), genesis, time(0)).unwrap();
    let mut log = Log { lines: vec![made.line], head: made.head };
    log.add(Entry::admin(Op::Share).guarding(vec![change(Guard::Share, "share-1", "active")]));
    verify(&log.texts()).unwrap();
    let with = common::verify_with(Verifier::new().resting_on(state), &log.texts()).unwrap_err();
    assert_eq!((with.kind, with.seq), (FaultKind::Guard, 1));
    assert!(with.what.contains("goes from revoked to active"), "{}", with.what);
    // What it changes itself is known to all.
    log.add(Entry::admin(Op::Share).guarding(vec![change(Guard::Share, "share-1", "pending")]));
    assert!(last_fault(&log).contains("goes from active to pending"));
}
