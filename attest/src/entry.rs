//! What may be said in a log: one constructor for each phase, so that a field that a phase needs cannot be forgotten.

use casemate_wire::{PublicKey, SessionId, Threshold};

use crate::detail::Disclosure;
use crate::leaf::{Approval, Decision, GuardChange, Leaf, Op, Outcome, PeerCheckpoint, Phase, Recovery, Tx};
use crate::rewrap::Rewrap;
use crate::text::Text;

/// Something to be logged; [`crate::Head::append`] gives it its place and its time.
#[derive(Debug, Clone)]
pub struct Entry {
    pub(crate) op: Op,
    pub(crate) phase: Phase,
    pub(crate) req: Option<Text>,
    pub(crate) session: Option<SessionId>,
    pub(crate) actor: Option<Text>,
    pub(crate) key: Option<PublicKey>,
    pub(crate) tx: Option<Tx>,
    pub(crate) decision: Option<Decision>,
    pub(crate) approvals: Vec<Approval>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) guards: Vec<GuardChange>,
    pub(crate) peers: Vec<PeerCheckpoint>,
    pub(crate) disclosure: Option<Disclosure>,
    pub(crate) recovery: Option<Recovery>,
    pub(crate) rewrap: Option<Rewrap>,
}

/// Where a request came from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The request's id.
    pub req: Text,
    /// Who asked: the client's configured name.
    pub actor: Text,
    /// The session, where the request named one.
    pub session: Option<SessionId>,
}

/// What an intent is about to do.
#[derive(Debug, Clone)]
pub enum Act {
    /// Make a key.
    Keygen,
    /// Make the shares of this key anew.
    Rotate {
        /// The key.
        key: PublicKey,
    },
    /// Sign one digest.
    Sign {
        /// With this key.
        key: PublicKey,
        /// This.
        tx: Tx,
    },
}

/// Proof that an intent stands in the log, to be spent on its one outcome.
///
/// It is not `Clone`. After a restart, [`crate::Line::intent`] makes it again from a stored intent without an outcome.
#[derive(Debug, PartialEq, Eq)]
pub struct IntentRef {
    op: Op,
    req: Option<Text>,
    session: Option<SessionId>,
    key: Option<PublicKey>,
}

impl IntentRef {
    pub(crate) fn of(leaf: &Leaf) -> Option<Self> {
        (leaf.phase == Phase::Intent).then(|| Self {
            op: leaf.op,
            req: leaf.req.clone(),
            session: leaf.session.clone(),
            key: leaf.key,
        })
    }

    /// The session that the intent opened.
    pub fn session(&self) -> Option<&SessionId> {
        self.session.as_ref()
    }

    /// What was intended.
    pub fn op(&self) -> Op {
        self.op
    }
}

impl Entry {
    /// Before an act. `decision` must allow it, by named policies of a bundle: `append` refuses any other.
    pub fn intent(act: Act, origin: Origin, decision: Decision) -> Self {
        let (op, key, tx) = match act {
            Act::Keygen => (Op::Keygen, None, None),
            Act::Rotate { key } => (Op::Rotate, Some(key), None),
            Act::Sign { key, tx } => (Op::Sign, Some(key), Some(tx)),
        };
        let entry = Self { key, tx, decision: Some(decision), ..Self::bare(op, Phase::Intent) };
        entry.asked_by(origin)
    }

    /// After an act that an intent announced.
    pub fn outcome(intent: IntentRef, outcome: Outcome) -> Self {
        let IntentRef { op, req, session, key } = intent;
        Self { req, session, key, outcome: Some(outcome), ..Self::bare(op, Phase::Outcome) }
    }

    /// After a keygen that made `key`, with which `threshold` parties sign: so the logs themselves say how many decisions a
    /// signature needs.
    pub fn key_made(intent: IntentRef, key: PublicKey, threshold: Threshold) -> Self {
        Self { key: Some(key), ..Self::outcome(intent, Outcome::key_made(threshold)) }
    }

