//! Key generation and signing among honest parties, and with wrong inputs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;

use casemate_mpc::levels::ReducedLevel;
use casemate_mpc::{Cggmp21, DkgParams, Engine, Limits, MpcError, Scheme, SignParams};
use support::committee::{DIGEST, dkg, make_key, reduced_aux, sign, sign_params, start_dkg};
use support::network::{self, pass};
use support::{execution_id, is_valid};

fn engine() -> Engine {
    Engine::start(Some(2)).expect("threads")
}

#[tokio::test]
async fn key_generation_gives_all_parties_one_key() {
    let engine = engine();
    for (t, n) in [(2, 2), (2, 3), (3, 5)] {
        let shares = dkg(&engine, t, n, pass).await.all();
        for (index, share) in (0u16..).zip(&shares) {
            assert_eq!((share.index(), share.t(), share.n()), (index, t, n));
            assert_eq!(share.public_key(), shares[0].public_key());
            assert_eq!(share.chain_code(), shares[0].chain_code());
            assert_eq!(share.public_shares(), shares[0].public_shares());
        }
        assert_ne!(shares[0].chain_code(), [0; 32]);
    }
}

#[tokio::test]
async fn any_quorum_signs_for_the_key() {
    let engine = engine();
    let shares = make_key(&engine, 2, &reduced_aux(3)).await;
    for signers in [[0, 1], [0, 2], [1, 2]] {
        let signatures = sign(&engine, &shares, &signers, pass).await.all();
        assert_eq!(signatures[0], signatures[1]);
        assert!(is_valid(&signatures[0], &shares[0].public_key(), &DIGEST));
    }
}

#[tokio::test]
async fn three_of_five_sign() {
    let engine = engine();
    let shares = make_key(&engine, 3, &reduced_aux(5)).await;
    let signatures = sign(&engine, &shares, &[0, 2, 4], pass).await.all();
    assert!(signatures.iter().all(|signature| is_valid(signature, &shares[0].public_key(), &DIGEST)));
}

#[tokio::test]
async fn a_child_key_signs_and_differs_from_its_parent() {
    let engine = engine();
    let shares = make_key(&engine, 2, &reduced_aux(2)).await;
    let execution_id = execution_id();
    let path = vec![44, 60, 0, 0, 7];
    let child = shares[0].child_public_key(&path).expect("derives");
    assert_eq!(child, shares[1].child_public_key(&path).expect("derives"));
    assert_ne!(child, shares[0].public_key());
    let start = |position, wiring| {
        let derivation_path = Some(path.clone());
        let params = SignParams { derivation_path, ..sign_params(&shares, &[0, 1], position, execution_id) };
        Cggmp21::sign(&engine, params, Limits::sign(2), wiring)
    };
    let signatures = network::run(2, start, pass).await.all();
    assert!(is_valid(&signatures[0], &child, &DIGEST));
}

#[tokio::test]
async fn parties_that_derive_differently_get_no_signature() {
    let engine = engine();
    let shares = make_key(&engine, 2, &reduced_aux(2)).await;
    let execution_id = execution_id();
    let start = |position, wiring| {
        let derivation_path = Some(vec![u32::from(position)]);
        let params = SignParams { derivation_path, ..sign_params(&shares, &[0, 1], position, execution_id) };
        Cggmp21::sign(&engine, params, Limits::sign(2), wiring)
    };
    assert!(network::run(2, start, pass).await.outcomes.iter().all(Result::is_err));
}

