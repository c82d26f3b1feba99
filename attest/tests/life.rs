//! The life of shares, KEKs and backups in the log: where each change may stand, and what may follow what. Whoever forges
//! leaves, with the chain made anew, is bound by the same rules.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_wrap)]

mod common;

use casemate_attest::{
    Act, Approval, Entry, FaultKind, Guard, GuardChange, Op, Origin, Outcome, ShareState, State, Transition, Verifier,
    describe,
};
use casemate_wire::Digest32;
use common::{Log, allow, change, deny, fault, key, origin, sample, sign, signature, threshold, time, values, verify};

fn share(id: &str, to: ShareState) -> GuardChange {
    change(Guard::Share, id, to.as_str())
}

fn pending() -> GuardChange {
    share("share-1", ShareState::Pending)
}

fn active() -> GuardChange {
    share("share-1", ShareState::Active)
}

fn digest(byte: u8) -> Digest32 {
    Digest32([byte; 32])
}

fn operator() -> Origin {
    Origin { session: None, ..origin("ann") }
}

fn revoke(shares: Vec<GuardChange>) -> Entry {
    Entry::admin(Op::Revoke).asked_by(operator()).guarding(shares)
}

fn restore(shares: &[&str]) -> Entry {
    let shares = shares.iter().map(|id| share(id, ShareState::Restored));
    let from = change(Guard::Backup, "backup-1", &format!("restored {}", digest(7)));
    Entry::admin(Op::Restore).guarding(shares.chain([from]).collect())
}

fn failed() -> Outcome {
    Outcome::failed("timeout".parse().unwrap(), "a party was silent".parse().unwrap())
}

/// Why the writer refuses this entry after the sample log.
fn refused(entry: Entry) -> String {
    sample().head.append(entry, time(20)).unwrap_err().to_string()
}

fn keygen(log: &mut Log, session: &str, id: &str) {
    let intent = log.intend(Act::Keygen, session);
    log.add(Entry::admin(Op::Share).guarding(vec![share(id, ShareState::Pending)]));
    log.add(Entry::key_made(intent, key(), threshold()).guarding(vec![share(id, ShareState::Active)]));
}

/// Epoch `epoch`: `new` takes the place of `old`.
fn rotate(log: &mut Log, session: &str, epoch: u64, (old, new): (&str, &str)) {
    let intent = log.intend(Act::Rotate { key: key() }, session);
    log.add(Entry::admin(Op::Share).guarding(vec![share(new, ShareState::Pending)]));
    let switched = vec![share(new, ShareState::Active), share(old, ShareState::Rotated)];
    log.add(Entry::rotated(intent, threshold(), epoch).guarding(switched));
}

fn state(log: &Log) -> State {
    let mut verifier = Verifier::new();
    for line in &log.lines {
        verifier.feed(line.as_str().as_bytes()).unwrap();
    }
    verifier.state().clone()
}

/// The fault of a log that goes on with these changes of guards in a leaf of this op.
fn goes_wrong(mut log: Log, op: Op, changes: &[GuardChange]) -> String {
    let place = log.lines.len();
    log.add(Entry::admin(op).asked_by(operator()).guarding(changes.to_vec()));
    assert_eq!(fault(&log.texts()), (FaultKind::Guard, place));
    verify(&log.texts()).unwrap_err().what
}

#[test]
fn a_share_lives_through_keygen_rotation_and_destruction() {
    let mut log = Log::begin("casemate/party-1/life");
    keygen(&mut log, "s-1", "share-1");
    rotate(&mut log, "s-2", 1, ("share-1", "share-2"));
    log.add(Entry::admin(Op::Share).guarding(vec![share("share-1", ShareState::Destroyed)]));
    log.add(restore(&["share-9"]));
    log.add(revoke(vec![share("share-2", ShareState::Revoked), share("share-9", ShareState::Revoked)]));
    verify(&log.texts()).unwrap();
    let shares: Vec<_> = state(&log).shares.into_iter().map(|(id, to)| format!("{id} {to}")).collect();
    assert_eq!(shares, ["share-1 destroyed", "share-2 revoked", "share-9 revoked"]);
    let spoken = describe::describe(log.lines[6].leaf(), None);
    assert!(spoken.contains("rotate") && spoken.contains("completed (epoch 1)"), "{spoken}");
}

