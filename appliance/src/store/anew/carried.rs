//! What a new log takes over of the tables, and what it leaves behind.
//!
//! Left behind: prime pairs (another copy may have used them), spend rows (every window counts as full for longer than any
//! of them counts), tokens that have expired (none that was issued earlier is taken), checkpoints, sessions in flight (they
//! are failed). Where rows were changed beside a log that verifies, the log is believed: a share that it does not know
//! is revoked, everything else goes back to what it says.

use std::collections::BTreeMap;

use casemate_attest::life::ShareState;
use casemate_attest::state::Since;
use casemate_attest::{At, Place, State, Text};
use casemate_policy::approval::MAX_LIFE;
use casemate_wire::{Code, Problem};
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, Row};

use crate::store::StoreError;
use crate::store::schema::without_share_states;
use crate::store::sessions::to_json;

/// How long ago a token must have expired to be forgotten. The store keeps it for a day from then on, which is longer than
/// [`State::forget`] asks for from the recovery on.
const TOKEN_EXPIRED: SignedDuration = SignedDuration::from_hours(1);

/// Makes the tables fit for a new log that begins at `moment`, inside the caller's transaction, and gives what they say
/// then. The same tables and the same moment give the same. `log` is what the old log says, if it verifies.
pub(super) fn settle(store: &Connection, log: Option<&State>, moment: At) -> Result<State, StoreError> {
    if let Some(log) = log {
        believe(store, log, moment)?;
    }
    let detail = "the audit log was begun anew while the session ran; convene it again under a new id";
    let problem = to_json(&Problem::new(Code::Interrupted, detail));
    let expired = moment.timestamp().as_second().saturating_sub(TOKEN_EXPIRED.as_secs());
    run(
        store,
        "UPDATE sessions SET status = 'failed', error = ?1, result = NULL, completed_at = ?2 WHERE status = 'accepted'",
        (problem, moment.to_string()),
    )?;
    run(store, "UPDATE sessions SET intent = NULL", ())?;
    run(store, "DELETE FROM tokens WHERE exp <= ?1", (expired,))?;
    for table in ["primes", "spend", "checkpoints"] {
        run(store, &format!("DELETE FROM {table}"), ())?;
    }
    state(store, log, moment)
}

/// Puts rows that differ from the log back to what it says.
fn believe(store: &Connection, log: &State, moment: At) -> Result<(), StoreError> {
    shares(store, log)?;
    for (roster, digest) in differing(pairs(store, "SELECT roster, aux_digest FROM committees")?, &log.aux_info) {
        match digest {
            Some(digest) => {
                let put = "UPDATE committees SET aux_digest = ?2 WHERE roster = ?1";
                run(store, put, (roster, digest.as_str()))?;
            }
            None => run(store, "DELETE FROM committees WHERE roster = ?1", (roster,))?,
        }
    }
    sessions(store, log, moment)?;
    rotations_and_backups(store, log)?;
    for (statement, at) in &log.approvals {
        let until = at.timestamp().as_second().saturating_add(MAX_LIFE.as_secs());
        run(
            store,
            "INSERT INTO approvals (statement, keep_until) VALUES (?1, ?2)
             ON CONFLICT (statement) DO UPDATE SET keep_until = max(keep_until, excluded.keep_until)",
            (statement.as_str(), until),
        )?;
    }
    bundle(store, log)?;
    peers(store, log, moment)
}

/// Rows that say something else than the log, with what the log says of them.
fn differing(stored: Vec<(String, String)>, logged: &BTreeMap<Text, Text>) -> Vec<(String, Option<Text>)> {
    let known = |id: &str| logged.get(&Text::fitted(id)).cloned();
    let all = stored.into_iter().map(|(id, says)| (known(&id), id, says));
    let wrong = all.filter(|(known, _, says)| known.as_ref().is_none_or(|known| known.as_str() != says));
    wrong.map(|(known, id, _)| (id, known)).collect()
}

/// A share that no leaf made is revoked. What the log calls final loses its body, and what has lost its body cannot be brought back.
fn shares(store: &Connection, log: &State) -> Result<(), StoreError> {
    let shares = differing(pairs(store, "SELECT id, status FROM shares")?, &log.shares);
    if shares.is_empty() {
        return Ok(());
    }
    // Where somebody changed them by hand, no transition leads back.
    without_share_states(store, || put_back(store, &shares))
}

