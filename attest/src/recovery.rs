//! The statement by which the policy quorum lets an appliance go on in a new log.
//!
//! ```json
//! {"anchored":{"log":…,"root":…,"size":41},"created":"2026-11-21T12:00:00.000Z","domain":"casemate/audit-recovery/v1",
//!  "expires":"2026-11-22T12:00:00.000Z","found":{"log":…,"root":…,"size":37},"log":"casemate/party-1/9d0c5a77",
//!  "party":"party-1","tables":"5f…","verdict":"rollback"}
//! ```
//!
//! One line of canonical JSON (RFC 8785) and its newline: the file as it stands is what people sign, and what the new log's
//! genesis names by its SHA-256. It is about one situation of one appliance, found again when it is used: another anchor,
//! another end of the log or other tables need another statement. Since the anchor then names the new log, none serves twice.

use casemate_wire::{Digest32, PartyId};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::leaf::{Guard, Leaf, Place, Recovery};
use crate::standing::{Finding, Refusal};
use crate::text::{At, LogId, Text};

/// The longest text that is looked at, in bytes.
pub const MAX_STATEMENT: usize = 4096;
/// The longest time from `created` to `expires`.
pub const MAX_LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The one value of `domain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Domain {
    #[serde(rename = "casemate/audit-recovery/v1")]
    Recovery,
}

/// Why a log is begun anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cause {
    /// The daemon refuses to go on by itself.
    Found(Refusal),
    /// Log and anchor agree, but people know that both were restored.
    Declared(Restored),
}

/// The one word of [`Cause::Declared`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restored {
    /// Database and HSM were both put back to an older moment.
    #[serde(rename = "restored")]
    Restored,
}

impl Cause {
    /// The word in statement and leaf.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Found(refusal) => refusal.as_str(),
            Self::Declared(Restored::Restored) => "restored",
        }
    }
}

/// What is found at one appliance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation {
    /// Which one.
    pub party: PartyId,
    /// Why its log must be begun anew.
    pub cause: Cause,
    /// What the HSM holds.
    pub anchored: Option<Place>,
    /// What the database holds.
    pub found: Option<Place>,
    /// The SHA-256 of all guards as the tables have them.
    pub tables: Digest32,
}

impl Situation {
    /// What the daemon found at its start, with the digest of its tables.
    pub fn of(party: PartyId, finding: &Finding, tables: Digest32) -> Self {
        let (anchored, found) = (finding.anchored.clone(), finding.found.clone());
        Self { party, cause: Cause::Found(finding.verdict), anchored, found, tables }
    }
}

/// A recovery statement. It comes from [`Statement::new`], or from [`Statement::read`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Statement {
    domain: Domain,
    /// Which appliance.
    pub party: PartyId,
    /// Why its log is begun anew.
    pub verdict: Cause,
    /// What the HSM held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchored: Option<Place>,
    /// What the database held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Place>,
    /// The SHA-256 of all guards as the tables had them.
    pub tables: Digest32,
    /// The name of the new log.
    pub log: LogId,
    /// When it was made.
    pub created: At,
    /// When it can no longer be used.
    pub expires: At,
}

/// Why a statement lets nothing go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// It is no recovery statement.
    #[error("it is not a recovery statement: {0}")]
    NotAStatement(String),
    /// Not in the one form that RFC 8785 gives it.
    #[error(
        "it is not exactly one line of canonical JSON with its newline, so `casemate audit recover --show-statement` did not write it"
    )]
    NotCanonical,
    /// It has no sensible times.
    #[error("it expires {0}: at most seven days after it was made, and not before")]
    Life(At),
    /// Another situation than the one that is found now.
    #[error("its `{field}` is {stated}, but {found} is found: have a new statement shown, and signed")]
    Situation {
        /// The first field that differs.
        field: &'static str,
        /// What the statement says.
        stated: String,
        /// What is found.
        found: String,
    },
    /// Its time is over, or has not come.
    #[error("it serves from {created} to {expires}, and it is {now}: check the clock, or have a new one signed")]
    Time {
        /// From when.
        created: At,
        /// Until when.
        expires: At,
        /// The time now.
        now: At,
    },
    /// A genesis that it did not lead to.
    #[error("the genesis has another `{0}` than the statement")]
    Genesis(&'static str),
    /// The new log would have the name of an old one.
    #[error("the new log would have the name of the old one, {0}")]
    SameLog(LogId),
}

impl Statement {
    /// States a situation for people to sign.
    ///
    /// # Errors
    /// [`StatementError`] if the times or the log's name would not do.
    pub fn new(situation: Situation, log: LogId, created: At, expires: At) -> Result<Self, StatementError> {
        let Situation { party, cause, anchored, found, tables } = situation;
        let statement =
            Self { domain: Domain::Recovery, party, verdict: cause, anchored, found, tables, log, created, expires };
        statement.checked()
    }

    /// The exact text, to be signed and kept as it is.
    ///
    /// # Errors
    /// It cannot be written, which no situation causes.
    pub fn to_text(&self) -> Result<String, StatementError> {
        let line = serde_json_canonicalizer::to_string(self);
        line.map(|line| line + "\n").map_err(|e| StatementError::NotAStatement(e.to_string()))
    }

    /// Reads the exact text.
    ///
    /// # Errors
    /// [`StatementError`] says what is wrong with it.
    pub fn read(text: &[u8]) -> Result<Self, StatementError> {
        if text.len() > MAX_STATEMENT {
            return Err(StatementError::NotAStatement(format!("it has more than {MAX_STATEMENT} bytes")));
        }
        let statement: Self = serde_json::from_slice(text).map_err(|e| StatementError::NotAStatement(e.to_string()))?;
        if statement.to_text()?.as_bytes() != text {
            return Err(StatementError::NotCanonical);
        }
        statement.checked()
    }

    /// The SHA-256 of a statement's exact text: what the genesis of the new log holds.
    pub fn digest(text: &[u8]) -> Digest32 {
        Digest32(Sha256::digest(text).into())
    }

    /// Whether it is about what is found now, and its time has come and is not over.
    ///
    /// # Errors
    /// [`StatementError::Situation`] names the first field that differs; [`StatementError::Time`].
    pub fn check(&self, situation: &Situation, now: At) -> Result<(), StatementError> {
        let same = |field, stated: String, found: String| {
            if stated == found { Ok(()) } else { Err(StatementError::Situation { field, stated, found }) }
        };
        same("party", self.party.to_string(), situation.party.to_string())?;
        same("verdict", self.verdict.as_str().into(), situation.cause.as_str().into())?;
        same("anchored", words(self.anchored.as_ref()), words(situation.anchored.as_ref()))?;
        same("found", words(self.found.as_ref()), words(situation.found.as_ref()))?;
        same("tables", self.tables.to_string(), situation.tables.to_string())?;
        self.in_time(now)
    }

    /// Whether its time has come and is not over.
    ///
    /// # Errors
    /// [`StatementError::Time`].
    pub fn in_time(&self, now: At) -> Result<(), StatementError> {
        let Self { created, expires, .. } = self;
        if (created..=expires).contains(&&now) {
            return Ok(());
        }
        Err(StatementError::Time { created: *created, expires: *expires, now })
    }

    /// What the genesis of the new log says, for a statement with this exact text.
    pub fn recovery(&self, text: &[u8]) -> Recovery {
        Recovery {
            verdict: Text::fitted(self.verdict.as_str()),
            anchored: self.anchored.clone(),
            found: self.found.clone(),
            statement: Self::digest(text),
        }
    }

    /// Reads the statement that a log's genesis names, and holds the genesis against it: its log, what it replaces, the guards
    /// that it takes over, and its time. The names beside it are the signatures' matter.
    ///
    /// # Errors
    /// [`StatementError::Genesis`] names what differs; [`StatementError::Time`]; or the text is no statement.
    pub fn of_genesis(text: &[u8], genesis: &Leaf) -> Result<Self, StatementError> {
        let same = |field, holds: bool| if holds { Ok(()) } else { Err(StatementError::Genesis(field)) };
        let stated = genesis.recovery.as_ref().ok_or(StatementError::Genesis("recovery"))?;
        same("statement", stated.statement == Self::digest(text))?;
        let statement = Self::read(text)?;
        same("log", statement.log == genesis.log)?;
        same("recovery", statement.recovery(text) == *stated)?;
        let named = genesis.guards.iter().find(|change| change.guard == Guard::Snapshot);
        let named = named.and_then(|change| change.to.as_ref()).map(Text::as_str);
        same("tables", named == Some(statement.tables.to_string().as_str()))?;
        statement.in_time(genesis.at)?;
        Ok(statement)
    }

    fn checked(self) -> Result<Self, StatementError> {
        let life = self.expires.timestamp().duration_since(self.created.timestamp());
        if life.is_negative() || life > MAX_LIFE {
            return Err(StatementError::Life(self.expires));
        }
        let old = [&self.anchored, &self.found].into_iter().flatten();
        if old.map(|place| &place.log).any(|log| *log == self.log) {
            return Err(StatementError::SameLog(self.log));
        }
        Ok(self)
    }
}

fn words(place: Option<&Place>) -> String {
    match place {
        Some(Place { log, size, root }) => format!("{size} leaves of {log} with root {root}"),
        None => "nothing".into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn place(size: u64) -> Place {
        Place { log: "casemate/party-1/0a".parse().unwrap(), size, root: Digest32([7; 32]) }
    }

    fn situation() -> Situation {
        Situation {
            party: "party-1".parse().unwrap(),
            cause: Cause::Found(Refusal::Rollback),
            anchored: Some(place(41)),
            found: Some(place(37)),
            tables: Digest32([3; 32]),
        }
    }

    fn at(text: &str) -> At {
        text.parse().unwrap()
    }

    const CREATED: &str = "2026-11-21T12:00:00.000Z";
    const EXPIRES: &str = "2026-11-22T12:00:00.000Z";

    fn statement() -> Statement {
        Statement::new(situation(), "casemate/party-1/0b".parse().unwrap(), at(CREATED), at(EXPIRES)).unwrap()
    }

    #[test]
    fn a_statement_has_exactly_one_text() {
        let text = statement().to_text().unwrap();
        assert!(text.starts_with(r#"{"anchored":{"log":"casemate/party-1/0a","#) && text.ends_with("}\n"), "{text}");
        assert_eq!(Statement::read(text.as_bytes()).unwrap(), statement());
        let line = text.trim_end();
        let spaced = text.replace(r#","found""#, r#", "found""#);
        let twice = text.replace(r#""party":"#, r#""party":"party-2","party":"#);
        for other in [line.to_owned(), format!("{text}\n"), format!(" {text}"), format!("{line}\r\n"), spaced] {
            assert_eq!(Statement::read(other.as_bytes()), Err(StatementError::NotCanonical), "{other:?}");
        }
        let domain = text.replace("audit-recovery", "audit-detail");
        let unknown = text.replace(r#""log":"casemate/party-1/0b""#, r#""log":"casemate/party-1/0b","more":1"#);
        let verdict = text.replace("rollback", "equal");
        let long = format!("{text}{}", " ".repeat(MAX_STATEMENT));
        for other in [twice, domain, unknown, verdict, long, String::new()] {
            let refused = Statement::read(other.as_bytes());
            assert!(matches!(refused, Err(StatementError::NotAStatement(_))), "{other:?} {refused:?}");
        }
    }

    #[test]
    fn a_statement_serves_one_situation() {
        let now = at(CREATED);
        assert_eq!(statement().check(&situation(), now), Ok(()));
        let others = [
            ("party", Situation { party: "party-2".parse().unwrap(), ..situation() }),
            ("verdict", Situation { cause: Cause::Found(Refusal::Fork), ..situation() }),
            ("verdict", Situation { cause: Cause::Declared(Restored::Restored), ..situation() }),
            ("anchored", Situation { anchored: Some(place(42)), ..situation() }),
            ("anchored", Situation { anchored: None, ..situation() }),
            ("found", Situation { found: Some(place(38)), ..situation() }),
            ("tables", Situation { tables: Digest32([4; 32]), ..situation() }),
        ];
        for (field, other) in others {
            match statement().check(&other, now) {
                Err(StatementError::Situation { field: named, .. }) => assert_eq!(named, field),
                checked => panic!("{field}: {checked:?}"),
            }
        }
    }

    #[test]
    fn a_statement_serves_from_its_making_to_its_end() {
        for (now, serves) in
            [("2026-11-21T11:59:59.999Z", false), (CREATED, true), (EXPIRES, true), ("2026-11-22T12:00:00.001Z", false)]
        {
            let checked = statement().check(&situation(), at(now));
            assert_eq!(checked.is_ok(), serves, "{now}");
        }
        let log = || "casemate/party-1/0b".parse().unwrap();
        for expires in ["2026-11-21T11:59:59.999Z", "2026-11-28T12:00:00.001Z"] {
            let made = Statement::new(situation(), log(), at(CREATED), at(expires));
            assert!(matches!(made, Err(StatementError::Life(_))), "{expires}");
            let text = statement().to_text().unwrap().replace(EXPIRES, expires);
            assert!(matches!(Statement::read(text.as_bytes()), Err(StatementError::Life(_))), "{expires}");
        }
    }

    #[test]
    fn the_new_log_has_a_new_name() {
        let made = Statement::new(situation(), "casemate/party-1/0a".parse().unwrap(), at(CREATED), at(EXPIRES));
        assert!(matches!(made, Err(StatementError::SameLog(_))));
    }

    #[test]
    fn the_genesis_says_what_the_statement_says() {
        let text = statement().to_text().unwrap();
        let recovery = statement().recovery(text.as_bytes());
        assert_eq!((recovery.anchored, recovery.found), (Some(place(41)), Some(place(37))));
        assert_eq!(recovery.verdict.as_str(), "rollback");
        assert_eq!(recovery.statement, Statement::digest(text.as_bytes()));
    }
}
