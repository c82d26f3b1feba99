//! Rows of shares, through their whole life. Nothing here can open them.
//!
//! A share changes its state by [`ShareRow::shift`] alone, which takes a [`Transition`]: what is no transition cannot be written,
//! and the database's triggers refuse it once more. Each change gives the [`GuardChange`] that its leaf must hold.

use casemate_attest::life::{ShareState, Transition};
use casemate_attest::{Guard, GuardChange, Text};
use casemate_wire::rotation::Endorsement;
use casemate_wire::{KeyCertificate, KeyStatement, PublicKey, SessionId, ShareType, Succession};
use rusqlite::{Connection, OptionalExtension, Row};

use super::sealed::SealedColumns;
use super::sessions::{from_json, from_json_text, to_json};
use super::{StoreError, Transaction};

/// One share as stored.
#[derive(Debug, Clone)]
pub struct ShareRow {
    /// Its id.
    pub id: String,
    /// The key's public key.
    pub public_key: PublicKey,
    /// The session that made it.
    pub session_id: SessionId,
    /// What the key is for.
    pub share_type: ShareType,
    /// Where it stands.
    pub status: ShareState,
    /// Header, wrapped DEKs, body.
    pub material: Material,
    /// What this party states about the key.
    pub statement: KeyStatement,
    /// All parties' signatures over that statement, once they are there.
    pub certificate: Option<KeyCertificate>,
    /// The dealers' signatures over it, if a rotation made it.
    pub endorsements: Vec<Endorsement>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub last_used_at: Option<String>,
}

/// A share's state and age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareStanding {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub status: ShareState,
    /// RFC 3339.
    pub created_at: String,
}

/// What is left of a share beside what is known of it.
#[derive(Debug, Clone)]
pub enum Material {
    /// All of it, sealed.
    Held(SealedColumns),
    /// The header alone: DEKs and body were destroyed.
    Gone {
        /// CBOR; nothing authenticates it any more.
        header: Vec<u8>,
    },
}

impl Material {
    /// The readable header.
    pub fn header(&self) -> &[u8] {
        match self {
            Self::Held(sealed) => &sealed.header,
            Self::Gone { header } => header,
        }
    }

    /// The sealed share, if it was not destroyed.
    pub fn held(&self) -> Option<&SealedColumns> {
        match self {
            Self::Held(sealed) => Some(sealed),
            Self::Gone { .. } => None,
        }
    }
}

const SELECT: &str =
    "SELECT id, public_key, session_id, share_type, status, header, deks, nonce, body, statement, certificate,
     endorsements, created_at, last_used_at FROM shares";

const FILTER: &str = "WHERE (?1 IS NULL OR status = ?1) AND (?2 IS NULL OR share_type = ?2)";

