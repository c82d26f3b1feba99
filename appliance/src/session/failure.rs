//! Why a session failed.

use casemate_attest::{Outcome, Text};
use casemate_hsm::HsmError;
use casemate_mpc::MpcError;
use casemate_wire::certificate::CertificateError;
use casemate_wire::envelope::Fault;
use casemate_wire::{Code, PartyId, Problem, Roster};

use crate::checkpoints::CheckpointTrouble;
use crate::sealing::SealError;
use crate::store::StoreError;

/// Why a session ended without a result here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Failure {
    /// The stable code.
    pub code: Code,
    /// In words.
    pub detail: String,
    /// The peer that is proven to have caused it.
    pub party: Option<PartyId>,
    /// The protocol's round, where it is known.
    pub round: Option<u16>,
}

impl Failure {
    /// A failure that nobody is blamed for.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), party: None, round: None }
    }

    /// An operator has withdrawn the share that the session uses, or makes.
    pub fn withdrawn() -> Self {
        Self::new(Code::ShareNotActive, "an operator withdrew the share while the session ran")
    }

    /// What was made must not be kept.
    pub fn overtaken(why: &str) -> Self {
        Self::new(Code::ShareNotActive, why)
    }

    /// A validly signed message of this peer is faulty.
    pub fn by(roster: &Roster, position: u16, what: &str) -> Self {
        let party = roster.member(position).map(|member| member.party_id.clone());
        let who = party.as_ref().map_or("a party", PartyId::as_str);
        let detail = format!("a signed message of {who} is faulty: {what}");
        Self { party, ..Self::new(Code::PeerFault, detail) }
    }

    /// What the protocol engine says; `roster` turns its positions into names.
    pub fn from_mpc(error: &MpcError, roster: &Roster) -> Self {
        let name = |position: u16| roster.member(position).map(|member| member.party_id.clone());
        let plain = |code| Self::new(code, error.to_string());
        match error {
            MpcError::PeerFault { party, round, what } => {
                let party = name(*party);
                let who = party.as_ref().map_or_else(|| "a party".into(), ToString::to_string);
                let detail = format!("{who} sent a faulty message in round {round}: {what}");
                Self { party, round: Some(*round), ..Self::new(Code::PeerFault, detail) }
            }
            MpcError::Silent { parties, round } => {
                let names: Vec<String> =
                    parties.iter().filter_map(|party| name(*party)).map(|name| name.to_string()).collect();
                let detail = format!("no message from {} in round {round} within the limit", names.join(", "));
                Self { round: Some(*round), ..Self::new(Code::Timeout, detail) }
            }
            MpcError::Unattributed { round, .. } => Self { round: Some(*round), ..plain(Code::ProtocolAborted) },
            MpcError::SessionTimeout { .. } => plain(Code::Timeout),
            MpcError::Closed => plain(Code::TransportFault),
            MpcError::Stopped => plain(Code::Interrupted),
            _ => plain(Code::Internal),
        }
    }

    /// As it is answered.
    pub fn to_problem(&self) -> Problem {
        let mut problem = Problem::new(self.code, &self.detail);
        if let Some(party) = &self.party {
            problem = problem.with("party", party.as_str());
        }
        if let Some(round) = self.round {
            problem = problem.with("round", round);
        }
        problem
    }

    /// As it is recorded.
    pub fn to_outcome(&self) -> Outcome {
        let outcome = Outcome::failed(Text::fitted(self.code.as_str()), Text::fitted(&self.detail));
        match &self.party {
            Some(party) => outcome.by(party.clone()),
            None => outcome,
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self { party: fault.culprit().cloned(), ..Self::new(fault.code(), fault.to_string()) }
    }
}

impl From<HsmError> for Failure {
    fn from(error: HsmError) -> Self {
        Self::new(Code::HsmUnavailable, error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(crate::pipeline::unavailable(&error).code, error.to_string())
    }
}

impl From<CheckpointTrouble> for Failure {
    fn from(trouble: CheckpointTrouble) -> Self {
        let code = match &trouble {
            CheckpointTrouble::Hsm(_) | CheckpointTrouble::Slow => Code::HsmUnavailable,
            CheckpointTrouble::Store(_) | CheckpointTrouble::Signature(_) | CheckpointTrouble::Never(_) => {
                Code::AuditUnavailable
            }
        };
        Self::new(code, trouble.to_string())
    }
}

impl From<SealError> for Failure {
    fn from(error: SealError) -> Self {
        let code = match &error {
            SealError::Hsm(_) => Code::HsmUnavailable,
            SealError::Damaged { .. } => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<CertificateError> for Failure {
    fn from(error: CertificateError) -> Self {
        let party = match &error {
            CertificateError::BadSignature(party) => Some(party.clone()),
            _ => None,
        };
        Self { party, ..Self::new(Code::PeerFault, error.to_string()) }
    }
}
