//! Someone with root on the host edits the log file. Every edit before the last line is found, and the fault names the
//! first bad line; what can only be found with a head kept elsewhere is shown as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_wrap, clippy::semicolon_if_nothing_returned, clippy::type_complexity)]

mod common;

use casemate_attest::{Checkpoint, FaultKind, Verifier, verify};
use common::{OTHER_KEY, fault, rechained, sample, values, verify_with};
use serde_json::{Value, json};

#[test]
fn an_untouched_log_verifies_and_is_counted() {
    let log = sample();
    let report = common::verify(&log.texts()).unwrap();
    assert_eq!(report.size, 12);
    assert_eq!(report.head, log.head.hash());
    assert_eq!((report.intents, report.outcomes, report.refusals), (4, 3, 1));
    assert_eq!((report.admin, report.boots, report.clock_set_back), (1, 2, 0));
    assert_eq!(report.first.to_string(), "2025-11-20T12:30:00.123Z");
    assert_eq!(report.last.to_string(), "2025-11-20T12:30:11.123Z");
    assert_eq!(report.checkpoints, 0);
    let open = &report.open_intents;
    assert_eq!(open.len(), 1);
    assert_eq!((open[0].seq, open[0].session.as_ref().unwrap().as_str()), (11, "s-5"));
}

#[test]
fn every_altered_bit_is_found_in_its_line_or_the_next() {
    let texts = sample().texts();
    for place in 0..texts.len() - 1 {
        for byte in 0..texts[place].len() {
            for bit in [0x01, 0x20] {
                let mut lines: Vec<Vec<u8>> = texts.iter().map(|text| text.clone().into_bytes()).collect();
                lines[place][byte] ^= bit;
                let (_, found) = fault(&lines);
                assert!(found == place || found == place + 1, "line {place}, byte {byte}: found at {found}");
            }
        }
    }
}

#[test]
fn a_line_that_is_missing_repeated_moved_or_added_is_found() {
    let texts = sample().texts();
    let last = texts.len() - 1;
    for place in 0..last {
        let mut without = texts.clone();
        without.remove(place);
        assert_eq!(fault(&without), (FaultKind::Sequence, place), "without {place}");

        let mut twice = texts.clone();
        twice.insert(place, texts[place].clone());
        assert_eq!(fault(&twice), (FaultKind::Sequence, place + 1), "{place} twice");

        let mut swapped = texts.clone();
        swapped.swap(place, place + 1);
        assert_eq!(fault(&swapped), (FaultKind::Sequence, place), "{place} swapped");

        let mut added = texts.clone();
        added.insert(place, String::new());
        assert_eq!(fault(&added), (FaultKind::Malformed, place), "empty line at {place}");
    }
}

#[test]
fn a_line_put_in_from_elsewhere_breaks_the_chain() {
    let mut forged = sample().texts();
    let mut other = common::Log::begin("casemate/party-1/sample");
    other.add(casemate_attest::Entry::boot());
    other.add(casemate_attest::Entry::admin(casemate_attest::Op::Stop));
    forged[2] = other.texts()[2].clone();
    assert_eq!(fault(&forged), (FaultKind::Chain, 3));
}

#[test]
fn lines_of_another_log_are_refused_even_when_rechained() {
    let mut leaves = values(&sample());
    leaves[4]["log"] = json!("casemate/party-2/sample");
    assert_eq!(fault(&rechained(&leaves, 4)), (FaultKind::Log, 4));
}

#[test]
fn a_log_that_starts_in_the_middle_is_refused() {
    let texts = sample().texts();
    assert_eq!(fault(&texts[1..]), (FaultKind::Sequence, 0));
    let mut leaves = values(&sample());
    leaves[0]["prev"] = json!("11".repeat(32));
    assert_eq!(fault(&rechained(&leaves, 1)), (FaultKind::Chain, 0));
    assert_eq!(fault::<&str>(&[]), (FaultKind::Empty, 0));
}

#[test]
fn rewritten_leaves_with_a_new_chain_fall_to_the_known_head() {
    let log = sample();
    let mut leaves = values(&log);
    leaves[6]["tx"]["digest"] = json!("ee".repeat(32));
    let forged = rechained(&leaves, 6);
    assert!(common::verify(&forged).is_ok(), "the chain alone cannot tell");
    let anchored = Verifier::new().against(Checkpoint::of(&log.head)).unwrap();
    let found = verify_with(anchored, &forged).unwrap_err();
    assert_eq!((found.kind, found.line), (FaultKind::Head, 12));
    let early = Verifier::new().against(log.checkpoint(9)).unwrap();
    assert_eq!(verify_with(early, &forged).unwrap_err().line, 9);
}

