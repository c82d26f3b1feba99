//! Rotations that are cut off: whatever message is the last, and whoever crashes, the key signs and the next attempt succeeds.

use casemate_softhsm_tests::relay::pass;
use casemate_softhsm_tests::{Key, LyingCoordinator, Parcel, Plan, TestLab};
use casemate_wire::api::SettleRequest;
use casemate_wire::frame::{Frame, Outcome};
use casemate_wire::{Code, Succession};
use serde_json::json;

use super::rotation::{proposed, rotated, settle, settle_all, shares, sign};

/// The phase of a message, in the high byte of its round.
fn phase(frame: &Frame) -> u8 {
    match frame {
        Frame::Message(message) => message.content.round.to_be_bytes()[0],
        _ => 0,
    }
}

/// Confirmations travel in this phase.
const CONFIRM: u8 = 6;
/// Endorsements of dealers that leave travel in this one.
const ENDORSE: u8 = 7;

/// Whoever can sign after a rotation that was cut off: two parties of the old epoch, or of the new one.
async fn still_signs(coordinator: &LyingCoordinator, old: &Key, new: Option<&Key>, nonce: u64) {
    let mut epochs = Vec::new();
    for party in 0..3 {
        let all = shares(coordinator, party, &old.public_key()).await;
        epochs.push(all.iter().find(|(_, state)| state == "active").map(|(epoch, _)| *epoch));
    }
    let at = |epoch: u64| (0..3).filter(|party| epochs[*party] == Some(epoch)).collect::<Vec<usize>>();
    let signers = at(1);
    if signers.len() >= 2 {
        return sign(coordinator, old, &signers[..2], nonce).await;
    }
    sign(coordinator, new.expect("somebody has switched"), &at(2)[..2], nonce).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_party_that_misses_the_last_confirmation_adopts_its_share_later_and_nothing_is_stranded() {
    let (mut lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let proposal = proposed(&lab, &coordinator, &key, &Plan::refresh(2)).await;
    // The last confirmation reaches everybody but the third.
    let ends = coordinator
        .run(&proposal, |from, to, frame| {
            if phase(&frame) == CONFIRM && to == 2 && from == 0 { Vec::new() } else { pass(from, to, frame) }
        })
        .await;
    let succession: Succession = ends[0].succession().clone();
    assert!(matches!(ends[2].outcome, Some(Outcome::Failed { .. }) | None));
    let new = Key { certificate: succession.certificate.clone(), ..key.clone() };
    let public = key.public_key();
    assert_eq!(shares(&coordinator, 2, &public).await, [(2, "pending".to_owned()), (1, "active".to_owned())]);
    sign(&coordinator, &new, &[0, 1], 0).await;
    lab.kill(2);
    lab.start(2).await;
    let coordinator = lab.lying_coordinator();
    let answer = settle(&coordinator, 2, &succession, &[]).await;
    assert!(answer.switched.is_some());
    assert_eq!(shares(&coordinator, 2, &public).await, [(2, "active".to_owned()), (1, "rotated".to_owned())]);
    sign(&coordinator, &new, &[1, 2], 1).await;
    assert_eq!(settle_all(&coordinator, &[0, 1, 2], &succession).await, [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_rotation_that_comes_after_a_later_one_is_answered_with_the_epoch_that_is_taken() {
    let (lab, key) = TestLab::spare().await;
    let coordinator = lab.lying_coordinator();
    // The first party deals and leaves, so its place is the last. That it endorses the new epoch reaches nobody: it alone has the
    // whole proof.
    let joining = Plan { committee: &[1, 2, 3], ..Plan::refresh(2) };
    let proposal = proposed(&lab, &coordinator, &key, &joining).await;
    let ends = coordinator
        .run(
            &proposal,
            |from, to, frame| {
                if phase(&frame) == ENDORSE && from == 3 { Vec::new() } else { pass(from, to, frame) }
            },
        )
        .await;
    let missed: Succession = ends.iter().find(|end| end.party == 0).unwrap().succession().clone();
    // The others rotate from the first epoch; then the fourth party leaves.
    let (third, _) = rotated(&lab, &coordinator, &key, &Plan { epoch: 3, dealers: &[1, 2], ..joining }).await;
    let (_, fourth) = rotated(&lab, &coordinator, &third, &Plan { dealers: &[1, 2], ..Plan::refresh(4) }).await;
    settle(&coordinator, 3, &fourth, &[]).await;
    let before = [(3, "rotated".to_owned()), (2, "pending".to_owned())];
    assert_eq!(shares(&coordinator, 3, &key.public_key()).await, before);
    let request = SettleRequest { succession: missed, earlier: Vec::new(), switched: Vec::new() };
    let answer = coordinator.appliances[3].post("rotation/settle", &json!(request)).await;
    let problem = answer.problem();
    assert_eq!((problem.code, &problem.more["epoch"]), (Code::EpochTaken, &json!(3)), "{problem:?}");
    assert_eq!(shares(&coordinator, 3, &key.public_key()).await, before, "nothing was changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_message_is_the_last_the_key_signs_and_the_next_attempt_succeeds() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let mut epoch = 2;
    let mut nonce = 0;
    // Opening, dealing, confirming: what comes first in each phase, what comes last.
    for (cut, after) in [(2, 0), (5, 0), (5, 3), (5, 9), (5, 15), (CONFIRM, 0), (CONFIRM, 1)] {
        let proposal = proposed(&lab, &coordinator, &key, &Plan::refresh(epoch)).await;
        let mut seen = 0;
        let ends = coordinator
            .run(&proposal, |_, to, frame| {
                seen += usize::from(phase(&frame) == cut);
                // Nothing more comes through, and the streams end.
                let end = phase(&frame) == cut && seen > after;
                vec![(to, if end { Parcel::Close } else { frame.into() })]
            })
            .await;
        assert!(ends.iter().all(|end| matches!(end.outcome, Some(Outcome::Failed { .. }) | None)), "{cut} {after}");
        still_signs(&coordinator, &key, None, nonce).await;
        (epoch, nonce) = (epoch + 1, nonce + 1);
    }
    let (new, succession) = rotated(&lab, &coordinator, &key, &Plan::refresh(epoch)).await;
    sign(&coordinator, &new, &[0, 2], nonce).await;
    assert_eq!(settle_all(&coordinator, &[0, 1, 2], &succession).await, [0, 0, 0]);
    let left = shares(&coordinator, 1, &key.public_key()).await;
    let others = left.iter().filter(|(_, state)| state != "active");
    assert!(others.clone().count() >= 2 && others.clone().all(|(_, state)| state == "destroyed"), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parties_that_crash_in_a_rotation_leave_a_key_that_signs() {
    let (mut lab, key) = TestLab::keyed().await;
    let mut epoch = 2;
    for victim in 0..3 {
        let coordinator = lab.lying_coordinator();
        let proposal = proposed(&lab, &coordinator, &key, &Plan::refresh(epoch)).await;
        for answer in coordinator.ask(&proposal).await {
            assert_eq!(answer.status, 202, "{answer}");
        }
        // Its daemon dies while it deals, after the first messages of that phase.
        let mut begun = 0;
        let ends = coordinator
            .relay(&proposal, |from, to, frame| {
                begun += usize::from(phase(&frame) >= 5);
                if begun == 2 {
                    lab.kill(victim);
                }
                pass(from, to, frame)
            })
            .await;
        assert!(ends.iter().all(|end| !matches!(end.outcome, Some(Outcome::Rotate { .. }))));
        lab.start(victim).await;
        still_signs(&lab.lying_coordinator(), &key, None, epoch).await;
        epoch += 1;
    }
    let coordinator = lab.lying_coordinator();
    let (new, _) = rotated(&lab, &coordinator, &key, &Plan::refresh(epoch)).await;
    sign(&coordinator, &new, &[1, 2], epoch).await;
}
