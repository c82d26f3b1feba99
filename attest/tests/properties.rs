//! Named properties over random logs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::cast_possible_wrap)]

mod common;

use casemate_attest::{Act, Checkpoint, Entry, FaultKind, Line, Op, Outcome, Report, Verifier, verify};
use common::{Log, key, origin, sign, signature};
use proptest::prelude::*;

/// One step of a random history; which session it takes is chosen by the number.
#[derive(Debug, Clone)]
enum Step {
    Boot,
    Bundle,
    Refuse,
    Begin { keygen: bool },
    End { which: usize, completed: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Boot),
        1 => Just(Step::Bundle),
        2 => Just(Step::Refuse),
        4 => any::<bool>().prop_map(|keygen| Step::Begin { keygen }),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, completed)| Step::End { which, completed }),
    ]
}

/// A log of these steps, and how many acts are still open.
fn history(steps: &[Step]) -> (Log, usize) {
    let mut log = Log::begin("casemate/party-1/random");
    let mut open = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let name = format!("s-{number}");
        match step {
            Step::Boot => drop(log.add(Entry::boot())),
            Step::Bundle => drop(log.add(Entry::admin(Op::Policy))),
            Step::Refuse => {
                let refusal = Entry::refusal(Op::Sign, origin(&name), "bad_request".parse().unwrap());
                log.add(refusal.disclosing(common::reason("nonsense")));
            }
            Step::Begin { keygen: true } => open.push(log.intend(Act::Keygen, &name)),
            Step::Begin { keygen: false } => open.push(log.intend(sign(), &name)),
            Step::End { .. } if open.is_empty() => {}
            Step::End { which, completed } => {
                let intent = open.remove(which % open.len());
                let entry = match (completed, intent.op()) {
                    (false, _) => {
                        let (code, why) = ("timeout".parse().unwrap(), "a party was silent".parse().unwrap());
                        Entry::outcome(intent, Outcome::failed(code, why))
                    }
                    (true, Op::Keygen) => Entry::key_made(intent, key(), common::threshold()),
                    (true, _) => Entry::outcome(intent, Outcome::signed(signature())),
                };
                log.add(entry);
            }
        }
    }
    (log, open.len())
}

fn read(bytes: &[u8], verifier: Verifier) -> Result<Report, FaultKind> {
    verify::read(bytes, verifier, |_| ()).map_err(|error| match error {
        verify::ReadError::Fault(fault) => fault.kind,
        verify::ReadError::Io(error) => panic!("{error}"),
    })
}

fn file(log: &Log) -> Vec<u8> {
    (log.texts().join("\n") + "\n").into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_writer_writes_verifies(steps in prop::collection::vec(step(), 0..40)) {
        let (log, open) = history(&steps);
        let report = read(&file(&log), Verifier::new().against(Checkpoint::of(&log.head)).unwrap()).unwrap();
        prop_assert_eq!(report.size, log.lines.len() as u64);
        prop_assert_eq!(report.open_intents.len(), open);
        prop_assert_eq!(report.intents - report.outcomes, open as u64);
    }

    #[test]
    fn any_single_altered_byte_is_found(
        steps in prop::collection::vec(step(), 0..20), place in any::<prop::sample::Index>(), byte in 1u8..,
    ) {
        let (log, _) = history(&steps);
        let mut bytes = file(&log);
        let place = place.index(bytes.len());
        bytes[place] ^= byte;
        prop_assert!(read(&bytes, Verifier::new().against(Checkpoint::of(&log.head)).unwrap()).is_err());
        // Without a known head, only the last line is beyond the chain's reach.
        let last_line = bytes.len() - log.lines.last().unwrap().as_str().len() - 1;
        if place < last_line {
            prop_assert!(read(&bytes, Verifier::new()).is_err());
        }
    }

    #[test]
    fn any_removed_or_added_byte_is_found(
        steps in prop::collection::vec(step(), 0..20), place in any::<prop::sample::Index>(), added in prop::option::of(any::<u8>()),
    ) {
        let (log, _) = history(&steps);
        let mut bytes = file(&log);
        let place = place.index(bytes.len());
        match added {
            Some(byte) => bytes.insert(place, byte),
            None => drop(bytes.remove(place)),
        }
        prop_assert!(read(&bytes, Verifier::new().against(Checkpoint::of(&log.head)).unwrap()).is_err());
    }

    #[test]
    fn random_bytes_never_panic_and_are_never_a_line(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Line::read(&bytes).is_err());
    }

    #[test]
    fn random_json_never_panics(text in r#"[\{\[]("(v|seq|tx|op|at)":(1|"a"|null|\{|\[|-0|1e9|"\\ud800")[,\}\]]){0,8}"#) {
        prop_assert!(Line::read(text.as_bytes()).is_err());
    }
}