impl ShareRow {
    /// The share of a key that counts now: the one that signs, else the newest that is pending, else the newest.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn of_key(connection: &Connection, key: &PublicKey) -> Result<Option<Self>, StoreError> {
        let order = "WHERE public_key = ?1
             ORDER BY status IN ('active', 'restored') DESC, status = 'pending' DESC, epoch DESC, created_at DESC LIMIT 1";
        Self::one(connection, order, &key.to_string())
    }

    /// All shares of a key, the newest epoch first.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn all_of_key(connection: &Connection, key: &PublicKey) -> Result<Vec<Self>, StoreError> {
        let failed = StoreError::sqlite("read the shares of a key");
        let order = "WHERE public_key = ?1 ORDER BY epoch DESC, created_at DESC, id";
        let mut statement = connection.prepare_cached(&format!("{SELECT} {order}")).map_err(&failed)?;
        let rows = statement.query_map([key.to_string()], RawShare::read).map_err(&failed)?;
        rows.map(|row| row.map_err(&failed)?.parse()).collect()
    }

    /// All shares whose material is still there, in the order of their ids: what a backup holds.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn held(connection: &Connection) -> Result<Vec<Self>, StoreError> {
        let failed = StoreError::sqlite("read the shares");
        let mut statement =
            connection.prepare(&format!("{SELECT} WHERE body IS NOT NULL ORDER BY id")).map_err(&failed)?;
        let rows = statement.query_map([], RawShare::read).map_err(&failed)?;
        rows.map(|row| row.map_err(&failed)?.parse()).collect()
    }

    /// The share with this id.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn find(connection: &Connection, id: &str) -> Result<Option<Self>, StoreError> {
        Self::one(connection, "WHERE id = ?1", id)
    }

    /// One page of all shares, newest first, and how many there are.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn page(
        connection: &Connection,
        status: Option<ShareState>,
        share_type: Option<ShareType>,
        page: u32,
        limit: u32,
    ) -> Result<(Vec<Self>, u64), StoreError> {
        let failed = StoreError::sqlite("list the shares");
        let status = status.map(ShareState::as_str);
        let share_type = share_type.map(|kind| kind.to_string());
        let total: i64 = connection
            .query_row(&format!("SELECT COUNT(*) FROM shares {FILTER}"), (status, &share_type), |row| row.get(0))
            .map_err(&failed)?;
        let mut statement = connection
            .prepare_cached(&format!("{SELECT} {FILTER} ORDER BY created_at DESC, id LIMIT ?3 OFFSET ?4"))
            .map_err(&failed)?;
        let offset = i64::from(page.saturating_sub(1)).saturating_mul(i64::from(limit));
        let rows = statement.query_map((status, &share_type, limit, offset), RawShare::read).map_err(&failed)?;
        let shares = rows.map(|row| row.map_err(&failed)?.parse()).collect::<Result<_, _>>()?;
        Ok((shares, u64::try_from(total).unwrap_or(0)))
    }

    /// Where every share stands, for figures.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn standings(connection: &Connection) -> Result<Vec<ShareStanding>, StoreError> {
        let failed = StoreError::sqlite("count the shares");
        let mut statement = connection.prepare_cached("SELECT id, status, created_at FROM shares").map_err(&failed)?;
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?));
        let rows = statement.query_map([], read).map_err(&failed)?;
        rows.map(|row| {
            let (id, status, created_at) = row.map_err(&failed)?;
            Ok(ShareStanding { id, status: from_json_text(&status)?, created_at })
        })
        .collect()
    }

    /// Writes a new share, as pending or as restored, whichever its status says.
    ///
    /// # Errors
    /// Says that the store cannot be written, or that no share begins so.
    pub fn insert(&self, transaction: &Transaction<'_>) -> Result<GuardChange, StoreError> {
        let begins = Transition::between(None, self.status).zip(self.material.held());
        let (_, sealed) = begins.ok_or_else(|| StoreError::corrupt("a new share")(format!("it is {}", self.status)))?;
        transaction
            .sql()
            .execute(
                "INSERT INTO shares (id, public_key, epoch, session_id, share_type, status, header, deks, nonce, body,
                 statement, certificate, endorsements, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
                (
                    &self.id,
                    self.public_key.to_string(),
                    i64::try_from(self.statement.epoch).unwrap_or(i64::MAX),
                    self.session_id.as_str(),
                    self.share_type.to_string(),
                    self.status.as_str(),
                    &sealed.header,
                    &sealed.deks,
                    sealed.nonce,
                    &sealed.body,
                    to_json(&self.statement),
                    self.certificate.as_ref().map(to_json),
                    to_json(&self.endorsements),
                    &self.created_at,
                ),
            )
            .map_err(StoreError::sqlite("write a share"))?;
        Ok(became(&self.id, self.status))
    }

    /// Makes a pending share active by what proves it, and supersedes the one that signed before. Nothing changes if the same
    /// proof has made it active already.
    ///
    /// # Errors
    /// Says that the store cannot be written, that the share is not pending, or ([`StoreError::Outdated`]) that this party signs,
    /// or has signed, with a share of this epoch or a later one: what comes late never takes its place.
    pub fn confirm(
        transaction: &Transaction<'_>,
        id: &str,
        certificate: &KeyCertificate,
        endorsements: &[Endorsement],
    ) -> Result<Vec<GuardChange>, StoreError> {
        let not_there = || StoreError::corrupt("a share")(format!("{id} is not there"));
        let row = Self::find(transaction.sql(), id)?.ok_or_else(not_there)?;
        if row.status == ShareState::Active && row.certificate.as_ref() == Some(certificate) {
            return Ok(Vec::new());
        }
        if let Some(later) =
            Self::came_to(transaction.sql(), &row.public_key)?.filter(|epoch| *epoch >= row.statement.epoch)
        {
            let why = format!("{id} is of epoch {}, and this party has come to epoch {later}", row.statement.epoch);
            return Err(StoreError::Outdated(why));
        }
        let mut changes = Self::supersede(transaction, &row.public_key, row.statement.epoch)?;
        changes.push(Self::shift(transaction, id, Transition::Confirm)?);
        transaction
            .sql()
            .execute(
                "UPDATE shares SET certificate = ?2, endorsements = ?3 WHERE id = ?1",
                (id, to_json(certificate), to_json(&endorsements)),
            )
            .map_err(StoreError::sqlite("keep a share's certificate"))?;
        Ok(changes)
    }

    /// The latest epoch of a key with whose share this party signs or has signed.
    fn came_to(connection: &Connection, key: &PublicKey) -> Result<Option<u64>, StoreError> {
        let signed = |row: &Self| {
            matches!(
                row.status,
                ShareState::Active | ShareState::Restored | ShareState::Rotated | ShareState::Destroyed
            ) && row.certificate.is_some()
        };
        let rows = Self::all_of_key(connection, key)?;
        Ok(rows.iter().filter(|row| signed(row)).map(|row| row.statement.epoch).max())
    }

    /// Takes the share of a key out of use that signs now, if it is of an epoch before `epoch`: it is kept until all others have
    /// switched.
    ///
    /// # Errors
    /// Says that the store cannot be written.
    pub fn supersede(
        transaction: &Transaction<'_>,
        key: &PublicKey,
        epoch: u64,
    ) -> Result<Vec<GuardChange>, StoreError> {
        let live = Self::all_of_key(transaction.sql(), key)?.into_iter().filter_map(|row| {
            let superseded = match row.status {
                _ if row.statement.epoch >= epoch => return None,
                ShareState::Active => Transition::Supersede,
                ShareState::Restored => Transition::SupersedeRestored,
                _ => return None,
            };
            Some((row.id, superseded))
        });
        live.map(|(id, superseded)| Self::shift(transaction, &id, superseded)).collect()
    }

    /// Keeps the dealers' signatures beside a share that was adopted without them.
    ///
    /// # Errors
    /// Says that the store cannot be written.
    pub fn endorse(transaction: &Transaction<'_>, id: &str, endorsements: &[Endorsement]) -> Result<(), StoreError> {
        transaction
            .sql()
            .execute("UPDATE shares SET endorsements = ?2 WHERE id = ?1", (id, to_json(&endorsements)))
            .map(|_| ())
            .map_err(StoreError::sqlite("keep a share's endorsements"))
    }

    /// Changes a share's state. Where the new one is final, DEKs and body are destroyed: `secure_delete` overwrites them, and the
    /// writer empties the write-ahead log before anybody hears of it.
    ///
    /// # Errors
    /// Says that the store cannot be written, or that the share stands elsewhere than the transition begins.
    pub fn shift(transaction: &Transaction<'_>, id: &str, change: Transition) -> Result<GuardChange, StoreError> {
        let (from, to) = (change.from().map(ShareState::as_str), change.to());
        let destroy = if to.is_final() { ", deks = NULL, nonce = NULL, body = NULL" } else { "" };
        let changed = transaction
            .sql()
            .execute(
                &format!("UPDATE shares SET status = ?3{destroy} WHERE id = ?1 AND status = ?2"),
                (id, from, to.as_str()),
            )
            .map_err(StoreError::sqlite("change a share's state"))?;
        if changed == 1 {
            if to.is_final() {
                transaction.destroyed();
            }
            return Ok(became(id, to));
        }
        Err(StoreError::corrupt("a share")(format!("{id} is not {}", from.unwrap_or("new"))))
    }

    /// Notes that the share was used.
    ///
    /// # Errors
    /// Says that the store cannot be written.
    pub fn touch(transaction: &Transaction<'_>, id: &str, at: &str) -> Result<(), StoreError> {
        transaction
            .sql()
            .execute("UPDATE shares SET last_used_at = ?2 WHERE id = ?1", [id, at])
            .map(|_| ())
            .map_err(StoreError::sqlite("note a share's use"))
    }

    /// What proves that the key has come to this share's epoch, if a rotation did that and it is proven.
    pub fn succession(&self) -> Option<Succession> {
        let certificate = self.certificate.clone()?;
        let rotated = !self.endorsements.is_empty();
        rotated.then(|| Succession { certificate, endorsements: self.endorsements.clone() })
    }

    fn one(connection: &Connection, filter: &str, value: &str) -> Result<Option<Self>, StoreError> {
        let raw = connection
            .prepare_cached(&format!("{SELECT} {filter}"))
            .and_then(|mut statement| statement.query_row([value], RawShare::read).optional())
            .map_err(StoreError::sqlite("read a share"))?;
        raw.map(RawShare::parse).transpose()
    }
}

