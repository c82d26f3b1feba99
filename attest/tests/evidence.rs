//! Details that are withheld, guards by the log alone, and several checkpoints of one log.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::cast_possible_wrap)]

mod common;

use std::collections::BTreeMap;

use casemate_attest::state::accept_peer;
use casemate_attest::verify::{Auditor, NoChildKeys};
use casemate_attest::{
    Act, Appended, Approval, Checkpoint, Detail, Disclosure, Entry, FaultKind, Guard, GuardChange, Head, Op, Origin,
    Outcome, PeerCheckpoint, Place, Snapshot, State, Text, Tx, Verifier,
};
use casemate_wire::{Digest32, PublicKey};
use common::{Log, decoded, origin, reason, sample, sign, time, verify, verify_with};
use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::{Value, json};

fn text(text: &str) -> Text {
    text.parse().unwrap()
}

fn change(guard: Guard, id: &str, to: Option<&str>) -> GuardChange {
    GuardChange { guard, id: text(id), to: to.map(text) }
}

/// What the log says once these changes stood in an admin leaf each.
fn state(changes: Vec<(Op, GuardChange)>) -> State {
    let mut log = Log::begin("casemate/party-1/state");
    for (op, change) in changes {
        log.add(Entry::admin(op).guarding(vec![change]));
    }
    state_of(&log)
}

fn state_of(log: &Log) -> State {
    let mut verifier = Verifier::new();
    for line in &log.lines {
        verifier.feed(line.as_str().as_bytes()).unwrap();
    }
    verifier.state().clone()
}

#[test]
fn a_detail_is_bound_by_its_salt_and_every_field() {
    let Disclosure { salt, detail } = decoded();
    let bound = decoded().commitment().unwrap();
    assert_eq!(decoded().commitment().unwrap(), bound);
    let mut other_salt = salt;
    other_salt[31] ^= 1;
    let mut other = detail.clone();
    other.decoded.as_mut().unwrap()["value"] = "1000000000000000001".into();
    let more = Detail { reason: Some("so it was".into()), ..detail.clone() };
    let none = Detail::default();
    for changed in [
        Disclosure { salt: other_salt, detail },
        Disclosure { salt, detail: other },
        Disclosure { salt, detail: more },
        Disclosure { salt, detail: none },
    ] {
        assert_ne!(changed.commitment().unwrap(), bound, "{changed:?}");
    }
}

