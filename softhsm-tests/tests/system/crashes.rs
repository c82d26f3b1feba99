//! Kill -9 of any process at many random moments: every store stays valid, and the next session works.

use std::time::{Duration, Instant};

use casemate_softhsm_tests::ethereum::Transfer;
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{End, Key, LyingCoordinator, Proposal, TestLab};
use casemate_wire::api::{Page, SessionView, ShareView};
use casemate_wire::frame::Outcome;
use casemate_wire::{Code, SessionId};
use hyper::Method;
use rand::Rng;
use serde_json::{Value, json};

const SIGNING_KILLS: usize = 12;
const KEYGEN_KILLS: usize = 8;
const FIRST_KEYGEN_KILLS: usize = 2;
const COORDINATOR_KILLS: usize = 5;

/// The longest wait until a session that was cut off has ended everywhere.
const SETTLING: Duration = Duration::from_secs(60);

/// A moment within a session of this usual length, or just before or after it.
fn moment(usual: Duration) -> Duration {
    rand::thread_rng().gen_range(Duration::ZERO..usual.mul_f64(1.1))
}

/// Runs a session and kills one party at a random moment of it; the party is then started again.
async fn cut_off(
    lab: &mut TestLab,
    coordinator: &LyingCoordinator,
    proposal: &Proposal,
    victim: usize,
    usual: Duration,
) -> Vec<End> {
    let kill = async {
        tokio::time::sleep(moment(usual)).await;
        lab.kill(victim);
    };
    let (ends, ()) = tokio::join!(coordinator.attempt(proposal), kill);
    lab.start(victim).await;
    ends
}

