//! The statement by which the policy quorum lets a backup be restored on one appliance.
//!
//! ```json
//! {"backup":"5f…","created":"2026-11-21T12:00:00.000Z","domain":"casemate/restore/v1","expires":"2026-11-22T12:00:00.000Z",
//!  "made":{"log":…,"root":…,"size":37},"onto":{"log":…,"root":…,"size":1},"party":"party-1"}
//! ```
//!
//! One line of canonical JSON (RFC 8785) and its newline, as a [recovery statement](crate::recovery) is. It names one backup
//! file, and the log that the shares go into by a place that it has passed. It serves once: its use is a guard of that log.

use casemate_wire::{Digest32, PartyId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::leaf::Place;
use crate::recovery::MAX_LIFE;
use crate::text::At;

/// The longest text that is looked at, in bytes.
pub const MAX_STATEMENT: usize = 4096;

/// The one value of `domain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Domain {
    #[serde(rename = "casemate/restore/v1")]
    Restore,
}

/// What would be restored where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scene {
    /// Whose backup, and whose appliance.
    pub party: PartyId,
    /// The SHA-256 of the backup file.
    pub backup: Digest32,
    /// Where the log of the appliance stood that made the backup.
    pub made: Place,
    /// Where the log stands that the shares go into.
    pub onto: Place,
}

/// A restore statement. It comes from [`Statement::new`], or from [`Statement::read`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Statement {
    domain: Domain,
    /// Whose backup, and whose appliance.
    pub party: PartyId,
    /// The SHA-256 of the backup file.
    pub backup: Digest32,
    /// Where the log of the appliance stood that made the backup.
    pub made: Place,
    /// A place of the log that the shares go into.
    pub onto: Place,
    /// When it was made.
    pub created: At,
    /// When it can no longer be used.
    pub expires: At,
}

/// Why a statement lets nothing be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestorationError {
    /// It is no restore statement.
    #[error("it is not a restore statement: {0}")]
    NotAStatement(String),
    /// Not in the one form that RFC 8785 gives it.
    #[error(
        "it is not exactly one line of canonical JSON with its newline, so `casemate backup restore --show-statement` did not write it"
    )]
    NotCanonical,
    /// It has no sensible times.
    #[error("it expires {0}: at most seven days after it was made, and not before")]
    Life(At),
    /// It is about something else.
    #[error("its `{field}` is {stated}, but {found} is found: have a new statement shown, and signed")]
    Scene {
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
}

impl Statement {
    /// States a restore for people to sign.
    ///
    /// # Errors
    /// [`RestorationError::Life`].
    pub fn new(scene: Scene, created: At, expires: At) -> Result<Self, RestorationError> {
        let Scene { party, backup, made, onto } = scene;
        Self { domain: Domain::Restore, party, backup, made, onto, created, expires }.checked()
    }

    /// The exact text, to be signed and kept as it is.
    ///
    /// # Errors
    /// It cannot be written, which no scene causes.
    pub fn to_text(&self) -> Result<String, RestorationError> {
        let line = serde_json_canonicalizer::to_string(self);
        line.map(|line| line + "\n").map_err(|e| RestorationError::NotAStatement(e.to_string()))
    }

    /// Reads the exact text.
    ///
    /// # Errors
    /// [`RestorationError`] says what is wrong with it.
    pub fn read(text: &[u8]) -> Result<Self, RestorationError> {
        if text.len() > MAX_STATEMENT {
            return Err(RestorationError::NotAStatement(format!("it has more than {MAX_STATEMENT} bytes")));
        }
        let statement: Self =
            serde_json::from_slice(text).map_err(|e| RestorationError::NotAStatement(e.to_string()))?;
        if statement.to_text()?.as_bytes() != text {
            return Err(RestorationError::NotCanonical);
        }
        statement.checked()
    }

    /// The SHA-256 of a statement's exact text.
    pub fn digest(text: &[u8]) -> Digest32 {
        Digest32(Sha256::digest(text).into())
    }

