//! Sums over rolling windows: from the ledger to what one request's policies see.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use alloy_primitives::U256;
use casemate_wire::{Digest32, PublicKey, SessionId};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::amount::Decimal;
use crate::bundle::{Bundle, Rules};
use crate::counters::{Counters, Windows};
use crate::intent::{AssetRef, Chain, Effect, Nature, Understood};
use crate::request::{KeyFacts, Resource};
use crate::spend::{AlreadyReserved, AssetId, Charge, Ledger, Spending, WEEK};
use crate::tx::Settled;

/// A request to sign, for the ledger.
#[derive(Debug, Clone)]
pub struct Signing<'a> {
    /// The session in which it is signed.
    pub session: SessionId,
    /// The key, without derivation.
    pub key: PublicKey,
    /// The key's label.
    pub label: Option<&'a str>,
    /// The BIP-32 path below the key.
    pub derivation_path: Option<&'a str>,
    /// The hash that is signed.
    pub message_hash: Digest32,
    /// The decoded intent; `None` is blind signing.
    pub understood: Option<&'a Understood>,
}

/// A request that stands in the ledger. Dropping this keeps it there, which errs towards refusal; [`Ledger::release`] takes
/// it out.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a request that policy refuses must be released from the ledger"]
pub struct Reserved {
    spending: Spending,
    totals: Totals,
}

impl Reserved {
    /// What to keep in the transaction of the audit intent.
    pub fn spending(&self) -> &Spending {
        &self.spending
    }

    /// What policies see: for [`Request::spent`](crate::Request::spent).
    pub fn totals(&self) -> &Totals {
        &self.totals
    }
}

/// What policies see of the ledger for one request, which is included. Only [`Bundle::reserve`] makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct Totals {
    bundle: Digest32,
    key: PublicKey,
    label: Option<String>,
    transaction: Digest32,
    /// One for each effect, in their order; a single one for blind signing.
    counters: Vec<Counters>,
}

impl Totals {
    /// The counters of each effect, if these are the totals of that very request under that bundle.
    pub(crate) fn of_request(
        &self,
        rules: &Rules,
        resource: &Resource,
        understood: Option<&Understood>,
        derivation_path: Option<&str>,
    ) -> Option<&[Counters]> {
        let Resource::Key(KeyFacts { public_key, slot, .. }) = resource else { return None };
        let same_message =
            understood.is_none_or(|understood| transaction(understood, derivation_path) == self.transaction);
        let effects = understood.map_or(1, |understood| understood.effects().count());
        let fits = self.bundle == rules.digest
            && self.key == *public_key
            && self.label == slot.label
            && same_message
            && self.counters.len() == effects;
        fits.then_some(&self.counters)
    }
}

impl Bundle {
    /// What an intent moves out of its key, in base units. Allowances and other empowerments move nothing; the maximum fee
    /// always counts.
    pub fn charges(&self, understood: &Understood) -> Vec<Charge> {
        charges(self.rules(), understood)
    }

    /// Enters a request into the ledger at `wall`, the appliance's wall clock, and adds up what its policies see. Both happen
    /// in one step, under whatever lock guards the ledger: of requests that race for the last unit, each sees those before it.
    ///
    /// The caller judges the request with [`Reserved::totals`], releases it if it is refused, and otherwise stores
    /// [`Reserved::spending`] in the transaction of the audit intent.
    ///
    /// # Errors
    /// [`AlreadyReserved`] if the session is in the ledger.
    pub fn reserve(
        &self,
        ledger: &mut Ledger,
        signing: &Signing<'_>,
        wall: Timestamp,
    ) -> Result<Reserved, AlreadyReserved> {
        reserve(self.rules(), ledger, signing, wall)
    }
}

