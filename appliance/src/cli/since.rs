//! Times as people read them.

use jiff::Timestamp;

use super::audit::plain;

/// A time (RFC 3339), with how long ago that was.
pub(super) fn since(time: &str, now: Timestamp) -> String {
    age(time, now).map_or_else(|| plain(time), |age| format!("{} ({age} ago)", plain(time)))
}

/// `3 days`, `5 hours`, `12 minutes`, `40 seconds`.
fn age(time: &str, now: Timestamp) -> Option<String> {
    let seconds = now.duration_since(time.parse().ok()?).as_secs().max(0);
    let (count, unit) = match seconds {
        0..120 => (seconds, "seconds"),
        120..7200 => (seconds / 60, "minutes"),
        7200..172_800 => (seconds / 3600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    Some(format!("{count} {unit}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ages_are_told_in_the_unit_that_people_think_in() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        for (time, expected) in [
            ("2026-11-21T11:59:01Z", "59 seconds"),
            ("2026-11-21T11:00:00Z", "60 minutes"),
            ("2026-11-20T12:00:00Z", "24 hours"),
            ("2026-11-11T12:00:00Z", "10 days"),
            ("2026-11-21T12:00:09Z", "0 seconds"),
        ] {
            assert_eq!(age(time, now).unwrap(), expected);
        }
        assert_eq!(age("yesterday", now), None);
    }
}
