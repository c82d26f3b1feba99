//! All rows, one after another, in bounded transactions. Each row is replaced at once or not at all, and holds a way to its
//! DEK at every moment, so the work may be cut off anywhere; run again, it passes over what is done.

use serde::Serialize;

use super::KekError;
use super::plan::{Plan, Renewal};
use crate::store::{EntriesRow, SealedTable, Store, Urgency};

/// Rows in one transaction.
const BATCH: usize = 64;
/// Damaged rows that a report names; it counts all.
const NAMED: usize = 100;

/// The work on all rows of a store.
pub struct Rewrap<'a> {
    store: &'a Store,
    plan: &'a Plan<'a>,
    batch: usize,
}

/// Where it stands, told after each row and after each transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A row's new entries are made, or it needs none: rows looked at so far, of how many at the start.
    Row {
        /// So far.
        done: u64,
        /// Of these.
        of: u64,
    },
    /// All rows so far are durable.
    Durable {
        /// So far.
        done: u64,
        /// Of these.
        of: u64,
    },
}

/// A row whose DEK no entry gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damaged {
    /// Its table.
    pub table: &'static str,
    /// Its key there.
    pub id: String,
    /// Why not.
    pub why: String,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Rows that were looked at.
    pub rows: u64,
    /// Rows that had the right entries.
    pub current: u64,
    /// Rows that have new ones.
    pub renewed: u64,
    /// Rows that were changed or used up meanwhile.
    pub gone: u64,
    /// Rows that could not be opened; they are as they were.
    pub unopened: u64,
    /// The first of these.
    pub damaged: Vec<Damaged>,
}

impl<'a> Rewrap<'a> {
    /// Brings the entries of every row of `store` to what the plan says.
    pub fn new(store: &'a Store, plan: &'a Plan<'a>) -> Self {
        Self { store, plan, batch: BATCH }
    }

    /// Takes this many rows into one transaction, at least 1.
    #[must_use]
    pub fn in_batches_of(self, rows: usize) -> Self {
        Self { batch: rows.max(1), ..self }
    }

    /// Does it, and tells `watch` of each step.
    ///
    /// # Errors
    /// An HSM is away or the store refuses. What is durable stays so; run it again.
    pub async fn run(&self, mut watch: impl FnMut(Step)) -> Result<Report, KekError> {
        let of = self.store.read(EntriesRow::count).await?;
        let mut report = Report::default();
        let mut last: Option<(SealedTable, String)> = None;
        loop {
            let (after, limit) = (last.clone(), self.batch);
            let read = move |store: &rusqlite::Connection| {
                EntriesRow::after(store, after.as_ref().map(|(table, id)| (*table, id.as_str())), limit)
            };
            let rows = self.store.read(read).await?;
            let Some(end) = rows.last() else { return Ok(report) };
            last = Some((end.table, end.id.clone()));
            let mut renewed = Vec::new();
            for row in rows {
                self.take(row, &mut renewed, &mut report).await?;
                watch(Step::Row { done: report.rows, of });
            }
            self.commit(renewed, &mut report).await?;
            watch(Step::Durable { done: report.rows, of });
        }
    }

    async fn take(
        &self,
        row: EntriesRow,
        renewed: &mut Vec<(EntriesRow, Vec<u8>)>,
        report: &mut Report,
    ) -> Result<(), KekError> {
        report.rows = report.rows.saturating_add(1);
        match self.plan.renew(&row).await? {
            Renewal::Current => report.current = report.current.saturating_add(1),
            Renewal::Entries(entries) => renewed.push((row, entries)),
            Renewal::Unopened(why) => {
                report.unopened = report.unopened.saturating_add(1);
                tracing::error!(event = "rewrap_row_damaged", table = row.table.as_str(), id = row.id, why);
                if report.damaged.len() < NAMED {
                    report.damaged.push(Damaged { table: row.table.as_str(), id: row.id, why });
                }
            }
        }
        Ok(())
    }

    async fn commit(&self, renewed: Vec<(EntriesRow, Vec<u8>)>, report: &mut Report) -> Result<(), KekError> {
        if renewed.is_empty() {
            return Ok(());
        }
        let written = self.store.write(Urgency::Act, move |transaction| {
            let (mut written, mut gone) = (0_u64, 0_u64);
            for (row, entries) in &renewed {
                let counted = if row.replace(transaction, entries)? { &mut written } else { &mut gone };
                *counted = counted.saturating_add(1);
            }
            Ok((written, gone))
        });
        let (written, gone) = written.await?;
        report.renewed = report.renewed.saturating_add(written);
        report.gone = report.gone.saturating_add(gone);
        Ok(())
    }
}
