//! New shares of an old key: the old parties show what they deal from, deal, and all confirm.
//!
//! The new share is durable, as pending, before this party confirms. The confirmations are the new epoch's certificate and the
//! dealers' endorsements: whoever sees them all switches, whoever misses one is settled later ([`crate::settle`]).

use std::sync::Arc;

use casemate_hsm::KeyPurpose;
use casemate_mpc::{Cggmp21, Dealer, KeyShare as Share, Limits, OldKey, ReshareParams, Resharing, Scheme};
use casemate_policy::spend::Spending;
use casemate_wire::certificate::IdentitySignature;
use casemate_wire::rotation::{Auxiliary as Wanted, DealerPlace, Endorsement};
use casemate_wire::{Code, Committee, Digest32, KeyCertificate, KeyStatement, SessionId, Succession, Threshold};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::share::KeyShare;
use super::super::share::{ShareHeader, SharedKey};
use super::super::succeed::RotateAct;
use super::auxiliary::{self, Auxiliary};
use super::pending::Followed;
use super::{Rotated, internal, pending};
use crate::daemon::Node;
use crate::session::{Failure, Link, Phase, read_body, to_body};
use crate::till::Inheritance;

/// What each party brings.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Opening {
    /// The auxiliary info of the new committee that it holds.
    aux: Option<Digest32>,
    /// What it knows of the key; every dealer must say it.
    heritage: Option<Heritage>,
}

/// A key as its old parties know it. Who joins believes it where all dealers, t old parties, say the same.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Heritage {
    statement: KeyStatement,
    old: OldKey,
    /// When the key was made, Unix seconds, by the clock of the party that says so.
    created: i64,
    /// What it knows to count in the key's windows, for those who join; `None` if that is too much, or not all known here.
    spent: Option<Vec<Spending>>,
}

/// What each party confirms at the end.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    /// Part of the new key statement, where a party that leaves takes it from: it has not seen the auxiliary info.
    confirmation: Digest32,
    /// By its identity key over the new key statement.
    signature: IdentitySignature,
}

pub(super) async fn run(
    node: &Arc<Node>,
    link: &mut Link,
    act: &RotateAct,
    share: Option<Arc<KeyShare>>,
    session: SessionId,
) -> Result<Box<Rotated>, Failure> {
    let Opened { heritage, aux, joined } = open(node, link, act, share.as_deref()).await?;
    let view = link.channel().view().clone();
    let receives = link.position() < view.threshold.n();
    let is_dealer = act.dealers.iter().any(|dealer| dealer.position == link.position());
    // Whoever has nothing to make waits in the next phase for those who have.
    let made_meanwhile = matches!(aux, Prepared::ToMake);
    let aux = match aux {
        Prepared::Held(aux) => Some(*aux),
        Prepared::ToMake if receives => Some(auxiliary::make(node, link, &act.committee).await?),
        Prepared::ToMake | Prepared::NotOurs => None,
    };
    let params = ReshareParams {
        execution_id: link.execution_id(Phase::Deal),
        position: link.position(),
        dealers: act
            .dealers
            .iter()
            .map(|dealer| Dealer { position: dealer.position, old_index: dealer.old_index })
            .collect(),
        old: heritage.old.clone(),
        new_t: view.threshold.t(),
        new_n: view.threshold.n(),
        share: share.filter(|_| is_dealer),
    };
    let mut limits = Limits::reshare(view.roster.size());
    if made_meanwhile {
        let patience = Limits::aux(view.threshold.n()).session;
        limits.round = limits.round.saturating_add(patience);
        limits.session = limits.session.saturating_add(patience);
    }
    let outcome: Resharing =
        link.drive(Phase::Deal, limits, |wiring, limits| node.engine.reshare(params, limits, wiring)).await?;
    let confirmation = aux.as_ref().map(|aux| confirmation(link, aux.digest, &outcome));
    let statement = |confirmation| KeyStatement {
        public_key: act.key,
        chain_code: heritage.statement.chain_code,
        scheme: heritage.statement.scheme.clone(),
        threshold_t: view.threshold.t(),
        threshold_n: view.threshold.n(),
        roster: act.committee.clone(),
        epoch: act.rotation.epoch,
        share_type: heritage.statement.share_type,
        label: heritage.statement.label.clone(),
        confirmation,
    };
    let (share_id, committee) = match (outcome.share, aux, confirmation) {
        (Some(new), Some(Auxiliary { info, made, .. }), Some(confirmation)) => {
            let share = Share::from_parts(new, &info).map_err(|e| internal(&e))?;
            let stated = statement(confirmation);
            let origin = &act.rotation;
            let dealt_from = Some(Committee {
                epoch: origin.from_epoch,
                threshold: origin.from_threshold,
                roster: origin.from_roster.clone(),
            });
            let header = ShareHeader { joined, dealt_from, ..header(node, &stated, view.threshold, heritage.created) };
            pending::store(node, &header, &share, &stated, session, followed(act)).await?;
            // It may become active by whatever way: from now on it counts what was spent before.
            if let Some(joined) = &header.joined {
                node.till.inherit(act.key, joined);
            }
            (Some(header.share_id), made)
        }
        (None, ..) => (None, None),
        (Some(_), ..) => return Err(Failure::new(Code::Internal, "a new share has no auxiliary info")),
    };
    let succession = confirm(node, link, act, confirmation, statement).await?;
    Ok(Box::new(Rotated { share_id, succession, committee, threshold: view.threshold }))
}

