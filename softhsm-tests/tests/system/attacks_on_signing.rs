//! The coordinator as the attacker of a signature: whatever it does to messages, nobody signs, everybody ends, and the
//! next session works.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use casemate_attest::Phase;
use casemate_softhsm_tests::convene::new_session;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::relay::pass;
use casemate_softhsm_tests::stream::attach;
use casemate_softhsm_tests::{End, Key, LyingCoordinator, Parcel, Proposal, TestLab};
use casemate_wire::api::SessionStatus;
use casemate_wire::envelope::To;
use casemate_wire::frame::{Frame, MAX_FRAME, Outcome};
use casemate_wire::{Code, Problem};
use futures::StreamExt;

/// What the relay does with one frame: sender, recipient, frame → what goes where.
type Hook = Box<dyn FnMut(usize, usize, Frame) -> Vec<(usize, Parcel)> + Send>;

/// Sessions that are attacked at the same time.
const AT_ONCE: usize = 8;

struct Attack {
    name: String,
    hook: Hook,
    /// The position of the party that must notice by itself.
    victim: usize,
    code: Code,
    /// Stands in the victim's problem.
    says: &'static str,
}

fn attack(
    name: &str,
    victim: usize,
    (code, says): (Code, &'static str),
    hook: impl FnMut(usize, usize, Frame) -> Vec<(usize, Parcel)> + Send + 'static,
) -> Attack {
    Attack { name: name.to_owned(), hook: Box::new(hook), victim, code, says }
}

fn on(to: usize, frame: Frame) -> Vec<(usize, Parcel)> {
    vec![(to, frame.into())]
}

/// Does `change` to the n-th message (from 0) to position 1, and passes everything else on.
fn at_message(
    nth: usize,
    mut change: impl FnMut(Frame) -> Vec<(usize, Parcel)> + Send + 'static,
) -> impl FnMut(usize, usize, Frame) -> Vec<(usize, Parcel)> + Send + 'static {
    let mut count = 0;
    move |_, to, frame| {
        if to != 1 || !matches!(frame, Frame::Message(_)) {
            return on(to, frame);
        }
        count += 1;
        if count == nth + 1 { change(frame) } else { on(to, frame) }
    }
}

/// Does `change` to the hello for position 1, and passes everything else on.
fn at_hello(
    mut change: impl FnMut(Frame) -> Vec<(usize, Parcel)> + Send + 'static,
) -> impl FnMut(usize, usize, Frame) -> Vec<(usize, Parcel)> + Send + 'static {
    move |_, to, frame| if to == 1 && matches!(frame, Frame::Hello(_)) { change(frame) } else { on(to, frame) }
}

fn altered(frame: Frame, change: impl Fn(&mut casemate_wire::envelope::SignedMessage)) -> Vec<(usize, Parcel)> {
    let Frame::Message(mut message) = frame else { panic!("no message") };
    change(&mut message);
    on(1, Frame::Message(message))
}

const BROKEN: (Code, &str) = (Code::TransportFault, "valid signature");

/// Alterations of one message.
fn alterations(nth: usize) -> Vec<Attack> {
    let case = |what: &str, told, change: fn(&mut casemate_wire::envelope::SignedMessage)| {
        attack(&format!("{what} of message {nth}"), 1, told, at_message(nth, move |frame| altered(frame, change)))
    };
    let foreign = (Code::TransportFault, "belongs to session");
    vec![
        case("a byte of the body", BROKEN, |message| *message.content.body.last_mut().unwrap() ^= 1),
        case("the round", BROKEN, |message| message.content.round ^= 1),
        case("the number", BROKEN, |message| message.content.seq += 1),
        case("the transcript", BROKEN, |message| message.content.transcript.0[0] ^= 1),
        case("the signature", BROKEN, |message| message.signature[40] ^= 1),
        case("the session", foreign, |message| message.content.session = new_session()),
        case("the sender", (Code::TransportFault, "this party itself"), |message| message.content.from = 1),
        case("an unknown sender", (Code::TransportFault, "not in the roster"), |message| message.content.from = 7),
        case("the recipient", (Code::TransportFault, "another party"), |message| message.content.to = To::Party(5)),
    ]
}

