//! What the tests of the auxiliary-information protocol share: runs among prepared primes, and alterations of its
//! messages, whose integers are byte strings.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod alter;
pub mod middle;

use casemate_mpc::aux::{AuxInfo, AuxSetup};
use casemate_mpc::levels::{Level, ReducedLevel, SecurityLevel128};
use casemate_mpc::primes::PrimePair;
use casemate_mpc::{Engine, Limits};
use cggmp21::rug::Integer;
use cggmp21::rug::integer::Order;

use crate::support::execution_id;
use crate::support::network::{self, Copy, Run};

#[derive(serde::Deserialize)]
struct HexPair {
    p: String,
    q: String,
}

/// `count` prepared pairs of the reduced level.
pub fn reduced_primes(count: usize) -> Vec<PrimePair> {
    primes::<ReducedLevel>(include_str!("../data/safe-primes-384.json"), count)
}

/// `count` prepared pairs of the real level.
pub fn real_primes(count: usize) -> Vec<PrimePair> {
    primes::<SecurityLevel128>(include_str!("../data/safe-primes-1536.json"), count)
}

/// Prepared pairs, as a party holds them.
fn primes<L: Level>(json: &str, count: usize) -> Vec<PrimePair> {
    let pairs: Vec<HexPair> = serde_json::from_str(json).expect("test data");
    let digits = |hex: &str| Integer::from_str_radix(hex, 16).expect("test data").to_digits::<u8>(Order::Msf);
    let pair = |pair: &HexPair| {
        let stored = [vec![1], digits(&pair.p), digits(&pair.q)].concat();
        PrimePair::from_bytes_at::<L>(&stored).expect("safe primes")
    };
    pairs.iter().take(count).map(pair).collect()
}

/// Runs the protocol among as many parties as there are `primes`.
pub async fn aux_info<L: Level>(
    engine: &Engine,
    primes: Vec<PrimePair>,
    middle: impl FnMut(Copy) -> Vec<Copy>,
) -> Run<AuxInfo<L>> {
    let parties = u16::try_from(primes.len()).expect("few parties");
    let execution_id = execution_id();
    let mut primes = primes.into_iter();
    let start = |index, wiring| {
        let setup = AuxSetup { execution_id, index, parties, primes: primes.next().expect("a pair for each") };
        engine.aux_info(setup, Limits::aux(parties), wiring)
    };
    network::run(parties, start, middle).await
}

/// Runs the protocol among `n` parties at the reduced level.
pub async fn reduced_aux_info(
    engine: &Engine,
    n: usize,
    middle: impl FnMut(Copy) -> Vec<Copy>,
) -> Run<AuxInfo<ReducedLevel>> {
    aux_info(engine, reduced_primes(n), middle).await
}
