//! What an operator orders of this appliance alone: policy says yes, or the order ends here.
//!
//! ```text
//! order ─ decide ─► Ordered | refusal leaf, receipt ─ the order's own transaction: Ordered::commit ─► leaf
//! ```
//!
//! No session and no token are part of it. What the order changes, its leaf and the approvals that it uses up become durable in one
//! transaction, which also looks whether policy's yes still stands.

use std::collections::BTreeSet;
use std::sync::Arc;

use casemate_attest::{
    Approval as LoggedApproval, Decision, Detail, Effect, Entry, Guard, GuardChange, Op, Origin, Text,
};
use casemate_policy::approval::{self, Act, Counted, Expected, MAX_LIFE};
use casemate_policy::{Action, Allowed, Approvals, Denied, Request, Resource, SessionFacts, Verdict};
use casemate_wire::api::Approval;
use casemate_wire::{Code, Digest32, Problem, PublicKey};
use jiff::Timestamp;

use super::ask::{Caller, unavailable};
use super::decide::{logged_approval, policy_client, problem, ready, used_of};
use super::receipt;
use super::refused::guard;
use crate::daemon::Node;
use crate::disclosure;
use crate::store::{OneUse, PolicyRow, StoreError, Transaction, Urgency, approval_used, use_approval};

/// What is ordered: for policy, for the people who approve it, and for the log.
pub(crate) struct Order {
    /// Its word in the log.
    pub(crate) op: Op,
    /// What approvals must approve, to the last field.
    pub(crate) act: Act,
    /// What policy is asked.
    pub(crate) action: Action,
    /// … and of what.
    pub(crate) resource: Resource,
    /// Whom it concerns.
    pub(crate) session: SessionFacts,
    /// The key, where it is about one.
    pub(crate) key: Option<PublicKey>,
    /// Why, in the operator's words.
    pub(crate) reason: String,
    /// What people have signed.
    pub(crate) approvals: Vec<Approval>,
}

/// An order that policy allows. Only [`decide`] makes one, and only [`Ordered::commit`] writes its leaf.
pub(crate) struct Ordered {
    order: Order,
    caller: Caller,
    allowed: Allowed,
    approvals: Vec<LoggedApproval>,
}

/// Why an order was not carried out, although policy had allowed it. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overtaken {
    /// Another bundle is active than the one that judged.
    PolicyChanged,
    /// An approval was used meanwhile.
    ApprovalUsed,
}

/// Asks the active bundle. A denial is recorded before it is answered, and comes with its receipt.
///
/// # Errors
/// The problem to answer with.
pub(crate) async fn decide(node: &Arc<Node>, caller: Caller, order: Order) -> Result<Ordered, Problem> {
    if let Some(quarantine) = node.store.quarantine() {
        return Err(unavailable(&StoreError::Quarantined(quarantine.to_string())));
    }
    ready(node)?;
    let used = used_of(node, &order.approvals).await.map_err(|e| unavailable(&e))?;
    let bundle = node.policy.active();
    let now = Timestamp::now();
    let mut counted = Counted::default();
    if let Some(bundle) = &bundle {
        let expected = Expected { act: &order.act, bundle: bundle.bundle().digest(), now };
        let is_used = |statement: &Digest32| used.contains(statement);
        counted = approval::count(&order.approvals, &expected, &node.config.approvers, is_used);
    }
    let (asked, principal) = (order, policy_client(&caller.client));
    let approvals = counted.approvals.clone();
    // The evaluator works on a thread with a large stack and is waited for off the network threads.
    let judged = tokio::task::spawn_blocking(move || {
        let request = request(&asked, principal, approvals, now);
        let verdict = match &bundle {
            Some(bundle) => bundle.decide(&request),
            None => casemate_policy::decide(None, &request),
        };
        (asked, verdict)
    });
    let (order, verdict) = judged.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
    let logged = counted.counted.iter().map(logged_approval).collect();
    match verdict {
        Verdict::Allow(allowed) => {
            node.metrics.decided("allow", allowed.policies());
            Ok(Ordered { order, caller, allowed, approvals: logged })
        }
        Verdict::Deny(denied) => {
            node.metrics.decided("deny", denied.policies());
            let answer = problem(&denied, &counted);
            Err(refuse(node, &caller, &order, answer, Some(decision_of(&denied)), logged).await)
        }
    }
}

fn request(
    order: &Order,
    principal: casemate_policy::Client,
    approvals: Approvals,
    now: Timestamp,
) -> Request<'static> {
    Request {
        principal,
        action: order.action,
        resource: order.resource.clone(),
        understood: None,
        approvals,
        spent: None,
        time: now,
        session: order.session.clone(),
        derivation_path: None,
        peers_attested: false,
    }
}

