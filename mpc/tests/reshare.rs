//! Redistribution of keys: the same key, other shares.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use casemate_mpc::levels::ReducedLevel;
use casemate_mpc::{
    Cggmp21, DkgShare, Engine, KeyShare, Limits, MpcError, OldKey, ReshareParams, Scheme, SignParams, Wiring,
};
use futures::StreamExt;
use futures::stream;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use support::committee::{DIGEST, make_key, reduced_aux, sign, sign_params};
use support::network::{self, Copy, pass};
use support::reshare::{Plan, Share};
use support::{execution_id, is_valid};

type Params = ReshareParams<ReducedLevel>;
type Alteration = fn(&mut Params, &OldKey);
type Change<'a> = Box<dyn Fn(&mut Params) + 'a>;

fn engine() -> Engine {
    Engine::start(Some(2)).expect("threads")
}

/// All sets of `size` of the indices below `n`, ascending.
fn subsets(n: u16, size: u16) -> Vec<Vec<u16>> {
    let masks = (0u32..1 << n).filter(|mask| mask.count_ones() == u32::from(size));
    masks.map(|mask| (0..n).filter(|index| mask & (1 << index) != 0).collect()).collect()
}

/// Signs with `signers` for the child at `path`; every signature holds for that child of `old`.
async fn signs_for_child(engine: &Engine, old: &Share, new: &[Share], signers: &[u16], path: &[u32]) {
    let child = old.child_public_key(path).expect("derives");
    assert_eq!(new[0].child_public_key(path).expect("derives"), child);
    let execution_id = execution_id();
    let t = u16::try_from(signers.len()).unwrap();
    let start = |position, wiring| {
        let derivation_path = Some(path.to_vec());
        let params = SignParams { derivation_path, ..sign_params(new, signers, position, execution_id) };
        Cggmp21::sign(engine, params, Limits::sign(t), wiring)
    };
    for signature in network::run(t, start, pass).await.all() {
        assert!(is_valid(&signature, &child, &DIGEST));
    }
}

/// Redistributes a fresh `t`-of-`n` key by `plan`; every quorum of the new shares signs for the same key and its children.
async fn keeps_the_key(t: u16, n: u16, plan: Plan) {
    let engine = engine();
    let old = make_key(&engine, t, &reduced_aux(n)).await;
    let new = plan.new_shares(&engine, &old, &reduced_aux(plan.new_n)).await;
    let shares: BTreeSet<_> = old.iter().flat_map(|share| share.public_shares()).collect();
    for (index, share) in (0u16..).zip(&new) {
        assert_eq!((share.index(), share.t(), share.n()), (index, plan.new_t, plan.new_n));
        assert_eq!(share.public_key(), old[0].public_key());
        assert_eq!(share.chain_code(), old[0].chain_code());
        assert_eq!(share.public_shares(), new[0].public_shares());
        assert!(share.public_shares().iter().all(|share| !shares.contains(share)), "no share is an old one");
    }
    for signers in subsets(plan.new_n, plan.new_t) {
        for signature in sign(&engine, &new, &signers, pass).await.all() {
            assert!(is_valid(&signature, &old[0].public_key(), &DIGEST), "{signers:?}");
        }
    }
    let last = (plan.new_n - plan.new_t..plan.new_n).collect::<Vec<_>>();
    signs_for_child(&engine, &old[0], &new, &last, &[44, 60, 0, 0, 7]).await;
}

#[tokio::test]
async fn a_refresh_keeps_the_key() {
    keeps_the_key(2, 3, Plan::new(&[(0, 0), (2, 2)], 2, 3)).await;
}

#[tokio::test]
async fn a_committee_grows_with_its_threshold() {
    keeps_the_key(2, 3, Plan::new(&[(0, 0), (1, 1)], 3, 5)).await;
}

#[tokio::test]
async fn a_disjoint_smaller_committee_takes_over() {
    keeps_the_key(3, 5, Plan::new(&[(3, 0), (4, 2), (5, 4)], 2, 3)).await;
}

#[tokio::test]
async fn an_overlapping_committee_in_another_order_takes_over() {
    keeps_the_key(3, 5, Plan::new(&[(2, 1), (0, 3), (3, 4)], 2, 3)).await;
}

