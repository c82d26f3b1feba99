//! What Prometheus reads. Names follow the API contract.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use casemate_policy::PolicyNote;
use casemate_wire::api::SessionStatus;
use casemate_wire::{Code, PartyId, SessionType};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::shares::Figures;
use crate::store::{Reason, SessionRow};
use crate::tls::{Looked, TlsSlot};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SessionLabels {
    r#type: String,
    result: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DecisionLabels {
    effect: String,
    policy: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OpLabels {
    op: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PartyLabels {
    party: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabels {
    result: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StatusLabels {
    status: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VerdictLabels {
    verdict: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WhatLabels {
    what: String,
}

/// How long HSM calls take.
#[derive(Clone)]
pub struct HsmMetrics(Family<OpLabels, Histogram, fn() -> Histogram>);

impl Default for HsmMetrics {
    fn default() -> Self {
        let buckets = || Histogram::new([0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]);
        Self(Family::new_with_constructor(buckets))
    }
}

impl HsmMetrics {
    pub(crate) fn took(&self, op: &str, time: Duration) {
        self.0.get_or_create(&OpLabels { op: op.into() }).observe(time.as_secs_f64());
    }
}

/// How the shares stand. No label names a key: there may be thousands.
#[derive(Default)]
struct ShareMetrics {
    states: Family<StatusLabels, Gauge>,
    backup_age: Gauge,
    backup_missing: Gauge,
    rotation_age: Gauge,
    old: Gauge,
}

impl ShareMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register("mpc_shares", "Shares in each state", self.states.clone());
        registry.register(
            "mpc_backup_age_seconds",
            "Since the last verified backup of the live share that was backed up longest ago; since it was stored if it never was",
            self.backup_age.clone(),
        );
        registry.register(
            "mpc_backup_missing",
            "Live shares whose present epoch is in no verified backup",
            self.backup_missing.clone(),
        );
        registry.register(
            "mpc_rotation_age_seconds",
            "Since the oldest epoch began that still signs",
            self.rotation_age.clone(),
        );
        registry.register(
            "mpc_old_shares",
            "Shares whose place another has taken and that are not destroyed yet",
            self.old.clone(),
        );
    }
}

/// How the TLS material stands.
#[derive(Default)]
struct TlsMetrics {
    left: Family<WhatLabels, Gauge>,
    whole: Family<WhatLabels, Gauge>,
    refused: Gauge,
    loads: Family<ResultLabels, Counter>,
}

impl TlsMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "mpc_tls_expiry_seconds",
            "Until the server certificate, the client CA or the list of revoked certificates ends; negative afterwards",
            self.left.clone(),
        );
        registry.register("mpc_tls_lifetime_seconds", "For which each of them was made", self.whole.clone());
        registry.register(
            "mpc_tls_refused_seconds",
            "Since the TLS files on disk are refused and older ones stay in use; 0 while they are not",
            self.refused.clone(),
        );
        registry.register("mpc_tls_loads", "TLS files that were loaded or refused", self.loads.clone());
    }
}

/// All metrics of one daemon.
pub struct Metrics {
    registry: Registry,
    sessions: Family<SessionLabels, Counter>,
    keygen_seconds: Histogram,
    sign_seconds: Histogram,
    rotate_seconds: Histogram,
    success_rate: Gauge<f64, AtomicU64>,
    active: Gauge,
    decisions: Family<DecisionLabels, Counter>,
    auth_failures: Family<ReasonLabels, Counter>,
    hsm: HsmMetrics,
    audit_size: Gauge,
    audit_unavailable: Family<ReasonLabels, Counter>,
    audit_verdict: Family<VerdictLabels, Gauge>,
    checkpoint_failures: Counter,
    peer_logs_refused: Family<PartyLabels, Counter>,
    peers_not_attested: Family<PartyLabels, Counter>,
    primes: Gauge,
    policy_loads: Family<ResultLabels, Counter>,
    policy_version: Gauge,
    shares: ShareMetrics,
    tls: TlsMetrics,
    ended: std::sync::Mutex<(f64, f64)>,
}

impl Metrics {
    /// Registers everything, at zero.
    pub fn new() -> Arc<Self> {
        let seconds = || Histogram::new([0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0]);
        let mut metrics = Self {
            registry: Registry::default(),
            sessions: Family::default(),
            keygen_seconds: seconds(),
            sign_seconds: seconds(),
            rotate_seconds: seconds(),
            success_rate: Gauge::default(),
            active: Gauge::default(),
            decisions: Family::default(),
            auth_failures: Family::default(),
            hsm: HsmMetrics::default(),
            audit_size: Gauge::default(),
            audit_unavailable: Family::default(),
            audit_verdict: Family::default(),
            checkpoint_failures: Counter::default(),
            peer_logs_refused: Family::default(),
            peers_not_attested: Family::default(),
            primes: Gauge::default(),
            policy_loads: Family::default(),
            policy_version: Gauge::default(),
            shares: ShareMetrics::default(),
            tls: TlsMetrics::default(),
            ended: std::sync::Mutex::new((0.0, 0.0)),
        };
        let registry = &mut metrics.registry;
        registry.register("mpc_sessions", "Sessions that ended, or were refused", metrics.sessions.clone());
        registry.register("mpc_keygen_duration_seconds", "From accepted to recorded", metrics.keygen_seconds.clone());
        registry.register("mpc_sign_duration_seconds", "From accepted to recorded", metrics.sign_seconds.clone());
        registry.register("mpc_rotate_duration_seconds", "From accepted to recorded", metrics.rotate_seconds.clone());
        registry.register(
            "mpc_session_success_rate",
            "Completed sessions as a share of all that began since the start",
            metrics.success_rate.clone(),
        );
        registry.register("mpc_active_sessions", "Sessions that run now", metrics.active.clone());
        registry.register(
            "mpc_policy_decisions",
            "What policy decided, by each deciding policy",
            metrics.decisions.clone(),
        );
        registry.register(
            "mpc_auth_failures",
            "Callers and tokens that were turned away",
            metrics.auth_failures.clone(),
        );
        registry.register("mpc_hsm_op_duration_seconds", "Calls to the HSM", metrics.hsm.0.clone());
        registry.register("mpc_audit_size", "Leaves in the audit log", metrics.audit_size.clone());
        registry.register(
            "mpc_audit_unavailable",
            "Writes to the store that came to nothing, leaf and all",
            metrics.audit_unavailable.clone(),
        );
        registry.register(
            "mpc_audit_verdict",
            "How the audit log stood against its anchor at the start",
            metrics.audit_verdict.clone(),
        );
        registry.register(
            "mpc_checkpoint_failures",
            "Attempts to sign a checkpoint of the audit log that failed",
            metrics.checkpoint_failures.clone(),
        );
        registry.register(
            "mpc_peer_log_refused",
            "Sessions that ended because a peer's audit log shrank, forked, or was not proven",
            metrics.peer_logs_refused.clone(),
        );
        registry.register(
            "mpc_peer_not_attested",
            "Sessions that ended because a peer did not attest itself as policy demands",
            metrics.peers_not_attested.clone(),
        );
        registry.register(
            "mpc_policy_loads",
            "Policy bundles that were loaded or refused",
            metrics.policy_loads.clone(),
        );
        registry.register("mpc_policy_version", "Version of the active policy bundle", metrics.policy_version.clone());
        registry.register("mpc_primes_ready", "Pairs of safe primes that lie ready", metrics.primes.clone());
        metrics.shares.register(registry);
        metrics.tls.register(registry);
        Arc::new(metrics)
    }

    /// A caller or token was turned away.
    pub fn auth_failed(&self, reason: &str) {
        self.auth_failures.get_or_create(&ReasonLabels { reason: reason.into() }).inc();
    }

    /// Where HSM calls are measured.
    pub fn hsm(&self) -> HsmMetrics {
        self.hsm.clone()
    }

    pub(crate) fn refused(&self, kind: SessionType, code: Code) {
        self.count(kind, &format!("refused:{code}"));
    }

    pub(crate) fn decided(&self, effect: &str, policies: &[PolicyNote]) {
        let none = [String::new()];
        let ids: Vec<String> = policies.iter().map(|note| note.id.clone()).collect();
        for policy in if ids.is_empty() { none.to_vec() } else { ids } {
            self.decisions.get_or_create(&DecisionLabels { effect: effect.into(), policy }).inc();
        }
    }

    pub(crate) fn session_ended(&self, row: &SessionRow, took: Duration) {
        let histogram = match row.session_type {
            SessionType::Keygen => &self.keygen_seconds,
            SessionType::Sign => &self.sign_seconds,
            SessionType::Rotate => &self.rotate_seconds,
        };
        histogram.observe(took.as_secs_f64());
        let completed = row.status == SessionStatus::Completed;
        self.count(row.session_type, row.status.as_str());
        let mut ended = self.ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ended.0 += f64::from(u8::from(completed));
        ended.1 += 1.0;
        self.success_rate.set(ended.0 / ended.1);
    }

    /// A bundle was loaded, or (without a version) refused.
    pub(crate) fn policy_loaded(&self, version: Option<u64>) {
        let result = if version.is_some() { "loaded" } else { "refused" };
        self.policy_loads.get_or_create(&ResultLabels { result: result.into() }).inc();
        if let Some(version) = version {
            self.policy_version.set(i64::try_from(version).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn checkpoint_failed(&self) {
        self.checkpoint_failures.inc();
    }

    pub(crate) fn peer_log_refused(&self, party: &PartyId) {
        self.peer_logs_refused.get_or_create(&PartyLabels { party: party.to_string() }).inc();
    }

    pub(crate) fn peer_not_attested(&self, party: &PartyId) {
        self.peers_not_attested.get_or_create(&PartyLabels { party: party.to_string() }).inc();
    }

    /// Writes that came to nothing, as the store has counted them since the start.
    pub(crate) fn writes_refused(&self, counts: &[(Reason, u64)]) {
        for (reason, count) in counts {
            let labels = ReasonLabels { reason: reason.as_str().into() };
            self.audit_unavailable.get_or_create(&labels).inner().store(*count, Ordering::Relaxed);
        }
    }

    pub(crate) fn primes_ready(&self, count: u32) {
        self.primes.set(i64::from(count));
    }

    /// How the shares stand, as they were counted just now.
    pub(crate) fn shares(&self, figures: &Figures) {
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for (state, count) in &figures.states {
            self.shares.states.get_or_create(&StatusLabels { status: state.to_string() }).set(gauge(*count));
        }
        self.shares.backup_age.set(figures.backup_age);
        self.shares.backup_missing.set(gauge(figures.backup_missing));
        self.shares.rotation_age.set(figures.rotation_age);
        self.shares.old.set(gauge(figures.old));
    }

    /// How the TLS material in use stands, and whether its files are refused.
    pub fn tls(&self, slot: &TlsSlot, now: jiff::Timestamp) {
        for lifetime in slot.current().lifetimes() {
            let labels = WhatLabels { what: lifetime.what().as_str().into() };
            self.tls.left.get_or_create(&labels).set(lifetime.left(now));
            self.tls.whole.get_or_create(&labels).set(lifetime.whole());
        }
        // A second at least, so that a scrape right afterwards shows it.
        self.tls.refused.set(slot.refused_for(now).map_or(0, |seconds| seconds.max(1)));
    }

    /// The TLS files were looked at: a change of them is counted, and each new reason to refuse them.
    pub(crate) fn tls_looked(&self, looked: &Looked) {
        let result = match looked {
            Looked::Same | Looked::StillRefused(_) => return,
            Looked::Loaded => "loaded",
            Looked::Refused(_) => "refused",
        };
        self.tls.loads.get_or_create(&ResultLabels { result: result.into() }).inc();
    }

    /// How the audit log stood at the start: 1 for that verdict.
    pub(crate) fn audit_verdict(&self, verdict: &str) {
        self.audit_verdict.get_or_create(&VerdictLabels { verdict: verdict.into() }).set(1);
    }

    /// The text that Prometheus scrapes.
    pub fn text(&self, active: usize, audit_size: u64) -> String {
        self.active.set(i64::try_from(active).unwrap_or(i64::MAX));
        self.audit_size.set(i64::try_from(audit_size).unwrap_or(i64::MAX));
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }

    fn count(&self, kind: SessionType, result: &str) {
        self.sessions.get_or_create(&SessionLabels { r#type: kind.to_string(), result: result.into() }).inc();
    }
}
