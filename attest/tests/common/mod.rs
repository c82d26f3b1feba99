//! A log that holds every phase, and ways to verify and to forge.
#![allow(dead_code, unreachable_pub)]

use casemate_attest::tree::Frontier;
use casemate_attest::{
    Act, Appended, Checkpoint, Decision, Detail, Disclosure, Effect, Entry, Fault, FaultKind, Guard, GuardChange, Head,
    IntentRef, Line, Op, Origin, Outcome, PeerCheckpoint, Report, Tx, Verifier,
};
use casemate_wire::{Digest32, EcdsaSignature, PublicKey, Threshold};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
pub const OTHER_KEY: &str = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";

pub fn key() -> PublicKey {
    KEY.parse().unwrap()
}

pub fn threshold() -> Threshold {
    Threshold::new(2, 3).unwrap()
}

pub fn time(step: i64) -> Timestamp {
    let start: Timestamp = "2025-11-20T12:30:00.123Z".parse().unwrap();
    start + SignedDuration::from_secs(step)
}

pub fn origin(name: &str) -> Origin {
    Origin {
        req: format!("req-{name}").parse().unwrap(),
        actor: "coordinator-1".parse().unwrap(),
        session: Some(name.parse().unwrap()),
    }
}

pub fn allow() -> Decision {
    Decision {
        effect: Effect::Allow,
        policies: vec!["small-transfers".parse().unwrap()],
        bundle: Some(Digest32([0xb0; 32])),
    }
}

pub fn deny() -> Decision {
    Decision { effect: Effect::Deny, ..allow() }
}

pub fn tx() -> Tx {
    Tx::of(Digest32([0xd1; 32]))
}

/// What was decoded of it, as a leaf commits to it.
pub fn decoded() -> Disclosure {
    let decoded = json!({"to": "0x00", "value": "1000000000000000000", "chain_id": 1, "nonce": 7});
    Disclosure { salt: [0x5a; 32], detail: Detail { decoded: Some(decoded), reason: None } }
}

/// Why something is refused, as a leaf commits to it.
pub fn reason(words: &str) -> Disclosure {
    Disclosure { salt: [0x5b; 32], detail: Detail { decoded: None, reason: Some(words.into()) } }
}

pub fn sign() -> Act {
    Act::Sign { key: key(), tx: tx() }
}

pub fn signature() -> EcdsaSignature {
    EcdsaSignature { r: [1; 32], s: [2; 32], v: 0 }
}

pub fn change(guard: Guard, id: &str, to: &str) -> GuardChange {
    GuardChange { guard, id: id.parse().unwrap(), to: Some(to.parse().unwrap()) }
}

pub fn guard(id: &str, to: &str) -> GuardChange {
    GuardChange { guard: Guard::Token, id: id.parse().unwrap(), to: Some(to.parse().unwrap()) }
}

/// A log in the making.
pub struct Log {
    pub lines: Vec<Line>,
    pub head: Head,
}

impl Log {
    pub fn begin(name: &str) -> Self {
        let Appended { line, head, .. } = Head::genesis(name.parse().unwrap(), Entry::genesis(), time(0)).unwrap();
        Self { lines: vec![line], head }
    }

    pub fn add(&mut self, entry: Entry) -> Option<IntentRef> {
        let at = time(self.lines.len() as i64);
        let Appended { line, head, .. } = self.head.append(entry, at).unwrap();
        let intent = line.intent();
        self.lines.push(line);
        self.head = head;
        intent
    }

    pub fn intend(&mut self, act: Act, session: &str) -> IntentRef {
        let guards = vec![guard(session, "used")];
        let signs = matches!(act, Act::Sign { .. });
        let entry = Entry::intent(act, origin(session), allow()).guarding(guards);
        self.add(if signs { entry.disclosing(decoded()) } else { entry }).unwrap()
    }

    /// What its owner could have signed when it had this many leaves.
    pub fn checkpoint(&self, size: usize) -> Checkpoint {
        let mut tree = Frontier::default();
        self.lines[..size].iter().for_each(|line| drop(tree.push(line.hash())));
        Checkpoint { log: self.head.log().clone(), size: tree.size(), root: tree.root() }
    }

    pub fn texts(&self) -> Vec<String> {
        self.lines.iter().map(|line| line.as_str().to_owned()).collect()
    }
}

/// Every phase once at least; ten lines, the last session still open.
pub fn sample() -> Log {
    let mut log = Log::begin("casemate/party-1/sample");
    log.add(Entry::boot());
    let origin_of_refused = origin("s-1");
    log.add(Entry::admin(Op::Policy).guarding(vec![change(Guard::Bundle, "lab", "version 3")]));
    let keygen = log.intend(Act::Keygen, "s-2");
    log.add(Entry::key_made(keygen, key(), threshold()));
    let refusal = Entry::refusal(Op::Sign, origin_of_refused, "policy_denied".parse().unwrap());
    let refusal = refusal.disclosing(reason("over the limit"));
    log.add(refusal.about(Some(key()), Some(tx())).decided(deny()));
    let first = log.intend(sign(), "s-3");
    let second = log.intend(sign(), "s-4");
    let peer = PeerCheckpoint {
        party: "party-2".parse().unwrap(),
        log: "casemate/party-2/x".parse().unwrap(),
        size: 12,
        root: Digest32([7; 32]),
        attested: None,
    };
    log.add(Entry::outcome(second, Outcome::signed(signature())).witnessing(vec![peer]));
    let failed = Outcome::failed("peer_fault".parse().unwrap(), "a proof did not hold".parse().unwrap());
    log.add(Entry::outcome(first, failed.by("party-2".parse().unwrap())));
    log.add(Entry::boot());
    log.intend(sign(), "s-5");
    log
}

pub fn verify<T: AsRef<[u8]>>(lines: &[T]) -> Result<Report, Fault> {
    verify_with(Verifier::new(), lines)
}

pub fn verify_with<T: AsRef<[u8]>>(mut verifier: Verifier, lines: &[T]) -> Result<Report, Fault> {
    for line in lines {
        verifier.feed(line.as_ref())?;
    }
    verifier.finish()
}

/// The kind of the fault and the index of the line that it names.
pub fn fault<T: AsRef<[u8]>>(lines: &[T]) -> (FaultKind, usize) {
    let fault = verify(lines).unwrap_err();
    assert_eq!(fault.line, fault.seq + 1);
    (fault.kind, usize::try_from(fault.seq).unwrap())
}

/// What a forger who knows the format would write: the changed leaves in canonical form, chained anew from `from` on.
pub fn rechained(lines: &[Value], from: usize) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for (place, leaf) in lines.iter().enumerate() {
        let mut leaf = leaf.clone();
        if place >= from && place > 0 {
            let prev = casemate_attest::line::leaf_hash(texts[place - 1].as_bytes());
            leaf["prev"] = json!(prev.to_string());
        }
        texts.push(serde_json_canonicalizer::to_string(&leaf).unwrap());
    }
    texts
}

pub fn values(log: &Log) -> Vec<Value> {
    log.texts().iter().map(|text| serde_json::from_str(text).unwrap()).collect()
}
