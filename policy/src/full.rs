//! Windows that count as full, whatever stands in the ledger.
//!
//! Where the audit log was begun anew, or the clock was far ahead for a while, nobody knows what had been spent before: such a
//! ledger may lack any amount. Each window then holds the largest amounts and counts until it has passed since that moment, so that every limit
//! over time refuses. What no policy limits over time is judged as ever.

use jiff::Timestamp;

use crate::amount::Decimal;
use crate::counters::{Counters, Windows};
use crate::spend::WEEK;

/// The length of each window in seconds.
pub(crate) const LENGTHS: Windows<i64> = Windows { hour: 3600, day: 24 * 3600, week: WEEK };

/// Which windows are full at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    since: i64,
    windows: Windows<bool>,
}

impl Full {
    /// The windows that have not passed at `now` since the moment `since` (Unix seconds); nothing if all have.
    pub(crate) fn at(since: i64, now: i64) -> Option<Self> {
        let windows = LENGTHS.map(|length| since > now.saturating_sub(length));
        windows.week.then_some(Self { since, windows })
    }

    /// The counters with the largest values in each full window.
    pub(crate) fn fill(self, counters: Counters) -> Counters {
        let amount = self.windows.map(|full| if full { Decimal::MAX } else { Decimal::ZERO });
        let count = self.windows.map(|full| if full { i64::MAX } else { 0 });
        Counters {
            spent: counters.spent.max(amount),
            group_spent: counters.group_spent.max(amount),
            fees: counters.fees.max(amount),
            count: counters.count.max(count),
            group_count: counters.group_count.max(count),
        }
    }

    /// Why a refusal that compared a full window says what it says, if `compared` names one of its attributes.
    pub(crate) fn explain(self, compared: impl Fn(&str) -> bool) -> Option<String> {
        let compared = |window: &str| {
            let names = ["spent", "group_spent", "fees", "count", "group_count"];
            names.iter().any(|name| compared(&format!("context.{name}.{window}")))
        };
        let Windows { hour, day, week } = self.windows;
        // The longest that was compared says when to ask again.
        let (name, length) = [("week", week, LENGTHS.week), ("day", day, LENGTHS.day), ("hour", hour, LENGTHS.hour)]
            .into_iter()
            .find_map(|(name, full, length)| (full && compared(name)).then_some((name, length)))?;
        let article = if name == "hour" { "an" } else { "a" };
        let since = Timestamp::from_second(self.since).ok()?;
        let until = Timestamp::from_second(self.since.saturating_add(length)).ok()?;
        Some(format!(
            "what was spent before {since} is not known to this appliance, since its audit log was begun anew or a backup restored, its \
             clock was wrong, or the key came to it then: its windows of {article} {name} count as full until {until}"
        ))
    }
}
