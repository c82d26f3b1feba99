//! What `context.spent`, `context.count` and the like hold for one effect: a value for each rolling window.

use serde::Serialize;

use crate::amount::Decimal;

/// One value for each rolling window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Windows<T> {
    pub(crate) hour: T,
    pub(crate) day: T,
    pub(crate) week: T,
}

impl<T: Copy> Windows<T> {
    /// The same value in every window.
    pub(crate) fn all(value: T) -> Self {
        Self { hour: value, day: value, week: value }
    }

    pub(crate) fn map<U>(self, convert: impl Fn(T) -> U) -> Windows<U> {
        Windows { hour: convert(self.hour), day: convert(self.day), week: convert(self.week) }
    }

    pub(crate) fn zip(self, other: Self, join: impl Fn(T, T) -> T) -> Self {
        Self { hour: join(self.hour, other.hour), day: join(self.day, other.day), week: join(self.week, other.week) }
    }
}

impl<T: Copy + Ord> Windows<T> {
    /// The larger value of each window.
    pub(crate) fn max(self, other: Self) -> Self {
        Self { hour: self.hour.max(other.hour), day: self.day.max(other.day), week: self.week.max(other.week) }
    }

    /// Whether no window holds more than a longer one.
    pub(crate) fn rises(self) -> bool {
        self.hour <= self.day && self.day <= self.week
    }
}

/// All sums and counts that policies see for one effect; each includes the request itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) spent: Windows<Decimal>,
    pub(crate) group_spent: Windows<Decimal>,
    pub(crate) fees: Windows<Decimal>,
    pub(crate) count: Windows<i64>,
    pub(crate) group_count: Windows<i64>,
}

impl Counters {
    /// For an action that signs nothing.
    pub(crate) const NOTHING: Self = Self::of(Decimal::ZERO, Decimal::ZERO, 0);
    /// For a hash that nobody decoded, without anything before it: what cannot be known counts as the largest.
    pub(crate) const BLIND: Self = Self::of(Decimal::MAX, Decimal::MAX, 1);

    /// The same in every window, for the key and its group.
    pub(crate) const fn of(spent: Decimal, fees: Decimal, count: i64) -> Self {
        let (spent, fees) =
            (Windows { hour: spent, day: spent, week: spent }, Windows { hour: fees, day: fees, week: fees });
        let count = Windows { hour: count, day: count, week: count };
        Self { spent, group_spent: spent, fees, count, group_count: count }
    }
}
