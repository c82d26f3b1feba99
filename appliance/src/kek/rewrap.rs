//! All rows, one after another, in bounded transactions. Each row is replaced at once or not at all, and holds a way to its
//! DEK at every moment, so the work may be cut off anywhere; run again, it passes over what is done. The audit log is told before
//! the first row is touched, and after the last.

use casemate_attest::Origin;
use serde::Serialize;

use super::KekError;
use super::plan::{NewEntries, Plan, Renewal};
use super::trace::{Announced, Changes};
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
    origin: Option<Origin>,
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
        Self { store, plan, batch: BATCH, origin: None }
    }

    /// Takes this many rows into one transaction, at least 1.
    #[must_use]
    pub fn in_batches_of(self, rows: usize) -> Self {
        Self { batch: rows.max(1), ..self }
    }

    /// Says who asked for it, in the audit log.
    #[must_use]
    pub fn asked_by(self, origin: Origin) -> Self {
        Self { origin: Some(origin), ..self }
    }

    /// Does it, and tells `watch` of each step. Its two leaves stand around it; one that stops early says so in the second.
    ///
    /// # Errors
    /// An HSM is away or the store refuses. What is durable stays so; run it again.
    pub async fn run(&self, watch: impl FnMut(Step)) -> Result<Report, KekError> {
        let of = self.store.read(EntriesRow::count).await?;
        let announced = Announced::before(self.store, self.origin.clone(), &self.plan.targets(), of).await?;
        let (mut report, mut changes) = (Report::default(), Changes::default());
        let done = self.all_rows(&announced, of, (&mut report, &mut changes), watch).await;
        let told = announced.after(self.store, &report, &changes, done.as_ref().err()).await;
        // Why it stopped says more than that this could not be put on record either.
        done.and(told.map_err(KekError::from))?;
        Ok(report)
    }

    async fn all_rows(
        &self,
        announced: &Announced,
        of: u64,
        (report, changes): (&mut Report, &mut Changes),
        mut watch: impl FnMut(Step),
    ) -> Result<(), KekError> {
        let mut last: Option<(SealedTable, String)> = None;
        loop {
            let (after, limit) = (last.clone(), self.batch);
            let read = move |store: &rusqlite::Connection| {
                EntriesRow::after(store, after.as_ref().map(|(table, id)| (*table, id.as_str())), limit)
            };
            let rows = self.store.read(read).await?;
            let Some(end) = rows.last() else { return Ok(()) };
            last = Some((end.table, end.id.clone()));
            let mut renewed = Vec::new();
            for row in rows {
                self.take(row, &mut renewed, report).await?;
                watch(Step::Row { done: report.rows, of });
            }
            self.commit(announced, renewed, report, changes).await?;
            watch(Step::Durable { done: report.rows, of });
        }
    }

    async fn take(
        &self,
        row: EntriesRow,
        renewed: &mut Vec<(EntriesRow, NewEntries)>,
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

    /// No row is touched without the leaf that announced it.
    async fn commit(
        &self,
        _: &Announced,
        renewed: Vec<(EntriesRow, NewEntries)>,
        report: &mut Report,
        changes: &mut Changes,
    ) -> Result<(), KekError> {
        if renewed.is_empty() {
            return Ok(());
        }
        let written = self.store.write(Urgency::Act, move |transaction| {
            let (mut written, mut gone) = (Changes::default(), 0_u64);
            for (row, entries) in renewed {
                if row.replace(transaction, &entries.column)? {
                    written.add(&entries);
                } else {
                    gone = gone.saturating_add(1);
                }
            }
            Ok((written, gone))
        });
        let (written, gone) = written.await?;
        report.renewed = report.renewed.saturating_add(written.rows());
        report.gone = report.gone.saturating_add(gone);
        changes.extend(&written);
        Ok(())
    }
}
