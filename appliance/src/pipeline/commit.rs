//! Commit: the audit intent, the used token and the session, durable in one transaction, before anything is done.

use std::collections::BTreeSet;
use std::sync::Arc;

use casemate_attest::life::ShareState;
use casemate_attest::{Act as LoggedAct, Decision, Detail, Effect, Entry, Guard, IntentRef, Text};
use casemate_policy::approval::MAX_LIFE;
use casemate_policy::spend::Spending;
use casemate_wire::api::{SessionStatus, SessionView};
use casemate_wire::token::{Claims, VerifiedToken};
use casemate_wire::{Code, Digest32, KeyCertificate, Problem, PublicKey};
use jiff::Timestamp;
use rusqlite::Connection;

use super::ask::unavailable;
use super::decide::{Authorized, Grant, Obligation, decoded, tx};
use super::refused::{Refused, guard};
use super::understand::{Act, Understood};
use crate::daemon::{Node, give_up};
use crate::disclosure;
use crate::session::Place;
use crate::store::{
    OneUse, PolicyRow, SessionResult, SessionRow, ShareRow, StoreError, Transaction, Urgency, approval_used,
    enter_epoch, newest_epoch, reserve_spending, use_approval, use_token,
};

/// A session whose intent is durable. Only [`commit`] makes one; only with it can a share be opened.
pub(super) struct Committed {
    token: VerifiedToken,
    act: Act,
    row: SessionRow,
    /// What must hold before a share is opened.
    obligation: Obligation,
    /// Proof that the intent stands in the log.
    _intent: IntentRef,
    place: Place,
}

/// What a commit hands on.
pub(super) struct Parts {
    pub(super) token: VerifiedToken,
    pub(super) act: Act,
    pub(super) row: SessionRow,
    pub(super) obligation: Obligation,
    pub(super) place: Place,
}

impl Committed {
    /// The session as the caller sees it.
    pub(super) fn view(&self) -> SessionView {
        self.row.view(0)
    }

    pub(super) fn into_parts(self) -> Parts {
        let Self { token, act, row, obligation, _intent, place } = self;
        Parts { token, act, row, obligation, place }
    }
}

enum Written {
    New(IntentRef, u64),
    Stopped(Stopped),
}

/// Why nothing was written, although the request had been allowed.
enum Stopped {
    Replayed,
    /// The share has changed since policy judged it.
    NotActive,
    /// Another rotation to this epoch, or to a later one, was begun meanwhile.
    EpochTaken,
    /// Another bundle is active than the one that judged.
    PolicyChanged,
    /// An approval that counts once was used meanwhile.
    ApprovalUsed,
}

/// Makes the intent durable, with everything that it uses up.
pub(super) async fn commit(node: &Arc<Node>, authorized: Authorized) -> Result<Committed, Refused> {
    let (understood, grant) = authorized.into_parts();
    let writes = Writes::of(&understood, &grant);
    let row = writes.row.clone();
    let written = node.store.write(Urgency::Act, move |transaction| writes.write(transaction)).await;
    let (authenticated, act) = understood.into_parts();
    match written {
        Ok(Written::New(intent, seq)) => {
            if let Some(reservation) = grant.reservation {
                reservation.keep();
            }
            tracing::info!(event = "session_accepted", session = %row.session_id, kind = %row.session_type, client = row.actor);
            let (token, place) = authenticated.into_session();
            Ok(Committed {
                token,
                act,
                row: SessionRow { intent: Some(seq), ..row },
                obligation: grant.obligation,
                _intent: intent,
                place,
            })
        }
        Ok(Written::Stopped(stopped)) => {
            if matches!(stopped, Stopped::Replayed) {
                node.metrics.auth_failed("token_replayed");
            }
            let refused = authenticated.refuse(stopped.problem());
            Err(match stopped {
                // Without that approval policy would not have allowed it.
                Stopped::ApprovalUsed => refused.denied_under(grant.allowed.bundle_digest()),
                Stopped::Replayed | Stopped::NotActive | Stopped::EpochTaken | Stopped::PolicyChanged => refused,
            })
        }
        Err(error) => {
            // The intent is durable, with all that it uses up, but nothing comes of it.
            if matches!(error, StoreError::Unanchored(_)) {
                if let Some(reservation) = grant.reservation {
                    reservation.keep();
                }
                node.spawn("given up session", give_up(node.clone(), row.session_id));
            }
            Err(authenticated.refuse(unavailable(&error)))
        }
    }
}

impl Stopped {
    fn problem(&self) -> Problem {
        let (code, detail) = match self {
            Self::Replayed => {
                (Code::TokenReplayed, "this join token has been used; the coordinator must issue a new one")
            }
            Self::NotActive => (Code::ShareNotActive, "the share was withdrawn while the request was being judged"),
            Self::EpochTaken => {
                (Code::EpochTaken, "another rotation to that epoch was begun while the request was being judged")
            }
            Self::PolicyChanged => {
                (Code::Overloaded, "another policy became active while the request was being judged; ask again")
            }
            Self::ApprovalUsed => (
                Code::PolicyDenied,
                "an approval was used by another request meanwhile; ask the approver for a new one",
            ),
        };
        Problem::new(code, detail)
    }
}

