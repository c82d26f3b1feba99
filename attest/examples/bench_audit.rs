//! Figures of the log's core, without a disk: `cargo run --release -p casemate-attest --example bench_audit [LEAVES]`.
//!
//! Making leaves, verifying them, and the tree over all of them with its proofs.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss)]

use std::time::{Duration, Instant};

use casemate_attest::tree::{MemoryNodes, root_at};
use casemate_attest::{
    Act, Appended, ConsistencyProof, Decision, Detail, Disclosure, Effect, Entry, Guard, GuardChange, Head,
    InclusionProof, Origin, Outcome, Tx, Verifier,
};
use casemate_wire::Digest32;
use jiff::{SignedDuration, Timestamp};

fn main() {
    let count: u64 = std::env::args().nth(1).map_or(1_000_000, |count| count.parse().unwrap());
    let (lines, took) = timed(|| write(count));
    let bytes: usize = lines.iter().map(String::len).sum();
    println!(
        "leaves made        {:>10.0} a second ({count} leaves, {} bytes each)",
        rate(count, took),
        bytes as u64 / count
    );

    let (report, took) = timed(|| {
        let mut verifier = Verifier::new();
        for line in &lines {
            verifier.feed(line.as_bytes()).unwrap();
        }
        verifier.finish().unwrap()
    });
    println!("leaves verified    {:>10.0} a second", rate(count, took));

    let hashes: Vec<Digest32> = lines.iter().map(|line| casemate_attest::line::leaf_hash(line.as_bytes())).collect();
    drop(lines);
    let (tree, took) = timed(|| {
        let mut tree = MemoryNodes::default();
        for hash in &hashes {
            tree.push(*hash);
        }
        tree
    });
    assert_eq!(tree.frontier().root(), report.root);
    println!("tree made          {:>10.0} leaves a second", rate(count, took));
    // Each node holds 32 bytes, and there are twice as many nodes as leaves, less one for each bit that is set.
    let nodes = 2 * count - u64::from(count.count_ones());
    println!("tree in memory     {:>10} KiB", nodes * 32 / 1024);
    if let Some(now) = resident() {
        println!("whole process      {now:>10} KiB, with room for all lines");
    }
    proofs(count, &tree);
}

fn proofs(count: u64, tree: &MemoryNodes) {
    const PROOFS: u64 = 10_000;
    let root = tree.frontier().root();
    // Places all over the log, in no order.
    let place = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count;
    let (made, took) = timed(|| {
        (0..PROOFS).map(|number| InclusionProof::make(place(number), count, tree).unwrap()).collect::<Vec<_>>()
    });
    let (largest, steps) = made.iter().map(|proof| (json(proof), proof.path.len())).max().unwrap();
    println!(
        "inclusion proof    {:>10.2} us to make, {steps} steps, at most {largest} bytes of JSON",
        each(took, PROOFS)
    );
    let ((), took) = timed(|| made.iter().for_each(|proof| proof.verify(&root).unwrap()));
    println!("                   {:>10.2} us to check", each(took, PROOFS));
    let from = |number: u64| place(number).max(1);
    let (made, took) = timed(|| {
        (0..PROOFS).map(|number| ConsistencyProof::make(from(number), count, tree).unwrap()).collect::<Vec<_>>()
    });
    let (largest, steps) = made.iter().map(|proof| (json(proof), proof.path.len())).max().unwrap();
    println!(
        "consistency proof  {:>10.2} us to make, {steps} steps, at most {largest} bytes of JSON",
        each(took, PROOFS)
    );
    let ((), took) =
        timed(|| made.iter().for_each(|proof| proof.verify(&root_at(proof.from, tree).unwrap(), &root).unwrap()));
    println!("                   {:>10.2} us to check", each(took, PROOFS));
}

fn json(proof: &impl serde::Serialize) -> usize {
    serde_json::to_string(proof).unwrap().len()
}

/// A genesis, and then intents and outcomes of signatures as an appliance writes them.
fn write(count: u64) -> Vec<String> {
    let time = |number: u64| -> Timestamp {
        let start: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        start + SignedDuration::from_millis(i64::try_from(number).unwrap())
    };
    let Appended { line, mut head, .. } =
        Head::genesis("casemate/party-1/bench".parse().unwrap(), Entry::genesis(), time(0)).unwrap();
    let mut lines = vec![line.as_str().to_owned()];
    let mut open = None;
    for number in 1..count {
        let entry = match open.take() {
            Some(intent) => {
                Entry::outcome(intent, Outcome::signed(casemate_wire::EcdsaSignature { r: [1; 32], s: [2; 32], v: 0 }))
            }
            None => intent(number),
        };
        let Appended { line, head: next, .. } = head.append(entry, time(number)).unwrap();
        open = line.intent();
        lines.push(line.as_str().to_owned());
        head = next;
    }
    lines
}

fn intent(number: u64) -> Entry {
    let session = format!("session-{number}");
    let origin = Origin {
        req: format!("request-{number}").parse().unwrap(),
        actor: "coordinator".parse().unwrap(),
        session: Some(session.parse().unwrap()),
    };
    let key = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().unwrap();
    let decision = Decision {
        effect: Effect::Allow,
        policies: vec!["sign-transfers".parse().unwrap()],
        bundle: Some(Digest32([0xb0; 32])),
    };
    let guard =
        |guard, id: &str, to: &str| GuardChange { guard, id: id.parse().unwrap(), to: Some(to.parse().unwrap()) };
    let guards = vec![
        guard(Guard::Token, &format!("token-{number}"), "used"),
        guard(Guard::Session, &session, "accepted"),
        guard(Guard::Spend, &session, &format!("reserved {}", Digest32([7; 32]))),
    ];
    let detail =
        Detail { decoded: Some(serde_json::json!({"to": "0x35", "value": "1000000000000000000"})), reason: None };
    Entry::intent(Act::Sign { key, tx: Tx::of(Digest32([0xd1; 32])) }, origin, decision)
        .guarding(guards)
        .disclosing(Disclosure { salt: [9; 32], detail })
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let made = work();
    (made, begun.elapsed())
}

fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn each(took: Duration, count: u64) -> f64 {
    took.as_secs_f64() * 1e6 / count as f64
}

/// Memory of this process in KiB, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
