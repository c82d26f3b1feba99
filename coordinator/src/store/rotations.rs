//! Rotations in the store: which epochs were tried, to which one a key has come, and where old shares may still lie.

use casemate_wire::{PartyId, SessionId};
use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, StoreError, corrupt, lineage};
use crate::account::{AccountId, Advance};
use crate::session::{Session, Status};
use crate::settle::{Settling, Standing};

impl Store {
    /// Notes that an epoch of a key is taken, so that the next rotation leads to a later one.
    pub(crate) async fn raise_epoch(&self, account: AccountId, epoch: u64) -> Result<(), StoreError> {
        let sql = "UPDATE accounts SET epoch_tried = ?2 WHERE id = ?1 AND epoch_tried < ?2";
        self.call("note an epoch", move |db| db.execute(sql, params![account.to_string(), epoch]).map(drop)).await
    }

    /// Records that a key has come to a later epoch, outside of a session of this process. `false` if the account is known to
    /// be there or further already.
    pub(crate) async fn advance(&self, advance: &Advance) -> Result<bool, StoreError> {
        let step = Step::of(advance)?;
        self.call("record a key's new epoch", move |db| {
            let change = db.transaction()?;
            let moved = step.take(&change)?;
            change.commit()?;
            Ok(moved)
        })
        .await
    }

    /// Notes that a rotation left nothing unseen: no party has switched by it that is not known here.
    pub(crate) async fn resolve(&self, account: AccountId, doubt: &SessionId) -> Result<(), StoreError> {
        let sql = "UPDATE accounts SET doubt = NULL WHERE id = ?1 AND doubt = ?2";
        let (id, doubt) = (account.to_string(), doubt.to_string());
        self.call("note that a rotation is understood", move |db| db.execute(sql, [id, doubt]).map(drop)).await
    }

    /// The accounts of which a party may have switched to an epoch that is not known here.
    pub(crate) async fn doubtful(&self) -> Result<Vec<AccountId>, StoreError> {
        self.account_ids("SELECT id FROM accounts WHERE doubt IS NOT NULL").await
    }

    /// The accounts of whose keys old shares may still lie somewhere.
    pub(crate) async fn unsettled(&self) -> Result<Vec<AccountId>, StoreError> {
        self.account_ids("SELECT DISTINCT account_id FROM settling").await
    }

    async fn account_ids(&self, sql: &'static str) -> Result<Vec<AccountId>, StoreError> {
        let found: Vec<String> = self
            .call("look for accounts", move |db| db.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect())
            .await?;
        found.iter().map(|id| id.parse().map_err(|e| corrupt("an account", e))).collect()
    }

