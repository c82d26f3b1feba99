//! Rotations: the same key with new shares, for the same committee and for others; who may order one; what is destroyed when.

use casemate_appliance::clients::Role;
use casemate_attest::Guard;
use casemate_policy::approval::{Act, Nonce, Participant, RotateParameters, Statement};
use casemate_policy::signers::Namespace;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::policy::{hourly_limit, publish};
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{Key, LyingCoordinator, Plan, Proposal, TestLab};
use casemate_wire::api::{Approval, Page, SettleAnswer, SettleRequest, ShareView};
use casemate_wire::rotation::{Auxiliary, Switched};
use casemate_wire::{Code, Digest32, PublicKey, Succession};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// People of two organisations, as many as the starter policy asks for.
const PEOPLE: [&str; 2] = ["approver-1@treasury", "approver-2@risk"];

/// The proposal with the approvals that the starter policy asks for.
pub(super) async fn approved(lab: &TestLab, proposal: Proposal) -> Proposal {
    let policy: Value = lab.client(0, Role::Auditor).read("policy").await;
    let bundle: Digest32 = serde_json::from_value(policy["digest"].clone()).unwrap();
    let claims = &proposal.invitations[0].claims;
    let committee = claims.participants.iter().take(claims.threshold_n.into());
    let participants =
        committee.map(|member| Participant { party_id: member.party_id.clone(), identity: member.identity.clone() });
    let rotation = claims.rotation.as_ref().unwrap();
    let act = Act::Rotate {
        key: claims.public_key.unwrap(),
        parameters: RotateParameters {
            participants: participants.collect(),
            threshold_t: claims.threshold_t,
            epoch: rotation.epoch,
            from_epoch: rotation.from_epoch,
            auxiliary: rotation.auxiliary,
        },
    };
    let expires = Timestamp::now() + SignedDuration::from_hours(1);
    let nonce = Nonce::from_bytes(*uuid::Uuid::new_v4().as_bytes());
    let statement = Statement { act, bundle, expires, nonce }.to_text().unwrap();
    let sign = |person: &&str| {
        let signature = lab.staff().sign(person, Namespace::Approval.as_str(), statement.as_bytes()).unwrap();
        Approval::new(statement.clone(), signature).unwrap()
    };
    let approvals: Vec<Approval> = PEOPLE.iter().map(sign).collect();
    proposal.telling_all(move |invitation| invitation.body["approvals"] = json!(approvals))
}

/// An approved rotation.
pub(super) async fn proposed(lab: &TestLab, coordinator: &LyingCoordinator, key: &Key, plan: &Plan<'_>) -> Proposal {
    approved(lab, coordinator.convener.rotate(key, plan)).await
}

/// Runs a rotation that completes everywhere; the key as it is from then on, and what proves it.
pub(super) async fn rotated(
    lab: &TestLab,
    coordinator: &LyingCoordinator,
    key: &Key,
    plan: &Plan<'_>,
) -> (Key, Succession) {
    let proposal = proposed(lab, coordinator, key, plan).await;
    let ends = coordinator.run_honestly(&proposal).await;
    let succession = ends[0].succession().clone();
    assert!(ends.iter().all(|end| end.succession() == &succession));
    (Key { certificate: succession.certificate.clone(), ..key.clone() }, succession)
}

/// Settles a rotation at one party.
pub(super) async fn settle(
    coordinator: &LyingCoordinator,
    party: usize,
    succession: &Succession,
    switched: &[Switched],
) -> SettleAnswer {
    let request = SettleRequest { succession: succession.clone(), earlier: Vec::new(), switched: switched.to_vec() };
    let answer = coordinator.appliances[party].post("rotation/settle", &json!(request)).await;
    assert_eq!(answer.status, 200, "{answer}");
    answer.json()
}

/// Lets all these parties settle, as an honest coordinator does; how many old shares are left at each.
pub(super) async fn settle_all(coordinator: &LyingCoordinator, parties: &[usize], succession: &Succession) -> Vec<u32> {
    let mut switched = Vec::new();
    for party in parties {
        switched.extend(settle(coordinator, *party, succession, &[]).await.switched);
    }
    let mut left = Vec::new();
    for party in parties {
        left.push(settle(coordinator, *party, succession, &switched).await.old_shares);
    }
    left
}

