//! People's approvals of a new key: counted by person, and used up by the act that they allowed.

use casemate_appliance::clients::Role;
use casemate_attest::{Guard, Phase};
use casemate_policy::approval::{Act, KeygenParameters, Nonce, Participant, Slot, Statement};
use casemate_policy::signers::Namespace;
use casemate_softhsm_tests::{LyingCoordinator, Proposal, TestLab};
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
