//! What is asked, by whom, and whether it was asked before.

use std::sync::Arc;

use casemate_attest::{Op, Origin, Text};
use casemate_wire::api::{KeygenRequest, SessionView, SigningRequest};
use casemate_wire::{Code, Digest32, PartyId, Problem, SessionId, SessionType};

use crate::clients::Client;
use crate::daemon::Node;
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
}

impl Ask {
    /// The session.
    pub fn session_id(&self) -> &SessionId {
        match self {
            Self::Keygen(request) => &request.session_id,
            Self::Sign(request) => &request.session_id,
        }
    }

    /// What the session is for.
    pub fn session_type(&self) -> SessionType {
        match self {
            Self::Keygen(_) => SessionType::Keygen,
            Self::Sign(_) => SessionType::Sign,
        }
    }

    pub(super) fn party_id(&self) -> &PartyId {
        match self {
            Self::Keygen(request) => &request.party_id,
            Self::Sign(request) => &request.party_id,
        }
    }

    pub(super) fn join_token(&self) -> &str {
        match self {
            Self::Keygen(request) => &request.join_token,
            Self::Sign(request) => &request.join_token,
        }
    }

    pub(super) fn carries_approvals(&self) -> bool {
        match self {
            Self::Keygen(request) => !request.approvals.is_empty(),
            Self::Sign(request) => !request.approvals.is_empty(),
        }
    }

    pub(super) fn op(&self) -> Op {
        match self {
            Self::Keygen(_) => Op::Keygen,
            Self::Sign(_) => Op::Sign,
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
        };
        crate::digest(&bytes.unwrap_or_default())
    }
}

/// Whether a call starts something.
pub(super) enum Admission {
    /// The session is known: this is the answer.
    Known(Box<Result<SessionView, Problem>>),
    /// It is not.
    New(Ask),
}

/// Looks whether the session exists.
pub(super) async fn admit(node: &Arc<Node>, ask: Ask) -> Result<Admission, Problem> {
    let session = ask.session_id().clone();
    let row = node.store.read(move |store| SessionRow::find(store, &session)).await.map_err(|e| unavailable(&e))?;
    Ok(match row {
        Some(row) => Admission::Known(Box::new(known(node, &row, &ask))),
        None => Admission::New(ask),
    })
}

/// The answer to a call whose session exists.
pub(super) fn known(node: &Node, row: &SessionRow, ask: &Ask) -> Result<SessionView, Problem> {
    if row.session_type != ask.session_type() || row.body_digest != ask.digest() {
        let detail = format!("session {} was convened with another body; use a new session id", row.session_id);
        return Err(Problem::new(Code::SessionConflict, detail));
    }
    match &row.error {
        Some(problem) if row.refused => Err(problem.clone()),
        _ => Ok(row.view(node.sessions.round(&row.session_id))),
    }
}

pub(super) fn unavailable(error: &StoreError) -> Problem {
    Problem::new(Code::AuditUnavailable, error.to_string())
}
