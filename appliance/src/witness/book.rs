//! What this process knows of each peer's log, and which peers are refused.
//!
//! It holds what the table `peers` holds, and a little more: what sessions that run now have verified but not recorded yet.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use casemate_attest::{Checkpoint, Doubt, ProofError, SignedCheckpoint};
use casemate_wire::envelope::MAX_WITNESSED;
use casemate_wire::{Code, PartyId, Problem};
use jiff::Timestamp;
use rusqlite::Connection;

use crate::store::{PeerRow, StoreError};

/// What is known of all peers, and what they say of this appliance's log.
#[derive(Debug, Default)]
pub struct Book {
    pages: Mutex<BTreeMap<PartyId, Page>>,
    /// The peers that have seen what the own log does not hold: why, and since when.
    own_doubts: Mutex<BTreeMap<PartyId, (String, String)>>,
}

/// What is known of one peer.
#[derive(Debug, Default)]
struct Page {
    /// The last checkpoint that was verified.
    newest: Option<Checkpoint>,
    /// Those that other sessions verified at the same time: none is proven to be part of the newest one's log yet. The next
    /// session asks for all, so that a peer gains nothing by showing several histories side by side.
    beside: Vec<Checkpoint>,
    refusal: Option<Refusal>,
}

/// As many checkpoints of a peer can stand side by side: with the newest, what a hello may name of one peer.
const BESIDE: usize = MAX_WITNESSED - 1;

/// Why what a peer shows of its log is not taken up. The session must end before a share is opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unbelieved {
    /// The peer's log is not believed.
    #[error(transparent)]
    Doubt(#[from] Doubt),
    /// To take it up, something else would have to be forgotten that the peer has not proven yet.
    #[error(
        "more than {BESIDE} sessions at once have seen its log at different places, and none of them is forgotten before the peer \
         has proven it; convene the session again when others have begun since"
    )]
    TooManyAtOnce,
}

/// Why a peer is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code of the failure.
    pub code: Code,
    /// What is wrong with its log.
    pub why: String,
    /// Since when, RFC 3339.
    pub since: String,
}

impl Book {
    /// Takes up what the store holds, what the log shows beside it, and which peers were refused before this start.
    pub(crate) fn fill(
        &self,
        known: Vec<PeerRow>,
        mut beside: BTreeMap<PartyId, Vec<Checkpoint>>,
        refused: Vec<(PartyId, Refusal)>,
    ) {
        let mut pages = self.lock();
        for PeerRow { party, checkpoint, .. } in known {
            let mut beside = beside.remove(&party).unwrap_or_default();
            // Sessions recorded no more than the book held, but for those that ended while others had been settled: the
            // newest of them are at the front.
            if beside.len() > BESIDE {
                tracing::warn!(event = "witness_beside_cut", %party, seen = beside.len(), "the oldest is left to reconcile");
                beside.truncate(BESIDE);
            }
            let page = pages.entry(party).or_default();
            (page.newest, page.beside) = (Some(checkpoint), beside);
        }
        for (party, refusal) in refused {
            pages.entry(party).or_default().refusal = Some(refusal);
        }
    }

    /// What a peer must prove that its log continues: at most [`MAX_WITNESSED`] checkpoints, none at first contact.
    pub(crate) fn known(&self, party: &PartyId) -> Vec<Checkpoint> {
        let pages = self.lock();
        let page = pages.get(party);
        page.into_iter().flat_map(|page| page.newest.iter().chain(&page.beside)).cloned().collect()
    }

