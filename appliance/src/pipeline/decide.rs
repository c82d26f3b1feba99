//! Decide: policy says yes, or the request ends here.

use std::collections::BTreeSet;
use std::sync::Arc;

use casemate_attest::{Approval as LoggedApproval, Text, Tx};
use casemate_hsm::HsmState;
use casemate_policy::approval::{
    self, Counted, CountedApproval, Expected, KeygenParameters, Participant, RotateParameters, SignParameters, Slot,
};
use casemate_policy::bundle::SignedBundle;
use casemate_policy::{Action, Allowed, Approvals, Client, Denied, NewRoster, Request, SessionFacts, Signing, Verdict};
use casemate_wire::api::Approval;
use casemate_wire::{Code, Digest32, Member, Problem, Roster};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ask::{Caller, unavailable};
use super::refused::Refused;
use super::understand::{Act, Understood};
use crate::daemon::Node;
use crate::store::{StoreError, approval_used};
use crate::till::{Reservation, Till};

/// A request that policy allows. Only [`decide`] makes one.
pub(super) struct Authorized {
    understood: Understood,
    grant: Grant,
}

/// What policy's yes depends on: it must hold before a share is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Obligation {
    /// Nothing more.
    Nothing,
    /// Every peer has attested itself well.
    PeersAttested,
}

/// What a request was allowed by, and what it uses up.
pub(super) struct Grant {
    pub(super) allowed: Allowed,
    pub(super) obligation: Obligation,
    /// The approvals that counted.
    pub(super) approvals: Vec<CountedApproval>,
    /// What a signature spends at most.
    pub(super) reservation: Option<Reservation>,
}

impl Authorized {
    pub(super) fn into_parts(self) -> (Understood, Grant) {
        (self.understood, self.grant)
    }
}

/// Asks the active bundle. Without a bundle, an HSM or a clock to trust, or on any error, the answer is no.
pub(super) async fn decide(node: &Arc<Node>, understood: Understood) -> Result<Authorized, Refused> {
    if let Err(problem) = ready(node) {
        return Err(understood.into_parts().0.refuse(problem));
    }
    let used = match used_approvals(node, &understood).await {
        Ok(used) => used,
        Err(error) => return Err(understood.into_parts().0.refuse(unavailable(&error))),
    };
    let bundle = node.policy.active();
    let (asked, till) = (node.clone(), node.till.clone());
    // The evaluator works on a thread with a large stack and is waited for off the network threads.
    let judged = tokio::task::spawn_blocking(move || {
        let judged = judge(&asked, bundle.as_deref(), &till, &understood, &used);
        (understood, judged)
    });
    let (understood, Judged { verdict, obligation, counted, reservation }) = match judged.await {
        Ok(judged) => judged,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    };
    match verdict {
        Verdict::Allow(allowed) => {
            node.metrics.decided("allow", allowed.policies());
            let grant = Grant { allowed, obligation, approvals: counted.counted, reservation };
            Ok(Authorized { understood, grant })
        }
        Verdict::Deny(denied) => {
            node.metrics.decided("deny", denied.policies());
            let (tx, decoded) = (tx(&understood), decoded(&understood));
            let (authenticated, _) = understood.into_parts();
            let approvals = counted.counted.iter().map(logged_approval).collect();
            Err(authenticated
                .refuse(problem(&denied, &counted))
                .about(tx, decoded)
                .decided(&denied)
                .approved(approvals))
        }
    }
}

/// Whether anything can be decided at this moment.
pub(super) fn ready(node: &Node) -> Result<(), Problem> {
    node.clock.check().map_err(|why| Problem::new(Code::ClockUntrusted, why))?;
    if node.hsm.state() == HsmState::Ready {
        return Ok(());
    }
    Err(Problem::new(Code::HsmUnavailable, "the HSM is not available; health says since when and why"))
}

async fn used_approvals(node: &Node, understood: &Understood) -> Result<BTreeSet<Digest32>, StoreError> {
    used_of(node, understood.authenticated().ask().approvals()).await
}

/// Which of these statements were used up before.
pub(super) async fn used_of(node: &Node, approvals: &[Approval]) -> Result<BTreeSet<Digest32>, StoreError> {
    let statements: Vec<Digest32> = approvals.iter().map(|one| approval::statement_digest(one.statement())).collect();
    if statements.is_empty() {
        return Ok(BTreeSet::new());
    }
    node.store
        .read(move |store| {
            let mut used = BTreeSet::new();
            for statement in statements {
                if approval_used(store, &statement)? {
                    used.insert(statement);
                }
            }
            Ok(used)
        })
        .await
}