    /// After a rotation to `epoch`, from which on `threshold` parties sign. The intent named the key.
    pub fn rotated(intent: IntentRef, threshold: Threshold, epoch: u64) -> Self {
        Self::outcome(intent, Outcome::rotated(threshold, epoch))
    }

    /// What was asked and is not done, with the stable code of the answer. Why, in words, belongs into its
    /// [detail](Entry::disclosing).
    pub fn refusal(op: Op, origin: Origin, code: Text) -> Self {
        let entry = Self { outcome: Some(Outcome::refused(code)), ..Self::bare(op, Phase::Refusal) };
        entry.asked_by(origin)
    }

    /// A change by the daemon itself, or by an operator (then with [`Entry::asked_by`]).
    pub fn admin(op: Op) -> Self {
        Self::bare(op, Phase::Admin)
    }

    /// One end of a re-wrapping: before its first row, or after its last.
    pub fn rewrap(rewrap: Rewrap) -> Self {
        Self { rewrap: Some(rewrap), ..Self::admin(Op::Rewrap) }
    }

    /// A policy bundle that was not taken, so that nothing changed: `code` says why.
    pub fn policy_refused(code: Text) -> Self {
        Self { outcome: Some(Outcome::refused(code)), ..Self::admin(Op::Policy) }
    }

    /// A start of the daemon.
    pub fn boot() -> Self {
        Self::bare(Op::Boot, Phase::Boot)
    }

    /// The first leaf of a log.
    pub fn genesis() -> Self {
        Self::bare(Op::Init, Phase::Genesis)
    }

    /// Says what a new log takes the place of, and who signed for that, in its genesis.
    #[must_use]
    pub fn recovering(mut self, recovery: Recovery, signers: Vec<Approval>) -> Self {
        self.recovery = Some(recovery);
        self.approvals = signers;
        self
    }

    /// Adds what is sensitive: the leaf commits to it, and the store keeps it beside the log.
    #[must_use]
    pub fn disclosing(mut self, disclosure: Disclosure) -> Self {
        self.disclosure = Some(disclosure);
        self
    }

    /// What is to be kept beside the leaf.
    pub fn disclosure(&self) -> Option<&Disclosure> {
        self.disclosure.as_ref()
    }

    /// Says who asked.
    #[must_use]
    pub fn asked_by(mut self, origin: Origin) -> Self {
        self.req = Some(origin.req);
        self.actor = Some(origin.actor);
        self.session = origin.session;
        self
    }

    /// Adds what was asked to be signed and with which key, to a refusal; or whose shares are withdrawn, to a revocation.
    #[must_use]
    pub fn about(mut self, key: Option<PublicKey>, tx: Option<Tx>) -> Self {
        self.key = key;
        self.tx = tx;
        self
    }

    /// Adds what policy said, to a refusal or to an operator's act.
    #[must_use]
    pub fn decided(mut self, decision: Decision) -> Self {
        self.decision = Some(decision);
        self
    }

    /// Adds the approvals that were counted, to an intent, a refusal or an operator's act; each person stands there once.
    ///
    /// In an operator's act, and in the intent of anything but a signature, each one is used up: [`Entry::guarding`] must
    /// say so for every statement, and for no other.
    #[must_use]
    pub fn approved(mut self, approvals: Vec<Approval>) -> Self {
        self.approvals = approvals;
        self
    }

    /// Adds changes of guards: all that the same database transaction makes.
    #[must_use]
    pub fn guarding(mut self, guards: Vec<GuardChange>) -> Self {
        self.guards = guards;
        self
    }

    /// Adds the peers' checkpoints, each of which was found to continue what had been seen of that log before.
    #[must_use]
    pub fn witnessing(mut self, peers: Vec<PeerCheckpoint>) -> Self {
        self.peers = peers;
        self
    }

    fn bare(op: Op, phase: Phase) -> Self {
        Self {
            op,
            phase,
            req: None,
            session: None,
            actor: None,
            key: None,
            tx: None,
            decision: None,
            approvals: Vec::new(),
            outcome: None,
            guards: Vec::new(),
            peers: Vec::new(),
            disclosure: None,
            recovery: None,
            rewrap: None,
        }
    }
}
