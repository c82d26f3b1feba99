//! The whole system on loopback beside the bare protocol in one process, in one run:
//! `cargo build --release --bins && cargo run --release -p casemate-softhsm-tests --example bench_system`.
//!
//! Prints wall times as medians, the ratio of system to bare protocol, memory of a daemon at rest and with 20 sessions,
//! and how long a health check takes meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a bench"
)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_primitives::{Address, TxKind, U256};
use casemate_appliance::clients::Role;
use casemate_appliance::lab::{Credentials, Lab, LabOptions, Running};
use casemate_mpc::aux::{AuxInfo, AuxSetup};
use casemate_mpc::primes::PrimePair;
use casemate_mpc::{
    Cggmp21, DkgParams, Engine, ExecutionId, Inbound, KeyShare, Limits, Outbound, Recipient, Scheme, Session,
    SignParams, Wiring,
};
use casemate_softhsm_tests::http::{ApplianceClient, Identity};
use futures::future::join_all;
use rand::RngCore;
use serde_json::{Value, json};
use tokio::sync::mpsc;

const SIGNATURES: usize = 15;
const WAIT: Duration = Duration::from_secs(300);
const PRIMES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../mpc/tests/data/safe-primes-1536.json");

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    for (t, n) in [(2, 3), (3, 5)] {
        measure(t, n).await;
    }
}

async fn measure(t: u16, n: u16) {
    println!("--- {t}-of-{n}");
    let folder = tempfile::tempdir().unwrap();
    let options = LabOptions { parties: n, bin_dir: programs(), log_level: "warn".into(), ..LabOptions::default() };
    let lab = Lab::create(&folder.path().join("lab"), &options).unwrap();
    for (index, party) in lab.parties.iter().enumerate() {
        let seeded = Command::new(options.bin_dir.join("seed-primes"))
            .arg(&party.config)
            .args([index.to_string(), "2".into()])
            .env("SOFTHSM2_CONF", &party.softhsm_conf)
            .status();
        assert!(seeded.unwrap().success());
    }
    let daemons = lab.start_all().unwrap();
    lab.wait_healthy(Duration::from_secs(30)).await.unwrap();
    println!("daemon at rest: {} MiB resident", memory(&daemons[0], "VmRSS"));

    let first = keygen(&lab, t, n).await;
    println!("keygen with aux info made:     {:>8.0} ms", first.1);
    let mut again = Vec::new();
    let mut account = first.0;
    for _ in 0..5 {
        let (id, time) = keygen(&lab, t, n).await;
        account = id;
        again.push(time);
    }
    println!("keygen with aux info in place: {:>8.0} ms", median(again));

    let bare = Bare::new(t, n).await;
    let (mut system, mut alone) = (Vec::new(), Vec::new());
    let before = Evidence::read(&lab).await;
    for nonce in 0..SIGNATURES {
        system.push(sign(&lab, &account, t, nonce as u64).await);
        alone.push(bare.sign().await);
    }
    let (system, alone) = (median(system), median(alone));
    println!("signing, bare protocol:        {alone:>8.0} ms");
    println!("signing, whole system:         {system:>8.0} ms, ratio {:.2}", system / alone);
    Evidence::read(&lab).await.since(&before, system);
    if t == 2 {
        crowd(&lab, &account, &daemons[0]).await;
    }
    drop(daemons);
}

/// What one party has spent in its HSM on evidence so far.
struct Evidence {
    anchors: (f64, f64),
    signatures: (f64, f64),
}

