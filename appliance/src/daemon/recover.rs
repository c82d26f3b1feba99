//! Start-up after whatever happened: verify the log, record the start, fail what was cut off.

use std::sync::Arc;

use casemate_attest::{Entry, IntentRef, Line, Outcome, Text, Verifier};
use casemate_wire::api::SessionStatus;
use casemate_wire::{Code, Problem};
use jiff::Timestamp;
use rusqlite::Connection;

use super::{DaemonError, Node};
use crate::policy_slot::{self, ReloadError};
use crate::store::{SessionRow, Store, StoreError, Urgency, audit_lines, load_spending};

/// Lines that are read at a time.
const CHUNK: u64 = 1000;

/// Verifies the whole audit log and that the clock is not behind it, records the boot, ends sessions that a crash cut off, counts what was spent, and loads the
/// policy.
pub(super) async fn recover(node: &Arc<Node>) -> Result<(), DaemonError> {
    let newest = node.store.read(verify).await?;
    node.clock.compare_with_record(newest, &node.config.data_dir.join("clock-accepted"));
    let cut_off = interrupt_sessions(&node.store, Entry::boot()).await?;
    if cut_off > 0 {
        tracing::warn!(event = "sessions_interrupted", count = cut_off, "sessions in flight were failed");
    }
    let spent = node.store.read(load_spending).await?;
    node.till.fill(spent).map_err(|error| StoreError::corrupt("what was spent")(error.to_string()))?;
    match policy_slot::reload(node, None).await {
        // Without a bundle the daemon serves and denies; health says why.
        Ok(_) | Err(ReloadError::Refused { .. }) => Ok(()),
        Err(ReloadError::Store(error)) => Err(error.into()),
    }
}

/// Appends `first`, then an `interrupted` outcome for every session without an end; says how many there were.
pub(super) async fn interrupt_sessions(store: &Store, first: Entry) -> Result<usize, StoreError> {
    store
        .write(Urgency::Record, move |transaction| {
            let rows = SessionRow::unfinished(transaction.sql())?;
            let intents = open_intents(transaction.sql(), &rows)?;
            transaction.append(first)?;
            let count = rows.len();
            for (mut row, intent) in rows.into_iter().zip(intents) {
                let detail = "the daemon stopped while the session ran; convene it again under a new id";
                row.status = SessionStatus::Failed;
                row.error = Some(Problem::new(Code::Interrupted, detail));
                row.completed_at = Some(crate::now_text());
                row.update(transaction)?;
                let outcome = Outcome::failed(Text::fitted(Code::Interrupted.as_str()), Text::fitted(detail));
                let change = crate::pipeline::session_guard(&row.session_id, row.status);
                transaction.append(Entry::outcome(intent, outcome).guarding(vec![change]))?;
            }
            Ok(count)
        })
        .await
}

fn open_intents(connection: &Connection, rows: &[SessionRow]) -> Result<Vec<IntentRef>, StoreError> {
    rows.iter().map(|row| intent_of(connection, row)).collect()
}

/// The intent of a session, from the log itself.
pub(crate) fn intent_of(connection: &Connection, row: &SessionRow) -> Result<IntentRef, StoreError> {
    let missing = || StoreError::Audit(format!("session {} has no intent in the log", row.session_id));
    let seq = row.intent.ok_or_else(missing)?;
    let line = audit_lines(connection, seq, 1)?.pop().ok_or_else(missing)?;
    let intent = Line::read(line.as_bytes()).ok().and_then(|line| line.intent()).ok_or_else(missing)?;
    if intent.session() == Some(&row.session_id) { Ok(intent) } else { Err(missing()) }
}

/// Verifies the log, and says when its last entry was written.
fn verify(connection: &Connection) -> Result<Timestamp, StoreError> {
    let mut verifier = Verifier::new();
    let mut next = 0;
    let mut latest = Timestamp::UNIX_EPOCH;
    loop {
        let lines = audit_lines(connection, next, CHUNK)?;
        for line in &lines {
            let leaf = verifier.feed(line.as_bytes()).map_err(|fault| StoreError::Audit(fault.to_string()))?;
            latest = latest.max(leaf.at.timestamp());
        }
        let read = u64::try_from(lines.len()).unwrap_or(0);
        if read < CHUNK {
            break;
        }
        next += read;
    }
    let report = verifier.finish().map_err(|fault| StoreError::Audit(fault.to_string()))?;
    // Lines in good order under other row numbers would be out of order once more are written.
    let failed = StoreError::sqlite("read the audit log");
    let last: i64 = connection.query_row("SELECT max(seq) FROM leaves", [], |row| row.get(0)).map_err(failed)?;
    if u64::try_from(last).is_ok_and(|last| last.checked_add(1) == Some(report.size)) {
        return Ok(latest);
    }
    Err(StoreError::Audit(format!("its last row is numbered {last}, but it has {} leaves", report.size)))
}
