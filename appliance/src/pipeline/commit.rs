//! Commit: the audit intent, the used token and the session, durable in one transaction, before anything is done.

use std::sync::Arc;

use casemate_attest::{Act as LoggedAct, Decision, Effect, Entry, Guard, IntentRef, Text};
use casemate_policy::Allowed;
use casemate_wire::api::{SessionStatus, SessionView};
use casemate_wire::token::VerifiedToken;
use casemate_wire::{Code, Problem};

use super::ask::unavailable;
use super::decide::{Authorized, tx};
use super::refused::{Refused, guard};
use super::understand::{Act, Understood};
use crate::daemon::Node;
use crate::session::Place;
use crate::store::{SessionResult, SessionRow, ShareRow, ShareStatus, StoreError, TokenUse, use_token};

/// A session whose intent is durable. Only [`commit`] makes one; only with it can a share be opened.
pub(super) struct Committed {
    token: VerifiedToken,
    act: Act,
    row: SessionRow,
    /// Proof that the intent stands in the log.
    _intent: IntentRef,
    place: Place,
}

/// What a commit hands on.
pub(super) struct Parts {
    pub(super) token: VerifiedToken,
    pub(super) act: Act,
    pub(super) row: SessionRow,
    pub(super) place: Place,
}

impl Committed {
    /// The session as the caller sees it.
    pub(super) fn view(&self) -> SessionView {
        self.row.view(0)
    }

    pub(super) fn into_parts(self) -> Parts {
        let Self { token, act, row, _intent, place } = self;
        Parts { token, act, row, place }
    }
}

enum Written {
    New(IntentRef, u64),
    Replayed,
    /// The share has changed since policy judged it.
    NotActive,
}

/// Makes the intent durable.
pub(super) async fn commit(node: &Arc<Node>, authorized: Authorized) -> Result<Committed, Refused> {
    let (understood, allowed) = authorized.into_parts();
    let row = row(&understood);
    let entry = entry(&understood, &allowed);
    let adopt = match understood.act() {
        Act::Sign(act) => act.adopt.clone().map(|certificate| (act.share.id.clone(), certificate)),
        Act::Keygen { .. } => None,
    };
    let share = match understood.act() {
        Act::Sign(act) => Some(act.share.id.clone()),
        Act::Keygen { .. } => None,
    };
    let judged = if adopt.is_some() { ShareStatus::Pending } else { ShareStatus::Active };
    let claims = understood.authenticated().token().claims().clone();
    let written = node.store.write({
        let mut row = row.clone();
        move |transaction| {
            if let Some(share) = &share
                && !ShareRow::find(transaction.sql(), share)?.is_some_and(|row| row.status == judged)
            {
                return Ok(Written::NotActive);
            }
            if use_token(transaction, &claims, jiff::Timestamp::now().as_second())? == TokenUse::Replayed {
                return Ok(Written::Replayed);
            }
            let mut guards = vec![
                guard(Guard::Token, &claims.jti, "used"),
                guard(Guard::Session, row.session_id.as_str(), "accepted"),
            ];
            if let Some((share, certificate)) = &adopt {
                ShareRow::activate(transaction, share, certificate)?;
                guards.push(guard(Guard::Share, share, "active"));
            }
            let line = transaction.append(entry.guarding(guards))?;
            row.intent = Some(line.leaf().seq);
            row.insert(transaction)?;
            let recorded = line.intent().map(|intent| Written::New(intent, line.leaf().seq));
            recorded.ok_or_else(|| StoreError::Audit("an intent was not recorded as one".into()))
        }
    });
    let written = written.await;
    let (authenticated, act) = understood.into_parts();
    match written {
        Ok(Written::New(intent, seq)) => {
            tracing::info!(event = "session_accepted", session = %row.session_id, kind = %row.session_type, client = row.actor);
            let (token, place) = authenticated.into_session();
            Ok(Committed { token, act, row: SessionRow { intent: Some(seq), ..row }, _intent: intent, place })
        }
        Ok(Written::Replayed) => {
            node.metrics.auth_failed("token_replayed");
            let detail = "this join token has been used; the coordinator must issue a new one";
            Err(authenticated.refuse(Problem::new(Code::TokenReplayed, detail)))
        }
        Ok(Written::NotActive) => {
            let detail = "the share was withdrawn while the request was being judged";
            Err(authenticated.refuse(Problem::new(Code::ShareNotActive, detail)))
        }
        Err(error) => Err(authenticated.refuse(unavailable(&error))),
    }
}

fn entry(understood: &Understood, allowed: &Allowed) -> Entry {
    let authenticated = understood.authenticated();
    let act = match (authenticated.token().claims().public_key, tx(understood)) {
        (Some(key), Some(tx)) => LoggedAct::Sign { key, tx },
        _ => LoggedAct::Keygen,
    };
    let decision = Decision {
        effect: Effect::Allow,
        policies: allowed.policies().iter().map(|note| Text::fitted(&note.id)).collect(),
        bundle: Some(allowed.bundle_digest()),
    };
    Entry::intent(act, authenticated.ask().origin(authenticated.caller()), decision)
}

fn row(understood: &Understood) -> SessionRow {
    let authenticated = understood.authenticated();
    let (ask, caller) = (authenticated.ask(), authenticated.caller());
    SessionRow {
        session_id: ask.session_id().clone(),
        session_type: ask.session_type(),
        body_digest: ask.digest(),
        status: SessionStatus::Accepted,
        refused: false,
        intent: None,
        actor: caller.client.name().to_owned(),
        request: caller.request_id.clone(),
        error: None,
        result: SessionResult { public_key: authenticated.token().claims().public_key, ..SessionResult::default() },
        started_at: crate::now_text(),
        completed_at: None,
    }
}
