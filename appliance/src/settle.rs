//! Settling a rotation: whoever missed its end switches by what proves it, and old shares are destroyed once all have switched.
//!
//! Nothing here rests on who asks. A [`Succession`] is signed by every new party, each of which held its share durably by then;
//! the word of a party that it has [`Switched`] is signed by that party. Nothing is ever destroyed by the passing of time.
//!
//! ```text
//! succession ─ proven ─► adopt a pending share | step back as a party that left ─► switched by all ─► destroy
//! ```

use casemate_attest::life::{ShareState, Transition};
use casemate_attest::{Entry, GuardChange, Op, Origin, Text};
use casemate_hsm::KeyPurpose;
use casemate_wire::api::{SettleAnswer, SettleRequest};
use casemate_wire::certificate::{CertificateError, IdentitySignature};
use casemate_wire::lineage::leads_on;
use casemate_wire::rotation::{Switched, all_switched, switched_text};
use casemate_wire::{Code, Committee, KeyCertificate, Member, Problem, PublicKey, Succession};
use rusqlite::Connection;
use tokio::task::block_in_place;

use crate::daemon::Node;
use crate::pipeline::{ShareHeader, unavailable};
use crate::sealing;
use crate::store::{ShareRow, StoreError, Transaction, Urgency, newest_epoch};

/// A succession whose every new party is pinned here and has signed.
struct Proven {
    succession: Succession,
    /// How the key came to it, with itself as the last.
    path: Vec<Succession>,
}

/// What is to be done with the shares of a key.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// A pending share that becomes active.
    adopt: Option<String>,
    /// A share that was adopted without the dealers' signatures.
    endorse: Option<String>,
    /// The share that signed, at a party that has left.
    step_back: bool,
    /// Superseded shares that nobody needs any more.
    destroy: Vec<(String, Transition)>,
}

/// Takes what a rotation has proven: adopts, steps back, destroys, and gives the own word that it has switched.
///
/// # Errors
/// `quorum_mismatch` where the succession proves nothing here, `share_not_found` where the key is not known, `epoch_taken` where this
/// party has gone on to a later epoch, `hsm_unavailable`, or that nothing can be recorded.
pub(crate) async fn settle(node: &Node, origin: Origin, request: SettleRequest) -> Result<SettleAnswer, Problem> {
    let SettleRequest { succession, earlier, switched } = request;
    let key = succession.certificate.statement.public_key;
    let shares = node.store.read_anchored(move |store| ShareRow::all_of_key(store, &key));
    let known = shares.await.map_err(|e| unavailable(&e))?;
    if known.is_empty() {
        let detail = format!("there is no share of key {key} here, so there is nothing to settle");
        return Err(Problem::new(Code::ShareNotFound, detail));
    }
    if known.iter().all(|share| share.status.is_final()) {
        return Ok(SettleAnswer { party_id: node.config.party.clone(), switched: None, old_shares: 0 });
    }
    // Some hundred signatures at most: enough to hold up others on this thread.
    let (proven, standing) = block_in_place(|| {
        let proven = prove(node, succession, earlier)?;
        let standing = check_standing(node, &proven, &known)?;
        Ok::<_, Problem>((proven, standing))
    })?;
    if standing == Standing::Parent {
        let (epoch, advice) = (
            proven.succession.certificate.statement.epoch,
            "compare the logs; then revoke the share that is left here",
        );
        tracing::warn!(event = "committee_gives_way", %key, epoch, advice);
    }
    let all = standing == Standing::Own && all_switched(&proven.succession.certificate, &switched).is_ok();
    let certificate = proven.succession.certificate.clone();
    let written =
        node.store.write(Urgency::Record, move |transaction| carry_out(transaction, &proven, all, origin)).await;
    let (left, done) = match written {
        Ok(written) => written,
        Err(StoreError::Outdated(why)) => return Err(late(node, key, &why).await),
        Err(error) => return Err(unavailable(&error)),
    };
    for change in done {
        let (share, state) = (change.id, change.to.as_ref().map(Text::as_str).unwrap_or_default());
        tracing::info!(event = "share_settled", %share, state, epoch = certificate.statement.epoch);
    }
    Ok(SettleAnswer {
        party_id: node.config.party.clone(),
        switched: word(node, &certificate).await?,
        old_shares: left,
    })
}

