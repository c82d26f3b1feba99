//! The preference `wait` (RFC 7240, section 4.3).

use std::time::Duration;

use axum::http::HeaderMap;

/// How long the caller is willing to wait for the outcome: `Prefer: wait=N`, in seconds. What cannot be understood is
/// ignored, as the RFC asks.
pub(super) fn wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(','));
    preferences.find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        let is_wait = name.trim().eq_ignore_ascii_case("wait");
        let seconds: u32 = value.trim().trim_matches('"').parse().ok().filter(|_| is_wait)?;
        Some(Duration::from_secs(seconds.into()))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parsed(values: &[&str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("prefer", value.parse().unwrap());
        }
        wait(&headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn wait_is_found_among_other_preferences() {
        assert_eq!(parsed(&["wait=30"]), Some(30));
        assert_eq!(parsed(&["respond-async, Wait = 5; x=1"]), Some(5));
        assert_eq!(parsed(&["handling=strict", "wait=\"7\""]), Some(7));
    }

    #[test]
    fn what_makes_no_sense_is_ignored() {
        for value in ["", "wait", "wait=", "wait=-1", "wait=x", "waiting=3", "wait=99999999999"] {
            assert_eq!(parsed(&[value]), None, "{value:?}");
        }
    }
}