/// The change of a share's state, for its leaf.
fn became(id: &str, state: ShareState) -> GuardChange {
    GuardChange { guard: Guard::Share, id: Text::fitted(id), to: Some(Text::fitted(state.as_str())) }
}

/// Notes that this party takes part in bringing a key to `epoch`; `None` if it has done so for that epoch or a later one.
///
/// # Errors
/// Says that the store cannot be written.
pub(crate) fn enter_epoch(
    transaction: &Transaction<'_>,
    key: &PublicKey,
    epoch: u64,
) -> Result<Option<GuardChange>, StoreError> {
    if newest_epoch(transaction.sql(), key)? >= epoch {
        return Ok(None);
    }
    transaction
        .sql()
        .execute(
            "INSERT INTO epochs (public_key, epoch) VALUES (?1, ?2)
             ON CONFLICT (public_key) DO UPDATE SET epoch = excluded.epoch",
            (key.to_string(), i64::try_from(epoch).unwrap_or(i64::MAX)),
        )
        .map_err(StoreError::sqlite("note an epoch"))?;
    let (id, to) = (Text::fitted(&key.to_string()), Some(Text::fitted(&epoch.to_string())));
    Ok(Some(GuardChange { guard: Guard::Epoch, id, to }))
}

/// The latest epoch of a key that this party has taken part in, also in vain; 0 for a key that it does not know.
///
/// # Errors
/// Says that the store cannot be read.
pub(crate) fn newest_epoch(connection: &Connection, key: &PublicKey) -> Result<u64, StoreError> {
    let newest: Option<i64> = connection
        .query_row(
            "SELECT max(epoch) FROM (SELECT epoch FROM epochs WHERE public_key = ?1
             UNION ALL SELECT epoch FROM shares WHERE public_key = ?1)",
            [key.to_string()],
            |row| row.get(0),
        )
        .map_err(StoreError::sqlite("read the epochs of a key"))?;
    Ok(newest.and_then(|epoch| u64::try_from(epoch).ok()).unwrap_or(0))
}