fn decision_of(denied: &Denied) -> Decision {
    let policies = denied.policies().iter().map(|note| Text::fitted(&note.id)).collect();
    Decision { effect: Effect::Deny, policies, bundle: denied.bundle_digest() }
}

impl Ordered {
    /// The bundle that allowed it.
    pub(crate) fn bundle(&self) -> Digest32 {
        self.allowed.bundle_digest()
    }

    /// Writes the leaf with everything that the order changes and uses up, in the transaction that makes the changes, and once
    /// [`Ordered::overtaken`] has found there that policy's yes stands.
    ///
    /// # Errors
    /// Says that the store cannot be written.
    pub(crate) fn commit(
        &self,
        transaction: &mut Transaction<'_>,
        mut changes: Vec<GuardChange>,
    ) -> Result<(), StoreError> {
        let now = Timestamp::now().as_second();
        // People may have signed the very same statement.
        let statements: BTreeSet<&Digest32> = self.approvals.iter().map(|approval| &approval.statement).collect();
        for statement in statements {
            let keep = now.saturating_add(MAX_LIFE.as_secs());
            if use_approval(transaction, statement, keep, now)? == OneUse::Replayed {
                return Err(StoreError::Audit("an approval was used up in its own transaction".into()));
            }
            changes.push(guard(Guard::Approval, &statement.to_string(), "used"));
        }
        let decision = Decision {
            effect: Effect::Allow,
            policies: self.allowed.policies().iter().map(|note| Text::fitted(&note.id)).collect(),
            bundle: Some(self.allowed.bundle_digest()),
        };
        let reason = Some(Text::fitted(&self.order.reason).to_string());
        let entry = Entry::admin(self.order.op)
            .asked_by(origin(&self.caller))
            .about(self.order.key, None)
            .decided(decision)
            .approved(self.approvals.clone())
            .guarding(changes)
            .disclosing(disclosure(Detail { decoded: None, reason }));
        transaction.append(entry).map(|_| ())
    }

    /// Whether policy's yes stands no more.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub(crate) fn overtaken(&self, transaction: &Transaction<'_>) -> Result<Option<Overtaken>, StoreError> {
        let newest = PolicyRow::newest(transaction.sql())?;
        if newest.is_none_or(|newest| newest.digest != self.allowed.bundle_digest()) {
            return Ok(Some(Overtaken::PolicyChanged));
        }
        for approval in &self.approvals {
            if approval_used(transaction.sql(), &approval.statement)? {
                return Ok(Some(Overtaken::ApprovalUsed));
            }
        }
        Ok(None)
    }

    /// Answers an order that was overtaken, and records the refusal.
    pub(crate) async fn give_up(&self, node: &Arc<Node>, overtaken: Overtaken) -> Problem {
        match overtaken {
            Overtaken::PolicyChanged => Problem::new(
                Code::Overloaded,
                "another policy became active while the request was being judged; ask again",
            ),
            Overtaken::ApprovalUsed => {
                // Without that approval policy would not have allowed it.
                let bundle = Some(self.allowed.bundle_digest());
                let decision = Decision { effect: Effect::Deny, policies: Vec::new(), bundle };
                let answer = Problem::new(
                    Code::PolicyDenied,
                    "an approval was used by another request meanwhile; ask the approver for a new one",
                );
                refuse(node, &self.caller, &self.order, answer, Some(decision), Vec::new()).await
            }
        }
    }
}

/// Records that an order is refused; the answer is its problem with its receipt, or that it could not be recorded.
async fn refuse(
    node: &Arc<Node>,
    caller: &Caller,
    order: &Order,
    problem: Problem,
    decision: Option<Decision>,
    approvals: Vec<LoggedApproval>,
) -> Problem {
    tracing::info!(
        event = "order_refused", op = order.op.as_str(), client = caller.client.name(), code = %problem.code,
        request = caller.request_id, "{}", problem.detail
    );
    let withheld = disclosure(Detail {
        decoded: serde_json::to_value(&order.act).ok(),
        reason: Some(Text::fitted(&problem.detail).to_string()),
    });
    let mut entry = Entry::refusal(order.op, origin(caller), Text::fitted(problem.code.as_str()))
        .about(order.key, None)
        .approved(approvals)
        .disclosing(withheld.clone());
    if let Some(decision) = decision {
        entry = entry.decided(decision);
    }
    let party = node.config.party.clone();
    let written = node
        .store
        .write(Urgency::Record, move |transaction| {
            let line = transaction.append(entry)?;
            receipt::promise(problem, &party, &line, &withheld)
        })
        .await;
    match written {
        Ok(problem) => receipt::fulfil(node, None, problem).await,
        Err(error) => unavailable(&error),
    }
}

fn origin(caller: &Caller) -> Origin {
    Origin { req: Text::fitted(&caller.request_id), actor: Text::fitted(caller.client.name()), session: None }
}