/// The answer to the end of a rotation that comes after this party has gone on.
async fn late(node: &Node, key: PublicKey, why: &str) -> Problem {
    match node.store.read(move |store| newest_epoch(store, &key)).await {
        Ok(epoch) => {
            let detail = format!("this rotation is overtaken, settle the later one: {why}; nothing was changed");
            Problem::new(Code::EpochTaken, detail).with("epoch", epoch)
        }
        Err(error) => unavailable(&error),
    }
}

fn prove(node: &Node, succession: Succession, earlier: Vec<Succession>) -> Result<Proven, Problem> {
    let certificate = &succession.certificate;
    certificate
        .verify(|member| node.config.known_member(member, &node.identity))
        .map_err(|error| Problem::new(Code::QuorumMismatch, format!("the succession proves nothing here: {error}")))?;
    let path = earlier.into_iter().chain([succession.clone()]).collect();
    Ok(Proven { succession, path })
}

/// On whose word a succession is believed, and so what may follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// This party's own signature is in it, or t parties of its own committee stand behind it: old shares may be destroyed.
    Own,
    /// t parties of the committee that its share was dealt from do: it gives way, and what it has is kept. Those parties may have
    /// left long ago, and identity keys alone must not destroy what may be the only shares.
    Parent,
}

/// A party that holds no share of the new epoch believes that the key has moved on only if t parties of its own committee say so, or of
/// the one that its share was dealt from, or of one that these have led to: the new parties alone might be strangers to it.
fn check_standing(node: &Node, proven: &Proven, shares: &[ShareRow]) -> Result<Standing, Problem> {
    let statement = &proven.succession.certificate.statement;
    if shares.iter().any(|share| share.statement == *statement) {
        return Ok(Standing::Own);
    }
    let live = |share: &&ShareRow| matches!(share.status, ShareState::Active | ShareState::Restored);
    let kept = |share: &&ShareRow| !share.status.is_final();
    // They are in order: the newest first.
    let Some(share) = shares.iter().find(live).or_else(|| shares.iter().find(kept)) else {
        return Ok(Standing::Own);
    };
    let header: ShareHeader = sealing::header("share", share.material.header())
        .map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    let signed_as = |member: &Member| node.config.known_member(member, &node.identity);
    let endorses_as = |member: &Member| {
        // Who has moved to another HSM since endorses by the identity that it has now.
        let pinned = signed_as(member).is_some_and(|known| known == member.identity);
        if pinned { node.config.identity_of(&member.party_id, &node.identity) } else { None }
    };
    let follows = |known: Option<Committee>| {
        leads_on(&statement.public_key, known.as_slice(), &proven.path, signed_as, endorses_as)
    };
    // A pending share proves nothing of its own committee, which may never have come to be; nor does anything rest on it.
    if share.status == ShareState::Pending {
        let proven = follows(header.dealt_from).map(|()| Standing::Own);
        return proven.map_err(|error| not_proven(statement.epoch, &error));
    }
    let Err(why) = follows(Some(header.committee())) else { return Ok(Standing::Own) };
    match follows(header.parent()) {
        Ok(()) => Ok(Standing::Parent),
        Err(_) => Err(not_proven(statement.epoch, &why)),
    }
}

fn not_proven(epoch: u64, why: &CertificateError) -> Problem {
    Problem::new(Code::QuorumMismatch, format!("the succession to epoch {epoch} proves nothing here: {why}"))
}

