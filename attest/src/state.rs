//! What every guard says, by the log alone: what the tables of an appliance must agree with.

mod admit;

use std::collections::{BTreeMap, BTreeSet};

use casemate_wire::{Digest32, PartyId};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::leaf::{Guard, GuardChange, Leaf, Op, Phase, Place};
use crate::rewrap::{OpenRewrap, Rewrap};
use crate::text::{At, LogId, Text};
use crate::tree::Frontier;
use crate::verify::OpenIntent;

/// How long rows must be there after their leaf. The store keeps each a little longer, so that what is missing earlier was
/// taken away.
const TOKENS_KEPT: SignedDuration = SignedDuration::from_hours(23);
const APPROVALS_KEPT: SignedDuration = SignedDuration::from_hours(29 * 24);
const SPEND_KEPT: SignedDuration = SignedDuration::from_hours(89 * 24);
const SESSIONS_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A state and when it was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Since {
    /// The state.
    pub state: Text,
    /// The time of its leaf.
    pub at: At,
}

/// The state of all guards after a number of leaves.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Shares by id.
    pub shares: BTreeMap<Text, Text>,
    /// Used tokens by `jti`, with the time of their use.
    pub tokens: BTreeMap<Text, At>,
    /// Sessions by id.
    pub sessions: BTreeMap<Text, Since>,
    /// Auxiliary info by the committee's roster digest.
    pub aux_info: BTreeMap<Text, Text>,
    /// Pairs of primes that lie ready.
    pub primes: BTreeSet<Text>,
    /// The newest policy bundle by name.
    pub bundle: BTreeMap<Text, Text>,
    /// Spend by session.
    pub spend: BTreeMap<Text, Since>,
    /// Approvals that were used up, by their statement's digest, with the time of their use.
    pub approvals: BTreeMap<Text, At>,
    /// Each peer's last checkpoint.
    pub peers: BTreeMap<PartyId, Place>,
    /// When this log took the place of another, or shares were last restored from a backup, if either was: what was issued or
    /// spent before is not known here.
    pub recovered: Option<At>,
    /// KEKs by epoch.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keks: BTreeMap<Text, Text>,
    /// Backups by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub backups: BTreeMap<Text, Text>,
    /// The latest epoch that was entered with each key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub epochs: BTreeMap<Text, Text>,
    /// The last re-wrapping, while it has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrapping: Option<OpenRewrap>,
}

/// Whether all that was before the first leaf is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Past {
    /// It is; mostly there was nothing.
    #[default]
    Known,
    /// The log took over guards from another, and their snapshot is not at hand.
    Unseen,
}

impl State {
    /// Takes the changes of one more leaf, as they are.
    fn take(&mut self, leaf: &Leaf) {
        if leaf.recovery.is_some() || (leaf.phase, leaf.op) == (Phase::Admin, Op::Restore) {
            self.recovered = Some(leaf.at);
        }
        for change in &leaf.guards {
            self.change(change, leaf.at);
        }
        match &leaf.rewrap {
            // One that was cut off before it never ends.
            Some(Rewrap::Begun { rows, .. }) => {
                self.rewrapping = Some(OpenRewrap { seq: leaf.seq, at: leaf.at, rows: *rows });
            }
            Some(Rewrap::Ended { .. }) => self.rewrapping = None,
            None => {}
        }
        for peer in &leaf.peers {
            let place = Place { log: peer.log.clone(), size: peer.size, root: peer.root };
            // Sessions that run side by side end in any order, and one that began on an old log may end after an operator
            // has accepted another: only that acceptance changes the log.
            let newer =
                self.peers.get(&peer.party).is_none_or(|known| known.log == place.log && known.size < place.size);
            if newer {
                self.peers.insert(peer.party.clone(), place);
            }
        }
    }

    /// Forgets what the store may have forgotten by then.
    pub fn forget(&mut self, now: At) {
        let recent = |at: &At, kept| now.timestamp().duration_since(at.timestamp()) <= kept;
        self.tokens.retain(|_, at| recent(at, TOKENS_KEPT));
        self.approvals.retain(|_, at| recent(at, APPROVALS_KEPT));
        self.spend.retain(|_, since| recent(&since.at, SPEND_KEPT));
        self.sessions.retain(|_, since| since.state.as_str() == "accepted" || recent(&since.at, SESSIONS_KEPT));
    }

