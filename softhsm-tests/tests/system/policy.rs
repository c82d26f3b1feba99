//! What policy allows and refuses, asked of a real appliance.

use std::fs;

use alloy_primitives::Address;
use casemate_appliance::clients::Role;
use casemate_attest::{Effect, Phase};
use casemate_softhsm_tests::ethereum::{CHAIN, SMALL, TREASURY, Transfer};
use casemate_softhsm_tests::template::Kind;
use casemate_softhsm_tests::{Invitation, LyingCoordinator, Proposal, TestLab};
use casemate_wire::{Code, Digest32, Intent, Problem, ShareType};
use serde_json::{Value, json};

/// Asks party-1 alone; the session then waits for a stream that never comes.
async fn answer(coordinator: &LyingCoordinator, proposal: &Proposal) -> Result<(), Problem> {
    let body = coordinator.convener.body(&proposal.invitations[0]);
    let answer = coordinator.appliances[0].post(proposal.route(), &body).await;
    if answer.status == 202 { Ok(()) } else { Err(answer.problem()) }
}

fn policies(problem: &Problem) -> Vec<&str> {
    problem.more["policies"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect()
}

/// `transfer(address,uint256)` of a token.
fn erc20(to: Address, amount: u64) -> Vec<u8> {
    let mut data = vec![0xa9, 0x05, 0x9c, 0xbb];
    data.extend([0; 12]);
    data.extend(to);
    data.extend([0; 24]);
    data.extend(amount.to_be_bytes());
    data
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transfers_are_judged_by_what_they_do() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let usdc: Address = "0x1c7d4b196cb0c7b01d743fbc6116a902379c7238".parse().unwrap();
    let stranger = Address::repeat_byte(0x44);
    let allowed = [
        ("a small transfer", Transfer::allowed(0)),
        ("exactly the limit", Transfer::of(0, 10 * SMALL, TREASURY)),
        ("a token transfer", Transfer::of(0, 0, usdc).calling(erc20(TREASURY, 1_000_000_000))),
    ];
    for (case, transfer) in allowed {
        let asked = answer(&coordinator, &coordinator.convener.sign(&key, &[0, 1], &transfer)).await;
        assert!(asked.is_ok(), "{case}: {asked:?}");
    }
    let refused: [(&str, Transfer, &[&str]); 8] = [
        ("one wei over the limit", Transfer::of(0, 10 * SMALL + 1, TREASURY), &["per-transfer-limit"]),
        ("an unknown receiver", Transfer::of(0, SMALL, stranger), &["known-receivers"]),
        ("both at once", Transfer::of(0, 20 * SMALL, stranger), &["known-receivers", "per-transfer-limit"]),
        (
            "another chain, of which the bundle knows nothing",
            Transfer::allowed(0).on_chain(CHAIN + 1),
            &[
                "daily-limit",
                "fee-cap",
                "fees-per-day",
                "hourly-limit",
                "known-chains",
                "known-receivers",
                "per-transfer-limit",
            ],
        ),
        ("a dear fee", Transfer::allowed(0).paying(3_000_000_000_000), &["fee-cap"]),
        ("too many tokens", Transfer::of(0, 0, usdc).calling(erc20(TREASURY, 1_000_000_001)), &["per-transfer-limit"]),
        ("a token to a stranger", Transfer::of(0, 0, usdc).calling(erc20(stranger, 1)), &["known-receivers"]),
        (
            "an unknown token",
            Transfer::of(0, 0, stranger).calling(erc20(TREASURY, 1)),
            &["daily-limit", "hourly-limit", "per-transfer-limit"],
        ),
    ];
    for (case, transfer, ids) in refused {
        let problem = answer(&coordinator, &coordinator.convener.sign(&key, &[0, 1], &transfer)).await.unwrap_err();
        assert_eq!((problem.code, problem.status), (Code::PolicyDenied, 403), "{case}: {problem}");
        assert_eq!(policies(&problem), ids, "{case}: {problem}");
        assert!(!problem.more["observed"].as_array().unwrap().is_empty(), "{case}: {problem:?}");
        assert!(!problem.more["permitted"].as_array().unwrap().is_empty(), "{case}: {problem:?}");
        let (leaves, _) = lab.audit(0);
        let leaf = leaves.last().unwrap();
        let decision = leaf.decision.as_ref().unwrap();
        assert_eq!((leaf.phase, decision.effect), (Phase::Refusal, Effect::Deny), "{case}");
        assert_eq!(decision.policies.iter().map(casemate_attest::Text::as_str).collect::<Vec<_>>(), ids, "{case}");
        assert_eq!(leaf.tx.as_ref().unwrap().digest, transfer.hash(), "{case}");
    }
    let call = Transfer::of(0, 0, TREASURY).calling(vec![1, 2, 3, 4]);
    let problem = answer(&coordinator, &coordinator.convener.sign(&key, &[0, 1], &call)).await.unwrap_err();
    assert_eq!(problem.code, Code::PolicyDenied, "an undecoded call matches no permit: {problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intent_must_be_exactly_what_would_be_signed() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    let transfer = Transfer::allowed(0);
    let (unsigned, other) = (transfer.unsigned(), Transfer::allowed(1));
    let of = |kind: &str, payload: String| Intent { kind: kind.into(), payload, input_index: None };
    let ethereum = |bytes: &[u8]| of("ethereum_transaction", hex::encode(bytes));
    let mut misshapen = unsigned.clone();
    misshapen[0] = 3;
    let mut typed = unsigned.clone();
    typed[1] ^= 1;
    let indexed = Intent { input_index: Some(0), ..ethereum(&unsigned) };
    let cases = [
        ("another transaction's", Code::IntentMismatch, ethereum(&other.unsigned())),
        ("with bytes after it", Code::BadRequest, ethereum(&[unsigned.clone(), vec![0]].concat())),
        ("cut short", Code::BadRequest, ethereum(&unsigned[..unsigned.len() - 1])),
        ("of another transaction type", Code::BadRequest, ethereum(&misshapen)),
        ("that is no RLP", Code::BadRequest, ethereum(&typed)),
        ("of nothing", Code::BadRequest, ethereum(&[])),
        ("that is no hex", Code::BadRequest, of("ethereum_transaction", "hello".into())),
        ("of an unknown type", Code::BadRequest, of("solana_transaction", hex::encode(&unsigned))),
        ("with an input index", Code::BadRequest, indexed),
        ("raw with a payload", Code::BadRequest, of("raw", "00".into())),
        ("raw", Code::BlindSigningDenied, of("raw", String::new())),
    ];
    for (case, code, intent) in cases {
        let tell = |invitation: &mut Invitation| invitation.body["intent"] = json!(intent);
        let proposal = coordinator.convener.sign(&key, &[0, 1], &transfer).telling_all(tell);
        let problem = answer(&coordinator, &proposal).await.unwrap_err();
        assert_eq!(problem.code, code, "an intent {case}: {problem}");
    }
    let blind = coordinator.convener.sign_blindly(&key, &[0, 1], Digest32([9; 32]));
    let problem = answer(&coordinator, &blind).await.unwrap_err();
    assert_eq!(problem.code, Code::BlindSigningDenied, "no intent: {problem}");
    assert_eq!(policies(&problem), ["no-blind-signing"]);
    let (leaves, _) = lab.audit(0);
    assert_eq!(lab.detail(0, leaves.last().unwrap()).decoded, Some(json!({"blind": true})));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_too_large_for_the_log_is_refused_and_recorded_like_any_other() {
    let (lab, key) = TestLab::keyed().await;
    let coordinator = lab.lying_coordinator();
    // Each of these bytes takes six in JSON.
    let message = vec![1; 12_000];
    let prefixed = [format!("\x19Ethereum Signed Message:\n{}", message.len()).as_bytes(), &message].concat();
    let hash = Digest32(alloy_primitives::keccak256(prefixed).0);
    let intent = Intent { kind: "eip191".into(), payload: hex::encode(&message), input_index: None };
    let tell = |invitation: &mut Invitation| invitation.body["intent"] = json!(intent);
    let proposal = coordinator.convener.sign_blindly(&key, &[0, 1], hash).telling_all(tell);
    let problem = answer(&coordinator, &proposal).await.unwrap_err();
    assert_eq!(problem.code, Code::PolicyDenied, "{problem}");
    assert!(problem.more.contains_key("receipt"), "{problem:?}");
    let (leaves, _) = lab.audit(0);
    let leaf = leaves.last().unwrap();
    assert_eq!((leaf.phase, leaf.tx.as_ref().unwrap().digest), (Phase::Refusal, hash));
    assert!(lab.detail(0, leaf).decoded.unwrap()["decoded_sha256"].is_string());
    let again = answer(&coordinator, &proposal).await.unwrap_err();
    assert_eq!(again.code, Code::SessionConflict, "its session is settled: {again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_decides_which_keys_are_made() {
    let lab = TestLab::empty().await;
    let coordinator = lab.lying_coordinator();
    let asked = |t: u16, kind: ShareType| {
        coordinator.convener.keygen().telling_all(|invitation| {
            invitation.claims.threshold_t = t;
            invitation.claims.share_type = Some(kind);
            invitation.body["share_type"] = json!(kind);
        })
    };
    answer(&coordinator, &asked(2, ShareType::Wallet)).await.unwrap();
    let problem = answer(&coordinator, &asked(3, ShareType::Wallet)).await.unwrap_err();
    assert_eq!((problem.code, policies(&problem)), (Code::PolicyDenied, vec!["keygen-quorum"]), "{problem}");
    let problem = answer(&coordinator, &asked(2, ShareType::Admin)).await.unwrap_err();
    assert_eq!((problem.code, policies(&problem)), (Code::PolicyDenied, vec!["keygen-approvals"]), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_valid_bundle_everything_is_denied() {
    let mut lab = TestLab::new(Kind::Keyed).await;
    let policy = lab.parties[0].policy_dir.join("transfers.cedar");
    let text = fs::read_to_string(&policy).unwrap();
    fs::write(&policy, text.replace("1.0", "100.0")).unwrap();
    lab.start_appliances().await;
    let key = lab.key();
    let coordinator = lab.lying_coordinator();
    let health: Value = lab.client(0, Role::Monitor).read("health").await;
    assert_eq!(health["status"], "degraded");
    assert_eq!(health["checks"]["policy"]["ok"], false);
    assert!(health["checks"]["policy"]["detail"].as_str().unwrap().contains("transfers.cedar"), "{health}");
    let sign = coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0));
    for proposal in [sign, coordinator.convener.keygen()] {
        let problem = answer(&coordinator, &proposal).await.unwrap_err();
        assert_eq!(problem.code, Code::PolicyDenied, "{problem}");
        assert_eq!(policies(&problem), [""; 0]);
    }

    fs::write(&policy, text).unwrap();
    lab.stop(0);
    lab.start(0).await;
    let health: Value = lab.client(0, Role::Monitor).read("health").await;
    assert_eq!(health["status"], "ok", "{health}");
    answer(&coordinator, &coordinator.convener.sign(&key, &[0, 1], &Transfer::allowed(0))).await.unwrap();
}
