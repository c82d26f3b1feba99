//! Finds out how far a key has come, where a rotation's end was not seen: parties may have switched by it.

use casemate_wire::api::KeyProgress;
use casemate_wire::lineage::leads_on;
use casemate_wire::{Committee, KeyCertificate, Member, PartyId, Problem, PublicKey, Succession};
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};

use crate::account::{Account, AccountId, Advance};
use crate::config::Config;
use crate::convene::Coordinator;
use crate::session::Session;
use crate::store::StoreError;

/// By then a party that took part in a session which ended here has ended it too.
const LAG: SignedDuration = SignedDuration::from_secs(60);

/// The most by which one party's word may raise the epoch at once: a lying party must not use all of them up.
const LEAP: u64 = 1000;

/// What the parties say of one key.
#[derive(Debug, Default)]
pub(crate) struct Discovery {
    /// The committee that the present one was dealt from, if its word counts.
    parent: Option<Committee>,
    /// What proves the latest epoch, if that is later than the one that is known.
    pub(crate) succession: Option<Succession>,
    /// The latest epoch that any of them has taken part in.
    pub(crate) newest_epoch: u64,
    /// Who answered.
    pub(crate) heard: Vec<PartyId>,
}

impl Discovery {
    /// Takes one party's answer about the key of an account. `None`: it knows nothing of the key.
    fn hear(&mut self, config: &Config, account: &Account, party: &PartyId, progress: Option<KeyProgress>) {
        let liar = |why: &str| tracing::warn!(event = "party_misreports_key", account = %account.id, %party, why);
        self.heard.push(party.clone());
        let Some(progress) = progress else {
            return;
        };
        match credible(account, progress.newest_epoch) {
            Some(epoch) => self.newest_epoch = self.newest_epoch.max(epoch),
            None => liar("the epoch that it says it has taken part in is out of all reach"),
        }
        let Some(succession) = progress.succession else {
            return;
        };
        let known = self.succession.as_ref().map_or(account.epoch(), |known| known.certificate.statement.epoch);
        let epoch = succession.certificate.statement.epoch;
        if epoch <= known || credible(account, epoch).is_none() {
            return;
        }
        match check(config, self.parent.as_ref(), &account.certificate, &succession) {
            Ok(()) => self.succession = Some(succession),
            Err(why) => liar(&why),
        }
    }
}

/// An epoch that a party says is taken, if that can be.
pub(crate) fn credible(account: &Account, epoch: u64) -> Option<u64> {
    (epoch <= account.epoch_tried.saturating_add(LEAP)).then_some(epoch)
}

/// Whether this is the account's key, every party of its new committee is configured here and has signed, and t parties of a
/// committee that is known have given it on: of the present one, or of the one before, from which the key went on twice. Without
/// that, any two appliances could take the account over.
fn check(
    config: &Config,
    parent: Option<&Committee>,
    known: &KeyCertificate,
    succession: &Succession,
) -> Result<(), String> {
    let (known, present) = (&known.statement, Committee::of(known).map_err(|e| e.to_string())?);
    let stated = &succession.certificate.statement;
    let difference = [
        ("public key", stated.public_key != known.public_key),
        ("chain code", stated.chain_code != known.chain_code),
        ("scheme", stated.scheme != known.scheme),
        ("share type", stated.share_type != known.share_type),
        ("label", stated.label != known.label),
    ]
    .into_iter()
    .find_map(|(name, differs)| differs.then_some(name));
    if let Some(name) = difference {
        return Err(format!("its certificate has another {name} than the account's"));
    }
    let committees: Vec<Committee> = parent.cloned().into_iter().chain([present]).collect();
    let endorses_as =
        |member: &Member| config.identity(&member.party_id).filter(|_| config.is_same_party(member)).cloned();
    let path = std::slice::from_ref(succession);
    leads_on(&known.public_key, &committees, path, |member| config.known_member(member), endorses_as)
        .map_err(|e| e.to_string())
}

impl Coordinator {
    /// Asks every appliance how far the key of an account has come, and brings the account there. Who does not answer is asked
    /// again another time.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) async fn discover(&self, id: AccountId) -> Result<(), StoreError> {
        let Some(account) = self.stage.store.account(id).await? else {
            return Ok(());
        };
        let doubt = match &account.doubt {
            Some(session) => self.stage.store.session(session).await?,
            None => None,
        };
        let mut found = Discovery { parent: self.stage.store.parent_committee(id).await?, ..Discovery::default() };
        for (party, answer) in self.ask_all(&account.public_key).await {
            match answer {
                Ok(progress) => found.hear(&self.stage.config, &account, &party, progress),
                Err(problem) => tracing::debug!(event = "party_not_heard", account = %id, %party, %problem),
            }
        }
        self.stage.store.raise_epoch(id, found.newest_epoch).await?;
        if let Some(succession) = found.succession.take() {
            let epoch = succession.certificate.statement.epoch;
            let device = |party: &PartyId| {
                let planned = doubt.iter().flat_map(Session::participants).find(|p| &p.member.party_id == party);
                planned.and_then(|p| p.device.clone()).or_else(|| account.device(party).cloned())
            };
            if self.stage.store.advance(&Advance::new(id, succession, device)).await? {
                tracing::warn!(event = "rotation_discovered", account = %id, epoch);
                self.stage.bell.ring();
            }
        }
        match doubt {
            Some(session) if is_understood(&session, &found, Timestamp::now()) => {
                self.stage.store.resolve(id, session.id()).await
            }
            _ => Ok(()),
        }
    }

    async fn ask_all(&self, key: &PublicKey) -> Vec<(PartyId, Result<Option<KeyProgress>, Problem>)> {
        let asked = self
            .dialer
            .all()
            .map(|connection| async move { (connection.appliance().party_id.clone(), connection.progress(key).await) });
        join_all(asked).await
    }
}

/// Whether all that took part in a session have said how far they came, and after it had ended for them too.
fn is_understood(session: &Session, found: &Discovery, now: Timestamp) -> bool {
    let ended = session.ended_at().is_some_and(|ended| now >= ended + LAG);
    ended && session.participants().iter().all(|p| found.heard.contains(&p.member.party_id))
}