    /// What is to be settled of an account; `None` if nothing is.
    pub(crate) async fn settling(&self, account: AccountId) -> Result<Option<Settling>, StoreError> {
        let id = account.to_string();
        let found = self
            .call("look up what is to be settled", move |db| {
                let view = db.transaction()?;
                let sql = "SELECT succession FROM accounts WHERE id = ?1";
                let succession: Option<Option<String>> = view.query_row(sql, [&id], |row| row.get(0)).optional()?;
                let sql = "SELECT party_id, word, done FROM settling WHERE account_id = ?1 ORDER BY party_id";
                let mut rows = view.prepare_cached(sql)?;
                let rows = rows.query_map([&id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
                let rows: Vec<(String, Option<String>, bool)> = rows.collect::<Result<_, _>>()?;
                let earlier = lineage::earlier(&view, &id)?;
                Ok(succession.flatten().map(|succession| (succession, earlier, rows)))
            })
            .await?;
        let Some((succession, earlier, rows)) = found.filter(|(.., rows)| !rows.is_empty()) else {
            return Ok(None);
        };
        let bad = |e: &dyn std::fmt::Display| corrupt("what is to be settled", e);
        let standing = |(party, word, done): (String, Option<String>, bool)| {
            let word = word.map(|word| serde_json::from_str(&word).map_err(|e| bad(&e))).transpose()?;
            Ok(Standing { party: party.parse().map_err(|e| bad(&e))?, word, done })
        };
        let succession = serde_json::from_str(&succession).map_err(|e| bad(&e))?;
        let parties = rows.into_iter().map(standing).collect::<Result<_, StoreError>>()?;
        Ok(Some(Settling::new(succession, lineage::parse(&earlier)?, parties)))
    }

    /// Keeps what the parties have said, unless the account has moved on meanwhile. Once all are done, nothing is left to
    /// settle.
    pub(crate) async fn keep_settling(&self, account: AccountId, settling: &Settling) -> Result<(), StoreError> {
        let (id, epoch) = (account.to_string(), settling.epoch());
        let mut rows = Vec::new();
        for Standing { party, word, done } in settling.parties() {
            let word = word.as_ref().map(serde_json::to_string).transpose();
            rows.push((party.to_string(), word.map_err(|e| corrupt("a party's word", e))?, *done));
        }
        self.call("keep what was settled", move |db| {
            let change = db.transaction()?;
            let sql = "SELECT 1 FROM accounts WHERE id = ?1 AND epoch = ?2";
            if change.query_row(sql, params![id, epoch], |_| Ok(())).optional()?.is_none() {
                return Ok(());
            }
            let sql = "UPDATE settling SET word = ?3, done = ?4 WHERE account_id = ?1 AND party_id = ?2";
            for (party, word, done) in &rows {
                change.execute(sql, params![id, party, word, done])?;
            }
            let sql = "DELETE FROM settling WHERE account_id = ?1 AND NOT EXISTS
                       (SELECT 1 FROM settling WHERE account_id = ?1 AND NOT done)";
            change.execute(sql, [&id])?;
            change.commit()
        })
        .await
    }
}

/// Records, with a new session, the epoch that it tries: durable before any party is asked.
pub(super) fn begin(db: &Connection, session: &Session) -> rusqlite::Result<()> {
    let Some(new) = session.new_shares() else {
        return Ok(());
    };
    let sql = "UPDATE accounts SET epoch_tried = ?2, doubt = ?3 WHERE id = ?1 AND epoch_tried < ?2";
    let changed = db.execute(sql, params![new.account_id.to_string(), new.rotation.epoch, session.id().as_str()])?;
    if changed == 0 {
        return Err(rusqlite::Error::QueryReturnedNoRows);
    }
    lineage::attempt(db, session, (new.account_id, new.rotation.epoch))
}

/// Records, with a rotation's end, that nothing is unclear about it: it completed, or it never began.
pub(super) fn end(db: &Connection, session: &Session, began: bool) -> rusqlite::Result<()> {
    let Some(new) = session.new_shares() else {
        return Ok(());
    };
    if session.status() == Status::Completed || !began {
        let sql = "UPDATE accounts SET doubt = NULL WHERE id = ?1 AND doubt = ?2";
        db.execute(sql, [&new.account_id.to_string(), session.id().as_str()])?;
        lineage::forget_attempt(db, session)?;
    }
    Ok(())
}

/// An account's step to another epoch, as it is written.
pub(super) struct Step {
    account: String,
    epoch: u64,
    threshold: (u16, u16),
    certificate: String,
    succession: String,
    committee: Vec<PartyId>,
    shares: Vec<super::accounts::ShareRow>,
}

impl Step {
    pub(super) fn of(advance: &Advance) -> Result<Self, StoreError> {
        let unwritable = |e| corrupt("a succession", e);
        let certificate = &advance.succession.certificate;
        let statement = &certificate.statement;
        Ok(Self {
            account: advance.account_id.to_string(),
            epoch: statement.epoch,
            threshold: (statement.threshold_t, statement.threshold_n),
            certificate: serde_json::to_string(certificate).map_err(unwritable)?,
            succession: serde_json::to_string(&advance.succession).map_err(unwritable)?,
            committee: statement.roster.members().iter().map(|member| member.party_id.clone()).collect(),
            shares: advance.shares.iter().map(super::accounts::ShareRow::of).collect(),
        })
    }

    /// Takes the step, if it leads forward. Old and new parties are to be settled then.
    pub(super) fn take(&self, db: &Connection) -> rusqlite::Result<bool> {
        lineage::leave(db, &self.account, self.epoch)?;
        let (t, n) = self.threshold;
        let sql =
            "UPDATE accounts SET epoch = ?2, epoch_tried = max(epoch_tried, ?2), threshold_t = ?3, threshold_n = ?4,
                   certificate = ?5, succession = ?6 WHERE id = ?1 AND epoch < ?2";
        if db.execute(sql, params![self.account, self.epoch, t, n, self.certificate, self.succession])? == 0 {
            return Ok(false);
        }
        db.execute("DELETE FROM settling WHERE account_id = ?1 AND done", [&self.account])?;
        db.execute("UPDATE settling SET word = NULL WHERE account_id = ?1", [&self.account])?;
        let sql = "INSERT OR IGNORE INTO settling (account_id, party_id)
                   SELECT account_id, party_id FROM account_shares WHERE account_id = ?1";
        db.execute(sql, [&self.account])?;
        for party in &self.committee {
            let sql = "INSERT OR IGNORE INTO settling (account_id, party_id) VALUES (?1, ?2)";
            db.execute(sql, [&self.account, party.as_str()])?;
        }
        lineage::settle_attempts(db, &self.account, self.epoch)?;
        db.execute("DELETE FROM account_shares WHERE account_id = ?1", [&self.account])?;
        for share in &self.shares {
            share.insert(db, &self.account)?;
        }
        Ok(true)
    }
}
