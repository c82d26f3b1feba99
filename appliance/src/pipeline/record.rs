//! Record: the audit outcome and everything that changes with it, durable in one transaction, before anything is
//! released.

use std::sync::Arc;
use std::time::Duration;

use casemate_attest::life::ShareState;
use casemate_attest::{Entry, Guard, GuardChange, Outcome as Logged, PeerCheckpoint};
use casemate_wire::api::SessionStatus;
use casemate_wire::frame::{Frame, Outcome};
use casemate_wire::{Code, Problem, Succession};
use rusqlite::Connection;

use super::join::{Case, Reach};
use super::refused::guard;
use super::run::{End, Finished, KeyMade, Rotated};
use crate::daemon::{Node, intent_of};
use crate::session::{Failure, Stream};
use crate::store::{
    CommitteeRow, PeerRow, SessionRow, ShareRow, StoreError, Transaction, Urgency, release_spending, was_released,
};
use crate::witness::Seen;

/// A session whose outcome is durable, or that ends without one because it could not be recorded. Only [`record`] makes
/// one, and only it can be answered.
pub(super) struct Recorded {
    pub(super) stream: Option<Stream>,
    pub(super) outcome: Outcome,
    /// Keeps the session in the registry until it is answered.
    case: Case,
}

/// The waits between attempts to record: half a minute in all.
const RETRIES: [Duration; 7] = [
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(6),
    Duration::from_secs(8),
    Duration::from_secs(12),
];

/// Makes the outcome durable. A result that cannot be recorded is not released.
pub(super) async fn record(node: &Arc<Node>, finished: Finished) -> Recorded {
    let Finished { case, stream, mut end } = finished;
    let mut row = settled(&case.row, &end);
    let mut pauses = RETRIES.into_iter();
    let written = loop {
        match write(node, &case, &row, &end).await {
            Ok(Written::Durable { size }) => break Ok(size),
            Ok(Written::Withdrawn) => {
                end = End::Failed(Failure::withdrawn());
                row = settled(&case.row, &end);
            }
            Err(StoreError::Outdated(why)) => {
                end = End::Failed(Failure::overtaken(&why));
                row = settled(&case.row, &end);
            }
            Err(error) => {
                let Some(pause) = pauses.next() else { break Err(error) };
                tracing::error!(event = "outcome_not_recorded", session = %row.session_id, %error, "trying again");
                tokio::time::sleep(pause).await;
            }
        }
    };
    let outcome = match written {
        Ok(size) => {
            node.checkpoints.cover(size).await;
            node.metrics.session_ended(&row, case.begun.elapsed());
            report(&row);
            to_outcome(&end)
        }
        Err(error) => {
            let detail = format!("the outcome could not be recorded, so it is withheld: {error}");
            Outcome::Failed { problem: Problem::new(Code::AuditUnavailable, detail) }
        }
    };
    Recorded { stream, outcome, case }
}

/// What came of writing an outcome.
enum Written {
    /// It is durable; the log has so many leaves then.
    Durable { size: u64 },
    /// Nothing was written: the share was withdrawn meanwhile, so that no good end may be recorded any more.
    Withdrawn,
}

async fn write(node: &Node, case: &Case, row: &SessionRow, end: &End) -> Result<Written, StoreError> {
    let (row, end, seen) = (row.clone(), end.clone(), case.seen.clone());
    let session = row.session_id.clone();
    let reach = case.reach;
    let released = node
        .store
        .write(Urgency::Record, move |transaction| {
            // An earlier attempt may have become durable without its anchor, and its caller was told so.
            if row.has_ended_so(transaction.sql())? {
                return was_released(transaction.sql(), &row.session_id).map(Some);
            }
            if is_withdrawn(transaction.sql(), &end)? {
                return Ok(None);
            }
            let intent = intent_of(transaction.sql(), &row)?;
            let mut guards = vec![guard(Guard::Session, row.session_id.as_str(), row.status.as_str())];
            let entry = match &end {
                End::KeyMade(made) => {
                    guards.extend(activate(transaction, made)?);
                    Entry::key_made(intent, made.certificate.statement.public_key, made.threshold)
                }
                End::Signed(signed) => {
                    let at = row.completed_at.as_deref().unwrap_or_default();
                    ShareRow::touch(transaction, &signed.share_id, at)?;
                    Entry::outcome(intent, Logged::signed(signed.signature))
                }
                End::Rotated(rotated) => {
                    guards.extend(switch(transaction, rotated)?);
                    let statement = &rotated.succession.certificate.statement;
                    Entry::rotated(intent, rotated.threshold, statement.epoch)
                }
                End::Failed(failure) | End::Expired(failure) => Entry::outcome(intent, failure.to_outcome()),
            };
            row.update(transaction)?;
            // Until the share is opened nothing can have left that makes a signature.
            let released = reach == Reach::Unopened && release_spending(transaction, &row.session_id)?;
            if released {
                guards.push(guard(Guard::Spend, row.session_id.as_str(), "released"));
            }
            let peers = keep(transaction, &seen)?;
            transaction.append(entry.guarding(guards).witnessing(peers))?;
            Ok(Some(released))
        })
        .await?;
    let Some(released) = released else { return Ok(Written::Withdrawn) };
    if released {
        node.till.release(&session);
    }
    // What a checkpoint must cover; it may be a little more.
    Ok(Written::Durable { size: node.store.audit_head().size() })
}

