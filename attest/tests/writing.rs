//! What the writer refuses, and what it can pick up again after a restart.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_wrap)]

mod common;

use casemate_attest::line::LineError;
use casemate_attest::{AppendError, Entry, Head, Line, Op, Outcome, Tx, describe};
use casemate_wire::Digest32;
use common::{allow, deny, key, origin, sample, sign, time, tx};
use jiff::Timestamp;
use serde_json::{Value, json};

fn shape(result: Result<(Line, Head), AppendError>) -> String {
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
        let tx = Tx { digest: Digest32([1; 32]), decoded: Some(decoded) };
        let act = casemate_attest::Act::Sign { key: key(), tx };
        head.append(Entry::intent(act, origin("s-9"), allow()), time(20))
    };
    assert!(attempt(json!({"n": 9_007_199_254_740_991_u64})).is_ok());
    assert!(shape(attempt(json!({"n": 9_007_199_254_740_992_u64}))).contains("2^53"));
    assert!(shape(attempt(json!({"deep": [{"n": 0.5}]}))).contains("2^53"));
    assert!(shape(attempt(json!("text"))).contains("object"));
    let nested = (0..100).fold(json!(1), |inner, _| json!([inner]));
    assert!(shape(attempt(json!({"n": nested}))).contains("nested"));
    let long = attempt(json!({"n": "x".repeat(70_000)}));
    assert!(matches!(long, Err(AppendError::Entry(LineError::TooLong(_)))));
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
    let head = Head::after(&last).unwrap();
    assert_eq!(head, log.head);

    let intent = last.intent().unwrap();
    assert_eq!((intent.op(), intent.session().unwrap().as_str()), (Op::Sign, "s-5"));
    let (boot, head) = head.append(Entry::boot(), time(30)).unwrap();
    assert_eq!(boot.leaf().boot, 3);
    let interrupted = Outcome::failed("interrupted".parse().unwrap(), "the process stopped".parse().unwrap());
    let (outcome, head) = head.append(Entry::outcome(intent, interrupted), time(31)).unwrap();
    assert_eq!(outcome.intent(), None);

    let mut texts = stored;
    texts.extend([boot.as_str().to_owned(), outcome.as_str().to_owned()]);
    let report = common::verify(&texts).unwrap();
    assert!(report.open_intents.is_empty());
    assert_eq!((report.size, report.head), (head.size(), head.hash()));
}

#[test]
fn a_log_that_cannot_count_further_says_so() {
    let mut leaf: Value = serde_json::from_str(sample().texts()[10].as_str()).unwrap();
    leaf["seq"] = json!((1u64 << 53) - 2);
    let text = serde_json_canonicalizer::to_string(&leaf).unwrap();
    let head = Head::after(&Line::read(text.as_bytes()).unwrap()).unwrap();
    assert_eq!(head.append(Entry::boot(), time(0)), Err(AppendError::Full));
}

#[test]
fn a_leaf_reads_aloud_on_one_plain_line() {
    let log = sample();
    let spoken: Vec<String> = log.lines.iter().map(|line| describe::describe(line.leaf())).collect();
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
    let tx = Tx { decoded: Some(json!({"\u{1b}[2J": "\u{202e}\u{7}\nseq 0 ok", "\u{9b}31m": "é"})), ..tx() };
    let refusal = Entry::refusal(Op::Sign, origin("s"), "x".parse().unwrap(), "y".parse().unwrap());
    let (line, _) = sample().head.append(refusal.about(Some(key()), Some(tx)), time(40)).unwrap();
    let spoken = describe::describe(line.leaf());
    assert!(spoken.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{spoken:?}");
}
