//! What this process knows of each peer's log, and which peers are refused.
//!
//! It holds what the table `peers` holds, and a little more: what sessions that run now have verified but not recorded yet.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use casemate_attest::{Checkpoint, Doubt, ProofError, SignedCheckpoint};
use casemate_wire::{Code, PartyId, Problem};
use jiff::Timestamp;
use rusqlite::Connection;

use crate::store::{PeerRow, StoreError};

/// What is known of all peers.
#[derive(Debug, Default)]
pub struct Book(Mutex<BTreeMap<PartyId, Page>>);

/// What is known of one peer.
#[derive(Debug, Default)]
struct Page {
    /// The last checkpoint that was verified.
    newest: Option<Checkpoint>,
    /// One that another session verified at the same time: neither is proven to continue the other yet. The next session
    /// asks for both, so that a peer gains nothing by showing two histories side by side.
    beside: Option<Checkpoint>,
    refusal: Option<Refusal>,
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
    /// Takes up what the store holds, and which peers were refused before this start.
    pub(crate) fn fill(&self, known: Vec<PeerRow>, refused: Vec<(PartyId, Refusal)>) {
        let mut pages = self.lock();
        for PeerRow { party, checkpoint, .. } in known {
            pages.entry(party).or_default().newest = Some(checkpoint);
        }
        for (party, refusal) in refused {
            pages.entry(party).or_default().refusal = Some(refusal);
        }
    }

    /// What a peer must prove that its log continues: at most two checkpoints, none at first contact.
    pub(crate) fn known(&self, party: &PartyId) -> Vec<Checkpoint> {
        let pages = self.lock();
        let page = pages.get(party);
        page.into_iter().flat_map(|page| page.newest.iter().chain(&page.beside)).cloned().collect()
    }

    /// A peer has proven that its log continues `asked`, which was known when its hello was awaited.
    ///
    /// # Errors
    /// Another session has verified something else meanwhile that cannot be the same log.
    pub(crate) fn proven(&self, party: &PartyId, asked: &[Checkpoint], signed: &SignedCheckpoint) -> Result<(), Doubt> {
        let mut pages = self.lock();
        let page = pages.entry(party.clone()).or_default();
        let shown = signed.checkpoint();
        if let Some(newest) = page.newest.clone().filter(|newest| newest != shown && !asked.contains(newest)) {
            if newest.log != shown.log {
                return Err(Doubt::AnotherLog { known: newest.log, found: shown.log.clone() });
            }
            if newest.size == shown.size {
                return Err(Doubt::Forked { from: newest.size, why: ProofError::OtherRoot });
            }
            let (later, earlier) =
                if newest.size > shown.size { (newest, shown.clone()) } else { (shown.clone(), newest) };
            page.newest = Some(later);
            page.beside.get_or_insert(earlier);
        } else {
            page.newest = Some(shown.clone());
            if page.beside.as_ref().is_some_and(|beside| asked.contains(beside)) {
                page.beside = None;
            }
        }
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

    /// The peers that are refused now, and why.
    pub fn refusals(&self) -> Vec<(PartyId, Refusal)> {
        let pages = self.lock();
        pages.iter().filter_map(|(party, page)| Some((party.clone(), page.refusal.clone()?))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartyId, Page>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn two_roots_for_one_size_or_two_logs_at_once_are_refused() {
        let book = Book::default();
        book.proven(&party(), &[], &shown("log", 5, 1)).unwrap();
        assert!(matches!(book.proven(&party(), &[], &shown("log", 5, 2)), Err(Doubt::Forked { from: 5, .. })));
        assert!(matches!(book.proven(&party(), &[], &shown("new", 5, 1)), Err(Doubt::AnotherLog { .. })));
        book.proven(&party(), &[], &shown("log", 5, 1)).unwrap();
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
