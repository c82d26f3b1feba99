//! A new share, durable before this party says so: pending until all parties have.

use casemate_attest::life::ShareState;
use casemate_attest::{Entry, Op};
use casemate_wire::{KeyStatement, SessionId};

use super::super::share::KeyShare;
use super::super::share::ShareHeader;
use super::internal;
use crate::daemon::Node;
use crate::sealing;
use crate::session::Failure;
use crate::store::{Material, ShareRow, Urgency};

/// Seals and stores the share.
pub(super) async fn store(
    node: &Node,
    header: &ShareHeader,
    share: &KeyShare,
    statement: &KeyStatement,
    session_id: SessionId,
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
            let change = row.insert(transaction)?;
            transaction.append(Entry::admin(Op::Share).guarding(vec![change])).map(|_| ())
        })
        .await?;
    Ok(())
}
