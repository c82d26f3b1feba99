//! A data folder, an anchor in memory, and a small appliance on top of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use casemate_appliance::store::{Anchor, AnchorError, Store, StoreError, Transaction};
use casemate_attest::{
    Act, Anchored, Decision, Effect, Entry, Guard, GuardChange, IntentRef, Line, Op, Origin, Place, Refusal, Text, Tx,
};
use casemate_wire::{Digest32, EcdsaSignature, PublicKey};
use tempfile::TempDir;

/// What the next calls to put a place do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    #[default]
    Works,
    /// Nothing is changed, and the caller is told so.
    Refuses,
    /// The place is kept, and the caller is told otherwise: the answer was lost.
    LosesAnswers,
}

/// Something to be done at the moment between database and anchor.
type Between = Box<dyn FnOnce() + Send>;

/// An anchor that lives as long as one of its clones.
#[derive(Clone, Default)]
pub struct MemoryAnchor(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    place: Option<Place>,
    unusable: Option<String>,
    mood: Mood,
    puts: Vec<Place>,
    between: Option<Between>,
}

impl MemoryAnchor {
    pub fn mood(&self, mood: Mood) {
        self.0.lock().unwrap().mood = mood;
    }

    pub fn standing(&self) -> Option<Place> {
        self.0.lock().unwrap().place.clone()
    }

    /// Every place that was kept, in order.
    pub fn puts(&self) -> Vec<Place> {
        self.0.lock().unwrap().puts.clone()
    }

    /// As if the HSM's own folder had been restored, wiped or made anew.
    pub fn replace(&self, place: Option<Place>) {
        self.0.lock().unwrap().place = place;
    }

    pub fn spoil(&self, why: &str) {
        self.0.lock().unwrap().unusable = Some(why.into());
    }

    /// Does something when the next place is about to be put: the commit is durable, the anchor is not.
    pub fn between(&self, work: impl FnOnce() + Send + 'static) {
        self.0.lock().unwrap().between = Some(Box::new(work));
    }
}

impl MemoryAnchor {
    /// As a new process finds it: nothing is planned, everything works.
    pub fn fresh(&self) {
        let mut inner = self.0.lock().unwrap();
        inner.between = None;
        inner.mood = Mood::Works;
    }
}

impl Anchor for MemoryAnchor {
    fn place(&mut self) -> Result<Anchored, AnchorError> {
        let inner = self.0.lock().unwrap();
        let stands = inner.place.clone().map_or(Anchored::Nothing, Anchored::At);
        Ok(inner.unusable.clone().map_or(stands, Anchored::Unusable))
    }

    fn put(&mut self, expected: Option<&Place>, place: &Place) -> Result<(), AnchorError> {
        let between = self.0.lock().unwrap().between.take();
        if let Some(work) = between {
            work();
        }
        let mut inner = self.0.lock().unwrap();
        let refuses = |why: &str| Err(AnchorError::Unkept(why.into()));
        let conflict = |why: &str| Err(AnchorError::Conflict(why.into()));
        if inner.mood == Mood::Refuses {
            return refuses("the HSM does not answer");
        }
        match &inner.place {
            Some(stands) if stands == place => {}
            stands if stands.as_ref() != expected => return conflict("another place was put meanwhile"),
            Some(stands) if stands.log != place.log => return conflict("it is of another log"),
            Some(stands) if stands.size > place.size => return conflict("it would shrink"),
            Some(stands) if stands.size == place.size => return conflict("it forks"),
            _ => {}
        }
        inner.place = Some(place.clone());
        inner.puts.push(place.clone());
        match inner.mood {
            Mood::LosesAnswers => refuses("the answer was lost"),
            _ => Ok(()),
        }
    }

    fn replace(&mut self, place: &Place) -> Result<(), AnchorError> {
        let mut inner = self.0.lock().unwrap();
        let refuses = |why: &str| Err(AnchorError::Unkept(why.into()));
        if inner.mood == Mood::Refuses {
            return refuses("the HSM does not answer");
        }
        inner.place = Some(place.clone());
        inner.unusable = None;
        match inner.mood {
            Mood::LosesAnswers => refuses("the answer was lost"),
            _ => Ok(()),
        }
    }
}

/// A data folder and its anchor.
pub struct Site {
    pub folder: TempDir,
    pub anchor: MemoryAnchor,
}

