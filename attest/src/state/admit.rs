//! Whether a leaf may follow, by what every guard said before it.

use super::{Past, State, TOKENS_KEPT};
use crate::leaf::{Guard, GuardChange, Leaf};
use crate::life::{KekState, ShareState, Transition};
use crate::rewrap::Rewrap;
use crate::rules::life::{Stage, backup_stage, bundle_version, entered, kek_epoch, kek_state, stage};
use crate::text::{At, Text};

impl State {
    /// Takes the changes of one more leaf, if what the guards said before allows each of them. The rules of a leaf by itself
    /// are taken as kept: a [`crate::Line`] keeps them.
    ///
    /// # Errors
    /// Says which guard must not change so; then nothing is taken.
    pub fn admit(&mut self, leaf: &Leaf) -> Result<(), String> {
        self.admit_after(Past::Known, leaf)
    }

    pub(crate) fn admit_after(&mut self, past: Past, leaf: &Leaf) -> Result<(), String> {
        for change in &leaf.guards {
            self.judge(past, change, leaf.at)?;
        }
        self.one_current_kek(leaf)?;
        self.rewrap(leaf)?;
        self.take(leaf);
        Ok(())
    }

    fn judge(&self, past: Past, change: &GuardChange, at: At) -> Result<(), String> {
        let Some(to) = &change.to else { return Err(format!("{} is taken away", change.id)) };
        let id = &change.id;
        match change.guard {
            Guard::Share => self.share(past, id, to),
            Guard::Kek => self.kek(change),
            Guard::Backup => self.backup(change),
            Guard::Epoch => self.epoch(change),
            Guard::Token => self.token(id, at),
            Guard::Session => self.session(id, to),
            Guard::Bundle => self.bundle(to),
            Guard::Approval if self.approvals.contains_key(id) => {
                Err(format!("the approval {id} was used before; it counts once"))
            }
            Guard::Primes => self.pair(id, to),
            Guard::Approval | Guard::AuxInfo | Guard::Spend | Guard::Peer | Guard::Snapshot => Ok(()),
        }
    }

    fn share(&self, past: Past, id: &Text, to: &Text) -> Result<(), String> {
        let read = |state: &Text| state.as_str().parse::<ShareState>().map_err(|error| error.to_string());
        let from = self.shares.get(id).map(read).transpose()?;
        if from.is_none() && past == Past::Unseen {
            return Ok(());
        }
        let from_word = from.map_or("nothing", ShareState::as_str);
        let goes = || format!("the share {id} goes from {from_word} to {to}, which no share does");
        Transition::between(from, read(to)?).map(|_| ()).ok_or_else(goes)
    }

    fn kek(&self, change: &GuardChange) -> Result<(), String> {
        let id = &change.id;
        let before = self.keks.get(id).and_then(|state| state.as_str().parse::<KekState>().ok());
        let to = kek_state(change).ok_or("a KEK has no such state")?;
        if !to.follows(before) {
            let before = before.map_or("nothing", KekState::as_str);
            return Err(format!("the KEK {id} goes from {before} to {to}, which no KEK does"));
        }
        let newest = self.keks.keys().filter_map(|epoch| epoch.as_str().parse::<u64>().ok()).max();
        if to == KekState::Made && newest.is_some_and(|newest| kek_epoch(change) <= Some(newest)) {
            return Err(format!("the KEK {id} is made after a KEK of its epoch or a later one"));
        }
        Ok(())
    }

    /// What is sealed is wrapped by one KEK, so the one before retires in the leaf that makes another current.
    fn one_current_kek(&self, leaf: &Leaf) -> Result<(), String> {
        let changed = |epoch: &Text| leaf.guards.iter().any(|c| c.guard == Guard::Kek && c.id == *epoch);
        let current = |to: &Text| to.as_str() == KekState::Current.as_str();
        let stay = self.keks.iter().filter(|(epoch, to)| current(to) && !changed(epoch)).count();
        let become_so = leaf.guards.iter().filter(|c| c.guard == Guard::Kek && c.to.as_ref().is_some_and(current));
        let become_so = become_so.count();
        if become_so > 0 && stay + become_so > 1 {
            return Err("two KEKs are current at once".into());
        }
        Ok(())
    }

    /// One re-wrapping runs at a time, and one that was cut off is followed by a new one.
    fn rewrap(&self, leaf: &Leaf) -> Result<(), String> {
        let Some(Rewrap::Ended { begun, .. }) = &leaf.rewrap else { return Ok(()) };
        if self.rewrapping.as_ref().is_some_and(|open| open.seq == *begun) {
            return Ok(());
        }
        Err(format!("the re-wrapping of leaf {begun} ends, and does not run"))
    }

    fn epoch(&self, change: &GuardChange) -> Result<(), String> {
        let before = self.epochs.get(&change.id).and_then(|epoch| epoch.as_str().parse::<u64>().ok());
        if entered(change) > before {
            return Ok(());
        }
        Err(format!(
            "epoch {} of the key {} is entered after {}",
            entered(change).unwrap_or(0),
            change.id,
            before.unwrap_or(0)
        ))
    }

    /// A backup is one file: what is verified or restored is what was made.
    fn backup(&self, change: &GuardChange) -> Result<(), String> {
        let id = &change.id;
        let (to, digest) = backup_stage(change).ok_or("a backup has no such state")?;
        let before = self.backups.get(id).and_then(|before| stage(before.as_str()));
        if before.is_some_and(|(_, known)| known != digest) {
            return Err(format!("the backup {id} is another file than before"));
        }
        let fits = match (before.map(|(stage, _)| stage), to) {
            // A backup of another host, or of a log before this one, may be verified here, and is restored here.
            (None, _) | (Some(_), Stage::Verified | Stage::Restored) => true,
            (Some(_), Stage::Made) => false,
        };
        if fits { Ok(()) } else { Err(format!("the backup {id} is made twice")) }
    }

    /// A token is remembered for as long as the store must remember it; its own life is far shorter.
    fn token(&self, id: &Text, at: At) -> Result<(), String> {
        let recent = |used: &At| at.timestamp().duration_since(used.timestamp()) <= TOKENS_KEPT;
        match self.tokens.get(id).filter(|used| recent(used)) {
            Some(used) => Err(format!("the token {id} was used before, at {used}")),
            None => Ok(()),
        }
    }

    fn session(&self, id: &Text, to: &Text) -> Result<(), String> {
        match (self.sessions.get(id).map(|since| since.state.as_str()), to.as_str()) {
            (None, "accepted" | "failed") | (Some("accepted"), "completed" | "failed" | "expired") => Ok(()),
            (None, to) => Err(format!("the session {id} is {to} and was never begun")),
            (Some(from), to) => Err(format!("the session {id} goes from {from} to {to}, which no session does")),
        }
    }

    /// The same bundle is loaded again at each start; another has a higher version, whatever its name.
    fn bundle(&self, to: &Text) -> Result<(), String> {
        let version = |text: &Text| bundle_version(text.as_str());
        for known in self.bundle.values().filter(|known| *known != to) {
            if version(to) <= version(known) {
                return Err(format!("the policy bundle goes from {known} to {to}; its version must rise"));
            }
        }
        Ok(())
    }

    fn pair(&self, id: &Text, to: &Text) -> Result<(), String> {
        match (self.primes.contains(id), to.as_str()) {
            (false, "stored") | (true, "taken") => Ok(()),
            (true, _) => Err(format!("the primes {id} are stored, and were before")),
            (false, _) => Err(format!("the primes {id} are taken, and do not lie ready")),
        }
    }
}