/// The commitment by hand, as FORMATS and an export's README say it.
#[test]
fn a_commitment_is_what_the_written_rule_says() {
    let made = reason("no").commitment().unwrap();
    let mut bytes = b"casemate/audit-detail/v1\0".to_vec();
    bytes.extend([0x5b; 32]);
    bytes.extend(br#"{"reason":"no"}"#);
    let by_hand: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(&bytes).into();
    assert_eq!(made, Digest32(by_hand));
}

#[test]
fn a_redacted_log_verifies_and_holds_no_word_of_what_was_withheld() {
    let log = sample();
    let report = verify(&log.texts()).unwrap();
    assert_eq!(report.root, log.head.root());
    for words in ["over the limit", "1000000000000000000"] {
        assert!(!log.texts().concat().contains(words), "{words}");
    }
}

/// Feeds the sample with the details that `of` gives; the kind of the first fault, or (disclosed, withheld).
fn audited(of: impl Fn(u64) -> Option<Disclosure>) -> Result<(u64, u64), FaultKind> {
    let mut log = Log::begin("casemate/party-1/details");
    log.intend(sign(), "s-1");
    let refusal = Entry::refusal(Op::Sign, origin("s-2"), text("policy_denied"));
    log.add(refusal.disclosing(reason("over the limit")));
    let mut auditor = Auditor::new(Verifier::new(), NoChildKeys);
    for (seq, line) in (0..).zip(&log.lines) {
        auditor.feed(line.as_str().as_bytes(), of(seq).as_ref()).map_err(|fault| fault.kind)?;
    }
    let details = auditor.finish().map_err(|fault| fault.kind)?.details;
    Ok((details.disclosed, details.withheld))
}

#[test]
fn details_are_counted_where_they_fit_and_found_where_they_do_not() {
    let all: BTreeMap<u64, Disclosure> = [(1, decoded()), (2, reason("over the limit"))].into();
    assert_eq!(audited(|seq| all.get(&seq).cloned()), Ok((2, 0)));
    assert_eq!(audited(|seq| all.get(&seq).filter(|_| seq == 2).cloned()), Ok((1, 1)));
    assert_eq!(audited(|_| None), Ok((0, 2)));
    assert_eq!(audited(|seq| (seq == 2).then(|| reason("within the limit"))), Err(FaultKind::Detail));
    assert_eq!(audited(|seq| (seq == 0).then(decoded)), Err(FaultKind::Detail));
    let salted = |seq| (seq == 1).then(|| Disclosure { salt: [0; 32], ..decoded() });
    assert_eq!(audited(salted), Err(FaultKind::Detail));
    let inexact = Disclosure { detail: Detail { decoded: Some(json!({"n": 0.5})), reason: None }, ..decoded() };
    assert_eq!(audited(|seq| (seq == 1).then(|| inexact.clone())), Err(FaultKind::Detail));
}

#[test]
fn a_detail_stands_only_where_something_may_be_withheld() {
    let head = sample().head;
    assert!(head.append(Entry::boot().disclosing(decoded()), time(30)).is_err());
    assert!(head.append(Entry::admin(Op::Stop).disclosing(decoded()), time(30)).is_err());
    let loaded = Entry::admin(Op::Policy).disclosing(decoded());
    assert!(head.append(loaded, time(30)).is_err());
}

#[test]
fn shares_committees_and_primes_are_what_their_last_leaf_says() {
    let found = state(vec![
        (Op::Share, change(Guard::Share, "share-1", Some("pending"))),
        (Op::Share, change(Guard::Share, "share-1", Some("active"))),
        (Op::Primes, change(Guard::Primes, "pair-1", Some("stored"))),
        (Op::Primes, change(Guard::Primes, "pair-2", Some("stored"))),
        (Op::Primes, change(Guard::Primes, "pair-1", Some("taken"))),
    ]);
    assert_eq!(found.shares, BTreeMap::from([(text("share-1"), text("active"))]));
    let mut log = Log::begin("casemate/party-1/state");
    let keygen = log.intend(Act::Keygen, "s-1");
    let made = Entry::key_made(keygen, common::key(), common::threshold());
    log.add(made.guarding(vec![change(Guard::AuxInfo, "committee", Some("aux-1"))]));
    assert_eq!(state_of(&log).aux_info, BTreeMap::from([(text("committee"), text("aux-1"))]));
    assert_eq!(found.primes.iter().map(Text::as_str).collect::<Vec<_>>(), ["pair-2"]);
}

#[test]
fn what_guards_is_never_taken_away() {
    for (op, guard) in [(Op::Share, Guard::Share), (Op::Share, Guard::Token), (Op::Share, Guard::Session)] {
        let entry = Entry::admin(op).guarding(vec![change(guard, "row", None)]);
        let refused = common::sample().head.append(entry, common::time(20)).unwrap_err().to_string();
        assert!(refused.contains("never taken away"), "{guard:?}: {refused}");
    }
}

#[test]
fn only_the_newest_bundle_counts() {
    let found = state(vec![
        (Op::Policy, change(Guard::Bundle, "lab", Some("version 1 aa"))),
        (Op::Policy, change(Guard::Bundle, "lab", Some("version 2 bb"))),
        (Op::Policy, change(Guard::Bundle, "other", Some("version 3 cc"))),
    ]);
    assert_eq!(found.bundle, BTreeMap::from([(text("other"), text("version 3 cc"))]));
}

#[test]
fn tokens_sessions_spend_and_approvals_are_kept_with_the_time_of_their_leaf() {
    let mut log = Log::begin("casemate/party-1/acts");
    let guards = vec![
        change(Guard::Token, "t-1", Some("used")),
        change(Guard::Session, "s-1", Some("accepted")),
        change(Guard::Spend, "s-1", Some("reserved x")),
    ];
    let intent = log.add(Entry::intent(sign(), origin("s-1"), common::allow()).guarding(guards)).unwrap();
    let begun = log.lines[1].leaf().at;
    let found = state_of(&log);
    assert_eq!(found.tokens, BTreeMap::from([(text("t-1"), begun)]));
    assert_eq!(found.sessions[&text("s-1")].state, text("accepted"));
    assert_eq!(found.spend[&text("s-1")].state, text("reserved x"));

    let failed = Outcome::failed(text("timeout"), text("a party was silent"));
    let released = vec![change(Guard::Session, "s-1", Some("failed")), change(Guard::Spend, "s-1", Some("released"))];
    log.add(Entry::outcome(intent, failed).guarding(released));
    let found = state_of(&log);
    assert_eq!(found.sessions[&text("s-1")].at, log.lines[2].leaf().at);
    assert_eq!(found.spend[&text("s-1")].state, text("released"));
    assert_eq!(found.spend[&text("s-1")].at, begun, "the row keeps the time of its reservation");

    let statement = Digest32([5; 32]);
    let approval = Approval { name: text("ann"), org: text("ops"), statement };
    let used = change(Guard::Approval, &statement.to_string(), Some("used"));
    let keygen = Entry::intent(Act::Keygen, origin("s-2"), common::allow());
    log.add(keygen.approved(vec![approval]).guarding(vec![used]));
    assert_eq!(state_of(&log).approvals[&text(&statement.to_string())], log.lines[3].leaf().at);
}

fn place(log: &str, size: u64, root: u8) -> Place {
    Place { log: log.parse().unwrap(), size, root: Digest32([root; 32]) }
}

fn witnessed(log: &mut Log, session: &str, Place { log: name, size, root }: Place) {
    let intent = log.intend(sign(), session);
    let seen = PeerCheckpoint { party: "party-2".parse().unwrap(), log: name, size, root, attested: None };
    log.add(Entry::outcome(intent, Outcome::signed(common::signature())).witnessing(vec![seen]));
}

#[test]
fn a_peers_place_only_moves_forward_until_an_operator_accepts_another() {
    let (mut log, party) = (Log::begin("casemate/party-1/peers"), "party-2".parse().unwrap());
    witnessed(&mut log, "s-1", place("old", 10, 1));
    witnessed(&mut log, "s-2", place("old", 8, 2));
    assert_eq!(state_of(&log).peers[&party], place("old", 10, 1));
    let operator = Origin { req: text("r"), actor: text("ann"), session: None };
    let accept = |log: &mut Log, place: Place| {
        let entry = Entry::admin(Op::Peer).asked_by(operator.clone()).guarding(vec![accept_peer(&party, &place)]);
        log.add(entry);
    };
    accept(&mut log, place("new", 3, 3));
    assert_eq!(state_of(&log).peers[&party], place("new", 3, 3));
    // A session that had begun before ends after: the acceptance stands.
    witnessed(&mut log, "s-3", place("old", 12, 4));
    assert_eq!(state_of(&log).peers[&party], place("new", 3, 3));
    witnessed(&mut log, "s-4", place("new", 4, 5));
    assert_eq!(state_of(&log).peers[&party], place("new", 4, 5));
    let nobody = Entry::admin(Op::Peer).guarding(vec![accept_peer(&party, &place("x", 1, 1))]);
    assert!(log.head.append(nobody, time(90)).is_err());
    let shapeless = change(Guard::Peer, "party-2", Some("4 xyz new"));
    assert!(log.head.append(Entry::admin(Op::Peer).asked_by(operator).guarding(vec![shapeless]), time(90)).is_err());
}

#[test]
fn what_the_store_may_forget_is_forgotten_and_an_open_session_never() {
    let mut log = Log::begin("casemate/party-1/old");
    let guards = vec![
        change(Guard::Token, "t-1", Some("used")),
        change(Guard::Session, "s-1", Some("accepted")),
        change(Guard::Spend, "s-1", Some("reserved x")),
    ];
    log.add(Entry::intent(sign(), origin("s-1"), common::allow()).guarding(guards));
    let at = log.lines[1].leaf().at;
    let after = |hours: i64| {
        let mut state = state_of(&log);
        let later = at.timestamp() + SignedDuration::from_hours(hours);
        state.forget(casemate_attest::At::new(later).unwrap());
        (state.tokens.len(), state.spend.len(), state.sessions.len())
    };
    assert_eq!(after(22), (1, 1, 1));
    assert_eq!(after(24), (0, 1, 1));
    assert_eq!(after(91 * 24), (0, 0, 1));
}

#[test]
fn a_session_that_a_refusal_settled_takes_no_intent() {
    let mut log = Log::begin("casemate/party-1/settled");
    let settled = vec![change(Guard::Session, "s-1", Some("failed"))];
    log.add(Entry::refusal(Op::Sign, origin("s-1"), text("policy_denied")).guarding(settled));
    // One that settles nothing does not stand in the way: somebody else may have asked in that session's name.
    log.add(Entry::refusal(Op::Sign, origin("s-2"), text("token_invalid")));
    log.intend(sign(), "s-2");
    verify(&log.texts()).unwrap();
    log.intend(sign(), "s-1");
    assert_eq!(common::fault(&log.texts()), (FaultKind::SecondIntent, 4));
}

#[test]
fn every_checkpoint_that_is_known_is_compared() {
    let log = sample();
    let all = [1, 4, 9, 12];
    let known = |sizes: &[usize]| {
        let checkpoints = sizes.iter().map(|size| log.checkpoint(*size));
        checkpoints.fold(Verifier::new(), |verifier, checkpoint| verifier.against(checkpoint).unwrap())
    };
    let report = verify_with(known(&all), &log.texts()).unwrap();
    assert_eq!((report.checkpoints, report.checkpointed, report.checkpoints_before), (4, 12, 0));
    assert_eq!(verify_with(known(&[4, 4]), &log.texts()).unwrap().checkpoints, 1);
    for size in all {
        let mut wrong = log.checkpoint(size);
        wrong.root.0[0] ^= 1;
        let verifier = known(&[2, 11]).against(wrong).unwrap();
        let fault = verify_with(verifier, &log.texts()).unwrap_err();
        assert_eq!((fault.kind, fault.line), (FaultKind::Head, size as u64));
        let other = Checkpoint { log: "casemate/other".parse().unwrap(), ..log.checkpoint(size) };
        let verifier = Verifier::new().against(other).unwrap();
        assert_eq!(verify_with(verifier, &log.texts()).unwrap_err().kind, FaultKind::Head);
    }
    let beyond = Checkpoint { size: 13, ..log.checkpoint(12) };
    let fault = verify_with(known(&all).against(beyond).unwrap(), &log.texts()).unwrap_err();
    assert!(fault.what.contains("cut off"), "{fault}");
}

#[test]
fn two_checkpoints_of_one_size_that_differ_are_a_fork() {
    let log = sample();
    let mut other = log.checkpoint(5);
    other.root.0[0] ^= 1;
    let fault = Verifier::new().against(log.checkpoint(5)).unwrap().against(other).unwrap_err();
    assert!(fault.what.contains("forked"), "{fault}");
    let empty = Checkpoint { size: 0, root: casemate_attest::tree::empty_root(), ..log.checkpoint(1) };
    assert!(Verifier::new().against(empty.clone()).is_ok());
    assert!(Verifier::new().against(Checkpoint { root: Digest32([1; 32]), ..empty }).is_err());
}

#[test]
fn a_snapshot_is_held_against_a_checkpoint_of_its_own_size() {
    let log = sample();
    let mut verifier = Verifier::new();
    for line in &log.texts()[..6] {
        verifier.feed(line.as_bytes()).unwrap();
    }
    let snapshot = verifier.snapshot().unwrap();
    let text = snapshot.to_text().unwrap();
    assert_eq!(Snapshot::read(&text).unwrap(), snapshot);
    assert!(Verifier::resume(snapshot.clone()).unwrap().against(log.checkpoint(6)).is_ok());
    let mut other = log.checkpoint(6);
    other.root.0[0] ^= 1;
    assert!(Verifier::resume(snapshot).unwrap().against(other).is_err());
    let spaced = text.replace("\"size\":6", "\"size\": 6");
    assert_ne!(spaced, text);
    for bad in [spaced, text.replace("\"v\":1", "\"v\":2"), text.replace("\"size\":6", "\"size\":7"), String::new()] {
        assert!(Snapshot::read(&bad).is_err(), "{bad}");
    }
}

#[test]
fn a_child_key_stands_with_its_path_and_a_threshold_with_its_key() {
    let head = sample().head;
    let other: PublicKey = common::OTHER_KEY.parse().unwrap();
    let attempt = |path: Option<&str>, child: Option<PublicKey>| {
        let tx = Tx { path: path.map(text), child, ..common::tx() };
        head.append(Entry::intent(Act::Sign { key: common::key(), tx }, origin("s-9"), common::allow()), time(30))
    };
    assert!(attempt(Some("m/0/7"), Some(other)).is_ok());
    assert!(attempt(None, None).is_ok());
    assert!(attempt(Some("m/0/7"), None).is_err() && attempt(None, Some(other)).is_err());

    let mut log = sample();
    let keygen = log.intend(Act::Keygen, "k-9");
    let made: Appended =
        log.head.append(Entry::key_made(keygen, common::key(), common::threshold()), time(40)).unwrap();
    assert!(made.line.as_str().contains(r#""threshold":[2,3]"#), "{}", made.line.as_str());
    let leaf = |threshold: Value| {
        let mut leaf: Value = serde_json::from_str(made.line.as_str()).unwrap();
        leaf["outcome"]["threshold"] = threshold;
        casemate_attest::Line::read(serde_json_canonicalizer::to_string(&leaf).unwrap().as_bytes()).is_ok()
    };
    assert!(leaf(json!([2, 3])));
    assert!(!leaf(Value::Null) && !leaf(json!([1, 3])) && !leaf(json!([4, 3])) && !leaf(json!([2])));
    assert!(Head::genesis("a".parse().unwrap(), Entry::genesis().disclosing(decoded()), time(0)).is_err());
}

proptest! {
    #[test]
    fn no_snapshot_text_panics(text in r#"\{("(v|place|tree|state|open|at)":(1|"a"|null|\{\}|\[\]),?){0,6}\}"#, any in "(?s).{0,100}") {
        prop_assert!(Snapshot::read(&text).is_err());
        prop_assert!(Snapshot::read(&any).is_err());
    }

    #[test]
    fn no_two_details_share_a_commitment(one in "[a-z]{0,6}", other in "[a-z]{0,6}", salts in any::<[[u8; 32]; 2]>()) {
        let make = |salt, words: &str| Disclosure { salt, detail: Detail { decoded: None, reason: Some(words.into()) } };
        let (first, second) = (make(salts[0], &one), make(salts[1], &other));
        prop_assert_eq!(first == second, first.commitment().unwrap() == second.commitment().unwrap());
    }
}