/// Epoch and state of a party's shares of a key, the newest first.
pub(super) async fn shares(coordinator: &LyingCoordinator, party: usize, key: &PublicKey) -> Vec<(u64, String)> {
    let page: Page<ShareView> = coordinator.appliances[party].read("shares?limit=200").await;
    let own = page.items.into_iter().filter(|share| share.public_key == *key);
    let mut shares: Vec<(u64, String)> = own.map(|share| (share.epoch, share.status)).collect();
    shares.sort_by(|a, b| b.cmp(a));
    shares
}

/// Signs a transfer and checks it against the key.
pub(super) async fn sign(coordinator: &LyingCoordinator, key: &Key, signers: &[usize], nonce: u64) {
    let transfer = Transfer::allowed(nonce);
    let proposal = coordinator.convener.sign(key, signers, &transfer);
    for end in coordinator.run_honestly(&proposal).await {
        assert!(end.signature().verifies(&key.public_key(), &transfer.hash()), "{signers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refreshed_key_is_the_same_key_and_its_old_shares_are_destroyed_once_all_have_switched() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let (new, succession) = rotated(&lab, &coordinator, &key, &Plan::refresh(2)).await;
    let (before, after) = (&key.certificate.statement, &new.certificate.statement);
    assert_eq!((before.public_key, before.chain_code), (after.public_key, after.chain_code));
    assert_eq!(after.epoch, 2);
    let public = key.public_key();
    for party in 0..3 {
        let expected = [(2, "active".to_owned()), (1, "rotated".to_owned())];
        assert_eq!(shares(&coordinator, party, &public).await, expected);
    }
    sign(&coordinator, &new, &[1, 2], 0).await;

    let first = settle(&coordinator, 0, &succession, &[]).await;
    assert_eq!(first.old_shares, 1, "nobody else has said that it has switched");
    let word = first.switched.unwrap();
    let twice = [word.clone(), word.clone(), word];
    assert_eq!(settle(&coordinator, 0, &succession, &twice).await.old_shares, 1, "one word thrice is one");
    assert_eq!(settle_all(&coordinator, &[0, 1, 2], &succession).await, [0, 0, 0]);
    for party in 0..3 {
        let expected = [(2, "active".to_owned()), (1, "destroyed".to_owned())];
        assert_eq!(shares(&coordinator, party, &public).await, expected);
        let (leaves, _) = lab.audit(party);
        let states: Vec<String> = leaves
            .iter()
            .flat_map(|leaf| &leaf.guards)
            .filter(|change| change.guard == Guard::Share)
            .map(|change| change.to.as_ref().unwrap().to_string())
            .collect();
        assert_eq!(states, ["pending", "active", "pending", "rotated", "active", "destroyed"]);
    }
    sign(&coordinator, &new, &[0, 2], 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_needs_the_approvals_that_policy_asks_for_and_uses_them_up() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let bare = coordinator.convener.rotate(&key, &Plan::refresh(2));
    for answer in coordinator.ask(&bare).await {
        let problem = answer.problem();
        assert_eq!(problem.code, Code::PolicyDenied, "{problem:?}");
        assert!(problem.more["policies"].to_string().contains("ceremony-approvals"), "{problem:?}");
    }
    let lowered = Plan { t: 2, committee: &[0, 1], ..Plan::refresh(2) };
    for answer in coordinator.ask(&proposed(&lab, &coordinator, &key, &lowered).await).await {
        let problem = answer.problem();
        assert!(problem.more["policies"].to_string().contains("rotation-quorum"), "{problem:?}");
    }
    let first = proposed(&lab, &coordinator, &key, &Plan::refresh(2)).await;
    let approvals = first.invitations[0].body["approvals"].clone();
    coordinator.run_honestly(&first).await[0].succession();
    let again = coordinator.convener.rotate(&key, &Plan::refresh(3));
    let again = again.telling_all(|invitation| invitation.body["approvals"] = approvals.clone());
    assert_ne!(coordinator.ask(&again).await[0].status, 202);
}

/// The coordinator gets one rotation approved and asks every party for another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_party_takes_another_rotation_than_the_one_that_people_approved() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let healing = Plan { auxiliary: Auxiliary::Fresh, ..Plan::refresh(2) };
    let fresh = proposed(&lab, &coordinator, &key, &healing).await;
    let keeping = coordinator.convener.rotate(&key, &Plan::refresh(2));
    let approvals = fresh.invitations[0].body["approvals"].clone();
    let keeping = keeping.telling_all(move |invitation| invitation.body["approvals"] = approvals.clone());
    let answers = coordinator.ask(&keeping).await;
    assert_eq!(answers.len(), 3);
    for answer in answers {
        let problem = answer.problem();
        assert_eq!(problem.code, Code::PolicyDenied, "{problem:?}");
        let approvals = &problem.more["approvals"];
        assert_eq!(approvals["counted"], json!([]), "{approvals}");
        assert!(approvals["ignored"].to_string().contains("the auxiliary information differs"), "{approvals}");
    }
    let stale = proposed(&lab, &coordinator, &key, &Plan::refresh(3)).await.invitations[0].body["approvals"].clone();
    // What was approved is done nevertheless: nothing of the approvals was used up.
    let succession = coordinator.run_honestly(&fresh).await[0].succession().clone();
    let moved = Key { certificate: succession.certificate, ..key.clone() };
    let later = coordinator.convener.rotate(&moved, &Plan::refresh(3));
    let later = later.telling_all(move |invitation| invitation.body["approvals"] = stale.clone());
    let answers = coordinator.ask(&later).await;
    assert_eq!(answers.len(), 3);
    for answer in answers {
        let problem = answer.problem();
        assert_eq!(problem.code, Code::PolicyDenied, "{problem:?}");
        let ignored = problem.more["approvals"]["ignored"].to_string();
        assert!(ignored.contains("the epoch that is dealt from differs"), "{ignored}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_party_is_replaced_and_what_it_holds_signs_no_more() {
    let (mut lab, key) = TestLab::spare().await;
    lab.kill(2);
    let coordinator = lab.lying_coordinator();
    let plan = Plan { epoch: 2, committee: &[0, 1, 3], t: 2, dealers: &[0, 1], auxiliary: Auxiliary::Keep };
    let (new, succession) = rotated(&lab, &coordinator, &key, &plan).await;
    sign(&coordinator, &new, &[1, 3], 0).await;
    assert_eq!(settle_all(&coordinator, &[0, 1, 3], &succession).await, [0, 0, 0]);
    // The dead party comes back with its old share.
    lab.start(2).await;
    let coordinator = lab.lying_coordinator();
    assert_eq!(shares(&coordinator, 2, &key.public_key()).await, [(1, "active".to_owned())]);
    let old = coordinator.convener.sign(&key, &[1, 2], &Transfer::allowed(1));
    let answers = coordinator.ask(&old).await;
    assert_eq!(answers[0].problem().code, Code::QuorumMismatch);
    // It hears that the key has moved on, from t of its own committee, and lets go.
    assert_eq!(settle(&coordinator, 2, &succession, &[]).await.old_shares, 1);
    assert_eq!(shares(&coordinator, 2, &key.public_key()).await, [(1, "rotated".to_owned())]);
    assert_eq!(settle_all(&coordinator, &[0, 1, 3, 2], &succession).await[3], 0);
    assert_eq!(shares(&coordinator, 2, &key.public_key()).await, [(1, "destroyed".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committee_grows_and_changes_its_threshold_and_its_dealers_may_leave() {
    let (lab, key) = TestLab::spare().await;
    let coordinator = lab.lying_coordinator();
    let grown = Plan { epoch: 2, committee: &[4, 3, 2, 1, 0], t: 3, dealers: &[1, 2], auxiliary: Auxiliary::Keep };
    let (grown, succession) = rotated(&lab, &coordinator, &key, &grown).await;
    sign(&coordinator, &grown, &[0, 3, 4], 0).await;
    assert_eq!(settle_all(&coordinator, &[0, 1, 2, 3, 4], &succession).await, [0; 5]);
    let moved = Plan { epoch: 3, committee: &[3, 4, 0, 1], t: 3, dealers: &[4, 3, 2], auxiliary: Auxiliary::Fresh };
    let (moved, succession) = rotated(&lab, &coordinator, &grown, &moved).await;
    assert_eq!(shares(&coordinator, 2, &key.public_key()).await[0], (2, "rotated".to_owned()));
    sign(&coordinator, &moved, &[0, 1, 4], 1).await;
    assert_eq!(settle_all(&coordinator, &[3, 4, 0, 1, 2], &succession).await, [0; 5]);
    let left = shares(&coordinator, 2, &key.public_key()).await;
    assert!(left.iter().all(|(_, state)| state == "destroyed"), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lying_coordinator_moves_no_key_by_words_of_its_own() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let (new, succession) = rotated(&lab, &coordinator, &key, &Plan::refresh(2)).await;
    let post = async |forged: Succession, switched: Vec<Switched>| {
        let request = SettleRequest { succession: forged, earlier: Vec::new(), switched };
        coordinator.appliances[0].post("rotation/settle", &json!(request)).await
    };
    let mut altered = succession.clone();
    altered.certificate.statement.epoch = 3;
    assert_eq!(post(altered, Vec::new()).await.problem().code, Code::QuorumMismatch);
    let mut unsigned = succession.clone();
    unsigned.certificate.signatures.swap(0, 1);
    assert_eq!(post(unsigned, Vec::new()).await.problem().code, Code::QuorumMismatch);
    // The words of all, about another epoch.
    let mut words = Vec::new();
    for party in 0..3 {
        words.extend(settle(&coordinator, party, &succession, &[]).await.switched);
    }
    let (_, later) = rotated(&lab, &coordinator, &new, &Plan::refresh(3)).await;
    assert_eq!(settle(&coordinator, 0, &later, &words).await.old_shares, 2, "these words are about epoch 2");
    let public = key.public_key();
    assert_eq!(shares(&coordinator, 0, &public).await[0], (3, "active".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_is_entered_once_and_only_from_the_one_that_is_held() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let (new, _) = rotated(&lab, &coordinator, &key, &Plan::refresh(5)).await;
    for answer in coordinator.ask(&proposed(&lab, &coordinator, &new, &Plan::refresh(6)).await).await {
        assert_eq!(answer.status, 202, "{answer}");
    }
    let taken = proposed(&lab, &coordinator, &new, &Plan::refresh(6)).await;
    let problem = coordinator.ask(&taken).await[0].problem();
    assert_eq!((problem.code, &problem.more["epoch"]), (Code::EpochTaken, &json!(6)));
    let stale = proposed(&lab, &coordinator, &key, &Plan::refresh(7)).await;
    assert_eq!(coordinator.ask(&stale).await[0].problem().code, Code::QuorumMismatch);
    let idle = proposed(&lab, &coordinator, &new, &Plan::refresh(8)).await.telling_all(|invitation| {
        invitation.claims.rotation.as_mut().unwrap().dealers.pop();
    });
    assert_eq!(coordinator.ask(&idle).await[0].problem().code, Code::InvalidJoinToken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_party_that_joins_counts_what_the_key_had_spent_before() {
    let mut lab = TestLab::new(Kind::Spare).await;
    for party in &lab.parties {
        hourly_limit(&party.policy_dir, "0.25");
        publish(&lab.staff(), &party.policy_dir);
    }
    lab.start_appliances().await;
    let key = lab.key();
    let coordinator = lab.lying_coordinator();
    for nonce in 0..2 {
        sign(&coordinator, &key, &[0, 1], nonce).await;
    }
    let plan = Plan { epoch: 2, committee: &[3, 4, 2], t: 2, dealers: &[0, 1], auxiliary: Auxiliary::Keep };
    let ends = coordinator.run_honestly(&coordinator.convener.rotate(&key, &plan)).await;
    let new = Key { certificate: ends[0].succession().certificate.clone(), ..key.clone() };
    for restarted in [false, true] {
        if restarted {
            lab.kill(3);
            lab.start(3).await;
        }
        let coordinator = lab.lying_coordinator();
        let more = coordinator.convener.sign(&new, &[3, 4], &Transfer::allowed(2));
        for answer in coordinator.ask(&more).await {
            assert_eq!(answer.problem().more["policies"], json!(["hourly"]), "{answer}");
        }
    }
}

/// The runbook's paragraph on a suspected compromise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_suspected_compromise_the_key_lives_on_without_that_host_and_with_fresh_auxiliary_info() {
    let (lab, key) = TestLab::spare().await;
    let coordinator = lab.lying_coordinator();
    super::revoking::revoke(&lab, 2, &key).await;
    let plan = Plan { epoch: 2, committee: &[0, 1, 3], t: 2, dealers: &[0, 1], auxiliary: Auxiliary::Fresh };
    let (new, succession) = rotated(&lab, &coordinator, &key, &plan).await;
    sign(&coordinator, &new, &[1, 3], 0).await;
    assert_eq!(settle_all(&coordinator, &[0, 1, 3], &succession).await, [0, 0, 0]);
    assert_eq!(shares(&coordinator, 2, &key.public_key()).await, [(1, "revoked".to_owned())]);
    for (key, signers) in [(&key, [1, 2]), (&new, [2, 3])] {
        let refused = coordinator.ask(&coordinator.convener.sign(key, &signers, &Transfer::allowed(1))).await;
        assert!(refused.iter().any(|answer| answer.status != 202), "{signers:?}");
    }
}
