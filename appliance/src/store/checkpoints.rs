//! The checkpoints that were signed of the own log. What was signed once binds whatever is signed later.

use casemate_attest::tree::root_at;
use casemate_attest::{AuditKey, Checkpoint, SignedCheckpoint};
use rusqlite::{Connection, OptionalExtension};

use super::evidence::TreeNodes;
use super::{StoreError, Transaction};

/// What may be done with the log as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(crate) enum Signable {
    /// It continues what was signed last.
    Yes,
    /// It is what was signed last.
    Signed(SignedCheckpoint),
    /// It does not continue what was signed last, so its root must never be signed.
    Never(String),
}

/// The newest checkpoint that was signed, whatever the log.
///
/// # Errors
/// What SQLite says; or that the stored note is not by `key`, the HSM's audit key.
pub(crate) fn newest_checkpoint(
    connection: &Connection,
    key: &AuditKey,
) -> Result<Option<SignedCheckpoint>, StoreError> {
    let note: Option<String> = connection
        .prepare_cached("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)).optional())
        .map_err(StoreError::sqlite("read its checkpoints"))?;
    let read = |note: String| SignedCheckpoint::verify(&note, key);
    let unusable = StoreError::corrupt("a signed checkpoint");
    note.map(read).transpose().map_err(|e| unusable(e.to_string()))
}

/// Whether `next`, where the log stands now, may be signed: never two roots for one size, never a log that does not begin
/// with what was signed before.
///
/// # Errors
/// What cannot be read.
pub(crate) fn signable(connection: &Connection, key: &AuditKey, next: &Checkpoint) -> Result<Signable, StoreError> {
    let Some(signed) = newest_checkpoint(connection, key)? else { return Ok(Signable::Yes) };
    let last = signed.checkpoint();
    // A signed recovery into another log takes the old one's checkpoints along into its archive.
    if last.log != next.log {
        return Ok(Signable::Never(format!("a checkpoint of {} was signed, but the log is {}", last.log, next.log)));
    }
    if last.size > next.size {
        let why = format!("a checkpoint of {} leaves was signed, but the log has {}", last.size, next.size);
        return Ok(Signable::Never(why));
    }
    if root_at(last.size, &TreeNodes(connection))? != last.root {
        let why =
            format!("the log does not begin with the {} leaves of the checkpoint that was signed last", last.size);
        return Ok(Signable::Never(why));
    }
    Ok(if last == next { Signable::Signed(signed) } else { Signable::Yes })
}

/// Keeps a checkpoint.
///
/// # Errors
/// What SQLite says; also that one of this size is there already.
pub(crate) fn put_checkpoint(transaction: &Transaction<'_>, signed: &SignedCheckpoint) -> Result<(), StoreError> {
    insert(transaction.sql(), signed)
}

fn insert(connection: &Connection, signed: &SignedCheckpoint) -> Result<(), StoreError> {
    let size = i64::try_from(signed.checkpoint().size).map_err(|_| StoreError::Audit("the log is full".into()))?;
    connection
        .prepare_cached("INSERT INTO checkpoints (size, note, at) VALUES (?1, ?2, ?3)")
        .and_then(|mut statement| statement.execute((size, signed.note(), crate::now_text())))
        .map(|_| ())
        .map_err(StoreError::sqlite("keep a checkpoint"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::{audit_key, grow, log, signed};
    use super::*;
    use casemate_attest::Head;

    fn judged(store: &Connection, head: &Head) -> Signable {
        signable(store, &audit_key(1).1, &Checkpoint::of(head)).unwrap()
    }

    fn never(store: &Connection, head: &Head, says: &str) {
        let verdict = judged(store, head);
        assert!(matches!(&verdict, Signable::Never(why) if why.contains(says)), "{says}: {verdict:?}");
    }

    #[test]
    fn a_log_that_only_grew_is_signed_and_once_at_each_size() {
        let (store, mut head) = log("log", 3);
        assert_eq!(judged(&store, &head), Signable::Yes);
        let first = signed(&head, 1);
        insert(&store, &first).unwrap();
        assert_eq!(judged(&store, &head), Signable::Signed(first));
        for leaves in [1, 2, 5, 9] {
            head = grow(&store, head, leaves);
            assert_eq!(judged(&store, &head), Signable::Yes);
            insert(&store, &signed(&head, 1)).unwrap();
        }
    }

    #[test]
    fn a_log_that_went_back_forked_or_was_replaced_is_never_signed() {
        let (longer, later) = log("log", 7);
        let (store, head) = log("log", 5);
        insert(&store, &signed(&later, 1)).unwrap();
        never(&store, &head, "7 leaves was signed, but the log has 5");
        let head = grow(&store, head, 2);
        never(&store, &head, "does not begin with the 7 leaves");
        let head = grow(&store, head, 1);
        never(&store, &head, "does not begin with the 7 leaves");
        let (other, head) = log("other", 9);
        insert(&other, &signed(&later, 1)).unwrap();
        never(&other, &head, "but the log is other");
        drop(longer);
    }

    #[test]
    fn one_size_is_kept_once() {
        let (store, head) = log("log", 3);
        insert(&store, &signed(&head, 1)).unwrap();
        let (_, fork) = log("log", 3);
        assert!(insert(&store, &signed(&fork, 1)).is_err());
    }

    #[test]
    fn a_note_by_another_key_is_not_what_this_hsm_signed() {
        let (store, head) = log("log", 3);
        insert(&store, &signed(&head, 2)).unwrap();
        assert!(matches!(newest_checkpoint(&store, &audit_key(1).1), Err(StoreError::Corrupt { .. })));
    }
}
