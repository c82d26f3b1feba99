//! Restores: the live shares of a backup come under this host's KEK as `restored`, in one transaction, with their audit leaf.
//!
//! Bodies are opened in memory and sealed anew, since the header that says `restored` is authenticated with them. With the
//! leaf, tokens that were issued before count no more and spend windows count as full until they have passed, as after a
//! [recovery](crate::store::Stopped); prime pairs are destroyed.

use std::collections::BTreeMap;
use std::path::Path;

use casemate_attest::life::ShareState;
use casemate_attest::restoration::{RestorationError, Scene, Statement};
use casemate_attest::tree::root_at;
use casemate_attest::{At, Entry as LogEntry, Guard, GuardChange, Op, Place, Text};
use casemate_policy::approval::MAX_LIFE;
use casemate_wire::{PartyId, PublicKey};
use jiff::Timestamp;
use rusqlite::Connection;
use serde::Serialize;

use super::check::{Checked, ShareReport};
use super::format::Entry;
use super::{BackupId, FormatError, Mandate, MandateError};
use crate::pipeline::ShareHeader;
use crate::sealing::{SealError, header, seal};
use crate::store::{
    BackupRow, BackupStage, Material, OneUse, ShareRow, Store, StoreError, Transaction, TreeNodes, Urgency,
    approval_used, destroy_primes, make_folder, newest_epoch, put_text, use_approval,
};
use crate::vault::Vault;

/// Changes that one leaf holds: it stays below the largest leaf.
const CHANGES: usize = 600;

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Another party's shares.
    #[error("it is a backup of {backup}, this is {here}: a share serves its own party only")]
    OtherParty {
        /// Whose it is.
        backup: PartyId,
        /// Whose appliance this is.
        here: PartyId,
    },
    /// Once is enough.
    #[error("the backup {0} was restored here before; a lost share needs a later backup, or a rotation")]
    RestoredBefore(BackupId),
    /// No share of it is to come back.
    #[error("none of its shares was in use when the backup was made, so there is nothing to restore")]
    NothingInUse,
    /// The key has moved on here.
    #[error(
        "the backup is older than the live epoch of key {key}: it holds epoch {backup}, and epoch {here} is known here; nothing \
         was restored"
    )]
    OlderThanLive {
        /// The key.
        key: PublicKey,
        /// The backup's epoch.
        backup: u64,
        /// The newest epoch that is known here.
        here: u64,
    },
    /// Revocation is final.
    #[error("the share of key {key} was revoked here, which is final; nothing was restored")]
    Revoked {
        /// The key.
        key: PublicKey,
    },
    /// The statement was used before.
    #[error("this restore statement was used before, and serves once: have a new one shown, and signed")]
    StatementUsed,
    /// The quorum has signed something else.
    #[error(transparent)]
    Mandate(#[from] MandateError),
    /// The backup does not open, although it did.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A share cannot be sealed here.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The store refused; nothing was restored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A share that is not restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// What is known of it.
    #[serde(flatten)]
    pub share: ShareReport,
    /// Why it stays in the backup.
    pub why: &'static str,
}

/// What would be restored here, looked at and not yet done.
pub struct Plan<'a> {
    checked: &'a Checked,
    party: &'a PartyId,
    entries: Vec<(&'a Entry, &'a ShareReport)>,
    left_out: Vec<LeftOut>,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The shares that came back.
    pub shares: Vec<ShareReport>,
    /// Shares of earlier epochs whose place they took.
    pub superseded: usize,
    /// Prime pairs that were destroyed.
    pub primes_destroyed: usize,
    /// The leaves that say so end here.
    pub place: Place,
}

impl<'a> Plan<'a> {
    /// Looks whether the backup may be restored here.
    ///
    /// # Errors
    /// [`RestoreError`] names the first reason why not.
    pub async fn of(checked: &'a Checked, party: &'a PartyId, store: &Store) -> Result<Self, RestoreError> {
        let head = checked.opened().head();
        if head.party != *party {
            return Err(RestoreError::OtherParty { backup: head.party.clone(), here: party.clone() });
        }
        let (mut entries, mut left_out) = (Vec::new(), Vec::new());
        for (entry, report) in checked.opened().entries().iter().zip(checked.reports()) {
            match stays(report.state) {
                None => entries.push((entry, report)),
                Some(why) => left_out.push(LeftOut { share: report.clone(), why }),
            }
        }
        if entries.is_empty() {
            return Err(RestoreError::NothingInUse);
        }
        let plan = Self { checked, party, entries, left_out };
        let (id, wanted) = (head.id.clone(), plan.wanted());
        store.read(move |connection| Ok(judge(connection, &id, &wanted)?.err())).await?.map_or(Ok(plan), Err)
    }

