//! Convenes rotations: who deals, who receives, and to which epoch.

use std::time::Duration;

use casemate_wire::api::{Approval, RotationRequest};
use casemate_wire::roster::MAX_PARTIES;
use casemate_wire::rotation::Auxiliary;
use casemate_wire::{Code, PartyId, Problem, Rotation, Threshold};
use futures::future::join_all;
use tokio::time::timeout;

use super::selection::{bad, distinct, not_configured};
use super::{Convened, Coordinator};
use crate::account::{Account, AccountId, Device};
use crate::dial::Invitation;
use crate::session::{NewShares, Participant, Purpose, Session, Status};
use crate::settle::credible;

/// By then every party has said whether it takes part.
const JOIN_LIMIT: Duration = Duration::from_secs(35);

/// A request for new shares of an account's key.
#[derive(Debug, Clone)]
pub(crate) struct RotateOrder {
    pub(crate) account_id: AccountId,
    /// The new committee in its order, each with what it runs on; `None` for the same one.
    pub(crate) committee: Option<Vec<(PartyId, Device)>>,
    /// How many will sign together; `None` for as many as now.
    pub(crate) threshold_t: Option<u16>,
    pub(crate) auxiliary: Auxiliary,
    /// The epoch that begins, where approvals name it; `None` for the next.
    pub(crate) epoch: Option<u64>,
    pub(crate) approvals: Vec<Approval>,
}

impl RotateOrder {
    /// Whether it may lead to another epoch than the one that was tried: approvals are for one epoch.
    fn is_open(&self) -> bool {
        self.epoch.is_none() && self.approvals.is_empty()
    }
}

impl Coordinator {
    /// Begins a rotation. Where a party has taken part in that epoch already, it is begun once more with a later one, unless
    /// the order is bound to its epoch. So this returns when the parties have said whether they take part.
    ///
    /// # Errors
    /// No such account; participants that do not fit or are not configured; too few old parties that can be reached; a
    /// rotation of the account runs; too many sessions run; the store fails.
    pub(crate) async fn rotate(&self, order: RotateOrder) -> Result<Convened, Problem> {
        let id = order.account_id;
        self.account(id).await?;
        // An earlier rotation may have gone further than was seen here.
        self.discover(id).await?;
        let convened = self.begin_rotation(&order).await?;
        let Some(taken) = taken_epoch(&convened).await else {
            return Ok(convened);
        };
        let account = self.account(id).await?;
        let Some(epoch) = credible(&account, taken) else {
            tracing::warn!(event = "party_misreports_key", account = %id, epoch = taken, why = "it is out of all reach");
            return Ok(convened);
        };
        self.stage.store.raise_epoch(id, epoch).await?;
        if order.is_open() { self.begin_rotation(&order).await } else { Ok(convened) }
    }

    async fn begin_rotation(&self, order: &RotateOrder) -> Result<Convened, Problem> {
        let account = self.account(order.account_id).await?;
        let committee = self.new_committee(&account, order)?;
        let t = order.threshold_t.unwrap_or(account.threshold.t());
        let n = u16::try_from(committee.len()).unwrap_or(u16::MAX);
        let threshold = Threshold::new(t, n).map_err(|e| bad(format!("threshold_t and participants: {e}")))?;
        let dealers = self.dealers(&account, &committee).await?;
        let participants = seated(committee, &dealers);
        if participants.len() > MAX_PARTIES {
            let (all, most) = (participants.len(), MAX_PARTIES);
            let detail = format!("with the dealers that leave, {all} parties would take part; at most {most} may");
            return Err(bad(detail));
        }
        let statement = &account.certificate.statement;
        let rotation = Rotation {
            epoch: epoch(&account, order.epoch)?,
            from_epoch: statement.epoch,
            from_threshold: account.threshold,
            from_roster: statement.roster.clone(),
            dealers: dealers.into_iter().map(|dealer| dealer.member.party_id).collect(),
            auxiliary: order.auxiliary,
        };
        let new = NewShares { account_id: account.id, from: statement.clone(), rotation };
        let session = self.session(Purpose::Rotate(Box::new(new)), threshold, participants)?;
        let key = account.public_key;
        self.convene(session, |session_id, party_id, join_token| {
            let approvals = order.approvals.clone();
            Invitation::Rotate(Box::new(RotationRequest { session_id, party_id, join_token, key, approvals }))
        })
        .await
    }