/// Where the new committee's auxiliary info comes from.
enum Prepared {
    Held(Box<Auxiliary>),
    ToMake,
    /// This party leaves, and the others hold theirs.
    NotOurs,
}

/// The own share that the new one follows.
fn followed(act: &RotateAct) -> Option<Followed> {
    let live = act.live()?.share.id.clone();
    Some(if act.held.is_some() { Followed::Dealt(live) } else { Followed::Stale(live) })
}

/// What follows from all that the parties bring.
struct Opened {
    /// What is dealt from, as every dealer states it.
    heritage: Heritage,
    aux: Prepared,
    /// At a party that joins.
    joined: Option<Inheritance>,
}

/// All show what they bring.
async fn open(node: &Arc<Node>, link: &mut Link, act: &RotateAct, share: Option<&KeyShare>) -> Result<Opened, Failure> {
    let own = act.held.as_ref().zip(share).map(|(held, share)| Heritage {
        statement: held.share.statement.clone(),
        old: OldKey::from_share(share, act.rotation.from_epoch),
        created: held.header.created,
        spent: node.till.told(&act.key, Timestamp::now()),
    });
    let committee = usize::from(act.committee.size());
    let known = auxiliary::known(node, &act.committee).await?;
    let digest = known.as_ref().map(|row| row.aux_digest);
    let bodies = link.exchange(Phase::Opening, to_body(&Opening { aux: digest, heritage: own.clone() })?).await?;
    let mut openings = Vec::with_capacity(bodies.len());
    for (position, bytes) in (0u16..).zip(&bodies) {
        openings.push(read_body::<Opening>(link.roster(), position, bytes)?);
    }
    let heritage = agreed(link, act, own, &openings)?;
    let held = openings.iter().take(committee).map(|opening| opening.aux);
    let same = act.rotation.auxiliary == Wanted::Keep && all_alike(held);
    let prepared = match known {
        Some(row) if same && usize::from(link.position()) < committee => {
            Prepared::Held(Box::new(auxiliary::load(node, &row).await?))
        }
        _ if same => Prepared::NotOurs,
        _ => Prepared::ToMake,
    };
    let told = |dealer: &DealerPlace| openings.get(usize::from(dealer.position))?.heritage.as_ref()?.spent.clone();
    let joins = act.held.is_none() && usize::from(link.position()) < committee;
    let inherited = act.live().and_then(|live| live.header.joined.clone());
    let inherited = inherited.filter(|joined| joined.counts_at(Timestamp::now()));
    // What this party inherited goes on to count until its windows have passed, beside what it is told now.
    let mut sources: Vec<_> = act.dealers.iter().map(told).collect();
    sources.extend(inherited.clone().map(|before| before.spent));
    let joined = if joins { Some(Inheritance::of(&act.key, sources, Timestamp::now())) } else { inherited };
    Ok(Opened { heritage, aux: prepared, joined })
}