#[tokio::test]
async fn parties_that_sign_different_hashes_get_no_signature() {
    let engine = engine();
    let shares = make_key(&engine, 2, &reduced_aux(2)).await;
    let execution_id = execution_id();
    let start = |position: u16, wiring| {
        let digest = [position.to_be_bytes()[1]; 32];
        let params = SignParams { digest, ..sign_params(&shares, &[0, 1], position, execution_id) };
        Cggmp21::sign(&engine, params, Limits::sign(2), wiring)
    };
    for outcome in network::run(2, start, pass).await.outcomes {
        assert!(matches!(outcome, Err(MpcError::Unattributed { round: 5, .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn mixed_execution_ids_fail() {
    let engine = engine();
    let start =
        |position, wiring| start_dkg(&engine, DkgParams { execution_id: execution_id(), position, t: 2, n: 3 }, wiring);
    assert!(network::run(3, start, pass).await.outcomes.iter().all(Result::is_err));

    let shares = make_key(&engine, 2, &reduced_aux(2)).await;
    let start = |position, wiring| {
        let params = sign_params(&shares, &[0, 1], position, execution_id());
        Cggmp21::sign(&engine, params, Limits::sign(2), wiring)
    };
    assert!(network::run(2, start, pass).await.outcomes.iter().all(Result::is_err));
}

#[tokio::test]
async fn wrong_signer_lists_are_refused_before_anything_is_sent() {
    let engine = engine();
    let shares = make_key(&engine, 2, &reduced_aux(3)).await;
    let cases: [(&str, u16, Vec<u16>); 7] = [
        ("too few", 0, vec![0]),
        ("too many", 0, vec![0, 1, 2]),
        ("repeated", 0, vec![0, 0]),
        ("unordered", 1, vec![1, 0]),
        ("unknown index", 0, vec![0, 3]),
        ("another share's position", 1, vec![0, 1]),
        ("position out of range", 2, vec![0, 1]),
    ];
    for (case, position, parties_at_keygen) in cases {
        let params = SignParams {
            execution_id: execution_id(),
            position,
            parties_at_keygen,
            share: Arc::clone(&shares[0]),
            digest: DIGEST,
            derivation_path: None,
        };
        let (wiring, mut sent) = unanswered();
        let outcome = Cggmp21::sign(&engine, params, Limits::sign(2), wiring).await;
        assert!(matches!(outcome, Err(MpcError::Invalid(_))), "{case}: {outcome:?}");
        assert!(sent.outgoing.recv().await.is_none(), "{case}: nothing was sent");
    }
}

#[tokio::test]
async fn hardened_and_overlong_paths_are_refused() {
    let engine = engine();
    let shares = make_key(&engine, 2, &reduced_aux(2)).await;
    for path in [vec![1 << 31], vec![0; 256]] {
        assert!(matches!(shares[0].child_public_key(&path), Err(MpcError::Invalid(_))));
        let derivation_path = Some(path);
        let params = SignParams { derivation_path, ..sign_params(&shares, &[0, 1], 0, execution_id()) };
        let (wiring, _sent) = unanswered();
        let outcome = Cggmp21::sign(&engine, params, Limits::sign(2), wiring).await;
        assert!(matches!(outcome, Err(MpcError::Invalid(_))), "{outcome:?}");
    }
}

#[tokio::test]
async fn impossible_key_generations_are_refused() {
    let engine = engine();
    for (position, t, n) in [(0, 1, 2), (0, 0, 2), (0, 3, 2), (2, 2, 2), (0, 2, 1), (0, 2, 0)] {
        let (wiring, _sent) = unanswered();
        let params = DkgParams { execution_id: execution_id(), position, t, n };
        let outcome = Cggmp21::<ReducedLevel>::dkg(&engine, params, Limits::dkg(n), wiring).await;
        assert!(matches!(outcome, Err(MpcError::Invalid(_))), "{t}-of-{n} at {position}: {outcome:?}");
    }
}

/// The far ends of a session's channels.
struct FarEnd {
    _incoming: tokio::sync::mpsc::Sender<casemate_mpc::Inbound>,
    outgoing: tokio::sync::mpsc::Receiver<casemate_mpc::Outbound>,
}

fn unanswered() -> (casemate_mpc::Wiring, FarEnd) {
    let (inbox, incoming) = tokio::sync::mpsc::channel(8);
    let (outgoing, outbox) = tokio::sync::mpsc::channel(8);
    (casemate_mpc::Wiring { incoming, outgoing }, FarEnd { _incoming: inbox, outgoing: outbox })
}
