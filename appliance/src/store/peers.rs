//! The peers' last checkpoints, which the next session's must continue.

use casemate_attest::PeerCheckpoint;

use super::{StoreError, Transaction};

/// Keeps what a session's outcome says of its peers' logs. Sessions that run side by side end in any order, so only a larger
/// size or another log takes the place of what stands there, as [`casemate_attest::State::take`] has it.
pub(crate) fn put_peers(transaction: &Transaction<'_>, peers: &[PeerCheckpoint]) -> Result<(), StoreError> {
    let failed = StoreError::sqlite("keep a peer's checkpoint");
    for PeerCheckpoint { party, log, size, root, .. } in peers {
        let size = i64::try_from(*size).map_err(|_| StoreError::Audit(format!("the log of {party} is too large")))?;
        transaction
            .sql()
            .prepare_cached(
                "INSERT INTO peers (party, log, size, root, note, at) VALUES (?1, ?2, ?3, ?4, '', ?5)
                 ON CONFLICT (party) DO UPDATE SET log = excluded.log, size = excluded.size, root = excluded.root,
                 note = excluded.note, at = excluded.at WHERE log <> excluded.log OR size < excluded.size",
            )
            .and_then(|mut put| put.execute((party.as_str(), log.as_str(), size, root.to_string(), crate::now_text())))
            .map_err(&failed)?;
    }
    Ok(())
}
