//! Logs whose first lines are kept elsewhere, and logs that take the place of others: what vouches for what they rest on.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use casemate_attest::state::Snapshot;
use casemate_attest::tree::Frontier;
use casemate_attest::{
    Act, Approval, At, Decision, Effect, Entry, Fault, FaultKind, Guard, GuardChange, Head, Line, Op, Origin, Outcome,
    Place, Recovery, Report, State, Text, Verifier,
};
use casemate_wire::Digest32;
use jiff::{SignedDuration, Timestamp};

fn text(text: &str) -> Text {
    text.parse().unwrap()
}

fn time(hours: i64) -> Timestamp {
    "2026-11-21T12:00:00.000Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(hours)
}

struct Log {
    head: Head,
    lines: Vec<Line>,
    /// The host's clock, in hours.
    clock: i64,
}

impl Log {
    fn begin(name: &str, genesis: Entry) -> Self {
        let made = Head::genesis(name.parse().unwrap(), genesis, time(0)).unwrap();
        Self { head: made.head, lines: vec![made.line], clock: 0 }
    }

    fn add(&mut self, entry: Entry) {
        let made = self.head.append(entry, time(self.clock)).unwrap();
        self.head = made.head;
        self.lines.push(made.line);
    }

    /// A keygen that begins and fails.
    fn session(&mut self, name: &str) {
        let origin = Origin { req: text("req"), actor: text("coordinator"), session: Some(name.parse().unwrap()) };
        let decision = Decision { effect: Effect::Allow, policies: vec![text("all")], bundle: Some(Digest32([1; 32])) };
        let guard = |guard, id: &str, to: &str| GuardChange { guard, id: text(id), to: Some(text(to)) };
        let used = vec![guard(Guard::Token, &format!("t-{name}"), "used"), guard(Guard::Session, name, "accepted")];
        self.add(Entry::intent(Act::Keygen, origin, decision).guarding(used));
        let intent = self.lines.last().unwrap().intent().unwrap();
        let failed = Outcome::failed(text("interrupted"), text("it stopped"));
        self.add(Entry::outcome(intent, failed).guarding(vec![guard(Guard::Session, name, "failed")]));
    }

    fn verifier(&self) -> Verifier {
        let mut verifier = Verifier::new();
        for line in &self.lines {
            verifier.feed(line.as_str().as_bytes()).unwrap();
        }
        verifier
    }

    /// Prunes all lines so far; gives the snapshot's text.
    fn prune(&mut self) -> String {
        let text = self.verifier().snapshot().unwrap().to_text().unwrap();
        self.add(Entry::admin(Op::Prune).guarding(vec![Snapshot::guard(&text)]));
        text
    }
}

fn feed(mut verifier: Verifier, lines: &[Line]) -> Result<(Report, State), Fault> {
    for line in lines {
        verifier.feed(line.as_str().as_bytes())?;
    }
    let state = verifier.state().clone();
    Ok((verifier.finish()?, state))
}

/// Two sessions, a prune after each, one more; clocks run on, and once back.
fn pruned_twice() -> (Log, [(String, usize); 2]) {
    let mut log = Log::begin("casemate/party-1/a", Entry::genesis());
    log.add(Entry::boot());
    log.session("s-1");
    log.clock = 30 * 24;
    log.add(Entry::boot());
    log.clock = 1;
    log.session("s-2");
    let first = (log.prune(), log.lines.len() - 1);
    log.clock = 40 * 24;
    log.session("s-3");
    log.clock = 39 * 24;
    log.add(Entry::boot());
    let second = (log.prune(), log.lines.len() - 1);
    log.session("s-4");
    (log, [first, second])
}

#[test]
fn segments_and_the_remaining_lines_verify_as_one_log_and_each_from_its_snapshot() {
    let (log, snapshots) = pruned_twice();
    let (whole, _) = feed(Verifier::new(), &log.lines).unwrap();
    for (snapshot, from) in snapshots {
        let resumed = Verifier::resume(Snapshot::read(&snapshot).unwrap()).unwrap();
        let (rest, _) = feed(resumed, &log.lines[from..]).unwrap();
        assert_eq!((rest.root, rest.head, rest.size), (whole.root, whole.head, whole.size));
    }
}

