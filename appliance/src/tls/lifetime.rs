//! Until when certificates and lists hold, and from when on that is a worry.

use jiff::{SignedDuration, Timestamp};

/// The longest time before an end at which it becomes a worry.
const WARN: SignedDuration = SignedDuration::from_hours(30 * 24);
/// What was made for a shorter time is a worry in the last part of it: 1 of this many.
const LAST_PART: i32 = 3;

/// Which file's contents end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum What {
    /// The server's certificate, or one of its chain.
    Certificate,
    /// The CA of the clients.
    Ca,
    /// The list of revoked certificates: its next update.
    Crl,
}

impl What {
    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Ca => "ca",
            Self::Crl => "crl",
        }
    }

    fn named(self) -> &'static str {
        match self {
            Self::Certificate => "the server certificate",
            Self::Ca => "the client CA",
            Self::Crl => "the list of revoked certificates",
        }
    }
}

/// From when to when a file's contents hold; of several certificates or lists in it, of the one that ends first.
#[derive(Debug, Clone, Copy)]
pub struct Lifetime {
    what: What,
    begins: Timestamp,
    ends: Timestamp,
}

impl Lifetime {
    /// Takes the times as X.509 has them: seconds since 1970. What lies beyond the calendar counts as its end.
    pub(super) fn new(what: What, begins: i64, ends: i64) -> Self {
        let time = |seconds: i64| {
            let edge = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
            Timestamp::from_second(seconds).unwrap_or(edge)
        };
        Self { what, begins: time(begins), ends: time(ends) }
    }

    /// What ends.
    pub fn what(&self) -> What {
        self.what
    }

    /// When it ends.
    pub fn ends(&self) -> Timestamp {
        self.ends
    }

    /// Seconds until it ends; negative afterwards.
    pub fn left(&self, now: Timestamp) -> i64 {
        self.ends.duration_since(now).as_secs()
    }

    /// Seconds for which it was made.
    pub fn whole(&self) -> i64 {
        self.ends.duration_since(self.begins).as_secs()
    }

    /// That it has ended or ends soon, for health: within 30 days, or in the last third if it was made for less than 90. A list that
    /// is made anew each week would always be a worry otherwise.
    pub fn worry(&self, now: Timestamp) -> Option<String> {
        let left = self.ends.duration_since(now);
        let part = self.ends.duration_since(self.begins) / LAST_PART;
        let (what, ends) = (self.what.named(), self.ends);
        if left <= SignedDuration::ZERO {
            return Some(format!("{what} ended at {ends}: put a new one in place"));
        }
        (left < WARN.min(part))
            .then(|| format!("{what} ends at {ends}, in {} days: put a new one in place", left.as_hours() / 24))
    }
}