pub(crate) fn reserve(
    rules: &Rules,
    ledger: &mut Ledger,
    signing: &Signing<'_>,
    wall: Timestamp,
) -> Result<Reserved, AlreadyReserved> {
    let transaction =
        signing.understood.map_or(signing.message_hash, |understood| transaction(understood, signing.derivation_path));
    let spending = Spending {
        session: signing.session.clone(),
        key: signing.key,
        label: signing.label.map(str::to_owned),
        transaction,
        at: 0,
        charges: signing.understood.map(|understood| charges(rules, understood)).unwrap_or_default(),
    };
    let spending = ledger.enter(spending, wall.as_second())?;
    let sums = Sums::of(rules, ledger, &spending);
    let counters = match signing.understood {
        Some(understood) => understood.effects().map(|effect| sums.counters(rules, effect)).collect(),
        None => vec![sums.blind()],
    };
    let totals =
        Totals { bundle: rules.digest, key: spending.key, label: spending.label.clone(), transaction, counters };
    Ok(Reserved { spending, totals })
}

/// What policies see beside each effect if nothing was signed before: for test cases.
pub(crate) fn alone(rules: &Rules, understood: &Understood) -> Vec<Counters> {
    let own = Sum { count: Windows::all(1), ..Sum::of_charges(&charges(rules, understood), Windows::all(true)) };
    let sums = Sums { key: own, groups: Vec::new() };
    understood.effects().map(|effect| sums.counters(rules, effect)).collect()
}

/// What makes one unsigned transaction. A PSBT's id fixes its inputs and so who pays. A hash does not: children of one key
/// may each sign the same hash, and each then spends from an account of its own.
fn transaction(understood: &Understood, derivation_path: Option<&str>) -> Digest32 {
    let id = understood.transaction_id();
    match derivation_path {
        Some(path) if id == understood.digest() => {
            Digest32(Sha256::new().chain_update(id.0).chain_update(path).finalize().into())
        }
        _ => id,
    }
}

fn charges(rules: &Rules, understood: &Understood) -> Vec<Charge> {
    let mut charges = Vec::new();
    let mut fees: BTreeMap<Chain, U256> = BTreeMap::new();
    for effect in understood.effects() {
        let settled = Settled::of(effect, &rules.tables.assets);
        if settled.kind.nature() == Nature::MovesValue {
            charges.push(Charge {
                asset: AssetId::of(effect.chain, settled.asset),
                amount: settled.charged(effect.chain, &rules.tables.assets),
                fee: false,
            });
        }
        // Every effect of a transaction states its whole fee, which is paid once.
        let fee = fees.entry(effect.chain).or_default();
        *fee = (*fee).max(effect.fee);
    }
    let fees = fees.into_iter().map(|(chain, amount)| Charge {
        asset: AssetId::of(chain, AssetRef::Native),
        amount,
        fee: true,
    });
    charges.extend(fees);
    charges.retain(|charge| !charge.amount.is_zero());
    charges
}

/// Exact sums of one key, or of a group of keys.
#[derive(Debug, Clone, Default)]
struct Sum {
    spent: BTreeMap<AssetId, Windows<U256>>,
    fees: BTreeMap<AssetId, Windows<U256>>,
    count: Windows<i64>,
}

/// The sums that a request's policies see.
struct Sums {
    key: Sum,
    /// One for each of the key's groups.
    groups: Vec<Sum>,
}

impl Sums {
    /// Adds up what stands in the ledger beside `own`, which is in it.
    fn of(rules: &Rules, ledger: &Ledger, own: &Spending) -> Self {
        let groups_of = |label: Option<&str>, key: &PublicKey| rules.tables.group_names(label, Some(&key.to_string()));
        let own_groups: BTreeSet<&str> = groups_of(own.label.as_deref(), &own.key);
        let mut key = Sum::default();
        let mut groups: BTreeMap<&str, Sum> = own_groups.iter().map(|name| (*name, Sum::default())).collect();
        for (of, entries) in ledger.by_key() {
            let mut entries = entries.peekable();
            let label = entries.peek().and_then(|entry| entry.label.as_deref());
            let shared: Vec<&str> = if *of == own.key {
                own_groups.iter().copied().collect()
            } else {
                groups_of(label, of).intersection(&own_groups).copied().collect()
            };
            if *of != own.key && shared.is_empty() {
                continue;
            }
            let sum = Sum::of_key(entries, own.at);
            for group in shared {
                groups.entry(group).or_default().add(&sum);
            }
            if *of == own.key {
                key = sum;
            }
        }
        Self { key, groups: groups.into_values().collect() }
    }