#[test]
fn a_log_cut_off_at_its_end_falls_to_the_known_head() {
    let log = sample();
    let texts = log.texts();
    for kept in 1..texts.len() {
        assert!(common::verify(&texts[..kept]).is_ok(), "the chain alone cannot tell");
        let anchored = Verifier::new().against(Checkpoint::of(&log.head)).unwrap();
        let found = verify_with(anchored, &texts[..kept]).unwrap_err();
        assert_eq!(found.kind, FaultKind::Head);
    }
    let older = Verifier::new().against(log.checkpoint(5)).unwrap();
    assert!(verify_with(older, &texts).unwrap().checkpoints == 1, "a log may have grown since");
}

#[test]
fn only_the_canonical_form_is_accepted() {
    let log = sample();
    let text = &log.texts()[3];
    let pretty = serde_json::to_string_pretty(&serde_json::from_str::<Value>(text).unwrap()).unwrap();
    let first_pair = "\"actor\":\"coordinator-1\",";
    assert!(text.contains(first_pair));
    let moved =
        format!("{},{}}}", text.replace(first_pair, "").trim_end_matches('}'), first_pair.trim_end_matches(','));
    for (name, forged) in [
        ("spaces", text.replace(',', ", ")),
        ("line breaks", pretty),
        ("carriage return", format!("{text}\r")),
        ("leading space", format!(" {text}")),
        ("escaped letter", text.replace("coordinator", "\\u0063oordinator")),
        ("upper-case hex", text.replace("b0b0", "B0B0")),
        ("hex prefix", text.replace("\"b0b0", "\"0xb0b0")),
        ("explicit null", text.replace("{\"actor\"", "{\"a\":null,\"actor\"").replace("\"a\":null", "\"tx\":null")),
        ("order of keys", moved),
        ("empty list", text.replace("{\"actor\"", "{\"approvals\":[],\"actor\"")),
    ] {
        assert_ne!(&forged, text, "{name}");
        let mut texts = log.texts();
        texts[3] = forged;
        let (kind, place) = fault(&texts);
        assert_eq!(place, 3, "{name}");
        assert!(matches!(kind, FaultKind::NotCanonical | FaultKind::Malformed), "{name}: {kind:?}");
    }
}

#[test]
fn duplicate_unknown_and_mistyped_fields_are_refused() {
    let text = sample().texts()[6].clone();
    for forged in [
        text.replace("{\"actor\"", "{\"actor\":\"x\",\"actor\""),
        text.replace("\"digest\":", "\"digest\":\"\",\"digest\":"),
        text.replace("{\"actor\"", "{\"aaa\":1,\"actor\""),
        text.replace("\"effect\":\"allow\"", "\"effect\":\"perhaps\""),
        text.replace("\"effect\":\"allow\"", "\"effect\":\"allow\",\"extra\":0"),
        text.replace("\"seq\":6", "\"seq\":\"6\""),
        text.replace("\"seq\":6", "\"seq\":-6"),
        text.replace("\"seq\":6", "\"seq\":6.0"),
        text.replace("\"seq\":6", "\"seq\":18446744073709551616"),
        text.replace("\"v\":1", "\"v\":\"1\""),
        "null".into(),
        "[]".into(),
        "{}".into(),
        "\u{feff}".to_owned() + &text,
        "[".repeat(50_000),
    ] {
        assert_ne!(forged, text);
        let mut texts = sample().texts();
        texts[6] = forged;
        let (kind, place) = fault(&texts);
        assert_eq!(place, 6);
        assert!(matches!(kind, FaultKind::NotCanonical | FaultKind::Malformed), "{kind:?}");
    }
}

