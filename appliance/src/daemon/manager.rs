//! Keeps systemd informed: whether the daemon is ready, what it waits for, that it works.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::condition::{Condition, Readiness};
use super::liveness::{self, Pulse};
use super::notify::Notifier;
use super::{Node, Stage};

/// How often the daemon looks whether it is ready, and whether its status has changed.
const LOOK: Duration = Duration::from_secs(1);
/// What is taken for the watchdog's time where systemd keeps none: a start that is not over is still prolonged by it.
const USUAL_WATCHDOG: Duration = Duration::from_secs(60);

/// Says READY as soon as HSM, store, audit log and policy are in order, and before and after that what is wrong.
pub(super) async fn tell_readiness(node: Arc<Node>, notifier: Arc<Notifier>) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let condition = Condition::of(&node).await;
        match (notifier.stage(), condition.readiness()) {
            (Stage::Starting, Readiness::Ready) => {
                tracing::info!(event = "ready");
                notifier.ready(&in_service(&condition));
            }
            (Stage::Starting, Readiness::Waiting(why)) => notifier.status(&format!("Serving, but not ready: {why}")),
            (Stage::Ready, _) => notifier.status(&in_service(&condition)),
            (Stage::Stopping, _) => return,
        }
    }
}

fn in_service(condition: &Condition) -> String {
    condition.troubles().map_or_else(|| "Ready".into(), |why| format!("In trouble: {why}"))
}

/// Feeds the watchdog for as long as every part answers: four checks in its time, each within half of it.
pub(super) async fn feed_watchdog(node: Arc<Node>, notifier: Arc<Notifier>) {
    let watchdog = notifier.watchdog().unwrap_or(USUAL_WATCHDOG);
    let mut tick = interval(watchdog / 4);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match liveness::check(&node, watchdog / 2).await {
            Pulse::Beats => notifier.alive(watchdog * 2),
            Pulse::Missing(why) => {
                tracing::error!(
                    event = "liveness_missing",
                    why,
                    "the watchdog is not fed; systemd restarts the daemon if this lasts"
                );
            }
        }
    }
}
