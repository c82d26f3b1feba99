//! Convenes sessions: what the participants are told, and who follows it to its end.

mod attested;
mod rotate;
mod selection;

use std::sync::Arc;

use casemate_wire::api::{Approval, KeygenRequest, SigningRequest};
use casemate_wire::{Code, DerivationPath, Digest32, Intent, PartyId, Problem, SessionId, ShareType, Threshold};
use jiff::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

use crate::account::{Account, AccountId, Device};
use crate::conduct::{Player, Stage, conduct};
use crate::derivation::Child;
use crate::dial::{Dialer, Invitation};
use crate::invitation::{JoinTokens, join_tokens};
use crate::session::{NewAccount, Participant, Purpose, Session, Table};
pub(crate) use rotate::RotateOrder;
pub(crate) use selection::not_configured;

/// Everything that the front door works with.
pub(crate) struct Coordinator {
    pub(crate) stage: Arc<Stage>,
    pub(crate) dialer: Dialer,
    pub(crate) table: Arc<Table>,
}

/// A request for a new key.
#[derive(Debug, Clone)]
pub(crate) struct KeygenOrder {
    pub(crate) threshold: Threshold,
    pub(crate) participants: Vec<(PartyId, Device)>,
    pub(crate) share_type: ShareType,
    pub(crate) label: Option<String>,
    pub(crate) username: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) approvals: Vec<Approval>,
}

/// A request for a signature.
#[derive(Debug, Clone)]
pub(crate) struct SignOrder {
    pub(crate) account_id: AccountId,
    pub(crate) message_hash: Digest32,
    /// Which child key signs; `None` for the key itself.
    pub(crate) derivation_path: Option<DerivationPath>,
    pub(crate) intent: Option<Intent>,
    pub(crate) approvals: Vec<Approval>,
    pub(crate) participants: Vec<PartyId>,
}

/// A session that has been recorded and runs.
pub(crate) struct Convened {
    /// As it was created.
    pub(crate) session: Session,
    pub(crate) tokens: JoinTokens,
    pub(crate) progress: watch::Receiver<Session>,
}

impl Coordinator {
    /// Begins the making of a key.
    ///
    /// # Errors
    /// The participants do not fit the threshold or are not configured here; too many sessions run; the store fails.
    pub(crate) async fn keygen(&self, order: KeygenOrder) -> Result<Convened, Problem> {
        let participants = self.committee(&order)?;
        let new = NewAccount {
            account_id: AccountId::random(),
            share_type: order.share_type,
            label: order.label.clone(),
            username: order.username,
            email: order.email,
        };
        let session = self.session(Purpose::Keygen(new), order.threshold, participants)?;
        let (share_type, label) = (order.share_type, order.label);
        self.convene(session, |session_id, party_id, join_token| {
            Invitation::Keygen(Box::new(KeygenRequest {
                session_id,
                party_id,
                join_token,
                share_type,
                label: label.clone(),
                approvals: order.approvals.clone(),
            }))
        })
        .await
    }

    /// Begins the making of a signature.
    ///
    /// # Errors
    /// No such account, too few or wrong participants, too many sessions, or the store fails.
    pub(crate) async fn sign(&self, order: SignOrder) -> Result<Convened, Problem> {
        let account = self.account(order.account_id).await?;
        let signers = self.signers(&account, &order.participants).await?;
        let (key, message_hash) = (account.public_key, order.message_hash);
        let child = order.derivation_path.map(|path| child(&account, path)).transpose()?;
        let derivation_path = child.as_ref().map(|child| child.path.to_string());
        let purpose = Purpose::Sign { account_id: account.id, public_key: key, message_hash, child };
        let session = self.session(purpose, account.threshold, signers)?;
        self.convene(session, |session_id, party_id, join_token| {
            Invitation::Sign(Box::new(SigningRequest {
                session_id,
                party_id,
                join_token,
                key,
                derivation_path: derivation_path.clone(),
                message_hash,
                intent: order.intent.clone(),
                approvals: order.approvals.clone(),
                certificate: Some(account.certificate.clone()),
            }))
        })
        .await
    }

    /// An account.
    ///
    /// # Errors
    /// `account_not_found`, or the store fails.
    pub(crate) async fn account(&self, id: AccountId) -> Result<Account, Problem> {
        let found = self.stage.store.account(id).await?;
        found.ok_or_else(|| Problem::new(Code::AccountNotFound, format!("account not found: {id}")))
    }

    /// A session, running or ended.
    ///
    /// # Errors
    /// `session_not_found`, or the store fails.
    pub(crate) async fn find(&self, id: &SessionId) -> Result<Session, Problem> {
        if let Some(running) = self.table.find(id) {
            return Ok(running.borrow().clone());
        }
        let found = self.stage.store.session(id).await?;
        found.ok_or_else(|| Problem::new(Code::SessionNotFound, format!("session not found: {id}")))
    }

    async fn convene(
        &self,
        session: Session,
        invitation: impl Fn(SessionId, PartyId, String) -> Invitation,
    ) -> Result<Convened, Problem> {
        let seat = self.table.admit(&session)?;
        let tokens = join_tokens(&self.stage.config.token, &session, session.created_at())
            .map_err(|e| Problem::new(Code::Internal, format!("join tokens could not be signed: {e}")))?;
        let players = self.players(&session, &tokens, invitation)?;
        attested::demand(&players).await?;
        self.stage.store.create_session(&session).await?;
        tracing::info!(
            event = "session_created",
            session = %session.id(),
            kind = %session.session_type(),
            threshold = %session.threshold(),
        );
        let progress = seat.watch();
        // The task fails its own session if it panics, and the table tells it when to stop.
        tokio::spawn(conduct(Arc::clone(&self.stage), session.clone(), seat, players));
        Ok(Convened { session, tokens, progress })
    }

    fn players(
        &self,
        session: &Session,
        tokens: &JoinTokens,
        invitation: impl Fn(SessionId, PartyId, String) -> Invitation,
    ) -> Result<Vec<Player>, Problem> {
        let parties = session.participants().iter().map(|p| &p.member.party_id);
        let player = |party: &PartyId| {
            let token = tokens.get(party)?.clone();
            Some(Player {
                party: party.clone(),
                connection: Arc::clone(self.dialer.to(party)?),
                invitation: invitation(session.id().clone(), party.clone(), token),
            })
        };
        parties.map(|party| player(party).ok_or_else(|| selection::not_configured(party))).collect()
    }

    fn session(
        &self,
        purpose: Purpose,
        threshold: Threshold,
        participants: Vec<Participant>,
    ) -> Result<Session, Problem> {
        let id = Uuid::new_v4()
            .to_string()
            .parse()
            .map_err(|e| Problem::new(Code::Internal, format!("a session could not be named: {e}")))?;
        let now = Timestamp::now();
        let expires = now.saturating_add(self.stage.config.limits.session_ttl).unwrap_or(Timestamp::MAX);
        Ok(Session::new(id, purpose, threshold, participants, (now, expires)))
    }
}

fn child(account: &Account, path: DerivationPath) -> Result<Child, Problem> {
    let none = || Problem::new(Code::BadRequest, "the key has no child at the derivation path; take the next index");
    Child::of(&account.certificate.statement, path).ok_or_else(none)
}