    /// A peer has proven that its log continues `asked`, which was known when its hello was awaited.
    ///
    /// # Errors
    /// Another session has verified something else meanwhile that cannot be the same log; or so many have verified different
    /// things that one would have to be forgotten. Nothing is taken up then.
    pub(crate) fn proven(
        &self,
        party: &PartyId,
        asked: &[Checkpoint],
        signed: &SignedCheckpoint,
    ) -> Result<(), Unbelieved> {
        let mut pages = self.lock();
        let page = pages.entry(party.clone()).or_default();
        let shown = signed.checkpoint();
        let unproven = |known: &&Checkpoint| *known != shown && !asked.contains(known);
        let mut beside: Vec<Checkpoint> = page.newest.iter().chain(&page.beside).filter(unproven).cloned().collect();
        for known in &beside {
            if known.log != shown.log {
                return Err(Doubt::AnotherLog { known: known.log.clone(), found: shown.log.clone() }.into());
            }
            if known.size == shown.size {
                return Err(Doubt::Forked { from: known.size, why: ProofError::OtherRoot }.into());
            }
        }
        beside.push(shown.clone());
        // The largest counts as the newest, as in the store.
        beside.sort_by_key(|known| known.size);
        let newest = beside.pop();
        if beside.len() > BESIDE {
            return Err(Unbelieved::TooManyAtOnce);
        }
        (page.newest, page.beside) = (newest, beside);
        if page.refusal.take().is_some() {
            tracing::info!(event = "peer_log_good_again", %party, size = shown.size);
        }
        Ok(())
    }

    /// A peer is refused; the first refusal in a row says since when.
    pub(crate) fn refused(&self, party: &PartyId, code: Code, why: String) {
        let mut pages = self.lock();
        let page = pages.entry(party.clone()).or_default();
        let since = page.refusal.take().map_or_else(crate::now_text, |earlier| earlier.since);
        tracing::error!(event = "peer_refused", %party, %code, why, since);
        page.refusal = Some(Refusal { code, why, since });
    }

    /// An operator has accepted this checkpoint of a peer: nothing that was known before binds the peer any more.
    pub(crate) fn accepted(&self, party: &PartyId, checkpoint: Checkpoint) {
        self.lock().insert(party.clone(), Page { newest: Some(checkpoint), ..Page::default() });
    }

    /// What peers have seen of the own log: each one's doubt stands until it has seen nothing that does not fit, in a later
    /// session, or until a restart.
    pub(crate) fn heard(&self, seen: &BTreeMap<PartyId, Option<String>>) {
        let mut doubts = self.own_doubts.lock().unwrap_or_else(PoisonError::into_inner);
        for (party, doubt) in seen {
            let since = doubts.remove(party).map_or_else(crate::now_text, |(_, since)| since);
            if let Some(why) = doubt {
                doubts.insert(party.clone(), (why.clone(), since));
            }
        }
    }

    /// What peers hold against the own log, in words.
    pub(crate) fn own_doubts(&self) -> Vec<String> {
        let doubts = self.own_doubts.lock().unwrap_or_else(PoisonError::into_inner);
        let said =
            |(why, since): &(String, String)| format!("this appliance's own log is doubted since {since}: {why}");
        doubts.values().map(said).collect()
    }