fn all_alike(mut held: impl Iterator<Item = Option<Digest32>>) -> bool {
    held.next().flatten().is_some_and(|first| held.all(|other| other == Some(first)))
}

/// What all dealers say of the key; it must be what the session was convened for, and what this party knows itself.
fn agreed(link: &Link, act: &RotateAct, own: Option<Heritage>, openings: &[Opening]) -> Result<Heritage, Failure> {
    let roster = link.roster();
    let mut stated: Option<Heritage> = own;
    for dealer in &act.dealers {
        let said = openings.get(usize::from(dealer.position)).and_then(|opening| opening.heritage.clone());
        let Some(said) = said else {
            return Err(Failure::by(roster, dealer.position, "it deals and does not say from what"));
        };
        if let Some(why) = unfit(act, &said) {
            return Err(Failure::by(roster, dealer.position, &format!("what it deals from has another {why}")));
        }
        match &mut stated {
            None => stated = Some(said),
            Some(known) if known.statement != said.statement || known.old != said.old => {
                let name = roster.member(dealer.position).map(|member| member.party_id.to_string()).unwrap_or_default();
                let detail = format!("{name} knows the key otherwise than other old parties; nothing was dealt");
                return Err(Failure::new(Code::ProtocolAborted, detail));
            }
            // The youngest counts: a key must not look older than any of them says.
            Some(known) => known.created = known.created.max(said.created).min(Timestamp::now().as_second()),
        }
    }
    stated.ok_or_else(|| Failure::new(Code::Internal, "a rotation without a dealer"))
}

/// What in a dealer's words is not what the session was convened for, or does not fit itself.
fn unfit(act: &RotateAct, said: &Heritage) -> Option<&'static str> {
    let Heritage { statement, old, .. } = said;
    let RotateAct { rotation, claimed, .. } = act;
    let known = act.live().map(|live| &live.share.statement);
    [
        ("public key", statement.public_key != act.key || &old.public_key() != act.key.as_bytes()),
        ("chain code", old.chain_code() != statement.chain_code),
        ("chain code than is known here", known.is_some_and(|own| own.chain_code != statement.chain_code)),
        ("epoch", statement.epoch != rotation.from_epoch || old.epoch() != rotation.from_epoch),
        ("committee", statement.roster != rotation.from_roster),
        ("threshold", statement.threshold_t != rotation.from_threshold.t() || old.t() != rotation.from_threshold.t()),
        ("size", statement.threshold_n != rotation.from_threshold.n() || old.n() != rotation.from_threshold.n()),
        ("share type", statement.share_type != claimed.kind),
        ("label", statement.label != claimed.label),
        ("scheme", statement.scheme != <Cggmp21 as Scheme>::ID),
    ]
    .into_iter()
    .find_map(|(name, differs)| differs.then_some(name))
}

fn header(node: &Node, statement: &KeyStatement, threshold: Threshold, created: i64) -> ShareHeader {
    ShareHeader {
        version: ShareHeader::VERSION,
        share_id: uuid::Uuid::new_v4().to_string(),
        party_id: node.config.party.clone(),
        key: SharedKey {
            public_key: statement.public_key,
            scheme: statement.scheme.clone(),
            threshold,
            epoch: statement.epoch,
            roster: statement.roster.clone(),
        },
        share_type: statement.share_type,
        label: statement.label.clone(),
        created,
        restored: false,
        joined: None,
        dealt_from: None,
    }
}

/// Over everything that the new parties must have seen alike.
fn confirmation(link: &Link, aux_digest: Digest32, dealt: &Resharing) -> Digest32 {
    let mut hash = Sha256::new();
    hash.update(b"casemate/rotation-confirmation/v1");
    hash.update(link.transcript());
    hash.update(aux_digest.0);
    hash.update(dealt.transcript_digest);
    for share in &dealt.public_shares {
        hash.update(share);
    }
    Digest32(hash.finalize().into())
}

