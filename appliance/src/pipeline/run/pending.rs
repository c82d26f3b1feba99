//! A new share, durable before this party says so: pending until all parties have.

use casemate_attest::life::ShareState;
use casemate_attest::{Entry, Op};
use casemate_wire::{KeyStatement, PublicKey, SessionId};
use rusqlite::Connection;

use super::super::share::KeyShare;
use super::super::share::ShareHeader;
use super::internal;
use crate::daemon::Node;
use crate::sealing;
use crate::session::Failure;
use crate::store::{Material, ShareRow, StoreError, Urgency, newest_epoch};

/// The share that a new one follows at this party, by its id.
pub(super) enum Followed {
    /// Of the epoch that is dealt from: nothing else may have taken its place.
    Dealt(String),
    /// Of an earlier epoch: it may step back meanwhile, and must not be withdrawn.
    Stale(String),
}

/// Seals and stores the share; `followed` is the one that it follows at this party.
pub(super) async fn store(
    node: &Node,
    header: &ShareHeader,
    share: &KeyShare,
    statement: &KeyStatement,
    session_id: SessionId,
    followed: Option<Followed>,
) -> Result<(), Failure> {
    // Before it can be found, so that whoever withdraws it finds this session too.
    node.sessions.makes(&session_id, header.key.public_key);
    let plain = share.to_bytes().map_err(|e| internal(&e))?;
    let row = ShareRow {
        id: header.share_id.clone(),
        public_key: header.key.public_key,
        session_id,
        share_type: header.share_type,
        status: ShareState::Pending,
        material: Material::Held(sealing::seal(&node.hsm, header, &plain).await?),
        statement: statement.clone(),
        certificate: None,
        endorsements: Vec::new(),
        created_at: crate::now_text(),
        last_used_at: None,
    };
    node.store
        .write(Urgency::Record, move |transaction| {
            if let Some(why) = overtaken(transaction.sql(), (&row.public_key, row.statement.epoch), followed.as_ref())?
            {
                return Ok(Err(why));
            }
            let change = row.insert(transaction)?;
            transaction.append(Entry::admin(Op::Share).guarding(vec![change]))?;
            Ok(Ok(()))
        })
        .await?
        .map_err(Failure::overtaken)
}

/// Why a share that was made must not be kept: since the session began, a later rotation of the key was begun here, or the share
/// that it follows was withdrawn or superseded.
pub(super) fn overtaken(
    store: &Connection,
    (key, epoch): (&PublicKey, u64),
    followed: Option<&Followed>,
) -> Result<Option<&'static str>, StoreError> {
    if newest_epoch(store, key)? > epoch {
        return Ok(Some("another rotation of the key was begun while this one ran"));
    }
    let gone = match followed {
        None => false,
        Some(Followed::Dealt(share)) => {
            let signs = |row: ShareRow| matches!(row.status, ShareState::Active | ShareState::Restored);
            !ShareRow::find(store, share)?.is_some_and(signs)
        }
        Some(Followed::Stale(share)) => {
            ShareRow::find(store, share)?.is_none_or(|row| row.status == ShareState::Revoked)
        }
    };
    Ok(gone.then_some("the share that is rotated was withdrawn or superseded while the session ran"))
}
