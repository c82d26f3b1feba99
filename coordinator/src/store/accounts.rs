//! Accounts in the store.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Store, StoreError, corrupt};
use crate::account::{Account, AccountId, Device, Share};
use casemate_wire::{KeyCertificate, Threshold};

const COLUMNS: &str = "id, username, email, label, share_type, public_key, threshold_n, threshold_t, status, \
                       created_at, certificate, epoch, epoch_tried, doubt";

impl Store {
    /// One account.
    pub(crate) async fn account(&self, id: AccountId) -> Result<Option<Account>, StoreError> {
        let id = id.to_string();
        let rows = self
            .call("look an account up", move |db| {
                let sql = format!("SELECT {COLUMNS} FROM accounts WHERE id = ?1");
                let row = db.prepare_cached(&sql)?.query_row([id], AccountRow::read).optional()?;
                row.map(|account| Rows::with_shares(db, account)).transpose()
            })
            .await?;
        rows.map(Account::try_from).transpose()
    }

    /// The accounts from the `skip`th on, oldest first, at most `limit`, and how many there are in all.
    pub(crate) async fn accounts(&self, skip: u64, limit: u32) -> Result<(Vec<Account>, u64), StoreError> {
        let (rows, total) = self
            .call("list accounts", move |db| {
                let view = db.transaction()?;
                let total: u64 = view.query_row("SELECT count(*) FROM accounts", [], |row| row.get(0))?;
                let sql = format!("SELECT {COLUMNS} FROM accounts ORDER BY created_at, id LIMIT ?1 OFFSET ?2");
                let found: Vec<AccountRow> = view
                    .prepare_cached(&sql)?
                    .query_map(params![limit, i64::try_from(skip).unwrap_or(i64::MAX)], AccountRow::read)?
                    .collect::<Result<_, _>>()?;
                let with_shares = found.into_iter().map(|account| Rows::with_shares(&view, account));
                Ok((with_shares.collect::<Result<Vec<_>, _>>()?, total))
            })
            .await?;
        let accounts = rows.into_iter().map(Account::try_from).collect::<Result<_, _>>()?;
        Ok((accounts, total))
    }
}

/// An account as it lies in two tables.
pub(super) struct Rows {
    account: AccountRow,
    shares: Vec<ShareRow>,
}

struct AccountRow {
    id: String,
    username: Option<String>,
    email: Option<String>,
    label: Option<String>,
    share_type: String,
    public_key: String,
    threshold_n: u16,
    threshold_t: u16,
    status: String,
    created_at: String,
    certificate: String,
    epoch: u64,
    epoch_tried: u64,
    doubt: Option<String>,
}

pub(super) struct ShareRow {
    party_index: u16,
    party_id: String,
    device: Device,
    is_active: bool,
}

impl Rows {
    pub(super) fn of(account: &Account) -> Result<Self, StoreError> {
        let certificate = serde_json::to_string(&account.certificate).map_err(|e| corrupt("a certificate", e))?;
        let row = AccountRow {
            id: account.id.to_string(),
            username: account.username.clone(),
            email: account.email.clone(),
            label: account.label.clone(),
            share_type: text(&account.share_type)?,
            public_key: account.public_key.to_string(),
            threshold_n: account.threshold.n(),
            threshold_t: account.threshold.t(),
            status: text(&account.status)?,
            created_at: format!("{:.3}", account.created_at),
            certificate,
            epoch: account.epoch(),
            epoch_tried: account.epoch_tried,
            doubt: account.doubt.as_ref().map(ToString::to_string),
        };
        Ok(Self { account: row, shares: account.shares.iter().map(ShareRow::of).collect() })
    }

    pub(super) fn insert(&self, db: &Connection) -> rusqlite::Result<()> {
        let a = &self.account;
        let places = "?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14";
        let sql = format!("INSERT INTO accounts ({COLUMNS}) VALUES ({places})");
        db.prepare_cached(&sql)?.execute(params![
            a.id,
            a.username,
            a.email,
            a.label,
            a.share_type,
            a.public_key,
            a.threshold_n,
            a.threshold_t,
            a.status,
            a.created_at,
            a.certificate,
            a.epoch,
            a.epoch_tried,
            a.doubt,
        ])?;
        self.shares.iter().try_for_each(|share| share.insert(db, &a.id))
    }

