//! Who has been heard in which round.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::MpcError;
use crate::io::Kind;

/// A slot of a protocol's plan: every peer sends exactly one message for it.
pub(crate) type Slot = (u16, Kind);

/// Keeps the roll of one session: which slots the protocol has, and which peers have filled them.
pub(crate) struct RollCall {
    me: u16,
    parties: u16,
    heard: BTreeMap<Slot, BTreeSet<u16>>,
}

impl RollCall {
    /// A roll for the party at position `me` of `parties`, with the protocol's slots in ascending order.
    pub(crate) fn new(me: u16, parties: u16, plan: &[Slot]) -> Self {
        Self { me, parties, heard: plan.iter().map(|slot| (*slot, BTreeSet::new())).collect() }
    }

    /// Checks that `from` is a peer of this session at all.
    pub(crate) fn admit(&self, from: u16) -> Result<(), MpcError> {
        if from >= self.parties || from == self.me {
            return Err(MpcError::unattributed(0, format!("a message claims to come from party {from}")));
        }
        Ok(())
    }

    /// Marks that `from` has filled `slot`. A slot that the protocol does not have, and a second message for one, is the
    /// peer's fault.
    pub(crate) fn mark(&mut self, from: u16, slot: Slot) -> Result<(), MpcError> {
        let (round, kind) = slot;
        let Some(heard) = self.heard.get_mut(&slot) else {
            return Err(MpcError::peer(from, round, format!("the protocol has no such {kind} in this round")));
        };
        if !heard.insert(from) {
            return Err(MpcError::peer(from, round, format!("sent a second {kind} in one round")));
        }
        Ok(())
    }

    /// Peers that have not filled `slot`, ascending.
    pub(crate) fn missing(&self, slot: Slot) -> Vec<u16> {
        let heard = self.heard.get(&slot);
        (0..self.parties)
            .filter(|party| *party != self.me && heard.is_none_or(|heard| !heard.contains(party)))
            .collect()
    }

    /// The first round with an empty slot, and the peers that it waits for.
    pub(crate) fn waiting_for(&self) -> Option<(u16, Vec<u16>)> {
        let mut waiting: Option<(u16, BTreeSet<u16>)> = None;
        for slot in self.heard.keys() {
            if waiting.as_ref().is_some_and(|(round, _)| *round != slot.0) {
                break;
            }
            let missing = self.missing(*slot);
            if !missing.is_empty() {
                waiting.get_or_insert_with(|| (slot.0, BTreeSet::new())).1.extend(missing);
            }
        }
        waiting.map(|(round, parties)| (round, parties.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    const PLAN: &[Slot] = &[(1, Kind::Broadcast), (1, Kind::Direct), (2, Kind::Broadcast)];

    #[test]
    fn the_roll_names_who_is_missing_in_the_first_open_round() {
        let mut roll = RollCall::new(1, 3, PLAN);
        assert_eq!(roll.waiting_for(), Some((1, vec![0, 2])));
        roll.mark(0, (1, Kind::Broadcast)).expect("first");
        roll.mark(2, (1, Kind::Broadcast)).expect("first");
        roll.mark(2, (1, Kind::Direct)).expect("first");
        roll.mark(2, (2, Kind::Broadcast)).expect("early, but allowed");
        assert_eq!(roll.waiting_for(), Some((1, vec![0])));
        roll.mark(0, (1, Kind::Direct)).expect("first");
        assert_eq!(roll.waiting_for(), Some((2, vec![0])));
        roll.mark(0, (2, Kind::Broadcast)).expect("first");
        assert_eq!(roll.waiting_for(), None);
    }

    #[test]
    fn a_second_message_for_one_slot_is_the_senders_fault() {
        let mut roll = RollCall::new(1, 3, PLAN);
        roll.mark(0, (1, Kind::Broadcast)).expect("first");
        let error = roll.mark(0, (1, Kind::Broadcast)).expect_err("second");
        assert_eq!(error.culprit(), Some(0));
    }

    #[test]
    fn a_message_for_no_slot_is_the_senders_fault() {
        let mut roll = RollCall::new(1, 3, PLAN);
        assert_eq!(roll.mark(2, (2, Kind::Direct)).expect_err("no such slot").culprit(), Some(2));
    }

    #[test]
    fn strangers_and_oneself_are_not_admitted() {
        let roll = RollCall::new(1, 3, PLAN);
        assert!(roll.admit(0).is_ok() && roll.admit(2).is_ok());
        assert!(roll.admit(1).is_err() && roll.admit(3).is_err());
    }
}
