//! Which approvals of a request count, and what each of the others is ignored for. Keys and signatures are `ssh-keygen`'s.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use casemate_policy::AllowedSigners;
use casemate_policy::approval::{
    Act, BackupParameters, Counted, Expected, KeygenParameters, Nonce, NotCounted, Participant, RevokeParameters,
    RotateParameters, SignParameters, Slot, Statement, count,
};
use casemate_policy::signers::SignatureError;
use casemate_wire::api::{Approval, MAX_APPROVALS};
use casemate_wire::rotation::Auxiliary;
use casemate_wire::{Digest32, ShareType};
use common::ssh::{APPROVAL, Key, POLICY};
use common::*;
use jiff::{SignedDuration, Timestamp};
use p256::pkcs8::EncodePublicKey;
use sha2::Digest;

const BUNDLE: Digest32 = Digest32([5; 32]);

fn sign() -> Act {
    let parameters = SignParameters { message_hash: Digest32([1; 32]), derivation_path: Some("m/0/1".into()) };
    Act::Sign { key: KEY.parse().unwrap(), parameters }
}

fn participant(number: u8) -> Participant {
    let secret = p256::SecretKey::from_slice(&[number; 32]).unwrap();
    let identity = secret.public_key().to_public_key_der().unwrap();
    Participant {
        party_id: format!("party-{number}").parse().unwrap(),
        identity: casemate_wire::IdentityKey::from_spki(identity.as_bytes()).unwrap(),
    }
}

fn keygen() -> Act {
    Act::Keygen {
        slot: Slot { share_type: ShareType::Wallet, threshold_t: 2, threshold_n: 2, label: Some("hot".into()) },
        parameters: KeygenParameters { participants: vec![participant(1), participant(2)] },
    }
}

fn rotate() -> Act {
    let participants = vec![participant(1), participant(3)];
    let parameters =
        RotateParameters { participants, threshold_t: 2, epoch: 3, from_epoch: 1, auxiliary: Auxiliary::Fresh };
    Act::Rotate { key: KEY.parse().unwrap(), parameters }
}

fn revoke() -> Act {
    let parameters = RevokeParameters { party_id: "party-1".parse().unwrap(), reason: "lost".into() };
    Act::Revoke { key: KEY.parse().unwrap(), parameters }
}

fn backup() -> Act {
    let parameters = BackupParameters { party_id: "party-1".parse().unwrap(), recipients: vec!["age1x".into()] };
    Act::Backup { parameters }
}

fn statement(act: &Act) -> Statement {
    let expires = noon() + SignedDuration::from_hours(1);
    Statement { act: act.clone(), bundle: BUNDLE, expires, nonce: Nonce::from_bytes([9; 16]) }
}

fn signed(key: &Key, text: &str) -> Approval {
    Approval::new(text.to_owned(), key.sign(APPROVAL, text.as_bytes())).unwrap()
}

fn approval(key: &Key, act: &Act) -> Approval {
    signed(key, &statement(act).to_text().unwrap())
}

fn counted(items: &[Approval], act: &Act, allowed: &str) -> Counted {
    count_used(items, act, allowed, |_| false)
}

fn count_used(items: &[Approval], act: &Act, allowed: &str, used: impl Fn(&Digest32) -> bool) -> Counted {
    let expected = Expected { act, bundle: BUNDLE, now: noon() };
    count(items, &expected, &AllowedSigners::parse(allowed).unwrap(), used)
}

/// Why the only approval does not count.
fn ignored(item: Approval, act: &Act, allowed: &str) -> NotCounted {
    let mut counted = counted(&[item], act, allowed);
    assert_eq!((counted.counted.len(), counted.ignored.len()), (0, 1));
    assert_eq!(counted.approvals, casemate_policy::Approvals::none());
    counted.ignored.remove(0).why
}

fn approvers(counted: &Counted) -> Vec<&str> {
    counted.counted.iter().map(|one| one.approver.as_str()).collect()
}

/// What policies see, as a bundle that asks for it says.
fn policies_see(counted: &Counted, people: u16, orgs: u16) -> bool {
    let cedar = format!(
        r#"@id("p") forbid (principal, action, resource)
        unless {{ context.approvals.count == {people} && context.approvals.distinct_orgs == {orgs} }};"#
    );
    let case = r#"[{"name": "none", "request": {"principal": {"name": "coordinator"}, "action": "Backup",
        "resource": {"appliance": {}}, "context": {"approvals": {"count": 99}}},
        "expect": {"verdict": "deny", "policies": ["p"]}}]"#;
    let allowed = ONE_ALLOWED.replace(
        r#""resource": { "appliance": {} }"#,
        &format!(r#""resource": {{ "appliance": {{}} }}, "context": {{"approvals": {{"count": {people}, "distinct_orgs": {orgs}}}}}"#),
    );
    let bundle = load(&folder(&[
        ("all.cedar", ALLOW_ALL),
        ("more.cedar", &cedar),
        ("tests/a.json", &allowed),
        ("tests/b.json", case),
    ]))
    .unwrap();
    let mut request = to_sign(None);
    (request.action, request.resource) = (casemate_policy::Action::Backup, casemate_policy::Resource::Appliance);
    request.approvals = counted.approvals.clone();
    matches!(judge(&bundle, &request), casemate_policy::Verdict::Allow(_))
}

