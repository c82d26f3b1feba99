//! Median times of HSM calls on a fresh SoftHSM token: `cargo run --release -p casemate-hsm --example bench_hsm`.
//!
//! Each figure is one call through the whole crate: queue, worker thread, PKCS#11, and the checks on the result.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use casemate_hsm::{
    Anchor, Hsm, HsmConfig, KeyPurpose, Pin, PinSource, Secret32, TokenSelector, WrapMode, init_keys, init_token,
};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const FOLDER: &str = "CASEMATE_BENCH_FOLDER";
const PIN: &str = "bench pin";
const ROUNDS: usize = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::var_os(FOLDER) {
        Some(folder) => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?
            .block_on(measure(Path::new(&folder))),
        None => run_with_fresh_store(),
    }
}

/// SoftHSM reads its store's place from the environment, so a child with that set does the work.
fn run_with_fresh_store() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let (tokens, conf) = (folder.path().join("tokens"), folder.path().join("softhsm2.conf"));
    std::fs::create_dir(&tokens)?;
    std::fs::write(&conf, format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display()))?;
    let status =
        Command::new(std::env::current_exe()?).env("SOFTHSM2_CONF", conf).env(FOLDER, folder.path()).status()?;
    if status.success() { Ok(()) } else { Err("the measuring process failed".into()) }
}

async fn measure(folder: &Path) -> Result<(), Box<dyn Error>> {
    let hsm = Hsm::open(fresh_token(folder)?).await?;
    let key = Secret32::random()?;
    let entry = hsm.wrap(b"bench", &key).await?;
    println!("{} {}, median of {ROUNDS} calls", hsm.status().token.model, hsm.status().wrap.name());

    report("wrap", async || hsm.wrap(b"bench", &key).await.map(drop)).await?;
    report("unwrap", async || hsm.unwrap(b"bench", &entry).await.map(drop)).await?;
    report("sign", async || hsm.sign(KeyPurpose::Identity, b"bench").await.map(drop)).await?;
    report("random (32 bytes)", async || hsm.random(32).await.map(drop)).await?;
    let size = AtomicU64::new(0);
    report("put anchor", async || {
        let at = size.fetch_add(1, Ordering::Relaxed);
        let last = at.checked_sub(1).map(|last| Anchor::new("bench", last, [1; 32])).transpose()?;
        hsm.put_anchor(last.as_ref(), &Anchor::new("bench", at, [1; 32])?).await
    })
    .await?;
    report("read anchor", async || hsm.anchor().await.map(drop)).await?;
    hsm.shutdown().await?;
    Ok(())
}

async fn report<E: Error + 'static>(name: &str, call: impl AsyncFn() -> Result<(), E>) -> Result<(), Box<dyn Error>> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        call().await?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let median = times.get(ROUNDS / 2).ok_or("no rounds")?;
    println!("{name:<18} {:>8.1} µs", median.as_secs_f64() * 1e6);
    Ok(())
}

fn fresh_token(folder: &Path) -> Result<HsmConfig, Box<dyn Error>> {
    use std::os::unix::fs::PermissionsExt;
    let pin_file = folder.join("pin");
    std::fs::write(&pin_file, PIN)?;
    std::fs::set_permissions(&pin_file, std::fs::Permissions::from_mode(0o600))?;
    let config = HsmConfig {
        module: PathBuf::from(MODULE),
        token: TokenSelector::Label("bench".into()),
        pin: PinSource::file(pin_file),
        wrap: WrapMode::Auto,
        threads: 2,
        queue: 64,
        timeout: Duration::from_secs(5),
    };
    let pin = Pin::new(PIN).ok_or("the PIN is not one line")?;
    init_token(&config.module, "bench", &pin, &pin)?;
    init_keys(&config)?;
    Ok(config)
}
