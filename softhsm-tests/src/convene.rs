//! What a coordinator says when it convenes a session: join tokens and participate bodies. Tests alter both.

use casemate_appliance::lab::Lab;
use casemate_wire::token::{Claims, TokenAlgorithm, TokenSigner};
use casemate_wire::{Digest32, Member, SessionId, SessionType, ShareType};
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
        let roster: Vec<Member> = signers.iter().map(|signer| self.members[*signer].clone()).collect();
        let invitation = |party: &usize| Invitation {
            party: *party,
            claims: Claims {
                public_key: Some(key.public_key()),
                message_hash: Some(hash),
                ..self.claims(&session, SessionType::Sign, *party, roster.clone())
            },
            body: json!({
                "session_id": session, "party_id": self.members[*party].party_id, "key": key.public_key(),
                "message_hash": hash,
            }),
        };
        let invitations = signers.iter().map(invitation).collect();
        Proposal { session, session_type: SessionType::Sign, invitations }
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
