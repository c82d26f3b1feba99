//! When it is said aloud that a rotation is not settled: whenever that changes, and then once an hour; without input or output.
//! It is tried every minute, and a party may be away for weeks.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use casemate_wire::PartyId;

use super::state::{Settling, Stuck};
use crate::account::AccountId;

/// How often the same is said again.
const REMIND: Duration = Duration::from_secs(3600);

/// How loudly something is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Volume {
    /// For whoever watches.
    Warn,
    /// It was said before.
    Debug,
}

/// What stands against a rotation's being settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unsettled {
    epoch: u64,
    /// Who is not done.
    due: Vec<PartyId>,
    /// Whose answer leads nowhere, and why in one word.
    stuck: Vec<(PartyId, &'static str)>,
}

impl Unsettled {
    /// As it stands after a round.
    pub(crate) fn of(settling: &Settling, stuck: &[(PartyId, Stuck)]) -> Self {
        let mut stuck: Vec<_> = stuck.iter().map(|(party, stuck)| (party.clone(), stuck.kind)).collect();
        stuck.sort();
        Self { epoch: settling.epoch(), due: settling.due(), stuck }
    }

    /// Who is not done, for people.
    pub(crate) fn parties(&self) -> String {
        self.due.iter().map(PartyId::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// What was last said of each account, and when.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    said: HashMap<AccountId, (Unsettled, Instant)>,
}

impl Telling {
    /// How loudly an account's state is to be said now.
    pub(crate) fn tell(&mut self, account: AccountId, state: Unsettled, now: Instant) -> Volume {
        let fresh = |(said, at): &(Unsettled, Instant)| *said == state && now.saturating_duration_since(*at) < REMIND;
        if self.said.get(&account).is_some_and(fresh) {
            return Volume::Debug;
        }
        self.said.insert(account, (state, now));
        Volume::Warn
    }

    /// Forgets an account that is settled.
    pub(crate) fn settled(&mut self, account: AccountId) {
        self.said.remove(&account);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::session::testing::{party, succession};
    use crate::settle::Standing;

    const MINUTE: Duration = Duration::from_secs(60);

    fn account(number: u8) -> AccountId {
        format!("00000000-0000-4000-8000-0000000000{number:02}").parse().unwrap()
    }

    /// These parties are not done, and these of them are stuck.
    fn state(due: &[u16], stuck: &[(u16, &'static str, &str)]) -> Unsettled {
        let standing = |index: &u16| Standing { party: party(*index), word: None, done: false };
        let settling =
            Settling::new(succession(&[0, 1, 2], &[0, 1], |_| ()), Vec::new(), due.iter().map(standing).collect());
        let stuck: Vec<_> =
            stuck.iter().map(|(index, kind, why)| (party(*index), Stuck { kind, why: (*why).into() })).collect();
        Unsettled::of(&settling, &stuck)
    }

    #[test]
    fn the_same_is_said_once_and_then_every_hour() {
        let (mut telling, begun) = (Telling::default(), Instant::now());
        let away = || state(&[0, 1, 2], &[(2, "party_unreachable", "refused")]);
        let said: Vec<u32> = (0..=150)
            .filter(|minute| telling.tell(account(1), away(), begun + *minute * MINUTE) == Volume::Warn)
            .collect();
        assert_eq!(said, [0, 60, 120]);
    }

    #[test]
    fn whatever_changes_is_said_at_once() {
        let (mut telling, now) = (Telling::default(), Instant::now());
        for (number, changed) in [
            state(&[0, 1, 2], &[]),
            state(&[0, 1, 2], &[(2, "party_unreachable", "refused")]),
            state(&[0, 1, 2], &[(2, "quorum_mismatch", "it proves nothing")]),
            state(&[0, 1, 2], &[(1, "quorum_mismatch", "it proves nothing")]),
            state(&[1, 2], &[(1, "quorum_mismatch", "it proves nothing")]),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(telling.tell(account(1), changed.clone(), now), Volume::Warn, "{number}");
            assert_eq!(telling.tell(account(1), changed, now), Volume::Debug, "{number}");
        }
    }

    #[test]
    fn other_words_for_the_same_reason_and_another_order_are_no_change() {
        let (mut telling, now) = (Telling::default(), Instant::now());
        let one = state(&[1, 2], &[(1, "timeout", "after 5 s"), (2, "party_unreachable", "refused")]);
        let other = state(&[1, 2], &[(2, "party_unreachable", "no route"), (1, "timeout", "after 6 s")]);
        assert_eq!(telling.tell(account(1), one, now), Volume::Warn);
        assert_eq!(telling.tell(account(1), other, now), Volume::Debug);
    }

    #[test]
    fn accounts_are_told_apart_and_one_that_was_settled_begins_anew() {
        let (mut telling, now) = (Telling::default(), Instant::now());
        for number in [1, 2] {
            assert_eq!(telling.tell(account(number), state(&[2], &[]), now), Volume::Warn);
        }
        telling.settled(account(1));
        assert_eq!(telling.tell(account(1), state(&[2], &[]), now), Volume::Warn);
        assert_eq!(telling.tell(account(2), state(&[2], &[]), now), Volume::Debug);
    }
}