#[test]
fn numbers_that_json_readers_would_round_are_refused() {
    for number in ["9007199254740992", "-9007199254740992", "18446744073709551615", "1.5", "1e300", "-0"] {
        let mut texts = sample().texts();
        assert!(texts[8].contains("\"size\":12"));
        texts[8] = texts[8].replace("\"size\":12", &format!("\"size\":{number}"));
        let (kind, place) = fault(&texts);
        assert_eq!(place, 8, "{number}");
        let refused = matches!(kind, FaultKind::Shape | FaultKind::NotCanonical | FaultKind::Malformed);
        assert!(refused, "{number}: {kind:?}");
    }
    let mut leaves = values(&sample());
    leaves[8]["peers"][0]["size"] = json!(1u64 << 53);
    assert_eq!(fault(&rechained(&leaves, 8)), (FaultKind::Shape, 8));
    leaves[8]["peers"][0]["size"] = json!((1u64 << 53) - 1);
    assert!(common::verify(&rechained(&leaves, 8)).is_ok());
}

#[test]
fn a_sequence_number_that_jumps_or_overflows_is_refused() {
    for seq in [0u64, 4, 6, (1 << 53) - 1, 1 << 53, u64::MAX] {
        let mut leaves = values(&sample());
        leaves[5]["seq"] = json!(seq);
        let (kind, place) = fault(&rechained(&leaves, 5));
        // Above 2^53 the canonical form itself rounds the number, at the very top out of the type.
        let expected = match seq {
            4 | 6 | 9_007_199_254_740_991 => FaultKind::Sequence,
            0 | 9_007_199_254_740_992 => FaultKind::Shape,
            _ => FaultKind::Malformed,
        };
        assert_eq!((kind, place), (expected, 5), "{seq}");
    }
}

#[test]
fn an_overlong_line_is_refused_before_it_is_parsed() {
    let mut texts = sample().texts();
    texts[2] = "x".repeat(64 * 1024 + 1);
    assert_eq!(fault(&texts), (FaultKind::TooLong, 2));
}

#[test]
fn another_version_is_named_as_such() {
    let mut leaves = values(&sample());
    leaves[3]["v"] = json!(2);
    assert_eq!(fault(&rechained(&leaves, 3)), (FaultKind::Version, 3));
}

#[test]
fn stories_that_do_not_add_up_are_refused() {
    type Forge = fn(&mut Vec<Value>);
    let renumbered = |mut leaves: Vec<Value>| {
        for (seq, leaf) in leaves.iter_mut().enumerate() {
            leaf["seq"] = json!(seq);
        }
        rechained(&leaves, 1)
    };
    let forgeries: [(&str, Forge, FaultKind, usize); 9] = [
        ("intent taken out", |l| drop(l.remove(7)), FaultKind::OutcomeWithoutIntent, 7),
        ("outcome moved before its intent", |l| l.swap(7, 8), FaultKind::OutcomeWithoutIntent, 7),
        ("outcome repeated", |l| l.insert(9, l[8].clone()), FaultKind::SecondOutcome, 9),
        ("intent repeated", |l| l.insert(8, l[7].clone()), FaultKind::SecondIntent, 8),
        ("intent after its outcome", |l| l.insert(9, l[7].clone()), FaultKind::SecondIntent, 9),
        ("outcome for another session", |l| l[8]["session"] = json!("s-9"), FaultKind::OutcomeWithoutIntent, 8),
        ("outcome with another key", |l| l[8]["key"] = json!(OTHER_KEY), FaultKind::OutcomeMismatch, 8),
        ("outcome of another act", |l| l[9]["op"] = json!("keygen"), FaultKind::OutcomeMismatch, 9),
        (
            "session joined by request alone",
            |l| drop(l[8].as_object_mut().unwrap().remove("session")),
            FaultKind::OutcomeWithoutIntent,
            8,
        ),
    ];
    for (name, forge, kind, place) in forgeries {
        let mut leaves = values(&sample());
        forge(&mut leaves);
        assert_eq!(fault(&renumbered(leaves)), (kind, place), "{name}");
    }
}

