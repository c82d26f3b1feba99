//! Shares that are withdrawn: who may, what stops, what is left of them, also when the power goes.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use casemate_appliance::clients::Role;
use casemate_appliance::store::open_read_only;
use casemate_attest::{AuditKey, Guard, Op, Phase, SignedReceipt, Verdict};
use casemate_policy::approval::{Act, Nonce, RevokeParameters, Statement};
use casemate_policy::signers::Namespace;
use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::relay::pass;
use casemate_softhsm_tests::{Answer, End, Key, LyingCoordinator, Plan, Proposal, TestLab};
use casemate_wire::api::{Approval, Page, RevokeAnswer, SessionStatus, ShareView};
use casemate_wire::frame::{Frame, Outcome};
use casemate_wire::{Code, Digest32, KeyCertificate};
use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::receipts::audit_key;
use super::rotation::{proposed, shares, sign};

/// People of two organisations, as many as the starter policy asks for.
const PEOPLE: [&str; 2] = ["approver-1@treasury", "approver-2@risk"];
const REASON: &str = "the host was broken into";

/// How long the blobs of secrets are that are looked for, in bytes.
const PART: usize = 40;

/// The phases of messages, in the high byte of their rounds.
const CONFIRM: u8 = 6;
const SIGN: u8 = 8;

fn phase(frame: &Frame) -> u8 {
    match frame {
        Frame::Message(message) => message.content.round.to_be_bytes()[0],
        _ => 0,
    }
}

/// The approvals that the starter policy asks for, for the share of one party.
pub(super) async fn approvals(lab: &TestLab, key: &Key, party: usize, reason: &str) -> Vec<Approval> {
    let policy: Value = lab.client(0, Role::Auditor).read("policy").await;
    let bundle: Digest32 = serde_json::from_value(policy["digest"].clone()).unwrap();
    let parameters = RevokeParameters { party_id: lab.parties[party].party_id.clone(), reason: reason.into() };
    let act = Act::Revoke { key: key.public_key(), parameters };
    let expires = Timestamp::now() + SignedDuration::from_hours(1);
    let nonce = Nonce::from_bytes(*uuid::Uuid::new_v4().as_bytes());
    let statement = Statement { act, bundle, expires, nonce }.to_text().unwrap();
    let signed = |person: &&str| {
        let signature = lab.staff().sign(person, Namespace::Approval.as_str(), statement.as_bytes()).unwrap();
        Approval::new(statement.clone(), signature).unwrap()
    };
    PEOPLE.iter().map(signed).collect()
}

/// The id of the share of a key that signs at a party.
pub(super) async fn live_share(lab: &TestLab, party: usize, key: &Key) -> String {
    let page: Page<ShareView> = lab.client(party, Role::Operator).read("shares?status=active").await;
    page.items.into_iter().find(|share| share.public_key == key.public_key()).unwrap().id
}

async fn ask(lab: &TestLab, party: usize, id: &str, reason: &str, approvals: &[Approval]) -> Answer {
    let body = json!({"reason": reason, "approvals": approvals});
    lab.client(party, Role::Operator).post(&format!("shares/{id}/revoke"), &body).await
}

/// Withdraws the shares of a key at a party, with all that policy asks for.
pub(super) async fn revoke(lab: &TestLab, party: usize, key: &Key) -> RevokeAnswer {
    let id = live_share(lab, party, key).await;
    let approvals = approvals(lab, key, party, REASON).await;
    ask(lab, party, &id, REASON, &approvals).await.json()
}

/// Parts of everything secret that a party's database holds of its shares, none of which may be left of them.
fn secrets(lab: &TestLab, party: usize) -> Vec<[u8; PART]> {
    let store = open_read_only(&lab.parties[party].data_dir).unwrap();
    let mut statement = store.prepare("SELECT body, deks FROM shares WHERE body IS NOT NULL").unwrap();
    let rows = statement.query_map([], |row| Ok([row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?])).unwrap();
    let blobs: Vec<Vec<u8>> = rows.flat_map(Result::unwrap).collect();
    // Blobs lie in pages: small blobs of them are whole somewhere. What wrapped keys begin with, all have in common; their last
    // bytes are the ciphertext.
    let (bodies, deks): (Vec<_>, Vec<_>) = blobs.into_iter().enumerate().partition(|(place, _)| place % 2 == 0);
    let mut blobs: Vec<[u8; PART]> = Vec::new();
    for (_, body) in bodies {
        blobs.extend(body.chunks_exact(PART).step_by(5).map(|part| <[u8; PART]>::try_from(part).unwrap()));
    }
    blobs.extend(deks.iter().map(|(_, deks)| deks.last_chunk::<PART>().unwrap()));
    assert!(blobs.len() > 20, "{} blobs", blobs.len());
    blobs
}

