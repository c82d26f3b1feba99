//! How the appliance is: what health shows, and what systemd is told. One judgement for both.

use std::sync::Arc;

use casemate_hsm::HsmState;
use jiff::Timestamp;

use super::Node;
use crate::store::{StoreError, count_primes};
use crate::witness::Refusal;

/// What is wrong with each part, in words for the operator; `None` where nothing is.
pub(crate) struct Condition {
    /// The HSM.
    pub(crate) hsm: Option<String>,
    /// Reading the store.
    pub(crate) store: Option<String>,
    /// Recording, anchoring and signing the audit log.
    pub(crate) audit: Option<String>,
    /// The active policy bundle.
    pub(crate) policy: Option<String>,
    /// The wall clock.
    pub(crate) clock: Option<String>,
    /// The peers' audit logs.
    pub(crate) peers: Option<String>,
    /// The TLS files, and when what is in use ends.
    pub(crate) tls: Option<String>,
    /// Pairs of safe primes in the pool, if the store could be read.
    pub(crate) primes_ready: Option<u32>,
}

/// Whether the daemon can do what it is there for.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// HSM, store, audit log and policy are in order.
    Ready,
    /// It serves, and refuses what it is asked for: what it waits for.
    Waiting(String),
}

impl Condition {
    /// Looks at every part; of the disk it reads the count of primes alone.
    pub(crate) async fn of(node: &Arc<Node>) -> Self {
        let primes: Result<u32, StoreError> = node.store.read(count_primes).await;
        Self {
            hsm: hsm_problem(&node.hsm.state()),
            store: primes.as_ref().err().map(ToString::to_string),
            audit: node.store.problem().or_else(|| node.checkpoints.problem()),
            policy: node.policy.problem(),
            clock: node.clock.check().err(),
            peers: refused_peers(node),
            tls: node.tls.problem(Timestamp::now()),
            primes_ready: primes.ok(),
        }
    }

    /// Whether all that a signature needs is there. Clock and peers can change it for a while, and with older TLS files it serves
    /// on: they are no part of it.
    pub(crate) fn readiness(&self) -> Readiness {
        let parts = [("hsm", &self.hsm), ("store", &self.store), ("audit", &self.audit), ("policy", &self.policy)];
        named(&parts).map_or(Readiness::Ready, Readiness::Waiting)
    }

    /// Everything that is wrong, on one line.
    pub(crate) fn troubles(&self) -> Option<String> {
        named(&[
            ("hsm", &self.hsm),
            ("store", &self.store),
            ("audit", &self.audit),
            ("policy", &self.policy),
            ("clock", &self.clock),
            ("peers", &self.peers),
            ("tls", &self.tls),
        ])
    }
}

fn named(parts: &[(&str, &Option<String>)]) -> Option<String> {
    let lines: Vec<String> =
        parts.iter().filter_map(|(name, problem)| problem.as_ref().map(|why| format!("{name}: {why}"))).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// Which peers are refused, why, and since when; and which doubt this appliance's own log. No peer's word alone makes the
/// appliance fail.
fn refused_peers(node: &Node) -> Option<String> {
    let refused = node.witnesses.refusals().into_iter();
    let lines: Vec<String> = refused
        .map(|(party, Refusal { code, why, since })| format!("{party} is refused since {since} ({code}): {why}"))
        .chain(node.witnesses.own_doubts())
        .collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

fn hsm_problem(state: &HsmState) -> Option<String> {
    let since = |time: &std::time::SystemTime| {
        Timestamp::try_from(*time).map_or_else(|_| "an unknown time".into(), |time| time.to_string())
    };
    match state {
        HsmState::Ready => None,
        HsmState::Unavailable { since: at, reason } => Some(format!("unavailable since {}: {reason}", since(at))),
        HsmState::PinRefused { since: at, reason } => {
            Some(format!("no login since {}: {reason}; correct the PIN and restart the daemon", since(at)))
        }
        HsmState::Closed => Some("the HSM is closed; the daemon is stopping".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fine() -> Condition {
        Condition {
            hsm: None,
            store: None,
            audit: None,
            policy: None,
            clock: None,
            peers: None,
            tls: None,
            primes_ready: Some(2),
        }
    }

    #[test]
    fn it_is_ready_only_with_hsm_store_audit_and_policy() {
        assert_eq!(fine().readiness(), Readiness::Ready);
        let broken = || Some("broken".to_owned());
        for (name, condition) in [
            ("hsm", Condition { hsm: broken(), ..fine() }),
            ("store", Condition { store: broken(), ..fine() }),
            ("audit", Condition { audit: broken(), ..fine() }),
            ("policy", Condition { policy: broken(), ..fine() }),
        ] {
            assert_eq!(condition.readiness(), Readiness::Waiting(format!("{name}: broken")));
        }
    }

    #[test]
    fn clock_peers_and_tls_files_are_told_and_keep_nobody_waiting() {
        let [clock, peers, tls] = ["behind", "party-2", "ends"].map(|problem| Some(problem.to_owned()));
        let condition = Condition { clock, peers, tls, ..fine() };
        assert_eq!(condition.readiness(), Readiness::Ready);
        assert_eq!(condition.troubles().as_deref(), Some("clock: behind; peers: party-2; tls: ends"));
        assert_eq!(fine().troubles(), None);
    }
}
