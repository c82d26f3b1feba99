//! What is told of shares: to whoever asks, and in figures for alerts. Nothing here can open one.

use std::collections::BTreeMap;

use casemate_attest::life::ShareState;
use casemate_wire::api::ShareView;
use jiff::Timestamp;
use rusqlite::Connection;

use crate::pipeline::ShareHeader;
use crate::sealing::{self, SealError};
use crate::store::{LastBackups, ShareRow, StoreError};

/// A share as it is shown: metadata only.
///
/// # Errors
/// Its header cannot be read.
pub fn view(row: &ShareRow, backups: &LastBackups) -> Result<ShareView, SealError> {
    let header: ShareHeader = sealing::header("share", row.material.header())?;
    let rotated = header.key.epoch > 1 && !header.restored;
    Ok(ShareView {
        id: row.id.clone(),
        session_id: row.session_id.clone(),
        share_type: header.share_type,
        public_key: row.public_key,
        threshold: header.key.threshold.to_string(),
        participants: header.key.roster.members().iter().map(|member| member.party_id.clone()).collect(),
        party_id: header.party_id,
        status: row.status.as_str().into(),
        epoch: header.key.epoch,
        kek: row.material.held().map(sealing::kek_of).unwrap_or_default(),
        label: header.label,
        created_at: row.created_at.clone(),
        key_created_at: Timestamp::from_second(header.created).unwrap_or(Timestamp::UNIX_EPOCH).to_string(),
        rotated_at: rotated.then(|| row.created_at.clone()),
        last_used_at: row.last_used_at.clone(),
        last_backup_at: backups.get(&row.id).map(str::to_owned),
    })
}

/// How an appliance's shares stand, for alerts. A live share is one that signs: active, or restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// How many shares there are in each state.
    pub states: BTreeMap<ShareState, u64>,
    /// Seconds since the last verified backup of the live share that was backed up longest ago. One that never was counts from when
    /// it was stored. 0 without live shares.
    pub backup_age: i64,
    /// Live shares whose present epoch is in no verified backup.
    pub backup_missing: u64,
    /// Seconds since the oldest epoch began that still signs. 0 without live shares.
    pub rotation_age: i64,
    /// Shares whose place another has taken, kept until all parties have switched.
    pub old: u64,
}

impl Figures {
    /// Counts what the store holds at `now`.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn of(connection: &Connection, now: Timestamp) -> Result<Self, StoreError> {
        let stored = ShareRow::standings(connection)?;
        let live = || stored.iter().filter(|share| matches!(share.status, ShareState::Active | ShareState::Restored));
        let times = live().map(|share| (share.id.as_str(), share.created_at.as_str()));
        let backups = LastBackups::find(connection, times)?;
        let age = |time: &str| time.parse::<Timestamp>().map_or(0, |then| now.duration_since(then).as_secs().max(0));
        let oldest = |ages: &mut dyn Iterator<Item = i64>| ages.max().unwrap_or(0);
        let mut figures = Self {
            states: ShareState::ALL.into_iter().map(|state| (state, 0)).collect(),
            backup_age: oldest(&mut live().map(|share| age(backups.get(&share.id).unwrap_or(&share.created_at)))),
            backup_missing: 0,
            rotation_age: oldest(&mut live().map(|share| age(&share.created_at))),
            old: 0,
        };
        for share in &stored {
            *figures.states.entry(share.status).or_default() += 1;
        }
        figures.old = figures.states.get(&ShareState::Rotated).copied().unwrap_or_default();
        figures.backup_missing = live().map(|share| u64::from(backups.get(&share.id).is_none())).sum();
        Ok(figures)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn figures(rows: &str) -> Figures {
        let store = Connection::open_in_memory().unwrap();
        store
            .execute_batch(&format!(
                "CREATE TABLE shares (id, status, created_at); CREATE TABLE backups (id, shares, made_at, verified_at); {rows}"
            ))
            .unwrap();
        Figures::of(&store, "2026-11-21T12:00:00Z".parse().unwrap()).unwrap()
    }

    const DAY: i64 = 24 * 3600;

    #[test]
    fn an_appliance_without_live_shares_has_nothing_to_warn_of() {
        let none = figures("");
        assert_eq!((none.backup_age, none.backup_missing, none.rotation_age, none.old), (0, 0, 0, 0));
        assert_eq!(none.states.len(), ShareState::ALL.len(), "each state is shown, at 0");
        let gone =
            figures("INSERT INTO shares VALUES ('a', 'revoked', '2020-01-01T00:00:00Z'), ('b', 'destroyed', '')");
        assert_eq!((gone.backup_age, gone.backup_missing, gone.rotation_age, gone.old), (0, 0, 0, 0));
    }

    #[test]
    fn the_worst_live_share_counts_and_only_verified_backups_do() {
        let figures = figures(
            "INSERT INTO shares VALUES ('old', 'rotated', '2026-01-01T12:00:00Z'),
                 ('one', 'active', '2026-11-01T12:00:00Z'), ('two', 'restored', '2026-11-11T12:00:00Z'),
                 ('new', 'active', '2026-11-20T12:00:00Z'), ('not yet', 'pending', '2026-11-21T11:00:00Z');
             INSERT INTO backups VALUES ('1', '[\"old\", \"one\"]', '2026-11-12T12:00:00Z', '2026-11-20T12:00:00Z'),
                 ('2', '[\"old\", \"two\"]', '2026-11-18T12:00:00Z', '2026-11-18T12:30:00Z'),
                 ('3', '[\"one\", \"two\", \"new\"]', '2026-11-21T11:00:00Z', NULL);",
        );
        assert_eq!(figures.backup_age, 9 * DAY, "`one`, by when its backup was made");
        assert_eq!(figures.backup_missing, 1, "`new`");
        assert_eq!(figures.rotation_age, 20 * DAY);
        assert_eq!((figures.old, figures.states.get(&ShareState::Active).copied()), (1, Some(2)));
    }

    #[test]
    fn a_share_that_was_never_backed_up_counts_from_when_it_was_stored() {
        let figures = figures("INSERT INTO shares VALUES ('a', 'active', '2026-11-14T12:00:00Z')");
        assert_eq!((figures.backup_age, figures.backup_missing), (7 * DAY, 1));
    }
}
