//! What was spent within the windows that policies limit, and what sessions that run may still spend.
//!
//! The windows are kept in memory and stand durably in the store. A request that policy would allow is reserved here and
//! judged once more, so that of two that race for the rest of a limit the second sees the first; it is written in the
//! transaction of the audit intent, and what was reserved for a request that came to nothing is taken back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use casemate_policy::{AlreadyReserved, Bundle, Ledger, Reserved, Signing, Spending, Totals};
use casemate_wire::SessionId;
use jiff::Timestamp;

/// All windows of this appliance; clones share them.
#[derive(Clone, Default)]
pub struct Till(Arc<Mutex<Ledger>>);

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