struct Judged {
    verdict: Verdict,
    obligation: Obligation,
    counted: Counted,
    reservation: Option<Reservation>,
}

/// Counts the approvals, reserves what a signature would spend, and asks policy about both.
fn judge(
    node: &Node,
    bundle: Option<&SignedBundle>,
    till: &Till,
    understood: &Understood,
    used: &BTreeSet<Digest32>,
) -> Judged {
    let now = Timestamp::now();
    let mut request = request(understood, now);
    let Some(bundle) = bundle else {
        let verdict = casemate_policy::decide(None, &request);
        return Judged { verdict, obligation: Obligation::Nothing, counted: Counted::default(), reservation: None };
    };
    let act = approvable(understood);
    let expected = Expected { act: &act, bundle: bundle.bundle().digest(), now };
    let asked = understood.authenticated().ask().approvals();
    let counted = approval::count(asked, &expected, &node.config.approvers, |statement| used.contains(statement));
    request.approvals = counted.approvals.clone();
    let Some(signing) = signing(understood) else {
        let (verdict, obligation) = ruling(bundle, &mut request);
        return Judged { verdict, obligation, counted, reservation: None };
    };
    // Without its totals a request to sign is denied, so an error here cannot be overlooked.
    let looked = till.look(bundle.bundle(), &signing, now).ok();
    request.spent = looked.as_ref();
    let (verdict, obligation) = ruling(bundle, &mut request);
    if matches!(verdict, Verdict::Deny(_)) {
        return Judged { verdict, obligation, counted, reservation: None };
    }
    // Others may have reserved since: what counts is judged with everything that stands before it.
    let reservation = till.reserve(bundle.bundle(), &signing, now).ok();
    request.spent = reservation.as_ref().map(Reservation::totals);
    let (verdict, obligation) = ruling(bundle, &mut request);
    Judged { verdict, obligation, counted, reservation }
}

/// Nobody has attested itself yet when policy is asked. Where that alone is missing, the answer is yes, on that condition.
fn ruling(bundle: &SignedBundle, request: &mut Request<'_>) -> (Verdict, Obligation) {
    request.peers_attested = false;
    let as_it_stands = bundle.decide(request);
    if matches!(as_it_stands, Verdict::Allow(_)) {
        return (as_it_stands, Obligation::Nothing);
    }
    request.peers_attested = true;
    let attested = bundle.decide(request);
    request.peers_attested = false;
    match attested {
        Verdict::Allow(_) => (attested, Obligation::PeersAttested),
        Verdict::Deny(_) => (as_it_stands, Obligation::Nothing),
    }
}

/// What is to be signed, for the windows.
fn signing(understood: &Understood) -> Option<Signing<'_>> {
    let Act::Sign(act) = understood.act() else { return None };
    let claims = understood.authenticated().token().claims();
    Some(Signing {
        session: claims.session_id.clone(),
        key: act.header.key.public_key,
        label: act.header.label.as_deref(),
        derivation_path: claims.derivation_path.as_deref(),
        message_hash: act.digest,
        understood: act.intent.as_ref(),
    })
}

/// What people must have approved, to the last field.
fn approvable(understood: &Understood) -> approval::Act {
    let token = understood.authenticated().token();
    match understood.act() {
        Act::Sign(act) => approval::Act::Sign {
            key: act.header.key.public_key,
            parameters: SignParameters {
                message_hash: act.digest,
                derivation_path: token.claims().derivation_path.clone(),
            },
        },
        Act::Rotate(act) => approval::Act::Rotate {
            key: act.key,
            parameters: RotateParameters {
                participants: participants(&act.committee),
                threshold_t: token.threshold().t(),
                epoch: act.rotation.epoch,
                from_epoch: act.rotation.from_epoch,
                auxiliary: act.rotation.auxiliary,
            },
        },
        Act::Keygen { slot } => approval::Act::Keygen {
            slot: Slot {
                share_type: slot.kind,
                threshold_t: slot.threshold_t,
                threshold_n: slot.threshold_n,
                label: slot.label.clone(),
            },
            parameters: KeygenParameters { participants: participants(token.roster()) },
        },
    }
}

