//! Decide: policy says yes, or the request ends here.

use std::collections::BTreeSet;
use std::sync::Arc;

use casemate_attest::Tx;
use casemate_hsm::HsmState;
use casemate_policy::{Action, Allowed, Approvals, Client, Denied, Request, SessionFacts, Verdict};
use casemate_wire::{Code, Digest32, Problem};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ask::Caller;
use super::refused::Refused;
use super::understand::{Act, Understood};
use crate::daemon::Node;

/// A request that policy allows. Only [`decide`] makes one.
pub(super) struct Authorized {
    understood: Understood,
    allowed: Allowed,
}

impl Authorized {
    pub(super) fn into_parts(self) -> (Understood, Allowed) {
        (self.understood, self.allowed)
    }
}

/// Asks the active bundle. Without a bundle, an HSM or a clock to trust, or on any error, the answer is no.
pub(super) async fn decide(node: &Arc<Node>, understood: Understood) -> Result<Authorized, Refused> {
    if let Err(why) = node.clock.check() {
        let problem = Problem::new(Code::ClockUntrusted, why);
        return Err(understood.into_parts().0.refuse(problem));
    }
    if node.hsm.state() != HsmState::Ready {
        let detail = "the HSM is not available; health says since when and why";
        return Err(understood.into_parts().0.refuse(Problem::new(Code::HsmUnavailable, detail)));
    }
    let bundle = node.policy.active();
    // The evaluator works on a thread with a large stack and is waited for off the network threads.
    let judged = tokio::task::spawn_blocking(move || {
        let verdict = casemate_policy::decide(bundle.as_deref(), &request(&understood));
        (understood, verdict)
    });
    let (understood, verdict) = match judged.await {
        Ok(judged) => judged,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    };
    match verdict {
        Verdict::Allow(allowed) => {
            node.metrics.decided("allow", allowed.policies());
            Ok(Authorized { understood, allowed })
        }
        Verdict::Deny(denied) => {
            node.metrics.decided("deny", denied.policies());
            let tx = tx(&understood);
            let (authenticated, _) = understood.into_parts();
            Err(authenticated.refuse(problem(&denied)).about(tx).decided(&denied))
        }
    }
}

fn request(understood: &Understood) -> Request<'_> {
    let authenticated = understood.authenticated();
    let token = authenticated.token();
    let (action, intent, derivation_path) = match understood.act() {
        Act::Keygen { .. } => (Action::Keygen, None, None),
        Act::Sign(act) => (Action::Sign, act.intent.as_ref(), token.claims().derivation_path.clone()),
    };
    let names = token.roster().members().iter().map(|member| member.party_id.to_string());
    Request {
        principal: client(authenticated.caller()),
        action,
        resource: understood.resource(),
        understood: intent,
        spent: None,
        approvals: Approvals::none(),
        time: Timestamp::now(),
        session: SessionFacts {
            participants: names.collect(),
            threshold_t: token.threshold().t(),
            devices: BTreeSet::new(),
            new_roster: None,
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

/// What the audit log says of a signature: the digest and everything that was decoded.
pub(super) fn tx(understood: &Understood) -> Option<Tx> {
    let Act::Sign(act) = understood.act() else { return None };
    let claims = understood.authenticated().token().claims();
    let digest: Digest32 = claims.message_hash?;
    let mut decoded = act.intent.as_ref().map_or_else(|| json!({"blind": true}), casemate_policy::Understood::describe);
    if let (Value::Object(fields), Some(path)) = (&mut decoded, &claims.derivation_path) {
        fields.insert("derivation_path".into(), path.as_str().into());
    }
    Some(Tx { digest, decoded: Some(decoded) })
}

fn problem(denied: &Denied) -> Problem {
    let ids: Vec<&str> = denied.policies().iter().map(|note| note.id.as_str()).collect();
    Problem::new(denied.code(), denied.reason())
        .with("policies", ids)
        .with("observed", denied.observed().to_vec())
        .with("permitted", denied.permitted())
        .with("bundle", denied.bundle_digest().map(|digest| digest.to_string()))
}
