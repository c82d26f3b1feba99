//! What of the book is read from the own log at a start: checkpoints of a peer that stand side by side.
//!
//! The table `peers` keeps each peer's newest checkpoint N. Smaller ones that sessions recorded are proven to be part of N's log
//! if the session that recorded N asked for them, and it asked for everything that the book held after its intent. So what
//! was recorded before that intent is settled, and what was recorded after it may not be: that is taken up again. A session
//! that records nothing because the daemon ends before it has no leaf to be found by.

use std::collections::BTreeMap;

use casemate_attest::state::accept_peer;
use casemate_attest::{Checkpoint, Guard, Leaf, Line, leaf::Phase};
use casemate_wire::{PartyId, SessionId};
use rusqlite::Connection;

use crate::store::{PeerRow, StoreError};

/// How far the search for one peer has come, from the log's end backwards.
enum Search {
    /// No leaf was found yet that put the stored checkpoint there.
    Recorded,
    /// Such a leaf was found; now for the intent of its session.
    Begun(Option<SessionId>),
    /// Everything before is settled.
    Over,
}

/// One peer's search, and what it has found.
struct Trail<'a> {
    row: &'a PeerRow,
    search: Search,
    found: Vec<Checkpoint>,
}

/// Of each stored peer the recorded checkpoints that nothing on record proves to be part of the stored one's log. Where lines
/// were pruned since, what stood in them is not found: their exports hold it, for `casemate audit reconcile`.
///
/// # Errors
/// What SQLite says, or that a line cannot be read.
pub(crate) fn side_by_side(
    connection: &Connection,
    known: &[PeerRow],
) -> Result<BTreeMap<PartyId, Vec<Checkpoint>>, StoreError> {
    let failed = StoreError::sqlite("read what was seen of its peers");
    let mut statement = connection.prepare("SELECT line FROM leaves ORDER BY seq DESC").map_err(&failed)?;
    let mut lines = statement.query([]).map_err(&failed)?;
    let trail = |row| Trail { row, search: Search::Recorded, found: Vec::new() };
    let mut trails: Vec<Trail<'_>> = known.iter().map(trail).collect();
    while trails.iter().any(|trail| !matches!(trail.search, Search::Over))
        && let Some(row) = lines.next().map_err(&failed)?
    {
        let line: String = row.get(0).map_err(&failed)?;
        let line = Line::read(line.as_bytes());
        let line = line.map_err(|error| StoreError::corrupt("a leaf")(error.to_string()))?;
        for trail in &mut trails {
            trail.step(line.leaf());
        }
    }
    Ok(trails.into_iter().map(|trail| (trail.row.party.clone(), trail.found)).collect())
}