struct RawShare {
    texts: [String; 7],
    material: Material,
    certificate: Option<String>,
    endorsements: Option<String>,
    last_used_at: Option<String>,
}

impl RawShare {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let text = |name: &str| row.get::<_, String>(name);
        let gone = row.get::<_, Option<Vec<u8>>>("body")?.is_none();
        Ok(Self {
            texts: [
                text("id")?,
                text("public_key")?,
                text("session_id")?,
                text("share_type")?,
                text("status")?,
                text("statement")?,
                text("created_at")?,
            ],
            material: if gone {
                Material::Gone { header: row.get("header")? }
            } else {
                Material::Held(SealedColumns::read(row)?)
            },
            certificate: row.get("certificate")?,
            endorsements: row.get("endorsements")?,
            last_used_at: row.get("last_used_at")?,
        })
    }

    fn parse(self) -> Result<ShareRow, StoreError> {
        let [id, public_key, session_id, share_type, status, statement, created_at] = self.texts;
        Ok(ShareRow {
            id,
            public_key: from_json_text(&public_key)?,
            session_id: from_json_text(&session_id)?,
            share_type: from_json_text(&share_type)?,
            status: from_json_text(&status)?,
            material: self.material,
            statement: from_json(&statement)?,
            certificate: self.certificate.as_deref().map(from_json).transpose()?,
            endorsements: self.endorsements.as_deref().map(from_json).transpose()?.unwrap_or_default(),
            created_at,
            last_used_at: self.last_used_at,
        })
    }
}
