//! Which shares lie in a backup that was verified, and since when. Only reads; the backups themselves are made elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use super::sessions::from_json;
use super::{ShareRow, StoreError};

/// For some shares, by id: when the newest verified backup was made that holds them, RFC 3339.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastBackups(BTreeMap<String, String>);

impl LastBackups {
    /// When the newest verified backup was made that holds the share, if there is one.
    pub fn get(&self, share: &str) -> Option<&str> {
        self.0.get(share).map(String::as_str)
    }

    /// Looks for these shares, in the newest backup first. A backup that is older than a share cannot hold it, so the search
    /// ends soon even where a share is in none.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn of(connection: &Connection, shares: &[ShareRow]) -> Result<Self, StoreError> {
        Self::find(connection, shares.iter().map(|share| (share.id.as_str(), share.created_at.as_str())))
    }

    /// The same, for ids with the times at which the shares were stored.
    pub(crate) fn find<'a>(
        connection: &Connection,
        shares: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, StoreError> {
        let failed = StoreError::sqlite("read the backups");
        let mut missing: BTreeMap<&str, &str> = shares.collect();
        let mut found = BTreeMap::new();
        let mut statement = connection
            .prepare_cached(
                "SELECT shares, coalesce(made_at, verified_at) AS at FROM backups WHERE verified_at IS NOT NULL
                 ORDER BY at DESC, id",
            )
            .map_err(&failed)?;
        let mut rows = statement.query([]).map_err(&failed)?;
        while let Some(oldest) = missing.values().min().map(|at| seconds(at)) {
            let Some(row) = rows.next().map_err(&failed)? else { break };
            let at: String = row.get("at").map_err(&failed)?;
            if seconds(&at) < oldest {
                break;
            }
            let held: BTreeSet<String> = from_json(&row.get::<_, String>("shares").map_err(&failed)?)?;
            missing.retain(|share, _| {
                let holds = held.contains(*share);
                if holds {
                    found.insert((*share).to_owned(), at.clone());
                }
                !holds
            });
        }
        Ok(Self(found))
    }
}

/// Whole seconds sort as text; what follows them does not.
fn seconds(time: &str) -> &str {
    time.get(..19).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn store(backups: &[(&str, &str, Option<&str>, &str)]) -> Connection {
        let store = super::super::schema::empty().unwrap();
        for (id, made, verified, shares) in backups {
            let stage = if verified.is_some() { "verified" } else { "made" };
            store
                .execute(
                    "INSERT INTO backups (id, stage, digest, shares, made_at, verified_at) VALUES (?1, ?2, '', ?3, ?4, ?5)",
                    (id, stage, shares, made, verified),
                )
                .unwrap();
        }
        store
    }

    fn found(store: &Connection, shares: &[(&str, &str)]) -> Vec<(String, String)> {
        LastBackups::find(store, shares.iter().copied()).unwrap().0.into_iter().collect()
    }

    const DAY_1: &str = "2026-11-01T00:00:00Z";
    const DAY_2: &str = "2026-11-02T00:00:00.5Z";
    const DAY_3: &str = "2026-11-03T00:00:00Z";

    #[test]
    fn a_share_is_found_in_the_newest_verified_backup_that_holds_it() {
        let store = store(&[
            ("1", DAY_1, Some(DAY_1), r#"["a", "b"]"#),
            ("2", DAY_2, Some(DAY_3), r#"["a"]"#),
            ("3", DAY_3, None, r#"["a", "b", "c"]"#),
        ]);
        let all = [("a", "2026-10-01T00:00:00Z"), ("b", "2026-10-01T00:00:00Z"), ("c", "2026-10-01T00:00:00Z")];
        let expected = [("a".to_owned(), DAY_2.to_owned()), ("b".to_owned(), DAY_1.to_owned())];
        assert_eq!(found(&store, &all), expected, "what was not verified does not count");
    }

    #[test]
    fn a_backup_that_names_a_share_from_before_its_time_is_not_believed() {
        let store = store(&[("1", DAY_1, Some(DAY_3), r#"["a"]"#)]);
        assert_eq!(found(&store, &[("a", DAY_3)]), []);
        assert_eq!(found(&store, &[("a", "2026-11-01T00:00:00.9Z")]).len(), 1, "within the same second it may");
        assert_eq!(found(&store, &[]), []);
    }
}