/// How the session ended at a party; `None` if the party was killed before it had accepted.
async fn settled(coordinator: &LyingCoordinator, party: usize, session: &SessionId) -> Option<SessionView> {
    let begun = Instant::now();
    loop {
        let path = format!("sessions/{session}");
        let answer = coordinator.appliances[party].call(Method::GET, &path, None).await.unwrap();
        if answer.status == 404 {
            return None;
        }
        let view: SessionView = answer.json();
        if view.status.is_final() {
            return Some(view);
        }
        assert!(begun.elapsed() < SETTLING, "party {party} has not ended: {view:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every log verifies, every intent has its outcome, and every result that is on record was reported as one.
async fn is_whole(lab: &TestLab, coordinator: &LyingCoordinator, proposal: &Proposal, victim: usize) {
    for invitation in &proposal.invitations {
        let party = invitation.party;
        let view = settled(coordinator, party, &proposal.session).await;
        let (_, report) = lab.audit(party);
        assert!(report.open_intents.is_empty(), "party {party}: {:?}", report.open_intents);
        let Some(SessionView { error: Some(problem), .. }) = view else { continue };
        // The victim may have ended before it was killed; a survivor sees its stream close.
        let fitting = match problem.code {
            Code::Interrupted => party == victim,
            code => matches!(code, Code::TransportFault | Code::Timeout),
        };
        assert!(fitting, "party {party} (victim {victim}): {problem}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_a_signer_at_any_moment_leaves_valid_stores_and_the_next_session_signs() {
    let (mut lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let mut usual = Duration::from_secs(2);
    let mut completed = 0;
    for round in 0..SIGNING_KILLS {
        let victim = round % 2;
        let proposal = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(2 * round as u64));
        let ends = cut_off(&mut lab, &coordinator, &proposal, victim, usual).await;
        is_whole(&lab, &coordinator, &proposal, victim).await;
        let signed = ends.iter().filter_map(|end| match &end.outcome {
            Some(Outcome::Sign { signature }) => Some(*signature),
            _ => None,
        });
        for signature in signed {
            completed += 1;
            let hash = Transfer::allowed(2 * round as u64).hash();
            assert!(signature.verifies(&key.public_key(), &hash));
        }
        let begun = Instant::now();
        let next = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(2 * round as u64 + 1));
        coordinator.run_honestly(&next).await[0].signature();
        usual = begun.elapsed();
    }
    assert!(completed < 2 * SIGNING_KILLS, "every session was over before the kill: it tests nothing");
}

/// What every party holds of a session's key.
async fn shares(coordinator: &LyingCoordinator, session: &SessionId) -> Vec<Option<ShareView>> {
    let of = |party: usize| async move {
        let page: Page<ShareView> = coordinator.appliances[party].read("shares?limit=200").await;
        page.items.into_iter().find(|share| &share.session_id == session)
    };
    futures::future::join_all((0..3).map(of)).await
}

/// Kills parties in keygens, then makes a key and signs with it.
async fn keygens(lab: &mut TestLab, coordinator: &LyingCoordinator, kills: usize, mut usual: Duration) {
    for round in 0..kills {
        let victim = round % 3;
        let proposal = coordinator.convener.keygen();
        let ends = cut_off(lab, coordinator, &proposal, victim, usual).await;
        is_whole(lab, coordinator, &proposal, victim).await;
        let held = shares(coordinator, &proposal.session).await;
        let certified = ends.iter().any(|end| matches!(end.outcome, Some(Outcome::Keygen { .. })));
        if certified {
            // Somebody has told the world of this key, so everybody must hold a share of it, pending or active.
            assert!(held.iter().all(Option::is_some), "{held:?}");
        }
        let mut keys: Vec<_> = held.iter().flatten().map(|share| share.public_key).collect();
        keys.dedup();
        assert!(keys.len() <= 1, "one session, two keys: {held:?}");
        if kills == KEYGEN_KILLS {
            let begun = Instant::now();
            usable(lab, coordinator, round as u64).await;
            usual = begun.elapsed() / 2;
        }
    }
    usable(lab, coordinator, 99).await;
}

async fn usable(lab: &TestLab, coordinator: &LyingCoordinator, nonce: u64) {
    let ends = coordinator.run_honestly(&coordinator.convener.keygen()).await;
    let certificate = ends[0].certificate().clone();
    certificate.verify(|member| Some(lab.party(&member.party_id)?.identity.clone())).unwrap();
    let key = Key { account_id: String::new(), certificate };
    let proposal = coordinator.convener.sign(&key, &[1, 2], &Transfer::allowed(nonce));
    coordinator.run_honestly(&proposal).await[0].signature();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_a_party_of_a_keygen_leaves_valid_stores_and_the_next_key_is_made() {
    let (mut lab, _) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    keygens(&mut lab, &coordinator, KEYGEN_KILLS, Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_a_party_while_auxiliary_info_is_made_costs_a_pair_of_primes_and_no_more() {
    let mut lab = TestLab::empty().await;
    let coordinator = lab.lying_coordinator();
    keygens(&mut lab, &coordinator, FIRST_KEYGEN_KILLS, Duration::from_secs(8)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_coordinator_ends_its_sessions_and_the_next_one_signs() {
    let mut lab = TestLab::new(Kind::Keyed).await;
    lab.start_appliances().await;
    lab.start_coordinator().await;
    let key = lab.key();
    let parties: Vec<Value> = lab.parties[..2].iter().map(|party| json!({"party_id": party.party_id})).collect();
    let order = |nonce: u64| {
        let transfer = Transfer::allowed(nonce);
        json!({
            "account_id": key.account_id, "message_hash": transfer.hash(), "intent": transfer.intent(),
            "participants": parties,
        })
    };
    let door = lab.front_door().unwrap();
    let mut usual = Duration::from_secs(1);
    for round in 0..COORDINATOR_KILLS {
        let created = door.post("/api/v1/mpc/sign", &order(2 * round as u64), None).await.unwrap();
        assert_eq!(created.status, 201, "{}", created.body);
        let session: SessionId = serde_json::from_value(created.body["session_id"].clone()).unwrap();
        tokio::time::sleep(moment(usual)).await;
        lab.kill_coordinator();
        lab.start_coordinator().await;
        let found = door.get(&format!("/api/v1/mpc/sessions/{session}")).await.unwrap();
        match found.body["status"].as_str().unwrap() {
            "completed" => assert!(found.body["signature"].is_string(), "{}", found.body),
            "failed" => assert_eq!(found.body["error"]["code"], "interrupted", "{}", found.body),
            other => panic!("{other}: {}", found.body),
        }
        let watcher = lab.lying_coordinator();
        for party in 0..2 {
            let view = settled(&watcher, party, &session).await;
            let code = view.and_then(|view| view.error).map(|problem| problem.code);
            let fitting = [None, Some(Code::TransportFault), Some(Code::SessionExpired), Some(Code::Timeout)];
            assert!(fitting.contains(&code), "party {party}: {code:?}");
            assert!(lab.audit(party).1.open_intents.is_empty());
        }
        let begun = Instant::now();
        let wait = Some(Duration::from_secs(60));
        let next = door.post("/api/v1/mpc/sign", &order(2 * round as u64 + 1), wait).await.unwrap();
        assert_eq!(next.body["status"], "completed", "{}", next.body);
        usual = begun.elapsed();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_finds_an_appliance_again_that_was_killed_under_it() {
    let mut lab = TestLab::new(Kind::Keyed).await;
    lab.start_appliances().await;
    lab.start_coordinator().await;
    let key = lab.key();
    let door = lab.front_door().unwrap();
    let parties: Vec<Value> = lab.parties[..2].iter().map(|party| json!({"party_id": party.party_id})).collect();
    let wait = Some(Duration::from_secs(60));
    for round in 0..3 {
        let transfer = Transfer::allowed(round);
        let order = json!({
            "account_id": key.account_id, "message_hash": transfer.hash(), "intent": transfer.intent(),
            "participants": parties,
        });
        let signing = door.post("/api/v1/mpc/sign", &order, wait);
        let kill = async {
            tokio::time::sleep(moment(Duration::from_secs(1))).await;
            lab.kill(1);
        };
        let (answer, ()) = tokio::join!(signing, kill);
        let answer = answer.unwrap().body;
        match answer["status"].as_str().unwrap() {
            "completed" => {}
            "failed" => {
                let code = answer["error"]["code"].as_str().unwrap();
                assert!(["party_unreachable", "transport_fault"].contains(&code), "{answer}");
                assert!(answer.get("signature").is_none());
            }
            other => panic!("{other}: {answer}"),
        }
        lab.start(1).await;
        lab.wait_coordinator_healthy(Duration::from_secs(30)).await.unwrap();
        let again = door.post("/api/v1/mpc/sign", &order, wait).await.unwrap().body;
        assert_eq!(again["status"], "completed", "{again}");
        assert!(lab.audit(1).1.open_intents.is_empty());
    }
}
