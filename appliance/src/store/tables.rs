//! The guard tables against the log: whatever was restored, changed or taken away by hand is a difference.
//!
//! Rows may be missing only where the store itself forgets them, which it does a little later than
//! [`State::forget`] says.

use std::collections::BTreeMap;

use casemate_attest::{At, State, Text};
use casemate_policy::approval::MAX_LIFE;
use rusqlite::{Connection, Row};

use super::StoreError;

/// The most differences that are told.
const TOLD: usize = 1000;

/// Seconds by which the time in a row and that of its leaf may differ: the clock's skew, and the time that a commit takes.
const TIMES_APART: i64 = 3600;

/// Rows of one kind by their id, with what each says.
type Rows = BTreeMap<String, String>;

/// One kind of guard: how it is called, what the log says, what must be there, and what is there.
struct Guarded {
    name: &'static str,
    logged: Rows,
    due: Rows,
    stored: Rows,
}

/// How the guard tables differ from `state`, which the log gives; `latest` is the newest time in the log. At most 1000 are
/// told.
pub(super) fn differences(store: &Connection, state: &State, latest: At) -> Result<Vec<String>, StoreError> {
    let mut due = state.clone();
    due.forget(latest);
    let (logged, due) = (by_kind(state), by_kind(&due));
    let stored = stored(store)?;
    let mut told = misplaced(store)?;
    told.extend(shortened(store, state)?);
    for (((name, logged), (_, due)), stored) in logged.into_iter().zip(due).zip(stored) {
        Guarded { name, logged, due, stored }.compare(&mut told);
    }
    told.truncate(TOLD);
    Ok(told)
}

/// Deletes the rows that `state` no longer knows, where it has forgotten them: in the transaction that lets the log rest on
/// a snapshot of it. Nothing else tells such a row from one that was put there by hand.
///
/// # Errors
/// Says that the store cannot be written.
pub fn drop_forgotten(store: &Connection, state: &State) -> Result<(), StoreError> {
    let failed = StoreError::sqlite("forget what is too old to count");
    let forgettable: [(&str, &str, Vec<&Text>); 4] = [
        ("tokens", "jti", state.tokens.keys().collect()),
        ("approvals", "statement", state.approvals.keys().collect()),
        ("spend", "session_id", state.spend.keys().collect()),
        ("sessions", "session_id", state.sessions.keys().collect()),
    ];
    for (table, column, known) in forgettable {
        let known: Vec<&str> = known.into_iter().map(Text::as_str).collect();
        let known = super::sessions::to_json(&known);
        store
            .execute(&format!("DELETE FROM {table} WHERE {column} NOT IN (SELECT value FROM json_each(?1))"), [known])
            .map_err(&failed)?;
    }
    Ok(())
}

impl Guarded {
    fn compare(self, told: &mut Vec<String>) {
        let Self { name, logged, due, stored } = self;
        for (id, says) in &stored {
            match logged.get(id) {
                Some(state) if state == says => {}
                Some(state) => told.push(format!("{name} {id} is {says:?} in the store and {state:?} by the log")),
                None => told.push(format!("{name} {id} is in the store, and no leaf put it there")),
            }
        }
        let missing = due.iter().filter(|(id, _)| !stored.contains_key(*id));
        told.extend(missing.map(|(id, state)| format!("{name} {id} is {state:?} by the log and missing in the store")));
    }
}

