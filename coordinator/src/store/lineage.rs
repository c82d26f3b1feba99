//! The way that a key has come, in the store: its earlier epochs, and who took part in rotations that ended nowhere.

use casemate_wire::lineage::MAX_EARLIER;
use casemate_wire::{Committee, KeyCertificate, Member, Succession};
use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, StoreError, corrupt};
use crate::account::AccountId;
use crate::session::Session;

/// The most bytes of earlier successions that one request carries, of the 64 KiB that an appliance takes.
const ROOM: usize = 40 * 1024;

impl Store {
    /// The committee that the key's present one was dealt from, if it is known and as many had to agree there as do now: fewer must
    /// not decide for more.
    pub(crate) async fn parent_committee(&self, account: AccountId) -> Result<Option<Committee>, StoreError> {
        let id = account.to_string();
        let found = self
            .call("look up a key's committees", move |db| {
                let sql = "SELECT succession FROM accounts WHERE id = ?1";
                let present: Option<Option<String>> = db.query_row(sql, [&id], |row| row.get(0)).optional()?;
                let sql = "SELECT certificate FROM past_epochs WHERE account_id = ?1 ORDER BY epoch DESC";
                let past = db.prepare_cached(sql)?.query_map([&id], |row| row.get(0))?.collect::<Result<_, _>>()?;
                Ok((present.flatten(), past))
            })
            .await?;
        let (Some(present), past): (Option<String>, Vec<String>) = found else { return Ok(None) };
        let bad = |e: &dyn std::fmt::Display| corrupt("a past epoch", e);
        let present: Succession = serde_json::from_str(&present).map_err(|e| bad(&e))?;
        for text in past {
            let certificate: KeyCertificate = serde_json::from_str(&text).map_err(|e| bad(&e))?;
            let committee = Committee::of(&certificate).map_err(|e| bad(&e))?;
            // Whose identities these were was looked at when it was recorded.
            let named = |member: &Member| Some(member.identity.clone());
            if present.is_endorsed_by(&committee.roster, committee.threshold, named).is_ok() {
                let enough = committee.threshold.t() >= present.certificate.statement.threshold_t;
                return Ok(enough.then_some(committee));
            }
        }
        Ok(None)
    }
}

/// What led to the epochs before the present one, the oldest first: as many of the latest as fit into a request.
pub(super) fn earlier(db: &Connection, account: &str) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT succession FROM past_epochs WHERE account_id = ?1 AND succession IS NOT NULL
               ORDER BY epoch DESC LIMIT ?2";
    let mut statement = db.prepare_cached(sql)?;
    let found = statement.query_map(params![account, i64::try_from(MAX_EARLIER).unwrap_or(0)], |row| row.get(0))?;
    let mut fitting: Vec<String> = Vec::new();
    let mut left = ROOM;
    for text in found {
        let text: String = text?;
        let Some(rest) = left.checked_sub(text.len()) else { break };
        left = rest;
        fitting.push(text);
    }
    fitting.reverse();
    Ok(fitting)
}

pub(super) fn parse(texts: &[String]) -> Result<Vec<Succession>, StoreError> {
    texts.iter().map(|text| serde_json::from_str(text).map_err(|e| corrupt("a past epoch", e))).collect()
}

/// Keeps the present epoch of an account among its past ones, before it is replaced.
pub(super) fn leave(db: &Connection, account: &str, next: u64) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO past_epochs (account_id, epoch, certificate, succession)
               SELECT id, epoch, certificate, succession FROM accounts WHERE id = ?1 AND epoch < ?2";
    db.execute(sql, params![account, next]).map(drop)
}

/// Notes who is asked to take part in a rotation.
pub(super) fn attempt(db: &Connection, session: &Session, (account, epoch): (AccountId, u64)) -> rusqlite::Result<()> {
    let sql = "INSERT INTO tried (account_id, session_id, party_id, epoch) VALUES (?1, ?2, ?3, ?4)";
    for participant in session.participants() {
        let party = participant.member.party_id.as_str();
        db.execute(sql, params![account.to_string(), session.id().as_str(), party, epoch])?;
    }
    Ok(())
}

/// Forgets who was asked: nothing came of it anywhere, or it came to an end that is known.
pub(super) fn forget_attempt(db: &Connection, session: &Session) -> rusqlite::Result<()> {
    db.execute("DELETE FROM tried WHERE session_id = ?1", [session.id().as_str()]).map(drop)
}

/// Those who took part in attempts up to this epoch are to be told where the key has come to.
pub(super) fn settle_attempts(db: &Connection, account: &str, epoch: u64) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO settling (account_id, party_id)
               SELECT DISTINCT account_id, party_id FROM tried WHERE account_id = ?1 AND epoch <= ?2";
    db.execute(sql, params![account, epoch])?;
    db.execute("DELETE FROM tried WHERE account_id = ?1 AND epoch <= ?2", params![account, epoch]).map(drop)
}
