//! The entries of all sealed rows, walked in one fixed order and replaced one by one; bodies are never touched.

use rusqlite::{Connection, OptionalExtension, Row};

use super::{StoreError, Transaction};

/// The tables that hold sealed rows, in the order in which they are walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SealedTable {
    /// Key shares.
    Shares,
    /// Committees' auxiliary info.
    Committees,
    /// Safe primes.
    Primes,
}

impl SealedTable {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Shares, Self::Committees, Self::Primes];

    /// The table's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shares => "shares",
            Self::Committees => "committees",
            Self::Primes => "primes",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Shares | Self::Primes => "id",
            Self::Committees => "roster",
        }
    }
}

/// A row and the ways to its DEK.
#[derive(Debug, Clone)]
pub struct EntriesRow {
    /// Its table.
    pub table: SealedTable,
    /// Its key there.
    pub id: String,
    /// What the entries are bound to.
    pub header: Vec<u8>,
    /// The entries, as stored.
    pub deks: Vec<u8>,
}

impl EntriesRow {
    /// The next rows after this one, or from the first one on; fewer than `limit` only at the end. Rows whose secret is
    /// destroyed have no entries and are passed over.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn after(
        connection: &Connection,
        last: Option<(SealedTable, &str)>,
        limit: usize,
    ) -> Result<Vec<Self>, StoreError> {
        let mut rows = Vec::new();
        for table in SealedTable::ALL {
            let after = match last {
                Some((walked, _)) if walked > table => continue,
                Some((walked, id)) if walked == table => id,
                _ => "",
            };
            let failed = StoreError::sqlite("read wrapped keys");
            let (name, key) = (table.as_str(), table.key());
            let sql = format!(
                "SELECT {key}, header, deks FROM {name} WHERE {key} > ?1 AND deks IS NOT NULL ORDER BY {key} LIMIT ?2"
            );
            let left = i64::try_from(limit.saturating_sub(rows.len())).unwrap_or(i64::MAX);
            let mut statement = connection.prepare_cached(&sql).map_err(&failed)?;
            let read = |row: &Row<'_>| Ok(Self { table, id: row.get(0)?, header: row.get(1)?, deks: row.get(2)? });
            let found = statement.query_map((after, left), read).map_err(&failed)?;
            for row in found {
                rows.push(row.map_err(&failed)?);
            }
        }
        Ok(rows)
    }

    /// How many rows there are.
    ///
    /// # Errors
    /// Says that the store cannot be read.
    pub fn count(connection: &Connection) -> Result<u64, StoreError> {
        let mut total: u64 = 0;
        for table in SealedTable::ALL {
            let sql = format!("SELECT COUNT(*) FROM {} WHERE deks IS NOT NULL", table.as_str());
            let count: Option<i64> = connection
                .query_row(&sql, [], |row| row.get(0))
                .optional()
                .map_err(StoreError::sqlite("count wrapped keys"))?;
            total = total.saturating_add(count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0));
        }
        Ok(total)
    }

    /// Puts other entries in the place of these, if these still stand there; says whether they did. A row that was changed,
    /// destroyed or used up meanwhile is left as it is.
    ///
    /// # Errors
    /// Says that the store cannot be written.
    pub fn replace(&self, transaction: &Transaction<'_>, deks: &[u8]) -> Result<bool, StoreError> {
        let (name, key) = (self.table.as_str(), self.table.key());
        let sql = format!("UPDATE {name} SET deks = ?3 WHERE {key} = ?1 AND deks = ?2 AND header = ?4");
        let changed = transaction
            .sql()
            .execute(&sql, (&self.id, &self.deks, deks, &self.header))
            .map_err(StoreError::sqlite("replace wrapped keys"))?;
        Ok(changed == 1)
    }
}