/// Everything that becomes durable together.
struct Writes {
    row: SessionRow,
    entry: Entry,
    claims: Claims,
    /// The share that will sign, and the state in which policy judged it.
    share: Option<(String, ShareState)>,
    /// The epoch that a rotation leads to.
    epoch: Option<(PublicKey, u64)>,
    /// By which a pending share becomes active.
    adopt: Option<KeyCertificate>,
    bundle: Digest32,
    spending: Option<Spending>,
    /// The statements of approvals that count once; several people may have signed one.
    used_up: BTreeSet<Digest32>,
}

impl Writes {
    fn of(understood: &Understood, grant: &Grant) -> Self {
        let (share, adopt, epoch) = match understood.act() {
            Act::Keygen { .. } => (None, None, None),
            Act::Sign(act) => (Some((act.share.id.clone(), act.share.status)), act.adopt.clone(), None),
            Act::Rotate(act) => {
                let held = act.live().map(|held| (held.share.id.clone(), held.share.status));
                (held, None, Some((act.key, act.rotation.epoch)))
            }
        };
        let counts_once = !matches!(understood.act(), Act::Sign(_));
        let used_up = grant.approvals.iter().filter(|_| counts_once).map(|given| given.statement);
        Self {
            row: row(understood),
            entry: entry(understood, grant),
            claims: understood.authenticated().token().claims().clone(),
            share,
            adopt,
            epoch,
            bundle: grant.allowed.bundle_digest(),
            spending: grant.reservation.as_ref().map(|reservation| reservation.spending().clone()),
            used_up: used_up.collect(),
        }
    }

    fn write(mut self, transaction: &mut Transaction<'_>) -> Result<Written, StoreError> {
        if let Some(stopped) = self.changed(transaction.sql())? {
            return Ok(Written::Stopped(stopped));
        }
        if self.use_up(transaction)? == OneUse::Replayed {
            return Ok(Written::Stopped(Stopped::Replayed));
        }
        let session = self.row.session_id.clone();
        let mut guards =
            vec![guard(Guard::Token, &self.claims.jti, "used"), guard(Guard::Session, session.as_str(), "accepted")];
        if let (Some((share, _)), Some(certificate)) = (&self.share, &self.adopt) {
            guards.extend(ShareRow::confirm(transaction, share, certificate, &[])?);
        }
        if let Some((key, epoch)) = self.epoch {
            // Looked at above, in this very transaction.
            let entered = enter_epoch(transaction, &key, epoch)?;
            guards
                .push(entered.ok_or_else(|| StoreError::Audit("an epoch was entered in its own transaction".into()))?);
        }
        if let Some(spending) = self.spending.take() {
            let entered = reserve_spending(transaction, spending)?;
            guards.push(guard(Guard::Spend, session.as_str(), &format!("reserved {entered}")));
        }
        guards.extend(self.used_up.iter().map(|statement| guard(Guard::Approval, &statement.to_string(), "used")));
        let line = transaction.append(self.entry.guarding(guards))?;
        self.row.intent = Some(line.leaf().seq);
        self.row.insert(transaction)?;
        let recorded = line.intent().map(|intent| Written::New(intent, line.leaf().seq));
        recorded.ok_or_else(|| StoreError::Audit("an intent was not recorded as one".into()))
    }

    /// What has changed since policy judged.
    fn changed(&self, store: &Connection) -> Result<Option<Stopped>, StoreError> {
        if let Some((share, judged)) = &self.share
            && ShareRow::find(store, share)?.is_none_or(|row| row.status != *judged)
        {
            return Ok(Some(Stopped::NotActive));
        }
        if let Some((key, epoch)) = &self.epoch
            && newest_epoch(store, key)? >= *epoch
        {
            return Ok(Some(Stopped::EpochTaken));
        }
        if PolicyRow::newest(store)?.is_none_or(|newest| newest.digest != self.bundle) {
            return Ok(Some(Stopped::PolicyChanged));
        }
        for statement in &self.used_up {
            if approval_used(store, statement)? {
                return Ok(Some(Stopped::ApprovalUsed));
            }
        }
        Ok(None)
    }

    /// Uses the token up, and with it the approvals that count once.
    fn use_up(&self, transaction: &Transaction<'_>) -> Result<OneUse, StoreError> {
        let now = Timestamp::now().as_second();
        if use_token(transaction, &self.claims, now)? == OneUse::Replayed {
            return Ok(OneUse::Replayed);
        }
        for statement in &self.used_up {
            if use_approval(transaction, statement, now.saturating_add(MAX_LIFE.as_secs()), now)? == OneUse::Replayed {
                return Err(StoreError::Audit("an approval was used up in its own transaction".into()));
            }
        }
        Ok(OneUse::First)
    }
}

fn entry(understood: &Understood, grant: &Grant) -> Entry {
    let allowed = &grant.allowed;
    let authenticated = understood.authenticated();
    let act = match (authenticated.token().claims().public_key, tx(understood)) {
        (Some(key), Some(tx)) => LoggedAct::Sign { key, tx },
        (Some(key), None) => LoggedAct::Rotate { key },
        (None, _) => LoggedAct::Keygen,
    };
    let decision = Decision {
        effect: Effect::Allow,
        policies: allowed.policies().iter().map(|note| Text::fitted(&note.id)).collect(),
        bundle: Some(allowed.bundle_digest()),
    };
    let approvals = grant.approvals.iter().map(super::decide::logged_approval).collect();
    let entry = Entry::intent(act, authenticated.ask().origin(authenticated.caller()), decision).approved(approvals);
    match decoded(understood) {
        Some(decoded) => entry.disclosing(disclosure(Detail { decoded: Some(decoded), reason: None })),
        None => entry,
    }
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
