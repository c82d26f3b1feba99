//! Run: the protocol itself.

mod auxiliary;
mod keygen;
mod pending;
mod rotate;
mod sign;

use std::sync::Arc;

use casemate_wire::{Code, EcdsaSignature, KeyCertificate, Succession, Threshold};
use tokio::time::timeout;

use super::join::Case;
use super::unseal::{Opened, Work};
use crate::daemon::Node;
use crate::session::{Failure, Stream};
use crate::store::CommitteeRow;

/// A session that has ended and is not recorded yet: nothing of it may be released.
pub(super) struct Finished {
    pub(super) case: Case,
    pub(super) stream: Option<Stream>,
    pub(super) end: End,
}

/// How a session ended here.
#[derive(Clone)]
pub(super) enum End {
    KeyMade(Box<KeyMade>),
    Signed(Signed),
    Rotated(Box<Rotated>),
    Failed(Failure),
    Expired(Failure),
}

/// A key that all parties have confirmed.
#[derive(Clone)]
pub(super) struct KeyMade {
    /// The share that lies pending in the store.
    pub(super) share_id: String,
    pub(super) certificate: KeyCertificate,
    /// The committee's auxiliary info, if it was made in this session.
    pub(super) committee: Option<CommitteeRow>,
    /// How many parties sign with the key, of how many.
    pub(super) threshold: Threshold,
}

/// A key that has moved on to another epoch.
#[derive(Clone)]
pub(super) struct Rotated {
    /// The new share that lies pending in the store; a party that leaves has none.
    pub(super) share_id: Option<String>,
    pub(super) succession: Succession,
    /// The new committee's auxiliary info, if it was made in this session.
    pub(super) committee: Option<CommitteeRow>,
    /// The new t of n.
    pub(super) threshold: Threshold,
}

/// A signature that verifies.
#[derive(Clone)]
pub(super) struct Signed {
    pub(super) share_id: String,
    pub(super) signature: EcdsaSignature,
}

/// Runs the protocol to its end, within the session's time.
pub(super) async fn run(node: &Arc<Node>, opened: Opened) -> Finished {
    let Opened { case, mut link, work } = opened;
    let limit = node.config.limits.session_ttl();
    let session = case.row.session_id.clone();
    let protocol = async {
        match work {
            Work::Keygen => keygen::run(node, &mut link, session).await.map(End::KeyMade),
            Work::Sign { share, share_id, path } => {
                sign::run(node, &mut link, share, share_id, path).await.map(End::Signed)
            }
            Work::Rotate { act, share } => rotate::run(node, &mut link, &act, share, session).await.map(End::Rotated),
        }
    };
    let end = match timeout(limit, protocol).await {
        Ok(Ok(end)) => end,
        Ok(Err(failure)) => End::Failed(failure),
        Err(_) => End::Failed(too_long(node)),
    };
    case.end(Some(link.into_stream()), end)
}

/// Why a session is ended that did not end by itself.
pub(super) fn too_long(node: &Node) -> Failure {
    let limit = node.config.limits.session_ttl;
    Failure::new(Code::Timeout, format!("the session took longer than limits.session_ttl ({limit} s)"))
}

fn internal(error: &dyn std::error::Error) -> Failure {
    Failure::new(Code::Internal, error.to_string())
}
