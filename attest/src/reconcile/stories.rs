//! One session as all logs tell it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use casemate_wire::{Digest32, EcdsaSignature, PartyId, SessionId};

use super::account::{Account, End, Intent, Told};
use super::finding::{About, FindingKind};
use super::{Findings, Given};
use crate::leaf::{Op, Verdict};

/// A session with all that is told of it.
pub(super) struct Session<'a> {
    pub(super) id: &'a SessionId,
    pub(super) told: Vec<(&'a Account, &'a Told)>,
}

impl<'a> Session<'a> {
    pub(super) fn intents(&self) -> impl Iterator<Item = (&'a Account, &'a Intent)> {
        self.told.iter().filter_map(|(account, told)| Some((*account, told.intent.as_ref()?)))
    }

    pub(super) fn completed(&self) -> impl Iterator<Item = (&'a Account, &'a End)> {
        self.told.iter().filter_map(|(account, told)| Some((*account, told.completed()?)))
    }
}

pub(super) fn sessions(accounts: &[Account]) -> BTreeMap<&SessionId, Session<'_>> {
    let mut sessions = BTreeMap::new();
    for account in accounts {
        for (id, told) in &account.sessions {
            sessions.entry(id).or_insert_with(|| Session { id, told: Vec::new() }).told.push((account, told));
        }
    }
    sessions
}

/// Finds everything in which the parties' stories of one session differ.
pub(super) fn compare(session: &Session<'_>, given: &Given, findings: &mut Findings) {
    facts(session, findings);
    results(session, findings);
    participants(session, given, findings);
    known_to_one(session, findings);
}

fn facts(session: &Session<'_>, findings: &mut Findings) {
    let intents: Vec<_> = session.intents().collect();
    agree(session, &intents, "what was to be done", |intent| Some(intent.op.as_str()), findings);
    agree(session, &intents, "the key", |intent| intent.key, findings);
    agree(session, &intents, "the hash to sign", |intent| intent.tx.as_ref().map(|tx| tx.digest), findings);
    agree(session, &intents, "the child key", |intent| intent.tx.as_ref().and_then(|tx| tx.child), findings);
    let ends: Vec<_> = session.completed().collect();
    agree(session, &ends, "the key that was used or made", |end| end.key, findings);
    agree(session, &ends, "the epoch", |end| end.epoch, findings);
    agree(session, &ends, "how many parties sign", |end| end.epoch.and(end.threshold), findings);
    agree(session, &ends, "the signature", |end| end.signature.as_ref().map(hex), findings);
    let bundles: BTreeSet<_> = intents.iter().filter_map(|(_, intent)| intent.bundle).collect();
    if bundles.len() > 1 {
        let names: Vec<_> = bundles.iter().map(ToString::to_string).collect();
        let what = format!("the parties decided by different policy bundles: {}", names.join(", "));
        findings.note(FindingKind::BundlesDiffer, About::Session(session.id), what);
    }
}

fn hex(signature: &EcdsaSignature) -> String {
    format!("{}{}", Digest32(signature.r), Digest32(signature.s))
}

fn agree<T, V: PartialEq + Display>(
    session: &Session<'_>,
    told: &[(&Account, &T)],
    what: &str,
    fact: impl Fn(&T) -> Option<V>,
    findings: &mut Findings,
) {
    let mut others = told.iter();
    let Some((first, told)) = others.next() else { return };
    let wanted = fact(told);
    for (account, told) in others {
        let found = fact(told);
        if found != wanted {
            let show = |fact: &Option<V>| fact.as_ref().map_or_else(|| "nothing".into(), ToString::to_string);
            let (found, wanted) = (show(&found), show(&wanted));
            let what = format!("{what} differs: {} says {wanted}, {} says {found}", first.party, account.party);
            findings.amiss(FindingKind::StoryDiffers, About::Both(session.id, &account.party), what);
        }
    }
}