fn misdeliveries() -> Vec<Attack> {
    let mut held = HashMap::new();
    let mut last = None;
    vec![
        attack("a message is repeated", 1, (Code::TransportFault, "delivered twice"), {
            at_message(2, |frame| vec![(1, frame.clone().into()), (1, frame.into())])
        }),
        attack("a message is dropped", 1, (Code::TransportFault, "is missing"), at_message(0, |_| Vec::new())),
        attack("two messages of a lane change places", 1, (Code::TransportFault, "is missing"), move |_, to, frame| {
            let Frame::Message(message) = &frame else { return on(to, frame) };
            if to != 1 {
                return on(to, frame);
            }
            // The first message of each lane waits until the second is through.
            let lane = message.content.to == To::All;
            match held.remove(&lane) {
                None if message.content.seq == 0 => {
                    held.insert(lane, frame);
                    Vec::new()
                }
                None => on(to, frame),
                Some(first) => vec![(1, frame.into()), (1, first.into())],
            }
        }),
        attack("a message goes back to its sender", 0, (Code::TransportFault, "this party itself"), {
            at_message(1, |frame| on(0, frame))
        }),
        attack(
            "the last message but one comes again at the end",
            1,
            (Code::TransportFault, ""),
            move |_, to, frame| {
                let mut parcels = on(to, frame.clone());
                if to == 1 && matches!(frame, Frame::Message(_)) {
                    parcels.extend(last.replace(frame).map(|earlier| (1, Parcel::from(earlier))));
                }
                parcels
            },
        ),
    ]
}

fn false_hellos() -> Vec<Attack> {
    let unsigned = |what: &str, change: fn(&mut casemate_wire::envelope::SignedHello)| {
        let hook = at_hello(move |frame| {
            let Frame::Hello(mut hello) = frame else { panic!("no hello") };
            change(&mut hello);
            on(1, Frame::Hello(hello))
        });
        attack(what, 1, BROKEN, hook)
    };
    vec![
        unsigned("an altered key in a hello", |hello| hello.hello.own.kem_key[0] ^= 1),
        unsigned("an altered signing key in a hello", |hello| hello.hello.own.signing_key[5] ^= 1),
        unsigned("an altered nonce in a hello", |hello| hello.hello.own.nonce[5] ^= 1),
        unsigned("an altered time in a hello", |hello| hello.hello.own.time += 1),
        unsigned("an altered hash in a hello", |hello| {
            hello.hello.view.message_hash.as_mut().unwrap().0[0] ^= 1;
        }),
        unsigned("an altered signature of a hello", |hello| hello.signature[3] ^= 1),
        attack("own hellos come back", 1, (Code::TransportFault, "this party itself"), |_, to, frame| match frame {
            Frame::Hello(_) => on(1 - to, frame),
            message => on(to, message),
        }),
        attack("a hello comes twice", 1, (Code::TransportFault, "a hello came after"), {
            at_hello(|frame| vec![(1, frame.clone().into()), (1, frame.into())])
        }),
        attack("a hello never comes", 1, (Code::Timeout, "no hello message from"), at_hello(|_| Vec::new())),
    ]
}

