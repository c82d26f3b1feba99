//! Enumerating every alteration of every field of every message, and running each as an attack.

use std::collections::BTreeSet;
use std::future::Future;

use casemate_mpc::MpcError;
use futures::StreamExt;
use futures::stream;

use super::alter::{ALONE, Alteration, Path, alter, leaves, name, parse};
use super::network::{Copy, Run};

/// Runs that go on side by side.
const SIDE_BY_SIDE: usize = 8;

/// Who gets the altered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victims {
    /// Everyone: the sender is at fault, or all copies were altered alike.
    All,
    /// One party, while the others get what was sent.
    One(u16),
}

/// Where the replacement of [`Alteration::Replace`] comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The message itself is altered.
    None,
    /// The same field of another party's message in the same session.
    OtherParty,
    /// The same field of the same party's message in an earlier session.
    OtherSession,
}

/// One alteration of one field of one message.
#[derive(Debug, Clone)]
pub struct Attack {
    pub sender: u16,
    pub victims: Victims,
    pub round: u16,
    pub broadcast: bool,
    pub path: Path,
    pub alteration: Alteration,
    pub source: Source,
    /// The field's name, for messages.
    pub field: String,
}

/// What honest sessions have looked like.
pub struct Recordings {
    /// Tells the messages, their fields, and their order.
    pub sample: Vec<Copy>,
    /// An earlier session of the same parties.
    pub earlier: Vec<Copy>,
}

impl Recordings {
    /// The messages that `sender` sends to `victim`, one of each kind.
    fn sent(&self, sender: u16, victim: u16) -> impl Iterator<Item = &Copy> {
        self.sample.iter().filter(move |copy| copy.from == sender && copy.to == victim)
    }

    /// All kinds of messages that there are: round, and whether broadcast.
    pub fn kinds(&self) -> BTreeSet<(u16, bool)> {
        self.sample.iter().map(|copy| (copy.round, copy.broadcast)).collect()
    }

    /// The message of an earlier session that fills the same place.
    fn replayed(&self, like: &Copy) -> Option<&Copy> {
        self.earlier.iter().find(|copy| copy.to == like.to && copy.is(like.from, like.round, like.broadcast))
    }

    /// Every attack of `sender` on `victim`, and for broadcasts on all, with the alterations in `alone`, the shifts, and,
    /// where `replace` is set, swaps and replays.
    pub fn attacks(
        &self,
        sender: u16,
        victim: u16,
        alone: &[Alteration],
        shifts: &[Alteration],
        replace: bool,
    ) -> Vec<Attack> {
        let mut attacks = Vec::new();
        for copy in self.sent(sender, victim) {
            let partner = self.sample.iter().find(|other| partner_of(other, copy));
            let replayed = self.replayed(copy);
            let shape = parse(&copy.body);
            for path in leaves(&shape) {
                let mut add = |alteration: &Alteration, source: Source, other: Option<&Copy>| {
                    let other = other.map(|copy| copy.body.as_slice());
                    if alter(&copy.body, &path, alteration, other).is_none() {
                        return;
                    }
                    let everyone = copy.broadcast.then_some(Victims::All);
                    for victims in [Some(Victims::One(victim)), everyone].into_iter().flatten() {
                        attacks.push(Attack {
                            sender,
                            victims,
                            round: copy.round,
                            broadcast: copy.broadcast,
                            path: path.clone(),
                            alteration: alteration.clone(),
                            source,
                            field: name(&shape, &path),
                        });
                    }
                };
                for alteration in alone.iter().chain(shifts) {
                    add(alteration, Source::None, None);
                }
                if replace {
                    add(&Alteration::Replace, Source::OtherParty, partner);
                    add(&Alteration::Replace, Source::OtherSession, replayed);
                }
            }
        }
        attacks
    }

    /// The alterations of a full suite that need nothing else than the message.
    pub fn full() -> &'static [Alteration] {
        &ALONE
    }
}

/// Whether `other` is what another party sends in the same place as `copy`: to the same recipient where there is such a
/// message, else (with two parties) to the sender itself.
fn partner_of(other: &Copy, copy: &Copy) -> bool {
    other.from != copy.from && other.round == copy.round && other.broadcast == copy.broadcast
}

/// The man in the middle who carries out one attack.
pub struct Middle<'a> {
    attack: &'a Attack,
    recordings: &'a Recordings,
    /// Copies that wait for the other party's message.
    held: Vec<Copy>,
    partner: Option<Copy>,
    /// Whether the alteration has changed anything yet.
    pub applied: bool,
}