    /// The shares that would come back.
    pub fn shares(&self) -> Vec<ShareReport> {
        self.entries.iter().map(|(_, report)| (*report).clone()).collect()
    }

    /// The shares that stay in the backup.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// What people must sign for it: for the log as it stands now.
    ///
    /// # Errors
    /// [`RestorationError`] if the times would not do.
    pub fn statement(&self, store: &Store, created: At, expires: At) -> Result<Statement, RestorationError> {
        let head = store.audit_head();
        let onto = Place { log: head.log().clone(), size: head.size(), root: head.root() };
        Statement::new(self.scene(onto), created, expires)
    }

    fn scene(&self, onto: Place) -> Scene {
        let opened = self.checked.opened();
        Scene { party: self.party.clone(), backup: opened.digest(), made: opened.head().log.clone(), onto }
    }

    /// Seals every share under this host's KEK, and writes all of them with their leaves in one transaction. `sealed` hears how
    /// many are sealed. Statement and signatures are kept in `archive`.
    ///
    /// # Errors
    /// [`RestoreError`]; nothing is restored then.
    pub async fn carry_out(
        &self,
        mandate: &Mandate,
        hsm: &Vault,
        store: &Store,
        archive: &Path,
        mut sealed: impl FnMut(usize),
    ) -> Result<Restored, RestoreError> {
        let now = At::new(Timestamp::now()).map_err(|e| StoreError::Audit(e.to_string()))?;
        let onto = self.passed(mandate.statement().onto.clone(), store).await?;
        mandate.statement().check(&self.scene(onto), now).map_err(MandateError::Statement)?;
        let mut rows = Vec::with_capacity(self.entries.len());
        for (number, (entry, _)) in (1..).zip(&self.entries) {
            rows.push(self.row(entry, hsm).await?);
            sealed(number);
        }
        keep(mandate, &archive.join(format!("restore-{}", mandate.digest())))?;
        let opened = self.checked.opened();
        let backup = BackupRow {
            id: opened.head().id.to_string(),
            stage: BackupStage::Restored,
            digest: opened.digest(),
            shares: rows.iter().map(|row| row.id.clone()).collect(),
            made_at: Some(opened.head().made_at.to_string()),
            verified_at: None,
        };
        let writes = Writes {
            id: opened.head().id.clone(),
            backup,
            rows,
            wanted: self.wanted(),
            statement: mandate.digest(),
            signers: mandate.approvals(),
            now,
        };
        let (superseded, primes_destroyed) =
            store.write(Urgency::Act, move |transaction| writes.write(transaction)).await??;
        let head = store.audit_head();
        let place = Place { log: head.log().clone(), size: head.size(), root: head.root() };
        Ok(Restored { shares: self.shares(), superseded, primes_destroyed, place })
    }

    /// Keys and epochs that are to come back.
    fn wanted(&self) -> BTreeMap<PublicKey, u64> {
        self.entries.iter().map(|(_, report)| (report.key, report.epoch)).collect()
    }

    /// The place that the statement names, if the log passes through it; else where the log stands.
    async fn passed(&self, stated: Place, store: &Store) -> Result<Place, StoreError> {
        let head = store.audit_head();
        let now = Place { log: head.log().clone(), size: head.size(), root: head.root() };
        if stated.log != now.log || stated.size > now.size {
            return Ok(now);
        }
        let size = stated.size;
        let root = store.read(move |connection| root_at(size, &TreeNodes(connection))).await?;
        Ok(if root == stated.root { stated } else { now })
    }

    /// A share as it lies here from now on.
    async fn row(&self, entry: &Entry, hsm: &Vault) -> Result<ShareRow, RestoreError> {
        let plain = self.checked.opened().plain(entry)?;
        let known = entry.known.clone();
        let header = ShareHeader { restored: true, ..header("share", &entry.header)? };
        let material = Material::Held(seal(hsm, &header, &plain).await?);
        Ok(ShareRow {
            id: known.id,
            public_key: known.statement.public_key,
            session_id: known.session,
            share_type: header.share_type,
            status: ShareState::Restored,
            material,
            statement: known.statement,
            certificate: known.certificate,
            endorsements: known.endorsements,
            created_at: known.created_at,
            last_used_at: None,
        })
    }
}

