//! What a coordinator says when it convenes a session: join tokens and participate bodies. Tests alter both.

use casemate_appliance::lab::Lab;
use casemate_wire::rotation::{Auxiliary, Rotation};
use casemate_wire::token::{Claims, TokenAlgorithm, TokenSigner};
use casemate_wire::{Digest32, Member, SessionId, SessionType, ShareType, Threshold};
use serde_json::{Value, json};

use crate::ethereum::Transfer;
use crate::lab::Key;

/// How long the tokens live that are made here, in seconds.
const LIFETIME: i64 = 600;

/// Makes tokens and bodies for the sessions of one lab.
pub struct Convener {
    signer: TokenSigner,
    members: Vec<Member>,
}

/// A rotation in a few words: parties by their place in the lab.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// The epoch that begins.
    pub epoch: u64,
    /// Who will hold a share, by index.
    pub committee: &'a [usize],
    /// How many will sign together.
    pub t: u16,
    /// Who deals, in the order of the old committee.
    pub dealers: &'a [usize],
    /// What becomes of the auxiliary info.
    pub auxiliary: Auxiliary,
}

impl Plan<'_> {
    /// The same three parties, with the auxiliary info that they have.
    pub fn refresh(epoch: u64) -> Self {
        Self { epoch, committee: &[0, 1, 2], t: 2, dealers: &[0, 1], auxiliary: Auxiliary::Keep }
    }
}

/// One session as it is proposed to each of its parties.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The session.
    pub session: SessionId,
    /// What it is for.
    pub session_type: SessionType,
    /// One for each party, in roster order.
    pub invitations: Vec<Invitation>,
}

/// What one party is told. The token is made of the claims, when the body is asked for.
#[derive(Debug, Clone)]
pub struct Invitation {
    /// Which appliance of the lab, from 0.
    pub party: usize,
    /// What its join token claims.
    pub claims: Claims,
    /// The body but for `join_token`.
    pub body: Value,
}

impl Convener {
    /// With the token key of the lab's coordinator, which the appliances have pinned.
    pub fn new(lab: &Lab) -> Self {
        let pem = std::fs::read(&lab.coordinator.token_key_file).unwrap();
        let signer = TokenSigner::new(lab.coordinator.issuer.into(), TokenAlgorithm::Es256, &pem).unwrap();
        let member = |(index, party): (u16, &casemate_appliance::lab::Party)| Member {
            party_id: party.party_id.clone(),
            party_index: index,
            identity: party.identity.clone(),
        };
        Self { signer, members: (0..).zip(&lab.parties).map(member).collect() }
    }

    /// All parties of the lab, as the roster of a keygen.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Proposes a 2-of-n wallet key among all parties.
    pub fn keygen(&self) -> Proposal {
        let session = new_session();
        let invitation = |party: usize| Invitation {
            party,
            claims: Claims {
                share_type: Some(ShareType::Wallet),
                ..self.claims(&session, SessionType::Keygen, party, self.members.clone())
            },
            body: json!({
                "session_id": session, "party_id": self.members[party].party_id, "share_type": "wallet",
            }),
        };
        let invitations = (0..self.members.len()).map(invitation).collect();
        Proposal { session, session_type: SessionType::Keygen, invitations }
    }

    /// Proposes to sign a transfer with the key of the lab.
    pub fn sign(&self, key: &Key, signers: &[usize], transfer: &Transfer) -> Proposal {
        let mut proposal = self.sign_blindly(key, signers, transfer.hash());
        for invitation in &mut proposal.invitations {
            invitation.body["intent"] = json!(transfer.intent());
        }
        proposal
    }

