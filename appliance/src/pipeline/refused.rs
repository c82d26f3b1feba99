//! A request that is not done: why, and its place in the audit log.

use std::sync::Arc;

use casemate_attest::{Approval, Decision, Detail, Effect, Entry, Guard, GuardChange, Text, Tx};
use casemate_policy::Denied;
use casemate_wire::api::SessionStatus;
use casemate_wire::token::{Claims, VerifiedToken};
use casemate_wire::{Code, Digest32, Problem, PublicKey, SessionId};
use serde_json::Value;

use super::ask::{Ask, Caller, unavailable};
use super::receipt;
use crate::daemon::Node;
use crate::disclosure;
use crate::session::Place;
use crate::store::{OneUse, SessionResult, SessionRow, Urgency, use_token};

/// A refusal that is still to be recorded; [`Refused::record`] gives the answer.
#[must_use = "a refusal must be recorded before it is answered"]
pub(super) struct Refused(Box<Inner>);

struct Inner {
    caller: Caller,
    ask: Ask,
    problem: Problem,
    /// Present once the token was verified: it is used up by the refusal.
    token: Option<Claims>,
    key: Option<PublicKey>,
    tx: Option<Tx>,
    decoded: Option<Value>,
    decision: Option<Decision>,
    approvals: Vec<Approval>,
    /// Held until the refusal is settled, so that an equal call finds it.
    place: Place,
}

impl Refused {
    pub(super) fn new(caller: Caller, ask: Ask, problem: Problem, place: Place) -> Self {
        let key = ask.key();
        Self(Box::new(Inner {
            caller,
            ask,
            problem,
            token: None,
            key,
            tx: None,
            decoded: None,
            decision: None,
            approvals: Vec::new(),
            place,
        }))
    }

    /// The token was good: this refusal uses it up and settles the session.
    pub(super) fn using(mut self, token: &VerifiedToken) -> Self {
        self.0.token = Some(token.claims().clone());
        self
    }

    pub(super) fn about(mut self, tx: Option<Tx>, decoded: Option<Value>) -> Self {
        self.0.tx = tx;
        self.0.decoded = decoded;
        self
    }

    pub(super) fn decided(mut self, denied: &Denied) -> Self {
        let policies = denied.policies().iter().map(|note| Text::fitted(&note.id)).collect();
        self.0.decision = Some(Decision { effect: Effect::Deny, policies, bundle: denied.bundle_digest() });
        self
    }

    /// Policy's yes stands no more, and no rule of it says why.
    pub(super) fn denied_under(mut self, bundle: Digest32) -> Self {
        self.0.decision = Some(Decision { effect: Effect::Deny, policies: Vec::new(), bundle: Some(bundle) });
        self
    }

    /// The approvals that counted, and did not suffice.
    pub(super) fn approved(mut self, approvals: Vec<Approval>) -> Self {
        self.0.approvals = approvals;
        self
    }

    /// Records the refusal; the answer is its problem, with its receipt if policy refused, or that it could not be recorded.
    pub(super) async fn record(self, node: &Arc<Node>) -> Problem {
        let Inner { caller, ask, problem, token, key, tx, decoded, decision, approvals, place } = *self.0;
        node.metrics.refused(ask.session_type(), problem.code);
        tracing::info!(
            event = "request_refused", session = %ask.session_id(), client = caller.client.name(),
            code = %problem.code, request = caller.request_id, "{}", problem.detail
        );
        if is_passing(problem.code) {
            return problem;
        }
        let withheld = disclosure(Detail { decoded, reason: Some(Text::fitted(&problem.detail).to_string()) });
        let mut entry = Entry::refusal(ask.op(), ask.origin(&caller), Text::fitted(problem.code.as_str()))
            .about(key, tx)
            .approved(approvals)
            .disclosing(withheld.clone());
        if let Some(decision) = decision {
            entry = entry.decided(decision);
        }
        let session = ask.session_id().clone();
        let mut row = settled(&ask, &caller);
        let party = node.config.party.clone();
        let written = node
            .store
            .write(Urgency::Record, move |transaction| {
                // A token settles the one session that it names, once.
                let settles = match &token {
                    Some(claims) => {
                        claims.session_id == row.session_id
                            && SessionRow::find(transaction.sql(), &row.session_id)?.is_none()
                            && use_token(transaction, claims, jiff::Timestamp::now().as_second())? == OneUse::First
                    }
                    None => false,
                };
                let guards = match &token {
                    Some(claims) if settles => vec![
                        guard(Guard::Token, &claims.jti, "used"),
                        guard(Guard::Session, row.session_id.as_str(), "failed"),
                    ],
                    _ => Vec::new(),
                };
                let line = transaction.append(entry.guarding(guards))?;
                let problem = receipt::promise(problem, &party, &line, &withheld)?;
                if settles {
                    row.error = Some(problem.clone());
                    row.insert(transaction)?;
                }
                Ok((problem, settles))
            })
            .await;
        drop(place);
        match written {
            Ok((problem, settled)) => receipt::fulfil(node, settled.then_some(&session), problem).await,
            Err(error) => unavailable(&error),
        }
    }
}

/// Refusals that say nothing about the request, only about this moment: the same call may succeed later, so neither
/// its token nor its session is used up, and they fill no log.
fn is_passing(code: Code) -> bool {
    matches!(code, Code::Overloaded | Code::NotReady | Code::HsmUnavailable | Code::AuditUnavailable)
}

/// The session's row but for its problem.
fn settled(ask: &Ask, caller: &Caller) -> SessionRow {
    let now = crate::now_text();
    SessionRow {
        session_id: ask.session_id().clone(),
        session_type: ask.session_type(),
        body_digest: ask.digest(),
        status: SessionStatus::Failed,
        refused: true,
        intent: None,
        actor: caller.client.name().to_owned(),
        request: caller.request_id.clone(),
        error: None,
        result: SessionResult::default(),
        started_at: now.clone(),
        completed_at: Some(now),
    }
}

/// The change of a session's state, for its leaf.
pub(crate) fn session_guard(session: &SessionId, status: SessionStatus) -> GuardChange {
    guard(Guard::Session, session.as_str(), status.as_str())
}

pub(super) fn guard(guard: Guard, id: &str, to: &str) -> GuardChange {
    GuardChange { guard, id: Text::fitted(id), to: Some(Text::fitted(to)) }
}
