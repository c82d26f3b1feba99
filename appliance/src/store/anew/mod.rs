//! A new log in the place of one that must not be continued: what the policy quorum signs, and what is then done.
//!
//! ```text
//! Stopped::open ─► state (for people to sign) ─► Mandate (signed) ─► recover: archive ─ one transaction ─ anchor
//! ```
//!
//! Cut off between any two steps, the same call with the same mandate ends what was begun: the archive is written again,
//! byte for byte; a new log that stands there without its anchor gets it. Until then the daemon refuses to act, since log and
//! anchor do not agree.

mod archive;
mod carried;

use std::path::{Path, PathBuf};

use casemate_attest::recovery::{Cause, Restored, Situation, Statement};
use casemate_attest::{
    Anchored, At, Entry, Finding, Guard, Head, Line, LogId, Place, Refusal, Snapshot, Standing, State, Text,
};
use casemate_wire::{Digest32, PartyId};
use jiff::Timestamp;
use rusqlite::Connection;

pub(crate) use archive::{make_folder, put_log, put_text};
/// A recovery statement that the policy quorum signed.
pub type Mandate = crate::mandate::Mandate<casemate_attest::recovery::Statement>;
/// Why there is none.
pub type MandateError = crate::mandate::MandateError<casemate_attest::recovery::StatementError>;

use super::anchor::Anchor;
use super::create::place_of;
use super::evidence::write_leaf;
use super::examine::{Examined, examine};
use super::schema::{self, FolderLock};
use super::{AnchorError, StoreError};

/// The data folder of a daemon that does not run, opened with its lock.
pub struct Stopped {
    folder: PathBuf,
    connection: Connection,
    anchored: Anchored,
    examined: Examined,
    anchor: Box<dyn Anchor>,
    _lock: FolderLock,
}

/// What would be signed, and what stands behind it.
#[derive(Debug)]
pub struct Proposal {
    /// The statement.
    pub statement: Statement,
    /// What was found at the examination; `None` where people alone know that log and HSM were restored.
    pub finding: Option<Finding>,
    /// What the new log takes over.
    pub carried: State,
    /// The newest time in the old log. A statement from before it was made by a clock that is wrong.
    pub latest: Option<At>,
}

/// What a recovery came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered {
    /// The new log stands, and is anchored.
    Begun(Place),
    /// It had been begun, and got its anchor now.
    Finished(Place),
    /// All had been done before.
    Before(Place),
}

/// Why a log was not begun anew. Nothing was changed that a repeated call does not find.
#[derive(Debug, thiserror::Error)]
pub enum AnewError {
    /// The log stands as it must.
    #[error(
        "the audit log stands as it is anchored: there is nothing to recover; if you know that database and HSM were both \
         restored to an older moment, say so with --restored"
    )]
    Sound,
    /// It does not, and whatever people know of a restore, the finding comes first.
    #[error("the audit log does not stand as it must ({0}): leave --restored away")]
    Unsound(&'static str),
    /// There is no database that could be carried over.
    #[error("there is no database in {}: put the newest copy of it there first, then run this again", .0.display())]
    NoDatabase(PathBuf),
    /// The statement does not fit.
    #[error("the recovery statement does not serve: {0}")]
    Statement(#[from] casemate_attest::recovery::StatementError),
    /// The new log that stands there is not the one that the statement leads to.
    #[error(
        "the new log was changed since it was begun: {0}; put the archived database back, or have a new statement signed"
    )]
    Changed(String),
    /// Store or anchor failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AnchorError> for AnewError {
    fn from(error: AnchorError) -> Self {
        StoreError::Anchor(error.to_string()).into()
    }
}

impl Stopped {
    /// Takes the folder's lock and examines its log against the anchor. It blocks for as long as the log takes to read.
    ///
    /// # Errors
    /// Says what is wrong with folder or database, or that the anchor cannot be asked.
    pub fn open(folder: &Path, mut anchor: Box<dyn Anchor>) -> Result<Self, AnewError> {
        let lock = schema::lock(folder)?;
        let anchored = anchor.place()?;
        let connection = schema::open(folder)?.ok_or_else(|| AnewError::NoDatabase(folder.to_owned()))?;
        let examined = examine(Some(&connection), anchored.clone())?;
        Ok(Self { folder: folder.to_owned(), connection, anchored, examined, anchor, _lock: lock })
    }

