//! What the writer refuses, and what it can pick up again after a restart.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_wrap)]

mod common;

use casemate_attest::line::LineError;
use casemate_attest::{AppendError, Appended, Detail, Disclosure, Entry, Head, Line, Op, Outcome, describe};
use common::{allow, deny, key, origin, sample, sign, time, tx};
use jiff::Timestamp;
use serde_json::{Value, json};

fn shape(result: Result<Appended, AppendError>) -> String {
    match result {
        Err(AppendError::Entry(LineError::Shape(why))) => why,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn an_intent_that_policy_did_not_allow_cannot_be_written() {
    let head = sample().head;
    let why = shape(head.append(Entry::intent(sign(), origin("s-9"), deny()), time(20)));
    assert!(why.contains("allowing decision"), "{why}");
    let mut nameless = allow();
    nameless.policies.clear();
    assert!(head.append(Entry::intent(sign(), origin("s-9"), nameless), time(20)).is_err());
}

#[test]
fn inexact_or_unbounded_decoded_fields_cannot_be_written() {
    let head = sample().head;
    let attempt = |decoded: Value| {
        let detail = Detail { decoded: Some(decoded), reason: None };
        let entry = Entry::intent(sign(), origin("s-9"), allow()).disclosing(Disclosure { salt: [1; 32], detail });
        head.append(entry, time(20))
    };
    let invalid = |decoded: Value| match attempt(decoded) {
        Err(AppendError::Detail(why)) => why.to_string(),
        other => unreachable!("{other:?}"),
    };
    assert!(attempt(json!({"n": 9_007_199_254_740_991_u64})).is_ok());
    assert!(invalid(json!({"n": 9_007_199_254_740_992_u64})).contains("2^53"));
    assert!(invalid(json!({"deep": [{"n": 0.5}]})).contains("2^53"));
    assert!(invalid(json!("text")).contains("object"));
    let nested = (0..100).fold(json!(1), |inner, _| json!([inner]));
    assert!(invalid(json!({"n": nested})).contains("nested"));
    assert!(invalid(json!({"n": "x".repeat(70_000)})).contains("bytes of JSON"));
}

#[test]
fn times_outside_the_form_cannot_be_written() {
    let before: Timestamp = "1969-12-31T23:59:59Z".parse().unwrap();
    assert!(matches!(sample().head.append(Entry::boot(), before), Err(AppendError::Time(_))));
}

#[test]
fn a_refused_entry_leaves_the_log_where_it_was() {
    let mut log = sample();
    let head = log.head.clone();
    assert!(log.head.append(Entry::intent(sign(), origin("s-9"), deny()), time(20)).is_err());
    assert_eq!(log.head, head);
    log.add(Entry::admin(Op::Stop));
    assert!(common::verify(&log.texts()).is_ok());
}

#[test]
fn after_a_restart_the_log_goes_on_and_open_intents_get_their_outcome() {
    let log = sample();
    let stored = log.texts();
    let last = Line::read(stored.last().unwrap().as_bytes()).unwrap();
    let head = Head::resume(&last, log.head.tree().clone()).unwrap();
    assert_eq!(head, log.head);
    assert_eq!(Head::resume(&log.lines[3], log.head.tree().clone()), None, "another line's tree");

    let intent = last.intent().unwrap();
    assert_eq!((intent.op(), intent.session().unwrap().as_str()), (Op::Sign, "s-5"));
    let Appended { line: boot, head, .. } = head.append(Entry::boot(), time(30)).unwrap();
    assert_eq!(boot.leaf().boot, 3);
    let interrupted = Outcome::failed("interrupted".parse().unwrap(), "the process stopped".parse().unwrap());
    let Appended { line: outcome, head, .. } = head.append(Entry::outcome(intent, interrupted), time(31)).unwrap();
    assert_eq!(outcome.intent(), None);

    let mut texts = stored;
    texts.extend([boot.as_str().to_owned(), outcome.as_str().to_owned()]);
    let report = common::verify(&texts).unwrap();
    assert!(report.open_intents.is_empty());
    assert_eq!((report.size, report.head, report.root), (head.size(), head.hash(), head.root()));
}

#[test]
fn a_log_that_cannot_count_further_says_so() {
    let mut leaf: Value = serde_json::from_str(sample().texts()[10].as_str()).unwrap();
    leaf["seq"] = json!((1u64 << 53) - 2);
    let text = serde_json_canonicalizer::to_string(&leaf).unwrap();
    let last = Line::read(text.as_bytes()).unwrap();
    let edge = json!({"size": (1u64 << 53) - 1, "nodes": vec!["00".repeat(32); 53]});
    let head = Head::resume(&last, serde_json::from_value(edge).unwrap()).unwrap();
    assert!(matches!(head.append(Entry::boot(), time(0)), Err(AppendError::Full)));
}

#[test]
fn a_leaf_reads_aloud_on_one_plain_line() {
    let log = sample();
    let spoken: Vec<String> = log.lines.iter().map(|line| describe::describe(line.leaf(), None)).collect();
    for words in ["sign", "session s-1", "by coordinator-1", "denies by [small-transfers]", "refused: policy_denied"] {
        assert!(spoken[5].contains(words), "{words}: {}", spoken[5]);
    }
    for words in ["keygen", "completed", common::KEY] {
        assert!(spoken[4].contains(words), "{words}: {}", spoken[4]);
    }
    assert!(spoken[9].contains("failed: peer_fault: a proof did not hold (caused by party-2)"), "{}", spoken[9]);
}

#[test]
fn a_hostile_leaf_cannot_act_on_the_terminal_of_its_reader() {
    let decoded = Some(json!({"\u{1b}[2J": "\u{202e}\u{7}\nseq 0 ok", "\u{9b}31m": "é"}));
    let detail = Detail { decoded, reason: Some("\u{1b}[2J\u{202e}é".into()) };
    let refusal = Entry::refusal(Op::Sign, origin("s"), "x".parse().unwrap());
    let line = sample().head.append(refusal.about(Some(key()), Some(tx())), time(40)).unwrap().line;
    let spoken = describe::describe(line.leaf(), Some(&detail));
    assert!(spoken.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{spoken:?}");
}
