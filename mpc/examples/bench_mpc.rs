//! Cost of auxiliary info, key generation, signing and redistribution, all parties in one process:
//! `cargo run --release -p casemate-mpc --example bench_mpc`.
//!
//! Takes prepared safe primes from `mpc/tests/data/`, or from the JSON file named as the only argument.
#![allow(clippy::expect_used, clippy::print_stdout, clippy::indexing_slicing)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use casemate_mpc::aux::{AuxInfo, AuxSetup};
use casemate_mpc::primes::PrimePair;
use casemate_mpc::{
    Cggmp21, Dealer, DkgParams, Engine, ExecutionId, Inbound, KeyShare, Limits, OldKey, Outbound, Recipient,
    ReshareParams, Resharing, Scheme, Session, SignParams, Wiring,
};
use futures::future::join_all;
use rand::RngCore;
use tokio::sync::mpsc;

const REPEAT: u32 = 8;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    casemate_mpc::cpu::check_baseline().expect("this CPU");
    let engine = &Engine::start(None).expect("threads");
    let path = std::env::args().nth(1);
    let path = path.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/safe-primes-1536.json").into());
    println!("{:<26} {:>12} {:>14} {:>18}", "step", "wall ms", "CPU ms/party", "bytes sent/party");
    for (t, n) in [(2, 3), (3, 5)] {
        let mut pairs = prime_pairs(&path).into_iter();
        let id = execution_id();
        let aux: Vec<AuxInfo> = measured(&format!("aux info, n = {n}"), 1, n, || {
            let pairs: Vec<PrimePair> = pairs.by_ref().take(usize::from(n)).collect();
            let mut pairs = pairs.into_iter();
            parties(n, move |index, wiring| {
                let primes = pairs.next().expect("enough prime pairs");
                engine.aux_info(AuxSetup { execution_id: id, index, parties: n, primes }, Limits::aux(n), wiring)
            })
        })
        .await;
        let keys = measured(&format!("key generation, {t}-of-{n}"), REPEAT, n, || {
            let execution_id = execution_id();
            parties(n, move |position, wiring| {
                <Cggmp21>::dkg(engine, DkgParams { execution_id, position, t, n }, Limits::dkg(n), wiring)
            })
        })
        .await;
        let shares: Vec<Arc<KeyShare>> = keys
            .into_iter()
            .zip(&aux)
            .map(|(key, aux)| Arc::new(KeyShare::from_parts(key, aux).expect("they fit")))
            .collect();
        println!("{:<26} {:>12} bytes", "key share, stored", shares[0].to_bytes().expect("encodes").len());
        measured(&format!("signing, {t}-of-{n}"), REPEAT, t, || sign(engine, &shares, t)).await;
        measured(&format!("refresh, {t}-of-{n}"), REPEAT, n, || reshare(engine, &shares, 0)).await;
        let step = format!("new committee, {t}-of-{n}");
        measured(&step, REPEAT, n + t, || reshare(engine, &shares, n)).await;
        if t == 2 {
            delay_of_other_work(engine, &shares).await;
        }
    }
}

/// One signature by the first `t` shares.
fn sign<'a>(
    engine: &'a Engine,
    shares: &'a [Arc<KeyShare>],
    t: u16,
) -> impl Future<Output = (Vec<casemate_mpc::Signature>, u64)> + use<'a> {
    let execution_id = execution_id();
    parties(t, move |position, wiring| {
        let params = SignParams {
            execution_id,
            position,
            parties_at_keygen: (0..t).collect(),
            share: Arc::clone(&shares[usize::from(position)]),
            digest: [0x5A; 32],
            derivation_path: None,
        };
        Cggmp21::sign(engine, params, Limits::sign(t), wiring)
    })
}

/// One redistribution at the same threshold, dealt by the first `t` parties: with `offset` 0 to the same committee, with
/// `offset` n to one of others.
fn reshare<'a>(
    engine: &'a Engine,
    shares: &'a [Arc<KeyShare>],
    offset: u16,
) -> impl Future<Output = (Vec<Resharing>, u64)> + use<'a> {
    let (t, n, execution_id) = (shares[0].t(), shares[0].n(), execution_id());
    let count = if offset == 0 { n } else { n + t };
    parties(count, move |position, wiring| {
        let dealers: Vec<Dealer> = (0..t).map(|old_index| Dealer { position: offset + old_index, old_index }).collect();
        let dealt = dealers.iter().find(|dealer| dealer.position == position);
        let share = dealt.map(|dealer| Arc::clone(&shares[usize::from(dealer.old_index)]));
        let old = OldKey::from_share(&shares[0], 1);
        let params = ReshareParams { execution_id, position, dealers, old, new_t: t, new_n: n, share };
        engine.reshare(params, Limits::reshare(count), wiring)
    })
}