#[test]
fn what_was_forgotten_at_one_prune_does_not_come_back_at_the_next_when_the_clock_goes_back() {
    let (log, [(_, first), (second, at)]) = pruned_twice();
    // The second snapshot is the same, whether one has read all lines or only those since the first.
    let before = &log.lines[..at];
    let mut all = Verifier::new();
    for line in before {
        all.feed(line.as_str().as_bytes()).unwrap();
    }
    assert_eq!(all.snapshot().unwrap().to_text().unwrap(), second);
    let (snapshot, _) = pruned_twice().1[0].clone();
    let mut resumed = Verifier::resume(Snapshot::read(&snapshot).unwrap()).unwrap();
    before[first..].iter().for_each(|line| drop(resumed.feed(line.as_str().as_bytes()).unwrap()));
    assert_eq!(resumed.snapshot().unwrap().to_text().unwrap(), second);
}

#[test]
fn a_snapshot_that_no_leaf_names_carries_nothing() {
    let (log, [(snapshot, from), _]) = pruned_twice();
    let good = Snapshot::read(&snapshot).unwrap();
    // A used token is taken out, a session is made to be another's: the chain goes on as before.
    let mut fewer = good.clone();
    assert!(fewer.state.tokens.remove(&text("t-s-2")).is_some());
    let mut other = good.clone();
    other.state.bundle.insert(text("policy"), text("version 9"));
    for forged in [fewer, other] {
        let forged = Snapshot::read(&forged.to_text().unwrap()).unwrap();
        let fault = feed(Verifier::resume(forged).unwrap(), &log.lines[from..]).unwrap_err();
        assert_eq!((fault.kind, fault.seq), (FaultKind::Snapshot, u64::try_from(from).unwrap()));
    }
    // Nor does it serve at another place of the log.
    let mut later = Verifier::resume(good.clone()).unwrap();
    assert_eq!(later.feed(log.lines[from + 1].as_str().as_bytes()).unwrap_err().kind, FaultKind::Sequence);
    let mut short = good;
    short.tree = Frontier::default();
    assert_eq!(Verifier::resume(short).unwrap_err().kind, FaultKind::Snapshot);
}

#[test]
fn a_prune_that_vouches_for_other_guards_than_the_lines_lead_to_is_found() {
    let mut log = Log::begin("casemate/party-1/a", Entry::genesis());
    log.session("s-1");
    let mut snapshot = log.verifier().snapshot().unwrap();
    snapshot.state.tokens.clear();
    log.add(Entry::admin(Op::Prune).guarding(vec![Snapshot::guard(&snapshot.to_text().unwrap())]));
    let fault = feed(Verifier::new(), &log.lines).unwrap_err();
    assert_eq!((fault.kind, fault.seq), (FaultKind::Snapshot, 3));
}

/// What a log rests on that has no line yet.
fn carried(log: &str, state: State) -> Snapshot {
    Snapshot::before_first(log.parse().unwrap(), state, At::new(time(0)).unwrap())
}

#[test]
fn a_log_that_takes_the_place_of_another_rests_on_what_its_genesis_names() {
    let old = Log::begin("casemate/party-1/a", Entry::genesis());
    let mut state = State::default();
    state.shares.insert(text("share-1"), text("active"));
    let snapshot = carried("casemate/party-1/b", state.clone()).to_text().unwrap();
    let recovery = Recovery {
        verdict: text("rollback"),
        anchored: None,
        found: Some(Place { log: old.head.log().clone(), size: 1, root: old.head.root() }),
        statement: Digest32([5; 32]),
    };
    let signer = Approval { name: text("ann"), org: text("security"), statement: Digest32([5; 32]) };
    let genesis = Entry::genesis().recovering(recovery, vec![signer]).guarding(vec![Snapshot::guard(&snapshot)]);
    let mut log = Log::begin("casemate/party-1/b", genesis);
    log.session("s-9");
    let resumed = Verifier::resume(Snapshot::read(&snapshot).unwrap()).unwrap();
    let (report, after) = feed(resumed, &log.lines).unwrap();
    assert_eq!(report.size, 3);
    assert_eq!(after.shares, state.shares);
    assert_eq!(after.recovered, Some(At::new(time(0)).unwrap()));
    // With other guards it does not.
    let other = carried("casemate/party-1/b", State::default());
    assert_eq!(feed(Verifier::resume(other).unwrap(), &log.lines).unwrap_err().kind, FaultKind::Snapshot);
    // An auditor without the snapshot can still verify the lines.
    assert_eq!(feed(Verifier::new(), &log.lines).unwrap().0.root, report.root);
}