    fn change(&mut self, change: &GuardChange, at: At) {
        let id = change.id.clone();
        // The rules of a leaf let nothing be taken away.
        let Some(to) = change.to.clone() else { return };
        match change.guard {
            Guard::Share => drop(self.shares.insert(id, to)),
            Guard::Kek => drop(self.keks.insert(id, to)),
            Guard::Backup => drop(self.backups.insert(id, to)),
            Guard::Epoch => drop(self.epochs.insert(id, to)),
            Guard::Token => drop(self.tokens.insert(id, at)),
            Guard::Session => drop(self.sessions.insert(id, Since { state: to, at })),
            Guard::AuxInfo => drop(self.aux_info.insert(id, to)),
            Guard::Primes if to.as_str() == "stored" => drop(self.primes.insert(id)),
            Guard::Primes => drop(self.primes.remove(&id)),
            Guard::Bundle => self.bundle = BTreeMap::from([(id, to)]),
            Guard::Spend => {
                // A release keeps the time of its reservation: the row does.
                let at = self.spend.get(&id).map_or(at, |since| since.at);
                self.spend.insert(id, Since { state: to, at });
            }
            Guard::Approval => drop(self.approvals.insert(id, at)),
            Guard::Peer => {
                if let (Ok(party), Some(place)) = (id.as_str().parse(), peer_place(change)) {
                    self.peers.insert(party, place);
                }
            }
            Guard::Snapshot => {}
        }
    }
}

/// The change by which an operator accepts another log of a peer.
pub fn accept_peer(party: &PartyId, place: &Place) -> GuardChange {
    let to = format!("{} {} {}", place.size, place.root, place.log);
    GuardChange { guard: Guard::Peer, id: Text::fitted(party.as_str()), to: Some(Text::fitted(&to)) }
}

/// The place that such a change names.
pub(crate) fn peer_place(change: &GuardChange) -> Option<Place> {
    let mut words = change.to.as_ref()?.as_str().splitn(3, ' ');
    let (size, root, log): (&str, &str, &str) = (words.next()?, words.next()?, words.next()?);
    let log: LogId = log.parse().ok()?;
    Some(Place { size: size.parse().ok()?, root: root.parse().ok()?, log })
}

/// All that a log rests on when the lines before are kept elsewhere. A leaf of the log names its digest, so that the
/// checkpoints vouch for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The version of this form.
    pub v: u16,
    /// After which leaf: log, size and root.
    pub place: Place,
    /// That leaf's hash.
    pub last: Digest32,
    /// That leaf's time.
    pub at: At,
    /// How many starts the log had counted.
    pub boot: u64,
    /// The tree's edge.
    pub tree: Frontier,
    /// All guards.
    pub state: State,
    /// Intents without an outcome.
    pub open: Vec<OpenIntent>,
}

/// A snapshot cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot that the log rests on cannot be used: {0}")]
pub struct InvalidSnapshot(String);

impl Snapshot {
    /// What a new log rests on before its first leaf, when it takes the place of another at `moment`.
    pub fn before_first(log: LogId, state: State, moment: At) -> Self {
        let tree = Frontier::default();
        let place = Place { log, size: 0, root: tree.root() };
        Self { v: 1, place, last: Digest32([0; 32]), at: moment, boot: 0, tree, state, open: Vec::new() }
    }

    /// Its one text: canonical JSON.
    ///
    /// # Errors
    /// It cannot be written, which no log causes.
    pub fn to_text(&self) -> Result<String, InvalidSnapshot> {
        serde_json_canonicalizer::to_string(self).map_err(|e| InvalidSnapshot(e.to_string()))
    }

    /// Reads its one text.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn read(text: &str) -> Result<Self, InvalidSnapshot> {
        let snapshot: Self = serde_json::from_str(text).map_err(|e| InvalidSnapshot(e.to_string()))?;
        if snapshot.v != 1 {
            return Err(InvalidSnapshot(format!("it has version {}; this release reads version 1", snapshot.v)));
        }
        if snapshot.tree.size() != snapshot.place.size || snapshot.tree.root() != snapshot.place.root {
            return Err(InvalidSnapshot("its tree is not the one that it names".into()));
        }
        if snapshot.to_text()? == text {
            Ok(snapshot)
        } else {
            Err(InvalidSnapshot("it is not in canonical form".into()))
        }
    }

    /// What the log's leaf holds of it.
    pub fn digest(text: &str) -> Digest32 {
        Digest32(Sha256::digest(text.as_bytes()).into())
    }

    /// The change by which a leaf vouches for it.
    pub fn guard(text: &str) -> GuardChange {
        let to = Text::fitted(&Self::digest(text).to_string());
        GuardChange { guard: Guard::Snapshot, id: Text::fitted("guards"), to: Some(to) }
    }
}
