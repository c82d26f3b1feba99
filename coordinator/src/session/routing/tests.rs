#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use crate::session::Purpose;
use crate::session::testing::{HASH, party, sign};
use casemate_wire::envelope::{Checkpoint, Content, Hello, Introduction, SessionView, SignedHello, SignedMessage};
use casemate_wire::frame::{FrameReader, Outcome};
use casemate_wire::{Member, SessionType};

fn router() -> Router {
    let session = sign();
    Router::new("s-1".parse().unwrap(), session.participants().iter().map(|p| p.member.party_id.clone()))
}

fn three() -> Router {
    Router::new("s-1".parse().unwrap(), (0..3).map(party))
}

fn message(session: &str, from: u16, to: To) -> Frame {
    let content = Content {
        session: session.parse().unwrap(),
        transcript: HASH,
        from,
        to,
        round: 1,
        seq: 0,
        encapsulated: None,
        body: vec![1, 2, 3],
    };
    Frame::Message(SignedMessage { content, signature: [4; 64] })
}

fn hello(session: &str, index: u16) -> Frame {
    let template = sign();
    let Purpose::Sign { public_key, message_hash, .. } = *template.purpose() else { unreachable!() };
    let members: Vec<Member> = template.participants().iter().map(|p| p.member.clone()).collect();
    let view = SessionView {
        session_id: session.parse().unwrap(),
        session_type: SessionType::Sign,
        share_type: None,
        label: None,
        key: Some(public_key),
        epoch: 1,
        threshold: template.threshold(),
        roster: members.try_into().unwrap(),
        message_hash: Some(message_hash),
        derivation_path: None,
        rotation: None,
    };
    let own = Introduction {
        party: party(index),
        kem_key: [1; 32],
        signing_key: [2; 32],
        nonce: [3; 32],
        time: 0,
        checkpoint: Checkpoint { log: "l".into(), size: 0, root: HASH },
        witnessed: Vec::new(),
        attest: false,
    };
    let signed = SignedHello { hello: Hello { view, own }.into(), signature: [5; 64] };
    Frame::Hello(signed)
}

#[test]
fn a_message_for_one_goes_to_that_one_and_others_to_all_but_the_sender() {
    assert_eq!(three().route(1, &message("s-1", 1, To::Party(2))).unwrap().to, [2]);
    assert_eq!(three().route(1, &message("s-1", 1, To::All)).unwrap().to, [0, 2]);
    assert_eq!(router().route(1, &hello("s-1", 2)).unwrap().to, [0]);
}

#[test]
fn what_is_passed_on_is_what_was_sent() {
    let sent = message("s-1", 0, To::All);
    let forward = three().route(0, &sent).unwrap();
    let mut reader = FrameReader::default();
    reader.push(&forward.frame);
    assert_eq!(reader.next_frame().unwrap().unwrap(), sent);
}

#[test]
fn frames_of_another_session_or_sender_are_the_senders_fault() {
    for frame in [
        message("s-2", 1, To::All),
        message("s-1", 0, To::All),
        message("s-1", 1, To::Party(1)),
        message("s-1", 1, To::Party(3)),
        hello("s-2", 1),
        hello("s-1", 0),
    ] {
        let problem = three().route(1, &frame).unwrap_err();
        assert_eq!(problem.code, Code::PeerFault, "{frame:?}");
        assert_eq!(problem.more["party"], "party-1");
    }
}

#[test]
fn a_second_hello_is_refused() {
    let mut router = three();
    router.route(1, &hello("s-1", 1)).unwrap();
    assert!(router.route(1, &hello("s-1", 1)).is_err());
}

#[test]
fn an_outcome_goes_to_no_party() {
    let problem = Problem::new(Code::Internal, "x");
    let outcome = Frame::Outcome(Box::new(Outcome::Failed { problem }));
    assert!(three().route(0, &outcome).unwrap().to.is_empty());
}
