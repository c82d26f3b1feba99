//! Whether a backup is complete: every share opened, loaded with all its checks, and compared with its header, statement and
//! certificate. Nothing of it leaves this process but the verdicts.

use casemate_attest::life::ShareState;
use casemate_hsm::Secret32;
use casemate_wire::{Digest32, IdentityKey, PublicKey};
use serde::Serialize;
use zeroize::Zeroizing;

use super::format::{Backup, Entry, Head, Proof};
use super::{BackupError, Keyring};
use crate::pipeline::{KeyShare, ShareHeader};
use crate::sealing::header;

/// A backup that was opened by enough pieces, and is what was made. Only [`Opened::by`] makes one.
pub struct Opened {
    backup: Backup,
    key: Secret32,
}

/// What became of one share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "why")]
#[must_use]
pub enum ShareVerdict {
    /// It opens, loads, and is what is said of it.
    Complete,
    /// It is not.
    Incomplete(String),
}

/// One share of a backup, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShareReport {
    /// Its id.
    pub share: String,
    /// The key.
    pub key: PublicKey,
    /// The key's label.
    pub label: Option<String>,
    /// The share's epoch.
    pub epoch: u64,
    /// Where it stood when the backup was made.
    pub state: ShareState,
    /// Whether it can be restored.
    #[serde(flatten)]
    pub verdict: ShareVerdict,
}

/// A backup of which every share is complete. Only [`Opened::check`] makes one.
pub struct Checked {
    opened: Opened,
    reports: Vec<ShareReport>,
}

impl Opened {
    /// Puts the pieces together and proves the file by its own key.
    ///
    /// # Errors
    /// [`BackupError`]: too few or wrong pieces, or an altered file.
    pub fn by(backup: Backup, keyring: &Keyring) -> Result<Self, BackupError> {
        let key = keyring.key(&backup)?;
        backup.check_seal(&key)?;
        Ok(Self { backup, key })
    }

    /// What the backup says at its beginning, proven.
    pub fn head(&self) -> &Head {
        self.backup.head()
    }

    /// SHA-256 of the file.
    pub fn digest(&self) -> Digest32 {
        self.backup.digest()
    }

    /// What shows that it was opened; it gives nothing else away.
    pub fn proof(&self) -> Proof {
        Proof::by(&self.key)
    }

    /// Opens every share and looks at it. `looked` hears how many were looked at. It computes for as long as that takes.
    ///
    /// # Errors
    /// The reports of all shares, if one of them is not complete.
    pub fn check(self, mut looked: impl FnMut(usize)) -> Result<Checked, Vec<ShareReport>> {
        let mut reports = Vec::with_capacity(self.backup.size());
        for (number, entry) in (1..).zip(&self.backup.body.shares) {
            reports.push(self.report(entry));
            looked(number);
        }
        if reports.iter().all(|report| report.verdict == ShareVerdict::Complete) {
            Ok(Checked { opened: self, reports })
        } else {
            Err(reports)
        }
    }

    fn report(&self, entry: &Entry) -> ShareReport {
        let known = &entry.known;
        ShareReport {
            share: known.id.clone(),
            key: known.statement.public_key,
            label: known.statement.label.clone(),
            epoch: known.statement.epoch,
            state: known.state,
            verdict: match self.judge(entry) {
                Ok(()) => ShareVerdict::Complete,
                Err(why) => ShareVerdict::Incomplete(why),
            },
        }
    }

    fn judge(&self, entry: &Entry) -> Result<(), String> {
        let known = &entry.known;
        let header: ShareHeader = header("share", &entry.header).map_err(|e| e.to_string())?;
        let plain = self.plain(entry).map_err(|e| e.to_string())?;
        let share = KeyShare::from_bytes(&plain).map_err(|e| e.to_string())?;
        let own = header.party_id == self.head().party && header.share_id == known.id;
        let said = if !own {
            Err("its header is of another share")
        } else if !header.is_stated_by(&known.statement) {
            Err("its header and the key's statement differ")
        } else if !header.describes(&share, &known.statement) {
            Err("it is not the share that its header and statement describe")
        } else if known.state.is_final() {
            Err("its state is one in which no share has a body")
        } else {
            Ok(())
        };
        said.map_err(str::to_owned)?;
        match &known.certificate {
            Some(certificate) if certificate.statement != known.statement => {
                Err("its certificate is about another statement".into())
            }
            Some(certificate) => certificate.verify_signatures().map_err(|e| e.to_string()),
            None if known.state == ShareState::Pending => Ok(()),
            None => Err("its key has no certificate".into()),
        }
    }

    /// The identities under which this party stands in the committees of these shares.
    pub fn identities_of(&self, shares: &[ShareReport]) -> Vec<IdentityKey> {
        let named = |entry: &&Entry| shares.iter().any(|share| share.share == entry.known.id);
        let entries = self.entries().iter().filter(named);
        let members = entries.flat_map(|entry| entry.known.statement.roster.members());
        members.filter(|member| member.party_id == self.head().party).map(|member| member.identity.clone()).collect()
    }

    pub(super) fn plain(&self, entry: &Entry) -> Result<Zeroizing<Vec<u8>>, super::FormatError> {
        entry.open(&self.head().id, &self.key)
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.backup.body.shares
    }
}

impl Checked {
    /// The backup.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// What was found of each share.
    pub fn reports(&self) -> &[ShareReport] {
        &self.reports
    }
}
