//! Enumerating the attacks on the messages of recorded runs, and the man in the middle who carries one out.

use std::collections::BTreeMap;

use cggmp21::rug::Integer;

use super::alter::{alone, alter};
use crate::support::alter::{Alteration, Path, leaves, name, parse};
use crate::support::network::Copy;
use crate::support::tamper::{Attack, Source, Victims};

/// Two honest runs of the same parties.
pub struct Recordings {
    /// Tells the messages and their fields.
    pub sample: Vec<Copy>,
    /// What is replayed.
    pub earlier: Vec<Copy>,
    /// The sender's modulus.
    pub modulus: Integer,
}

/// Which attacks are enumerated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breadth {
    /// Every leaf once; the alterations take turns from leaf to leaf.
    EveryLeaf,
    /// Every alteration of every kind of leaf, to one victim and to all: of equal elements of a list, the first.
    EveryAlteration,
}

impl Recordings {
    /// Attacks on the messages from `sender` to `victim`.
    pub fn attacks(&self, sender: u16, victim: u16, breadth: Breadth) -> Vec<Attack> {
        let mut attacks = Vec::new();
        let mut turns: BTreeMap<String, usize> = BTreeMap::new();
        for copy in self.sample.iter().filter(|copy| copy.from == sender && copy.to == victim) {
            for path in leaves(&parse(&copy.body)) {
                let candidates = self.on_leaf(copy, &path, victim);
                match breadth {
                    Breadth::EveryLeaf => {
                        let field = candidates.first().map(kind_of_field).unwrap_or_default();
                        let turn = turns.entry(field).or_default();
                        attacks.extend(candidates.into_iter().cycle().nth(*turn));
                        *turn += 1;
                    }
                    Breadth::EveryAlteration if path.iter().skip(2).step_by(2).all(|index| *index == 0) => {
                        attacks.extend(candidates);
                    }
                    Breadth::EveryAlteration => {}
                }
            }
        }
        attacks
    }

    fn on_leaf(&self, copy: &Copy, path: &Path, victim: u16) -> Vec<Attack> {
        let same_place = |other: &&Copy| other.round == copy.round && other.broadcast == copy.broadcast;
        let partner = self.sample.iter().filter(same_place).find(|other| other.from != copy.from);
        let earlier = self.earlier.iter().filter(same_place).find(|old| old.from == copy.from && old.to == copy.to);
        let own = alone(&self.modulus).map(|alteration| (alteration, Source::None, None));
        let foreign = [(Source::OtherParty, partner), (Source::OtherSession, earlier)]
            .map(|(source, other)| (Alteration::Replace, source, other));
        let mut attacks = Vec::new();
        for (alteration, source, other) in own.into_iter().chain(foreign) {
            let other = other.map(|copy| copy.body.as_slice());
            if alter(&copy.body, path, &alteration, other, &self.modulus).is_none() {
                continue;
            }
            for victims in [Some(Victims::One(victim)), copy.broadcast.then_some(Victims::All)].into_iter().flatten() {
                attacks.push(Attack {
                    sender: copy.from,
                    victims,
                    round: copy.round,
                    broadcast: copy.broadcast,
                    path: path.clone(),
                    alteration: alteration.clone(),
                    source,
                    field: name(&parse(&copy.body), path),
                });
            }
        }
        attacks
    }
}

/// A field's name without list positions, and its message.
pub fn kind_of_field(attack: &Attack) -> String {
    let name: Vec<&str> = attack.field.split('.').filter(|part| part.parse::<usize>().is_err()).collect();
    format!("{} {} {}", attack.round, attack.broadcast, name.join("."))
}

/// The man in the middle who carries out one attack.
pub struct Middle<'a> {
    attack: &'a Attack,
    recordings: &'a Recordings,
    held: Vec<Copy>,
    partner: Option<Vec<u8>>,
    /// Whether the alteration has changed anything yet.
    pub applied: bool,
}

impl<'a> Middle<'a> {
    pub fn new(attack: &'a Attack, recordings: &'a Recordings) -> Self {
        Self { attack, recordings, held: Vec::new(), partner: None, applied: false }
    }

    /// What to deliver instead of `copy`. A swap waits for the other party's message.
    pub fn pass(&mut self, copy: Copy) -> Vec<Copy> {
        let Attack { sender, round, broadcast, victims, source, .. } = self.attack;
        let same_place = copy.round == *round && copy.broadcast == *broadcast;
        let target = copy.is(*sender, *round, *broadcast) && [Victims::All, Victims::One(copy.to)].contains(victims);
        if target && *source == Source::OtherParty && self.partner.is_none() {
            self.held.push(copy);
            return Vec::new();
        }
        if target {
            return vec![self.altered(copy)];
        }
        if same_place && copy.from != *sender && self.partner.is_none() {
            self.partner = Some(copy.body.clone());
        }
        let held = if self.partner.is_some() { std::mem::take(&mut self.held) } else { Vec::new() };
        std::iter::once(copy).chain(held.into_iter().map(|copy| self.altered(copy))).collect()
    }

    fn altered(&mut self, mut copy: Copy) -> Copy {
        let Attack { sender, round, broadcast, path, alteration, source, .. } = self.attack;
        let replayed =
            self.recordings.earlier.iter().find(|old| old.is(*sender, *round, *broadcast) && old.to == copy.to);
        let other = match source {
            Source::None => None,
            Source::OtherParty => self.partner.as_deref(),
            Source::OtherSession => replayed.map(|old| old.body.as_slice()),
        };
        if let Some(body) = alter(&copy.body, path, alteration, other, &self.recordings.modulus) {
            copy.body = body;
            self.applied = true;
        }
        copy
    }
}