/// Wherever the dealers sit and whatever the thresholds are, all end with one view of the same key, and a second
/// redistribution can follow the first.
#[tokio::test]
async fn any_plan_gives_all_parties_one_view_of_the_same_key() {
    let engine = engine();
    let keys = [
        make_key(&engine, 2, &reduced_aux(2)).await,
        make_key(&engine, 2, &reduced_aux(4)).await,
        make_key(&engine, 4, &reduced_aux(5)).await,
    ];
    let plans = (0usize..3, 2u16..=6).prop_flat_map(|(key, new_n)| {
        let (t, n) = [(2u16, 2u16), (2, 4), (4, 5)][key];
        let indices = proptest::sample::subsequence((0..n).collect::<Vec<_>>(), usize::from(t));
        // Dealers take seats of the new committee or, from `new_n` on, leave; the order of leaving is theirs.
        let seats = Just((0..new_n + t).collect::<Vec<_>>()).prop_shuffle();
        (Just(key), 2..=new_n, Just(new_n), indices, seats)
    });
    let mut runner = TestRunner::deterministic();
    for _ in 0..30 {
        let (key, new_t, new_n, indices, seats) =
            proptest::strategy::ValueTree::current(&plans.new_tree(&mut runner).expect("a plan"));
        let mut leaving = new_n;
        let dealers = indices.iter().zip(&seats).map(|(index, seat)| {
            let position = if *seat < new_n {
                *seat
            } else {
                leaving += 1;
                leaving - 1
            };
            (position, *index)
        });
        let plan = Plan { dealers: dealers.collect(), new_t, new_n };
        let old = &keys[key];
        let outcomes = plan.run(&engine, old, pass).await.all();
        for (position, outcome) in (0u16..).zip(&outcomes) {
            assert_eq!(outcome.transcript_digest, outcomes[0].transcript_digest, "{plan:?}");
            assert_eq!(outcome.public_shares, outcomes[0].public_shares, "{plan:?}");
            assert_eq!(outcome.share.is_some(), position < new_n, "{plan:?}");
            if let Some(share) = &outcome.share {
                let loaded = DkgShare::from_bytes(&share.to_bytes().expect("encodes")).expect("passes every check");
                assert_eq!((loaded.index(), loaded.t(), loaded.n()), (position, new_t, new_n));
                assert_eq!(loaded.public_key(), old[0].public_key());
                assert_eq!(loaded.chain_code(), old[0].chain_code());
                assert_eq!(loaded.public_shares(), outcome.public_shares);
            }
        }
    }
}

#[tokio::test]
async fn redistributions_can_follow_each_other() {
    let engine = engine();
    let (small, large) = (reduced_aux(3), reduced_aux(5));
    let first = make_key(&engine, 2, &small).await;
    let second = Plan::new(&[(0, 0), (3, 2)], 3, 5).new_shares(&engine, &first, &large).await;
    let third = Plan::new(&[(1, 1), (3, 2), (0, 4)], 2, 3).new_shares(&engine, &second, &small).await;
    let signatures = sign(&engine, &third, &[0, 2], pass).await.all();
    assert!(is_valid(&signatures[0], &first[0].public_key(), &DIGEST));
}

#[tokio::test]
async fn old_and_new_shares_never_sign_together() {
    let engine = engine();
    let aux = reduced_aux(3);
    let old = make_key(&engine, 3, &aux).await;
    let new = Plan::refresh(&old).new_shares(&engine, &old, &aux).await;
    for new_ones in 1u8..7 {
        let mixed: Vec<Share> = (0..3)
            .map(|index| Arc::clone(if new_ones & (1 << index) == 0 { &old[index] } else { &new[index] }))
            .collect();
        for outcome in sign(&engine, &mixed, &[0, 1, 2], pass).await.outcomes {
            assert!(outcome.is_err(), "a signature by mixed shares, new: {new_ones:03b}");
        }
    }
    assert_eq!(sign(&engine, &new, &[0, 1, 2], pass).await.all().len(), 3);
}