/// Every change from every state, each forged into a leaf where a change to that state may stand at all.
#[test]
fn only_the_legal_changes_pass_from_every_state() {
    for from in ShareState::ALL {
        for to in ShareState::ALL {
            let mut log = Log::begin("casemate/party-1/life");
            reach(&mut log, from);
            put(&mut log, to);
            let place = log.lines.len() - 1;
            let found = verify(&log.texts());
            if Transition::between(Some(from), to).is_some() {
                found.unwrap();
                continue;
            }
            let found = found.unwrap_err();
            assert_eq!((found.kind, found.seq), (FaultKind::Guard, place as u64), "{from} to {to}");
            assert!(found.what.contains(&format!("share-1 goes from {from} to {to}")), "{}", found.what);
        }
    }
}

/// Brings share-1 into a state.
fn reach(log: &mut Log, state: ShareState) {
    match state {
        ShareState::Pending | ShareState::Restored => put(log, state),
        ShareState::Active | ShareState::Revoked | ShareState::Destroyed => {
            put(log, ShareState::Pending);
            put(log, state);
        }
        ShareState::Rotated => {
            put(log, ShareState::Restored);
            put(log, ShareState::Rotated);
        }
    }
}

/// One leaf that changes share-1 to a state, fit for that state.
fn put(log: &mut Log, state: ShareState) {
    let to = share("share-1", state);
    let entry = match state {
        ShareState::Revoked => revoke(vec![to]),
        ShareState::Restored => restore(&["share-1"]),
        ShareState::Rotated => {
            let new = format!("new-{}", log.lines.len());
            log.add(Entry::admin(Op::Share).guarding(vec![share(&new, ShareState::Pending)]));
            Entry::admin(Op::Share).guarding(vec![to, share(&new, ShareState::Active)])
        }
        ShareState::Pending | ShareState::Active | ShareState::Destroyed => Entry::admin(Op::Share).guarding(vec![to]),
    };
    log.add(entry);
}

#[test]
fn a_share_that_was_never_made_becomes_nothing_else() {
    for to in ["active", "destroyed"] {
        let why = goes_wrong(sample(), Op::Share, &[change(Guard::Share, "share-0", to)]);
        assert!(why.contains(&format!("goes from nothing to {to}")), "{why}");
    }
}