#[test]
fn leaves_that_do_not_fit_their_phase_are_refused() {
    type Forge = fn(&mut Vec<Value>);
    fn without(leaf: &mut Value, field: &str) {
        leaf.as_object_mut().unwrap().remove(field).expect(field);
    }
    let forgeries: [(&str, usize, Forge); 19] = [
        ("signing that policy denied", 6, |l| l[6]["decision"]["effect"] = json!("deny")),
        ("signing without a decision", 6, |l| without(&mut l[6], "decision")),
        ("signing allowed by no policy", 6, |l| l[6]["decision"]["policies"] = json!([])),
        ("signing under no bundle", 6, |l| without(&mut l[6]["decision"], "bundle")),
        ("signing of nothing", 6, |l| without(&mut l[6], "tx")),
        ("signing with no key", 6, |l| without(&mut l[6], "key")),
        ("signing for nobody", 6, |l| without(&mut l[6], "actor")),
        ("keygen without a decision", 3, |l| without(&mut l[3], "decision")),
        ("intent with an outcome", 6, |l| l[6]["outcome"] = json!({"result": "completed"})),
        ("outcome without outcome", 8, |l| without(&mut l[8], "outcome")),
        ("completed signing without signature", 8, |l| without(&mut l[8]["outcome"], "signature")),
        ("failure without a code", 9, |l| without(&mut l[9]["outcome"], "code")),
        ("failure with a signature", 9, |l| l[9]["outcome"]["signature"] = l[8]["outcome"]["signature"].clone()),
        ("completed keygen without a key", 4, |l| without(&mut l[4], "key")),
        ("refusal that completed", 5, |l| l[5]["outcome"]["result"] = json!("completed")),
        ("refusal without a code", 5, |l| without(&mut l[5]["outcome"], "code")),
        ("a second genesis", 2, |l| {
            l[2]["op"] = json!("init");
            l[2]["phase"] = json!("genesis");
        }),
        ("no genesis", 0, |l| {
            l[0]["op"] = json!("policy");
            l[0]["phase"] = json!("admin");
        }),
        ("admin leaf that signs", 2, |l| l[2]["op"] = json!("sign")),
    ];
    for (name, place, forge) in forgeries {
        let mut leaves = values(&sample());
        forge(&mut leaves);
        assert_eq!(fault(&rechained(&leaves, 1)), (FaultKind::Shape, place), "{name}");
    }
}

#[test]
fn a_start_that_was_left_out_is_found() {
    let mut leaves = values(&sample());
    leaves.remove(10);
    leaves[10]["seq"] = json!(10);
    assert_eq!(fault(&rechained(&leaves, 10)), (FaultKind::Boot, 10));
}

#[test]
fn a_clock_set_back_is_counted_and_not_held_against_the_log() {
    let mut leaves = values(&sample());
    leaves[5]["at"] = json!("2025-11-20T12:30:00.000Z");
    assert_eq!(common::verify(&rechained(&leaves, 5)).unwrap().clock_set_back, 1);
}

#[test]
fn a_verdict_is_final() {
    let texts = sample().texts();
    let mut verifier = Verifier::new();
    verifier.feed(texts[0].as_bytes()).unwrap();
    let first = verifier.feed(b"garbage").unwrap_err();
    assert_eq!(verifier.feed(texts[1].as_bytes()).unwrap_err(), first);
    assert_eq!(verifier.finish().unwrap_err(), first);
}

#[test]
fn a_file_is_read_line_by_line_and_a_torn_end_is_named() {
    let text = sample().texts().join("\n") + "\n";
    let mut seen = 0;
    let report = verify::read(text.as_bytes(), Verifier::new(), |_| seen += 1).unwrap();
    assert_eq!((report.size, seen), (12, 12));

    let torn = |length: usize| match verify::read(&text.as_bytes()[..length], Verifier::new(), |_| ()) {
        Err(verify::ReadError::Fault(fault)) => (fault.kind, fault.line),
        other => panic!("{other:?}"),
    };
    assert_eq!(torn(text.len() - 1), (FaultKind::Unterminated, 12));
    assert_eq!(torn(text.len() - 30), (FaultKind::Unterminated, 12));
    assert_eq!(torn(0), (FaultKind::Empty, 1));
}

#[test]
fn a_file_without_line_breaks_costs_no_more_than_one_line() {
    struct Endless(u64);
    impl std::io::Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            buffer.fill(b'x');
            self.0 += buffer.len() as u64;
            assert!(self.0 < 1 << 20, "it reads on and on");
            Ok(buffer.len())
        }
    }
    let reader = std::io::BufReader::new(Endless(0));
    match verify::read(reader, Verifier::new(), |_| ()) {
        Err(verify::ReadError::Fault(fault)) => assert_eq!(fault.kind, FaultKind::TooLong),
        other => panic!("{other:?}"),
    }
}