/// Why a share that was in this state is not restored.
fn stays(state: ShareState) -> Option<&'static str> {
    match state {
        ShareState::Active | ShareState::Restored => None,
        ShareState::Pending => {
            Some("not all parties had confirmed it; a keygen or rotation that was cut off is begun again")
        }
        ShareState::Rotated => Some("a share of a later epoch had taken its place"),
        ShareState::Revoked | ShareState::Destroyed => Some("it was withdrawn"),
    }
}

/// Whether these keys may come back in these epochs.
fn judge(
    store: &Connection,
    id: &BackupId,
    wanted: &BTreeMap<PublicKey, u64>,
) -> Result<Result<(), RestoreError>, StoreError> {
    if BackupRow::find(store, id.as_str())?.is_some_and(|row| row.stage == BackupStage::Restored) {
        return Ok(Err(RestoreError::RestoredBefore(id.clone())));
    }
    for (key, epoch) in wanted {
        if ShareRow::all_of_key(store, key)?.iter().any(|row| row.status == ShareState::Revoked) {
            return Ok(Err(RestoreError::Revoked { key: *key }));
        }
        let here = newest_epoch(store, key)?;
        if here >= *epoch {
            return Ok(Err(RestoreError::OlderThanLive { key: *key, backup: *epoch, here }));
        }
    }
    Ok(Ok(()))
}

/// Keeps what was signed, beside the log.
fn keep(mandate: &Mandate, folder: &Path) -> Result<(), StoreError> {
    make_folder(folder)?;
    put_text(&folder.join("restore.json"), mandate.text())?;
    for (number, signature) in mandate.signatures().iter().enumerate() {
        put_text(&folder.join(format!("restore.json.sig-{number}")), &signature.armored)?;
    }
    Ok(())
}

/// Everything that becomes durable together.
struct Writes {
    id: BackupId,
    backup: BackupRow,
    rows: Vec<ShareRow>,
    wanted: BTreeMap<PublicKey, u64>,
    statement: casemate_wire::Digest32,
    signers: Vec<casemate_attest::Approval>,
    now: At,
}

impl Writes {
    /// How many shares were superseded, and how many prime pairs destroyed.
    fn write(mut self, transaction: &mut Transaction<'_>) -> Result<Result<(usize, usize), RestoreError>, StoreError> {
        // Everything is looked at before anything is written.
        if let Err(refused) = judge(transaction.sql(), &self.id, &self.wanted)? {
            return Ok(Err(refused));
        }
        if approval_used(transaction.sql(), &self.statement)? {
            return Ok(Err(RestoreError::StatementUsed));
        }
        let mut superseded = Vec::new();
        for (key, epoch) in &self.wanted {
            superseded.extend(ShareRow::supersede(transaction, key, *epoch)?);
        }
        for changes in superseded.chunks(CHANGES) {
            transaction.append(LogEntry::admin(Op::Share).guarding(changes.to_vec()))?;
        }
        let primes = destroy_primes(transaction)?;
        let taken: Vec<GuardChange> = primes.iter().map(|id| change(Guard::Primes, id, "taken")).collect();
        for changes in taken.chunks(CHANGES) {
            transaction.append(LogEntry::admin(Op::Primes).guarding(changes.to_vec()))?;
        }
        let backup = self.backup.put(transaction)?;
        let shares: Vec<GuardChange> =
            self.rows.iter().map(|row| row.insert(transaction)).collect::<Result<_, StoreError>>()?;
        let mut signed = self.use_statement(transaction)?;
        for changes in shares.chunks(CHANGES) {
            let guards = changes.iter().cloned().chain([backup.clone()]).chain(signed.take()).collect();
            let signers = std::mem::take(&mut self.signers);
            transaction.append(LogEntry::admin(Op::Restore).guarding(guards).approved(signers))?;
        }
        Ok(Ok((superseded.len(), primes.len())))
    }

    /// Uses the statement up: the first leaf names who signed it.
    fn use_statement(&self, transaction: &Transaction<'_>) -> Result<Option<GuardChange>, StoreError> {
        let now = self.now.timestamp().as_second();
        let keep_until = now.saturating_add(MAX_LIFE.as_secs());
        match use_approval(transaction, &self.statement, keep_until, now)? {
            OneUse::First => Ok(Some(change(Guard::Approval, &self.statement.to_string(), "used"))),
            OneUse::Replayed => Err(StoreError::Audit("a statement was used up in its own transaction".into())),
        }
    }
}

fn change(guard: Guard, id: &str, to: &str) -> GuardChange {
    GuardChange { guard, id: Text::fitted(id), to: Some(Text::fitted(to)) }
}
