//! The coordinator as the attacker of a key generation among three parties that have their auxiliary info already.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use casemate_softhsm_tests::relay::pass;
use casemate_softhsm_tests::{End, LyingCoordinator, Parcel, Proposal, TestLab};
use casemate_wire::api::{Page, SessionStatus, ShareView};
use casemate_wire::envelope::To;
use casemate_wire::frame::{Frame, Outcome};
use casemate_wire::{Code, KeyCertificate, ShareType};
use futures::StreamExt;

/// Sessions that are attacked at the same time.
const AT_ONCE: usize = 8;

/// The place of a frame in a session: sender, recipient, and how many went that way before.
type Place = (usize, usize, usize);

/// What the relay may do to one frame.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Alter,
    Drop,
    Repeat,
    Redirect,
}

/// Counts frames by sender and recipient.
#[derive(Default)]
struct Counter(HashMap<(usize, usize), usize>);

impl Counter {
    fn place(&mut self, from: usize, to: usize) -> Place {
        let count = self.0.entry((from, to)).or_default();
        *count += 1;
        (from, to, *count - 1)
    }
}

fn done(deed: Deed, (_, to, _): Place, frame: Frame) -> Vec<(usize, Parcel)> {
    match (deed, frame) {
        (Deed::Alter, Frame::Message(mut message)) => {
            *message.content.body.last_mut().unwrap() ^= 1;
            vec![(to, Frame::Message(message).into())]
        }
        (Deed::Alter, Frame::Hello(mut hello)) => {
            hello.hello.own.nonce[0] ^= 1;
            vec![(to, Frame::Hello(hello).into())]
        }
        // Rather than waiting for the time limit, the stream is closed where the frame is missed.
        (Deed::Drop, _) => vec![(to, Parcel::Close)],
        (Deed::Repeat, frame) => vec![(to, frame.clone().into()), (to, frame.into())],
        (Deed::Redirect, frame) => vec![((to + 1) % 3, frame.clone().into()), (to, frame.into())],
        (_, outcome) => panic!("outcomes are not relayed: {outcome:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_of_a_keygen_can_be_altered_dropped_repeated_or_redirected_unnoticed() {
    let (lab, _) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let places = places_of_an_honest_keygen(&coordinator).await;
    assert!(places.len() > 30, "{places:?}");
    let deeds = [Deed::Alter, Deed::Drop, Deed::Repeat, Deed::Redirect];
    // Every deed at every frame to party-2, and every second one of the rest.
    let chosen = places.iter().enumerate().filter(|(number, place)| place.1 == 1 || number % 2 == 0);
    let cases: Vec<(Deed, Place)> = chosen.flat_map(|(_, place)| deeds.map(|deed| (deed, *place))).collect();
    let running = cases.into_iter().map(|(deed, place)| attacked(&lab, &coordinator, deed, place));
    futures::stream::iter(running).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    for party in 0..3 {
        assert!(lab.audit(party).1.open_intents.is_empty());
    }
    coordinator.run_honestly(&coordinator.convener.keygen()).await[0].certificate();
}

async fn places_of_an_honest_keygen(coordinator: &LyingCoordinator) -> Vec<Place> {
    let (mut counter, mut places) = (Counter::default(), Vec::new());
    let proposal = coordinator.convener.keygen();
    let ends = coordinator.run(&proposal, |from, to, frame| {
        places.push(counter.place(from, to));
        pass(from, to, frame)
    });
    agreed(&ends.await);
    places
}

fn agreed(ends: &[End]) -> KeyCertificate {
    let certificate = ends[0].certificate().clone();
    for end in ends {
        assert_eq!(end.certificate(), &certificate, "all parties state one key");
    }
    certificate
}

async fn attacked(lab: &TestLab, coordinator: &LyingCoordinator, deed: Deed, place: Place) {
    let case = format!("{deed:?} {place:?}");
    let mut counter = Counter::default();
    let reached = Arc::new(Mutex::new(false));
    let proposal = coordinator.convener.keygen();
    let ends = coordinator.run(&proposal, {
        let reached = Arc::clone(&reached);
        move |from, to, frame| {
            if counter.place(from, to) != place {
                return vec![(to, frame.into())];
            }
            *reached.lock().unwrap() = true;
            done(deed, place, frame)
        }
    });
    let ends = ends.await;
    assert!(*reached.lock().unwrap(), "{case}: there was no such frame");
    let victim = match deed {
        Deed::Redirect => (place.1 + 1) % 3,
        _ => place.1,
    };
    if victim_may_have_finished(&ends[victim]) {
        assert!(matches!(deed, Deed::Repeat | Deed::Redirect), "{case}: it went unnoticed");
    } else {
        assert!(matches!(ends[victim].code(), Code::TransportFault), "{case}: {}", ends[victim].problem());
        assert!(!ends[victim].problem().more.contains_key("party"), "{case}: nobody may be blamed");
    }
    nothing_half_made(lab, coordinator, &proposal, &ends, &case).await;
}

/// A frame too many after a party's last one finds no session any more.
fn victim_may_have_finished(end: &End) -> bool {
    matches!(end.outcome, Some(Outcome::Keygen { .. }))
}

/// Who finished has an active share and the full certificate; who did not has none that is active.
async fn nothing_half_made(
    lab: &TestLab,
    coordinator: &LyingCoordinator,
    proposal: &Proposal,
    ends: &[End],
    case: &str,
) {
    for end in ends {
        let view = coordinator.view(end.party, &proposal.session).await;
        let page: Page<ShareView> = coordinator.appliances[end.party].read("shares?limit=200").await;
        let mut shares = page.items.iter().filter(|share| share.session_id == proposal.session);
        let (share, more) = (shares.next(), shares.next());
        assert!(more.is_none(), "{case}: two shares of one session");
        if let Some(Outcome::Keygen { certificate, .. }) = &end.outcome {
            assert_eq!(view.status, SessionStatus::Completed, "{case}");
            assert_eq!(share.unwrap().status, "active", "{case}");
            certificate.verify(|member| Some(lab.party(&member.party_id)?.identity.clone())).unwrap();
        } else {
            assert_eq!(view.status, SessionStatus::Failed, "{case}");
            assert!(share.is_none_or(|share| share.status == "pending"), "{case}: {share:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parties_that_are_told_different_committees_make_no_key() {
    let (lab, _) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let honest = || coordinator.convener.keygen();
    let cases = [
        ("threshold", honest().telling(2, |invitation| invitation.claims.threshold_t = 3), true),
        (
            "share_type",
            honest().telling(2, |invitation| {
                invitation.claims.share_type = Some(ShareType::Admin);
                invitation.body["share_type"] = "admin".into();
            }),
            true,
        ),
        (
            "roster",
            honest().telling(2, |invitation| {
                let parties = &mut invitation.claims.participants;
                let (first, second) = (parties[0].clone(), parties[1].clone());
                (parties[0].party_id, parties[0].identity) = (second.party_id, second.identity);
                (parties[1].party_id, parties[1].identity) = (first.party_id, first.identity);
            }),
            false,
        ),
    ];
    for (field, proposal, refused_by_policy) in cases {
        let answers = coordinator.ask(&proposal).await;
        if refused_by_policy {
            // The starter policy already refuses what party-3 alone is told.
            assert_eq!(answers[2].problem().code, Code::PolicyDenied, "{field}: {}", answers[2]);
            continue;
        }
        let ends = coordinator.relay(&proposal, pass).await;
        let noticed = ends.iter().filter(|end| end.code() == Code::QuorumMismatch);
        assert!(noticed.clone().count() >= 2, "{field}: {ends:?}");
        assert!(noticed.into_iter().all(|end| end.problem().detail.contains(field)), "{field}: {ends:?}");
    }
    let members = coordinator.convener.members().len();
    let certificate = agreed(&coordinator.run_honestly(&honest()).await);
    assert_eq!(certificate.signatures.len(), members);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_for_one_party_travels_sealed() {
    let (lab, _) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let (mut sealed, mut open) = (Vec::new(), Vec::new());
    let proposal = coordinator.convener.keygen();
    let ends = coordinator.run(&proposal, |from, to, frame| {
        if let Frame::Message(message) = &frame {
            let bodies = if message.content.to == To::All { &mut open } else { &mut sealed };
            bodies.push(message.content.body.clone());
        }
        pass(from, to, frame)
    });
    agreed(&ends.await);
    assert!(open.iter().all(|body| is_readable(body)), "this is what a message looks like to whom it is for");
    assert!(!sealed.is_empty() && !sealed.iter().any(|body| is_readable(body)), "the coordinator can read a share");
}

/// Whether all of it is one CBOR array or map, as every protocol message is.
fn is_readable(mut body: &[u8]) -> bool {
    let read: Result<ciborium::Value, _> = ciborium::from_reader(&mut body);
    matches!(read, Ok(ciborium::Value::Map(_) | ciborium::Value::Array(_))) && body.is_empty()
}