/// Interpolation between mixed epochs does not give the key either: their polynomials have nothing but the key in common.
#[tokio::test]
async fn shares_of_two_epochs_do_not_lie_on_one_polynomial() {
    let engine = engine();
    let old = make_key(&engine, 2, &reduced_aux(3)).await;
    let outcome = Plan::refresh(&old).run(&engine, &old, pass).await.all().remove(0);
    for stale in 0..3 {
        let mut mixed = outcome.public_shares.clone();
        mixed[stale] = old[0].public_shares()[stale];
        assert!(OldKey::new(&old[0].public_key(), old[0].chain_code(), 2, 2, &mixed).is_err());
    }
    assert!(OldKey::new(&old[0].public_key(), old[0].chain_code(), 2, 2, &outcome.public_shares).is_ok());
}

/// Loses each copy of each message in turn. Who misses it never has a share; nobody is blamed for more than silence.
async fn survives_the_loss_of_any_message(old: &[Share], plan: &Plan) {
    let engine = engine();
    let sample = plan.run(&engine, old, pass).await.delivered;
    assert_eq!(sample.len(), usize::from(plan.parties() * (plan.parties() - 1) * 7));
    let limits = Limits { round: Duration::from_millis(400), ..Limits::reshare(plan.parties()) };
    let lose = |lost: Copy| {
        let engine = &engine;
        async move {
            let is_lost = |copy: &Copy| copy.to == lost.to && copy.is(lost.from, lost.round, lost.broadcast);
            let run =
                plan.run_within(engine, old, limits, |copy| if is_lost(&copy) { vec![] } else { vec![copy] }).await;
            for (party, outcome) in (0u16..).zip(&run.outcomes) {
                match outcome {
                    Ok(_) if party != lost.to && lost.round == 6 => {}
                    Err(MpcError::Silent { .. } | MpcError::Closed) => {}
                    other => panic!("party {party} without {lost:?}: {other:?}"),
                }
            }
            let missed = &run.outcomes[usize::from(lost.to)];
            assert!(missed.is_err(), "a share without {lost:?}");
            if let Err(MpcError::Silent { parties, round }) = missed
                && *round == lost.round
            {
                assert!(parties.contains(&lost.from), "{parties:?} and not party {} are named", lost.from);
            }
        }
    };
    stream::iter(sample.into_iter().map(lose)).buffer_unordered(16).collect::<Vec<()>>().await;
    // The old shares are as good as before, so the next attempt succeeds.
    assert_eq!(plan.run(&engine, old, pass).await.all().len(), usize::from(plan.parties()));
}

#[tokio::test]
async fn a_lost_message_ends_a_refresh_without_a_share_where_it_is_missed() {
    let old = make_key(&engine(), 2, &reduced_aux(3)).await;
    survives_the_loss_of_any_message(&old, &Plan::refresh(&old)).await;
}

#[tokio::test]
async fn a_lost_message_ends_a_committee_change_without_a_share_where_it_is_missed() {
    let old = make_key(&engine(), 2, &reduced_aux(3)).await;
    survives_the_loss_of_any_message(&old, &Plan::new(&[(1, 0), (2, 2)], 2, 2)).await;
}

#[tokio::test]
async fn who_starts_from_other_facts_stops_all_before_anything_is_dealt() {
    let engine = engine();
    let old = make_key(&engine, 2, &reduced_aux(3)).await;
    let other = make_key(&engine, 2, &reduced_aux(3)).await;
    let plan = Plan::new(&[(0, 0), (1, 1)], 2, 3);
    let changes: [(&str, Alteration); 4] = [
        ("another key", |params, other| params.old = other.clone()),
        ("another epoch", |params, _| {
            let old = &params.old;
            params.old =
                OldKey::new(&old.public_key(), old.chain_code(), old.t(), 9, &old.public_shares()).expect("holds");
        }),
        ("another threshold", |params, _| params.new_t = 3),
        ("another quorum", |params, _| params.dealers[1].old_index = 2),
    ];
    for (what, change) in changes {
        let execution_id = execution_id();
        let facts = OldKey::from_share(&other[0], 1);
        let start = |position, wiring| {
            let mut params = plan.params(&old, position, execution_id);
            if position == 2 {
                change(&mut params, &facts);
            }
            engine.reshare(params, Limits::reshare(3), wiring)
        };
        let run = network::run(3, start, pass).await;
        for outcome in &run.outcomes {
            assert!(matches!(outcome, Err(MpcError::Unattributed { round: 1, .. })), "{what}: {outcome:?}");
        }
        assert!(run.delivered.iter().all(|copy| copy.round <= 2), "{what}: nothing was dealt");
    }
}