#[test]
fn people_and_organisations_are_counted_for_policies() {
    let keys = [Key::new("ed25519"), Key::new("ecdsa"), Key::new("ed25519-sk"), Key::new("ecdsa-sk")];
    let people = ["alice@acme", "bob@globex", "carol@acme", "alice@globex"];
    let allowed: String = keys.iter().zip(people).map(|(key, name)| key.line(name)).collect();
    let items: Vec<Approval> = keys.iter().map(|key| approval(key, &sign())).collect();
    let counted = counted(&items, &sign(), &allowed);
    assert_eq!(approvers(&counted), people);
    assert!(counted.ignored.is_empty(), "{:?}", counted.ignored);
    assert!(policies_see(&counted, 4, 2));
    assert!(!policies_see(&counted, 3, 2));
    let text = statement(&sign()).to_text().unwrap();
    assert_eq!(counted.counted[0].statement, Digest32(sha2::Sha256::digest(text).into()));
}

#[test]
fn one_person_counts_once_whatever_the_number_of_keys_and_statements() {
    let (first, second) = (Key::new("ed25519"), Key::new("ecdsa"));
    let allowed = first.line("alice@acme") + &second.line("alice@acme");
    let mut other = statement(&sign());
    other.nonce = Nonce::from_bytes([10; 16]);
    let items = [
        approval(&first, &sign()),
        approval(&first, &sign()),
        approval(&second, &sign()),
        signed(&first, &other.to_text().unwrap()),
    ];
    let counted = counted(&items, &sign(), &allowed);
    assert_eq!(approvers(&counted), ["alice@acme"]);
    assert!(policies_see(&counted, 1, 1));
    assert_eq!(counted.ignored.iter().map(|one| one.index).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(counted.ignored.iter().all(|one| matches!(one.why, NotCounted::SamePerson(_))));
    assert!(counted.ignored[0].to_string().contains("alice@acme has approved already"));
}

#[test]
fn an_approval_of_anything_else_does_not_count_and_says_what_differs() {
    let key = Key::new("ed25519");
    let allowed = key.line("alice@acme");
    let differing = |asked: &Act, edit: fn(&mut Act)| {
        let mut other = asked.clone();
        edit(&mut other);
        assert_ne!(other, *asked);
        match ignored(approval(&key, &other), asked, &allowed) {
            NotCounted::Foreign(what) => what,
            why => panic!("{why}"),
        }
    };
    let other_key = |act: &mut Act| {
        let other = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5".parse().unwrap();
        match act {
            Act::Sign { key, .. } | Act::Rotate { key, .. } | Act::Revoke { key, .. } => *key = other,
            Act::Keygen { .. } | Act::Backup { .. } => panic!("no key"),
        }
    };
    for act in [sign(), rotate(), revoke()] {
        assert_eq!(differing(&act, other_key), "the key");
    }
    assert_eq!(differing(&sign(), |act| *act = keygen()), "the action");
    assert_eq!(differing(&keygen(), |act| *act = backup()), "the action");
    let edits: [Edited; 12] = [
        (sign(), |act| with(act, |p: &mut SignParameters| p.message_hash.0[31] ^= 1), "the message hash"),
        (sign(), |act| with(act, |p: &mut SignParameters| p.derivation_path = None), "the derivation path"),
        (
            sign(),
            |act| with(act, |p: &mut SignParameters| p.derivation_path = Some("m/0/2".into())),
            "the derivation path",
        ),
        (keygen(), |act| with(act, |slot: &mut Slot| slot.threshold_t = 1), "the new key's kind, threshold or label"),
        (keygen(), |act| with(act, |p: &mut KeygenParameters| p.participants.reverse()), "the list of participants"),
        (
            rotate(),
            |act| with(act, |p: &mut RotateParameters| p.participants[1].identity = participant(4).identity),
            "the new roster, threshold or epoch",
        ),
        (rotate(), |act| with(act, |p: &mut RotateParameters| p.epoch = 4), "the new roster, threshold or epoch"),
        (rotate(), |act| with(act, |p: &mut RotateParameters| p.threshold_t = 1), "the new roster, threshold or epoch"),
        (rotate(), |act| with(act, |p: &mut RotateParameters| p.from_epoch = 2), "the epoch that is dealt from"),
        (
            rotate(),
            |act| with(act, |p: &mut RotateParameters| p.auxiliary = Auxiliary::Keep),
            "what becomes of the auxiliary information",
        ),
        (
            revoke(),
            |act| with(act, |p: &mut RevokeParameters| p.party_id = "party-2".parse().unwrap()),
            "the party or the reason",
        ),
        (
            backup(),
            |act| with(act, |p: &mut BackupParameters| p.recipients.push("age1y".into())),
            "the party or the list of recipients",
        ),
    ];
    for (asked, edit, what) in edits {
        assert_eq!(differing(&asked, edit), what);
    }
}

/// An act, how an approval of it is made to differ, and what is said of it.
type Edited = (Act, fn(&mut Act), &'static str);

/// Changes the part of an act that has this type.
fn with<T: 'static>(act: &mut Act, edit: impl FnOnce(&mut T)) {
    let parts: Vec<&mut dyn std::any::Any> = match act {
        Act::Sign { key, parameters } => vec![key, parameters],
        Act::Keygen { slot, parameters } => vec![slot, parameters],
        Act::Rotate { key, parameters } => vec![key, parameters],
        Act::Revoke { key, parameters } => vec![key, parameters],
        Act::Backup { parameters } => vec![parameters],
    };
    edit(parts.into_iter().find_map(|part| part.downcast_mut::<T>()).unwrap());
}

#[test]
fn an_approval_counts_only_under_the_bundle_that_it_names_and_in_its_time() {
    let key = Key::new("ed25519");
    let allowed = key.line("alice@acme");
    let edited = |edit: &dyn Fn(&mut Statement)| {
        let mut statement = statement(&sign());
        edit(&mut statement);
        signed(&key, &statement.to_text().unwrap())
    };
    let bundle = ignored(edited(&|statement| statement.bundle = Digest32([6; 32])), &sign(), &allowed);
    assert!(matches!(bundle, NotCounted::Bundle { .. }));
    assert!(bundle.to_string().contains("approve again"));

    let second = SignedDuration::from_secs(1);
    let week = SignedDuration::from_hours(7 * 24);
    let expiring = |at: Timestamp| edited(&|statement| statement.expires = at);
    assert!(matches!(ignored(expiring(noon() - second), &sign(), &allowed), NotCounted::Expired(_)));
    assert!(matches!(ignored(expiring(Timestamp::MIN), &sign(), &allowed), NotCounted::Expired(_)));
    assert!(matches!(ignored(expiring(noon() + week + second), &sign(), &allowed), NotCounted::LivesTooLong(_)));
    assert!(matches!(ignored(expiring(Timestamp::MAX), &sign(), &allowed), NotCounted::LivesTooLong(_)));
    for good in [noon(), noon() + week] {
        assert_eq!(approvers(&counted(&[expiring(good)], &sign(), &allowed)), ["alice@acme"]);
    }
}

#[test]
fn everything_but_signing_is_approved_once() {
    let key = Key::new("ed25519");
    let allowed = key.line("alice@acme");
    for act in [keygen(), rotate(), revoke(), backup()] {
        let items = [approval(&key, &act)];
        let first = counted(&items, &act, &allowed);
        let digest = first.counted[0].statement;
        let again = count_used(&items, &act, &allowed, |used| *used == digest);
        assert_eq!((again.counted.len(), &again.ignored[0].why), (0, &NotCounted::Used));
    }
    let items = [approval(&key, &sign())];
    assert_eq!(count_used(&items, &sign(), &allowed, |_| true).counted.len(), 1);
}

#[test]
fn signatures_that_are_not_an_approvers_own_do_not_count() {
    let (key, stranger) = (Key::new("ed25519"), Key::new("ed25519"));
    let allowed = key.line("alice@acme");
    let text = statement(&sign()).to_text().unwrap();
    let why = |signature: String| match ignored(Approval::new(text.clone(), signature).unwrap(), &sign(), &allowed) {
        NotCounted::Signature(why) => why,
        why => panic!("{why}"),
    };
    assert!(matches!(why(key.sign(POLICY, text.as_bytes())), SignatureError::Namespace { .. }));
    assert!(matches!(why(stranger.sign(APPROVAL, text.as_bytes())), SignatureError::UnknownKey { .. }));
    assert!(matches!(why(key.sign(APPROVAL, b"something else")), SignatureError::Wrong));
    assert!(matches!(why(String::new()), SignatureError::Malformed(_)));

    let spaced = Approval::new(text.replace(':', ": "), key.sign(APPROVAL, text.as_bytes())).unwrap();
    assert!(matches!(ignored(spaced, &sign(), &allowed), NotCounted::Signature(SignatureError::Wrong)));

    let untouched = Key::with("ed25519-sk", &["-O", "no-touch-required"]);
    let why = ignored(approval(&untouched, &sign()), &sign(), &untouched.line("alice@acme"));
    assert_eq!(why, NotCounted::Signature(SignatureError::NoUserPresence));
    assert!(why.to_string().contains("without anyone touching it"));

    let signer = key.line("alice@acme namespaces=\"casemate-policy\"");
    assert!(matches!(
        ignored(approval(&key, &sign()), &sign(), &signer),
        NotCounted::Signature(SignatureError::NotAllowed { .. })
    ));
    let expired = key.line("alice@acme valid-before=\"20250602115959Z\"");
    assert!(matches!(
        ignored(approval(&key, &sign()), &sign(), &expired),
        NotCounted::Signature(SignatureError::Expired { .. })
    ));
}

#[test]
fn what_is_signed_must_be_a_statement_to_the_letter() {
    let key = Key::new("ed25519");
    let allowed = key.line("alice@acme");
    let good = statement(&sign()).to_text().unwrap();
    let spaced = good.replace(',', ",\n ");
    assert_eq!(approvers(&counted(&[signed(&key, &spaced)], &sign(), &allowed)), ["alice@acme"]);
    for (from, to) in [
        ("\"v\":1", "\"v\":2"),
        ("\"v\":1", "\"v\":1,\"v\":1"),
        ("\"v\":1", "\"v\":1,\"why\":\"because\""),
        ("\"v\":1,", ""),
        ("\"action\":\"sign\"", "\"action\":\"Sign\""),
        ("\"action\":\"sign\"", "\"action\":\"sign\",\"action\":\"sign\""),
        ("\"action\":\"sign\"", "\"action\":\"backup\""),
        ("\"message_hash\":", "\"message_hash\":\"00\",\"message_hash\":"),
        ("\"message_hash\":", "\"hash\":\"00\",\"message_hash\":"),
        ("\"derivation_path\"", "\"path\""),
        ("\"bundle\":", "\"bundle\":null,\"bundle\":"),
        ("09090909090909090909090909090909", "090909090909090909090909090909"),
        ("09090909090909090909090909090909", "0909090909090909090909090909090A"),
        ("2025-06-02T13:00:00Z", "2025-06-02T13:00:00"),
        ("}", ""),
    ] {
        assert!(good.contains(from), "{good}");
        let text = good.replacen(from, to, 1);
        assert!(matches!(ignored(signed(&key, &text), &sign(), &allowed), NotCounted::Statement(_)), "{text}");
    }
    for text in [String::new(), "[".repeat(10_000), good.clone() + "{}"] {
        assert!(matches!(ignored(signed(&key, &text), &sign(), &allowed), NotCounted::Statement(_)), "{text}");
    }
}

#[test]
fn statements_of_every_act_read_back_as_written() {
    for act in [sign(), keygen(), rotate(), revoke(), backup()] {
        let statement = statement(&act);
        assert_eq!(Statement::parse(&statement.to_text().unwrap()).unwrap(), statement);
        assert!(!act.summary().is_empty());
    }
}

#[test]
fn a_rotations_statement_says_what_is_dealt_from_and_what_becomes_of_auxiliary_information() {
    let mut act = rotate();
    with(&mut act, |p: &mut RotateParameters| p.participants.truncate(1));
    let identity = serde_json::to_string(&participant(1).identity).unwrap();
    let text = format!(
        r#"{{"action":"rotate","v":1,"key":"{KEY}","parameters":{{"participants":[{{"party_id":"party-1","identity":{identity}}}],"threshold_t":2,"epoch":3,"from_epoch":1,"auxiliary":"fresh"}},"bundle":"{BUNDLE}","expires":"2025-06-02T13:00:00Z","nonce":"09090909090909090909090909090909"}}"#
    );
    assert_eq!(statement(&act).to_text().unwrap(), text);
    for part in [r#","from_epoch":1"#, r#","auxiliary":"fresh""#] {
        assert!(Statement::parse(&text.replace(part, "")).is_err(), "a statement without {part}");
    }
    assert!(Statement::parse(&text.replace("fresh", "old")).is_err());
    let words = act.summary();
    assert!(words.contains("from epoch 1 to epoch 3") && words.contains("auxiliary information: made anew"), "{words}");
    with(&mut act, |p: &mut RotateParameters| p.auxiliary = Auxiliary::Keep);
    assert!(act.summary().contains("heals no host that was compromised"), "{}", act.summary());
}

#[test]
fn approvals_behind_the_sixteenth_are_not_looked_at() {
    let key = Key::new("ed25519");
    let mut items = vec![Approval::new(String::new(), String::new()).unwrap(); MAX_APPROVALS];
    items.push(approval(&key, &sign()));
    let counted = counted(&items, &sign(), &key.line("alice@acme"));
    assert_eq!((counted.counted.len(), &counted.ignored[MAX_APPROVALS].why), (0, &NotCounted::TooMany));
}
