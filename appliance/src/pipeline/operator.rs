//! What policy says of an operator's act that belongs to no session: it decides, with approvals; the refusal is a leaf with its
//! receipt; what was allowed is committed by the caller in one transaction, which uses the approvals up.

use std::collections::BTreeSet;
use std::sync::Arc;

use casemate_attest::{
    Approval as LoggedApproval, Decision, Detail, Effect, Entry, Guard, GuardChange, Op, Origin, Text,
};
use casemate_policy::approval::{self, Counted, Expected, MAX_LIFE};
use casemate_policy::{Action, Denied, Request, Resource, SessionFacts, Verdict};
use casemate_wire::api::Approval;
use casemate_wire::{Code, Digest32, Problem, PublicKey};
use jiff::Timestamp;

use super::ask::{Caller, unavailable};
use super::decide::{self, logged_approval, policy_client, ready};
use super::receipt;
use super::refused::guard;
use crate::daemon::Node;
use crate::disclosure;
use crate::store::{OneUse, PolicyRow, StoreError, Transaction, Urgency, approval_used, use_approval};

/// An act that an operator asks for.
pub(crate) struct OperatorAct {
    /// As the log calls it.
    pub(crate) op: Op,
    /// As policies call it.
    pub(crate) action: Action,
    /// What it is asked of.
    pub(crate) resource: Resource,
    /// What people must have approved, to the last field.
    pub(crate) act: approval::Act,
    /// The key that it is about.
    pub(crate) key: Option<PublicKey>,
    /// What was sent with it.
    pub(crate) approvals: Vec<Approval>,
}

/// An act that policy allows. Only [`permit`] makes one.
pub(crate) struct Permitted {
    decision: Decision,
    bundle: Digest32,
    approvals: Vec<LoggedApproval>,
    statements: BTreeSet<Digest32>,
    origin: Origin,
}

/// Whether what policy said still stands, in the transaction that commits the act.
#[must_use]
pub(crate) enum Standing {
    /// It does; these changes belong into the act's leaf.
    Holds(Vec<GuardChange>),
    /// It does not: nothing was written.
    Passed(Problem),
}

/// Asks the active bundle. Without a bundle, an HSM or a clock to trust, the answer is no.
///
/// # Errors
/// The problem to answer with; a refusal by policy is recorded by then.
pub(crate) async fn permit(node: &Arc<Node>, caller: &Caller, act: OperatorAct) -> Result<Permitted, Problem> {
    if let Some(quarantine) = node.store.quarantine() {
        return Err(unavailable(&StoreError::Quarantined(quarantine.to_string())));
    }
    ready(node)?;
    let (op, key) = (act.op, act.key);
    let used = decide::used_among(node, &act.approvals).await.map_err(|error| unavailable(&error))?;
    let (asked, client) = (node.clone(), policy_client(&caller.client));
    let judged = tokio::task::spawn_blocking(move || judge(&asked, client, act, &used)).await;
    let (verdict, counted) = judged.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
    let origin =
        Origin { req: Text::fitted(&caller.request_id), actor: Text::fitted(caller.client.name()), session: None };
    let approvals: Vec<LoggedApproval> = counted.counted.iter().map(logged_approval).collect();
    match verdict {
        Verdict::Allow(allowed) => {
            node.metrics.decided("allow", allowed.policies());
            let bundle = allowed.bundle_digest();
            let policies = allowed.policies().iter().map(|note| Text::fitted(&note.id)).collect();
            let decision = Decision { effect: Effect::Allow, policies, bundle: Some(bundle) };
            let statements = counted.counted.iter().map(|given| given.statement).collect();
            Ok(Permitted { decision, bundle, approvals, statements, origin })
        }
        Verdict::Deny(denied) => {
            node.metrics.decided("deny", denied.policies());
            Err(refuse(node, (op, key), origin, (&denied, &counted), approvals).await)
        }
    }
}