#[tokio::test]
async fn wrong_inputs_are_refused_before_anything_is_sent() {
    let engine = engine();
    let old = make_key(&engine, 2, &reduced_aux(3)).await;
    let other = make_key(&engine, 2, &reduced_aux(3)).await;
    let cases: [(&str, u16, Change<'_>); 6] = [
        ("a dealer without its share", 0, Box::new(|params| params.share = None)),
        ("a share at a party that does not deal", 2, Box::new(|params| params.share = Some(Arc::clone(&old[2])))),
        ("another party's share", 0, Box::new(|params| params.share = Some(Arc::clone(&old[2])))),
        ("another key's share", 0, Box::new(|params| params.share = Some(Arc::clone(&other[0])))),
        ("too few dealers", 2, Box::new(|params| params.dealers.truncate(1))),
        ("a threshold of one", 2, Box::new(|params| params.new_t = 1)),
    ];
    for (what, position, change) in cases {
        let mut params = Plan::refresh(&old).params(&old, position, execution_id());
        change(&mut params);
        let (_inbox, incoming) = tokio::sync::mpsc::channel(8);
        let (outgoing, mut outbox) = tokio::sync::mpsc::channel(8);
        let outcome = engine.reshare(params, Limits::reshare(3), Wiring { incoming, outgoing }).await;
        assert!(matches!(outcome, Err(MpcError::Invalid(_))), "{what}: {outcome:?}");
        assert!(outbox.recv().await.is_none(), "{what}: nothing was sent");
    }
}

#[tokio::test]
async fn a_result_prints_without_its_secret() {
    let engine = engine();
    let old = make_key(&engine, 2, &reduced_aux(2)).await;
    let outcome = Plan::refresh(&old).run(&engine, &old, pass).await.all().remove(0);
    let stored = support::alter::parse(&outcome.share.as_ref().expect("a receiver").to_bytes().expect("encodes"));
    let entry = |value: &ciborium::Value, key: &str| {
        value.as_map().unwrap().iter().find(|(name, _)| name.as_text() == Some(key)).unwrap().1.clone()
    };
    let secret = entry(&entry(&stored, "core"), "x");
    let printed = format!("{outcome:?}");
    assert!(printed.contains("redacted"), "{printed}");
    assert!(!printed.contains(&hex::encode(secret.as_bytes().expect("a scalar"))), "{printed}");
}

#[tokio::test]
async fn a_share_takes_fresh_auxiliary_info_and_signs_with_others_that_did() {
    let engine = engine();
    let (first, fresh) = (reduced_aux(3), aux_of_other_primes());
    let old = make_key(&engine, 2, &first).await;
    let rejoined: Vec<Share> =
        old.iter().zip(&fresh).map(|(share, aux)| Arc::new(share.with_aux(aux).expect("they fit"))).collect();
    assert_eq!(rejoined[0].aux_digest(), fresh[0].transcript_digest());
    let loaded = KeyShare::<ReducedLevel>::from_bytes(&rejoined[0].to_bytes().unwrap()).expect("loads");
    assert_eq!(loaded.aux_digest(), fresh[0].transcript_digest());
    assert_eq!(loaded.aux_info().expect("holds").to_bytes().unwrap(), fresh[0].to_bytes().unwrap());
    let signatures = sign(&engine, &rejoined, &[0, 2], pass).await.all();
    assert!(is_valid(&signatures[0], &old[0].public_key(), &DIGEST));
    assert!(old[0].with_aux(&fresh[1]).is_err(), "another party's numbers");
    let mixed = [Arc::clone(&rejoined[0]), Arc::clone(&old[1])];
    for outcome in sign(&engine, &mixed, &[0, 1], pass).await.outcomes {
        assert!(outcome.is_err(), "a signature over different numbers");
    }
}

/// Auxiliary info for three parties, none of whose numbers is that of [`reduced_aux`] at the same position.
fn aux_of_other_primes() -> Vec<casemate_mpc::aux::AuxInfo<ReducedLevel>> {
    support::committee::reduced_aux_from(1, 3)
}
