//! The daemon: how it starts, what it supervises, how it stops.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | the start, step by step; [`Node`]; the stop |
//! | `arguments.rs` | the command line |
//! | `recover.rs` | what a start does about what was cut off |
//! | `supervise.rs` | tasks, panics, signals |
//! | `listen.rs` | the listening socket, its own or systemd's |
//! | `condition.rs` | how every part is: health, readiness |
//! | `liveness.rs` | whether every part answers |
//! | `memory.rs` | no core dumps, no swap |
//! | `notify.rs`, `manager.rs` | what systemd is told, and when |

mod arguments;
mod condition;
mod listen;
mod liveness;
mod manager;
mod memory;
mod notify;
mod recover;
mod supervise;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use casemate_attest::attestation::AttestKey;
use casemate_attest::{AuditKey, Entry, Op};
use casemate_hsm::{Hsm, HsmError, KeyPurpose};
use casemate_mpc::{Engine, MpcError};
use casemate_wire::IdentityKey;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use crate::attestation::{Measured, MeasuringError};
use crate::checkpoints::{self, Checkpoints};
use crate::clock::Clock;
use crate::config::{Config, ConfigError, LogFormat};
use crate::metrics::Metrics;
use crate::policy_slot::{self, PolicySlot, ReloadError};
use crate::primes::{self, Pool};
use crate::sandbox::{self, FilesClosed, SandboxError, Sandboxed};
use crate::session::Registry;
use crate::store::{HsmAnchor, Store, StoreError};
use crate::till::Till;
use crate::tls::{self, Material, TlsError, TlsSlot};
use crate::vault::Vault;
use crate::witness::Book;
use crate::{VERSION, http};

pub use arguments::Arguments;
pub(crate) use condition::Condition;
use listen::Source;
pub use memory::Locked;
use notify::{Notifier, Stage};
pub(crate) use recover::{give_up, intent_of};
use supervise::Supervisor;

/// Exit code of a daemon that cannot start before a person has mended something (EX_CONFIG of sysexits.h). The unit does not
/// start it again after that: a refused PIN must not be tried until the token locks itself.
const NEEDS_MENDING: u8 = 78;

/// Why the daemon did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// TLS files cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What attestations say cannot be measured.
    #[error(transparent)]
    Measuring(#[from] MeasuringError),
    /// The HSM cannot be used.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The protocol engine cannot start.
    #[error(transparent)]
    Engine(#[from] MpcError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; is another process on it?")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration says that systemd hands the socket over, and it does not.
    #[error(
        "[listen] socket is \"systemd\", but {0}; start casemated.socket first, with one ListenStream= that names a port, or give address instead"
    )]
    Socket(String),
    /// The sandbox cannot be closed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A task that must not end has ended.
    #[error("the daemon stopped because {0}; the audit log is closed and it can be started again")]
    TaskEnded(String),
    /// The runtime or its signals cannot be set up.
    #[error("cannot set up the process: {0}")]
    Process(#[from] std::io::Error),
    /// Something else that must hold does not.
    #[error("{0}")]
    Other(String),
}

impl DaemonError {
    /// Whether starting again can help, as the unit is told.
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Tls(_) | Self::Socket(_) => NEEDS_MENDING.into(),
            Self::Hsm(error) if error.is_pin_refusal() => NEEDS_MENDING.into(),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Everything that a request may need. One for each daemon.
pub struct Node {
    /// The checked configuration.
    pub config: Config,
    /// The HSM.
    pub hsm: Vault,
    /// The identity key in it.
    pub identity: IdentityKey,
    /// The store.
    pub store: Store,
    /// The protocol threads.
    pub engine: Engine,
    /// The active policy.
    pub policy: PolicySlot,
    /// What was spent within the windows that policies limit.
    pub till: Till,
    /// The audit key in the HSM.
    pub audit: AuditKey,
    /// What is signed of the own audit log.
    pub checkpoints: Checkpoints,
    /// What is known of the peers' audit logs.
    pub witnesses: Book,
    /// Live sessions.
    pub sessions: Registry,
    /// The prime pool.
    pub primes: Pool,
    /// Held while a backup is made: one at a time.
    pub(crate) backing_up: tokio::sync::Mutex<()>,
    /// Held while rows are re-wrapped: one run at a time, as the audit log tells them.
    pub(crate) rewrapping: tokio::sync::Mutex<()>,
    /// The wall clock's guard.
    pub clock: Clock,
    /// The TLS material in use.
    pub tls: TlsSlot,
    /// What attestations say of this process.
    pub measured: Measured,
    /// How the daemon is closed in; no node is without.
    pub sandbox: Sandboxed,
    /// Whether its memory may be swapped out.
    pub memory: Locked,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    supervisor: Supervisor,
}

impl Node {
    /// Runs a task whose panic ends the daemon in order.
    pub(crate) fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.supervisor.spawn(name, task);
    }
}