/// How late a tick on this thread comes at worst while twenty sessions sign: what a health check would feel.
async fn delay_of_other_work(engine: &Engine, shares: &[Arc<KeyShare>]) {
    let sessions = join_all((0..10).map(|_| sign(engine, shares, 2)));
    let tick = Duration::from_millis(5);
    let watch = async {
        let mut worst = Duration::ZERO;
        loop {
            let due = Instant::now() + tick;
            tokio::time::sleep(tick).await;
            worst = worst.max(due.elapsed());
            WORST_MICROS.fetch_max(u64::try_from(worst.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    };
    tokio::select! {
        _ = sessions => {}
        () = watch => {}
    }
    let worst = WORST_MICROS.load(Ordering::Relaxed);
    println!("{:<26} {:>12.1} (latest tick on the caller's thread while 20 sessions sign)", "delay", ms(worst));
}

static WORST_MICROS: AtomicU64 = AtomicU64::new(0);

/// Runs a step `times` times and prints its means; gives the last results.
async fn measured<T, F>(step: &str, times: u32, parties: u16, mut run: impl FnMut() -> F) -> Vec<T>
where
    F: Future<Output = (Vec<T>, u64)>,
{
    let (begun, cpu) = (Instant::now(), cpu_micros());
    let mut last = Vec::new();
    let mut sent = 0;
    for _ in 0..times {
        (last, sent) = run().await;
    }
    let wall = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX) / u64::from(times);
    let cpu = (cpu_micros() - cpu) / u64::from(times) / u64::from(parties);
    println!("{step:<26} {:>12.1} {:>14.1} {:>18}", ms(wall), ms(cpu), sent / u64::from(parties));
    last
}

/// Runs one session per party over channels; gives their results and the bytes of all bodies sent, each counted once.
fn parties<T>(count: u16, mut start: impl FnMut(u16, Wiring) -> Session<T>) -> impl Future<Output = (Vec<T>, u64)> {
    let mut inboxes = Vec::new();
    let mut outboxes = Vec::new();
    let mut sessions = Vec::new();
    for party in 0..count {
        let (inbox, incoming) = mpsc::channel(256);
        let (outgoing, outbox) = mpsc::channel(64);
        inboxes.push(inbox);
        outboxes.push(outbox);
        sessions.push(start(party, Wiring { incoming, outgoing }));
    }
    async move {
        let posts = (0u16..).zip(outboxes).map(|(from, outbox)| post(from, outbox, inboxes.clone()));
        let (results, sent) = futures::join!(join_all(sessions), join_all(posts));
        (results.into_iter().map(|result| result.expect("honest parties")).collect(), sent.into_iter().sum())
    }
}

async fn post(from: u16, mut outbox: mpsc::Receiver<Outbound>, inboxes: Vec<mpsc::Sender<Inbound>>) -> u64 {
    let mut sent = 0;
    while let Some(Outbound { to, body, .. }) = outbox.recv().await {
        sent += body.len() as u64;
        for (party, inbox) in (0u16..).zip(&inboxes) {
            if party != from && (to == Recipient::All || to == Recipient::One(party)) {
                let message = Inbound { from, broadcast: to == Recipient::All, body: body.clone() };
                // Who has finished does not read any more.
                drop(inbox.send(message).await);
            }
        }
    }
    sent
}

fn prime_pairs(path: &str) -> Vec<PrimePair> {
    let text = std::fs::read_to_string(path).expect("the file with safe primes");
    let pairs: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    let number = |pair: &serde_json::Value, key: &str| hex::decode(pair[key].as_str().expect("hex")).expect("hex");
    pairs
        .iter()
        .map(|pair| {
            PrimePair::from_bytes(&[vec![1], number(pair, "p"), number(pair, "q")].concat()).expect("safe primes")
        })
        .collect()
}

fn execution_id() -> ExecutionId {
    let mut bytes = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    ExecutionId::new(bytes)
}

fn cpu_micros() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1_000).unwrap_or(0)
}

#[allow(clippy::cast_precision_loss)]
fn ms(micros: u64) -> f64 {
    micros as f64 / 1000.0
}