#[test]
fn a_share_changes_in_no_other_leaf() {
    let intent = |act, guards| Entry::intent(act, origin("s-9"), allow()).guarding(guards);
    let rotation = Act::Rotate { key: key() };
    let refusal = || Entry::refusal(Op::Sign, origin("s-9"), "policy_denied".parse().unwrap()).decided(deny());
    let [rotated, destroyed, revoked, restored] =
        [ShareState::Rotated, ShareState::Destroyed, ShareState::Revoked, ShareState::Restored]
            .map(|to| share("share-1", to));
    let epoch = |to: &str| change(Guard::Epoch, &key().to_string(), to);
    for (case, entry, words) in vec![
        ("made by a signature", intent(sign(), vec![pending()]), "made by a keygen"),
        ("made by a refusal", refusal().guarding(vec![pending()]), "made by a keygen"),
        ("active before a keygen", intent(Act::Keygen, vec![active()]), "all parties confirmed"),
        ("active by a refusal", refusal().guarding(vec![active()]), "all parties confirmed"),
        ("active by a boot", Entry::boot().guarding(vec![active()]), "all parties confirmed"),
        ("active by a policy", Entry::admin(Op::Policy).guarding(vec![active()]), "all parties confirmed"),
        ("active by a revocation", revoke(vec![active()]), "all parties confirmed"),
        ("rotated by a policy", Entry::admin(Op::Policy).guarding(vec![rotated.clone()]), "takes its place"),
        ("rotated by an intent alone", intent(rotation.clone(), vec![rotated.clone()]), "takes its place"),
        ("an epoch by a signature", intent(sign(), vec![epoch("2")]), "intent of a rotation"),
        ("another key's epoch", intent(rotation.clone(), vec![change(Guard::Epoch, "other", "2")]), "its own key"),
        ("an epoch that is none", intent(rotation, vec![epoch("02")]), "is a number"),
        ("destroyed by an intent", intent(sign(), vec![destroyed.clone()]), "destroyed in its own"),
        ("destroyed by a revocation", revoke(vec![destroyed]), "destroyed in its own"),
        ("revoked elsewhere", Entry::admin(Op::Share).guarding(vec![revoked.clone()]), "revoked in its own"),
        ("revoked by a signature", intent(sign(), vec![revoked.clone()]), "revoked in its own"),
        ("revoked by nobody", Entry::admin(Op::Revoke).guarding(vec![revoked]), "somebody revokes"),
        ("nothing revoked", revoke(Vec::new()), "names its shares"),
        ("restored elsewhere", Entry::admin(Op::Share).guarding(vec![restored.clone()]), "restored in its own"),
        ("restored from nowhere", Entry::admin(Op::Restore).guarding(vec![restored]), "names its backup"),
        (
            "in no state",
            Entry::admin(Op::Share).guarding(vec![change(Guard::Share, "share-1", "ready")]),
            "no such state",
        ),
        ("twice", Entry::admin(Op::Share).guarding(vec![pending(), active()]), "changes one row once"),
    ] {
        let why = refused(entry);
        assert!(why.contains(words), "{case}: {why}");
    }
}

#[test]
fn a_failed_keygen_or_rotation_confirms_nothing() {
    for act in [Act::Keygen, Act::Rotate { key: key() }] {
        let mut log = sample();
        let intent = log.intend(act, "s-9");
        let head = log.head;
        let entry = Entry::outcome(intent, failed()).guarding(vec![active()]);
        assert!(head.append(entry, time(30)).unwrap_err().to_string().contains("all parties confirmed"));
    }
}

#[test]
fn a_certificate_confirms_a_share_in_the_intent_that_shows_it_and_abandons_what_it_supersedes() {
    let mut log = sample();
    keygen(&mut log, "s-8", "share-1");
    for id in ["share-2", "share-3"] {
        log.add(Entry::admin(Op::Share).guarding(vec![share(id, ShareState::Pending)]));
    }
    let adopts = vec![
        share("share-3", ShareState::Active),
        share("share-1", ShareState::Rotated),
        share("share-2", ShareState::Destroyed),
    ];
    log.add(Entry::intent(sign(), origin("s-9"), allow()).guarding(adopts));
    verify(&log.texts()).unwrap();
}

/// Who leaves the committee gets no other share.
#[test]
fn a_rotation_ends_the_share_of_a_party_that_leaves() {
    let mut log = Log::begin("casemate/party-1/life");
    keygen(&mut log, "s-1", "share-1");
    let intent = log.intend(Act::Rotate { key: key() }, "s-2");
    log.add(Entry::rotated(intent, threshold(), 1).guarding(vec![share("share-1", ShareState::Rotated)]));
    verify(&log.texts()).unwrap();
}

