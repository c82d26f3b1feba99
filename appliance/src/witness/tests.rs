#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use casemate_attest::attestation::AuditClaim;
use casemate_attest::tree::root_at;
use casemate_attest::{Checkpoint, Doubt};
use casemate_wire::Digest32;
use casemate_wire::envelope::{Checkpoint as Stated, Introduction, Witnessed};
use rusqlite::Connection;

use super::*;
use crate::session::{read_body, to_body};
use crate::store::TreeNodes;
use crate::store::testing::{audit_key, grow, log, signed};

fn introduction(party: &str, checkpoint: Stated, witnessed: Vec<Witnessed>) -> Introduction {
    let (kem_key, signing_key, nonce) = ([1; 32], [2; 32], [3; 32]);
    let party = party.parse().unwrap();
    Introduction { party, kem_key, signing_key, nonce, time: 0, checkpoint, witnessed, attest: false }
}

fn at(store: &Connection, log: &str, size: u64) -> Stated {
    Stated { log: log.into(), size, root: root_at(size, &TreeNodes(store)).unwrap() }
}

/// What party-1 makes of a peer that says it has seen this of party-1's log, which has 6 leaves.
fn heard(seen: impl FnOnce(&Connection) -> Stated) -> Hearing {
    let (store, head) = log("log", 6);
    let own = "party-1".parse().unwrap();
    let witnessed = vec![Witnessed { party: "party-1".parse().unwrap(), checkpoint: seen(&store) }];
    let hellos = [
        introduction("party-1", at(&store, "log", 4), Vec::new()),
        introduction("party-2", at(&store, "log", 1), witnessed),
        introduction(
            "party-3",
            at(&store, "log", 1),
            vec![Witnessed {
                party: "party-2".parse().unwrap(),
                checkpoint: Stated { log: "log".into(), size: 99, root: Digest32([1; 32]) },
            }],
        ),
    ];
    Hearing::of(&store, &own, &Checkpoint::of(&head), &hellos).unwrap()
}

#[test]
fn a_proof_is_owed_from_the_hello_and_from_what_each_peer_has_seen() {
    let hearing = heard(|store| at(store, "log", 3));
    assert_eq!((hearing.sizes.iter().copied().collect::<Vec<_>>(), hearing.doubted()), (vec![3, 4], None));
}

#[test]
fn a_peer_that_has_seen_what_the_own_log_does_not_hold_raises_doubt_in_it() {
    let elsewhere = Digest32([7; 32]);
    let says = |hearing: Hearing| (hearing.sizes.len(), hearing.doubted().unwrap());
    let (owed, beyond) = says(heard(|_| Stated { log: "log".into(), size: (1 << 53) - 1, root: elsewhere }));
    assert!(owed == 1 && beyond.contains("party-2 has seen 9007199254740991 leaves"), "{beyond}");
    for size in [0, 3, 6] {
        let (owed, forked) = says(heard(|_| Stated { log: "log".into(), size, root: elsewhere }));
        assert!(owed == 1 && forked.contains("another history"), "{forked}");
    }
    let other = heard(|_| Stated { log: "the-log-before".into(), size: 99, root: elsewhere });
    assert_eq!((other.sizes.len(), other.doubted()), (1, None), "that peer refuses this one");
}

#[test]
fn a_testimony_proves_what_was_asked_and_no_other_log_can_give_it() {
    let (store, head) = log("log", 5);
    let (book, key) = (Book::default(), audit_key(1).1);
    let roster = roster();
    let own = "party-1".parse().unwrap();
    let first = introduction("party-2", at(&store, "log", 5), Vec::new());
    let testify = |store: &Connection, head: &casemate_attest::Head, sizes: &[u64]| {
        let sizes = sizes.iter().copied().collect();
        let testimony = Testimony::make(store, &signed(head, 1), &sizes, None).unwrap();
        read_body::<Testimony>(&roster, 1, &to_body(&testimony).unwrap()).unwrap()
    };
    let question = Question::of(&book, &roster, &own);
    assert!(question.to_witnessed().is_empty(), "nobody was seen before");
    judge(&book, &question, &key, &first, &testify(&store, &head, &[5])).unwrap();

    let question = Question::of(&book, &roster, &own);
    assert_eq!(question.to_witnessed()[0].checkpoint, at(&store, "log", 5));
    let head = grow(&store, head, 7);
    let later = introduction("party-2", at(&store, "log", 9), Vec::new());
    let seen = judge(&book, &question, &key, &later, &testify(&store, &head, &[5, 9])).unwrap();
    assert_eq!((seen.to_logged().size, seen.to_row().checkpoint.size), (12, 12));
    assert_eq!(
        judge(&book, &question, &key, &later, &testify(&store, &head, &[9])).unwrap_err(),
        Unbelieved::Doubt(Doubt::Unproven { from: 5 })
    );
    let (fork, forked) = log("log", 12);
    let lie = introduction("party-2", at(&fork, "log", 9), Vec::new());
    let judged = judge(&book, &question, &key, &lie, &testify(&fork, &forked, &[5, 9]));
    assert!(matches!(judged.unwrap_err(), Unbelieved::Doubt(Doubt::Forked { from: 5, .. })));
}

#[test]
fn an_attestation_is_taken_only_of_the_very_place_that_was_shown() {
    let (store, head) = log("log", 5);
    let (book, key) = (Book::default(), audit_key(1).1);
    let (roster, own) = (roster(), "party-1".parse().unwrap());
    let hello = introduction("party-2", at(&store, "log", 5), Vec::new());
    let testimony = Testimony::make(&store, &signed(&head, 1), &[5].into(), None).unwrap();
    let seen = judge(&book, &Question::of(&book, &roster, &own), &key, &hello, &testimony).unwrap();
    let claim = |log: &str, size: u64, root: Digest32| AuditClaim { origin: log.parse().unwrap(), size, root };
    let (token, root) = (Digest32([9; 32]), head.root());
    let attested = seen.clone().attested(&claim("log", 5, root), token).unwrap();
    assert_eq!(attested.to_logged().attested, Some(token));
    let earlier = root_at(4, &TreeNodes(&store)).unwrap();
    for other in [
        claim("other", 5, root),
        claim("log", 5, Digest32([1; 32])),
        // A place before or after, be it of this log or not: the root could not be compared with the one that was shown.
        claim("log", 4, earlier),
        claim("log", 4, Digest32([1; 32])),
        claim("log", 6, Digest32([1; 32])),
    ] {
        assert!(seen.clone().attested(&other, token).is_none(), "{other:?}");
    }
}

fn roster() -> casemate_wire::Roster {
    let member = |place: u16| {
        let key = p256::ecdsa::SigningKey::from_slice(&[u8::try_from(place).unwrap() + 50; 32]).unwrap();
        let spki = p256::pkcs8::EncodePublicKey::to_public_key_der(key.verifying_key()).unwrap();
        casemate_wire::Member {
            party_id: format!("party-{}", place + 1).parse().unwrap(),
            party_index: place,
            identity: casemate_wire::IdentityKey::from_spki(spki.as_bytes()).unwrap(),
        }
    };
    (0..2).map(member).collect::<Vec<_>>().try_into().unwrap()
}
