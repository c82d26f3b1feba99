//! What keys have spent: the ledger behind `context.spent`, `context.count` and `context.fees`.
//!
//! A request to sign is entered before it is judged ([`Bundle::reserve`](crate::Bundle::reserve)), so that requests that
//! race for the last unit of a limit see each other. It is released if policy refuses it, or later if provably nothing left
//! this party; otherwise it stays. The ledger is in memory; the appliance keeps one row for each [`Spending`].
//!
//! # Security
//! The ledger never looks back in time: an entry is stamped with the wall clock or the newest stamp, whichever is later, so
//! a clock that is set back frees nothing and hides nothing.

use std::collections::BTreeMap;
use std::fmt;

use alloy_primitives::U256;
use casemate_wire::{Digest32, PublicKey, SessionId};
use serde::{Deserialize, Serialize};

use crate::full::Full;
use crate::intent::{AssetRef, Chain};
use crate::tx::asset_id;

/// The longest window, in seconds: what is older cannot count any more.
pub const WEEK: i64 = 7 * 24 * 3600;

/// An asset, whatever the bundle calls it: `eip155:<chain id>/native`, `eip155:<chain id>/<0x, contract>` or
/// `bitcoin/native`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AssetId(String);

impl AssetId {
    /// The id of an asset of a chain.
    pub(crate) fn of(chain: Chain, asset: AssetRef) -> Self {
        Self(asset_id(chain, asset))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AssetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An amount that leaves a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charge {
    /// Of what.
    pub asset: AssetId,
    /// How much, in base units.
    #[serde(with = "decimal_text")]
    pub amount: U256,
    /// Whether it is the most that can be paid in fees.
    pub fee: bool,
}

/// One request to sign, as the ledger counts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spending {
    /// The session in which it is signed.
    pub session: SessionId,
    /// The key, without derivation.
    pub key: PublicKey,
    /// The key's label, by which it may be in key groups.
    pub label: Option<String>,
    /// What is signed: requests for the same key and transaction count once.
    pub transaction: Digest32,
    /// When it counts from, Unix seconds.
    pub at: i64,
    /// What leaves.
    pub charges: Vec<Charge>,
}

/// A session that is entered already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("session {0} has been counted in the spend windows already; ask again in a new session")]
pub struct AlreadyReserved(pub SessionId);

/// All that keys of this party have spent in the last week.
#[derive(Debug, Default)]
pub struct Ledger {
    keys: BTreeMap<PublicKey, BTreeMap<SessionId, Spending>>,
    sessions: BTreeMap<SessionId, PublicKey>,
    /// The newest stamp ever given, Unix seconds. It does not fall when that entry is released.
    newest: Option<i64>,
    /// From this moment on nothing before it is known, Unix seconds.
    full_since: Option<i64>,
    /// The same for single keys.
    full_keys: BTreeMap<PublicKey, i64>,
}

impl Ledger {
    /// Enters what was kept from an earlier run, with its own stamp.
    ///
    /// # Errors
    /// [`AlreadyReserved`] if its session is there already.
    pub fn restore(&mut self, spending: Spending) -> Result<(), AlreadyReserved> {
        if self.sessions.contains_key(&spending.session) {
            return Err(AlreadyReserved(spending.session));
        }
        self.newest = self.newest.max(Some(spending.at));
        self.sessions.insert(spending.session.clone(), spending.key);
        self.keys.entry(spending.key).or_default().insert(spending.session.clone(), spending);
        Ok(())
    }

    /// Counts every window as full until it has passed since `moment` (Unix seconds): what was spent before is not known.
    /// A later moment takes the place of an earlier one, never the other way round.
    ///
    /// # Security
    /// The time is the ledger's own, which never goes back: a clock that is set back leaves the windows full for longer.
    pub fn fill_since(&mut self, moment: i64) {
        self.full_since = self.full_since.max(Some(moment));
        self.newest = self.newest.max(Some(moment));
    }

    /// Counts every window as full until it has passed since now, by the ledger's own time: of what lies in the past and in the
    /// future of `wall` (Unix seconds) some may have been forgotten while the clock was wrong.
    pub fn fill_from(&mut self, wall: i64) {
        self.fill_since(self.now(wall));
    }

