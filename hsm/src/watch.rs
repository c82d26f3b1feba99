//! The thread that opens the HSM, notices when the token is gone, and brings it back.

use std::sync::Arc;
use std::time::Duration;

use crate::error::HsmError;
use crate::profile::Profile;
use crate::session::OpenSession;
use crate::state::Wake;
use crate::worker::{Shared, Worker};

/// How often an idle token is asked whether it is still there.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Probes the token while it is there, and reloads it with growing pauses while it is not.
pub(crate) fn run(shared: &Arc<Shared>) {
    // Beyond the threads whose calls are counted: a probe that hangs is not a worker that hangs.
    let mut prober = Worker::new(Arc::clone(shared), shared.config.threads);
    loop {
        match shared.state.wait(PROBE_INTERVAL) {
            Wake::Closed => break,
            // A failed probe changes the state itself.
            Wake::Pause => drop(prober.perform(OpenSession::probe)),
            Wake::Lost => {
                prober.close();
                if reload(shared) == Wake::Closed {
                    break;
                }
            }
        }
    }
    prober.close();
}

/// Tries until the token is back, its PIN is refused, or the HSM is closed.
fn reload(shared: &Shared) -> Wake {
    let mut attempts = 0_u32;
    for pause in pauses() {
        if shared.state.back_off(pause) == Wake::Closed {
            return Wake::Closed;
        }
        attempts += 1;
        // The first attempt keeps the module as it is; many modules need a new start to see a token again.
        match try_once(shared, attempts > 1) {
            Ok(profile) => {
                shared.set_profile(profile);
                shared.state.recover();
                break;
            }
            Err(error) => {
                tracing::debug!(event = "hsm_reload_failed", attempts, %error);
                let refused = error.is_pin_refusal();
                shared.state.lose(&error);
                if refused {
                    break;
                }
            }
        }
    }
    Wake::Pause
}

fn try_once(shared: &Shared, restart: bool) -> Result<Arc<Profile>, HsmError> {
    if restart {
        shared.module.restart()?;
    }
    let lease = shared.module.enter();
    let before = shared.profile();
    Profile::learn(&shared.module, &lease, &shared.config, Some(&before))
}

/// A quarter of a second, doubling to half a minute, for ever.
fn pauses() -> impl Iterator<Item = Duration> {
    const FIRST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(30);
    std::iter::successors(Some(FIRST), |pause| Some((*pause * 2).min(LONGEST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_a_quarter_second_to_half_a_minute() {
        let millis: Vec<_> = pauses().take(9).map(|pause| pause.as_millis()).collect();
        assert_eq!(millis, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    }
}