    /// Whether it is about this very restore, and its time has come and is not over.
    ///
    /// `scene.onto` is [`Statement::onto`] itself where the log passes through that place; any other place is refused.
    ///
    /// # Errors
    /// [`RestorationError::Scene`] names the first field that differs; [`RestorationError::Time`].
    pub fn check(&self, scene: &Scene, now: At) -> Result<(), RestorationError> {
        let same = |field, stated: String, found: String| {
            if stated == found { Ok(()) } else { Err(RestorationError::Scene { field, stated, found }) }
        };
        same("party", self.party.to_string(), scene.party.to_string())?;
        same("backup", self.backup.to_string(), scene.backup.to_string())?;
        same("made", words(&self.made), words(&scene.made))?;
        same("onto", words(&self.onto), words(&scene.onto))?;
        let Self { created, expires, .. } = self;
        if (created..=expires).contains(&&now) {
            return Ok(());
        }
        Err(RestorationError::Time { created: *created, expires: *expires, now })
    }

    fn checked(self) -> Result<Self, RestorationError> {
        let life = self.expires.timestamp().duration_since(self.created.timestamp());
        if life.is_negative() || life > MAX_LIFE {
            return Err(RestorationError::Life(self.expires));
        }
        Ok(self)
    }
}

fn words(Place { log, size, root }: &Place) -> String {
    format!("{size} leaves of {log} with root {root}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn place(log: &str, size: u64) -> Place {
        Place { log: log.parse().unwrap(), size, root: Digest32([7; 32]) }
    }

    fn scene() -> Scene {
        Scene {
            party: "party-1".parse().unwrap(),
            backup: Digest32([3; 32]),
            made: place("casemate/party-1/0a", 37),
            onto: place("casemate/party-1/0b", 1),
        }
    }

    fn at(text: &str) -> At {
        text.parse().unwrap()
    }

    const CREATED: &str = "2026-11-21T12:00:00.000Z";
    const EXPIRES: &str = "2026-11-22T12:00:00.000Z";

    fn statement() -> Statement {
        Statement::new(scene(), at(CREATED), at(EXPIRES)).unwrap()
    }

    #[test]
    fn a_statement_has_exactly_one_text() {
        let text = statement().to_text().unwrap();
        assert_eq!(Statement::read(text.as_bytes()).unwrap(), statement());
        let line = text.trim_end();
        for other in
            [line.to_owned(), format!("{text}\n"), format!(" {text}"), text.replace(r#","made""#, r#", "made""#)]
        {
            assert_eq!(Statement::read(other.as_bytes()), Err(RestorationError::NotCanonical), "{other:?}");
        }
        let recovery = text.replace("casemate/restore/v1", "casemate/audit-recovery/v1");
        let unknown = text.replace(r#""party":"#, r#""more":1,"party":"#);
        for other in [recovery, unknown, format!("{text}{}", " ".repeat(MAX_STATEMENT)), String::new()] {
            let refused = Statement::read(other.as_bytes());
            assert!(matches!(refused, Err(RestorationError::NotAStatement(_))), "{other:?} {refused:?}");
        }
    }

    #[test]
    fn a_statement_serves_one_backup_on_one_appliance() {
        let now = at(CREATED);
        assert_eq!(statement().check(&scene(), now), Ok(()));
        let others = [
            ("party", Scene { party: "party-2".parse().unwrap(), ..scene() }),
            ("backup", Scene { backup: Digest32([4; 32]), ..scene() }),
            ("made", Scene { made: place("casemate/party-1/0a", 38), ..scene() }),
            ("onto", Scene { onto: place("casemate/party-1/0c", 1), ..scene() }),
        ];
        for (field, other) in others {
            match statement().check(&other, now) {
                Err(RestorationError::Scene { field: named, .. }) => assert_eq!(named, field),
                checked => panic!("{field}: {checked:?}"),
            }
        }
    }

    #[test]
    fn a_statement_serves_from_its_making_to_its_end() {
        for (now, serves) in
            [("2026-11-21T11:59:59.999Z", false), (CREATED, true), (EXPIRES, true), ("2026-11-22T12:00:00.001Z", false)]
        {
            assert_eq!(statement().check(&scene(), at(now)).is_ok(), serves, "{now}");
        }
        for expires in ["2026-11-21T11:59:59.999Z", "2026-11-28T12:00:00.001Z"] {
            let made = Statement::new(scene(), at(CREATED), at(expires));
            assert!(matches!(made, Err(RestorationError::Life(_))), "{expires}");
        }
    }
}
