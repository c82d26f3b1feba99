//! What was spent within the windows that policies limit, and what sessions that run may still spend.
//!
//! The windows are kept in memory and stand durably in the store. A request that policy would allow is reserved here and
//! judged once more, so that of two that race for the rest of a limit the second sees the first; it is written in the
//! transaction of the audit intent, and what was reserved for a request that came to nothing is taken back.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use casemate_policy::spend::WEEK;
use casemate_policy::{AlreadyReserved, Bundle, Ledger, Reserved, Signing, Spending, Totals};
use casemate_wire::{PublicKey, SessionId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// All windows of this appliance; clones share them.
#[derive(Clone, Default)]
pub struct Till(Arc<Mutex<Ledger>>);

/// What a party that joins a key's committee learns of the key's spending from the parties that deal. It stands in the header of
/// its share, which the share's encryption authenticates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inheritance {
    /// When it joined, Unix seconds.
    pub at: i64,
    /// What counts in the windows, by whoever of the dealers knew it; `None` where it was too much to tell, so that the windows
    /// count as full.
    pub spent: Option<Vec<Spending>>,
}

/// The most sessions that are told; a day of one every fifteen seconds for a week would be too much.
const TOLD: usize = 2_000;

impl Inheritance {
    /// Whether anything of it still counts in a window.
    pub(crate) fn counts_at(&self, now: Timestamp) -> bool {
        now.as_second().saturating_sub(self.at) < WEEK
    }

    /// All that the dealers tell of `key`: each session once, by the later of their clocks, which must not move the own one forward.
    /// Where two tell one session differently nobody knows which of them lies, so that the windows count as full.
    pub(crate) fn of(key: &PublicKey, dealers: Vec<Option<Vec<Spending>>>, now: Timestamp) -> Self {
        let at = now.as_second();
        let mut sessions = BTreeMap::new();
        let mut known = true;
        for told in dealers {
            known &= told.as_ref().is_some_and(|told| told.len() <= TOLD);
            for spending in told.unwrap_or_default().into_iter().take(TOLD).filter(|spending| spending.key == *key) {
                let spending = Spending { at: spending.at.min(at), ..spending };
                match sessions.entry(spending.session.clone()) {
                    Entry::Vacant(place) => drop(place.insert(spending)),
                    Entry::Occupied(mut place) => {
                        let later = spending.at.max(place.get().at);
                        known &= Spending { at: place.get().at, ..spending } == *place.get();
                        place.get_mut().at = later;
                    }
                }
            }
        }
        Self { at, spent: known.then(|| sessions.into_values().collect()) }
    }
}

/// What one request will spend at most. Dropped before it is kept, it is taken back.
#[must_use = "what is dropped is taken back"]
pub(crate) struct Reservation {
    till: Till,
    reserved: Reserved,
    kept: bool,
}

impl Till {
    /// Takes over what the store holds.
    ///
    /// # Errors
    /// A session stands there twice.
    pub(crate) fn fill(&self, stored: Vec<Spending>) -> Result<(), AlreadyReserved> {
        let mut ledger = self.lock();
        stored.into_iter().try_for_each(|spending| ledger.restore(spending))
    }

    /// Counts every window as full until it has passed since `moment`: what was spent before is not known.
    pub(crate) fn fill_since(&self, moment: Timestamp) {
        self.lock().fill_since(moment.as_second());
    }

    /// Counts every window as full until it has passed from now on: the clock was wrong, and what was spent meanwhile or
    /// before may have been forgotten.
    pub(crate) fn fill_from(&self, now: Timestamp) {
        self.lock().fill_from(now.as_second());
    }

    /// What a key has spent that still counts, for those who join its committee; `None` if that is too much, or not all known
    /// here.
    pub(crate) fn told(&self, key: &PublicKey, now: Timestamp) -> Option<Vec<Spending>> {
        let told = self.lock().of_key(key, now.as_second())?;
        (told.len() <= TOLD).then_some(told)
    }

    /// Takes over what was spent with a key before it came to this party; what is there already stays.
    pub(crate) fn inherit(&self, key: PublicKey, inheritance: &Inheritance) {
        let mut ledger = self.lock();
        match &inheritance.spent {
            // A session that is known here otherwise leaves what was spent in doubt.
            Some(spent) if spent.iter().all(|spending| ledger.agrees(spending)) => {
                for spending in spent {
                    drop(ledger.restore(spending.clone()));
                }
            }
            Some(_) | None => ledger.fill_key_since(key, inheritance.at),
        }
    }

