//! What was spent within the windows that policies limit, and what sessions that run may still spend.
//!
//! The windows are kept in memory and stand durably in the store: an amount is reserved here before policy judges it, so
//! that of two requests that race for the rest of a limit the second sees the first; it is written in the transaction of
//! the audit intent, and what was reserved for a request that came to nothing is taken back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use casemate_policy::Bundle;
use casemate_policy::spend::{Ledger, Spending, Totals};
use casemate_wire::SessionId;

/// All windows of this appliance; clones share them.
#[derive(Clone, Default)]
pub struct Till(Arc<Mutex<Ledger>>);

/// What one request will spend at most. Dropped before it is kept, it is taken back.
#[must_use = "what is dropped is taken back"]
pub(crate) struct Reservation {
    till: Till,
    spending: Spending,
    kept: bool,
}

impl Till {
    /// Takes over what the store holds.
    pub(crate) fn fill(&self, stored: Vec<Spending>) {
        let mut ledger = self.lock();
        for spending in stored {
            ledger.reserve(spending);
        }
    }

    /// Reserves, and says what all windows then hold, this request included.
    pub(crate) fn reserve(&self, bundle: &Bundle, spending: Spending) -> (Reservation, Totals) {
        let mut ledger = self.lock();
        ledger.reserve(spending.clone());
        let totals = bundle.totals(&ledger, &spending);
        drop(ledger);
        (Reservation { till: self.clone(), spending, kept: false }, totals)
    }

    /// Takes back what a session reserved; its release must be durable by then.
    pub(crate) fn release(&self, session: &SessionId) {
        self.lock().release(session);
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // A panic inside would be in our own arithmetic; the ledger is changed by single steps only.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// What is to be written.
    pub(crate) fn spending(&self) -> &Spending {
        &self.spending
    }

    /// It is durable: it counts from now on.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.kept {
            self.till.release(&self.spending.session);
        }
    }
}