fn broken_streams() -> Vec<Attack> {
    let raw = |bytes: Vec<u8>| Parcel::Bytes(Bytes::from(bytes));
    let oversized = u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes().to_vec();
    let garbage = [&8_u32.to_be_bytes()[..], b"garbage!"].concat();
    let nested = [&4000_u32.to_be_bytes()[..], &[0x81; 4000]].concat();
    let empty = 0_u32.to_be_bytes().to_vec();
    let outcome = Frame::Outcome(Box::new(Outcome::Failed { problem: Problem::new(Code::Timeout, "") }));
    let mut attacks = Vec::new();
    for (what, says, parcel) in [
        ("an oversized frame", "at most", raw(oversized)),
        ("a garbage frame", "could not be decoded", raw(garbage)),
        ("a deeply nested frame", "could not be decoded", raw(nested)),
        ("an empty frame", "could not be decoded", raw(empty)),
        ("an outcome from the coordinator", "an outcome came", outcome.into()),
        ("the end of the stream", "closed", Parcel::Close),
        ("the loss of the stream", "", Parcel::BreakOff),
    ] {
        let told = (Code::TransportFault, says);
        let (first, later) = (parcel.clone(), parcel);
        attacks.push(attack(&format!("{what} instead of a hello"), 1, told, {
            at_hello(move |_| vec![(1, first.clone())])
        }));
        attacks.push(attack(&format!("{what} among messages"), 1, told, {
            at_message(2, move |_| vec![(1, later.clone())])
        }));
    }
    attacks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_done_to_a_message_nobody_signs_and_everybody_ends() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let mut attacks = false_hellos();
    attacks.extend(misdeliveries());
    attacks.extend(broken_streams());
    attacks.extend([0, 3].into_iter().flat_map(alterations));
    attacks.extend(mixed_sessions(&coordinator, &key).await);
    let count = attacks.len();
    let running = attacks.into_iter().map(|attack| attacked(&coordinator, &key, attack));
    // Those that end by a time limit come first, so that the others fill the wait.
    futures::stream::iter(running).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;

    for party in 0..3 {
        let (leaves, report) = lab.audit(party);
        assert!(report.open_intents.is_empty(), "every session has its outcome");
        let signed = leaves.iter().filter(|leaf| leaf.phase == Phase::Outcome && leaf.session.is_some());
        let failed = signed.filter(|leaf| serde_json::to_string(leaf).unwrap().contains("\"failed\"")).count();
        assert!(party == 2 || failed >= count, "party {party} has {failed} failures on record, of {count} attacks");
    }
    let ends = coordinator.run_honestly(&coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(99))).await;
    ends[0].signature();
}