fn put_back(store: &Connection, shares: &[(String, Option<Text>)]) -> Result<(), StoreError> {
    // All of them first: no two shares of one key may sign even for a moment.
    for (id, _) in shares {
        run(store, "UPDATE shares SET status = 'rotated' WHERE id = ?1 AND body IS NOT NULL", (id,))?;
    }
    for (id, state) in shares {
        let state = state.as_ref().and_then(|state| state.as_str().parse().ok()).unwrap_or(ShareState::Revoked);
        if state.is_final() {
            let destroy = "UPDATE shares SET status = ?2, deks = NULL, nonce = NULL, body = NULL WHERE id = ?1";
            run(store, destroy, (id, state.as_str()))?;
        } else {
            run(store, "UPDATE shares SET status = ?2 WHERE id = ?1 AND body IS NOT NULL", (id, state.as_str()))?;
            run(store, "UPDATE shares SET status = 'revoked' WHERE id = ?1 AND body IS NULL", (id,))?;
        }
    }
    Ok(())
}

/// Epochs that were entered and backups that were made, as the log has them.
fn rotations_and_backups(store: &Connection, log: &State) -> Result<(), StoreError> {
    run(store, "DELETE FROM epochs", ())?;
    for (key, epoch) in &log.epochs {
        run(
            store,
            "INSERT INTO epochs (public_key, epoch) VALUES (?1, CAST(?2 AS INTEGER))",
            (key.as_str(), epoch.as_str()),
        )?;
    }
    let known: Vec<&str> = log.backups.keys().map(Text::as_str).collect();
    run(store, "DELETE FROM backups WHERE id NOT IN (SELECT value FROM json_each(?1))", (to_json(&known),))?;
    for (id, says) in &log.backups {
        let Some((stage, digest)) = says.as_str().split_once(' ') else { continue };
        let put = "INSERT INTO backups (id, stage, digest, shares) VALUES (?1, ?2, ?3, '[]')
             ON CONFLICT (id) DO UPDATE SET stage = excluded.stage, digest = excluded.digest";
        run(store, put, (id.as_str(), stage, digest))?;
    }
    Ok(())
}

/// A session that was changed by hand has failed, unless the log says how it ended.
fn sessions(store: &Connection, log: &State, moment: At) -> Result<(), StoreError> {
    for (id, status) in pairs(store, "SELECT session_id, status FROM sessions")? {
        let Some(Since { state, .. }) = log.sessions.get(&Text::fitted(&id)) else { continue };
        if state.as_str() != status {
            let status = if state.as_str() == "accepted" { "failed" } else { state.as_str() };
            let put = "UPDATE sessions SET status = ?2, result = NULL, completed_at = coalesce(completed_at, ?3)
                 WHERE session_id = ?1";
            run(store, put, (id, status, moment.to_string()))?;
        }
    }
    Ok(())
}

fn bundle(store: &Connection, log: &State) -> Result<(), StoreError> {
    run(store, "DELETE FROM policy", ())?;
    let Some(newest) = log.bundle.values().next() else { return Ok(()) };
    let unreadable = || StoreError::corrupt("an audit log")(format!("{newest} is no policy bundle's version"));
    let (version, digest) =
        newest.as_str().strip_prefix("version ").and_then(|rest| rest.split_once(' ')).ok_or_else(unreadable)?;
    let version: i64 = version.parse().map_err(|_| unreadable())?;
    run(store, "INSERT INTO policy (only_row, version, digest) VALUES (1, ?1, ?2)", (version, digest))
}

fn peers(store: &Connection, log: &State, moment: At) -> Result<(), StoreError> {
    let known: Vec<&str> = log.peers.keys().map(casemate_wire::PartyId::as_str).collect();
    run(store, "DELETE FROM peers WHERE party NOT IN (SELECT value FROM json_each(?1))", (to_json(&known),))?;
    for (party, Place { log, size, root }) in &log.peers {
        let size = i64::try_from(*size).map_err(|_| StoreError::Audit(format!("the log of {party} is too large")))?;
        let put = "INSERT INTO peers (party, log, size, root, note, at) VALUES (?1, ?2, ?3, ?4, '', ?5)
             ON CONFLICT (party) DO UPDATE SET log = excluded.log, size = excluded.size, root = excluded.root,
             note = excluded.note, at = excluded.at
             WHERE log <> excluded.log OR size <> excluded.size OR root <> excluded.root";
        run(store, put, (party.as_str(), log.as_str(), size, root.to_string(), moment.to_string()))?;
    }
    Ok(())
}