    /// Reserves, and adds up what all windows then hold, this request included.
    ///
    /// # Errors
    /// The session has a reservation.
    pub(crate) fn reserve(
        &self,
        bundle: &Bundle,
        signing: &Signing<'_>,
        now: Timestamp,
    ) -> Result<Reservation, AlreadyReserved> {
        let mut ledger = self.lock();
        // The store forgets the rows of these sessions by itself.
        drop(ledger.prune());
        let reserved = bundle.reserve(&mut ledger, signing, now)?;
        drop(ledger);
        Ok(Reservation { till: self.clone(), reserved, kept: false })
    }

    /// Adds up what all windows would hold with this request, and reserves nothing: what policy refuses anyway must not
    /// stand in the way of others while it is judged.
    ///
    /// # Errors
    /// The session has a reservation.
    pub(crate) fn look(
        &self,
        bundle: &Bundle,
        signing: &Signing<'_>,
        now: Timestamp,
    ) -> Result<Totals, AlreadyReserved> {
        let mut ledger = self.lock();
        let reserved = bundle.reserve(&mut ledger, signing, now)?;
        drop(ledger.release(&signing.session));
        Ok(reserved.totals().clone())
    }

    /// Takes back what a session reserved; its release must be durable by then.
    pub(crate) fn release(&self, session: &SessionId) {
        drop(self.lock().release(session));
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // A panic inside would be in our own arithmetic; the ledger is changed by single steps only.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// What is to be written.
    pub(crate) fn spending(&self) -> &Spending {
        self.reserved.spending()
    }

    /// What policies see.
    pub(crate) fn totals(&self) -> &Totals {
        self.reserved.totals()
    }

    /// It is durable: it counts from now on.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.kept {
            self.till.release(&self.spending().session);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key() -> PublicKey {
        "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().unwrap()
    }

    fn spending(session: &str, at: i64) -> Spending {
        let text = format!(
            r#"{{"session":"{session}","key":"{}","label":null,"transaction":"{}","at":{at},"charges":[]}}"#,
            key(),
            "07".repeat(32)
        );
        serde_json::from_str(&text).unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn who_joins_counts_each_session_that_any_dealer_knew_once_and_none_from_the_future() {
        let a = vec![spending("s-1", 1_799_999_000), spending("s-2", 1_799_999_100)];
        let b = vec![spending("s-2", 1_799_999_101), spending("s-3", 1_900_000_000)];
        let joined = Inheritance::of(&key(), vec![Some(a), Some(b)], now());
        let sessions: Vec<(String, i64)> =
            joined.spent.clone().unwrap().iter().map(|one| (one.session.to_string(), one.at)).collect();
        let expected = [("s-1", 1_799_999_000), ("s-2", 1_799_999_101), ("s-3", 1_800_000_000)];
        assert_eq!(sessions, expected.map(|(session, at)| (session.to_owned(), at)));
        let till = Till::default();
        till.inherit(key(), &joined);
        till.inherit(key(), &joined);
        assert_eq!(till.told(&key(), now()).unwrap().len(), 3);
    }

    #[test]
    fn what_is_too_much_to_tell_or_is_not_told_leaves_the_windows_full() {
        let many: Vec<Spending> = (0..2_001).map(|n| spending(&format!("s-{n}"), 1_799_999_000)).collect();
        let till = Till::default();
        till.fill(many.clone()).unwrap();
        assert!(till.told(&key(), now()).is_none());
        for told in [None, Some(many)] {
            let joined = Inheritance::of(&key(), vec![Some(Vec::new()), told], now());
            assert_eq!(joined.spent, None);
        }
    }

    #[test]
    fn a_dealer_that_tells_a_session_otherwise_fills_the_windows_and_does_not_empty_them() {
        let honest = vec![spending("s-1", 1_799_999_000)];
        let other = Spending { transaction: casemate_wire::Digest32([9; 32]), ..spending("s-1", 0) };
        let joined = Inheritance::of(&key(), vec![Some(vec![other.clone()]), Some(honest.clone())], now());
        assert_eq!(joined.spent, None);
        // Planted before, under another key or as another transaction.
        let till = Till::default();
        till.fill(vec![other]).unwrap();
        till.inherit(key(), &Inheritance { at: now().as_second(), spent: Some(honest) });
        assert!(till.told(&key(), now()).is_none(), "its windows are full");
    }

    #[test]
    fn who_does_not_know_all_that_was_spent_tells_nothing() {
        let till = Till::default();
        assert!(till.told(&key(), now()).is_some());
        till.fill_since(now());
        assert!(till.told(&key(), now()).is_none());
    }
}
