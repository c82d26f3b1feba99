//! The coordinator, or a captured party, attacks the exchange of hellos.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::similar_names, clippy::items_after_statements, clippy::semicolon_if_nothing_returned)]

mod envelope_common;

use casemate_wire::envelope::{
    Checkpoint, Fault, Handshake, Limits, Local, LocalFault, MAX_WITNESSED, PeerFault, SessionView, SignedHello, To,
    TransportFault, Witnessed,
};
use casemate_wire::{Code, Digest32, Roster, SessionType, ShareType, Threshold};
use ciborium::Value;
use envelope_common::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

fn transport(result: Result<(), Fault>) -> TransportFault {
    match result {
        Err(fault @ Fault::Transport(_)) => {
            assert_eq!((fault.code(), fault.culprit()), (Code::TransportFault, None));
            let Fault::Transport(inner) = fault else { unreachable!() };
            inner
        }
        other => panic!("{other:?}"),
    }
}

fn peer(result: Result<(), Fault>, culprit: u16) -> PeerFault {
    match result {
        Err(fault @ Fault::Peer { .. }) => {
            assert_eq!(fault.code(), Code::PeerFault);
            assert_eq!(fault.culprit().unwrap().as_str(), name(culprit));
            let Fault::Peer { fault, .. } = fault else { unreachable!() };
            fault
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn honest_parties_reach_one_transcript() {
    for view in [keygen_view(), sign_view()] {
        let channels = channels(&view);
        for channel in &channels {
            assert_eq!(channel.transcript(), channels[0].transcript());
            assert_eq!(channel.execution_id("dkg"), channels[0].execution_id("dkg"));
            assert_ne!(channel.execution_id("dkg"), channel.execution_id("aux"));
            assert_eq!(channel.introductions().count(), channels.len());
        }
    }
    let [first, second] = [keygen_view(), sign_view()].map(|view| channels(&view).remove(0));
    assert_ne!(first.transcript(), second.transcript());
    let said: Vec<_> = second.introductions().map(|own| (own.party.as_str(), own.checkpoint.log.as_str())).collect();
    assert_eq!(said, [("party-0", "log-0"), ("party-2", "log-2")]);
}

#[test]
fn what_is_signed_is_deterministic_cbor_by_another_encoder_too() {
    let handshake = begin(&sign_view(), 0, 1);
    let expected = canonical("casemate/hello/v1", &*hello(&sign_view(), 0, 1).hello);
    assert_eq!(handshake.to_sign(), expected);
}

#[test]
fn every_altered_field_of_a_hello_is_refused_and_blamed_on_nobody() {
    let view = sign_view();
    let honest = hello(&view, 2, 2);
    let value = Value::serialized(&honest).unwrap();
    let mut tried = 0;
    for (path, altered) in alterations(&value) {
        let Ok(altered) = altered.deserialized::<SignedHello>() else {
            continue;
        };
        if altered == honest {
            continue;
        }
        let mut handshake = begin(&view, 0, 1);
        let result = handshake.accept(&altered, now());
        assert!(matches!(result, Err(Fault::Transport(_))), "{path}: {result:?}");
        assert!(handshake.accept(&honest, now()).is_ok(), "{path}: the refused hello left a trace");
        tried += 1;
    }
    assert!(tried > 300, "only {tried} alterations were possible");
}

#[test]
fn another_view_is_a_mismatch_that_names_the_field() {
    type Change = fn(&mut SessionView);
    let changes: [(&str, Change); 8] = [
        ("session_type", |v| v.session_type = SessionType::Keygen),
        ("share_type", |v| v.share_type = Some(ShareType::Admin)),
        ("key", |v| v.key = Some(OTHER_KEY.parse().unwrap())),
        ("epoch", |v| v.epoch = 5),
        ("threshold", |v| v.threshold = Threshold::new(2, 4).unwrap()),
        ("roster", |v| v.roster = Roster::try_from(vec![member(1, 1), member(2, 2)]).unwrap()),
        ("message_hash", |v| v.message_hash = Some(Digest32([0xab; 32]))),
        ("derivation_path", |v| v.derivation_path = None),
    ];
    for (field, change) in changes {
        let mut theirs = hello(&sign_view(), 2, 2);
        change(&mut theirs.hello.view);
        let result = begin(&sign_view(), 0, 1).accept(&forged_hello(theirs, 2), now());
        let Err(fault @ Fault::Mismatch { .. }) = result else {
            panic!("{field}: {result:?}");
        };
        assert_eq!(fault.code(), Code::QuorumMismatch);
        assert_eq!(fault, Fault::Mismatch { party: name(2).parse().unwrap(), field });
    }
}

#[test]
fn one_party_told_to_sign_another_message_stops_both() {
    let mut lied_to = sign_view();
    lied_to.message_hash = Some(Digest32([0xee; 32]));
    let (honest, misled) = (hello(&sign_view(), 0, 1), hello(&lied_to, 2, 2));
    let at_honest = begin(&sign_view(), 0, 1).accept(&misled, now());
    let at_misled = begin(&lied_to, 2, 2).accept(&honest, now());
    for result in [at_honest, at_misled] {
        assert!(matches!(result, Err(Fault::Mismatch { field: "message_hash", .. })), "{result:?}");
    }
}

#[test]
fn a_swapped_identity_or_roster_gets_the_coordinator_nowhere() {
    // It speaks for party-2 with an identity key of its own.
    let mut imposter = sign_view();
    imposter.roster = Roster::try_from(vec![member(0, 0), member(2, 9)]).unwrap();
    let posing = signed(&mut begin(&imposter, 2, 2), 9);
    let result = begin(&sign_view(), 0, 1).accept(&posing, now());
    assert_eq!(transport(result), TransportFault::BadSignature(name(2).parse().unwrap()));

    // It tells the real party-2 a roster with another party-0.
    let mut misled = sign_view();
    misled.roster = Roster::try_from(vec![member(0, 9), member(2, 2)]).unwrap();
    let result = begin(&sign_view(), 0, 1).accept(&hello(&misled, 2, 2), now());
    assert!(matches!(result, Err(Fault::Mismatch { field: "roster", .. })), "{result:?}");

    // It brings somebody who is not in the roster.
    let mut stranger = sign_view();
    stranger.roster = roster(&[1, 2]);
    let result = begin(&sign_view(), 0, 1).accept(&hello(&stranger, 1, 3), now());
    assert_eq!(transport(result), TransportFault::UnknownSender);
}

#[test]
fn hellos_of_other_sessions_and_other_times_are_refused() {
    let mut other = sign_view();
    other.session_id = "session-2".parse().unwrap();
    let result = begin(&sign_view(), 0, 1).accept(&hello(&other, 2, 2), now());
    assert_eq!(transport(result), TransportFault::ForeignSession("session-2".into()));

    for (at, milliseconds) in [(later(30_001), 30_001), (later(-30_001), 30_001)] {
        let result = begin(&sign_view(), 0, 1).accept(&hello(&sign_view(), 2, 2), at);
        assert_eq!(transport(result), TransportFault::Clock { party: name(2).parse().unwrap(), milliseconds });
    }
    for at in [later(30_000), later(-30_000)] {
        assert!(begin(&sign_view(), 0, 1).accept(&hello(&sign_view(), 2, 2), at).is_ok());
    }
}

#[test]
fn a_reflected_hello_is_refused() {
    let own = hello(&sign_view(), 0, 1);
    assert_eq!(transport(begin(&sign_view(), 0, 1).accept(&own, now())), TransportFault::Reflected);
}

#[test]
fn a_second_delivery_is_a_repeat_but_a_second_hello_is_the_peers_fault() {
    let first = hello(&sign_view(), 2, 2);
    let mut handshake = begin(&sign_view(), 0, 1);
    handshake.accept(&first, now()).unwrap();
    let repeat = TransportFault::Repeat(name(2).parse().unwrap());
    assert_eq!(transport(handshake.accept(&first, now())), repeat);
    assert_eq!(transport(handshake.accept(&malleated(&first), now())), repeat);
    assert_eq!(peer(handshake.accept(&hello(&sign_view(), 2, 3), now()), 2), PeerFault::TwoHellos);
}

/// The other valid form of an ECDSA signature, which anyone can compute.
fn malleated(hello: &SignedHello) -> SignedHello {
    let signature = p256::ecdsa::Signature::from_slice(&hello.signature).unwrap();
    let (r, s) = signature.split_scalars();
    let other = p256::ecdsa::Signature::from_scalars(r, -*s).unwrap();
    let mut hello = hello.clone();
    assert_ne!(hello.signature, <[u8; 64]>::from(other.to_bytes()));
    hello.signature = other.to_bytes().into();
    hello
}

#[test]
fn the_other_form_of_a_signature_does_not_split_the_transcript() {
    let view = sign_view();
    let plain = channel(&view, 2, &[1, 2], Limits::default());
    let mut handshake = begin(&view, 0, 1);
    signed(&mut handshake, 0);
    handshake.accept(&malleated(&hello(&view, 2, 2)), now()).unwrap();
    let channel = handshake.finish(&mut StdRng::seed_from_u64(0)).unwrap();
    assert_eq!(channel.transcript(), plain.transcript());
}

#[test]
fn keys_swapped_between_hellos_are_refused() {
    let view = keygen_view();
    let (mut one, mut two) = (hello(&view, 1, 2), hello(&view, 2, 3));
    std::mem::swap(&mut one.hello.own.kem_key, &mut two.hello.own.kem_key);
    let mut handshake = begin(&view, 0, 1);
    for hello in [one, two] {
        let party = hello.hello.own.party.clone();
        assert_eq!(transport(handshake.accept(&hello, now())), TransportFault::BadSignature(party));
    }
}

#[test]
fn a_peer_that_copies_keys_is_named_if_the_copy_is_ours() {
    let view = keygen_view();
    let ours = hello(&view, 0, 1).hello.own.clone();
    type Copying = fn(&mut SignedHello, &casemate_wire::envelope::Introduction);
    let copies: [(&str, Copying); 3] = [
        ("X25519 key", |hello, from| hello.hello.own.kem_key = from.kem_key),
        ("signing key", |hello, from| hello.hello.own.signing_key = from.signing_key),
        ("nonce", |hello, from| hello.hello.own.nonce = from.nonce),
    ];
    for (field, copy) in copies {
        let mut copied = hello(&view, 1, 2);
        copy(&mut copied, &ours);
        let result = begin(&view, 0, 1).accept(&forged_hello(copied, 1), now());
        assert_eq!(peer(result, 1), PeerFault::CopiedFromUs(field));

        // Among two others it cannot be told who copied, so nobody is named as the culprit.
        let original = hello(&view, 1, 2);
        let mut copied = hello(&view, 2, 3);
        copy(&mut copied, &original.hello.own);
        let mut handshake = begin(&view, 0, 1);
        handshake.accept(&original, now()).unwrap();
        let fault = handshake.accept(&forged_hello(copied, 2), now()).unwrap_err();
        let (first, second) = (name(1).parse().unwrap(), name(2).parse().unwrap());
        assert_eq!(fault, Fault::Clash { first, second, field });
        assert_eq!(fault.culprit(), None);
    }
}

#[test]
fn unusable_session_keys_are_the_peers_fault() {
    let view = sign_view();
    // The neutral element and another point of order 8 (their signatures hold for many messages), and no point at all.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut none = [0; 32];
    none[0] = 2;
    for key in [neutral, [0; 32], none] {
        let mut weak = hello(&view, 2, 2);
        weak.hello.own.signing_key = key;
        let result = begin(&view, 0, 1).accept(&forged_hello(weak, 2), now());
        assert_eq!(peer(result, 2), PeerFault::UnusableKey("signing key"));
    }

    let mut low_order = hello(&view, 2, 2);
    low_order.hello.own.kem_key = [0; 32];
    let mut handshake = begin(&view, 0, 1);
    signed(&mut handshake, 0);
    handshake.accept(&forged_hello(low_order, 2), now()).unwrap();
    let result = handshake.finish(&mut StdRng::seed_from_u64(0)).map(drop);
    assert_eq!(peer(result, 2), PeerFault::UnusableKey("X25519 key"));
}

#[test]
fn checkpoints_without_a_proper_log_name_are_refused() {
    for log in [String::new(), "x".repeat(129)] {
        let mut bad = hello(&sign_view(), 2, 2);
        bad.hello.own.checkpoint.log = log;
        let result = begin(&sign_view(), 0, 1).accept(&forged_hello(bad, 2), now());
        assert_eq!(peer(result, 2), PeerFault::BadCheckpoint);
    }
}

#[test]
fn what_a_party_has_witnessed_is_of_its_peers_and_bounded() {
    let of = |party: &str, size| Witnessed {
        party: party.parse().unwrap(),
        checkpoint: Checkpoint { log: "log".into(), size, root: Digest32([1; 32]) },
    };
    let accept = |witnessed: Vec<Witnessed>| {
        let mut stated = hello(&sign_view(), 2, 2);
        stated.hello.own.witnessed = witnessed;
        begin(&sign_view(), 0, 1).accept(&forged_hello(stated, 2), now())
    };
    accept(vec![of("party-0", (1 << 53) - 1), of("party-0", 3)]).unwrap();
    let many = |count: usize| (1..).map(|size| of("party-0", size)).take(count).collect::<Vec<_>>();
    accept(many(MAX_WITNESSED)).unwrap();
    for bad in [many(MAX_WITNESSED + 1), vec![of("party-0", 1 << 53)], vec![of("party-2", 1)], vec![of("party-9", 1)]] {
        assert_eq!(peer(accept(bad), 2), PeerFault::BadWitness);
    }
}

#[test]
fn a_captured_party_that_tells_two_stories_stops_the_session() {
    // party-2 sends one hello to party-0 and another to party-1.
    let view = keygen_view();
    let mut zero = channel(&view, 0, &[1, 2, 3], Limits::default());
    let mut one = channel(&view, 1, &[1, 2, 4], Limits::default());
    let message = zero.seal(To::All, 1, b"commitment").unwrap();
    let fault = one.open(&message).unwrap_err();
    assert_eq!(fault, TransportFault::WrongTranscript(name(0).parse().unwrap()).into());
}

#[test]
fn the_channel_opens_only_when_everyone_was_heard() {
    let rng = &mut StdRng::seed_from_u64(0);
    let view = keygen_view();
    let mut handshake = begin(&view, 0, 1);
    handshake.accept(&hello(&view, 1, 2), now()).unwrap();
    signed(&mut handshake, 0);
    assert_eq!(handshake.missing(), [name(2).parse().unwrap()]);
    let fault = handshake.finish(rng).unwrap_err();
    assert_eq!(fault, TransportFault::Missing(vec![name(2).parse().unwrap()]).into());

    let mut unsigned = begin(&sign_view(), 0, 1);
    unsigned.accept(&hello(&sign_view(), 2, 2), now()).unwrap();
    assert_eq!(unsigned.finish(rng).unwrap_err(), LocalFault::Unsigned.into());
}

#[test]
fn a_signature_by_another_key_than_the_rosters_is_noticed_before_it_is_sent() {
    let mut handshake = begin(&sign_view(), 0, 1);
    let signature = sign(5, handshake.to_sign());
    let fault = handshake.signed(signature).unwrap_err();
    assert_eq!((fault.code(), fault), (Code::QuorumMismatch, LocalFault::Identity.into()));
}

#[test]
fn views_that_no_session_can_have_are_refused_at_once() {
    type Change = fn(&mut SessionView);
    let keygen: [Change; 4] = [
        |v| v.share_type = None,
        |v| v.key = Some(KEY.parse().unwrap()),
        |v| v.roster = roster(&[0, 1]),
        |v| v.message_hash = Some(Digest32([0; 32])),
    ];
    let sign: [Change; 5] = [
        |v| v.key = None,
        |v| v.message_hash = None,
        |v| v.roster = roster(&[0, 1, 2]),
        |v| v.roster = roster(&[1, 2]),
        |v| v.derivation_path = Some("0/".repeat(200)),
    ];
    let changed = |view: SessionView, change: Change| {
        let mut view = view;
        change(&mut view);
        view
    };
    let views = keygen.into_iter().map(|change| changed(keygen_view(), change));
    for view in views.chain(sign.into_iter().map(|change| changed(sign_view(), change))) {
        let local: Local = local(0);
        let result = Handshake::begin(view.clone(), local, now(), &mut StdRng::seed_from_u64(1));
        assert!(matches!(result, Err(Fault::Local(_))), "{view:?}");
    }
}