/// Where one completed, all that began must have: a result that one has and another has not is told by no common end.
fn results(session: &Session<'_>, findings: &mut Findings) {
    let Some((completed, _)) = session.completed().next() else {
        let open = session.told.iter().filter(|(_, told)| told.intent.is_some() && told.end.is_none());
        for (account, _) in open {
            let what = format!("{} has begun it, and has not ended it yet", account.party);
            findings.note(FindingKind::StillOpen, About::Both(session.id, &account.party), what);
        }
        return;
    };
    for (account, told) in &session.told {
        let about = About::Both(session.id, &account.party);
        match (&told.intent, &told.end) {
            (Some(_), None) => {
                let what = format!(
                    "{} completed it, but the intent of {} has no outcome: it runs still, was cut off, or its log was exported too early",
                    completed.party, account.party
                );
                findings.amiss(FindingKind::OutcomeMissing, about, what);
            }
            (Some(_), Some(end)) if end.result != Verdict::Completed => {
                let code = end.code.as_ref().map_or("no code", |code| code.as_str());
                let what = format!("{} completed it, but for {} it failed ({code})", completed.party, account.party);
                findings.amiss(FindingKind::StoryDiffers, about, what);
            }
            _ => {}
        }
    }
}

/// Whoever took part by the word of those who completed must have an intent, and all name the same parties.
fn participants(session: &Session<'_>, given: &Given, findings: &mut Findings) {
    let mut named: Option<(&PartyId, BTreeSet<&PartyId>)> = None;
    for (account, end) in session.completed() {
        let all: BTreeSet<&PartyId> = end.peers.iter().chain([&account.party]).collect();
        for peer in &end.peers {
            witness_of(session, given, &account.party, peer, findings);
        }
        // In a rotation those take part as well who deal and leave.
        let fits = |n: usize| if end.epoch.is_some() { n <= all.len() } else { n == all.len() };
        if let Some(threshold) = end.threshold.filter(|threshold| !fits(usize::from(threshold.n()))) {
            let what = format!("{} made shares of {threshold} with {} parties", account.party, all.len());
            findings.amiss(FindingKind::ParticipantsDiffer, About::Both(session.id, &account.party), what);
        }
        match &named {
            None => named = Some((&account.party, all)),
            Some((first, others)) if *others != all => {
                let what =
                    format!("{first} says that {} took part, {} says {}", list(others), account.party, list(&all));
                findings.amiss(FindingKind::ParticipantsDiffer, About::Both(session.id, &account.party), what);
            }
            Some(_) => {}
        }
    }
}

fn list(parties: &BTreeSet<&PartyId>) -> String {
    let names: Vec<&str> = parties.iter().map(|party| party.as_str()).collect();
    names.join(", ")
}

fn witness_of(session: &Session<'_>, given: &Given, by: &PartyId, peer: &PartyId, findings: &mut Findings) {
    if !given.accounts.iter().any(|account| account.party == *peer) {
        let what = format!("no good log of {peer}, which took part, was given; what it decided was not looked at");
        return findings.note(FindingKind::PartyMissing, About::Party(peer), what);
    }
    if !session.intents().any(|(account, _)| account.party == *peer) {
        let what = format!(
            "{by} completed it with {peer}, whose log has no intent of it: it acted without one, or its log lacks it"
        );
        findings.amiss(FindingKind::IntentMissing, About::Both(session.id, peer), what);
    }
}

fn known_to_one(session: &Session<'_>, findings: &mut Findings) {
    let parties: BTreeSet<_> = session.told.iter().map(|(account, _)| &account.party).collect();
    let (Some((account, told)), 1) = (session.told.first(), parties.len()) else { return };
    let Some(Intent { op, at, .. }) = &told.intent else { return };
    let about = About::Both(session.id, &account.party);
    let act = match op {
        Op::Keygen => "keygen",
        Op::Rotate => "rotation",
        _ => "signing",
    };
    if told.completed().is_some() {
        let what = format!("a completed {act} of {at} stands in the log of {} alone", account.party);
        findings.amiss(FindingKind::KnownToOne, about, what);
    } else {
        let what = format!("a {act} of {at} that was not completed stands in the log of {} alone", account.party);
        findings.note(FindingKind::NotCompleted, about, what);
    }
}
