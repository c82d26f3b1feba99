//! Prometheus metrics (API contract, section 2.5).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use casemate_wire::{PartyId, SessionType};
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api_key::Rejection;
use crate::session::{Session, Status};

/// The media type of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const SECONDS: [f64; 14] = [0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];

/// All metrics of one coordinator.
pub(crate) struct Metrics {
    registry: Registry,
    keygen_seconds: Histogram,
    sign_seconds: Histogram,
    rotate_seconds: Histogram,
    sessions: Family<SessionLabels, Counter>,
    success_rate: Gauge<f64, AtomicU64>,
    active: Gauge,
    auth_failures: Family<ReasonLabels, Counter>,
    node_up: Family<PartyLabels, Gauge>,
    completed: AtomicU64,
    ended: AtomicU64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SessionLabels {
    r#type: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartyLabels {
    party_id: String,
}

impl Metrics {
    /// All metrics, at zero.
    pub(crate) fn new() -> Arc<Self> {
        let metrics = Self {
            registry: Registry::default(),
            keygen_seconds: Histogram::new(SECONDS),
            sign_seconds: Histogram::new(SECONDS),
            rotate_seconds: Histogram::new(SECONDS),
            sessions: Family::default(),
            success_rate: Gauge::default(),
            active: Gauge::default(),
            auth_failures: Family::default(),
            node_up: Family::default(),
            completed: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        };
        metrics.success_rate.set(1.0);
        Arc::new(metrics.registered())
    }

    fn registered(mut self) -> Self {
        let r = &mut self.registry;
        r.register(
            "mpc_keygen_duration_seconds",
            "Completed keygen sessions, from request to result",
            self.keygen_seconds.clone(),
        );
        r.register(
            "mpc_sign_duration_seconds",
            "Completed signing sessions, from request to result",
            self.sign_seconds.clone(),
        );
        r.register(
            "mpc_rotate_duration_seconds",
            "Completed rotations, from request to result",
            self.rotate_seconds.clone(),
        );
        r.register("mpc_sessions", "Sessions that have ended", self.sessions.clone());
        r.register(
            "mpc_session_success_rate",
            "Completed sessions among those ended since the start",
            self.success_rate.clone(),
        );
        r.register("mpc_active_sessions", "Sessions that run now", self.active.clone());
        r.register("mpc_auth_failures", "Requests that were refused for their API key", self.auth_failures.clone());
        r.register("mpc_node_up", "Whether an appliance is connected", self.node_up.clone());
        self
    }

    /// Counts a session that has ended.
    pub(crate) fn session_ended(&self, session: &Session) {
        let labels = SessionLabels { r#type: session.session_type().to_string(), result: session.status().as_str() };
        self.sessions.get_or_create(&labels).inc();
        let completed = session.status() == Status::Completed;
        let good = self.completed.fetch_add(completed.into(), Ordering::Relaxed) + u64::from(completed);
        let all = self.ended.fetch_add(1, Ordering::Relaxed) + 1;
        self.success_rate.set(ratio(good, all));
        if let (true, Some(ended)) = (completed, session.ended_at()) {
            let histogram = match session.session_type() {
                SessionType::Keygen => &self.keygen_seconds,
                SessionType::Sign => &self.sign_seconds,
                SessionType::Rotate => &self.rotate_seconds,
            };
            histogram.observe(ended.duration_since(session.created_at()).as_secs_f64());
        }
    }

    /// Counts a caller that was not let in.
    pub(crate) fn auth_failure(&self, rejection: Rejection) {
        let labels = ReasonLabels { reason: rejection.as_str() };
        self.auth_failures.get_or_create(&labels).inc();
    }

    /// Notes whether an appliance is connected.
    pub(crate) fn node_up(&self, party: &PartyId, up: bool) {
        let labels = PartyLabels { party_id: party.to_string() };
        self.node_up.get_or_create(&labels).set(up.into());
    }

    /// All metrics as text, with this many sessions running.
    pub(crate) fn text(&self, running: usize) -> String {
        self.active.set(i64::try_from(running).unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing into memory has no way to fail.
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }
}

#[allow(clippy::cast_precision_loss, reason = "a rate needs no more digits than f64 has")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::session::{Event, testing};

    #[test]
    fn the_metrics_of_the_contract_are_there_under_their_names() {
        let metrics = Metrics::new();
        let mut session = testing::sign();
        session.apply(Event::Expired, session.created_at()).unwrap();
        metrics.session_ended(&session);
        metrics.auth_failure(Rejection::Unknown);
        metrics.node_up(&"party-1".parse().unwrap(), true);
        let text = metrics.text(3);
        for line in [
            "mpc_sessions_total{type=\"sign\",result=\"expired\"} 1",
            "mpc_session_success_rate 0.0",
            "mpc_active_sessions 3",
            "mpc_auth_failures_total{reason=\"unknown\"} 1",
            "mpc_node_up{party_id=\"party-1\"} 1",
            "mpc_keygen_duration_seconds_count 0",
            "mpc_sign_duration_seconds_count 0",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }
}