/// Whether the share that a session used or made was withdrawn before its good end became durable.
fn is_withdrawn(store: &Connection, end: &End) -> Result<bool, StoreError> {
    let share = match end {
        End::KeyMade(made) => Some(&made.share_id),
        End::Signed(signed) => Some(&signed.share_id),
        End::Rotated(rotated) => rotated.share_id.as_ref(),
        End::Failed(_) | End::Expired(_) => None,
    };
    let Some(share) = share else { return Ok(false) };
    Ok(ShareRow::find(store, share)?.is_some_and(|row| row.status == ShareState::Revoked))
}

/// Keeps the peers' checkpoints, and says which of them the leaf holds. Where an operator has accepted another log of a peer
/// while the session ran, what it saw of the old one does not undo that.
fn keep(transaction: &Transaction<'_>, seen: &[Seen]) -> Result<Vec<PeerCheckpoint>, StoreError> {
    let mut logged = Vec::with_capacity(seen.len());
    for one in seen {
        let (row, peer) = (one.to_row(), one.to_logged());
        let known = PeerRow::find(transaction.sql(), &peer.party)?;
        if known.is_none_or(|known| known.checkpoint.log == peer.log) {
            row.advance(transaction)?;
            logged.push(peer);
        }
    }
    Ok(logged)
}

fn to_outcome(end: &End) -> Outcome {
    match end {
        End::KeyMade(made) => {
            Outcome::Keygen { public_key: made.certificate.statement.public_key, certificate: made.certificate.clone() }
        }
        End::Signed(signed) => Outcome::Sign { signature: signed.signature },
        End::Rotated(rotated) => Outcome::Rotate { succession: Box::new(rotated.succession.clone()) },
        End::Failed(failure) | End::Expired(failure) => Outcome::Failed { problem: failure.to_problem() },
    }
}

fn settled(row: &SessionRow, end: &End) -> SessionRow {
    let mut row = SessionRow { completed_at: Some(crate::now_text()), ..row.clone() };
    match end {
        End::KeyMade(made) => {
            row.status = SessionStatus::Completed;
            row.result.public_key = Some(made.certificate.statement.public_key);
            row.result.certificate = Some(made.certificate.clone());
        }
        End::Signed(signed) => {
            row.status = SessionStatus::Completed;
            row.result.signature = Some(signed.signature);
        }
        End::Rotated(rotated) => {
            row.status = SessionStatus::Completed;
            row.result.certificate = Some(rotated.succession.certificate.clone());
        }
        End::Failed(failure) => {
            row.status = SessionStatus::Failed;
            row.error = Some(failure.to_problem());
        }
        End::Expired(failure) => {
            row.status = SessionStatus::Expired;
            row.error = Some(failure.to_problem());
        }
    }
    row
}

fn activate(transaction: &Transaction<'_>, made: &KeyMade) -> Result<Vec<GuardChange>, StoreError> {
    let mut guards = ShareRow::confirm(transaction, &made.share_id, &made.certificate, &[])?;
    guards.extend(made.committee.as_ref().map(|committee| auxiliary(transaction, committee)).transpose()?);
    Ok(guards)
}

/// The new share takes the old one's place; a party that leaves signs no more.
fn switch(transaction: &Transaction<'_>, rotated: &Rotated) -> Result<Vec<GuardChange>, StoreError> {
    let Succession { certificate, endorsements } = &rotated.succession;
    let mut guards = match &rotated.share_id {
        Some(share) => ShareRow::confirm(transaction, share, certificate, endorsements)?,
        None => ShareRow::supersede(transaction, &certificate.statement.public_key, certificate.statement.epoch)?,
    };
    guards.extend(rotated.committee.as_ref().map(|committee| auxiliary(transaction, committee)).transpose()?);
    Ok(guards)
}

fn auxiliary(transaction: &Transaction<'_>, committee: &CommitteeRow) -> Result<GuardChange, StoreError> {
    committee.put(transaction)?;
    Ok(guard(Guard::AuxInfo, &committee.roster.to_string(), &committee.aux_digest.to_string()))
}

fn report(row: &SessionRow) {
    let (session, kind) = (&row.session_id, row.session_type);
    match &row.error {
        None => tracing::info!(event = "session_completed", %session, %kind),
        Some(problem) => {
            tracing::warn!(event = "session_failed", %session, %kind, code = %problem.code, "{}", problem.detail);
        }
    }
}

impl Recorded {
    /// What goes out on the stream.
    pub(super) fn into_parts(self) -> (Option<Stream>, Frame, Case) {
        (self.stream, Frame::Outcome(Box::new(self.outcome)), self.case)
    }
}