    /// States what is found, for people to sign: the new log would be `log`. `restored` says that people know of a restore
    /// that log and anchor do not show.
    ///
    /// # Errors
    /// There is nothing to recover, or nothing to recover from.
    pub fn propose(
        &self,
        party: &PartyId,
        restored: bool,
        log: LogId,
        created: At,
        expires: At,
    ) -> Result<Proposal, AnewError> {
        let (situation, snapshot) = self.situation(party, restored, &log, created)?;
        let finding = match &self.examined.standing {
            Standing::Refused(finding) => Some(finding.clone()),
            _ => None,
        };
        let statement = Statement::new(situation, log, created, expires)?;
        Ok(Proposal { statement, finding, carried: snapshot.state, latest: self.examined.latest })
    }

    /// Begins the new log, as the mandate says, and anchors it.
    ///
    /// # Errors
    /// [`AnewError`]. Cut off or failed, it can be called again with the same mandate.
    pub fn recover(mut self, party: &PartyId, mandate: &Mandate, now: Timestamp) -> Result<Recovered, AnewError> {
        let statement = mandate.statement();
        let now = At::new(now).map_err(|e| StoreError::Audit(e.to_string()))?;
        if let Some(genesis) = self.begun_by(mandate)? {
            return self.finish(party, mandate, &genesis, now);
        }
        let restored = matches!(statement.verdict, Cause::Declared(Restored::Restored));
        let (situation, snapshot) = self.situation(party, restored, &statement.log, statement.created)?;
        statement.check(&situation, now)?;
        self.archive(mandate)?;
        let head = self.begin(mandate, &snapshot, now)?;
        let place = place_of(&head);
        self.anchor.replace(&place)?;
        Ok(Recovered::Begun(place))
    }

    /// What is found now, and the snapshot that a new log of that name would rest on.
    fn situation(
        &self,
        party: &PartyId,
        restored: bool,
        log: &LogId,
        moment: At,
    ) -> Result<(Situation, Snapshot), AnewError> {
        // What would be carried over is found by doing it, and taking it back.
        let trial = self.connection.unchecked_transaction().map_err(StoreError::sqlite("begin a trial"))?;
        let carried = carried::settle(&trial, self.believed(), moment)?;
        trial.rollback().map_err(StoreError::sqlite("take a trial back"))?;
        let snapshot = Snapshot::before_first(log.clone(), carried, moment);
        let tables = digest_of(&snapshot)?;
        let situation = match &self.examined.standing {
            Standing::New => return Err(AnewError::NoDatabase(self.folder.clone())),
            Standing::Refused(finding) if restored => return Err(AnewError::Unsound(finding.verdict.as_str())),
            Standing::Refused(finding) => Situation::of(party.clone(), finding, tables),
            Standing::Equal | Standing::CatchUp { .. } if !restored => return Err(AnewError::Sound),
            Standing::Equal | Standing::CatchUp { .. } => Situation {
                party: party.clone(),
                cause: Cause::Declared(Restored::Restored),
                anchored: anchored(&self.anchored),
                found: self.examined.head.as_ref().map(place_of),
                tables,
            },
        };
        Ok((situation, snapshot))
    }

    /// What the log says of the guards, if all its lines are good.
    fn believed(&self) -> Option<&State> {
        let whole = match &self.examined.standing {
            Standing::Equal | Standing::CatchUp { .. } => true,
            Standing::Refused(finding) => finding.found.is_some(),
            Standing::New => false,
        };
        whole.then_some(&self.examined.state)
    }

    /// Writes everything of the old log, and the statement with its signatures, to files.
    fn archive(&self, mandate: &Mandate) -> Result<(), AnewError> {
        let statement = mandate.statement();
        let old = statement.found.as_ref().or(statement.anchored.as_ref());
        let old = old.map_or_else(|| "unknown".to_owned(), |place| format!("{}-{}", place.log, place.size));
        // One log can be archived in two states, such as before and after a repair: the new log's name tells them apart.
        let name = format!("{old}-before-{}", statement.log).replace('/', ".");
        let folder = self.folder.join("archive").join(name);
        make_folder(&folder)?;
        put_log(&folder, &self.connection)?;
        put_text(&folder.join("recovery.json"), mandate.text())?;
        for (number, signature) in mandate.signatures().iter().enumerate() {
            put_text(&folder.join(format!("recovery.json.sig-{number}")), &signature.armored)?;
        }
        Ok(())
    }