/// Everybody signs the new key statement: the new parties that they hold their shares, the dealers that they gave the key on.
/// A party that leaves takes the confirmation from the new parties, who must all say the same.
async fn confirm(
    node: &Node,
    link: &mut Link,
    act: &RotateAct,
    own: Option<Digest32>,
    statement: impl Fn(Digest32) -> KeyStatement,
) -> Result<Succession, Failure> {
    let committee = usize::from(act.committee.size());
    // Who leaves cannot sign before it knows what: it confirms nothing in the first of the two.
    let first = match own {
        Some(digest) => Some(sign(node, &statement(digest)).await?),
        None => None,
    };
    let bodies = link.exchange(Phase::Confirm, to_body(&first)?).await?;
    let mut signatures = Vec::with_capacity(committee);
    let mut agreed: Option<Digest32> = own;
    for (position, bytes) in (0u16..).zip(bodies.iter().take(committee)) {
        let theirs: Option<Confirmation> = read_body(link.roster(), position, bytes)?;
        let theirs = theirs.ok_or_else(|| Failure::by(link.roster(), position, "it confirms no new share"))?;
        if *agreed.get_or_insert(theirs.confirmation) != theirs.confirmation {
            let name = link.roster().member(position).map(|member| member.party_id.to_string()).unwrap_or_default();
            let detail = format!("{name} saw other messages in this session than others; nothing was activated");
            return Err(Failure::new(Code::ProtocolAborted, detail));
        }
        signatures.push(theirs.signature);
    }
    let agreed = agreed.ok_or_else(|| Failure::new(Code::Internal, "a rotation without a committee"))?;
    let certificate = KeyCertificate { statement: statement(agreed), signatures };
    certificate.verify(|member| node.config.known_member(member, &node.identity))?;
    let endorsements = endorse(node, link, act, &certificate).await?;
    Ok(Succession { certificate, endorsements })
}

async fn sign(node: &Node, statement: &KeyStatement) -> Result<Confirmation, Failure> {
    let signature = node.hsm.sign(KeyPurpose::Identity, &statement.to_sign()).await?;
    Ok(Confirmation { confirmation: statement.confirmation, signature: IdentitySignature(signature) })
}

/// The dealers that stay have signed already; those that leave sign now that the certificate is whole.
async fn endorse(
    node: &Node,
    link: &mut Link,
    act: &RotateAct,
    certificate: &KeyCertificate,
) -> Result<Vec<Endorsement>, Failure> {
    let committee = act.committee.size();
    let leaves = link.position() >= committee;
    if leaves {
        let (place, own) = ((act.key, act.rotation.epoch), followed(act));
        let look = node.store.read(move |store| pending::overtaken(store, (&place.0, place.1), own.as_ref()));
        look.await?.map_or(Ok(()), |why| Err(Failure::overtaken(why)))?;
    }
    let own = if leaves { Some(sign(node, &certificate.statement).await?.signature) } else { None };
    let leaving = link.roster().size() > committee;
    let bodies = if leaving { link.exchange(Phase::Endorse, to_body(&own)?).await? } else { Vec::new() };
    let text = certificate.statement.to_sign();
    let mut endorsements = Vec::with_capacity(act.dealers.len());
    for dealer in &act.dealers {
        let by = |why: &str| Failure::by(link.roster(), dealer.position, why);
        let signature = match bodies.get(usize::from(dealer.position)) {
            Some(bytes) if dealer.position >= committee => read_body(link.roster(), dealer.position, bytes)?,
            _ => certificate.signatures.get(usize::from(dealer.position)).copied(),
        };
        let signature: IdentitySignature = signature.ok_or_else(|| by("it endorses nothing"))?;
        let member = link.roster().member(dealer.position).ok_or_else(|| by("it has no place"))?;
        if !member.identity.verifies(&text, &signature.0) {
            return Err(by("its endorsement does not verify"));
        }
        endorsements.push(Endorsement { party_id: member.party_id.clone(), signature });
    }
    Ok(endorsements)
}