impl Trail<'_> {
    /// Looks at the leaf before the last one.
    fn step(&mut self, leaf: &Leaf) {
        let PeerRow { party, checkpoint: newest, .. } = self.row;
        if matches!(self.search, Search::Over) {
            return;
        }
        if self.is_accepted_by(leaf) {
            self.search = Search::Over;
            return;
        }
        let begun = |session: &Option<SessionId>| leaf.phase == Phase::Intent && leaf.session == *session;
        if matches!(&self.search, Search::Begun(session) if begun(session)) {
            self.search = Search::Over;
            return;
        }
        for seen in leaf.peers.iter().filter(|seen| seen.party == *party && seen.log == newest.log) {
            let seen = Checkpoint { log: seen.log.clone(), size: seen.size, root: seen.root };
            if seen != *newest && !self.found.contains(&seen) {
                self.found.push(seen);
            } else if seen == *newest && matches!(self.search, Search::Recorded) {
                self.search = Search::Begun(leaf.session.clone());
            }
        }
    }

    /// Whether an operator accepted the stored checkpoint here: nothing before binds the peer.
    fn is_accepted_by(&self, leaf: &Leaf) -> bool {
        let PeerRow { party, checkpoint: Checkpoint { log, size, root }, .. } = self.row;
        let place = casemate_attest::Place { log: log.clone(), size: *size, root: *root };
        let accepts = accept_peer(party, &place);
        leaf.guards.iter().any(|change| change.guard == Guard::Peer && *change == accepts)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use casemate_attest::{Decision, Effect, Entry, Head, Op, Origin, Outcome, PeerCheckpoint, Place, Text, Tx};
    use casemate_wire::Digest32;

    use super::*;
    use crate::store::testing::{add, log};

    struct Told(Connection, Head);

    impl Told {
        fn new() -> Self {
            let (store, head) = log("log", 1);
            Self(store, head)
        }

        fn leaf(&mut self, entry: Entry) -> Line {
            let (line, head) = add(&self.0, &self.1, entry);
            self.1 = head;
            line
        }

        fn begins(&mut self, session: &str) -> casemate_attest::IntentRef {
            let key = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().unwrap();
            let act = casemate_attest::Act::Sign { key, tx: Tx::of(Digest32([1; 32])) };
            let session = Some(session.parse().unwrap());
            let origin = Origin { req: Text::fitted("r"), actor: Text::fitted("c"), session };
            let decision =
                Decision { effect: Effect::Allow, policies: vec![Text::fitted("p")], bundle: Some(Digest32([3; 32])) };
            self.leaf(Entry::intent(act, origin, decision)).intent().unwrap()
        }

        fn ends(&mut self, intent: casemate_attest::IntentRef, size: u64) {
            let Checkpoint { log, size, root } = seen(size);
            let party = "party-2".parse().unwrap();
            let peers = vec![PeerCheckpoint { party, log, size, root, attested: None }];
            let outcome = Outcome::failed(Text::fitted("x"), Text::fitted("x"));
            self.leaf(Entry::outcome(intent, outcome).witnessing(peers));
        }

        /// What is found if the newest stored checkpoint has this size.
        fn found(&self, newest: u64) -> Vec<u64> {
            let row = PeerRow {
                party: "party-2".parse().unwrap(),
                checkpoint: seen(newest),
                note: String::new(),
                at: String::new(),
            };
            let found = side_by_side(&self.0, &[row]).unwrap();
            let mut sizes: Vec<u64> = found.into_values().flatten().map(|checkpoint| checkpoint.size).collect();
            sizes.sort_unstable();
            sizes
        }
    }

    fn seen(size: u64) -> Checkpoint {
        Checkpoint { log: "peer".parse().unwrap(), size, root: Digest32([2; 32]) }
    }

    #[test]
    fn what_sessions_recorded_one_after_the_other_is_settled_by_the_last() {
        let mut told = Told::new();
        for (session, size) in [("s-1", 3), ("s-2", 5), ("s-3", 9)] {
            let intent = told.begins(session);
            told.ends(intent, size);
        }
        assert!(told.found(9).is_empty());
    }

    #[test]
    fn what_was_recorded_while_the_newest_ones_session_ran_must_be_proven_again_after_a_restart() {
        let mut told = Told::new();
        let settled = told.begins("s-0");
        told.ends(settled, 2);
        let [one, newest, other] = ["s-1", "s-2", "s-3"].map(|session| told.begins(session));
        told.ends(one, 5);
        told.ends(newest, 9);
        told.ends(other, 7);
        assert_eq!(told.found(9), [5, 7]);
    }

    #[test]
    fn what_an_operator_accepted_settles_all_before_it() {
        let mut told = Told::new();
        let [before, across] = ["s-1", "s-2"].map(|session| told.begins(session));
        told.ends(before, 8);
        let Checkpoint { log, size, root } = seen(6);
        let origin = Origin { req: Text::fitted("r"), actor: Text::fitted("ann"), session: None };
        let accepts = accept_peer(&"party-2".parse().unwrap(), &Place { log, size, root });
        told.leaf(Entry::admin(Op::Peer).asked_by(origin).guarding(vec![accepts]));
        told.ends(across, 4);
        assert_eq!(told.found(6), [4]);
    }
}
