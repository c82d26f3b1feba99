//! The coordinator, or a captured party, attacks the messages of a running session.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::similar_names, clippy::items_after_statements, clippy::semicolon_if_nothing_returned)]

mod envelope_common;

use std::collections::{BTreeMap, VecDeque};

use casemate_wire::Code;
use casemate_wire::envelope::{
    Channel, Fault, Limits, LocalFault, Opened, PeerFault, SignedMessage, To, TransportFault,
};
use ciborium::Value;
use envelope_common::*;
use proptest::prelude::*;

const SEEDS: [u64; 3] = [101, 102, 103];

fn three() -> [Channel; 3] {
    [0, 1, 2].map(party)
}

/// Each call makes the same party anew, from its start.
fn party(position: u16) -> Channel {
    channel(&keygen_view(), position, &SEEDS, Limits::default())
}

fn transport(result: Result<Opened, Fault>) -> TransportFault {
    match result {
        Err(fault @ Fault::Transport(_)) => {
            assert_eq!((fault.code(), fault.culprit()), (Code::TransportFault, None));
            let Fault::Transport(inner) = fault else { unreachable!() };
            inner
        }
        other => panic!("{other:?}"),
    }
}

fn peer(result: Result<Opened, Fault>, culprit: u16) -> PeerFault {
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

fn opens(channel: &mut Channel, message: &SignedMessage, body: &[u8]) {
    let opened = channel.open(message).unwrap();
    assert_eq!(opened.body.as_slice(), body);
    assert_eq!(opened.from, message.content.from);
    assert_eq!(opened.broadcast, message.content.to == To::All);
    assert_eq!(opened.round, message.content.round);
}

#[test]
fn messages_arrive_in_both_kinds_of_lanes() {
    let [mut a, mut b, mut c] = three();
    for round in 1..4 {
        let all = a.seal(To::All, round, b"to everyone").unwrap();
        let one = a.seal(To::Party(1), round, b"for b alone").unwrap();
        opens(&mut b, &one, b"for b alone");
        opens(&mut b, &all, b"to everyone");
        opens(&mut c, &all, b"to everyone");
        let back = b.seal(To::Party(0), round, b"").unwrap();
        opens(&mut a, &back, b"");
    }
}

#[test]
fn the_coordinator_cannot_read_what_is_for_one_party() {
    let secret = [0x5a; 64];
    let message = party(0).seal(To::Party(1), 1, &secret).unwrap();
    let mut bytes = Vec::new();
    ciborium::into_writer(&message, &mut bytes).unwrap();
    assert!(!bytes.windows(8).any(|window| window == [0x5a; 8]));
    assert_eq!(message.content.body.len(), secret.len() + 16);
}

#[test]
fn every_altered_field_of_a_message_is_refused_and_blamed_on_nobody() {
    let (all, one) = {
        let mut a = party(0);
        (a.seal(To::All, 3, b"to everyone").unwrap(), a.seal(To::Party(1), 3, b"for b alone").unwrap())
    };
    for (message, body) in [(all, b"to everyone"), (one, b"for b alone")] {
        let mut b = party(1);
        let mut tried = 0;
        for (path, altered) in alterations(&Value::serialized(&message).unwrap()) {
            let Ok(altered) = altered.deserialized::<SignedMessage>() else {
                continue;
            };
            if altered == message {
                continue;
            }
            let result = b.open(&altered);
            assert!(matches!(result, Err(Fault::Transport(_))), "{path}: {result:?}");
            tried += 1;
        }
        assert!(tried > 200, "only {tried} alterations were possible");
        opens(&mut b, &message, body);
    }
}

#[test]
fn a_dropped_message_shows_as_a_gap() {
    for to in [To::All, To::Party(1)] {
        let [mut a, mut b, _] = three();
        let _dropped = a.seal(to, 1, b"first").unwrap();
        let second = a.seal(to, 1, b"second").unwrap();
        let gap = TransportFault::Gap { from: name(0).parse().unwrap(), expected: 0, found: 1 };
        assert_eq!(transport(b.open(&second)), gap);
    }
}

#[test]
fn reordered_messages_are_refused() {
    for to in [To::All, To::Party(1)] {
        let [mut a, mut b, _] = three();
        let sent: Vec<_> = (0..3).map(|n| a.seal(to, 1, &[n]).unwrap()).collect();
        opens(&mut b, &sent[0], &[0]);
        let gap = TransportFault::Gap { from: name(0).parse().unwrap(), expected: 1, found: 2 };
        assert_eq!(transport(b.open(&sent[2])), gap);
        opens(&mut b, &sent[1], &[1]);
        opens(&mut b, &sent[2], &[2]);
    }
}

#[test]
fn a_repeated_message_is_refused_at_any_later_time() {
    for to in [To::All, To::Party(1)] {
        let [mut a, mut b, _] = three();
        let sent: Vec<_> = (0..3).map(|n| a.seal(to, 1, &[n]).unwrap()).collect();
        for (n, message) in (0..).zip(&sent) {
            opens(&mut b, message, &[n]);
            for earlier in &sent[..=usize::from(n)] {
                assert_eq!(transport(b.open(earlier)), TransportFault::Repeat(name(0).parse().unwrap()));
            }
        }
    }
}

#[test]
fn a_message_for_one_party_cannot_be_redirected() {
    let [mut a, mut b, mut c] = three();
    let message = a.seal(To::Party(1), 1, b"for b alone").unwrap();
    assert_eq!(transport(c.open(&message)), TransportFault::WrongRecipient);
    for to in [To::Party(2), To::All] {
        let mut redirected = message.clone();
        redirected.content.to = to;
        assert_eq!(transport(c.open(&redirected)), TransportFault::BadSignature(name(0).parse().unwrap()));
    }
    opens(&mut b, &message, b"for b alone");
}

#[test]
fn a_message_cannot_be_passed_off_as_another_partys_or_sent_back() {
    let [mut a, mut b, mut c] = three();
    let message = a.seal(To::All, 1, b"to everyone").unwrap();
    assert_eq!(transport(a.open(&message)), TransportFault::Reflected);
    let mut posing = message.clone();
    posing.content.from = 1;
    assert_eq!(transport(c.open(&posing)), TransportFault::BadSignature(name(1).parse().unwrap()));
    assert_eq!(transport(b.open(&posing)), TransportFault::Reflected);
    posing.content.from = 3;
    assert_eq!(transport(c.open(&posing)), TransportFault::UnknownSender);
}

#[test]
fn messages_of_two_sessions_cannot_be_mixed() {
    let mut other = keygen_view();
    other.session_id = "session-2".parse().unwrap();
    let mut elsewhere = channel(&other, 0, &SEEDS, Limits::default());
    let message = elsewhere.seal(To::All, 1, b"x").unwrap();
    let mut b = party(1);
    assert_eq!(transport(b.open(&message)), TransportFault::ForeignSession("session-2".into()));

    // Even where a party used the same session keys twice, a message stays with its own session.
    let mut relabelled = message;
    relabelled.content.session = keygen_view().session_id;
    assert_eq!(transport(b.open(&relabelled)), TransportFault::BadSignature(name(0).parse().unwrap()));
    relabelled.content.transcript = b.transcript();
    assert_eq!(transport(b.open(&relabelled)), TransportFault::BadSignature(name(0).parse().unwrap()));
}

#[test]
fn two_signed_messages_with_one_number_name_the_peer_and_are_kept_as_evidence() {
    for to in [To::All, To::Party(1)] {
        let ([mut a, mut b, _], mut twin) = (three(), party(0));
        let one = a.seal(to, 1, b"one story").unwrap();
        let other = twin.seal(to, 1, b"another story").unwrap();
        opens(&mut b, &one, b"one story");
        assert_eq!(peer(b.open(&other), 0), PeerFault::Contradiction { seq: 0 });
        let evidence = b.evidence();
        assert_eq!(evidence.messages, [&one, &other]);
        assert_eq!(evidence.hellos.len(), 3);
    }
}

#[test]
fn another_round_or_body_under_the_same_number_is_a_contradiction_too() {
    let ([mut a, mut b, _], mut twin) = (three(), party(0));
    b.open(&a.seal(To::All, 1, b"same").unwrap()).unwrap();
    let other = twin.seal(To::All, 2, b"same").unwrap();
    assert_eq!(peer(b.open(&other), 0), PeerFault::Contradiction { seq: 0 });
}

#[test]
fn a_captured_party_cannot_pass_off_anothers_sealed_body_as_its_own() {
    let [mut a, mut b, _] = three();
    let sealed = a.seal(To::Party(1), 1, b"for b alone").unwrap();
    let mut stolen = sealed.content.clone();
    stolen.from = 2;
    assert_eq!(peer(b.open(&forged_message(stolen, SEEDS[2])), 2), PeerFault::Unopenable);
    opens(&mut b, &sealed, b"for b alone");
}

#[test]
fn a_sealed_body_belongs_to_its_round_and_number() {
    let [mut a, mut b, _] = three();
    let first = a.seal(To::Party(1), 1, b"first").unwrap();
    let second = a.seal(To::Party(1), 2, b"second").unwrap();
    let mut moved = first.content.clone();
    moved.round = 2;
    assert_eq!(peer(b.open(&forged_message(moved, SEEDS[0])), 0), PeerFault::Unopenable);
    opens(&mut b, &first, b"first");
    let mut again = second.content.clone();
    again.body = first.content.body.clone();
    assert_eq!(peer(b.open(&forged_message(again, SEEDS[0])), 0), PeerFault::Unopenable);
    opens(&mut b, &second, b"second");
}

#[test]
fn encapsulated_keys_out_of_place_are_the_peers_fault() {
    let [mut a, mut b, _] = three();
    let all = a.seal(To::All, 1, b"x").unwrap().content;
    let first = a.seal(To::Party(1), 1, b"x").unwrap().content;
    let second = a.seal(To::Party(1), 1, b"x").unwrap().content;
    let key = first.encapsulated;
    assert!(key.is_some() && all.encapsulated.is_none() && second.encapsulated.is_none());

    let with = |content: &casemate_wire::envelope::Content, encapsulated| {
        let mut content = content.clone();
        content.encapsulated = encapsulated;
        forged_message(content, SEEDS[0])
    };
    assert_eq!(peer(b.open(&with(&all, key)), 0), PeerFault::Misplaced);
    assert_eq!(peer(b.open(&with(&first, None)), 0), PeerFault::Misplaced);
    assert_eq!(peer(b.open(&with(&first, Some([0; 32]))), 0), PeerFault::Unopenable);
    opens(&mut b, &with(&first, key), b"x");
    assert_eq!(peer(b.open(&with(&second, key)), 0), PeerFault::Misplaced);
    opens(&mut b, &with(&second, None), b"x");
}

#[test]
fn a_signature_that_anyone_could_write_down_does_not_verify() {
    // A point of small order as R, and s = 0.
    let [mut a, mut b, _] = three();
    let mut message = a.seal(To::All, 1, b"x").unwrap();
    message.signature = [0; 64];
    assert_eq!(transport(b.open(&message)), TransportFault::BadSignature(name(0).parse().unwrap()));
    message.signature[0] = 1;
    assert_eq!(transport(b.open(&message)), TransportFault::BadSignature(name(0).parse().unwrap()));
}

#[test]
fn oversized_bodies_are_refused_on_both_sides() {
    let limits = Limits { max_body: 100, max_kept: 10_000 };
    let mut small = channel(&keygen_view(), 1, &SEEDS, limits);
    let mut big = party(0);
    for to in [To::All, To::Party(1)] {
        opens(&mut small, &big.seal(to, 1, &[7; 100]).unwrap(), &[7; 100]);
        let fault = transport(small.open(&big.seal(to, 1, &[7; 117]).unwrap()));
        assert!(matches!(fault, TransportFault::Oversized { limit: 116, .. }), "{fault:?}");
        let own = small.seal(To::All, 1, &[7; 101]).unwrap_err();
        assert_eq!(own, LocalFault::TooLarge { found: 101, limit: 100 }.into());
    }
}

#[test]
fn a_flood_of_valid_messages_ends_at_the_limit_and_names_the_sender() {
    let limits = Limits { max_body: 100, max_kept: 10_000 };
    for size in [0, 100] {
        let mut victim = channel(&keygen_view(), 1, &SEEDS, limits);
        let mut flooding = party(0);
        let fault = (0..1000)
            .find_map(|_| victim.open(&flooding.seal(To::All, 1, &vec![0; size]).unwrap()).err())
            .expect("the flood is taken without end");
        assert_eq!(peer(Err(fault), 0), PeerFault::Flood { limit: 10_000 });
        // Another peer has a budget of its own.
        opens(&mut victim, &party(2).seal(To::All, 1, b"x").unwrap(), b"x");
    }
}

#[test]
fn there_is_nobody_to_send_to_outside_the_roster() {
    let mut a = party(0);
    for position in [0, 3, u16::MAX] {
        let fault = a.seal(To::Party(position), 1, b"x").unwrap_err();
        assert_eq!((fault.code(), fault), (Code::Internal, LocalFault::NoSuchRecipient(position).into()));
    }
}

#[test]
fn secrets_are_wiped_and_not_printed() {
    fn wiped<T: zeroize::ZeroizeOnDrop>() {}
    wiped::<ed25519_dalek::SigningKey>();
    wiped::<aes::Aes256>();
    // It carries no marker for its wiping drop, but has this only together with it.
    fn wipeable<T: zeroize::Zeroize>() {}
    wipeable::<x25519_dalek::StaticSecret>();

    let [mut a, mut b, _] = three();
    let opened = b.open(&a.seal(To::Party(1), 1, b"a secret body").unwrap()).unwrap();
    assert_eq!(format!("{opened:?}"), "Opened { from: 0, broadcast: false, round: 1, body: <13 bytes> }");
    let handshake = begin(&keygen_view(), 0, SEEDS[0]);
    let key = session_key(SEEDS[0]);
    for printed in [format!("{a:?}"), format!("{handshake:?}")] {
        let numbers = format!("{:?}", key.to_bytes());
        assert!(!printed.contains(&hex::encode(key.to_bytes())) && !printed.contains(numbers.trim_matches(['[', ']'])));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_delivery_that_keeps_each_lanes_order_arrives_whole(
        sends in prop::collection::vec((0u16..3, 0u16..4, prop::collection::vec(any::<u8>(), 0..40)), 1..20),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        let mut channels = three();
        let mut lanes: BTreeMap<(u16, u16, bool), VecDeque<_>> = BTreeMap::new();
        for (from, to, body) in sends {
            let to = if to == 3 || to == from { To::All } else { To::Party(to) };
            let message = channels[usize::from(from)].seal(to, 1, &body).unwrap();
            let receives = |receiver: &u16| *receiver != from && (to == To::All || to == To::Party(*receiver));
            for receiver in (0..3).filter(receives) {
                lanes.entry((from, receiver, to == To::All)).or_default().push_back((message.clone(), body.clone()));
            }
        }
        for pick in picks {
            let Some(lane) = (!lanes.is_empty()).then(|| *lanes.keys().nth(pick.index(lanes.len())).unwrap()) else { break };
            let (message, body) = lanes.get_mut(&lane).unwrap().pop_front().unwrap();
            opens(&mut channels[usize::from(lane.1)], &message, &body);
            lanes.retain(|_, queue| !queue.is_empty());
        }
    }

    #[test]
    fn random_bytes_are_refused_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        signature in prop::array::uniform32(any::<u8>()), from in 0u16..5, to in 0u16..5, seq in any::<u32>(), key in any::<bool>(),
    ) {
        prop_assert!(ciborium::from_reader::<SignedMessage, _>(bytes.as_slice()).is_err());
        prop_assert!(ciborium::from_reader::<casemate_wire::envelope::SignedHello, _>(bytes.as_slice()).is_err());
        let mut b = party(1);
        let mut message = party(0).seal(To::All, 1, &bytes).unwrap();
        message.content.from = from;
        message.content.to = if to == 4 { To::All } else { To::Party(to) };
        message.content.seq = seq;
        message.content.encapsulated = key.then_some(signature);
        message.signature[..32].copy_from_slice(&signature);
        prop_assert!(b.open(&message).is_err());
        if from < 3 && from != 1 {
            let forged = forged_message(message.content, SEEDS[usize::from(from)]);
            if b.open(&forged).is_ok() {
                prop_assert!(to == 4 && seq == 0 && !key);
            }
        }
    }
}