/// Reads the configuration and everything that it names, and says what is wrong.
///
/// # Errors
/// What keeps the daemon from starting, as far as files can tell.
pub fn check_config(path: &Path) -> Result<Config, DaemonError> {
    let config = Config::load(path)?;
    Material::load(&config.tls, Timestamp::now())?;
    config.hsm.pin.read().map_err(HsmError::from)?;
    Ok(config)
}

/// What `--check-config` says: whether the daemon would start, and whether its policy would load.
///
/// # Errors
/// As [`check_config`], or that the policy bundle is refused.
pub fn report_config(path: &Path) -> Result<(), DaemonError> {
    let config = check_config(path)?;
    // Whether its version rises is known to the store alone, which a running daemon holds.
    match policy_slot::load(&config, None) {
        Ok(_) => {
            crate::cli::say(format!("{} is valid, and so is its policy bundle", path.display()));
            Ok(())
        }
        Err(why) => Err(DaemonError::Other(format!(
            "{} is valid, but its policy bundle is refused, so every request would be denied: {why}",
            path.display()
        ))),
    }
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// Why it did not start, or had to stop.
pub fn run(path: &Path) -> Result<(), DaemonError> {
    let config = check_config(path)?;
    let source = Source::settle(config.listen)?;
    let notifier = Notifier::from_env()
        .map_err(|e| DaemonError::Other(format!("cannot reach systemd at the socket that NOTIFY_SOCKET names: {e}")))?;
    init_logging(&config);
    memory::keep_private()?;
    let memory = memory::lock();
    if let Locked::Not { why } = &memory {
        tracing::warn!(event = "memory_not_locked", why, "secrets may be written to swap");
    }
    casemate_mpc::cpu::check_baseline()?;
    // While there is one thread, and before the HSM's module is loaded: both run inside.
    let files = sandbox::close_files(&config)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("net").enable_all().build()?;
    runtime.block_on(serve(config, source, Arc::new(notifier), Closing { files, memory }))
}

/// Maps what [`run`] says to an exit code, and prints it: 78 where starting again does not help, else 1.
pub fn exit_code(result: Result<(), DaemonError>) -> ExitCode {
    result.map_or_else(|error| tell(&error, error.exit_code()), |()| ExitCode::SUCCESS)
}

/// Maps what [`report_config`] says to an exit code, and prints it: 1 for whatever is wrong.
pub fn check_exit_code(result: Result<(), DaemonError>) -> ExitCode {
    result.map_or_else(|error| tell(&error, ExitCode::FAILURE), |()| ExitCode::SUCCESS)
}

fn tell(error: &DaemonError, code: ExitCode) -> ExitCode {
    eprintln!("casemated: {error}");
    code
}

/// What was closed off while there was one thread.
struct Closing {
    files: FilesClosed,
    memory: Locked,
}

async fn serve(config: Config, source: Source, notifier: Arc<Notifier>, closing: Closing) -> Result<(), DaemonError> {
    notifier.status("Starting: opening the HSM, examining the store");
    let stop = supervise::stop_signals()?;
    let reloads = supervise::reload_signals()?;
    let renewals = supervise::reload_signals()?;
    let (node, listener) = start(config, source, closing).await?;
    let node = Arc::new(node);
    recover::recover(&node).await?;
    let bound = listener.local_addr()?;
    tracing::info!(event = "started", version = VERSION, party = %node.config.party, address = %bound, identity = %node.identity.fingerprint(), sandbox = %node.sandbox.verdict(), memory = %node.memory);
    node.spawn("clock", watch_clock(node.clone()));
    node.spawn("policy reload", reload_policy(node.clone(), reloads, notifier.clone()));
    node.spawn("TLS renewal", tls::keep_fresh(node.clone(), renewals));
    node.spawn("readiness", manager::tell_readiness(node.clone(), notifier.clone()));
    node.spawn("watchdog", manager::feed_watchdog(node.clone(), notifier.clone()));
    if node.store.quarantine().is_none() {
        node.spawn("prime pool", primes::keep_full(node.clone()));
        node.spawn("checkpoints", checkpoints::keep_signing(node.clone()));
    }
    let accepting = http::serve(node.clone(), listener);
    let ended = tokio::select! {
        () = stop => Ok(()),
        () = accepting => Err(DaemonError::TaskEnded("its listener ended".into())),
        why = node.supervisor.failed() => Err(DaemonError::TaskEnded(why)),
    };
    notifier.stopping("Stopping: ending sessions, closing store and HSM");
    close(&node).await;
    ended
}

/// Opens everything, then closes the sandbox: what comes in is answered inside it alone.
async fn start(config: Config, source: Source, closing: Closing) -> Result<(Node, TcpListener), DaemonError> {
    let measured = Measured::now()?;
    let tls = TlsSlot::new(config.tls.clone(), Material::load(&config.tls, Timestamp::now())?);
    let hsm = Hsm::open(config.hsm.clone()).await?;
    let identity = IdentityKey::from_spki(&hsm.public_key(KeyPurpose::Identity))
        .map_err(|e| DaemonError::Other(format!("the HSM's identity key cannot be used: {e}")))?;
    if let Some(peer) = config.peers.iter().find(|peer| peer.identity == identity) {
        let name = &peer.party_id;
        return Err(DaemonError::Other(format!(
            "[[peer]] {name} has this HSM's own identity; each host needs its own"
        )));
    }
    let audit = AuditKey::from_spki(&hsm.public_key(KeyPurpose::Audit))
        .map_err(|e| DaemonError::Other(format!("the HSM's audit key cannot be used: {e}")))?;
    if let Some(peer) = config.peers.iter().find(|peer| peer.audit == audit) {
        let name = &peer.party_id;
        return Err(DaemonError::Other(format!(
            "[[peer]] {name} has this HSM's own audit key; each host needs its own"
        )));
    }
    let attest = AttestKey::from_spki(&hsm.public_key(KeyPurpose::Attest))
        .map_err(|e| DaemonError::Other(format!("the HSM's attest key cannot be used: {e}")))?;
    if let Some(name) = config.peer_with_attest_key(&attest) {
        return Err(DaemonError::Other(format!(
            "[[peer]] {name} has this HSM's own attest key; each host needs its own"
        )));
    }
    let metrics = Metrics::new();
    let hsm = Vault::new(hsm, metrics.hsm());
    let (folder, anchor) = (config.data_dir.clone(), HsmAnchor::new(hsm.clone(), Handle::current()));
    let opened = tokio::task::spawn_blocking(move || Store::open(&folder, Box::new(anchor))).await;
    let store = opened.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))?;
    metrics.audit_verdict(store.verdict());
    let threads = (config.mpc.threads > 0).then_some(config.mpc.threads);
    let engine = Engine::start(threads)?;
    let listener = source.open().await?;
    let sandbox = closing.files.close_calls(&config)?;
    let node = Node {
        engine,
        sandbox,
        memory: closing.memory,
        sessions: Registry::new(config.limits.sessions),
        clock: Clock::new(config.limits.clock_skew()),
        hsm,
        metrics,
        primes: Pool::default(),
        backing_up: tokio::sync::Mutex::default(),
        rewrapping: tokio::sync::Mutex::default(),
        supervisor: Supervisor::new(),
        measured,
        tls,
        policy: PolicySlot::default(),
        till: Till::default(),
        store,
        identity,
        audit,
        checkpoints: Checkpoints::default(),
        witnesses: Book::default(),
        config,
    };
    Ok((node, listener))
}