impl<'a> Middle<'a> {
    pub fn new(attack: &'a Attack, recordings: &'a Recordings) -> Self {
        Self { attack, recordings, held: Vec::new(), partner: None, applied: false }
    }

    /// What to deliver instead of `copy`.
    pub fn pass(&mut self, copy: Copy) -> Vec<Copy> {
        if self.is_target(&copy) {
            return match self.attack.source {
                Source::OtherParty if self.partner.is_none() => {
                    self.held.push(copy);
                    Vec::new()
                }
                _ => vec![self.altered(copy)],
            };
        }
        let partner = self.attack.source == Source::OtherParty && self.is_partner(&copy);
        if partner && self.partner.is_none() {
            self.partner = Some(copy.clone());
            let held = std::mem::take(&mut self.held);
            return std::iter::once(copy).chain(held.into_iter().map(|copy| self.altered(copy))).collect();
        }
        vec![copy]
    }

    fn is_target(&self, copy: &Copy) -> bool {
        let Attack { sender, round, broadcast, victims, .. } = self.attack;
        copy.is(*sender, *round, *broadcast) && (*victims == Victims::All || *victims == Victims::One(copy.to))
    }

    fn is_partner(&self, copy: &Copy) -> bool {
        let Attack { sender, round, broadcast, .. } = self.attack;
        copy.from != *sender && copy.round == *round && copy.broadcast == *broadcast
    }

    fn altered(&mut self, mut copy: Copy) -> Copy {
        let other = match self.attack.source {
            Source::None => None,
            Source::OtherParty => self.partner.as_ref(),
            Source::OtherSession => self.recordings.replayed(&copy),
        };
        let other = other.map(|copy| copy.body.as_slice());
        if let Some(body) = alter(&copy.body, &self.attack.path, &self.attack.alteration, other) {
            copy.body = body;
            self.applied = true;
        }
        copy
    }
}

/// Carries out all attacks, several at a time. `run` makes one session with the given middle and tells whether the
/// middle has altered anything; `judge` says what was wrong with its outcome. Returns all complaints.
pub async fn carry_out<T, F>(
    attacks: &[Attack],
    run: impl Fn(Attack) -> F,
    judge: impl Fn(&Attack, &Run<T>) -> Result<(), String>,
) -> Vec<String>
where
    F: Future<Output = (Run<T>, bool)>,
{
    let one = |attack: &Attack| {
        let attack = attack.clone();
        let (run, judge) = (&run, &judge);
        async move {
            // A field may by chance already have the value that the attack would give it; then try another session.
            for _ in 0..8 {
                let (outcome, applied) = run(attack.clone()).await;
                if applied {
                    return judge(&attack, &outcome).map_err(|why| format!("{attack:?}: {why}"));
                }
            }
            Err(format!("{attack:?}: could not be carried out"))
        }
    };
    stream::iter(attacks.iter().map(one))
        .buffer_unordered(SIDE_BY_SIDE)
        .filter_map(|outcome| async { outcome.err() })
        .collect()
        .await
}

/// Judges what every attack must lead to, whatever the protocol. `last_round` is the round after whose messages a party
/// is done.
///
/// Honest are all but the sender of the altered message. Every victim ends without a result and with a reason; nobody
/// honest is named as culprit; and nobody honest has a result, unless the last message to one party was altered, when the
/// others may have.
pub fn judge<T>(attack: &Attack, run: &Run<T>, last_round: u16) -> Result<(), String> {
    let mut detected = false;
    for (party, outcome) in (0u16..).zip(&run.outcomes) {
        if party == attack.sender {
            continue;
        }
        let victim = attack.victims == Victims::All || attack.victims == Victims::One(party);
        match outcome {
            Ok(_) if victim => {
                return Err(format!("party {party} got the altered message and a result"));
            }
            Ok(_) if attack.round < last_round => {
                return Err(format!("party {party} has a result"));
            }
            Err(MpcError::PeerFault { party: culprit, .. }) if *culprit != attack.sender => {
                return Err(format!(
                    "party {party} names the honest party {culprit}: {outcome:?}",
                    outcome = outcome.as_ref().err()
                ));
            }
            Err(MpcError::PeerFault { .. } | MpcError::Unattributed { .. }) => detected = true,
            Ok(_) | Err(MpcError::Silent { .. } | MpcError::Closed) => {}
            Err(error) => return Err(format!("party {party} ended with {error:?}")),
        }
    }
    if detected { Ok(()) } else { Err("nobody honest has noticed".into()) }
}