    /// What policies see beside one effect.
    fn counters(&self, rules: &Rules, effect: &Effect) -> Counters {
        let settled = Settled::of(effect, &rules.tables.assets);
        let asset = AssetId::of(effect.chain, settled.asset);
        let native = AssetId::of(effect.chain, AssetRef::Native);
        let decimals = |of: AssetRef| rules.tables.assets.find(effect.chain, of).map(|known| known.decimals);
        let (asset_decimals, native_decimals) = (decimals(settled.asset), decimals(AssetRef::Native));
        let spent = |sum: &Sum| whole(&sum.spent, &asset, asset_decimals);
        let own = spent(&self.key);
        Counters {
            spent: own,
            group_spent: self.groups.iter().map(spent).fold(own, Windows::max),
            fees: whole(&self.key.fees, &native, native_decimals),
            ..self.counts()
        }
    }

    /// What policies see beside a hash that nobody decoded.
    fn blind(&self) -> Counters {
        let Counters { count, group_count, .. } = self.counts();
        Counters { count, group_count, ..Counters::BLIND }
    }

    fn counts(&self) -> Counters {
        let count = self.key.count;
        let group_count = self.groups.iter().map(|sum| sum.count).fold(count, Windows::max);
        Counters { count, group_count, ..Counters::NOTHING }
    }
}

impl Sum {
    /// Adds up one key's entries at `now`. In each window a transaction counts once: each asset with the most that any
    /// of its requests in that window moved.
    fn of_key<'a>(entries: impl Iterator<Item = &'a Spending>, now: i64) -> Self {
        let mut transactions: HashMap<Digest32, Sum> = HashMap::new();
        for entry in entries.filter(|entry| entry.at > now.saturating_sub(WEEK)) {
            let seen = transactions.entry(entry.transaction).or_default();
            seen.widen(&Self::of_entry(entry, now));
        }
        let mut sum = Self::default();
        for transaction in transactions.values() {
            sum.add(transaction);
        }
        sum
    }

    fn of_entry(entry: &Spending, now: i64) -> Self {
        let within = |seconds: i64| entry.at > now.saturating_sub(seconds);
        let windows = Windows { hour: within(3600), day: within(24 * 3600), week: within(WEEK) };
        Self { count: windows.map(i64::from), ..Self::of_charges(&entry.charges, windows) }
    }

    fn of_charges(charges: &[Charge], windows: Windows<bool>) -> Self {
        let mut sum = Self::default();
        for charge in charges {
            let amount = windows.map(|within| if within { charge.amount } else { U256::ZERO });
            add_to(&mut sum.spent, &charge.asset, amount);
            if charge.fee {
                add_to(&mut sum.fees, &charge.asset, amount);
            }
        }
        sum
    }

    fn add(&mut self, other: &Self) {
        for (asset, amounts) in &other.spent {
            add_to(&mut self.spent, asset, *amounts);
        }
        for (asset, amounts) in &other.fees {
            add_to(&mut self.fees, asset, *amounts);
        }
        self.count = self.count.zip(other.count, i64::saturating_add);
    }

    fn widen(&mut self, other: &Self) {
        for (mine, theirs) in [(&mut self.spent, &other.spent), (&mut self.fees, &other.fees)] {
            for (asset, amounts) in theirs {
                let widest = mine.entry(asset.clone()).or_default();
                *widest = widest.max(*amounts);
            }
        }
        self.count = self.count.max(other.count);
    }
}

fn add_to(sums: &mut BTreeMap<AssetId, Windows<U256>>, asset: &AssetId, amounts: Windows<U256>) {
    let sum = sums.entry(asset.clone()).or_default();
    *sum = sum.zip(amounts, U256::saturating_add);
}

/// Whole units, rounded up once. Nothing is nothing in any unit; of an unknown asset anything is the largest decimal.
fn whole(sums: &BTreeMap<AssetId, Windows<U256>>, asset: &AssetId, decimals: Option<u8>) -> Windows<Decimal> {
    sums.get(asset).copied().unwrap_or_default().map(|base: U256| match decimals {
        _ if base.is_zero() => Decimal::ZERO,
        Some(decimals) => Decimal::from_base_units(base, decimals),
        None => Decimal::MAX,
    })
}

#[cfg(test)]
mod tests;