impl Evidence {
    async fn read(lab: &Lab) -> Self {
        let text = monitor(lab).get("/metrics").await;
        let text = String::from_utf8(text.body.to_vec()).unwrap();
        let value = |what: &str, op: &str| {
            let name = format!("mpc_hsm_op_duration_seconds_{what}{{op=\"{op}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0.0, |value| value.parse().unwrap())
        };
        let of = |op: &str| (value("count", op), value("sum", op) * 1000.0);
        Self { anchors: of("anchor"), signatures: of("sign") }
    }

    /// Prints what each signature has cost since then. Of the HSM's signatures one in each session is the hello's, which is no
    /// evidence.
    fn since(&self, before: &Self, session: f64) {
        let each = |now: f64, then: f64| (now - then) / SIGNATURES as f64;
        let (anchors, anchoring) = (each(self.anchors.0, before.anchors.0), each(self.anchors.1, before.anchors.1));
        let (signatures, signing) =
            (each(self.signatures.0, before.signatures.0), each(self.signatures.1, before.signatures.1));
        let notes = signatures - 1.0;
        let evidence = anchoring + signing * notes / signatures;
        println!(
            "evidence in the HSM, a signature and party: {anchors:.1} anchors in {anchoring:.1} ms, {notes:.1} checkpoints; \
             {evidence:.1} ms, {:.1} % of the session",
            evidence / session * 100.0
        );
    }
}

fn monitor(lab: &Lab) -> ApplianceClient {
    let Credentials { ca, certificate, key } = lab.credentials(Role::Monitor);
    let tls =
        casemate_softhsm_tests::http::tls(&ca, Some(&Identity::read(&certificate, &key)), &[&rustls::version::TLS13]);
    ApplianceClient::new(lab.parties[0].address, tls)
}

/// Twenty sessions at once at the same two parties; health is asked meanwhile.
async fn crowd(lab: &Lab, account: &str, daemon: &Running) {
    let health = monitor(lab);
    let quiet = health_times(&health, async { tokio::time::sleep(Duration::from_secs(2)).await }).await.0;
    let begun = Instant::now();
    let sessions = join_all((0..20).map(|nonce| sign(lab, account, 2, 1000 + nonce)));
    let (busy, _) = health_times(&health, sessions).await;
    let peak = memory(daemon, "VmHWM");
    println!("20 signing sessions at once:   {:>8.0} ms in all", ms(begun.elapsed()));
    println!("daemon with 20 sessions: {peak} MiB resident at most");
    let worst = |times: &[f64]| times.iter().copied().fold(0.0, f64::max);
    println!("health check at rest: median {:.1} ms, worst {:.1} ms", median(quiet.clone()), worst(&quiet));
    println!(
        "health check with 20 sessions: median {:.1} ms, worst {:.1} ms of {}",
        median(busy.clone()),
        worst(&busy),
        busy.len()
    );
}

async fn health_times<T>(health: &ApplianceClient, work: impl Future<Output = T>) -> (Vec<f64>, T) {
    let mut times = Vec::new();
    let asking = async {
        loop {
            let begun = Instant::now();
            let answer = health.get("/api/v1/mpc-party/health").await;
            assert_eq!(answer.status, 200);
            times.push(ms(begun.elapsed()));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = asking => unreachable!("it has no end"),
        done = work => (times, done),
    }
}

async fn keygen(lab: &Lab, t: u16, n: u16) -> (String, f64) {
    let all: Vec<Value> =
        lab.parties.iter().map(|party| json!({"party_id": party.party_id, "device_type": "server"})).collect();
    let body = json!({"threshold_t": t, "threshold_n": n, "participants": all, "share_type": "wallet"});
    let begun = Instant::now();
    let answer = lab.front_door().unwrap().post("/api/v1/mpc/keygen", &body, Some(WAIT)).await.unwrap();
    let took = ms(begun.elapsed());
    assert_eq!(answer.body["status"], "completed", "{}", answer.body);
    (answer.body["account_id"].as_str().unwrap().to_owned(), took)
}

async fn sign(lab: &Lab, account: &str, t: u16, nonce: u64) -> f64 {
    let tx = TxEip1559 {
        chain_id: 11_155_111,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 2_000_000_000,
        max_priority_fee_per_gas: 1_000_000_000,
        to: TxKind::Call(Address::repeat_byte(0x35)),
        value: U256::from(10_000_000_000_000_000u64),
        ..TxEip1559::default()
    };
    let mut payload = Vec::new();
    tx.encode_for_signing(&mut payload);
    let signers: Vec<Value> =
        lab.parties.iter().take(usize::from(t)).map(|party| json!({"party_id": party.party_id})).collect();
    let body = json!({
        "account_id": account,
        "message_hash": hex::encode(tx.signature_hash()),
        "intent": {"type": "ethereum_transaction", "payload": hex::encode(payload)},
        "participants": signers,
    });
    let begun = Instant::now();
    let answer = lab.front_door().unwrap().post("/api/v1/mpc/sign", &body, Some(WAIT)).await.unwrap();
    let took = ms(begun.elapsed());
    assert_eq!(answer.body["status"], "completed", "{}", answer.body);
    took
}

/// The same protocol with the same engine, all parties in this process.
struct Bare {
    engine: Engine,
    shares: Vec<Arc<KeyShare>>,
    t: u16,
}

impl Bare {
    async fn new(t: u16, n: u16) -> Self {
        let engine = Engine::start(None).unwrap();
        let id = execution_id();
        let mut pairs = prime_pairs().into_iter();
        let aux: Vec<AuxInfo> = parties(n, |index, wiring| {
            let primes = pairs.next().unwrap();
            engine.aux_info(AuxSetup { execution_id: id, index, parties: n, primes }, Limits::aux(n), wiring)
        })
        .await;
        let id = execution_id();
        let keys = parties(n, |position, wiring| {
            <Cggmp21>::dkg(&engine, DkgParams { execution_id: id, position, t, n }, Limits::dkg(n), wiring)
        })
        .await;
        let shares = keys.into_iter().zip(&aux).map(|(key, aux)| Arc::new(KeyShare::from_parts(key, aux).unwrap()));
        let shares = shares.collect();
        Self { engine, shares, t }
    }

    async fn sign(&self) -> f64 {
        let execution_id = execution_id();
        let begun = Instant::now();
        parties(self.t, |position, wiring| {
            let params = SignParams {
                execution_id,
                position,
                parties_at_keygen: (0..self.t).collect(),
                share: Arc::clone(&self.shares[usize::from(position)]),
                digest: [0x5A; 32],
                derivation_path: None,
            };
            Cggmp21::sign(&self.engine, params, Limits::sign(self.t), wiring)
        })
        .await;
        ms(begun.elapsed())
    }
}

/// Runs one protocol with all parties connected by channels.
async fn parties<T>(count: u16, mut start: impl FnMut(u16, Wiring) -> Session<T>) -> Vec<T> {
    let (mut inboxes, mut outboxes, mut sessions) = (Vec::new(), Vec::new(), Vec::new());
    for position in 0..count {
        let (to_protocol, incoming) = mpsc::channel(512);
        let (outgoing, from_protocol) = mpsc::channel(512);
        inboxes.push(to_protocol);
        outboxes.push(from_protocol);
        sessions.push(start(position, Wiring { incoming, outgoing }));
    }
    let carriers = outboxes.into_iter().enumerate().map(|(from, mut outbox)| {
        let inboxes = inboxes.clone();
        tokio::spawn(async move {
            while let Some(Outbound { to, body, .. }) = outbox.recv().await {
                for (party, inbox) in inboxes.iter().enumerate() {
                    let (meant, broadcast) = match to {
                        Recipient::All => (party != from, true),
                        Recipient::One(one) => (party == usize::from(one), false),
                    };
                    if meant {
                        let inbound = Inbound { from: from as u16, broadcast, body: body.clone() };
                        drop(inbox.send(inbound).await);
                    }
                }
            }
        })
    });
    let carriers: Vec<_> = carriers.collect();
    let done = join_all(sessions).await.into_iter().map(|ended| ended.unwrap()).collect();
    carriers.iter().for_each(tokio::task::JoinHandle::abort);
    done
}

fn prime_pairs() -> Vec<PrimePair> {
    let pairs: Vec<Value> = serde_json::from_slice(&std::fs::read(PRIMES).unwrap()).unwrap();
    let number = |pair: &Value, name: &str| hex::decode(pair[name].as_str().unwrap()).unwrap();
    let pair = |pair: &Value| {
        let bytes = [vec![1], number(pair, "p"), number(pair, "q")].concat();
        PrimePair::from_bytes(&bytes).unwrap()
    };
    pairs.iter().map(pair).collect()
}

fn execution_id() -> ExecutionId {
    let mut bytes = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut bytes);
    ExecutionId::new(bytes)
}

/// Where cargo put the release programs.
fn programs() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().to_owned()
}

/// A line of `/proc/<pid>/status`, in MiB.
fn memory(daemon: &Running, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