/// Runs one attacked session of party-1 and party-2.
async fn attacked(coordinator: &LyingCoordinator, key: &Key, attack: Attack) {
    let Attack { name, hook, victim, code, says } = attack;
    let proposal = coordinator.convener.sign(key, &[0, 1], &Transfer::allowed(7));
    let ends = coordinator.run(&proposal, hook).await;
    let problem = match &ends[victim].outcome {
        Some(Outcome::Failed { problem }) => problem.clone(),
        // After a lost stream there is nobody to tell.
        None => coordinator.view(victim, &proposal.session).await.error.unwrap_or_else(|| panic!("{name}: no error")),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(problem.code, code, "{name}: {problem}");
    assert!(problem.detail.contains(says), "{name}: {problem}");
    assert!(!problem.more.contains_key("party"), "{name}: nobody may be blamed for it: {problem}");
    nobody_signed(coordinator, &proposal, &ends, &name).await;
}

async fn nobody_signed(coordinator: &LyingCoordinator, proposal: &Proposal, ends: &[End], name: &str) {
    for end in ends {
        assert!(!matches!(end.outcome, Some(Outcome::Sign { .. })), "{name}: party {} signed", end.party);
    }
    for view in coordinator.views(proposal).await {
        assert_eq!(view.status, SessionStatus::Failed, "{name}");
        assert_eq!(view.signature, None, "{name}");
        assert!(view.error.is_some() && view.completed_at.is_some(), "{name}");
    }
}

/// Frames of an earlier session of the same parties, put into a later one.
async fn mixed_sessions(coordinator: &LyingCoordinator, key: &Key) -> Vec<Attack> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let earlier = coordinator.convener.sign(key, &[0, 1], &Transfer::allowed(7));
    let ends = coordinator.run(&earlier, {
        let seen = Arc::clone(&seen);
        move |from, to, frame| {
            if to == 1 {
                seen.lock().unwrap().push(frame.clone());
            }
            pass(from, to, frame)
        }
    });
    ends.await[0].signature();
    let seen = seen.lock().unwrap().clone();
    let hello = seen.iter().find(|frame| matches!(frame, Frame::Hello(_))).unwrap().clone();
    let message = seen.iter().find(|frame| matches!(frame, Frame::Message(_))).unwrap().clone();
    let early = message.clone();
    let foreign = (Code::TransportFault, "belongs to session");
    vec![
        attack("an earlier session's hello", 1, foreign, at_hello(move |_| on(1, hello.clone()))),
        attack("an earlier session's message", 1, foreign, at_message(0, move |_| on(1, message.clone()))),
        attack("an earlier session's message before the hello", 1, foreign, {
            at_hello(move |frame| vec![(1, early.clone().into()), (1, frame.into())])
        }),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parties_that_are_told_different_things_notice_it_in_their_hellos() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let convener = &coordinator.convener;
    let honest = || convener.sign(&key, &[0, 1], &Transfer::allowed(1));
    let other = Transfer::allowed(2);
    let members = convener.members().to_vec();
    let cases = [
        (
            "message_hash",
            honest().telling(1, |invitation| {
                invitation.claims.message_hash = Some(other.hash());
                invitation.body["message_hash"] = serde_json::json!(other.hash());
                invitation.body["intent"] = serde_json::json!(other.intent());
            }),
        ),
        (
            "derivation_path",
            honest().telling(1, |invitation| {
                invitation.claims.derivation_path = Some("m/0".into());
                invitation.body["derivation_path"] = "m/0".into();
            }),
        ),
        (
            "roster",
            honest().telling(1, |invitation| {
                invitation.claims.participants = vec![members[1].clone(), members[2].clone()];
            }),
        ),
    ];
    for (field, proposal) in cases {
        let ends = coordinator.run(&proposal, |_, to, frame: Frame| on(to, frame)).await;
        assert_eq!(ends[0].code(), Code::QuorumMismatch, "{field}: {}", ends[0].problem());
        assert!(ends[0].problem().detail.contains(field), "{field}: {}", ends[0].problem());
        nobody_signed(&coordinator, &proposal, &ends, field).await;
    }
    coordinator.run_honestly(&honest()).await[0].signature();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_overtake_a_hello_are_kept_for_it() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(1));
    let mut late = None;
    let mut overtaken = 0;
    let ends = coordinator.run(&proposal, |_, to, frame: Frame| match frame {
        Frame::Hello(_) if to == 1 => {
            late = Some(frame);
            Vec::new()
        }
        Frame::Message(_) if to == 1 && late.is_some() => {
            overtaken += 1;
            vec![(1, frame), (1, late.take().unwrap())]
        }
        frame => vec![(to, frame)],
    });
    assert_eq!(ends.await[1].signature(), coordinator.view(0, &proposal.session).await.signature.unwrap());
    assert_eq!(overtaken, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_has_one_stream_and_expires_without() {
    let mut lab = TestLab::new(casemate_softhsm_tests::template::Kind::Keyed).await;
    lab.configure_all("[limits]\nattach = 2\n");
    lab.start_appliances().await;
    let key = lab.key();
    let coordinator = lab.lying_coordinator();
    let lonely = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(1));
    for answer in coordinator.ask(&lonely).await {
        assert_eq!(answer.status, 202, "{answer}");
    }
    let first = attach(&coordinator.appliances[0], &lonely.session).await.unwrap();
    let second = attach(&coordinator.appliances[0], &lonely.session).await.err().unwrap();
    assert_eq!(second.problem().code, Code::SessionConflict);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let view = coordinator.view(1, &lonely.session).await;
    assert_eq!(view.status, SessionStatus::Expired);
    assert_eq!(view.error.unwrap().code, Code::SessionExpired);
    let late = attach(&coordinator.appliances[1], &lonely.session).await.err().unwrap();
    assert_eq!(late.problem().code, Code::SessionExpired);
    let stranger = attach(&coordinator.appliances[2], &lonely.session).await.err().unwrap();
    assert_eq!(stranger.problem().code, Code::SessionNotFound);
    drop(first);

    let next = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(1));
    coordinator.run_honestly(&next).await[0].signature();
    let (_, report) = lab.audit(1);
    assert!(report.open_intents.is_empty());
}
