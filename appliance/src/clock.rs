//! Watches for jumps of the wall clock against the boot clock.
//!
//! Time windows and calendars in policy stand on the wall clock. When it jumps by more than the skew, either way,
//! signing stops until an operator has looked and restarted the daemon.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// How the wall clock stands to the newest time in the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Recorded {
    /// It is not behind by more than the skew.
    Fits,
    /// It is behind, and an operator has accepted that: the clock was ahead before. What the store forgot while it was may
    /// still count, so windows of spending must be taken for full.
    Accepted,
    /// It is behind: signing has stopped.
    Behind,
}

/// The two clocks as first seen, and the first jump.
///
/// Time synchronisation steers the rate of both alike, so their distance changes by steps only, and steps add up.
pub struct Clock {
    skew_ms: i64,
    seen: Mutex<Seen>,
}

struct Seen {
    wall_ms: i64,
    boot_ms: i64,
    jump: Option<String>,
}

impl Clock {
    /// Begins to watch.
    pub fn new(skew: Duration) -> Self {
        let (wall_ms, boot_ms) = read();
        let skew_ms = i64::try_from(skew.as_millis()).unwrap_or(i64::MAX);
        Self { skew_ms, seen: Mutex::new(Seen { wall_ms, boot_ms, jump: None }) }
    }

    /// Compares the clocks since the start.
    ///
    /// # Errors
    /// Says how far the wall clock jumped, now or earlier.
    pub fn check(&self) -> Result<(), String> {
        let (wall_ms, boot_ms) = read();
        self.judge(wall_ms, boot_ms)
    }

    /// Compares the wall clock with the newest time in the audit log. A clock that went back while the daemon was down must
    /// not move what was spent since then out of sight.
    ///
    /// `accepted` is the file in which an operator who has looked writes that newest time: it was wrong, not the clock.
    pub(crate) fn compare_with_record(&self, recorded: Timestamp, accepted: &Path) -> Recorded {
        self.judge_record(read().0, recorded, accepted)
    }

    fn judge_record(&self, wall_ms: i64, recorded: Timestamp, accepted: &Path) -> Recorded {
        let behind = recorded.as_millisecond().saturating_sub(wall_ms);
        if behind <= self.skew_ms {
            return Recorded::Fits;
        }
        let text = std::fs::read_to_string(accepted).unwrap_or_default();
        if text.trim().parse::<Timestamp>().ok() == Some(recorded) {
            tracing::warn!(event = "clock_accepted", %recorded, "an operator has accepted that the audit log is ahead; windows count as full until they have passed");
            return Recorded::Accepted;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.jump.is_none() {
            let seconds = behind / 1000;
            tracing::error!(event = "clock_behind_record", seconds, "the wall clock went back; signing has stopped");
            seen.jump = Some(format!(
                "the wall clock is {seconds} s behind the newest entry of the audit log; signing has stopped: check time \
                 synchronisation on this host, then restart the daemon. If the clock is right and was wrong before, write \
                 {recorded} into {} and restart",
                accepted.display()
            ));
        }
        Recorded::Behind
    }

    fn judge(&self, wall_ms: i64, boot_ms: i64) -> Result<(), String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let jump = wall_ms.saturating_sub(seen.wall_ms).saturating_sub(boot_ms.saturating_sub(seen.boot_ms));
        if jump.abs() > self.skew_ms && seen.jump.is_none() {
            let seconds = jump / 1000;
            tracing::error!(event = "clock_jumped", seconds, "the wall clock jumped; signing has stopped");
            seen.jump = Some(format!(
                "the wall clock jumped by {seconds} s against the boot clock; signing has stopped: check time \
                 synchronisation on this host, then restart the daemon"
            ));
        }
        seen.jump.clone().map_or(Ok(()), Err)
    }
}

fn read() -> (i64, i64) {
    let boot = clock_gettime(ClockId::Boottime);
    let boot_ms = boot.tv_sec.saturating_mul(1000).saturating_add(boot.tv_nsec / 1_000_000);
    (Timestamp::now().as_millisecond(), boot_ms)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn clock() -> Clock {
        let seen = Seen { wall_ms: 1_000_000, boot_ms: 0, jump: None };
        Clock { skew_ms: 30_000, seen: Mutex::new(seen) }
    }

    #[test]
    fn clocks_that_run_together_are_trusted() {
        let clock = clock();
        for step in 1..100 {
            assert_eq!(clock.judge(1_000_000 + step * 60_000, step * 60_000), Ok(()));
        }
        assert_eq!(clock.judge(1_000_000 + 6_000_000 + 29_000, 6_000_000), Ok(()));
    }

    #[test]
    fn many_small_steps_are_one_jump() {
        let clock = clock();
        let verdicts: Vec<bool> =
            (1..=10).map(|step| clock.judge(1_000_000 + step * 11_000, step * 1_000).is_ok()).collect();
        assert_eq!(verdicts, [true, true, true, false, false, false, false, false, false, false]);
    }

    #[test]
    fn a_clock_that_is_behind_what_was_recorded_is_not_trusted() {
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        let nowhere = Path::new("/nowhere/clock-accepted");
        let ahead = clock();
        assert_eq!(ahead.judge_record(1_000_000, at(1_030_000), nowhere), Recorded::Fits);
        assert_eq!(ahead.judge(1_000_000, 0), Ok(()));
        let behind = clock();
        assert_eq!(behind.judge_record(1_000_000, at(1_031_000), nowhere), Recorded::Behind);
        assert!(behind.judge(1_000_000, 0).unwrap_err().contains("31 s behind"));
    }

    #[test]
    fn an_operator_can_accept_that_the_log_is_ahead_by_naming_its_time_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clock-accepted");
        let ahead = Timestamp::now() + jiff::SignedDuration::from_hours(240);
        for (text, trusted) in
            [(String::new(), false), (Timestamp::now().to_string(), false), (format!("{ahead}\n"), true)]
        {
            std::fs::write(&file, &text).unwrap();
            let clock = Clock::new(Duration::from_secs(30));
            let verdict = if trusted { Recorded::Accepted } else { Recorded::Behind };
            assert_eq!(clock.compare_with_record(ahead, &file), verdict, "{text}");
            assert_eq!(clock.check().is_ok(), trusted, "{text}");
        }
        // Once the clock has caught up there is nothing to accept.
        let (clock, now) = (Clock::new(Duration::from_secs(30)), Timestamp::now());
        std::fs::write(&file, now.to_string()).unwrap();
        assert_eq!(clock.compare_with_record(now, &file), Recorded::Fits);
    }

    #[test]
    fn a_jump_either_way_stops_signing_for_good() {
        for jumped in [1_000_000 + 40_000, 1_000_000 - 40_000] {
            let clock = clock();
            assert!(clock.judge(jumped, 1_000).is_err());
            assert!(clock.judge(jumped + 1_000, 2_000).is_err(), "it is not forgotten");
        }
    }
}