fn judge(
    node: &Node,
    principal: casemate_policy::Client,
    asked: OperatorAct,
    used: &BTreeSet<Digest32>,
) -> (Verdict, Counted) {
    let now = Timestamp::now();
    let mut request = Request {
        principal,
        action: asked.action,
        resource: asked.resource,
        understood: None,
        approvals: casemate_policy::Approvals::none(),
        spent: None,
        time: now,
        session: SessionFacts {
            participants: BTreeSet::new(),
            threshold_t: 0,
            devices: BTreeSet::new(),
            new_roster: None,
        },
        derivation_path: None,
        peers_attested: false,
    };
    let Some(bundle) = node.policy.active() else {
        return (casemate_policy::decide(None, &request), Counted::default());
    };
    let expected = Expected { act: &asked.act, bundle: bundle.bundle().digest(), now };
    let counted =
        approval::count(&asked.approvals, &expected, &node.config.approvers, |statement| used.contains(statement));
    request.approvals = counted.approvals.clone();
    (bundle.decide(&request), counted)
}

/// Records what policy refused; the answer is its problem with a receipt.
async fn refuse(
    node: &Arc<Node>,
    (op, key): (Op, Option<PublicKey>),
    origin: Origin,
    (denied, counted): (&Denied, &Counted),
    approvals: Vec<LoggedApproval>,
) -> Problem {
    let problem = decide::problem(denied, counted);
    tracing::info!(event = "request_refused", op = op.as_str(), client = %origin.actor, code = %problem.code, "{}", problem.detail);
    let withheld = disclosure(Detail { decoded: None, reason: Some(Text::fitted(&problem.detail).to_string()) });
    let policies = denied.policies().iter().map(|note| Text::fitted(&note.id)).collect();
    let entry = Entry::refusal(op, origin, Text::fitted(problem.code.as_str()))
        .about(key, None)
        .approved(approvals)
        .decided(Decision { effect: Effect::Deny, policies, bundle: denied.bundle_digest() })
        .disclosing(withheld.clone());
    let party = node.config.party.clone();
    let written = node.store.write(Urgency::Record, move |transaction| {
        let line = transaction.append(entry)?;
        receipt::promise(problem, &party, &line, &withheld)
    });
    match written.await {
        Ok(problem) => receipt::fulfil(node, None, problem).await,
        Err(error) => unavailable(&error),
    }
}

impl Permitted {
    /// Looks whether the bundle is still the newest and no approval was used meanwhile; then uses the approvals up.
    ///
    /// # Errors
    /// Says that the store cannot be read or written.
    pub(crate) fn settle(&self, transaction: &Transaction<'_>) -> Result<Standing, StoreError> {
        let passed = |code, detail: &str| Ok(Standing::Passed(Problem::new(code, detail)));
        if PolicyRow::newest(transaction.sql())?.is_none_or(|newest| newest.digest != self.bundle) {
            let detail = "another policy became active while the request was being judged; ask again";
            return passed(Code::Overloaded, detail);
        }
        for statement in &self.statements {
            if approval_used(transaction.sql(), statement)? {
                let detail = "an approval was used by another request meanwhile; ask the approver for a new one";
                return passed(Code::PolicyDenied, detail);
            }
        }
        let now = Timestamp::now().as_second();
        let mut changes = Vec::with_capacity(self.statements.len());
        for statement in &self.statements {
            if use_approval(transaction, statement, now.saturating_add(MAX_LIFE.as_secs()), now)? == OneUse::Replayed {
                return Err(StoreError::Audit("an approval was used up in its own transaction".into()));
            }
            changes.push(guard(Guard::Approval, &statement.to_string(), "used"));
        }
        Ok(Standing::Holds(changes))
    }

    /// The act's leaf, but for its guards.
    pub(crate) fn entry(&self, op: Op) -> Entry {
        Entry::admin(op).asked_by(self.origin.clone()).decided(self.decision.clone()).approved(self.approvals.clone())
    }

    /// The bundle that allowed it.
    pub(crate) fn bundle(&self) -> Digest32 {
        self.bundle
    }
}
