//! Tables, and how the database is opened.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FlockOperation, flock};

use super::StoreError;

const VERSION: i64 = 4;

const TABLES: &str = "
CREATE TABLE leaves (
    seq  INTEGER PRIMARY KEY,
    line TEXT NOT NULL
) STRICT;
CREATE TABLE tokens (
    issuer TEXT NOT NULL,
    jti    TEXT NOT NULL,
    exp    INTEGER NOT NULL,
    PRIMARY KEY (issuer, jti)
) STRICT, WITHOUT ROWID;
CREATE TABLE sessions (
    session_id   TEXT PRIMARY KEY,
    session_type TEXT NOT NULL CHECK (session_type IN ('keygen', 'sign')),
    body_digest  BLOB NOT NULL,
    status       TEXT NOT NULL CHECK (status IN ('accepted', 'completed', 'failed', 'expired')),
    refused      INTEGER NOT NULL CHECK (refused IN (0, 1)),
    actor        TEXT NOT NULL,
    request      TEXT NOT NULL,
    error        TEXT,
    result       TEXT,
    started_at   TEXT NOT NULL,
    completed_at TEXT,
    intent       INTEGER REFERENCES leaves (seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE shares (
    id           TEXT PRIMARY KEY,
    public_key   TEXT NOT NULL,
    session_id   TEXT NOT NULL,
    share_type   TEXT NOT NULL CHECK (share_type IN ('wallet', 'admin', 'recovery')),
    status       TEXT NOT NULL CHECK (status IN ('pending', 'active', 'rotated', 'revoked')),
    header       BLOB NOT NULL,
    deks         BLOB NOT NULL,
    nonce        BLOB NOT NULL,
    body         BLOB NOT NULL,
    statement    TEXT NOT NULL,
    certificate  TEXT,
    created_at   TEXT NOT NULL,
    last_used_at TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX shares_by_key ON shares (public_key);
CREATE UNIQUE INDEX one_active_share_a_key ON shares (public_key) WHERE status = 'active';
CREATE TABLE primes (
    id     TEXT PRIMARY KEY,
    header BLOB NOT NULL,
    deks   BLOB NOT NULL,
    nonce  BLOB NOT NULL,
    body   BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE committees (
    roster     TEXT PRIMARY KEY,
    aux_digest TEXT NOT NULL,
    header     BLOB NOT NULL,
    deks       BLOB NOT NULL,
    nonce      BLOB NOT NULL,
    body       BLOB NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What version 2 adds: spending, used approvals, the newest policy bundle.
const SINCE_2: &str = "
CREATE TABLE spend (
    session_id TEXT PRIMARY KEY,
    at         INTEGER NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('reserved', 'released')),
    spending   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX spend_by_time ON spend (at);
CREATE TABLE approvals (
    statement  TEXT PRIMARY KEY,
    keep_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE policy (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    version  INTEGER NOT NULL,
    digest   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What version 3 adds: the audit log's tree, details and checkpoints, peers' checkpoints, what a log rests on.
///
/// A node of the tree is numbered `level · 2^56 + index`. Only complete nodes stand there; they never change.
const SINCE_3: &str = "
CREATE TABLE tree (
    node INTEGER PRIMARY KEY,
    hash BLOB NOT NULL
) STRICT;
CREATE TABLE details (
    seq    INTEGER PRIMARY KEY,
    salt   BLOB NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE TABLE checkpoints (
    size INTEGER PRIMARY KEY,
    note TEXT NOT NULL,
    at   TEXT NOT NULL
) STRICT;
CREATE TABLE peers (
    party TEXT PRIMARY KEY,
    log   TEXT NOT NULL,
    size  INTEGER NOT NULL,
    root  TEXT NOT NULL,
    note  TEXT NOT NULL,
    at    TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE snapshot (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    text     TEXT NOT NULL
) STRICT;
";

/// What version 4 adds: a share's whole life, rotations, backups. Tables whose checks grow are made anew.
///
/// The triggers refuse every change of state that [`casemate_attest::life::Transition`] does not have, and keep the rest of a
/// share as it was made; a test holds the two lists together.
const SINCE_4: &str = "
CREATE TABLE sessions_4 (
    session_id   TEXT PRIMARY KEY,
    session_type TEXT NOT NULL CHECK (session_type IN ('keygen', 'sign', 'rotate')),
    body_digest  BLOB NOT NULL,
    status       TEXT NOT NULL CHECK (status IN ('accepted', 'completed', 'failed', 'expired')),
    refused      INTEGER NOT NULL CHECK (refused IN (0, 1)),
    actor        TEXT NOT NULL,
    request      TEXT NOT NULL,
    error        TEXT,
    result       TEXT,
    started_at   TEXT NOT NULL,
    completed_at TEXT,
    intent       INTEGER REFERENCES leaves (seq)
) STRICT, WITHOUT ROWID;
INSERT INTO sessions_4 SELECT session_id, session_type, body_digest, status, refused, actor, request, error, result,
    started_at, completed_at, intent FROM sessions;
DROP TABLE sessions;
ALTER TABLE sessions_4 RENAME TO sessions;
CREATE TABLE shares_4 (
    id           TEXT PRIMARY KEY,
    public_key   TEXT NOT NULL,
    epoch        INTEGER NOT NULL,
    session_id   TEXT NOT NULL,
    share_type   TEXT NOT NULL CHECK (share_type IN ('wallet', 'admin', 'recovery')),
    status       TEXT NOT NULL
        CHECK (status IN ('pending', 'active', 'rotated', 'restored', 'revoked', 'destroyed')),
    header       BLOB NOT NULL,
    deks         BLOB,
    nonce        BLOB,
    body         BLOB,
    statement    TEXT NOT NULL,
    certificate  TEXT,
    endorsements TEXT,
    created_at   TEXT NOT NULL,
    last_used_at TEXT,
    CHECK ((status IN ('revoked', 'destroyed')) = (body IS NULL)),
    CHECK ((body IS NULL) = (deks IS NULL) AND (body IS NULL) = (nonce IS NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO shares_4 SELECT id, public_key, json_extract(statement, '$.epoch'), session_id, share_type, status, header,
    CASE status WHEN 'revoked' THEN NULL ELSE deks END, CASE status WHEN 'revoked' THEN NULL ELSE nonce END,
    CASE status WHEN 'revoked' THEN NULL ELSE body END, statement, certificate, NULL, created_at, last_used_at FROM shares;
DROP TABLE shares;
ALTER TABLE shares_4 RENAME TO shares;
CREATE INDEX shares_by_key ON shares (public_key);
CREATE UNIQUE INDEX one_live_share_a_key ON shares (public_key) WHERE status IN ('active', 'restored');
CREATE INDEX tokens_by_jti ON tokens (jti);
CREATE TABLE epochs (
    public_key TEXT PRIMARY KEY,
    epoch      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE backups (
    id          TEXT PRIMARY KEY,
    stage       TEXT NOT NULL CHECK (stage IN ('made', 'verified', 'restored')),
    digest      TEXT NOT NULL,
    shares      TEXT NOT NULL,
    made_at     TEXT,
    verified_at TEXT
) STRICT, WITHOUT ROWID;
";

/// What keeps rows to their rules whoever writes them; put back at each opening. The first says which states may follow which.
const TRIGGERS: &str = "
CREATE TRIGGER shares_change BEFORE UPDATE OF status ON shares
WHEN OLD.status <> NEW.status AND (OLD.status || ' ' || NEW.status) NOT IN (
    'pending active', 'pending destroyed', 'active rotated', 'restored rotated', 'rotated destroyed',
    'pending revoked', 'active revoked', 'rotated revoked', 'restored revoked')
BEGIN SELECT RAISE(ABORT, 'a share does not change that way'); END;
CREATE TRIGGER shares_begin BEFORE INSERT ON shares WHEN NEW.status NOT IN ('pending', 'restored')
BEGIN SELECT RAISE(ABORT, 'a share begins as pending or restored'); END;
CREATE TRIGGER shares_stay BEFORE DELETE ON shares
BEGIN SELECT RAISE(ABORT, 'what is known of a share stays'); END;
CREATE TRIGGER shares_keep BEFORE UPDATE ON shares
WHEN NEW.id <> OLD.id OR NEW.public_key <> OLD.public_key OR NEW.epoch <> OLD.epoch OR NEW.header <> OLD.header
    OR NEW.statement <> OLD.statement OR NEW.share_type <> OLD.share_type
BEGIN SELECT RAISE(ABORT, 'a share is another share only in another row'); END;
CREATE TRIGGER epochs_rise BEFORE UPDATE ON epochs WHEN NEW.epoch <= OLD.epoch
BEGIN SELECT RAISE(ABORT, 'the epochs of a key rise'); END;
";

pub(super) fn database(folder: &Path) -> PathBuf {
    folder.join("casemate.db")
}

/// Holds the data folder against a second daemon or an offline command; released on drop.
pub(super) struct FolderLock(#[expect(dead_code, reason = "held for its lock")] File);

/// Opens the database of a folder whose lock is held; `None` if there is none. It is never made here.
pub(super) fn open(folder: &Path) -> Result<Option<Connection>, StoreError> {
    let path = database(folder);
    super::disk::make_room(folder, &path);
    let there = path.try_exists().map_err(|e| StoreError::Folder { path: folder.to_owned(), why: e.to_string() })?;
    if there { connect(&path).map(Some) } else { Ok(None) }
}

/// Makes an empty database.
pub(super) fn create(path: &Path) -> Result<Connection, StoreError> {
    let made = OpenOptions::new().create_new(true).append(true).mode(0o600).open(path);
    made.map_err(|e| StoreError::Folder { path: path.to_owned(), why: e.to_string() })?;
    connect(path)
}

/// A database without rows, for readers where there is none on disk.
pub(super) fn empty() -> Result<Connection, StoreError> {
    let connection = Connection::open_in_memory().map_err(StoreError::sqlite("make an empty database"))?;
    migrate(&connection)?;
    Ok(connection)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let failed = StoreError::sqlite("open its database");
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(&failed)?;
    connection
        .execute_batch(
            // Temporary files elsewhere could meet a full disk in the middle of a change.
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA foreign_keys = ON;
             PRAGMA temp_store = MEMORY;",
        )
        .map_err(&failed)?;
    check_intact(&connection)?;
    migrate(&connection)?;
    Ok(connection)
}

pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags).map_err(StoreError::sqlite("open its database for reading"))
}

/// Takes the exclusive lock of a data folder, which is made if it is not there.
pub(super) fn lock(folder: &Path) -> Result<FolderLock, StoreError> {
    let unusable = |why: String| StoreError::Folder { path: folder.to_owned(), why };
    if !folder.exists() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| unusable(e.to_string()))?;
    }
    let mode = fs::metadata(folder).map_err(|e| unusable(e.to_string()))?.mode();
    if mode & 0o077 != 0 {
        return Err(unusable(format!("others may read it (mode {:04o}); run chmod 700", mode & 0o7777)));
    }
    let path = folder.join("lock");
    let file =
        OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(|e| unusable(e.to_string()))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| unusable("another process holds its lock; is a daemon running on it?".into()))?;
    Ok(FolderLock(file))
}

fn check_intact(connection: &Connection) -> Result<(), StoreError> {
    let failed = StoreError::sqlite("check its database");
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(StoreError::Corrupt { what: "pages", why: verdict })
}

fn migrate(connection: &Connection) -> Result<(), StoreError> {
    let failed = StoreError::sqlite("set its tables up");
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(&failed)?;
    let missing = match version {
        0 => format!("{TABLES} {SINCE_2} {SINCE_3} {SINCE_4}"),
        1 => format!("{SINCE_2} {SINCE_3} {SINCE_4}"),
        2 => format!("{SINCE_3} {SINCE_4}"),
        3 => SINCE_4.to_owned(),
        VERSION => return Ok(()),
        other => {
            return Err(StoreError::Corrupt {
                what: "tables",
                why: format!("they are of version {other}; this release knows {VERSION}"),
            });
        }
    };
    let change = format!("BEGIN IMMEDIATE; {missing} PRAGMA user_version = {VERSION}; COMMIT;");
    connection.execute_batch(&change).map_err(&failed)?;
    put_triggers(connection)
}

/// Puts the triggers there as they must be, if they are not: somebody may have lifted them to change rows by hand.
pub(super) fn put_triggers(connection: &Connection) -> Result<(), StoreError> {
    let failed = StoreError::sqlite("set its rules up");
    let mut statement = connection
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' ORDER BY name")
        .map_err(&failed)?;
    let found: Vec<(String, String)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(&failed)?
        .collect::<Result<_, _>>()
        .map_err(&failed)?;
    let mut wanted: Vec<&str> =
        TRIGGERS.split_inclusive("END;").map(str::trim).filter(|text| !text.is_empty()).collect();
    wanted.sort_unstable();
    if found.iter().map(|(_, sql)| format!("{sql};")).eq(wanted.iter().map(|text| (*text).to_owned())) {
        return Ok(());
    }
    let lift: Vec<String> =
        found.iter().map(|(name, _)| format!("DROP TRIGGER \"{}\";", name.replace('"', "\"\""))).collect();
    let lift = lift.join(" ");
    connection.execute_batch(&format!("BEGIN IMMEDIATE; {lift} {TRIGGERS} COMMIT;")).map_err(&failed)
}

/// Whether the write-ahead log holds nothing that was destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scoured {
    /// It was copied into the database and cut to nothing.
    Empty,
    /// It was not, because of a reader or of the disk.
    NotYet,
}

/// Copies the write-ahead log into the database, whose freed pages `secure_delete` overwrites, and cuts it to nothing.
pub(super) fn empty_log(connection: &Connection) -> Scoured {
    match connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)) {
        Ok(0) => Scoured::Empty,
        Ok(_) => Scoured::NotYet,
        Err(error) => {
            tracing::warn!(event = "store_log_not_emptied", %error, "it is tried again");
            Scoured::NotYet
        }
    }
}

/// Lifts the rule about which state may follow which, for `work`, inside the caller's transaction.
pub(super) fn without_share_states(
    connection: &Connection,
    work: impl FnOnce() -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let failed = StoreError::sqlite("put its shares back to what the log says");
    connection.execute_batch("DROP TRIGGER IF EXISTS shares_change").map_err(&failed)?;
    work()?;
    let first = TRIGGERS.split_inclusive("END;").next().unwrap_or_default();
    connection.execute_batch(first).map_err(&failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use casemate_attest::life::{ShareState, Transition};

    fn tables(connection: &Connection) -> Vec<String> {
        let mut statement =
            connection.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn a_store_of_version_1_gets_what_it_lacks_and_keeps_what_it_holds() {
        let old = Connection::open_in_memory().unwrap();
        old.execute_batch(&format!("{TABLES} PRAGMA user_version = 1;")).unwrap();
        old.execute("INSERT INTO tokens (issuer, jti, exp) VALUES ('i', 'kept', 0)", []).unwrap();
        migrate(&old).unwrap();
        let new = Connection::open_in_memory().unwrap();
        migrate(&new).unwrap();
        assert_eq!(tables(&old), tables(&new));
        assert_eq!(old.query_row("SELECT jti FROM tokens", [], |row| row.get::<_, String>(0)).unwrap(), "kept");
        migrate(&old).unwrap();
    }

    #[test]
    fn the_database_knows_the_same_transitions_as_the_code() {
        let store = empty().unwrap();
        let put = |status: &str| {
            let gone = matches!(status, "revoked" | "destroyed");
            let secret = if gone { "NULL" } else { "x'00'" };
            store.execute_batch(&format!(
                "DROP TRIGGER shares_begin; DROP TRIGGER shares_stay; DELETE FROM shares;
                 INSERT INTO shares (id, public_key, epoch, session_id, share_type, status, header, deks, nonce, body, statement,
                 created_at) VALUES ('s', 'k', 1, 'x', 'wallet', '{status}', x'00', {secret}, {secret}, {secret}, '{{}}', '');
                 CREATE TRIGGER shares_stay BEFORE DELETE ON shares BEGIN SELECT 1; END;
                 CREATE TRIGGER shares_begin BEFORE INSERT ON shares BEGIN SELECT 1; END;"
            ))
        };
        for from in ShareState::ALL {
            for to in ShareState::ALL.into_iter().filter(|to| *to != from) {
                put(from.as_str()).unwrap();
                let destroy = if to.is_final() { ", deks = NULL, nonce = NULL, body = NULL" } else { "" };
                let changed = store.execute(&format!("UPDATE shares SET status = ?1{destroy}"), [to.as_str()]);
                let legal = Transition::between(Some(from), to).is_some();
                assert_eq!(changed.is_ok(), legal, "{from} to {to}: {changed:?}");
            }
        }
    }

    #[test]
    fn a_share_begins_pending_or_restored_stays_what_it_is_and_is_never_deleted() {
        let store = empty().unwrap();
        let insert = |id: &str, status: &str| {
            store.execute(
                "INSERT INTO shares (id, public_key, epoch, session_id, share_type, status, header, deks, nonce, body, statement,
                 created_at) VALUES (?1, 'k', 1, 'x', 'wallet', ?2, x'00', x'00', x'00', x'00', '{}', '')",
                (id, status),
            )
        };
        for state in ShareState::ALL {
            let begins = Transition::between(None, state).is_some();
            assert_eq!(insert(state.as_str(), state.as_str()).is_ok(), begins, "{state}");
        }
        for change in ["epoch = 2", "header = x'01'", "statement = '[]'", "public_key = 'other'", "id = 'other'"] {
            assert!(
                store.execute(&format!("UPDATE shares SET {change} WHERE id = 'pending'"), []).is_err(),
                "{change}"
            );
        }
        assert!(store.execute("UPDATE shares SET body = NULL, deks = NULL, nonce = NULL", []).is_err());
        assert!(store.execute("DELETE FROM shares", []).is_err());
        assert!(insert("second", "restored").is_err(), "two shares of one key that sign");
    }

    #[test]
    fn rules_that_were_lifted_by_hand_are_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(folder.path());
        let rules = |store: &Connection| -> Vec<String> {
            let mut rules = tables(store);
            rules.retain(|sql| sql.starts_with("CREATE TRIGGER"));
            rules
        };
        let store = create(&path).unwrap();
        let before = rules(&store);
        assert_eq!(before.len(), 5);
        store
            .execute_batch(
                "DROP TRIGGER shares_stay; CREATE TRIGGER other BEFORE DELETE ON tokens BEGIN SELECT 1; END;",
            )
            .unwrap();
        put_triggers(&store).unwrap();
        assert_eq!(rules(&store), before);
    }

    #[test]
    fn a_store_of_a_later_release_is_refused() {
        let later = Connection::open_in_memory().unwrap();
        later.execute_batch("PRAGMA user_version = 99").unwrap();
        assert!(matches!(migrate(&later), Err(StoreError::Corrupt { what: "tables", .. })));
    }
}