    /// The parties that will hold a share, in their order.
    fn new_committee(&self, account: &Account, order: &RotateOrder) -> Result<Vec<Participant>, Problem> {
        let same = || account.shares.iter().map(|share| (share.party_id.clone(), share.device.clone())).collect();
        let given: Vec<(PartyId, Device)> = order.committee.clone().unwrap_or_else(same);
        distinct(given.iter().map(|(party, _)| party))?;
        let seat = |(index, (party, device)): (u16, (PartyId, Device))| {
            let identity = self.stage.config.identity(&party).ok_or_else(|| not_configured(&party))?.clone();
            Ok(Participant::new(party, index, identity, Some(device)))
        };
        (0u16..).zip(given).map(seat).collect()
    }

    /// Exactly t old parties that can be reached, those that stay first; in the order of the old committee.
    async fn dealers(&self, account: &Account, committee: &[Participant]) -> Result<Vec<Participant>, Problem> {
        let config = &self.stage.config;
        let old = account.certificate.statement.roster.members();
        let reached = join_all(old.iter().map(|member| self.is_healthy(&member.party_id))).await;
        let able = old.iter().zip(reached).filter(|(member, healthy)| *healthy && config.is_same_party(member));
        let stays = |party: &PartyId| committee.iter().any(|participant| &participant.member.party_id == party);
        let (mut chosen, leaving): (Vec<_>, Vec<_>) =
            able.map(|(member, _)| member).partition(|member| stays(&member.party_id));
        chosen.extend(leaving);
        let t = usize::from(account.threshold.t());
        if chosen.len() < t {
            let names: Vec<&str> = chosen.iter().map(|member| member.party_id.as_str()).collect();
            let detail = format!(
                "rotation failed: {t} parties of the old committee must deal, and only these can be reached with the identity \
                 that they have in it: {}; see the health of the others",
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            );
            return Err(Problem::new(Code::PartyUnreachable, detail).with("needed", t));
        }
        chosen.truncate(t);
        chosen.sort_by_key(|member| member.party_index);
        let dealer = |member: &casemate_wire::Member| {
            let party = &member.party_id;
            let identity = config.identity(party).ok_or_else(|| not_configured(party))?.clone();
            Ok(Participant::new(party.clone(), member.party_index, identity, None))
        };
        chosen.into_iter().map(dealer).collect()
    }
}

/// The new committee, then the dealers that leave.
fn seated(mut committee: Vec<Participant>, dealers: &[Participant]) -> Vec<Participant> {
    for dealer in dealers {
        if committee.iter().all(|seat| seat.member.party_id != dealer.member.party_id) {
            let mut leaving = dealer.clone();
            leaving.member.party_index = u16::try_from(committee.len()).unwrap_or(u16::MAX);
            committee.push(leaving);
        }
    }
    committee
}

/// The epoch that begins: the next that was never tried, or the one that was asked for.
fn epoch(account: &Account, asked: Option<u64>) -> Result<u64, Problem> {
    let next = account.epoch_tried.max(account.epoch()).saturating_add(1);
    match asked {
        None => Ok(next),
        Some(epoch) if epoch < next => {
            let detail =
                format!("epoch {epoch} of this key is over, or was tried before; ask for {next} or a later one");
            Err(Problem::new(Code::EpochTaken, detail).with("epoch", next.saturating_sub(1)))
        }
        Some(epoch) if credible(account, epoch).is_none() => {
            Err(bad(format!("epoch is not valid: the next is {next}")))
        }
        Some(epoch) => Ok(epoch),
    }
}

/// Waits until the protocol runs or the session is over. The epoch that a party has taken part in, if it ended for that.
async fn taken_epoch(convened: &Convened) -> Option<u64> {
    let mut progress = convened.progress.clone();
    let past = |session: &Session| !matches!(session.status(), Status::Created | Status::Waiting);
    let session = timeout(JOIN_LIMIT, progress.wait_for(past)).await.ok()?.ok()?;
    let problem = session.error().filter(|problem| problem.code == Code::EpochTaken)?;
    // A commit that lost against another says no epoch.
    let tried = session.new_shares()?.rotation.epoch;
    Some(problem.more.get("epoch").and_then(serde_json::Value::as_u64).unwrap_or(tried))
}