/// What the tables say. Times that no row has are `moment`, which keeps a row for longest.
fn state(store: &Connection, log: Option<&State>, moment: At) -> Result<State, StoreError> {
    let fitted = |rows: Vec<(String, String)>| -> BTreeMap<Text, Text> {
        rows.into_iter().map(|(id, says)| (Text::fitted(&id), Text::fitted(&says))).collect()
    };
    let second = |second: i64| Timestamp::from_second(second).ok().and_then(|at| At::new(at).ok()).unwrap_or(moment);
    let tokens = pairs(store, "SELECT jti, '' FROM tokens")?;
    let approvals = rows(store, "SELECT statement, keep_until FROM approvals", |row| Ok((row.get(0)?, row.get(1)?)))?;
    let sessions = rows(store, "SELECT session_id, status, coalesce(completed_at, started_at) FROM sessions", |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
    })?;
    let since = |(id, status, at): (String, String, String)| {
        let at = at.parse::<Timestamp>().ok().and_then(|at| At::new(at).ok()).unwrap_or(moment);
        (Text::fitted(&id), Since { state: Text::fitted(&status), at })
    };
    let used = |(statement, until): (String, i64)| {
        (Text::fitted(&statement), second(until.saturating_sub(MAX_LIFE.as_secs())).min(moment))
    };
    Ok(State {
        shares: fitted(pairs(store, "SELECT id, status FROM shares")?),
        tokens: tokens.into_iter().map(|(jti, _)| (Text::fitted(&jti), moment)).collect(),
        sessions: sessions.into_iter().map(since).collect(),
        aux_info: fitted(pairs(store, "SELECT roster, aux_digest FROM committees")?),
        primes: std::collections::BTreeSet::new(),
        bundle: fitted(pairs(store, "SELECT 'policy', 'version ' || version || ' ' || digest FROM policy")?),
        spend: BTreeMap::new(),
        approvals: approvals.into_iter().map(used).collect(),
        peers: peer_places(store)?,
        recovered: None,
        // KEKs lie in the HSM; only the log knows what was done with them.
        keks: log.map(|log| log.keks.clone()).unwrap_or_default(),
        // None runs, now that another log begins.
        rewrapping: None,
        backups: fitted(pairs(store, "SELECT id, stage || ' ' || digest FROM backups")?),
        epochs: fitted(pairs(store, "SELECT public_key, CAST(epoch AS TEXT) FROM epochs")?),
    })
}

fn peer_places(store: &Connection) -> Result<BTreeMap<casemate_wire::PartyId, Place>, StoreError> {
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    let stored: Vec<(String, String, i64, String)> = rows(store, "SELECT party, log, size, root FROM peers", read)?;
    let place = |(party, log, size, root): (String, String, i64, String)| {
        let place = Place { log: log.parse().ok()?, size: u64::try_from(size).ok()?, root: root.parse().ok()? };
        Some((party.parse().ok()?, place))
    };
    let unreadable = || StoreError::corrupt("a peer's checkpoint")("its log, size or root is none".into());
    stored.into_iter().map(|row| place(row).ok_or_else(unreadable)).collect()
}

fn pairs(store: &Connection, sql: &str) -> Result<Vec<(String, String)>, StoreError> {
    rows(store, sql, |row| Ok((row.get(0)?, row.get(1)?)))
}

fn rows<T>(
    store: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let failed = StoreError::sqlite("read what a new log takes over");
    let mut statement = store.prepare(sql).map_err(&failed)?;
    let found = statement.query_map([], read).map_err(&failed)?;
    found.collect::<Result<_, _>>().map_err(&failed)
}

fn run(store: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<(), StoreError> {
    store.execute(sql, values).map(|_| ()).map_err(StoreError::sqlite("make its tables fit for a new log"))
}
