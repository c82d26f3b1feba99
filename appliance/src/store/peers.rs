//! The last checkpoint of each peer that this appliance has verified.

use casemate_attest::{Checkpoint, SignedCheckpoint};
use casemate_wire::PartyId;
use rusqlite::{Connection, OptionalExtension, Row};

use super::{StoreError, Transaction};

/// A peer's row. The log says the same in the `peers` of an outcome, or in an operator's acceptance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRow {
    /// The peer.
    pub party: PartyId,
    /// Where its log stood.
    pub checkpoint: Checkpoint,
    /// What its audit key signed.
    pub note: String,
    /// When it was stored, RFC 3339.
    pub at: String,
}

impl PeerRow {
    /// A row for what was verified just now.
    pub(crate) fn new(party: PartyId, signed: &SignedCheckpoint) -> Self {
        let (checkpoint, note) = (signed.checkpoint().clone(), signed.note().to_owned());
        Self { party, checkpoint, note, at: crate::now_text() }
    }

    /// All rows, by party.
    ///
    /// # Errors
    /// What SQLite says, or that a row cannot be read.
    pub fn all(connection: &Connection) -> Result<Vec<Self>, StoreError> {
        let failed = StoreError::sqlite("read the peers' checkpoints");
        let mut statement = connection
            .prepare_cached("SELECT party, log, size, root, note, at FROM peers ORDER BY party")
            .map_err(&failed)?;
        let rows = statement.query_map([], read).map_err(&failed)?;
        rows.map(|row| row.map_err(&failed)?).collect()
    }

    /// One peer's row.
    ///
    /// # Errors
    /// As [`PeerRow::all`].
    pub fn find(connection: &Connection, party: &PartyId) -> Result<Option<Self>, StoreError> {
        let failed = StoreError::sqlite("read a peer's checkpoint");
        connection
            .prepare_cached("SELECT party, log, size, root, note, at FROM peers WHERE party = ?1")
            .and_then(|mut statement| statement.query_row([party.as_str()], read).optional())
            .map_err(failed)?
            .transpose()
    }

    /// Keeps what a session has seen: only what is newer, of the same log, by the rule of [`casemate_attest::State::admit`].
    ///
    /// # Errors
    /// What SQLite says.
    pub(crate) fn advance(&self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        let known = Self::find(transaction.sql(), &self.party)?;
        let newer = known.is_none_or(|known| {
            known.checkpoint.log == self.checkpoint.log && known.checkpoint.size < self.checkpoint.size
        });
        if newer { self.replace(transaction) } else { Ok(()) }
    }

    /// Puts it in the place of whatever was known: an operator accepts it.
    ///
    /// # Errors
    /// What SQLite says.
    pub(crate) fn replace(&self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        let Self { party, checkpoint: Checkpoint { log, size, root }, note, at } = self;
        let size = i64::try_from(*size).map_err(|_| StoreError::Audit("a peer's log is too large".into()))?;
        let row = (party.as_str(), log.to_string(), size, root.to_string(), note, at);
        transaction
            .sql()
            .prepare_cached(
                "INSERT OR REPLACE INTO peers (party, log, size, root, note, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )
            .and_then(|mut statement| statement.execute(row))
            .map(|_| ())
            .map_err(StoreError::sqlite("keep a peer's checkpoint"))
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Result<PeerRow, StoreError>> {
    let (party, log, size, root): (String, String, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
    let (note, at) = (row.get(4)?, row.get(5)?);
    let read = || {
        Some(PeerRow {
            party: party.parse().ok()?,
            checkpoint: Checkpoint { log: log.parse().ok()?, size: size.try_into().ok()?, root: root.parse().ok()? },
            note,
            at,
        })
    };
    let unreadable = || StoreError::corrupt("a peer's checkpoint")(format!("the row of {party:?} is not of its form"));
    Ok(read().ok_or_else(unreadable))
}