/// The files of a party, anywhere in its data folder, in which one of these blobs lies.
fn lie_in(lab: &TestLab, party: usize, blobs: &[[u8; PART]]) -> Vec<String> {
    fn look(folder: &Path, begins: &[bool], blobs: &[[u8; PART]], found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                look(&entry.path(), begins, blobs, found);
                continue;
            }
            let bytes = fs::read(entry.path()).unwrap();
            let mut place = 0;
            while let Some([a, b]) = bytes.get(place..place + 2) {
                if begins[usize::from(*a) * 256 + usize::from(*b)]
                    && blobs.iter().any(|part| bytes[place..].starts_with(part))
                {
                    found.push(entry.path().display().to_string());
                    break;
                }
                place += 1;
            }
        }
    }
    let mut begins = vec![false; 256 * 256];
    for [a, b, ..] in blobs {
        begins[usize::from(*a) * 256 + usize::from(*b)] = true;
    }
    let mut found = Vec::new();
    look(&lab.parties[party].data_dir, &begins, blobs, &mut found);
    found
}

/// What party-1's metrics must say.
async fn measures(lab: &TestLab, lines: &[&str]) {
    let metrics = lab.client(0, Role::Monitor).get("/metrics").await;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    for line in lines {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

/// Waits until nothing of them lies anywhere: a reader may keep the write-ahead log for a moment.
async fn nothing_lies_anywhere(lab: &TestLab, party: usize, blobs: &[[u8; PART]]) {
    let begun = Instant::now();
    loop {
        let found = lie_in(lab, party, blobs);
        if found.is_empty() {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(3), "{found:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_share_is_destroyed_signs_no_more_and_stays_known() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let blobs = secrets(&lab, 0);
    assert_ne!(lie_in(&lab, 0, &blobs), [] as [String; 0], "the search finds what is there");
    let id = live_share(&lab, 0, &key).await;
    let before: ShareView = lab.client(0, Role::Auditor).read(&format!("shares/{id}")).await;
    measures(&lab, &["mpc_shares{status=\"active\"} 1", "mpc_backup_missing 1", "mpc_old_shares 0"]).await;
    let answer = revoke(&lab, 0, &key).await;
    assert_eq!((answer.revoked, answer.sessions_stopped), (vec![id.clone()], 0));
    assert_eq!(answer.share.status, "revoked");
    nothing_lies_anywhere(&lab, 0, &blobs).await;

    let after: ShareView = lab.client(0, Role::Auditor).read(&format!("shares/{id}")).await;
    let expected = ShareView { status: "revoked".into(), kek: String::new(), ..before };
    assert_eq!(after, expected, "what is known of it stays");
    let certificate: KeyCertificate = lab.client(0, Role::Auditor).read(&format!("shares/{id}/certificate")).await;
    assert_eq!(certificate, key.certificate);

    let refused = coordinator.ask(&coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0))).await;
    let problem = refused[0].problem();
    assert_eq!(problem.code, Code::ShareNotActive);
    assert!(problem.detail.contains("revoked"), "{problem}");
    sign(&coordinator, &key, &[1, 2], 1).await;

    let (leaves, _) = lab.audit(0);
    let leaf = leaves.iter().find(|leaf| leaf.op == Op::Revoke).unwrap();
    assert_eq!((leaf.phase, leaf.key), (Phase::Admin, Some(key.public_key())));
    assert_eq!(leaf.actor.as_ref().unwrap().as_str(), "operator");
    let decision = leaf.decision.as_ref().unwrap();
    assert_eq!(decision.policies.iter().map(casemate_attest::Text::as_str).collect::<Vec<_>>(), ["revoke-shares"]);
    assert_eq!(leaf.approvals.iter().map(|approval| approval.name.as_str()).collect::<Vec<_>>(), PEOPLE);
    let used = leaf.guards.iter().filter(|change| change.guard == Guard::Approval).count();
    let shares = leaf.guards.iter().filter(|change| change.guard == Guard::Share);
    let shares: Vec<(&str, &str)> =
        shares.map(|change| (change.id.as_str(), change.to.as_ref().unwrap().as_str())).collect();
    assert_eq!((used, shares), (1, vec![(id.as_str(), "revoked")]));
    assert_eq!(lab.detail(0, leaf).reason.unwrap(), REASON);
    measures(&lab, &["mpc_shares{status=\"revoked\"} 1", "mpc_shares{status=\"active\"} 0", "mpc_backup_missing 0"])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_is_an_operators_and_needs_the_approvals_that_policy_asks_for() {
    let (lab, key) = TestLab::keyed().await;
    let id = live_share(&lab, 0, &key).await;
    let good = approvals(&lab, &key, 0, REASON).await;
    for role in [Role::Coordinator, Role::Auditor, Role::Monitor] {
        let body = json!({"reason": REASON, "approvals": good});
        let answer = lab.client(0, role).post(&format!("shares/{id}/revoke"), &body).await;
        assert_eq!(answer.problem().code, Code::ForbiddenRole, "{role:?}");
    }
    let elsewhere = approvals(&lab, &key, 1, REASON).await;
    let one_org = [good[0].clone(), approvals(&lab, &key, 0, REASON).await[0].clone()];
    let cases: [(&str, &[Approval], usize); 5] = [
        ("without approvals", &[], 0),
        ("with one", &good[..1], 1),
        ("with one person's, twice", &one_org, 1),
        ("with approvals for another party's share", &elsewhere, 0),
        ("with approvals for another reason", &approvals(&lab, &key, 0, "another").await, 0),
    ];
    for (case, approvals, counted) in cases {
        let problem = ask(&lab, 0, &id, REASON, approvals).await.problem();
        assert_eq!(problem.code, Code::PolicyDenied, "{case}");
        assert_eq!(problem.more["policies"], json!(["ceremony-approvals"]), "{case}");
        assert_eq!(problem.more["approvals"]["counted"].as_array().unwrap().len(), counted, "{case}: {problem}");
        let receipt: SignedReceipt = serde_json::from_value(problem.more["receipt"].clone()).unwrap();
        let audit = AuditKey::from_spki(&hex::decode(audit_key(&lab, 0)).unwrap()).unwrap();
        let receipt = receipt.verify(&audit).unwrap();
        assert_eq!((receipt.key, receipt.session), (Some(key.public_key()), None), "{case}");
        let (leaves, _) = lab.audit(0);
        let leaf = leaves.iter().rfind(|leaf| leaf.phase == Phase::Refusal).unwrap();
        assert_eq!((leaf.op, leaf.seq), (Op::Revoke, receipt.seq), "{case}");
    }
    for (reason, id, code) in [
        ("", id.as_str(), Code::BadRequest),
        ("  ", &id, Code::BadRequest),
        (&"x".repeat(1001), &id, Code::BadRequest),
        (REASON, "nobody", Code::ShareNotFound),
    ] {
        assert_eq!(ask(&lab, 0, id, reason, &good).await.problem().code, code);
    }
    sign(&lab.lying_coordinator(), &key, &[0, 1], 0).await;
    let first: RevokeAnswer = ask(&lab, 0, &id, REASON, &good).await.json();
    assert_eq!(first.revoked, std::slice::from_ref(&id));
    // What is done is done: the same call, another one, and one without any approvals are all answered with what is.
    let size = lab.audit(0).0.iter().filter(|leaf| leaf.op == Op::Revoke).count();
    for approvals in [&good[..], &[]] {
        let again: RevokeAnswer = ask(&lab, 0, &id, "again", approvals).await.json();
        assert_eq!((again.share.status.as_str(), again.revoked.len()), ("revoked", 0));
    }
    assert_eq!(lab.audit(0).0.iter().filter(|leaf| leaf.op == Op::Revoke).count(), size);
}

/// Carries a session until `holds`, then holds every message back while party-1 withdraws the key's shares.
async fn revoked_while_running(
    lab: &TestLab,
    coordinator: &LyingCoordinator,
    key: &Key,
    proposal: &Proposal,
    holds: u8,
) -> (Vec<End>, RevokeAnswer, Duration) {
    for answer in coordinator.ask(proposal).await {
        assert_eq!(answer.status, 202, "{answer}");
    }
    let id = live_share(lab, 0, key).await;
    let approvals = approvals(lab, key, 0, REASON).await;
    let held = AtomicBool::new(false);
    let relayed = coordinator.relay(proposal, |from, to, frame| {
        if phase(&frame) < holds {
            return pass(from, to, frame);
        }
        held.store(true, Ordering::Relaxed);
        Vec::new()
    });
    let revoking = async {
        while !held.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let answer: RevokeAnswer = ask(lab, 0, &id, REASON, &approvals).await.json();
        let since = Instant::now();
        loop {
            let view = coordinator.view(0, &proposal.session).await;
            if view.status.is_final() {
                assert_eq!(view.status, SessionStatus::Failed);
                assert_eq!(view.error.unwrap().code, Code::ShareNotActive);
                return (answer, since.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (ends, (answer, after)) = tokio::join!(relayed, revoking);
    (ends, answer, after)
}

/// After the leaf of the revocation, no session of the key ends well.
fn nothing_good_follows(lab: &TestLab, key: &Key) {
    let (leaves, _) = lab.audit(0);
    let revoked = leaves.iter().position(|leaf| leaf.op == Op::Revoke && leaf.phase == Phase::Admin).unwrap();
    let good = leaves[revoked..].iter().find(|leaf| {
        leaf.key == Some(key.public_key())
            && leaf.outcome.as_ref().is_some_and(|outcome| outcome.result == Verdict::Completed)
    });
    assert!(good.is_none(), "{good:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_use_a_share_stop_at_once_when_it_is_withdrawn() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    // One waits for its stream, one is signing.
    let waiting = coordinator.convener.sign(&key, &[0, 2], &Transfer::allowed(0));
    assert_eq!(coordinator.ask(&waiting).await[0].status, 202);
    let signing = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(1));
    let (ends, answer, after) = revoked_while_running(&lab, &coordinator, &key, &signing, SIGN).await;
    assert_eq!(answer.sessions_stopped, 2);
    assert_eq!(ends[0].code(), Code::ShareNotActive);
    assert!(!matches!(ends[1].outcome, Some(Outcome::Sign { .. })));
    assert!(after < Duration::from_secs(2), "{after:?}");
    let other = coordinator.view(0, &waiting.session).await;
    assert_eq!((other.status, other.error.unwrap().code), (SessionStatus::Failed, Code::ShareNotActive));
    nothing_good_follows(&lab, &key);
    assert!(lab.audit(0).1.open_intents.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_runs_meanwhile_brings_no_share_back() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let rotating = proposed(&lab, &coordinator, &key, &Plan::refresh(2)).await;
    let (ends, answer, _) = revoked_while_running(&lab, &coordinator, &key, &rotating, CONFIRM).await;
    assert_eq!(answer.revoked.len(), 2, "the new share that waits for its confirmation goes as well");
    assert_eq!(ends[0].code(), Code::ShareNotActive);
    let public = key.public_key();
    let revoked = |epoch| (epoch, "revoked".to_owned());
    assert_eq!(shares(&coordinator, 0, &public).await, [revoked(2), revoked(1)]);
    nothing_good_follows(&lab, &key);
    // The others go on without it.
    sign(&coordinator, &key, &[1, 2], 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_moment_of_a_revocation_leaves_a_share_whole_or_gone() {
    let (mut lab, key) = TestLab::keyed().await;
    let blobs = secrets(&lab, 0);
    let id = live_share(&lab, 0, &key).await;
    let approvals = approvals(&lab, &key, 0, REASON).await;
    let body = json!({"reason": REASON, "approvals": approvals}).to_string();
    // From before the request is read until after it is answered.
    for pause in [0, 2, 5, 10, 20, 40, 80, 160, 320, 5000] {
        let client = lab.client(0, Role::Operator);
        drop(client.get("health").await);
        let path = format!("shares/{id}/revoke");
        let asked = client.call(Method::POST, &path, Some(body.clone().into()));
        let answered = tokio::time::timeout(Duration::from_millis(pause), asked).await;
        lab.kill(0);
        lab.start(0).await;
        let view: ShareView = lab.client(0, Role::Operator).read(&format!("shares/{id}")).await;
        let (_, report) = lab.audit(0);
        assert!(report.open_intents.is_empty());
        if view.status == "revoked" {
            nothing_lies_anywhere(&lab, 0, &blobs).await;
            let coordinator = lab.lying_coordinator();
            let asked = coordinator.ask(&coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(9))).await;
            assert_eq!(asked[0].problem().code, Code::ShareNotActive);
            return;
        }
        assert!(answered.is_err(), "what was answered stands: {answered:?}");
        assert_eq!(view.status, "active");
        assert_ne!(lie_in(&lab, 0, &blobs), [] as [String; 0]);
    }
    panic!("it was never revoked");
}
