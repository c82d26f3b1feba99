//! What is asked, by whom, and whether it was asked before.

use std::sync::Arc;
use std::time::Duration;

use casemate_attest::{Op, Origin, Text};
use casemate_wire::api::{Approval, KeygenRequest, RotationRequest, SessionView, SigningRequest};
use casemate_wire::{Code, Digest32, PartyId, Problem, PublicKey, SessionId, SessionType};

use super::receipt;
use crate::clients::Client;
use crate::daemon::Node;
use crate::session::{NoPlace, Place};
use crate::store::{SessionRow, StoreError};

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The configured client behind the certificate.
    pub client: Client,
    /// The id of the request, as its answer carries it.
    pub request_id: String,
}

/// A participate call with a well-formed body.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Make a key.
    Keygen(KeygenRequest),
    /// Sign a message hash.
    Sign(Box<SigningRequest>),
    /// Give a key new shares.
    Rotate(RotationRequest),
}

impl Ask {
    /// The session.
    pub fn session_id(&self) -> &SessionId {
        match self {
            Self::Keygen(request) => &request.session_id,
            Self::Sign(request) => &request.session_id,
            Self::Rotate(request) => &request.session_id,
        }
    }

    /// What the session is for.
    pub fn session_type(&self) -> SessionType {
        match self {
            Self::Keygen(_) => SessionType::Keygen,
            Self::Sign(_) => SessionType::Sign,
            Self::Rotate(_) => SessionType::Rotate,
        }
    }

    /// The key that it is asked to use; a new one has no name yet.
    pub(super) fn key(&self) -> Option<PublicKey> {
        match self {
            Self::Keygen(_) => None,
            Self::Sign(request) => Some(request.key),
            Self::Rotate(request) => Some(request.key),
        }
    }

    pub(super) fn party_id(&self) -> &PartyId {
        match self {
            Self::Keygen(request) => &request.party_id,
            Self::Sign(request) => &request.party_id,
            Self::Rotate(request) => &request.party_id,
        }
    }

    pub(super) fn join_token(&self) -> &str {
        match self {
            Self::Keygen(request) => &request.join_token,
            Self::Sign(request) => &request.join_token,
            Self::Rotate(request) => &request.join_token,
        }
    }

    pub(super) fn approvals(&self) -> &[Approval] {
        match self {
            Self::Keygen(request) => &request.approvals,
            Self::Sign(request) => &request.approvals,
            Self::Rotate(request) => &request.approvals,
        }
    }

    pub(super) fn op(&self) -> Op {
        match self {
            Self::Keygen(_) => Op::Keygen,
            Self::Sign(_) => Op::Sign,
            Self::Rotate(_) => Op::Rotate,
        }
    }

    pub(super) fn origin(&self, caller: &Caller) -> Origin {
        Origin {
            req: Text::fitted(&caller.request_id),
            actor: Text::fitted(caller.client.name()),
            session: Some(self.session_id().clone()),
        }
    }

    /// SHA-256 over the request's fields, however its body spelled them.
    pub(super) fn digest(&self) -> Digest32 {
        let bytes = match self {
            Self::Keygen(request) => serde_json::to_vec(request),
            Self::Sign(request) => serde_json::to_vec(request),
            Self::Rotate(request) => serde_json::to_vec(request),
        };
        crate::digest(&bytes.unwrap_or_default())
    }
}

/// Whether a call starts something.
pub(super) enum Admission {
    /// The session is known: this is the answer.
    Known(Box<Result<SessionView, Problem>>),
    /// It is not, and this call alone holds its place until it is settled.
    New(Box<Ask>, Place),
}

/// Looks whether the session exists. Of equal calls at the same moment one goes on; the others wait for what it settles.
pub(super) async fn admit(node: &Arc<Node>, ask: Ask) -> Result<Admission, Problem> {
    const PAUSE: Duration = Duration::from_millis(10);
    const TRIES: u32 = 1000;
    for _ in 0..TRIES {
        let place = node.sessions.enter(ask.session_id(), ask.key());
        let session = ask.session_id().clone();
        let row = node.store.read_anchored(move |store| SessionRow::find(store, &session)).await;
        match (row.map_err(|e| unavailable(&e))?, place) {
            (Some(row), place) => {
                // Nothing is begun, so no place is taken up while the answer is made.
                drop(place);
                return Ok(Admission::Known(Box::new(known(node, &row, &ask).await)));
            }
            (None, Ok(place)) => return Ok(Admission::New(Box::new(ask), place)),
            (None, Err(NoPlace::Full(problem))) => return Err(problem),
            (None, Err(NoPlace::Taken)) => tokio::time::sleep(PAUSE).await,
        }
    }
    Err(Problem::new(Code::Overloaded, "another call has been setting this session up for a long time; ask again"))
}

/// The answer to a call whose session exists.
async fn known(node: &Node, row: &SessionRow, ask: &Ask) -> Result<SessionView, Problem> {
    if row.session_type != ask.session_type() || row.body_digest != ask.digest() {
        let detail = format!("session {} was convened with another body; use a new session id", row.session_id);
        return Err(Problem::new(Code::SessionConflict, detail));
    }
    match &row.error {
        Some(problem) if row.refused => Err(receipt::fulfil(node, Some(&row.session_id), problem.clone()).await),
        _ => Ok(row.view(node.sessions.round(&row.session_id))),
    }
}

/// Why nothing can be recorded, or read of what is recorded, as it is answered.
pub(crate) fn unavailable(error: &StoreError) -> Problem {
    let code = match error {
        StoreError::Quarantined(_) => Code::EvidenceRefused,
        _ => Code::AuditUnavailable,
    };
    Problem::new(code, error.to_string())
}
