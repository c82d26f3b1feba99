//! The life of one session, without input or output: events and the time go in, the state comes out.
//!
//! ```text
//! session:      created → waiting → in_progress → completed | failed | expired
//! participant:  invited → joined → ready → computing → completed | failed
//! ```

mod finding;
mod routing;
mod table;
#[cfg(test)]
pub(crate) mod testing;

use casemate_wire::{
    Code, Digest32, IdentityKey, KeyStatement, Member, PartyId, Problem, PublicKey, Rotation, SessionId, SessionType,
    ShareType, Threshold,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::account::{AccountId, Device};
use crate::derivation::Child;
pub(crate) use finding::{Finding, Report, Tally};
pub(crate) use routing::{Forward, Router};
pub(crate) use table::{Seat, Table, interrupted};

/// One session and everything that is known about it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Session {
    id: SessionId,
    purpose: Purpose,
    threshold: Threshold,
    participants: Vec<Participant>,
    status: Status,
    created_at: Timestamp,
    expires_at: Timestamp,
    ended_at: Option<Timestamp>,
    error: Option<Problem>,
    finding: Option<Finding>,
}

/// What a session is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Purpose {
    /// A new key, and with it a new account.
    Keygen(NewAccount),
    /// One signature with the key of an account.
    Sign {
        account_id: AccountId,
        public_key: PublicKey,
        message_hash: Digest32,
        /// Where a child key signs: which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        child: Option<Child>,
    },
    /// New shares of the key of an account. Its participants are the new committee, then the dealers that leave.
    Rotate(Box<NewShares>),
}

/// What a rotation starts from, and where it leads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NewShares {
    pub(crate) account_id: AccountId,
    /// What the old committee states about the key.
    pub(crate) from: KeyStatement,
    pub(crate) rotation: Rotation,
}

/// What the account of a new key will say.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NewAccount {
    pub(crate) account_id: AccountId,
    pub(crate) share_type: ShareType,
    pub(crate) label: Option<String>,
    pub(crate) username: Option<String>,
    pub(crate) email: Option<String>,
}

/// One party of the session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Participant {
    pub(crate) member: Member,
    /// Keygen and rotation: what the party runs on, for the account.
    pub(crate) device: Option<Device>,
    pub(crate) status: ParticipantStatus,
}

impl Participant {
    /// A party that has been invited.
    pub(crate) fn new(party_id: PartyId, party_index: u16, identity: IdentityKey, device: Option<Device>) -> Self {
        let member = Member { party_id, party_index, identity };
        Self { member, device, status: ParticipantStatus::Invited }
    }
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Created,
    Waiting,
    InProgress,
    Completed,
    Failed,
    Expired,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Waiting => "waiting",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }

    fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Expired)
    }
}

/// Where a participant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ParticipantStatus {
    Invited,
    Joined,
    Ready,
    Computing,
    Completed,
    Failed,
}

/// What happens to a session.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// The parties are being asked.
    Inviting,
    /// The party at this position accepted its token.
    Joined(usize),
    /// Its message stream stands. Once all stand, the protocol runs.
    Attached(usize),
    /// It reported a result.
    Finished(usize),
    /// It reported a failure, or broke off.
    Dropped(usize),
    /// The result is proven.
    Completed(Box<Finding>),
    /// There will be no result.
    Failed(Problem),
    /// Time is up.
    Expired,
}

/// An event that the state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a session that is {status} cannot take the event {event}")]
pub(crate) struct OutOfOrder {
    status: &'static str,
    event: &'static str,
}

impl Session {
    /// A session that is recorded and no more. `participants` are in roster order.
    pub(crate) fn new(
        id: SessionId,
        purpose: Purpose,
        threshold: Threshold,
        participants: Vec<Participant>,
        (created_at, expires_at): (Timestamp, Timestamp),
    ) -> Self {
        Self {
            id,
            purpose,
            threshold,
            participants,
            status: Status::Created,
            created_at,
            expires_at,
            ended_at: None,
            error: None,
            finding: None,
        }
    }

