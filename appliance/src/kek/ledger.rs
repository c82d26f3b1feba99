//! What the audit log says of the KEKs, and its leaves about them. The log speaks first: a KEK is made, and destroyed, after
//! its leaf is durable and anchored, so that a run that is cut off is ended by the next one.

use std::collections::BTreeMap;

use casemate_attest::{Entry, Guard, GuardChange, KekState, Op, Text};
use casemate_hsm::HsmStatus;

use crate::store::{Store, StoreError, Urgency};

/// The KEKs' states, as the log had them when the store was opened and as this adds to it. For offline commands: nobody else
/// writes meanwhile.
pub struct Ledger {
    logged: BTreeMap<u32, KekState>,
    /// Epochs on the token.
    present: Vec<u32>,
}

/// A state of a KEK that stands against what is asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The log has it in a state from which this does not follow.
    #[error(
        "the audit log has kek/{epoch} as {state}, so it cannot be {wanted}; was the token restored from an old copy, or is it \
         another one?"
    )]
    OutOfOrder {
        /// The KEK's epoch.
        epoch: u32,
        /// Its state.
        state: &'static str,
        /// What was asked.
        wanted: &'static str,
    },
    /// The leaf could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Ledger {
    /// What the log says, and which KEKs are on the token.
    pub fn of(store: &Store, status: &HsmStatus) -> Self {
        let present = status.keys.iter().filter_map(|key| key.id.strip_prefix("kek/")?.parse().ok()).collect();
        let read = |(epoch, state): (&Text, &Text)| Some((epoch.as_str().parse().ok()?, state.as_str().parse().ok()?));
        Self { logged: store.keks().iter().filter_map(read).collect(), present }
    }

    /// Whether a run was cut off after it made this one.
    pub fn was_made_only(&self, epoch: u32) -> bool {
        self.state(epoch) == Some(KekState::Made)
    }

    /// Notes that this KEK is about to be made.
    ///
    /// # Errors
    /// The log has had a KEK of this epoch, or the leaf could not be written.
    pub async fn made(&mut self, store: &Store, epoch: u32) -> Result<(), LedgerError> {
        match self.state(epoch) {
            // A run was cut off before it made it.
            Some(KekState::Made) => Ok(()),
            None => self.write(store, vec![(epoch, KekState::Made)]).await,
            Some(state) => Err(out_of_order(epoch, state, KekState::Made)),
        }
    }

    /// Notes that this KEK wraps from now on, and that all others do no more.
    ///
    /// # Errors
    /// The log has it as another's past, or the leaf could not be written.
    pub async fn current(&mut self, store: &Store, epoch: u32) -> Result<(), LedgerError> {
        match self.state(epoch) {
            None | Some(KekState::Made) => {}
            Some(KekState::Current) => return Ok(()),
            Some(state) => return Err(out_of_order(epoch, state, KekState::Current)),
        }
        let unnamed = self.present.iter().copied().filter(|other| *other < epoch && self.state(*other).is_none());
        let before = self.logged.iter().filter(|(_, state)| **state == KekState::Current).map(|(epoch, _)| *epoch);
        let mut changes: Vec<_> = unnamed.chain(before).map(|other| (other, KekState::Retired)).collect();
        changes.push((epoch, KekState::Current));
        self.write(store, changes).await
    }

    /// Whether the log lets this KEK be destroyed.
    ///
    /// # Errors
    /// It is the current one.
    pub fn may_be_destroyed(&self, epoch: u32) -> Result<(), LedgerError> {
        match self.state(epoch) {
            Some(KekState::Current) => Err(out_of_order(epoch, KekState::Current, KekState::Destroyed)),
            _ => Ok(()),
        }
    }

    /// Notes that this KEK is about to be destroyed.
    ///
    /// # Errors
    /// As [`Ledger::may_be_destroyed`], or the leaf could not be written.
    pub async fn destroyed(&mut self, store: &Store, epoch: u32) -> Result<(), LedgerError> {
        self.may_be_destroyed(epoch)?;
        match self.state(epoch) {
            // A run was cut off before it destroyed it.
            Some(KekState::Destroyed) => return Ok(()),
            // The log first speaks of KEKs here.
            None => self.write(store, vec![(epoch, KekState::Retired)]).await?,
            _ => {}
        }
        self.write(store, vec![(epoch, KekState::Destroyed)]).await
    }

    /// One leaf for all of these changes.
    async fn write(&mut self, store: &Store, changes: Vec<(u32, KekState)>) -> Result<(), LedgerError> {
        let change = |(epoch, state): &(u32, KekState)| GuardChange {
            guard: Guard::Kek,
            id: Text::fitted(&epoch.to_string()),
            to: Some(Text::fitted(state.as_str())),
        };
        let entry = Entry::admin(Op::Kek).guarding(changes.iter().map(change).collect());
        store.write(Urgency::Act, move |transaction| transaction.append(entry)).await?;
        self.logged.extend(changes);
        Ok(())
    }

    fn state(&self, epoch: u32) -> Option<KekState> {
        self.logged.get(&epoch).copied()
    }
}

fn out_of_order(epoch: u32, state: KekState, wanted: KekState) -> LedgerError {
    LedgerError::OutOfOrder { epoch, state: state.as_str(), wanted: wanted.as_str() }
}
