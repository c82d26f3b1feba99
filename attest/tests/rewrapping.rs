//! What a log may tell of a re-wrapping: begun before it ends, one at a time, with rows that add up. Whoever forges lines is held to
//! the same rules as the writer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_wrap)]

mod common;

use std::collections::BTreeMap;

use casemate_attest::describe::describe;
use casemate_attest::{Entry, FaultKind, Op, Origin, Rewrap, Rewrapped, Text, Verifier};
use common::*;
use serde_json::json;

fn text(text: &str) -> Text {
    text.parse().unwrap()
}

fn begun() -> Entry {
    Entry::rewrap(Rewrap::Begun { to: vec![text("kek/2"), text("recovery/ab")], rows: 7 })
}

fn done() -> Rewrapped {
    let names = |names: &[(&str, u64)]| names.iter().map(|(name, rows)| (text(name), *rows)).collect();
    Rewrapped {
        rows: 7,
        renewed: 4,
        current: 2,
        gone: 0,
        unopened: 1,
        removed: names(&[("kek/1", 4)]),
        added: names(&[("kek/2", 4), ("recovery/ab", 3)]),
        stopped: None,
    }
}

fn ended(begun: usize) -> Entry {
    Entry::rewrap(Rewrap::Ended { begun: begun as u64, done: done() })
}

fn refused(entry: Entry) -> String {
    sample().head.append(entry, time(100)).unwrap_err().to_string()
}

fn operator() -> Origin {
    Origin { req: text("req-9"), actor: text("operator-1"), session: None }
}

#[test]
fn a_run_is_told_before_its_first_row_and_after_its_last_and_reads_in_plain_words() {
    let mut log = sample();
    let place = log.lines.len();
    log.add(begun().asked_by(operator()));
    let report = verify(&log.texts()).unwrap();
    let open = report.open_rewrap.unwrap();
    assert_eq!((open.seq, open.rows), (place as u64, 7), "it runs still, or was cut off");
    log.add(ended(place).asked_by(operator()));
    assert_eq!(verify(&log.texts()).unwrap().open_rewrap, None);
    let words: Vec<String> = log.lines[place..].iter().map(|line| describe(line.leaf(), None)).collect();
    assert!(words[0].contains("rewrap  by operator-1  run begins: 7 rows to kek/2, recovery/ab"), "{}", words[0]);
    let sum = format!(
        "run ends (begun in leaf {place}): of 7 rows 4 renewed, 2 as they should be, 1 NOT opened; from kek/1 4; to kek/2 4; \
         to recovery/ab 3"
    );
    assert!(words[1].contains(&sum), "{}", words[1]);
}

#[test]
fn a_run_that_was_cut_off_is_followed_by_a_new_one_and_never_ends() {
    let mut log = sample();
    let first = log.lines.len();
    log.add(begun());
    log.add(Entry::boot());
    let second = log.lines.len();
    log.add(begun());
    let mut late = Log { lines: log.lines.clone(), head: log.head.clone() };
    late.add(ended(first));
    assert_eq!(fault(&late.texts()), (FaultKind::Guard, late.lines.len() - 1));
    log.add(ended(second));
    verify(&log.texts()).unwrap();
    let place = log.lines.len();
    log.add(ended(second));
    assert_eq!(fault(&log.texts()), (FaultKind::Guard, place), "it ends once");
}

#[test]
fn a_run_that_was_never_begun_does_not_end() {
    let mut log = sample();
    let place = log.lines.len();
    log.add(ended(3));
    assert_eq!(fault(&log.texts()), (FaultKind::Guard, place));
}