    /// Proposes to sign a hash without saying what it means.
    pub fn sign_blindly(&self, key: &Key, signers: &[usize], hash: Digest32) -> Proposal {
        let session = new_session();
        let statement = &key.certificate.statement;
        let member = |signer: &usize| {
            let member = self.members[*signer].clone();
            let party_index = statement.roster.position(&member.party_id).unwrap_or(member.party_index);
            Member { party_index, ..member }
        };
        let mut roster: Vec<Member> = signers.iter().map(member).collect();
        roster.sort_by_key(|member| member.party_index);
        let invitation =
            |member: &Member| self.members.iter().position(|known| known.party_id == member.party_id).unwrap();
        let parties: Vec<usize> = roster.iter().map(invitation).collect();
        let invitation = |party: &usize| Invitation {
            party: *party,
            claims: Claims {
                threshold_t: statement.threshold_t,
                threshold_n: statement.threshold_n,
                public_key: Some(key.public_key()),
                message_hash: Some(hash),
                ..self.claims(&session, SessionType::Sign, *party, roster.clone())
            },
            body: json!({
                "session_id": session, "party_id": self.members[*party].party_id, "key": key.public_key(),
                "message_hash": hash,
            }),
        };
        let invitations = parties.iter().map(invitation).collect();
        Proposal { session, session_type: SessionType::Sign, invitations }
    }

    /// Proposes to give a key new shares: `committee` will hold them, and `dealers` deal.
    pub fn rotate(&self, key: &Key, plan: &Plan<'_>) -> Proposal {
        let session = new_session();
        let statement = &key.certificate.statement;
        let leaving = plan.dealers.iter().filter(|dealer| !plan.committee.contains(dealer));
        let parties: Vec<usize> = plan.committee.iter().chain(leaving).copied().collect();
        let seated = |(party_index, party): (u16, &usize)| Member { party_index, ..self.members[*party].clone() };
        let participants: Vec<Member> = (0..).zip(&parties).map(seated).collect();
        let rotation = Rotation {
            epoch: plan.epoch,
            from_epoch: statement.epoch,
            from_threshold: Threshold::new(statement.threshold_t, statement.threshold_n).unwrap(),
            from_roster: statement.roster.clone(),
            dealers: plan.dealers.iter().map(|dealer| self.members[*dealer].party_id.clone()).collect(),
            auxiliary: plan.auxiliary,
        };
        let invitation = |party: &usize| Invitation {
            party: *party,
            claims: Claims {
                threshold_t: plan.t,
                threshold_n: u16::try_from(plan.committee.len()).unwrap(),
                share_type: Some(statement.share_type),
                label: statement.label.clone(),
                public_key: Some(key.public_key()),
                rotation: Some(rotation.clone()),
                ..self.claims(&session, SessionType::Rotate, *party, participants.clone())
            },
            body: json!({
                "session_id": session, "party_id": self.members[*party].party_id, "key": key.public_key(),
            }),
        };
        let invitations = parties.iter().map(invitation).collect();
        Proposal { session, session_type: SessionType::Rotate, invitations }
    }

    fn claims(&self, session: &SessionId, session_type: SessionType, party: usize, roster: Vec<Member>) -> Claims {
        let now = jiff::Timestamp::now().as_second();
        Claims {
            iss: self.signer.issuer().to_owned(),
            aud: self.members[party].party_id.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            iat: now,
            nbf: now,
            exp: now + LIFETIME,
            session_id: session.clone(),
            session_type,
            threshold_t: 2,
            threshold_n: u16::try_from(self.members.len()).unwrap(),
            participants: roster,
            share_type: None,
            label: None,
            public_key: None,
            message_hash: None,
            derivation_path: None,
            rotation: None,
        }
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Claims) -> String {
        self.signer.sign(claims).unwrap()
    }

    /// The whole body of a participate call.
    pub fn body(&self, invitation: &Invitation) -> Value {
        let mut body = invitation.body.clone();
        body["join_token"] = self.token(&invitation.claims).into();
        body
    }
}

impl Proposal {
    /// Where the participate call goes.
    pub fn route(&self) -> &'static str {
        match self.session_type {
            SessionType::Keygen => "keygen/participate",
            SessionType::Sign => "signing/participate",
            SessionType::Rotate => "rotation/participate",
        }
    }

    /// Changes what one party, by its position, is told.
    #[must_use]
    pub fn telling(mut self, position: usize, change: impl FnOnce(&mut Invitation)) -> Self {
        change(&mut self.invitations[position]);
        self
    }

    /// Changes what every party is told.
    #[must_use]
    pub fn telling_all(mut self, change: impl Fn(&mut Invitation)) -> Self {
        self.invitations.iter_mut().for_each(change);
        self
    }
}

/// A session id that was not used before.
pub fn new_session() -> SessionId {
    uuid::Uuid::new_v4().to_string().parse().unwrap()
}