    /// The peers that are refused now, and why.
    pub fn refusals(&self) -> Vec<(PartyId, Refusal)> {
        let pages = self.lock();
        pages.iter().filter_map(|(party, page)| Some((party.clone(), page.refusal.clone()?))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartyId, Page>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The peers whose last session ended with their refusal, by the sessions on record: they stay refused over a restart.
///
/// # Errors
/// What SQLite says, or that a row cannot be read.
pub(crate) fn refused_before(
    connection: &Connection,
    known: &[PeerRow],
) -> Result<Vec<(PartyId, Refusal)>, StoreError> {
    let failed = StoreError::sqlite("read which peers were refused");
    let codes = [Code::PeerLogRefused, Code::PeerNotAttested];
    let mut statement = connection
        .prepare(
            "SELECT error, completed_at FROM sessions WHERE status = 'failed' AND error IS NOT NULL AND completed_at IS NOT NULL
             AND json_extract(error, '$.code') IN (?1, ?2) ORDER BY completed_at",
        )
        .map_err(&failed)?;
    let rows = statement
        .query_map(codes.map(Code::as_str), |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
        .map_err(&failed)?;
    let mut refused: BTreeMap<PartyId, Refusal> = BTreeMap::new();
    for row in rows {
        let (error, at) = row.map_err(&failed)?;
        let problem: Problem =
            serde_json::from_str(&error).map_err(|e| StoreError::corrupt("a session")(e.to_string()))?;
        let party = problem.more.get("party").and_then(|party| party.as_str()?.parse::<PartyId>().ok());
        let Some(party) = party else { continue };
        // What was stored later was good.
        let good_since = known.iter().any(|row| row.party == party && is_after(&row.at, &at));
        if !good_since {
            let since = refused.remove(&party).map_or(at, |earlier| earlier.since);
            refused.insert(party, Refusal { code: problem.code, why: problem.detail, since });
        }
    }
    Ok(refused.into_iter().collect())
}

fn is_after(one: &str, other: &str) -> bool {
    match (one.parse::<Timestamp>(), other.parse::<Timestamp>()) {
        (Ok(one), Ok(other)) => one > other,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use casemate_attest::AuditKey;
    use casemate_wire::Digest32;
    use p256::ecdsa::signature::Signer;
    use p256::pkcs8::EncodePublicKey;

    use super::*;

    fn party() -> PartyId {
        "party-2".parse().unwrap()
    }

    fn shown(log: &str, size: u64, root: u8) -> SignedCheckpoint {
        let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let spki = key.verifying_key().to_public_key_der().unwrap();
        let checkpoint = Checkpoint { log: log.parse().unwrap(), size, root: Digest32([root; 32]) };
        let signature: p256::ecdsa::Signature = key.sign(checkpoint.text().as_bytes());
        checkpoint.signed(&AuditKey::from_spki(spki.as_bytes()).unwrap(), &signature.to_bytes().into()).unwrap()
    }

    #[test]
    fn what_is_known_of_a_peer_moves_on_with_what_it_proves() {
        let book = Book::default();
        assert!(book.known(&party()).is_empty());
        let (first, second) = (shown("log", 5, 1), shown("log", 9, 2));
        book.proven(&party(), &[], &first).unwrap();
        book.proven(&party(), &book.known(&party()), &second).unwrap();
        assert_eq!(book.known(&party()), [second.checkpoint().clone()]);
    }

    #[test]
    fn what_sessions_side_by_side_have_seen_must_both_be_proven_next() {
        let book = Book::default();
        let [base, one, other, next] = [(3, 1), (5, 2), (9, 3), (12, 4)].map(|(size, root)| shown("log", size, root));
        book.proven(&party(), &[], &base).unwrap();
        let asked = book.known(&party());
        book.proven(&party(), &asked, &one).unwrap();
        book.proven(&party(), &asked, &other).unwrap();
        let both = book.known(&party());
        assert_eq!(both, [other.checkpoint().clone(), one.checkpoint().clone()]);
        // The earlier of the two, seen by a session that asked before: it takes nothing back.
        book.proven(&party(), &asked, &one).unwrap();
        assert_eq!(book.known(&party()), both);
        book.proven(&party(), &both, &next).unwrap();
        assert_eq!(book.known(&party()), [next.checkpoint().clone()]);
    }

    #[test]
    fn of_many_sessions_side_by_side_the_one_between_is_asked_for_too() {
        let book = Book::default();
        book.proven(&party(), &[], &shown("log", 3, 1)).unwrap();
        let asked = book.known(&party());
        for (size, root) in [(5, 2), (9, 3), (7, 4), (20, 5), (6, 6)] {
            book.proven(&party(), &asked, &shown("log", size, root)).unwrap();
        }
        let sizes = |book: &Book| book.known(&party()).iter().map(|known| known.size).collect::<Vec<_>>();
        assert_eq!(sizes(&book), [20, 5, 6, 7, 9]);
        // Another root at the size of any of them is a fork.
        let forked = book.proven(&party(), &asked, &shown("log", 7, 9)).unwrap_err();
        assert!(matches!(forked, Unbelieved::Doubt(Doubt::Forked { from: 7, .. })), "{forked}");
        // Whoever was asked for some of them leaves the others to be asked for.
        let some = book.known(&party()).into_iter().filter(|known| known.size != 7).collect::<Vec<_>>();
        book.proven(&party(), &some, &shown("log", 30, 8)).unwrap();
        assert_eq!(sizes(&book), [30, 7]);
    }

    #[test]
    fn more_sessions_side_by_side_than_can_be_asked_for_are_refused_and_nothing_is_forgotten() {
        let book = Book::default();
        book.proven(&party(), &[], &shown("log", 1, 1)).unwrap();
        let asked = book.known(&party());
        let most = u64::try_from(MAX_WITNESSED).unwrap();
        (0..most).for_each(|n| book.proven(&party(), &asked, &shown("log", 10 + n, 1)).unwrap());
        let full = book.known(&party());
        assert_eq!(full.len(), MAX_WITNESSED);
        for size in [5, 10 + most] {
            let refused = book.proven(&party(), &asked, &shown("log", size, 1)).unwrap_err();
            assert_eq!(refused, Unbelieved::TooManyAtOnce);
            assert_eq!(book.known(&party()), full);
        }
        assert!(book.refusals().is_empty(), "the peer has done nothing wrong");
        book.proven(&party(), &full, &shown("log", 100, 1)).unwrap();
        assert_eq!(book.known(&party()).len(), 1);
    }

    #[test]
    fn what_stood_side_by_side_is_asked_for_after_a_restart() {
        let book = Book::default();
        let [newest, earlier] = [shown("log", 9, 1), shown("log", 5, 2)].map(|signed| signed.checkpoint().clone());
        let row = PeerRow { party: party(), checkpoint: newest.clone(), note: String::new(), at: String::new() };
        book.fill(vec![row], BTreeMap::from([(party(), vec![earlier.clone()])]), Vec::new());
        assert_eq!(book.known(&party()), [newest, earlier]);
    }

    #[test]
    fn two_roots_for_one_size_or_two_logs_at_once_are_refused() {
        let book = Book::default();
        book.proven(&party(), &[], &shown("log", 5, 1)).unwrap();
        assert!(matches!(
            book.proven(&party(), &[], &shown("log", 5, 2)),
            Err(Unbelieved::Doubt(Doubt::Forked { from: 5, .. }))
        ));
        assert!(matches!(
            book.proven(&party(), &[], &shown("new", 5, 1)),
            Err(Unbelieved::Doubt(Doubt::AnotherLog { .. }))
        ));
        book.proven(&party(), &[], &shown("log", 5, 1)).unwrap();
    }

    #[test]
    fn a_doubt_in_the_own_log_is_shown_until_that_peer_has_none() {
        let book = Book::default();
        let [one, other]: [PartyId; 2] = ["party-2", "party-3"].map(|party| party.parse().unwrap());
        let says = |party: &PartyId, doubt: Option<&str>| {
            book.heard(&BTreeMap::from([(party.clone(), doubt.map(str::to_owned))]));
            book.own_doubts()
        };
        assert!(says(&one, None).is_empty());
        let first = says(&one, Some("it has seen 9 leaves"));
        assert!(first.len() == 1 && first[0].contains("it has seen 9 leaves"), "{first:?}");
        assert_eq!(says(&other, None), first, "another peer takes it not back");
        assert_eq!(says(&one, Some("it has seen 9 leaves")), first, "since the first time");
        assert!(says(&one, None).is_empty());
    }

    #[test]
    fn a_refusal_stands_from_the_first_until_a_good_checkpoint_or_an_acceptance() {
        let book = Book::default();
        let refuse = |why: &str| book.refused(&party(), Code::PeerLogRefused, why.into());
        refuse("first");
        let since = book.refusals()[0].1.since.clone();
        refuse("second");
        let expected = Refusal { code: Code::PeerLogRefused, why: "second".into(), since };
        assert_eq!(book.refusals(), [(party(), expected)]);
        book.proven(&party(), &[], &shown("log", 5, 1)).unwrap();
        assert!(book.refusals().is_empty());
        refuse("again");
        book.accepted(&party(), shown("new", 2, 2).checkpoint().clone());
        assert!(book.refusals().is_empty());
        assert_eq!(book.known(&party()), [shown("new", 2, 2).checkpoint().clone()]);
    }
}