    /// One transaction: the old log goes, the tables become what was signed, the new log begins.
    fn begin(&self, mandate: &Mandate, snapshot: &Snapshot, now: At) -> Result<Head, AnewError> {
        let failed = StoreError::sqlite("begin the new log");
        let change = self.connection.unchecked_transaction().map_err(&failed)?;
        let statement = mandate.statement();
        let carried = carried::settle(&change, self.believed(), statement.created)?;
        if carried != snapshot.state {
            return Err(AnewError::Changed("its tables change while they are read".into()));
        }
        for table in ["leaves", "tree", "details", "snapshot"] {
            change.execute(&format!("DELETE FROM {table}"), []).map_err(&failed)?;
        }
        let text = snapshot.to_text().map_err(|e| StoreError::Audit(e.to_string()))?;
        change.execute("INSERT INTO snapshot (only_row, text) VALUES (1, ?1)", [&text]).map_err(&failed)?;
        let genesis = Entry::genesis()
            .recovering(statement.recovery(mandate.text()), mandate.approvals())
            .guarding(vec![Snapshot::guard(&text)]);
        let begun = Head::genesis(statement.log.clone(), genesis, now.timestamp())
            .map_err(|e| StoreError::Audit(e.to_string()))?;
        write_leaf(&change, &begun, None)?;
        change.commit().map_err(&failed)?;
        Ok(begun.head)
    }

    /// The genesis of the log that stands there, if this mandate began it.
    fn begun_by(&self, mandate: &Mandate) -> Result<Option<Line>, AnewError> {
        let first = super::audit_lines(&self.connection, 0, 1)?.pop();
        let genesis = first.and_then(|line| Line::read(line.as_bytes()).ok());
        Ok(genesis.filter(|line| {
            let leaf = line.leaf();
            let ours = leaf.recovery.as_ref().is_some_and(|recovery| recovery.statement == mandate.digest());
            ours && leaf.log == mandate.statement().log
        }))
    }

    /// Puts the anchor of a new log that stands there without it: whoever can have this done must still be who the statement
    /// is about, in the time and in the situation in which it serves.
    fn finish(&mut self, party: &PartyId, mandate: &Mandate, genesis: &Line, now: At) -> Result<Recovered, AnewError> {
        let statement = mandate.statement();
        let changed = |what: &str| AnewError::Changed(what.to_owned());
        if statement.party != *party {
            return Err(changed("it is the log of another appliance"));
        }
        if genesis.leaf().recovery != Some(statement.recovery(mandate.text())) {
            return Err(changed("its first leaf names other places than the statement"));
        }
        let head = self.examined.head.as_ref().ok_or_else(|| changed("it has no good line"))?;
        let place = place_of(head);
        match &self.anchored {
            Anchored::At(anchor) if anchor.log == statement.log => {
                return match &self.examined.standing {
                    Standing::Equal | Standing::CatchUp { .. } => Ok(Recovered::Before(place)),
                    Standing::Refused(finding) => Err(changed(&finding.to_string())),
                    Standing::New => Err(changed("it has no line")),
                };
            }
            Anchored::Unusable(_) if may_contradict(statement, &place) => {}
            Anchored::Unusable(why) => return Err(changed(why)),
            stands if anchored(stands) == statement.anchored => {}
            _ => return Err(changed("the HSM's anchor is not the one that the statement names")),
        }
        statement.in_time(genesis.leaf().at)?;
        statement.in_time(now)?;
        let named = genesis.leaf().guards.iter().find(|change| change.guard == Guard::Snapshot);
        let named = named.and_then(|change| change.to.as_ref()).map(Text::to_string);
        if named != Some(statement.tables.to_string()) || place.size != 1 {
            return Err(changed("it is not what the statement leads to"));
        }
        match examine(Some(&self.connection), Anchored::At(place.clone()))?.standing {
            Standing::Equal => {}
            Standing::Refused(finding) => return Err(changed(&finding.to_string())),
            Standing::New | Standing::CatchUp { .. } => return Err(changed("its first line is not its last")),
        }
        self.anchor.replace(&place)?;
        Ok(Recovered::Finished(place))
    }
}

/// Whether the HSM's anchors may contradict each other while a recovery to `new` is unfinished.
fn may_contradict(statement: &Statement, new: &Place) -> bool {
    // As it was found and signed; or as half of the replacement leaves it, beside an old anchor of the very same size.
    statement.verdict == Cause::Found(Refusal::AnchorUnusable)
        || statement.anchored.as_ref().is_some_and(|old| old.size == new.size)
}

fn anchored(anchored: &Anchored) -> Option<Place> {
    match anchored {
        Anchored::At(place) => Some(place.clone()),
        Anchored::Nothing | Anchored::Unusable(_) => None,
    }
}

fn digest_of(snapshot: &Snapshot) -> Result<Digest32, StoreError> {
    let text = snapshot.to_text().map_err(|e| StoreError::Audit(e.to_string()))?;
    Ok(Snapshot::digest(&text))
}