impl Site {
    /// Nothing is begun.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
        Self { folder, anchor: MemoryAnchor::default() }
    }

    /// A log that holds its first leaf.
    pub fn begun() -> Self {
        let site = Self::new();
        site.begin("casemate/party-1/test").unwrap();
        site
    }

    pub fn begin(&self, log: &str) -> Result<Place, StoreError> {
        Store::create(self.path(), &log.parse().unwrap(), &mut self.anchor.clone())
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn database(&self) -> PathBuf {
        self.path().join("casemate.db")
    }

    pub fn try_open(&self) -> Result<Store, StoreError> {
        Store::open(self.path(), Box::new(self.anchor.clone()))
    }

    /// Opens a store that stands as it must.
    pub fn open(&self) -> Store {
        let store = self.try_open().unwrap();
        assert!(store.quarantine().is_none(), "{}", store.quarantine().unwrap());
        store
    }

    /// Opens a store that must be in quarantine; its verdict, and all that it says.
    pub fn refused(&self) -> (Refusal, String) {
        let store = self.try_open().unwrap();
        let quarantine = store.quarantine().expect("it is not in quarantine");
        (quarantine.finding.verdict, format!("{quarantine} {:?}", quarantine.finding.differences))
    }

    /// The database of a store that is closed.
    pub fn copy(&self) -> Vec<u8> {
        let rest = fs::metadata(self.path().join("casemate.db-wal")).map_or(0, |wal| wal.len());
        assert_eq!(rest, 0, "it is not closed");
        fs::read(self.database()).unwrap()
    }

    pub fn restore(&self, copy: &[u8]) {
        fs::write(self.database(), copy).unwrap();
    }

    /// Changes rows behind everybody's back; how many.
    pub fn by_hand(&self, sql: &str) -> usize {
        let connection = rusqlite::Connection::open(self.database()).unwrap();
        connection.pragma_update(None, "foreign_keys", false).unwrap();
        for rule in ["shares_change", "shares_keep", "shares_stay", "shares_begin", "epochs_rise"] {
            connection.execute(&format!("DROP TRIGGER IF EXISTS {rule}"), []).unwrap();
        }
        connection.execute(sql, []).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }
}

pub fn text(text: &str) -> Text {
    Text::fitted(text)
}

pub fn change(guard: Guard, id: &str, to: &str) -> GuardChange {
    GuardChange { guard, id: text(id), to: Some(text(to)) }
}

pub fn key() -> PublicKey {
    "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().unwrap()
}

pub fn signature(mark: u8) -> EcdsaSignature {
    EcdsaSignature { r: [mark; 32], s: [2; 32], v: 0 }
}

pub fn origin(session: &str) -> Origin {
    Origin { req: text(&format!("req-{session}")), actor: text("coordinator"), session: Some(session.parse().unwrap()) }
}

pub fn allowed() -> Decision {
    Decision { effect: Effect::Allow, policies: vec![text("p")], bundle: Some(Digest32([0xb0; 32])) }
}

pub fn sign() -> Act {
    Act::Sign { key: key(), tx: Tx::of(Digest32([0xd1; 32])) }
}

/// Runs a statement in a job.
pub fn run(transaction: &Transaction<'_>, sql: &str) -> Result<usize, StoreError> {
    let failed = |error: rusqlite::Error| StoreError::Sqlite { doing: "test", why: error.to_string() };
    transaction.sql().execute(sql, []).map_err(failed)
}

/// Writes the row of a session.
pub fn session_row(transaction: &Transaction<'_>, session: &str, status: &str, intent: u64) -> Result<(), StoreError> {
    let sql = format!(
        "INSERT INTO sessions (session_id, session_type, body_digest, status, refused, actor, request, result,
         started_at, intent) VALUES ('{session}', 'sign', zeroblob(32), '{status}', 0, 'c', 'r', '{{}}',
         '2026-01-01T00:00:00Z', {intent})"
    );
    run(transaction, &sql).map(|_| ())
}

/// An intent to sign, with its used token and session; refused if the token was used before.
pub fn intend(transaction: &mut Transaction<'_>, session: &str, more: Vec<GuardChange>) -> Result<u64, StoreError> {
    let token = format!("t-{session}");
    run(transaction, &format!("INSERT INTO tokens (issuer, jti, exp) VALUES ('i', '{token}', 4000000000)"))?;
    let mut guards = vec![change(Guard::Token, &token, "used"), change(Guard::Session, session, "accepted")];
    guards.extend(more);
    let line = transaction.append(Entry::intent(sign(), origin(session), allowed()).guarding(guards))?;
    session_row(transaction, session, "accepted", line.leaf().seq)?;
    Ok(line.leaf().seq)
}

/// The intent at this place of the log.
pub fn intent_at(transaction: &Transaction<'_>, seq: u64) -> IntentRef {
    let line: String = transaction
        .sql()
        .query_row("SELECT line FROM leaves WHERE seq = ?1", [i64::try_from(seq).unwrap()], |row| row.get(0))
        .unwrap();
    Line::read(line.as_bytes()).unwrap().intent().unwrap()
}

/// A leaf that says nothing else.
pub fn note() -> Entry {
    Entry::admin(Op::Stop)
}

/// All lines of a store.
pub async fn lines(store: &Store) -> Vec<String> {
    store.read(|connection| casemate_appliance::store::audit_lines(connection, 0, u64::MAX)).await.unwrap()
}