async fn watch_clock(node: Arc<Node>) {
    let mut tick = tokio::time::interval(std::time::Duration::from_secs(1));
    loop {
        tick.tick().await;
        // The verdict is kept by the clock; whoever decides asks it again.
        drop(node.clock.check());
    }
}

/// Stops taking work, records what was cut off, closes log and HSM.
async fn close(node: &Arc<Node>) {
    tracing::info!(event = "stopping", sessions = node.sessions.len());
    node.primes.stop();
    // No session goes on, and no call comes in, once its end is written.
    node.supervisor.stop().await;
    if node.store.quarantine().is_none()
        && let Err(error) = recover::interrupt_sessions(&node.store, Entry::admin(Op::Stop)).await
    {
        tracing::error!(event = "stop_not_recorded", %error);
    }
    if node.store.quarantine().is_none() {
        checkpoints::sign(node).await;
    }
    let store = node.store.clone();
    // The writer may still wait for the HSM, whose answers come in on these threads.
    if tokio::task::spawn_blocking(move || store.close()).await.is_err() {
        tracing::error!(event = "store_not_closed");
    }
    if let Err(error) = node.hsm.shutdown().await {
        tracing::warn!(event = "hsm_close_failed", %error);
    }
    tracing::info!(event = "stopped");
}

/// Loads the policy bundle anew at each SIGHUP; the slot keeps, logs and shows what came of it.
async fn reload_policy(node: Arc<Node>, mut reloads: tokio::signal::unix::Signal, notifier: Arc<Notifier>) {
    while reloads.recv().await.is_some() {
        notifier.reloading();
        if let Err(ReloadError::Store(error)) = policy_slot::reload(&node, None).await {
            tracing::error!(event = "policy_reload_not_recorded", %error, "the policy bundle was not looked at");
        }
        notifier.reloaded();
    }
}

fn init_logging(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.level)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let output = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match config.log.format {
        LogFormat::Human => output.with_ansi(false).try_init(),
        LogFormat::Json => output.json().try_init(),
    };
    // A second call in one process keeps the first one's output.
    drop(set);
}
