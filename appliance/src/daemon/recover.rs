//! Start-up after whatever happened: record the start, fail what was cut off, count what was spent, load the policy.

use std::sync::Arc;
use std::time::Duration;

use casemate_attest::{At, Entry, IntentRef, Line, Outcome, Text};
use casemate_wire::api::SessionStatus;
use casemate_wire::{Code, Problem, SessionId};
use jiff::Timestamp;
use rusqlite::Connection;

use super::{DaemonError, Node};
use crate::checkpoints;
use crate::clock::Recorded;
use crate::pipeline::ShareHeader;
use crate::policy_slot::{self, ReloadError};
use crate::sealing;
use crate::store::{
    JOB_LEAVES, PeerRow, SessionRow, ShareRow, Store, StoreError, Transaction, Urgency, audit_lines, load_spending,
};
use crate::witness::{refused_before, side_by_side};

/// The pause between attempts to end a session that came to nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// Checks that the clock is not behind the audit log, records the boot, ends sessions that a crash cut off, counts what was
/// spent, and loads the policy. A store in quarantine is left as it is.
pub(super) async fn recover(node: &Arc<Node>) -> Result<(), DaemonError> {
    let accepted = node.config.data_dir.join("clock-accepted");
    let compare = |latest: At| node.clock.compare_with_record(latest.timestamp(), &accepted);
    let recorded = node.store.latest().map_or(Recorded::Fits, compare);
    if let Some(quarantine) = node.store.quarantine() {
        tracing::error!(
            event = "evidence_refused", verdict = node.store.verdict(),
            differences = ?quarantine.finding.differences, "{quarantine}"
        );
        return Ok(());
    }
    let cut_off = interrupt_sessions(&node.store, Entry::boot()).await?;
    if cut_off > 0 {
        tracing::warn!(event = "sessions_interrupted", count = cut_off, "sessions in flight were failed");
    }
    checkpoints::take_up(node).await?;
    let (known, refused, beside) = node
        .store
        .read(|store| {
            let known = PeerRow::all(store)?;
            let refused = refused_before(store, &known)?;
            let beside = side_by_side(store, &known)?;
            Ok((known, refused, beside))
        })
        .await?;
    node.witnesses.fill(known, beside, refused);
    let spent = node.store.read(load_spending).await?;
    node.till.fill(spent).map_err(|error| StoreError::corrupt("what was spent")(error.to_string()))?;
    inherit(node).await?;
    if let Some(recovered) = node.store.recovered() {
        tracing::warn!(event = "log_was_recovered", at = %recovered, "tokens from before are refused, and windows count as full until they have passed");
        node.till.fill_since(recovered.timestamp());
    }
    // At every start for which the acceptance is needed: nothing on this host tells how long the clock was wrong.
    if recorded == Recorded::Accepted {
        node.till.fill_from(Timestamp::now());
    }
    match policy_slot::reload(node, None).await {
        // Without a bundle the daemon serves and denies; health says why.
        Ok(_) | Err(ReloadError::Refused { .. }) => Ok(()),
        Err(ReloadError::Store(error)) => Err(error.into()),
    }
}

/// Counts what keys had spent before they came to this party.
async fn inherit(node: &Node) -> Result<(), StoreError> {
    for row in node.store.read(ShareRow::held).await? {
        let header: ShareHeader = sealing::header("share", row.material.header())
            .map_err(|e| StoreError::corrupt("a share")(e.to_string()))?;
        if let Some(joined) = &header.joined {
            node.till.inherit(header.key.public_key, joined);
        }
    }
    Ok(())
}

/// Appends `first`, then an `interrupted` outcome for every session without an end; says how many there were. No session may
/// run meanwhile.
pub(super) async fn interrupt_sessions(store: &Store, first: Entry) -> Result<usize, StoreError> {
    let detail = "the daemon stopped while the session ran; convene it again under a new id";
    store.write(Urgency::Record, move |transaction| transaction.append(first)).await?;
    let rows = store.read(SessionRow::unfinished).await?;
    let count = rows.len();
    let mut rows = rows.into_iter();
    loop {
        let chunk: Vec<SessionRow> = rows.by_ref().take(usize::try_from(JOB_LEAVES).unwrap_or(1)).collect();
        if chunk.is_empty() {
            return Ok(count);
        }
        store
            .write(Urgency::Record, move |transaction| {
                chunk.into_iter().try_for_each(|row| interrupt(transaction, row, detail))
            })
            .await?;
    }
}

/// Ends a session whose intent is durable, but of which nothing came: its anchor was not put in time. Its spend stays
/// counted, as after a crash. Tried until it is on record; the end of the daemon does the same for every session.
pub(crate) async fn give_up(node: Arc<Node>, session: SessionId) {
    let detail = "its intent could not be anchored in the HSM, so it was not begun; convene it again under a new id";
    loop {
        tokio::time::sleep(PAUSE).await;
        let wanted = session.clone();
        let ended =
            node.store.write(Urgency::Record, move |transaction| match SessionRow::find(transaction.sql(), &wanted)? {
                Some(row) if !row.status.is_final() => interrupt(transaction, row, detail),
                _ => Ok(()),
            });
        match ended.await {
            // It is durable, and whatever comes next is anchored after it.
            Ok(()) | Err(StoreError::Unanchored(_)) => {
                tracing::warn!(event = "session_given_up", %session, "{detail}");
                return;
            }
            Err(StoreError::Closed) => return,
            Err(error) => tracing::debug!(event = "session_not_ended", %session, %error),
        }
    }
}

/// Ends one session as interrupted, with its outcome leaf.
fn interrupt(transaction: &mut Transaction<'_>, mut row: SessionRow, detail: &str) -> Result<(), StoreError> {
    let intent = intent_of(transaction.sql(), &row)?;
    row.status = SessionStatus::Failed;
    row.error = Some(Problem::new(Code::Interrupted, detail));
    row.completed_at = Some(crate::now_text());
    row.update(transaction)?;
    let outcome = Outcome::failed(Text::fitted(Code::Interrupted.as_str()), Text::fitted(detail));
    let change = crate::pipeline::session_guard(&row.session_id, row.status);
    transaction.append(Entry::outcome(intent, outcome).guarding(vec![change])).map(|_| ())
}

/// The intent of a session, from the log itself.
pub(crate) fn intent_of(connection: &Connection, row: &SessionRow) -> Result<IntentRef, StoreError> {
    let missing = || StoreError::Audit(format!("session {} has no intent in the log", row.session_id));
    let seq = row.intent.ok_or_else(missing)?;
    let line = audit_lines(connection, seq, 1)?.pop().ok_or_else(missing)?;
    let intent = Line::read(line.as_bytes()).ok().and_then(|line| line.intent()).ok_or_else(missing)?;
    if intent.session() == Some(&row.session_id) { Ok(intent) } else { Err(missing()) }
}
