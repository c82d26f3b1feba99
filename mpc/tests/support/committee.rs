//! Committees: auxiliary info from a dealer, keys from the real key generation.

use std::sync::Arc;

use casemate_mpc::aux::AuxInfo;
use casemate_mpc::levels::{Level, ReducedLevel, SecurityLevel128};
use casemate_mpc::primes::PrimePair;
use casemate_mpc::{
    Cggmp21, DkgParams, DkgShare, Engine, KeyShare, Limits, Scheme, Session, SignParams, Signature, Wiring,
};
use cggmp21::key_share::AuxInfo as DealtAux;
use cggmp21::rug::Integer;
use cggmp21::rug::integer::Order;
use cggmp21::trusted_dealer::generate_aux_data_with_primes;
use ciborium::{Value, cbor};
use rand::rngs::OsRng;

use super::execution_id;
use super::network::{self, Copy, Run};

/// A message hash.
pub const DIGEST: [u8; 32] = [0x5A; 32];

/// Auxiliary info for `n` parties at the reduced level.
pub fn reduced_aux(n: u16) -> Vec<AuxInfo<ReducedLevel>> {
    reduced_aux_from(0, n)
}

/// Auxiliary info for `n` parties at the reduced level, from prepared primes without the first `skip` pairs.
pub fn reduced_aux_from(skip: u8, n: u16) -> Vec<AuxInfo<ReducedLevel>> {
    deal(include_str!("../data/safe-primes-384.json"), skip, n)
}

/// Auxiliary info for `n` parties at the real level, from prepared primes.
pub fn real_aux(n: u16) -> Vec<AuxInfo<SecurityLevel128>> {
    deal(include_str!("../data/safe-primes-1536.json"), 0, n)
}

/// Prepared pairs of 1536-bit safe primes, as a party holds them.
pub fn prime_pairs() -> Vec<PrimePair> {
    let stored = |(p, q): (Integer, Integer)| {
        let mut bytes = vec![1];
        bytes.extend(p.to_digits::<u8>(Order::Msf));
        bytes.extend(q.to_digits::<u8>(Order::Msf));
        PrimePair::from_bytes(&bytes).expect("safe primes")
    };
    numbers(include_str!("../data/safe-primes-1536.json")).into_iter().map(stored).collect()
}

/// Deals auxiliary info from prepared safe primes; `skip` also tells one dealing's transcript from another's.
fn deal<L: Level>(primes: &str, skip: u8, n: u16) -> Vec<AuxInfo<L>> {
    let primes = numbers(primes).into_iter().skip(usize::from(skip)).take(usize::from(n)).collect();
    load(&generate_aux_data_with_primes(&mut OsRng, primes, false, false).expect("dealt"), skip)
}

fn numbers(primes: &str) -> Vec<(Integer, Integer)> {
    #[derive(serde::Deserialize)]
    struct Pair {
        p: String,
        q: String,
    }
    let pairs: Vec<Pair> = serde_json::from_str(primes).expect("test data");
    let number = |digits: &str| Integer::from_str_radix(digits, 16).expect("test data");
    pairs.iter().map(|pair| (number(&pair.p), number(&pair.q))).collect()
}

/// Passes dealt numbers through the stored form, as the engine takes them.
fn load<L: Level>(dealt: &[DealtAux<L>], transcript: u8) -> Vec<AuxInfo<L>> {
    let bytes = |number: &Integer| Value::Bytes(number.to_digits(Order::Msf));
    (0u16..)
        .zip(dealt)
        .map(|(index, aux)| {
            let parties: Vec<Value> = aux
                .parties
                .iter()
                .map(|party| {
                    cbor!({ "modulus" => bytes(&party.N), "s" => bytes(&party.s), "t" => bytes(&party.t) })
                        .expect("CBOR")
                })
                .collect();
            let stored = cbor!({
                "v" => 1,
                "index" => index,
                "p" => bytes(&aux.p),
                "q" => bytes(&aux.q),
                "parties" => parties,
                "transcript" => Value::Bytes(vec![transcript; 32])
            });
            let mut body = Vec::new();
            ciborium::into_writer(&stored.expect("CBOR"), &mut body).expect("encodes");
            AuxInfo::from_bytes(&body).expect("dealt numbers pass the checks")
        })
        .collect()
}

/// A session of key generation; `id` is shared by all parties of it.
pub fn start_dkg(engine: &Engine, params: DkgParams, wiring: Wiring) -> Session<DkgShare> {
    Cggmp21::<ReducedLevel>::dkg(engine, params, Limits::dkg(params.n), wiring)
}

/// Runs key generation among `n` parties.
pub async fn dkg(engine: &Engine, t: u16, n: u16, middle: impl FnMut(Copy) -> Vec<Copy>) -> Run<DkgShare> {
    let execution_id = execution_id();
    let start = |position, wiring| start_dkg(engine, DkgParams { execution_id, position, t, n }, wiring);
    network::run(n, start, middle).await
}

/// Makes a key among parties that hold `aux`.
pub async fn make_key<L: Level>(engine: &Engine, t: u16, aux: &[AuxInfo<L>]) -> Vec<Arc<KeyShare<L>>> {
    let n = u16::try_from(aux.len()).expect("few parties");
    let shares = dkg(engine, t, n, network::pass).await.all();
    shares
        .into_iter()
        .zip(aux)
        .map(|(share, aux)| Arc::new(KeyShare::from_parts(share, aux).expect("they fit")))
        .collect()
}

/// What the party at `position` brings to a signature by the shares at `signers`.
pub fn sign_params<L: Level>(
    shares: &[Arc<KeyShare<L>>],
    signers: &[u16],
    position: u16,
    execution_id: casemate_mpc::ExecutionId,
) -> SignParams<KeyShare<L>> {
    SignParams {
        execution_id,
        position,
        parties_at_keygen: signers.to_vec(),
        share: Arc::clone(&shares[usize::from(signers[usize::from(position)])]),
        digest: DIGEST,
        derivation_path: None,
    }
}

/// Signs [`DIGEST`] with the shares at `signers`.
pub async fn sign<L: Level>(
    engine: &Engine,
    shares: &[Arc<KeyShare<L>>],
    signers: &[u16],
    middle: impl FnMut(Copy) -> Vec<Copy>,
) -> Run<Signature> {
    let execution_id = execution_id();
    let t = u16::try_from(signers.len()).expect("few signers");
    let start = |position, wiring| {
        Cggmp21::<L>::sign(engine, sign_params(shares, signers, position, execution_id), Limits::sign(t), wiring)
    };
    network::run(t, start, middle).await
}
