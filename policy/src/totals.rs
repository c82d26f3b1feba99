//! Sums over rolling windows: from the ledger to what one request's policies see.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::U256;
use casemate_wire::{Digest32, PublicKey, SessionId};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::amount::Decimal;
use crate::bundle::{Bundle, Rules};
use crate::counters::{Counters, Windows};
use crate::full::{Full, LENGTHS};
use crate::intent::{AssetRef, Chain, Effect, Nature, Understood};
use crate::request::{KeyFacts, Resource};
use crate::spend::{AlreadyReserved, AssetId, Charge, Ledger, Spending};
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
    /// The windows that count as full, whatever was added up.
    full: Option<Full>,
}

impl Totals {
    /// The windows that count as full.
    pub(crate) fn full(&self) -> Option<Full> {
        self.full
    }

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
    let transaction = match signing.understood {
        Some(understood) => transaction(understood, signing.derivation_path),
        None => at_path(signing.message_hash, signing.derivation_path),
    };
    let spending = Spending {
        session: signing.session.clone(),
        key: signing.key,
        label: signing.label.map(str::to_owned),
        transaction,
        at: 0,
        charges: signing.understood.map(|understood| charges(rules, understood)).unwrap_or_default(),
    };
    let spending = ledger.enter(spending, wall.as_second())?;
    let sums = Sums::of(rules, ledger, &spending, signing.understood);
    let mut counters: Vec<Counters> = match signing.understood {
        Some(understood) => understood.effects().map(|effect| sums.counters(rules, effect)).collect(),
        None => vec![sums.blind()],
    };
    let full = ledger.full(&spending.key, spending.at);
    if let Some(full) = full {
        for counters in &mut counters {
            *counters = full.fill(*counters);
        }
    }
    let totals =
        Totals { bundle: rules.digest, key: spending.key, label: spending.label.clone(), transaction, counters, full };
    Ok(Reserved { spending, totals })
}

/// What policies see beside each effect if nothing was signed before: for test cases.
pub(crate) fn alone(rules: &Rules, understood: &Understood) -> Vec<Counters> {
    let assets = Assets::of(rules, Some(understood));
    let mut key = Sum::default();
    key.charge(&charges(rules, understood), Windows::all(true), &assets);
    let sums = Sums { assets, key, groups: Vec::new() };
    understood.effects().map(|effect| sums.counters(rules, effect)).collect()
}

/// What makes one unsigned transaction. A PSBT's id fixes its inputs and so who pays. A hash does not: children of one key
/// may each sign the same hash, and each then spends from an account of its own.
fn transaction(understood: &Understood, derivation_path: Option<&str>) -> Digest32 {
    let id = understood.transaction_id();
    if id == understood.digest() { at_path(id, derivation_path) } else { id }
}

