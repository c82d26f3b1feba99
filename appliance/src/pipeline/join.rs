//! Join: the coordinator attaches the message stream, and all parties exchange hellos.

use std::sync::Arc;
use std::time::Instant;

use casemate_attest::Checkpoint;
use casemate_wire::envelope::{Limits, Local, SessionView};
use casemate_wire::{Code, SessionType};
use tokio::time::timeout;

use super::commit::{Committed, Parts};
use super::decide::Obligation;
use super::run::{End, Finished};
use super::understand::Act;
use crate::daemon::Node;
use crate::session::{Failure, Link, Place, Stream, max_body};
use crate::store::SessionRow;
use crate::witness::{Question, Seen, to_stated};

/// What a session keeps from its intent to its outcome.
pub(super) struct Case {
    pub(super) row: SessionRow,
    /// Where the peers' logs stood: each continues what was seen of it before.
    pub(super) seen: Vec<Seen>,
    /// When it was accepted.
    pub(super) begun: Instant,
    /// Whether anything that makes a signature can have left.
    pub(super) reach: Reach,
    place: Place,
}

/// How far a session came: what was reserved for it can be released only while nothing can have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The share was not opened: no message of the signing protocol was made.
    Unopened,
    /// The protocol ran; a signature share may have left.
    Opened,
}

impl Case {
    /// Ends the session.
    pub(super) fn end(self, stream: Option<Stream>, end: End) -> Finished {
        Finished { case: self, stream, end }
    }
}

/// A session in which all parties have proven who they are and that they agree on what is done. Only [`join`] makes one.
pub(super) struct Joined {
    pub(super) case: Case,
    pub(super) act: Act,
    pub(super) link: Link,
    /// What the peers were asked to prove of their logs.
    pub(super) question: Question,
    /// What policy's yes depends on.
    pub(super) obligation: Obligation,
}

/// Waits for the stream and exchanges hellos.
pub(super) async fn join(node: &Arc<Node>, committed: Committed) -> Result<Joined, Finished> {
    let Parts { token, act, row, obligation, mut place } = committed.into_parts();
    let begun = Instant::now();
    let Place { stream, withdrawal, .. } = &mut place;
    let attached = tokio::select! {
        biased;
        () = withdrawal.comes() => Err(Failure::withdrawn()),
        attached = timeout(node.config.limits.attach(), stream) => Ok(attached),
    };
    let case = Case { row, seen: Vec::new(), begun, reach: Reach::Unopened, place };
    let attached = match attached {
        Ok(attached) => attached,
        Err(withdrawn) => return Err(case.end(None, End::Failed(withdrawn))),
    };
    let Ok(Ok(stream)) = attached else {
        let detail = format!("no message stream was attached within {} s", node.config.limits.attach);
        return Err(case.end(None, End::Expired(Failure::new(Code::SessionExpired, detail))));
    };
    let claims = token.claims();
    let view = SessionView {
        session_id: claims.session_id.clone(),
        session_type: claims.session_type,
        share_type: claims.share_type,
        label: claims.label.clone(),
        key: claims.public_key,
        epoch: match &act {
            Act::Keygen { .. } => 0,
            Act::Sign(act) => act.header.key.epoch,
            Act::Rotate(act) => act.rotation.epoch,
        },
        threshold: token.threshold(),
        roster: token.roster().clone(),
        message_hash: claims.message_hash,
        derivation_path: claims.derivation_path.clone(),
        rotation: claims.rotation.clone(),
    };
    let question = Question::of(&node.witnesses, token.roster(), &node.config.party);
    let local = local(node, claims.session_type, &question, obligation);
    match Link::open(stream, view, local, &node.hsm, case.place.round.clone()).await {
        Ok(link) => Ok(Joined { case, act, link, question, obligation }),
        Err((stream, failure)) => Err(case.end(Some(stream), End::Failed(failure))),
    }
}

fn local(node: &Node, session_type: SessionType, question: &Question, obligation: Obligation) -> Local {
    Local {
        party: node.config.party.clone(),
        checkpoint: to_stated(&Checkpoint::of(&node.store.audit_head())),
        witnessed: question.to_witnessed(),
        attest: obligation == Obligation::PeersAttested,
        clock_skew: node.config.limits.clock_skew(),
        limits: Limits { max_body: max_body(session_type), ..Limits::default() },
    }
}
