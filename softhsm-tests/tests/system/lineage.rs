//! Keys whose way a party has missed, and keys that went two ways at once.

use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::{Key, LyingCoordinator, Parcel, Plan, TestLab};
use casemate_wire::api::{SettleAnswer, SettleRequest};
use casemate_wire::frame::{Frame, Outcome};
use casemate_wire::rotation::Auxiliary;
use casemate_wire::{Code, Problem, Succession};
use serde_json::json;

use super::rotation::{proposed, rotated, settle_all, shares, sign};

/// In this phase the dealers that leave endorse the new committee.
const ENDORSE: u8 = 7;

fn endorses(frame: &Frame) -> bool {
    matches!(frame, Frame::Message(message) if message.content.round.to_be_bytes()[0] == ENDORSE)
}

/// Tells one party where the key has come to, and by which way.
async fn tell(
    coordinator: &LyingCoordinator,
    party: usize,
    earlier: &[&Succession],
    succession: &Succession,
) -> Result<SettleAnswer, Problem> {
    let earlier = earlier.iter().copied().cloned().collect();
    let request = SettleRequest { succession: succession.clone(), earlier, switched: Vec::new() };
    let answer = coordinator.appliances[party].post("rotation/settle", &json!(request)).await;
    if answer.status == 200 { Ok(answer.json()) } else { Err(answer.problem()) }
}

async fn states(coordinator: &LyingCoordinator, party: usize, key: &Key) -> Vec<(u64, String)> {
    shares(coordinator, party, &key.public_key()).await
}