    fn with_shares(db: &Connection, account: AccountRow) -> rusqlite::Result<Self> {
        let sql = "SELECT party_index, party_id, device_type, device_id, platform, is_active
                   FROM account_shares WHERE account_id = ?1 ORDER BY party_index";
        let shares = db.prepare_cached(sql)?.query_map([&account.id], ShareRow::read)?.collect::<Result<_, _>>()?;
        Ok(Self { account, shares })
    }
}

impl AccountRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            username: row.get(1)?,
            email: row.get(2)?,
            label: row.get(3)?,
            share_type: row.get(4)?,
            public_key: row.get(5)?,
            threshold_n: row.get(6)?,
            threshold_t: row.get(7)?,
            status: row.get(8)?,
            created_at: row.get(9)?,
            certificate: row.get(10)?,
            epoch: row.get(11)?,
            epoch_tried: row.get(12)?,
            doubt: row.get(13)?,
        })
    }
}

impl ShareRow {
    pub(super) fn of(share: &Share) -> Self {
        Self {
            party_index: share.party_index,
            party_id: share.party_id.to_string(),
            device: share.device.clone(),
            is_active: share.is_active,
        }
    }

    pub(super) fn insert(&self, db: &Connection, account: &str) -> rusqlite::Result<()> {
        let Device { kind, id, platform } = &self.device;
        let place = params![account, self.party_index, self.party_id, kind, id, platform, self.is_active];
        let sql = "INSERT INTO account_shares VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        db.prepare_cached(sql)?.execute(place).map(drop)
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            party_index: row.get(0)?,
            party_id: row.get(1)?,
            device: Device { kind: row.get(2)?, id: row.get(3)?, platform: row.get(4)? },
            is_active: row.get(5)?,
        })
    }
}

impl TryFrom<Rows> for Account {
    type Error = StoreError;

    fn try_from(rows: Rows) -> Result<Self, StoreError> {
        let bad = |e: &dyn std::fmt::Display| corrupt("an account", e);
        let row = rows.account;
        let share = |share: ShareRow| {
            Ok(Share {
                party_id: share.party_id.parse().map_err(|e| bad(&e))?,
                party_index: share.party_index,
                device: share.device,
                is_active: share.is_active,
            })
        };
        let certificate: KeyCertificate = serde_json::from_str(&row.certificate).map_err(|e| bad(&e))?;
        if certificate.statement.epoch != row.epoch {
            return Err(bad(&"its certificate is of another epoch"));
        }
        Ok(Self {
            id: row.id.parse().map_err(|e: String| bad(&e))?,
            username: row.username,
            email: row.email,
            label: row.label,
            share_type: value(row.share_type)?,
            public_key: row.public_key.parse().map_err(|e| bad(&e))?,
            threshold: Threshold::new(row.threshold_t, row.threshold_n).map_err(|e| bad(&e))?,
            status: value(row.status)?,
            created_at: row.created_at.parse().map_err(|e| bad(&e))?,
            certificate,
            epoch_tried: row.epoch_tried,
            doubt: row.doubt.map(|session| session.parse()).transpose().map_err(|e| bad(&e))?,
            shares: rows.shares.into_iter().map(share).collect::<Result<_, StoreError>>()?,
        })
    }
}

/// The one word that a unit variant is written as.
fn text(word: &impl Serialize) -> Result<String, StoreError> {
    match serde_json::to_value(word) {
        Ok(Value::String(text)) => Ok(text),
        _ => Err(corrupt("an account", "a field is not one word")),
    }
}

fn value<T: DeserializeOwned>(word: String) -> Result<T, StoreError> {
    serde_json::from_value(Value::String(word)).map_err(|e| corrupt("an account", e))
}