#[test]
fn a_rotation_names_its_key_its_epoch_and_its_threshold() {
    let begun = || {
        let mut log = sample();
        let intent = log.intend(Act::Rotate { key: key() }, "s-9");
        (log, intent)
    };
    let (log, intent) = begun();
    let without = Entry::outcome(intent, Outcome::key_made(threshold()));
    assert!(log.head.append(without, time(30)).unwrap_err().to_string().contains("epoch"));
    let (log, intent) = begun();
    let signed = Entry::outcome(intent, Outcome::signed(signature()));
    assert!(log.head.append(signed, time(30)).is_err());
    let (log, intent) = begun();
    let endless = Entry::rotated(intent, threshold(), u64::MAX);
    assert!(log.head.append(endless, time(30)).unwrap_err().to_string().contains("2^53"));
    let mut log = sample();
    let intent = log.intend(Act::Keygen, "s-9");
    let keygen = Entry::outcome(intent, Outcome { epoch: Some(1), ..Outcome::key_made(threshold()) });
    assert!(log.head.append(keygen, time(30)).unwrap_err().to_string().contains("epoch"));
    let (mut log, intent) = begun();
    log.add(Entry::rotated(intent, threshold(), 4));
    let mut leaves = values(&log);
    leaves[13]["key"] = serde_json::json!(common::OTHER_KEY);
    assert_eq!(fault(&common::rechained(&leaves, 13)), (FaultKind::OutcomeMismatch, 13));
}

#[test]
fn a_revocation_uses_its_approvals_up_and_says_who_allowed_it() {
    let approval = Approval { name: "bob".parse().unwrap(), org: "ops".parse().unwrap(), statement: digest(3) };
    let used = change(Guard::Approval, &digest(3).to_string(), "used");
    let revoked = |to: Vec<GuardChange>| {
        revoke([share("share-1", ShareState::Revoked)].into_iter().chain(to).collect())
            .about(Some(key()), None)
            .decided(allow())
            .approved(vec![approval.clone()])
    };
    let mut log = Log::begin("casemate/party-1/life");
    keygen(&mut log, "s-1", "share-1");
    log.add(revoked(vec![used.clone()]).disclosing(common::reason("the host was stolen")));
    verify(&log.texts()).unwrap();
    let spoken = describe::describe(log.lines[4].leaf(), Some(&common::reason("the host was stolen").detail));
    for words in ["revoke", "by coordinator-1", "approved by bob of ops", "because the host was stolen"] {
        assert!(spoken.contains(words), "{spoken}");
    }
    // The same approval serves no keygen afterwards.
    let again =
        Entry::intent(Act::Keygen, origin("s-2"), allow()).approved(vec![approval.clone()]).guarding(vec![used]);
    log.add(again);
    assert_eq!(fault(&log.texts()), (FaultKind::ApprovalUsedTwice, 5));

    assert!(refused(revoked(Vec::new())).contains("is used up"));
    let denied = revoke(vec![share("share-1", ShareState::Revoked)]).decided(deny());
    assert!(refused(denied).contains("stands in a refusal"));
    let undecided =
        revoke(vec![share("share-1", ShareState::Revoked), change(Guard::Approval, &digest(3).to_string(), "used")]);
    assert!(refused(undecided.approved(vec![approval])).contains("where policy decided"));
    // What policy denies is a refusal, and changes nothing.
    let mut log = sample();
    log.add(Entry::refusal(Op::Revoke, operator(), "policy_denied".parse().unwrap()).decided(deny()));
    verify(&log.texts()).unwrap();
}

#[test]
fn a_backup_stays_the_file_that_it_was() {
    let backup = |stage: &str, of: u8| change(Guard::Backup, "backup-1", &format!("{stage} {}", digest(of)));
    let mut log = sample();
    log.add(Entry::admin(Op::Backup).guarding(vec![backup("made", 7)]));
    log.add(Entry::admin(Op::Backup).asked_by(operator()).guarding(vec![backup("verified", 7)]));
    log.add(restore(&["share-1"]));
    verify(&log.texts()).unwrap();
    let begun = || {
        let mut log = sample();
        log.add(Entry::admin(Op::Backup).guarding(vec![backup("made", 7)]));
        log
    };
    assert!(goes_wrong(begun(), Op::Backup, &[backup("verified", 8)]).contains("another file"));
    assert!(goes_wrong(begun(), Op::Backup, &[backup("made", 7)]).contains("made twice"));
    let mut log = begun();
    log.add(Entry::admin(Op::Backup).guarding(vec![change(Guard::Backup, "backup-2", &format!("made {}", digest(8)))]));
    verify(&log.texts()).unwrap();
    for entry in [
        Entry::admin(Op::Share).guarding(vec![backup("made", 7)]),
        Entry::admin(Op::Backup).guarding(vec![backup("restored", 7)]),
        Entry::admin(Op::Backup).guarding(vec![change(Guard::Backup, "backup-1", "verified")]),
        Entry::admin(Op::Backup),
    ] {
        assert!(refused(entry).contains("backup"));
    }
}

