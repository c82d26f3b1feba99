//! People's approvals: counted by person, bound to what they approved; those of a new key are used up by it.

use casemate_appliance::clients::Role;
use casemate_attest::{Guard, Phase};
use casemate_policy::approval::{Act, KeygenParameters, Nonce, Participant, SignParameters, Slot, Statement};
use casemate_policy::signers::Namespace;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::{Key, LyingCoordinator, Proposal, TestLab};
use casemate_wire::api::Approval;
use casemate_wire::{Code, Digest32, Problem, ShareType};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// People of two organisations, as many as the starter policy asks for.
const PEOPLE: [&str; 2] = ["approver-1@treasury", "approver-2@risk"];

/// The statement that approves an admin key for the whole lab, under the policy of party-1.
async fn statement(lab: &TestLab) -> String {
    let policy: Value = lab.client(0, Role::Auditor).read("policy").await;
    let bundle: Digest32 = serde_json::from_value(policy["digest"].clone()).unwrap();
    let participants = lab
        .parties
        .iter()
        .map(|party| Participant { party_id: party.party_id.clone(), identity: party.identity.clone() });
    let act = Act::Keygen {
        slot: Slot { share_type: ShareType::Admin, threshold_t: 2, threshold_n: 3, label: None },
        parameters: KeygenParameters { participants: participants.collect() },
    };
    let expires = Timestamp::now() + SignedDuration::from_hours(1);
    Statement { act, bundle, expires, nonce: Nonce::from_bytes([7; 16]) }.to_text().unwrap()
}

fn signed(lab: &TestLab, person: &str, statement: &str) -> Approval {
    let signature = lab.staff().sign(person, Namespace::Approval.as_str(), statement.as_bytes()).unwrap();
    Approval::new(statement.to_owned(), signature).unwrap()
}

/// A new admin key with these approvals.
fn admin_key(coordinator: &LyingCoordinator, approvals: &[Approval]) -> Proposal {
    coordinator.convener.keygen().telling_all(|invitation| {
        invitation.claims.share_type = Some(ShareType::Admin);
        invitation.claims.label = None;
        invitation.body["share_type"] = json!(ShareType::Admin);
        invitation.body.as_object_mut().unwrap().remove("label");
        invitation.body["approvals"] = json!(approvals);
    })
}

