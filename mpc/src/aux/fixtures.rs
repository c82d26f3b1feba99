//! What the tests of this module start from: pre-made primes of the reduced level, and numbers derived from them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use rug::Integer;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::protocol::OwnNumbers;
use crate::compute::Compute;
use crate::error::ExecutionId;
use crate::io::{Inbound, Limits, Outbound, Recipient, Wiring};
use crate::levels::{Level, ReducedLevel};
use crate::primes::PrimePair;

#[derive(Deserialize)]
struct HexPair {
    p: String,
    q: String,
}

/// The factors of pre-made pair `index`.
pub(crate) fn factors(index: usize) -> (Integer, Integer) {
    let pairs: Vec<HexPair> = serde_json::from_str(include_str!("../../tests/data/safe-primes-384.json")).unwrap();
    let parse = |hex: &str| Integer::from_str_radix(hex, 16).unwrap();
    (parse(&pairs[index].p), parse(&pairs[index].q))
}

/// Pre-made pair `index`.
pub(crate) fn primes(index: usize) -> PrimePair {
    let (p, q) = factors(index);
    PrimePair::from_primes(ReducedLevel::PRIME_BITS, p, q).unwrap()
}

/// Honest numbers over pair `index`.
pub(crate) fn own(index: usize) -> OwnNumbers {
    OwnNumbers::derive(primes(index))
}

pub(crate) fn execution(tag: u8) -> ExecutionId {
    ExecutionId::new([tag; 32])
}

pub(crate) fn compute() -> Compute {
    Compute::start(1).unwrap()
}

/// Channels among `n` parties. A party's channel closes when all others have ended.
pub(crate) fn network(n: u16) -> Vec<Wiring> {
    let (to, incoming): (Vec<_>, Vec<_>) = (0..n).map(|_| mpsc::channel::<Inbound>(64)).unzip();
    incoming
        .into_iter()
        .zip(0..n)
        .map(|(incoming, from)| {
            let (outgoing, mut sent) = mpsc::channel::<Outbound>(64);
            let peers: Vec<_> = (0..n).zip(to.clone()).filter(|(party, _)| *party != from).collect();
            tokio::spawn(async move {
                while let Some(Outbound { to: recipient, body, .. }) = sent.recv().await {
                    let broadcast = recipient == Recipient::All;
                    for (party, peer) in &peers {
                        if broadcast || recipient == Recipient::One(*party) {
                            drop(peer.send(Inbound { from, broadcast, body: body.clone() }).await);
                        }
                    }
                }
            });
            Wiring { incoming, outgoing }
        })
        .collect()
}

/// Limits that no test should reach.
pub(crate) fn limits() -> Limits {
    Limits { round: Duration::from_secs(60), session: Duration::from_secs(60), max_body: 256 * 1024 }
}