/// A hash that a child of the key signs.
fn at_path(hash: Digest32, derivation_path: Option<&str>) -> Digest32 {
    match derivation_path {
        Some(path) => Digest32(Sha256::new().chain_update(hash.0).chain_update(path).finalize().into()),
        None => hash,
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

/// The assets whose sums are asked for; [`Sum`]s stand in their order.
struct Assets(Vec<AssetId>);

impl Assets {
    fn of(rules: &Rules, understood: Option<&Understood>) -> Self {
        let mut ids: Vec<AssetId> = understood
            .into_iter()
            .flat_map(Understood::effects)
            .flat_map(|effect| {
                let settled = Settled::of(effect, &rules.tables.assets);
                [settled.asset, AssetRef::Native].map(|asset| AssetId::of(effect.chain, asset))
            })
            .collect();
        ids.sort();
        ids.dedup();
        Self(ids)
    }

    fn place(&self, asset: &AssetId) -> Option<usize> {
        self.0.binary_search(asset).ok()
    }
}

/// Exact sums of one key, or of a group of keys.
#[derive(Debug, Clone, Default)]
struct Sum {
    /// By the asset's place, where anything was spent: all that was, and the fees among it. A request may ask for many
    /// assets, of which each of the many entries has one or two.
    spent: BTreeMap<usize, (Windows<U256>, Windows<U256>)>,
    count: Windows<i64>,
}

/// The sums that a request's policies see.
struct Sums {
    assets: Assets,
    key: Sum,
    /// One for each of the key's groups.
    groups: Vec<Sum>,
}

impl Sums {
    /// Adds up what stands in the ledger beside `own`, which is in it.
    fn of(rules: &Rules, ledger: &Ledger, own: &Spending, understood: Option<&Understood>) -> Self {
        let assets = Assets::of(rules, understood);
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
            let sum = Sum::of_key(entries, own.at, &assets);
            for group in shared {
                if let Some(group) = groups.get_mut(group) {
                    group.add(&sum);
                }
            }
            if *of == own.key {
                key = sum;
            }
        }
        Self { assets, key, groups: groups.into_values().collect() }
    }

    /// What policies see beside one effect.
    fn counters(&self, rules: &Rules, effect: &Effect) -> Counters {
        let settled = Settled::of(effect, &rules.tables.assets);
        let decimals = |of: AssetRef| rules.tables.assets.find(effect.chain, of).map(|known| known.decimals);
        let at = |sum: &Sum, asset: AssetRef| {
            let place = self.assets.place(&AssetId::of(effect.chain, asset));
            place.and_then(|place| sum.spent.get(&place)).copied().unwrap_or_default()
        };
        let spent = |sum: &Sum| whole(at(sum, settled.asset).0, decimals(settled.asset));
        let own = spent(&self.key);
        Counters {
            spent: own,
            group_spent: self.groups.iter().map(spent).fold(own, Windows::max),
            fees: whole(at(&self.key, AssetRef::Native).1, decimals(AssetRef::Native)),
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
    fn of_key<'a>(entries: impl Iterator<Item = &'a Spending>, now: i64, assets: &Assets) -> Self {
        let windows = |entry: &Spending| LENGTHS.map(|seconds| entry.at > now.saturating_sub(seconds));
        let mut counting: Vec<&Spending> = entries.filter(|entry| windows(entry).week).collect();
        counting.sort_unstable_by_key(|entry| entry.transaction);
        let mut total = Self::default();
        for requests in counting.chunk_by(|one, next| one.transaction == next.transaction) {
            if let [only] = requests {
                total.charge(&only.charges, windows(only), assets);
                continue;
            }
            let mut most = Self::default();
            for request in requests {
                let mut sum = Self::default();
                sum.charge(&request.charges, windows(request), assets);
                most.join(&sum, Windows::max, Windows::max);
            }
            total.add(&most);
        }
        total
    }

    /// Adds what one request moves, in the windows that it stands in.
    fn charge(&mut self, charges: &[Charge], windows: Windows<bool>, assets: &Assets) {
        self.count = self.count.zip(windows.map(i64::from), i64::saturating_add);
        for charge in charges {
            let amount = windows.map(|within| if within { charge.amount } else { U256::ZERO });
            if let Some(place) = assets.place(&charge.asset) {
                let (spent, fees) = self.spent.entry(place).or_default();
                *spent = spent.zip(amount, U256::saturating_add);
                if charge.fee {
                    *fees = fees.zip(amount, U256::saturating_add);
                }
            }
        }
    }

    fn add(&mut self, other: &Self) {
        let amounts = |one: Windows<U256>, other| one.zip(other, U256::saturating_add);
        self.join(other, amounts, |one, other| one.zip(other, i64::saturating_add));
    }

    fn join(
        &mut self,
        other: &Self,
        amounts: impl Fn(Windows<U256>, Windows<U256>) -> Windows<U256>,
        counts: impl Fn(Windows<i64>, Windows<i64>) -> Windows<i64>,
    ) {
        for (place, theirs) in &other.spent {
            let mine = self.spent.entry(*place).or_default();
            *mine = (amounts(mine.0, theirs.0), amounts(mine.1, theirs.1));
        }
        self.count = counts(self.count, other.count);
    }
}

/// Whole units, rounded up once. Nothing is nothing in any unit; of an unknown asset anything is the largest decimal.
fn whole(amounts: Windows<U256>, decimals: Option<u8>) -> Windows<Decimal> {
    amounts.map(|base| match decimals {
        _ if base.is_zero() => Decimal::ZERO,
        Some(decimals) => Decimal::from_base_units(base, decimals),
        None => Decimal::MAX,
    })
}

#[cfg(test)]
mod tests;