/// A coordinator lets the old committee deal twice, to two committees that both complete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_committees_dealt_from_the_same_one_the_earlier_gives_way_as_soon_as_it_hears_of_the_later() {
    let (lab, key) = TestLab::spare().await;
    let coordinator = lab.lying_coordinator();
    let away = Plan { epoch: 2, committee: &[2, 3, 4], t: 2, dealers: &[0, 1], auxiliary: Auxiliary::Keep };
    let proposal = proposed(&lab, &coordinator, &key, &away).await;
    // Those who hold the key now do not hear that this rotation has ended; two new parties do.
    let ends = coordinator
        .run(&proposal, |_, to, frame| {
            let cut = endorses(&frame) && ![1, 2].contains(&to);
            vec![(to, if cut { Parcel::Close } else { frame.into() })]
        })
        .await;
    let earlier = ends[1].succession().clone();
    let elsewhere = Key { certificate: earlier.certificate.clone(), ..key.clone() };
    sign(&coordinator, &elsewhere, &[3, 4], 0).await;
    let (here, later) = rotated(&lab, &coordinator, &key, &Plan::refresh(3)).await;
    sign(&coordinator, &here, &[0, 1], 1).await;
    // The earlier committee takes no word for it but those of the parties that it was dealt from.
    let mut forged = later.clone();
    forged.endorsements.truncate(1);
    assert_eq!(tell(&coordinator, 3, &[], &forged).await.unwrap_err().code, Code::QuorumMismatch);
    assert_eq!(states(&coordinator, 3, &key).await, [(2, "active".to_owned())]);
    for party in [3, 4] {
        assert_eq!(tell(&coordinator, party, &[], &later).await.unwrap().old_shares, 1);
        assert_eq!(states(&coordinator, party, &key).await, [(2, "rotated".to_owned())]);
    }
    let refused = coordinator.ask(&coordinator.convener.sign(&elsewhere, &[3, 4], &Transfer::allowed(2))).await;
    assert!(refused.iter().all(|answer| answer.status != 202));
    // The later committee does not give way to the earlier.
    for party in [0, 1, 2] {
        let _ = tell(&coordinator, party, &[], &earlier).await;
        assert_eq!(states(&coordinator, party, &key).await[0], (3, "active".to_owned()));
    }
    // Nothing that may be the only share is destroyed by the word of a committee that was left.
    assert_eq!(settle_all(&coordinator, &[0, 1, 2, 3, 4], &later).await, [0, 0, 0, 1, 1]);
    assert_eq!(states(&coordinator, 3, &key).await, [(2, "rotated".to_owned())]);
    let at_two: Vec<_> = states(&coordinator, 2, &key).await.into_iter().map(|(_, state)| state).collect();
    assert_eq!(at_two, ["active", "destroyed", "destroyed"], "what was pending of the other committee too");
    sign(&coordinator, &here, &[1, 2], 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_missed_several_rotations_lets_go_by_the_whole_way_and_by_no_shorter_one() {
    let (lab, key) = TestLab::spare().await;
    let coordinator = lab.lying_coordinator();
    let second = Plan { epoch: 2, committee: &[0, 1, 3], t: 2, dealers: &[0, 1], auxiliary: Auxiliary::Keep };
    let (new, first_step) = rotated(&lab, &coordinator, &key, &second).await;
    let third = Plan { epoch: 3, committee: &[1, 3, 4], t: 2, dealers: &[1, 3], auxiliary: Auxiliary::Keep };
    let (_, second_step) = rotated(&lab, &coordinator, &new, &third).await;
    let stuck = tell(&coordinator, 2, &[], &second_step).await.unwrap_err();
    assert_eq!(stuck.code, Code::QuorumMismatch, "its endorsers are no committee of this party's: {stuck:?}");
    let mut unsigned = first_step.clone();
    unsigned.endorsements.swap_remove(0);
    for wrong_way in [&second_step, &unsigned] {
        assert_eq!(tell(&coordinator, 2, &[wrong_way], &second_step).await.unwrap_err().code, Code::QuorumMismatch);
    }
    assert_eq!(states(&coordinator, 2, &key).await, [(1, "active".to_owned())]);
    assert_eq!(tell(&coordinator, 2, &[&first_step], &second_step).await.unwrap().old_shares, 1);
    assert_eq!(states(&coordinator, 2, &key).await, [(1, "rotated".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_missed_a_rotation_joins_the_next_committee_with_its_old_share_still_live() {
    let (lab, key) = TestLab::spare().await;
    let coordinator = lab.lying_coordinator();
    let second = Plan { epoch: 2, committee: &[0, 1, 3], t: 2, dealers: &[0, 1], auxiliary: Auxiliary::Keep };
    let (new, _) = rotated(&lab, &coordinator, &key, &second).await;
    let third = Plan { epoch: 3, committee: &[0, 2, 3], t: 2, dealers: &[1, 3], auxiliary: Auxiliary::Keep };
    // As a dealer it is of no use: it has nothing of the epoch that is dealt from.
    let dealing = Plan { dealers: &[0, 2], ..third };
    let proposal = proposed(&lab, &coordinator, &key, &dealing).await;
    assert!(coordinator.ask(&proposal).await.iter().any(|answer| answer.status != 202));
    let (newest, succession) = rotated(&lab, &coordinator, &new, &Plan { epoch: 4, ..third }).await;
    assert_eq!(states(&coordinator, 2, &key).await, [(4, "active".to_owned()), (1, "rotated".to_owned())]);
    sign(&coordinator, &newest, &[0, 2], 0).await;
    assert_eq!(settle_all(&coordinator, &[0, 1, 2, 3], &succession).await, [0; 4]);
}

/// A party that joined only a rotation which came to nothing holds a pending share, until the key moves on without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pending_share_of_a_rotation_that_failed_goes_once_the_key_has_moved_on() {
    let (lab, key) = TestLab::spare().await;
    let coordinator = lab.lying_coordinator();
    let away = Plan { epoch: 2, committee: &[0, 1, 4], t: 2, dealers: &[0, 1], auxiliary: Auxiliary::Keep };
    let proposal = proposed(&lab, &coordinator, &key, &away).await;
    // No confirmation comes through.
    let ends = coordinator
        .run(&proposal, |_, to, frame| {
            let confirms = matches!(&frame, Frame::Message(m) if m.content.round.to_be_bytes()[0] == ENDORSE - 1);
            vec![(to, if confirms { Parcel::Close } else { frame.into() })]
        })
        .await;
    assert!(ends.iter().all(|end| !matches!(end.outcome, Some(Outcome::Rotate { .. }))));
    assert_eq!(states(&coordinator, 4, &key).await, [(2, "pending".to_owned())]);
    let (new, succession) = rotated(&lab, &coordinator, &key, &Plan::refresh(3)).await;
    assert_eq!(settle_all(&coordinator, &[0, 1, 2, 4], &succession).await, [0; 4]);
    assert_eq!(states(&coordinator, 4, &key).await, [(2, "destroyed".to_owned())]);
    sign(&coordinator, &new, &[0, 2], 0).await;
}