#[test]
fn one_kek_is_current_and_a_destroyed_one_does_not_come_back() {
    let kek = |epoch: &str, to: &str| change(Guard::Kek, epoch, to);
    let switched = || {
        let mut log = sample();
        log.add(Entry::admin(Op::Kek).guarding(vec![kek("2", "made")]));
        // The first one was made before the log told of KEKs.
        log.add(Entry::admin(Op::Kek).guarding(vec![kek("2", "current"), kek("1", "retired")]));
        log
    };
    let mut log = switched();
    log.add(Entry::admin(Op::Kek).asked_by(operator()).guarding(vec![kek("1", "destroyed")]));
    verify(&log.texts()).unwrap();
    for (changes, words) in [
        (vec![kek("1", "current")], "goes from destroyed to current"),
        (vec![kek("3", "current")], "two KEKs are current"),
        (vec![kek("2", "destroyed")], "goes from current to destroyed"),
        (vec![kek("2", "made")], "goes from current to made"),
        (vec![kek("0", "made")], "or a later one"),
        (vec![kek("7", "destroyed")], "goes from nothing to destroyed"),
    ] {
        let mut log = switched();
        log.add(Entry::admin(Op::Kek).guarding(vec![kek("1", "destroyed")]));
        let why = goes_wrong(log, Op::Kek, &changes);
        assert!(why.contains(words), "{why}");
    }
    for entry in [
        Entry::admin(Op::Share).guarding(vec![kek("2", "made")]),
        Entry::admin(Op::Kek).guarding(vec![kek("two", "made")]),
        Entry::admin(Op::Kek).guarding(vec![kek("02", "made")]),
        Entry::admin(Op::Kek).guarding(vec![kek("2", "gone")]),
        Entry::admin(Op::Kek),
    ] {
        assert!(refused(entry).contains("KEK"));
    }
}

#[test]
fn a_restore_says_since_when_nothing_earlier_is_known_and_who_signed_for_it() {
    let mut log = sample();
    assert_eq!(state(&log).recovered, None);
    let statement = digest(9);
    let used = change(Guard::Approval, &statement.to_string(), "used");
    let signer = Approval { name: "ann".parse().unwrap(), org: "security".parse().unwrap(), statement };
    let from = change(Guard::Backup, "backup-1", &format!("restored {}", digest(7)));
    let restored = || vec![share("share-9", ShareState::Restored), from.clone()];
    let unused = Entry::admin(Op::Restore).guarding(restored()).approved(vec![signer.clone()]);
    assert!(refused(unused).contains("is used up"), "a statement serves once");
    let mut guards = restored();
    guards.push(used.clone());
    log.add(Entry::admin(Op::Restore).guarding(guards).approved(vec![signer.clone()]));
    let at = state(&log).recovered.unwrap();
    assert_eq!(at, log.lines.last().unwrap().leaf().at);
    let place = log.lines.len();
    let mut guards = vec![share("share-8", ShareState::Restored), from];
    guards.push(used);
    log.add(Entry::admin(Op::Restore).guarding(guards).approved(vec![signer]));
    assert_eq!(fault(&log.texts()), (FaultKind::ApprovalUsedTwice, place));
}