/// What follows from a proven succession for the shares that are here.
fn plan(store: &Connection, proven: &Proven, all_switched: bool) -> Result<Plan, StoreError> {
    let statement = &proven.succession.certificate.statement;
    let shares = ShareRow::all_of_key(store, &statement.public_key)?;
    let live = shares.iter().find(|share| matches!(share.status, ShareState::Active | ShareState::Restored));
    let signs_at = live.map_or(0, |share| share.statement.epoch);
    let mut plan = Plan::default();
    let own = shares.iter().find(|share| share.statement == *statement);
    match own {
        Some(share) if share.status == ShareState::Pending && signs_at < statement.epoch => {
            plan.adopt = Some(share.id.clone());
        }
        Some(share) => {
            let bare = share.status == ShareState::Active && share.endorsements.is_empty();
            plan.endorse = bare.then(|| share.id.clone());
        }
        None => plan.step_back = live.is_some() && signs_at < statement.epoch,
    }
    // A party that went on to a later epoch meanwhile destroys by that one's words.
    if !all_switched || signs_at > statement.epoch {
        return Ok(plan);
    }
    for share in shares.iter().filter(|share| share.statement.epoch < statement.epoch) {
        let due = match share.status {
            ShareState::Pending => Some(Transition::Abandon),
            // One that signs still is superseded in this very change.
            ShareState::Rotated | ShareState::Active | ShareState::Restored => Some(Transition::Destroy),
            ShareState::Revoked | ShareState::Destroyed => None,
        };
        plan.destroy.extend(due.map(|transition| (share.id.clone(), transition)));
    }
    Ok(plan)
}

/// Writes what follows, each step in a leaf of its own, so that no share changes twice in one. Gives how many old shares are left.
fn carry_out(
    transaction: &mut Transaction<'_>,
    proven: &Proven,
    all_switched: bool,
    origin: Origin,
) -> Result<(u32, Vec<GuardChange>), StoreError> {
    let Succession { certificate, endorsements } = &proven.succession;
    let key = certificate.statement.public_key;
    let Plan { adopt, endorse, step_back, destroy } = plan(transaction.sql(), proven, all_switched)?;
    let mut done = Vec::new();
    let mut switches = match adopt {
        Some(share) => ShareRow::confirm(transaction, &share, certificate, endorsements)?,
        None => Vec::new(),
    };
    if let Some(share) = endorse {
        ShareRow::endorse(transaction, &share, endorsements)?;
    }
    if step_back {
        switches.extend(ShareRow::supersede(transaction, &key, certificate.statement.epoch)?);
    }
    if !switches.is_empty() {
        let entry = Entry::admin(Op::Share).asked_by(origin.clone()).guarding(switches.clone());
        transaction.append(entry)?;
        done.append(&mut switches);
    }
    let mut destroyed = Vec::with_capacity(destroy.len());
    for (share, transition) in destroy {
        destroyed.push(ShareRow::shift(transaction, &share, transition)?);
    }
    if !destroyed.is_empty() {
        transaction.append(Entry::admin(Op::Share).asked_by(origin).guarding(destroyed.clone()))?;
        done.append(&mut destroyed);
    }
    let shares = ShareRow::all_of_key(transaction.sql(), &key)?;
    let old = |share: &&ShareRow| share.statement.epoch < certificate.statement.epoch && !share.status.is_final();
    Ok((u32::try_from(shares.iter().filter(old).count()).unwrap_or(u32::MAX), done))
}

/// The own word that this party signs with the new epoch; a party that has left has none to give.
async fn word(node: &Node, certificate: &KeyCertificate) -> Result<Option<Switched>, Problem> {
    let key = certificate.statement.public_key;
    let shares = node.store.read_anchored(move |store| ShareRow::all_of_key(store, &key)).await;
    let shares = shares.map_err(|e| unavailable(&e))?;
    let switched = shares.iter().any(|share| {
        share.statement == certificate.statement && matches!(share.status, ShareState::Active | ShareState::Restored)
    });
    if !switched {
        return Ok(None);
    }
    let text = switched_text(certificate, &node.config.party);
    let signature = node.hsm.sign(KeyPurpose::Identity, &text).await;
    let signature = signature.map_err(|error| Problem::new(Code::HsmUnavailable, error.to_string()))?;
    Ok(Some(Switched { party_id: node.config.party.clone(), signature: IdentitySignature(signature) }))
}