#[test]
fn a_run_that_is_on_while_its_lines_are_pruned_ends_after_the_snapshot() {
    let mut log = sample();
    let place = log.lines.len();
    log.add(begun());
    let mut verifier = Verifier::new();
    for line in log.texts() {
        verifier.feed(line.as_bytes()).unwrap();
    }
    let snapshot = casemate_attest::Snapshot::read(&verifier.snapshot().unwrap().to_text().unwrap()).unwrap();
    assert_eq!(snapshot.state.rewrapping.as_ref().unwrap().seq, place as u64);
    let snapshot_text = snapshot.to_text().unwrap();
    log.add(Entry::admin(Op::Prune).guarding(vec![casemate_attest::Snapshot::guard(&snapshot_text)]));
    log.add(ended(place));
    verify(&log.texts()).unwrap();
    verify_with(Verifier::resume(snapshot).unwrap(), &log.texts()[place + 1..]).unwrap();
}

#[test]
fn numbers_that_do_not_add_up_are_refused_unless_the_run_stopped() {
    let end = |edit: fn(&mut Rewrapped)| {
        let mut done = done();
        edit(&mut done);
        Entry::rewrap(Rewrap::Ended { begun: 1, done })
    };
    let edits: [fn(&mut Rewrapped); 4] =
        [|done| done.renewed = 3, |done| done.rows = 6, |done| done.rows = u64::MAX, |done| done.unopened = u64::MAX];
    for edit in edits {
        let why = refused(end(edit));
        assert!(why.contains("add up") || why.contains("above"), "{why}");
    }
    let unchanged = refused(end(|done| (done.renewed, done.current) = (0, 6)));
    assert!(unchanged.contains("changed in its rows"), "{unchanged}");
    let mut log = sample();
    let place = log.lines.len();
    log.add(begun());
    let mut stopped = done();
    (stopped.rows, stopped.stopped) = (6, Some(text("the HSM is away")));
    (stopped.renewed, stopped.current) = (2, 2);
    log.add(Entry::rewrap(Rewrap::Ended { begun: place as u64, done: stopped }));
    verify(&log.texts()).unwrap();
    assert!(describe(log.lines.last().unwrap().leaf(), None).contains("STOPPED: the HSM is away"));
}

#[test]
fn a_re_wrapping_stands_in_its_own_leaf_alone() {
    assert!(refused(Entry::admin(Op::Rewrap)).contains("tells of one"));
    assert!(refused(Entry::rewrap(Rewrap::Begun { to: Vec::new(), rows: 1 })).contains("to what"));
    let twice = vec![text("kek/2"), text("kek/2")];
    assert!(refused(Entry::rewrap(Rewrap::Begun { to: twice, rows: 1 })).contains("once"));
    let many: BTreeMap<Text, u64> = (0..65).map(|number| (text(&format!("kek/{number}")), 1)).collect();
    let many = Rewrapped { removed: many, ..done() };
    assert!(refused(Entry::rewrap(Rewrap::Ended { begun: 1, done: many })).contains("at most 64"));
    assert!(refused(ended(10_000)).contains("after it began"));
    assert!(refused(begun().decided(allow())).contains("fields of an act"), "policy is not asked");
    let guards = vec![change(casemate_attest::Guard::Kek, "2", "made")];
    assert!(refused(begun().guarding(guards)).contains("its own admin leaf"));
}

#[test]
fn forged_fields_are_refused_as_a_line() {
    let mut log = sample();
    let place = log.lines.len();
    log.add(begun());
    log.add(ended(place));
    let good = values(&log);
    for (pointer, value) in [
        ("/rewrap/stage", json!("paused")),
        ("/rewrap/done/more", json!(1)),
        ("/rewrap/done/rows", json!(-7)),
        ("/rewrap/more", json!(1)),
        ("/op", json!("kek")),
        ("/phase", json!("intent")),
    ] {
        let mut lines = good.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        lines[place + 1].pointer_mut(parent).unwrap()[name] = value;
        let (_, at) = fault(&rechained(&lines, place + 1));
        assert_eq!(at, place + 1, "{pointer}");
    }
    let mut lines = good;
    lines[place + 1]["rewrap"]["begun"] = json!(place - 1);
    assert_eq!(fault(&rechained(&lines, place + 1)), (FaultKind::Guard, place + 1));
}