fn participants(roster: &Roster) -> Vec<Participant> {
    let one = |member: &Member| Participant { party_id: member.party_id.clone(), identity: member.identity.clone() };
    roster.members().iter().map(one).collect()
}

/// A counted approval as the audit log has it.
pub(super) fn logged_approval(counted: &CountedApproval) -> LoggedApproval {
    LoggedApproval {
        name: Text::fitted(counted.approver.as_str()),
        org: Text::fitted(counted.approver.org()),
        statement: counted.statement,
    }
}

fn request(understood: &Understood, now: Timestamp) -> Request<'_> {
    let authenticated = understood.authenticated();
    let token = authenticated.token();
    let (action, intent, derivation_path) = match understood.act() {
        Act::Keygen { .. } => (Action::Keygen, None, None),
        Act::Sign(act) => (Action::Sign, act.intent.as_ref(), token.claims().derivation_path.clone()),
        Act::Rotate(_) => (Action::Rotate, None, None),
    };
    let new_roster = match understood.act() {
        Act::Rotate(act) => Some(NewRoster {
            parties: act.committee.members().iter().map(|member| member.party_id.to_string()).collect(),
            threshold_t: token.threshold().t(),
            threshold_n: token.threshold().n(),
        }),
        Act::Keygen { .. } | Act::Sign(_) => None,
    };
    let names = token.roster().members().iter().map(|member| member.party_id.to_string());
    Request {
        principal: client(authenticated.caller()),
        action,
        resource: understood.resource(),
        understood: intent,
        approvals: Approvals::none(),
        spent: None,
        time: now,
        session: SessionFacts {
            participants: names.collect(),
            threshold_t: token.threshold().t(),
            devices: BTreeSet::new(),
            new_roster,
        },
        derivation_path,
        peers_attested: false,
    }
}

fn client(caller: &Caller) -> Client {
    policy_client(&caller.client)
}

/// A configured client as policies see it.
pub(crate) fn policy_client(client: &crate::clients::Client) -> Client {
    Client {
        name: client.name().to_owned(),
        roles: client.roles().iter().map(|role| role.as_str().to_owned()).collect(),
        org: client.org().to_owned(),
    }
}

/// The longest decoded form that a leaf takes, in bytes of JSON, and its deepest; beyond them it holds a digest.
const MAX_DECODED: usize = 32 * 1024;
const MAX_DEPTH: usize = 12;

/// What the audit log says of a signature: the digest, and which child of the key signs.
pub(super) fn tx(understood: &Understood) -> Option<Tx> {
    let Act::Sign(act) = understood.act() else { return None };
    let claims = understood.authenticated().token().claims();
    let path = claims.derivation_path.as_deref().map(Text::fitted);
    Some(Tx { digest: claims.message_hash?, path, child: act.child })
}

/// Everything that was decoded of a signature: what the audit log only commits to.
pub(super) fn decoded(understood: &Understood) -> Option<Value> {
    let Act::Sign(act) = understood.act() else { return None };
    let decoded = act.intent.as_ref().map_or_else(|| json!({"blind": true}), casemate_policy::Understood::describe);
    let text = decoded.to_string();
    if text.len() <= MAX_DECODED && depth(&decoded) <= MAX_DEPTH {
        return Some(decoded);
    }
    // A request that is too large for the log must not escape it.
    let kind = decoded.get("type").cloned().unwrap_or_default();
    Some(json!({"type": kind, "decoded_bytes": text.len(), "decoded_sha256": crate::digest(text.as_bytes())}))
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// A denial as it is answered.
pub(super) fn problem(denied: &Denied, counted: &Counted) -> Problem {
    let ids: Vec<&str> = denied.policies().iter().map(|note| note.id.as_str()).collect();
    let names: Vec<&str> = counted.counted.iter().map(|one| one.approver.as_str()).collect();
    let ignored: Vec<String> = counted.ignored.iter().map(ToString::to_string).collect();
    Problem::new(denied.code(), denied.reason())
        .with("policies", ids)
        .with("observed", denied.observed().to_vec())
        .with("permitted", denied.permitted())
        .with("approvals", json!({"counted": names, "ignored": ignored}))
        .with("bundle", denied.bundle_digest().map(|digest| digest.to_string()))
}