/// What the log says, in the order of [`stored`].
fn by_kind(state: &State) -> [(&'static str, Rows); 11] {
    let used = |ids: &BTreeMap<Text, At>| ids.keys().map(|id| (id.to_string(), "used".to_owned())).collect();
    let says = |rows: &BTreeMap<Text, Text>| rows.iter().map(|(id, to)| (id.to_string(), to.to_string())).collect();
    let since = |rows: &BTreeMap<Text, casemate_attest::state::Since>| {
        rows.iter().map(|(id, since)| (id.to_string(), since.state.to_string())).collect()
    };
    let place = |place: &casemate_attest::Place| format!("{} {} {}", place.size, place.root, place.log);
    [
        ("share", says(&state.shares)),
        ("join token", used(&state.tokens)),
        ("session", since(&state.sessions)),
        ("auxiliary info of committee", says(&state.aux_info)),
        ("pair of primes", state.primes.iter().map(|id| (id.to_string(), "stored".to_owned())).collect()),
        // The store does not keep the bundle's name.
        ("policy bundle of", state.bundle.values().map(|to| (to.to_string(), "the newest".to_owned())).collect()),
        ("spend of session", since(&state.spend)),
        ("approval", used(&state.approvals)),
        ("backup", says(&state.backups)),
        ("epoch of key", says(&state.epochs)),
        ("checkpoint of peer", state.peers.iter().map(|(party, at)| (party.to_string(), place(at))).collect()),
    ]
}

fn stored(store: &Connection) -> Result<[Rows; 11], StoreError> {
    let rows = |sql: &str| rows(store, sql, |row| Ok((fitted(row, 0)?, row.get(1)?)));
    Ok([
        rows("SELECT id, status FROM shares")?,
        rows("SELECT jti, 'used' FROM tokens")?,
        rows("SELECT session_id, status FROM sessions")?,
        rows("SELECT roster, aux_digest FROM committees")?,
        rows("SELECT id, 'stored' FROM primes")?,
        rows("SELECT 'version ' || version || ' ' || digest, 'the newest' FROM policy")?,
        spend(store)?,
        rows("SELECT statement, 'used' FROM approvals")?,
        rows("SELECT id, stage || ' ' || digest FROM backups")?,
        rows("SELECT public_key, CAST(epoch AS TEXT) FROM epochs")?,
        rows("SELECT party, size || ' ' || root || ' ' || log FROM peers")?,
    ])
}

/// What was reserved is told by the row's digest.
fn spend(store: &Connection) -> Result<Rows, StoreError> {
    rows(store, "SELECT session_id, state, spending FROM spend", |row| {
        let (state, spending): (String, String) = (row.get(1)?, row.get(2)?);
        let says = if state == "reserved" { format!("reserved {}", crate::digest(spending.as_bytes())) } else { state };
        Ok((fitted(row, 0)?, says))
    })
}

/// Spend rows whose columns say something else than the text that the log commits to.
fn misplaced(store: &Connection) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT session_id, at FROM spend WHERE state = 'reserved'
         AND (session_id IS NOT json_extract(spending, '$.spending.session') OR at IS NOT json_extract(spending, '$.spending.at'))";
    let found = rows(store, sql, |row| Ok((fitted(row, 0)?, row.get::<_, i64>(1)?.to_string())))?;
    let tell = |(id, at)| format!("spend of session {id} stands at {at}, which is not what was reserved");
    Ok(found.into_iter().map(tell).collect())
}

/// Rows that would be forgotten sooner than what they are of stops counting: no act sets such a time.
fn shortened(store: &Connection, state: &State) -> Result<Vec<String>, StoreError> {
    let kinds = [
        // A token that is accepted has not expired by more than the skew that is allowed for.
        ("join token", "SELECT jti, exp FROM tokens", &state.tokens, 0),
        ("approval", "SELECT statement, keep_until FROM approvals", &state.approvals, MAX_LIFE.as_secs()),
    ];
    let mut told = Vec::new();
    for (name, sql, used, kept) in kinds {
        for (id, until) in rows(store, sql, |row| Ok((fitted(row, 0)?, row.get::<_, i64>(1)?)))? {
            let at = used.get(&Text::fitted(&id)).map(|at| at.timestamp().as_second());
            if at.is_some_and(|at| until < at.saturating_add(kept).saturating_sub(TIMES_APART)) {
                told.push(format!(
                    "{name} {id} counts until {until} in the store, which is too early by the time of its leaf"
                ));
            }
        }
    }
    Ok(told)
}

fn rows<T>(
    store: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<(String, T)>,
) -> Result<BTreeMap<String, T>, StoreError> {
    let failed = StoreError::sqlite("compare its tables with the audit log");
    let mut statement = store.prepare(sql).map_err(&failed)?;
    let found = statement.query_map([], read).map_err(&failed)?;
    found.collect::<Result<_, _>>().map_err(&failed)
}

/// An id as a leaf names it.
fn fitted(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(Text::fitted(&row.get::<_, String>(column)?).to_string())
}
