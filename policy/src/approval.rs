//! Approvals: which of a request's signed statements count.
//!
//! An approver signs a [`Statement`] with `ssh-keygen -Y sign -n casemate-approval` (`casemate approve` does it). It counts if
//! the signature is good, its key is an approver's, and it approves exactly this act, under exactly this bundle, at this time.
//! People are counted, not keys and not statements. What does not count is ignored, and says why: a stale approval among good
//! ones is no reason to refuse, and policies judge by what counted.

use casemate_wire::Digest32;
use casemate_wire::api::{Approval, MAX_APPROVALS};
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

mod statement;

pub use statement::{
    Act, BackupParameters, InvalidNonce, InvalidStatement, KeygenParameters, Nonce, Participant, RevokeParameters,
    RotateParameters, SignParameters, Slot, Statement,
};

use crate::request::Approvals;
use crate::signers::{AllowedSigners, Namespace, Principal, SignatureError, verify};

/// The longest that an approval may live from now on. One that outlives the reason it was given for is a danger.
pub const MAX_LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What approvals must approve to count.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The act that is asked for.
    pub act: &'a Act,
    /// The digest of the active bundle.
    pub bundle: Digest32,
    /// The appliance's wall clock.
    pub now: Timestamp,
}

/// What came of a request's approvals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Counted {
    /// For policies.
    pub approvals: Approvals,
    /// Who approved by which statement, in the order of the request: for the audit log. Unless a signature is asked for,
    /// the caller records every statement as used in the transaction that commits the act, and gives up if one is.
    pub counted: Vec<CountedApproval>,
    /// What did not count.
    pub ignored: Vec<IgnoredApproval>,
}

/// One approval that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedApproval {
    /// Who.
    pub approver: Principal,
    /// The statement's digest; see [`statement_digest`].
    pub statement: Digest32,
}

/// One approval that does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("approval {index} does not count: {why}")]
pub struct IgnoredApproval {
    /// Its place in the request, from 0.
    pub index: usize,
    /// Why not.
    pub why: NotCounted,
}

/// Why an approval does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCounted {
    /// Behind the last place that is looked at.
    #[error("a request takes at most {MAX_APPROVALS} approvals")]
    TooMany,
    /// The signature is not good, or not an approver's.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// What was signed is no statement.
    #[error(transparent)]
    Statement(#[from] InvalidStatement),
    /// Another act was approved.
    #[error("it approves something else: {0} differs")]
    Foreign(&'static str),
    /// It was given under another policy.
    #[error("it was given under the policy bundle {given}, but {active} is active: approve again")]
    Bundle {
        /// The statement's.
        given: Digest32,
        /// The active one.
        active: Digest32,
    },
    /// Too old.
    #[error("it expired at {0}: approve again")]
    Expired(Timestamp),
    /// Valid for too long.
    #[error("it expires at {0}, more than 7 days from now: approve for a shorter time")]
    LivesTooLong(Timestamp),
    /// Used up.
    #[error("it was used before, and counts once")]
    Used,
    /// The same person again.
    #[error("{0} has approved already, and each person counts once")]
    SamePerson(Principal),
}

/// Finds out which approvals count. `used` says whether a statement was used up; it is asked for every act but signing.
///
/// # Security
/// Pure: two requests at the same moment can both see a statement as unused. Only the transaction that commits the act can
/// decide between them; see [`Counted::counted`].
pub fn count(
    items: &[Approval],
    expected: &Expected<'_>,
    approvers: &AllowedSigners,
    used: impl Fn(&Digest32) -> bool,
) -> Counted {
    let mut all = Counted::default();
    for (index, item) in items.iter().enumerate() {
        let judged =
            if index < MAX_APPROVALS { judge(item, expected, approvers, &used) } else { Err(NotCounted::TooMany) };
        match judged {
            Ok(approval) if all.approvals.names.contains(approval.approver.as_str()) => {
                let why = NotCounted::SamePerson(approval.approver);
                all.ignored.push(IgnoredApproval { index, why });
            }
            Ok(approval) => {
                all.approvals.names.insert(approval.approver.as_str().to_owned());
                all.counted.push(approval);
            }
            Err(why) => all.ignored.push(IgnoredApproval { index, why }),
        }
    }
    let orgs: std::collections::BTreeSet<&str> = all.counted.iter().map(|one| one.approver.org()).collect();
    all.approvals.count = small(all.counted.len());
    all.approvals.distinct_orgs = small(orgs.len());
    all
}

/// At most [`MAX_APPROVALS`] are counted, which always fits.
fn small(count: usize) -> u16 {
    u16::try_from(count).unwrap_or_default()
}

/// What a statement is known by once it is used: the SHA-256 of its exact text.
pub fn statement_digest(text: &str) -> Digest32 {
    Digest32(Sha256::digest(text).into())
}

fn judge(
    item: &Approval,
    expected: &Expected<'_>,
    approvers: &AllowedSigners,
    used: &impl Fn(&Digest32) -> bool,
) -> Result<CountedApproval, NotCounted> {
    let text = item.statement();
    // Nothing is parsed that no approver signed.
    let key = verify(item.signature().as_bytes(), text.as_bytes(), Namespace::Approval, approvers, expected.now)?;
    let statement = Statement::parse(text)?;
    if let Some(what) = difference(&statement.act, expected.act) {
        return Err(NotCounted::Foreign(what));
    }
    if statement.bundle != expected.bundle {
        return Err(NotCounted::Bundle { given: statement.bundle, active: expected.bundle });
    }
    if statement.expires < expected.now {
        return Err(NotCounted::Expired(statement.expires));
    }
    if statement.expires.duration_since(expected.now) > MAX_LIFE {
        return Err(NotCounted::LivesTooLong(statement.expires));
    }
    let digest = statement_digest(text);
    if expected.act.counts_once() && used(&digest) {
        return Err(NotCounted::Used);
    }
    Ok(CountedApproval { approver: key.principal().clone(), statement: digest })
}

/// The first thing in which two acts differ; nothing if they are equal.
fn difference(approved: &Act, asked: &Act) -> Option<&'static str> {
    if approved == asked {
        return None;
    }
    Some(match (approved, asked) {
        (Act::Sign { key, .. }, Act::Sign { key: asked, .. })
        | (Act::Rotate { key, .. }, Act::Rotate { key: asked, .. })
        | (Act::Revoke { key, .. }, Act::Revoke { key: asked, .. })
            if key != asked =>
        {
            "the key"
        }
        (Act::Sign { parameters, .. }, Act::Sign { parameters: asked, .. }) => {
            if parameters.message_hash == asked.message_hash { "the derivation path" } else { "the message hash" }
        }
        (Act::Keygen { slot, .. }, Act::Keygen { slot: asked, .. }) if slot != asked => {
            "the new key's kind, threshold or label"
        }
        (Act::Keygen { .. }, Act::Keygen { .. }) => "the list of participants",
        (Act::Rotate { parameters, .. }, Act::Rotate { parameters: asked, .. }) => rotations_differ(parameters, asked),
        (Act::Revoke { .. }, Act::Revoke { .. }) => "the party or the reason",
        (Act::Backup { .. }, Act::Backup { .. }) => "the party or the list of recipients",
        _ => "the action",
    })
}

fn rotations_differ(approved: &RotateParameters, asked: &RotateParameters) -> &'static str {
    if approved.auxiliary != asked.auxiliary {
        "what becomes of the auxiliary information"
    } else if approved.from_epoch != asked.from_epoch {
        "the epoch that is dealt from"
    } else {
        "the new roster, threshold or epoch"
    }
}