    /// Counts the windows of one key as full until they have passed since `moment` (Unix seconds): the key came to this party
    /// then, and what it had spent before is not known.
    pub fn fill_key_since(&mut self, key: PublicKey, moment: i64) {
        let since = self.full_keys.entry(key).or_insert(moment);
        *since = moment.max(*since);
        self.newest = self.newest.max(Some(moment));
    }

    /// Whether a session is entered just so, whenever that was, or not at all.
    pub fn agrees(&self, spending: &Spending) -> bool {
        let Some(key) = self.sessions.get(&spending.session) else { return true };
        let known = self.keys.get(key).and_then(|entries| entries.get(&spending.session));
        known.is_some_and(|known| *known == Spending { at: known.at, ..spending.clone() })
    }

    /// What a key has spent in the longest window before `wall` (Unix seconds), the oldest first: for a party that joins its
    /// committee. `None` while a window counts as full: then not all is known.
    pub fn of_key(&self, key: &PublicKey, wall: i64) -> Option<Vec<Spending>> {
        if self.full(key, self.now(wall)).is_some() {
            return None;
        }
        let counts = self.now(wall).saturating_sub(WEEK);
        let entries = self.keys.get(key).into_iter().flat_map(BTreeMap::values);
        let mut recent: Vec<Spending> = entries.filter(|entry| entry.at > counts).cloned().collect();
        recent.sort_by(|a, b| (a.at, &a.session).cmp(&(b.at, &b.session)));
        Some(recent)
    }

    /// When the windows of a key count as full from, if they do.
    pub(crate) fn full(&self, key: &PublicKey, now: i64) -> Option<Full> {
        Full::at(self.full_since.max(self.full_keys.get(key).copied())?, now)
    }

    /// Enters a request, stamped with `wall` (Unix seconds) or the newest stamp, whichever is later; returns it as entered.
    pub(crate) fn enter(&mut self, spending: Spending, wall: i64) -> Result<Spending, AlreadyReserved> {
        let stamped = Spending { at: self.now(wall), ..spending };
        self.restore(stamped.clone())?;
        Ok(stamped)
    }

    /// The time that windows end at.
    pub(crate) fn now(&self, wall: i64) -> i64 {
        self.newest.map_or(wall, |newest| newest.max(wall))
    }

    /// Takes a request out: policy refused it, or provably nothing of its signature left this party. Returns it, if it
    /// was there.
    pub fn release(&mut self, session: &SessionId) -> Option<Spending> {
        let key = self.sessions.remove(session)?;
        let entries = self.keys.get_mut(&key)?;
        let released = entries.remove(session);
        if entries.is_empty() {
            self.keys.remove(&key);
        }
        released
    }

    /// Takes out what no window can hold any more, and returns the sessions, whose rows can go too. The newest stamp says
    /// what is old, not the clock: a clock that is wrong for a while deletes nothing.
    pub fn prune(&mut self) -> Vec<SessionId> {
        let Some(newest) = self.newest else { return Vec::new() };
        let old: Vec<SessionId> = self
            .entries()
            .filter(|entry| entry.at <= newest.saturating_sub(WEEK))
            .map(|entry| entry.session.clone())
            .collect();
        old.into_iter().filter(|session| self.release(session).is_some()).collect()
    }

    /// Everything that is entered.
    pub fn entries(&self) -> impl Iterator<Item = &Spending> {
        self.keys.values().flat_map(BTreeMap::values)
    }

    /// What each key has entered.
    pub(crate) fn by_key(&self) -> impl Iterator<Item = (&PublicKey, impl Iterator<Item = &Spending>)> {
        self.keys.iter().map(|(key, entries)| (key, entries.values()))
    }
}

/// Amounts as decimal text, which canonical JSON can hold exactly.
mod decimal_text {
    use super::U256;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(amount: &U256, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(amount)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<U256, D::Error> {
        let text = String::deserialize(from)?;
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let amount = if digits { U256::from_str_radix(&text, 10).ok() } else { None };
        amount.ok_or_else(|| de::Error::custom(format!("{text:?} is not an amount in base units")))
    }
}