    /// Takes an event that happens at `now`.
    ///
    /// # Errors
    /// The state does not allow it; nothing has changed then. What has ended takes no event at all.
    pub(crate) fn apply(&mut self, event: Event, now: Timestamp) -> Result<(), OutOfOrder> {
        use ParticipantStatus as P;
        let out_of_order = OutOfOrder { status: self.status.as_str(), event: event.name() };
        match (self.status, event) {
            (Status::Created, Event::Inviting) => self.status = Status::Waiting,
            (Status::Waiting, Event::Joined(at)) => {
                self.step(at, P::Invited, P::Joined, out_of_order)?;
            }
            (Status::Waiting, Event::Attached(at)) => {
                self.step(at, P::Joined, P::Ready, out_of_order)?;
                self.start_if_ready();
            }
            (Status::InProgress, Event::Finished(at)) => {
                self.step(at, P::Computing, P::Completed, out_of_order)?;
            }
            (Status::Waiting | Status::InProgress, Event::Dropped(at)) => {
                let participant = self.participants.get_mut(at).ok_or(out_of_order)?;
                participant.status = P::Failed;
            }
            (Status::InProgress, Event::Completed(finding)) => {
                self.end(Status::Completed, now);
                self.finding = Some(*finding);
            }
            (status, Event::Failed(problem)) if !status.is_final() => {
                self.end(Status::Failed, now);
                self.error = Some(problem);
            }
            (status, Event::Expired) if !status.is_final() => {
                self.error = Some(self.expiry_problem());
                self.end(Status::Expired, now);
            }
            _ => return Err(out_of_order),
        }
        Ok(())
    }

    fn step(
        &mut self,
        at: usize,
        from: ParticipantStatus,
        to: ParticipantStatus,
        out_of_order: OutOfOrder,
    ) -> Result<(), OutOfOrder> {
        match self.participants.get_mut(at) {
            Some(participant) if participant.status == from => {
                participant.status = to;
                Ok(())
            }
            _ => Err(out_of_order),
        }
    }

    fn start_if_ready(&mut self) {
        if self.participants.iter().all(|p| p.status == ParticipantStatus::Ready) {
            self.status = Status::InProgress;
            for participant in &mut self.participants {
                participant.status = ParticipantStatus::Computing;
            }
        }
    }

    fn end(&mut self, status: Status, now: Timestamp) {
        self.status = status;
        self.ended_at = Some(now);
    }

    fn expiry_problem(&self) -> Problem {
        let seconds = self.expires_at.as_second().saturating_sub(self.created_at.as_second());
        let unfinished = self.participants.iter().filter(|p| p.status != ParticipantStatus::Completed);
        let names: Vec<String> = unfinished.map(|p| p.member.party_id.to_string()).collect();
        let detail = format!(
            "{} failed: timeout: the session did not end within {seconds} s; still expected: {}; try again",
            self.session_type(),
            names.join(", ")
        );
        Problem::new(Code::SessionExpired, detail).with("parties", names)
    }

    /// Whether its time is up though it has not ended.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        !self.is_over() && now >= self.expires_at
    }

    /// Whether nothing more will change.
    pub(crate) fn is_over(&self) -> bool {
        self.status.is_final()
    }

    pub(crate) fn id(&self) -> &SessionId {
        &self.id
    }
    pub(crate) fn purpose(&self) -> &Purpose {
        &self.purpose
    }
    pub(crate) fn session_type(&self) -> SessionType {
        match self.purpose {
            Purpose::Keygen(_) => SessionType::Keygen,
            Purpose::Sign { .. } => SessionType::Sign,
            Purpose::Rotate(_) => SessionType::Rotate,
        }
    }
    /// Of the key; for a rotation the new one.
    pub(crate) fn threshold(&self) -> Threshold {
        self.threshold
    }
    /// The rotation, if it is one.
    pub(crate) fn new_shares(&self) -> Option<&NewShares> {
        match &self.purpose {
            Purpose::Rotate(new) => Some(new),
            Purpose::Keygen(_) | Purpose::Sign { .. } => None,
        }
    }
    /// In roster order.
    pub(crate) fn participants(&self) -> &[Participant] {
        &self.participants
    }
    pub(crate) fn status(&self) -> Status {
        self.status
    }
    pub(crate) fn created_at(&self) -> Timestamp {
        self.created_at
    }
    pub(crate) fn expires_at(&self) -> Timestamp {
        self.expires_at
    }
    pub(crate) fn ended_at(&self) -> Option<Timestamp> {
        self.ended_at
    }
    pub(crate) fn error(&self) -> Option<&Problem> {
        self.error.as_ref()
    }
    pub(crate) fn finding(&self) -> Option<&Finding> {
        self.finding.as_ref()
    }
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Inviting => "inviting",
            Self::Joined(_) => "joined",
            Self::Attached(_) => "attached",
            Self::Finished(_) => "finished",
            Self::Dropped(_) => "dropped",
            Self::Completed(_) => "completed",
            Self::Failed(_) => "failed",
            Self::Expired => "expired",
        }
    }
}

#[cfg(test)]
mod tests;
