//! The whole way at the real security level, as the product goes it: auxiliary info, a key, signatures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;

use casemate_mpc::aux::{AuxInfo, AuxSetup};
use casemate_mpc::{Cggmp21, DkgParams, Engine, KeyShare, Limits, Scheme};
use support::committee::{DIGEST, prime_pairs, sign};
use support::network::{self, pass};
use support::{execution_id, is_valid};

#[tokio::test]
async fn one_committees_auxiliary_info_serves_two_keys_that_sign() {
    let engine = Engine::start(None).expect("threads");
    let id = execution_id();
    let mut pairs = prime_pairs().into_iter();
    let start = |index, wiring| {
        let setup = AuxSetup { execution_id: id, index, parties: 3, primes: pairs.next().expect("a pair") };
        engine.aux_info(setup, Limits::aux(3), wiring)
    };
    let aux: Vec<AuxInfo> = network::run(3, start, pass).await.all();
    assert!(aux.iter().all(|info| info.transcript_digest() == aux[0].transcript_digest()));

    for signers in [[0, 1], [1, 2]] {
        let id = execution_id();
        let start = |position, wiring| {
            <Cggmp21>::dkg(&engine, DkgParams { execution_id: id, position, t: 2, n: 3 }, Limits::dkg(3), wiring)
        };
        let keys = network::run(3, start, pass).await.all();
        let shares: Vec<Arc<KeyShare>> = keys
            .into_iter()
            .zip(&aux)
            .map(|(key, aux)| Arc::new(KeyShare::from_parts(key, aux).expect("they fit")))
            .collect();
        let run = sign(&engine, &shares, &signers, pass).await;
        let longest = run.delivered.iter().map(|copy| copy.body.len()).max().expect("messages");
        assert!(longest <= Limits::sign(2).max_body, "{longest} bytes");
        let signatures = run.all();
        assert_eq!(signatures[0], signatures[1]);
        assert!(is_valid(&signatures[0], &shares[0].public_key(), &DIGEST));
    }
}