/// Asks party-1 alone.
async fn answer(coordinator: &LyingCoordinator, proposal: &Proposal) -> Result<(), Problem> {
    let body = coordinator.convener.body(&proposal.invitations[0]);
    let answer = coordinator.appliances[0].post(proposal.route(), &body).await;
    if answer.status == 202 { Ok(()) } else { Err(answer.problem()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_may_sign_one_statement_and_it_counts_once() {
    let lab = TestLab::empty().await;
    let coordinator = lab.lying_coordinator();
    let statement = statement(&lab).await;
    let both: Vec<Approval> = PEOPLE.iter().map(|person| signed(&lab, person, &statement)).collect();
    for (case, some) in [("nobody", &both[..0]), ("one person", &both[..1])] {
        let problem = answer(&coordinator, &admin_key(&coordinator, some)).await.unwrap_err();
        assert_eq!(problem.code, Code::PolicyDenied, "{case}: {problem}");
        assert!(problem.more.contains_key("receipt"), "{case}: {problem:?}");
    }
    answer(&coordinator, &admin_key(&coordinator, &both)).await.unwrap();
    let (leaves, _) = lab.audit(0);
    let intent = leaves.iter().rfind(|leaf| leaf.phase == Phase::Intent).unwrap();
    let names: Vec<&str> = intent.approvals.iter().map(|approval| approval.name.as_str()).collect();
    assert_eq!(names, PEOPLE);
    let used = intent.guards.iter().filter(|change| change.guard == Guard::Approval).count();
    assert_eq!(used, 1, "both signed one statement: {:?}", intent.guards);

    let problem = answer(&coordinator, &admin_key(&coordinator, &both)).await.unwrap_err();
    assert_eq!(problem.code, Code::PolicyDenied, "an approval makes no second key: {problem}");
    assert!(problem.more["approvals"]["ignored"][0].as_str().unwrap().contains("used before"), "{problem:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_requests_that_race_for_one_approval_one_gets_it() {
    let lab = TestLab::empty().await;
    let coordinator = lab.lying_coordinator();
    let statement = statement(&lab).await;
    let both: Vec<Approval> = PEOPLE.iter().map(|person| signed(&lab, person, &statement)).collect();
    let proposals: Vec<Proposal> = (0..6).map(|_| admin_key(&coordinator, &both)).collect();
    let answers = futures::future::join_all(proposals.iter().map(|proposal| answer(&coordinator, proposal))).await;
    let allowed = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(allowed, 1, "{answers:?}");
    for problem in answers.into_iter().filter_map(Result::err) {
        assert_eq!(problem.code, Code::PolicyDenied, "{problem}");
        assert!(problem.more.contains_key("receipt"), "every denial has its receipt: {problem:?}");
    }
    lab.audit(0);
}

/// Approves 2.0 ETH, or whatever the change makes of it.
async fn transfer_approval(lab: &TestLab, key: &Key, person: &str, change: impl FnOnce(&mut Statement)) -> Approval {
    let policy: Value = lab.client(0, Role::Auditor).read("policy").await;
    let parameters = SignParameters { message_hash: Transfer::over_the_limit(0).hash(), derivation_path: None };
    let mut statement = Statement {
        act: Act::Sign { key: key.public_key(), parameters },
        bundle: serde_json::from_value(policy["digest"].clone()).unwrap(),
        expires: Timestamp::now() + SignedDuration::from_hours(1),
        nonce: Nonce::from_bytes(rand::random()),
    };
    change(&mut statement);
    signed(lab, person, &statement.to_text().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn approvals_of_a_transfer_count_only_for_that_transfer_and_each_person_once() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let [treasury, risk] = PEOPLE;
    let good = transfer_approval(&lab, &key, treasury, |_| {}).await;
    let second = transfer_approval(&lab, &key, risk, |_| {}).await;
    let ask = async |approvals: &[Approval]| {
        let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::over_the_limit(0));
        answer(&coordinator, &proposal.telling_all(|invitation| invitation.body["approvals"] = json!(approvals))).await
    };
    let other_hash = Digest32([9; 32]);
    let foreign = transfer_approval(&lab, &key, risk, |statement| {
        let parameters = SignParameters { message_hash: other_hash, derivation_path: None };
        statement.act = Act::Sign { key: key.public_key(), parameters };
    });
    let expired = transfer_approval(&lab, &key, risk, |statement| statement.expires = Timestamp::UNIX_EPOCH);
    let elsewhere = transfer_approval(&lab, &key, risk, |statement| statement.bundle = other_hash);
    let namespace = lab.staff().sign(risk, Namespace::Policy.as_str(), second.statement().as_bytes()).unwrap();
    let cases = [
        ("the message hash differs", foreign.await),
        ("it expired", expired.await),
        ("it was given under the policy bundle", elsewhere.await),
        ("casemate-policy", Approval::new(second.statement().to_owned(), namespace).unwrap()),
        ("is not an allowed", signed(&lab, "signer-1@security", second.statement())),
        ("has approved already", transfer_approval(&lab, &key, treasury, |_| {}).await),
    ];
    for (why, bad) in cases {
        let problem = ask(&[good.clone(), bad]).await.unwrap_err();
        assert_eq!(problem.code, Code::PolicyDenied, "{why}: {problem}");
        let approvals = &problem.more["approvals"];
        assert_eq!(approvals["counted"], json!([treasury]), "{why}");
        assert!(approvals["ignored"][0].as_str().unwrap().contains(why), "{why}: {approvals}");
    }
    ask(&[good.clone(), second.clone()]).await.unwrap();
    ask(&[good, second]).await.unwrap();
    let (leaves, _) = lab.audit(0);
    let intent = leaves.iter().rfind(|leaf| leaf.phase == Phase::Intent).unwrap();
    let names: Vec<&str> = intent.approvals.iter().map(|approval| approval.name.as_str()).collect();
    assert_eq!(names, PEOPLE);
    assert!(intent.guards.iter().all(|change| change.guard != Guard::Approval), "the same transfer may be asked again");
}
