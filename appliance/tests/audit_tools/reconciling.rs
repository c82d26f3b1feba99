//! `reconcile`: an honest committee, and every way in which one was not.

use std::fs;
use std::path::Path;

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use casemate_attest::reconcile::Released;
use casemate_attest::{Act, Entry, Outcome, Tx};
use casemate_wire::{Digest32, EcdsaSignature, Threshold};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::committee::{Committee, Party, digest, failed, signature};
use super::{Answer, audit, text};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn list(committee: &Committee, under: &Path, signed: &[(Digest32, EcdsaSignature)]) -> String {
    let line = |(message_hash, signature): &(Digest32, EcdsaSignature)| {
        let released = Released { public_key: committee.key(), message_hash: *message_hash, signature: *signature };
        serde_json::to_string(&released).unwrap() + "\n"
    };
    let path = under.join("signatures.jsonl");
    fs::write(&path, signed.iter().map(line).collect::<String>()).unwrap();
    text(&path).to_owned()
}

fn reconcile(committee: &mut Committee, under: &Path, more: &[&str]) -> Answer {
    let words = committee.exported(under);
    let words: Vec<&str> = ["reconcile", "--json"].into_iter().chain(words.iter().map(String::as_str)).collect();
    audit(&[&words[..], more].concat())
}

/// The kinds of what is amiss, sorted, each once.
fn amiss(answer: &Answer) -> Vec<String> {
    let all = answer.json();
    let findings = all["findings"]["findings"].as_array().unwrap().clone();
    let mut kinds: Vec<String> = findings
        .iter()
        .filter(|finding| finding["weight"] == "amiss")
        .map(|finding| finding["kind"].as_str().unwrap().to_owned())
        .collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

#[test]
fn an_honest_committee_reconciles_with_its_signatures() {
    let (mut committee, under) = (Committee::new(), folder());
    let first = committee.sign("s-1", digest(1), &[0, 1]);
    let second = committee.sign("s-2", digest(2), &[1, 2]);
    committee.parties[2].refuse("s-3");
    let given = list(&committee, under.path(), &[(digest(1), first), (digest(2), second)]);
    let found = reconcile(&mut committee, under.path(), &["--signature", &given]).ends(0).json();
    assert_eq!(found["verdict"], "reconciled");
    let signatures = found["findings"]["signatures"].as_array().unwrap();
    assert_eq!(signatures.len(), 2);
    assert_eq!(signatures[0]["needed"], 2);
    let decisions = signatures[0]["decisions"].as_array().unwrap();
    let who: Vec<&Value> = decisions.iter().map(|decision| &decision["party"]).collect();
    assert_eq!(who, ["party-1", "party-2"]);
    assert_eq!(decisions[0]["bundle"], "b0".repeat(32));
    assert_eq!(decisions[0]["policies"], json!(["small-transfers"]));
    assert_eq!(found["findings"]["checkpoints_found"], 10);
    let words = committee.exported(under.path());
    let words: Vec<&str> = ["reconcile"].into_iter().chain(words.iter().map(String::as_str)).collect();
    audit(&words).ends(0).says("reconciled: nothing is amiss").says("2 allowed decisions, 2 needed");
}

#[test]
fn a_signature_that_no_log_tells_of_and_one_that_the_list_lacks_are_orphans() {
    let (mut committee, under) = (Committee::new(), folder());
    let first = committee.sign("s-1", digest(1), &[0, 1]);
    committee.sign("s-2", digest(2), &[0, 1]);
    let outside = signature(&committee.signer, &digest(3));
    let given = list(&committee, under.path(), &[(digest(1), first), (digest(3), outside)]);
    let answer = reconcile(&mut committee, under.path(), &["--signature", &given]).ends(1);
    assert_eq!(amiss(&answer), ["signature_not_listed", "signature_unknown"]);
    let given = list(&committee, under.path(), &[(digest(2), first)]);
    let answer = reconcile(&mut committee, under.path(), &["--signature", &given]).ends(1);
    assert_eq!(amiss(&answer), ["signature_bad", "signature_not_listed"]);
    let bad = under.path().join("bad");
    fs::write(&bad, "{}").unwrap();
    reconcile(&mut committee, under.path(), &["--signature", text(&bad)]).ends(2).says("one a line");
}

#[test]
fn signed_ethereum_transactions_are_matched_by_what_they_recover_to() {
    let (mut committee, under) = (Committee::new(), folder());
    let mut raw = |nonce: u64, logged: bool| {
        let transaction = TxEip1559 { chain_id: 1, nonce, gas_limit: 21_000, ..TxEip1559::default() };
        let hash = Digest32(transaction.signature_hash().0);
        let made = if logged {
            committee.sign(&format!("s-{nonce}"), hash, &[0, 1])
        } else {
            signature(&committee.signer, &hash)
        };
        let made = alloy_primitives::Signature::from_scalars_and_parity(made.r.into(), made.s.into(), made.v == 1);
        format!("0x{}\n", hex::encode(transaction.into_signed(made).encoded_2718()))
    };
    let (known, unknown) = (raw(1, true), raw(2, false));
    let path = under.path().join("transactions");
    fs::write(&path, &known).unwrap();
    reconcile(&mut committee, under.path(), &["--ethereum-tx", text(&path)]).ends(0);
    fs::write(&path, known + &unknown).unwrap();
    let answer = reconcile(&mut committee, under.path(), &["--ethereum-tx", text(&path)]).ends(1);
    assert_eq!(amiss(&answer), ["signature_unknown"]);
    fs::write(&path, "0x02c0").unwrap();
    reconcile(&mut committee, under.path(), &["--ethereum-tx", text(&path)]).ends(2).says("line 1");
}

#[test]
fn a_party_that_signed_without_an_intent_leaves_too_few_decisions() {
    let (mut committee, under) = (Committee::new(), folder());
    let act = committee.act(digest(1));
    let made = signature(&committee.signer, &digest(1));
    let intent = committee.parties[0].intend(act, "s-1");
    let seen = committee.peers_of(0, &[0, 1]);
    committee.parties[0].add(Entry::outcome(intent, Outcome::signed(made)).witnessing(seen));
    let answer = reconcile(&mut committee, under.path(), &[]).ends(1);
    assert_eq!(amiss(&answer), ["intent_missing", "known_to_one", "too_few_decisions"]);
}

#[test]
fn a_refusal_is_no_decision_that_allows() {
    let (mut committee, under) = (Committee::new(), folder());
    let act = committee.act(digest(1));
    let made = signature(&committee.signer, &digest(1));
    let intent = committee.parties[0].intend(act, "s-1");
    committee.parties[1].refuse("s-1");
    let seen = committee.peers_of(0, &[0, 1]);
    committee.parties[0].add(Entry::outcome(intent, Outcome::signed(made)).witnessing(seen));
    let answer = reconcile(&mut committee, under.path(), &[]).ends(1);
    assert_eq!(amiss(&answer), ["intent_missing", "too_few_decisions"]);
}

#[test]
fn a_party_that_decided_on_another_hash_is_found() {
    let (mut committee, under) = (Committee::new(), folder());
    let made = signature(&committee.signer, &digest(1));
    let (first, second) = (committee.act(digest(1)), committee.act(digest(2)));
    let own = committee.parties[0].intend(first, "s-1");
    let others = committee.parties[1].intend(second, "s-1");
    let seen = committee.peers_of(0, &[0, 1]);
    committee.parties[0].add(Entry::outcome(own, Outcome::signed(made)).witnessing(seen));
    committee.parties[1].add(Entry::outcome(others, failed()));
    let answer = reconcile(&mut committee, under.path(), &[]).ends(1);
    assert_eq!(amiss(&answer), ["story_differs", "too_few_decisions"]);
    assert!(answer.out.contains("the hash to sign differs"));
}

#[test]
fn parties_that_name_other_participants_or_another_end_are_found() {
    let (mut committee, under) = (Committee::new(), folder());
    let act = committee.act(digest(1));
    let made = signature(&committee.signer, &digest(1));
    let intents: Vec<_> = [0, 1].map(|number: usize| committee.parties[number].intend(act.clone(), "s-1")).into();
    let mut intents = intents.into_iter();
    let (with_second, with_third) = (committee.peers_of(0, &[0, 1]), committee.peers_of(1, &[1, 2]));
    committee.parties[0].add(Entry::outcome(intents.next().unwrap(), Outcome::signed(made)).witnessing(with_second));
    committee.parties[1].add(Entry::outcome(intents.next().unwrap(), Outcome::signed(made)).witnessing(with_third));
    let answer = reconcile(&mut committee, under.path(), &[]).ends(1);
    assert_eq!(amiss(&answer), ["intent_missing", "participants_differ"]);

    let mut committee = Committee::new();
    let own = committee.parties[0].intend(act.clone(), "s-1");
    let others = committee.parties[1].intend(act.clone(), "s-1");
    committee.parties[2].intend(act, "s-1");
    let seen = committee.peers_of(0, &[0, 1]);
    committee.parties[0].add(Entry::outcome(own, Outcome::signed(made)).witnessing(seen));
    committee.parties[1].add(Entry::outcome(others, failed()));
    let answer = reconcile(&mut committee, under.path(), &[]).ends(1);
    assert_eq!(amiss(&answer), ["outcome_missing", "story_differs"]);
}

#[test]
fn sessions_that_came_to_nothing_are_told_and_not_held_against_anyone() {
    let (mut committee, under) = (Committee::new(), folder());
    let act = committee.act(digest(1));
    let alone = committee.parties[0].intend(act.clone(), "s-1");
    committee.parties[0].add(Entry::outcome(alone, failed()));
    for number in [0, 1] {
        committee.parties[number].intend_under(act.clone(), "s-2", if number == 0 { 0xb0 } else { 0xb1 });
    }
    let answer = reconcile(&mut committee, under.path(), &[]).ends(0);
    for kind in ["not_completed", "still_open", "bundles_differ"] {
        assert!(answer.out.contains(kind), "{kind}: {}", answer.out);
    }
}

#[test]
fn a_log_that_its_peers_saw_longer_or_otherwise_is_found() {
    let (mut committee, under) = (Committee::new(), folder());
    committee.sign("s-1", digest(1), &[0, 1]);
    let cut: String = committee.parties[1].log_text().split_inclusive('\n').take(3).collect();
    let honest = reconcile(&mut committee, under.path(), &[]).ends(0);
    assert!(amiss(&honest).is_empty());
    // Its own newest checkpoint is taken away with the lines.
    let give = |log: String| {
        let words = committee_words(&committee, under.path());
        let folder = under.path().join("party-2");
        fs::write(folder.join("log.jsonl"), log).unwrap();
        fs::write(folder.join("checkpoints.jsonl"), "").unwrap();
        fs::write(folder.join("details.jsonl"), "").unwrap();
        let words: Vec<&str> = ["reconcile", "--json"].into_iter().chain(words.iter().map(String::as_str)).collect();
        audit(&words).ends(1)
    };
    let short = give(cut);
    assert!(amiss(&short).contains(&"log_too_short".to_owned()), "{}{}", short.out, short.err);
    let mut rewritten = Party::new(2);
    for number in 0..20 {
        rewritten.refuse(&format!("x-{number}"));
    }
    assert!(amiss(&give(rewritten.log_text())).contains(&"checkpoint_differs".to_owned()));
    let elsewhere = Party::new(3).log_text();
    assert!(amiss(&give(elsewhere)).contains(&"log_twice".to_owned()));
}

fn committee_words(committee: &Committee, under: &Path) -> Vec<String> {
    let words = committee.parties.iter().flat_map(|party| {
        let folder = under.join(&party.name);
        ["--party".into(), format!("{}={}={}", party.name, party.key(), folder.display())]
    });
    words.collect()
}

#[test]
fn a_broken_log_or_a_false_checkpoint_is_amiss_at_once() {
    let (mut committee, under) = (Committee::new(), folder());
    committee.sign("s-1", digest(1), &[0, 1]);
    committee.exported(under.path());
    let words = committee_words(&committee, under.path());
    let words: Vec<&str> = ["reconcile"].into_iter().chain(words.iter().map(String::as_str)).collect();
    audit(&words).ends(0);
    let note = under.path().join("note");
    fs::write(&note, committee.parties[0].notes[0].replace("\n6\n", "\n9\n")).unwrap();
    audit(&[&words[..], &["--checkpoint", text(&note)]].concat()).ends(1).says("AMISS: the checkpoint in");
    let log = under.path().join("party-1/log.jsonl");
    fs::write(&log, committee.parties[0].log_text().replacen("small-transfers", "Small-transfers", 1)).unwrap();
    audit(&words).ends(1).says("party-1: NOT VALID");
    audit(&["reconcile", "--party", "party-1=xyz"]).ends(2).says("it looks like");
}

#[test]
fn how_many_decisions_a_key_needs_must_be_known_and_agreed() {
    let (mut committee, under) = (Committee::without_a_key(), folder());
    committee.sign("s-1", digest(1), &[0, 1]);
    let answer = reconcile(&mut committee, under.path(), &[]).ends(1);
    assert_eq!(amiss(&answer), ["threshold_unknown"]);
    let threshold = format!("{}=2-of-3", committee.key());
    reconcile(&mut committee, under.path(), &["--threshold", &threshold]).ends(0);
    let threshold = format!("{}=3-of-3", committee.key());
    let answer = reconcile(&mut committee, under.path(), &["--threshold", &threshold]).ends(1);
    assert_eq!(amiss(&answer), ["too_few_decisions"]);
    reconcile(&mut committee, under.path(), &["--threshold", "2-of-3"]).ends(2).says("KEY=2-of-3");
    let (mut committee, threshold) = (Committee::new(), format!("{}=3-of-3", committee.key()));
    let answer = reconcile(&mut committee, under.path(), &["--threshold", &threshold]).ends(1);
    assert_eq!(amiss(&answer), ["threshold_differs"]);
}

#[test]
fn a_party_counts_once_however_many_logs_it_has() {
    let (mut committee, under) = (Committee::new(), folder());
    let act = Act::Sign { key: committee.key(), tx: Tx::of(digest(1)) };
    let made = signature(&committee.signer, &digest(1));
    let intent = committee.parties[0].intend(act.clone(), "s-1");
    committee.parties[0].add(Entry::outcome(intent, Outcome::signed(made)));
    // The same party's second log tells it once more.
    let mut second = Party::new(4);
    let intent = second.intend(act, "s-1");
    second.add(Entry::outcome(intent, Outcome::signed(made)));
    let folder = second.export(under.path());
    let given = format!("party-1={}={}", second.key(), folder.display());
    let answer = reconcile(&mut committee, under.path(), &["--party", &given]).ends(1);
    assert!(amiss(&answer).contains(&"too_few_decisions".to_owned()), "{}", answer.out);
}

#[test]
fn a_party_whose_log_is_not_given_is_named() {
    let (mut committee, under) = (Committee::new(), folder());
    committee.sign("s-1", digest(1), &[0, 1]);
    let words = committee.exported(under.path());
    let two: Vec<&str> = ["reconcile", "--json"].into_iter().chain(words[..4].iter().map(String::as_str)).collect();
    let answer = audit(&two).ends(0);
    assert!(answer.out.contains("no good log of party-3, which took part, was given"), "{}", answer.out);
    let one: Vec<&str> = ["reconcile", "--json"].into_iter().chain(words[..2].iter().map(String::as_str)).collect();
    let answer = audit(&one).ends(1);
    assert!(amiss(&answer).contains(&"too_few_decisions".to_owned()));
}

#[test]
fn a_log_without_any_checkpoint_is_amiss_unless_the_auditor_says_that_there_is_none() {
    let (mut committee, under) = (Committee::new(), folder());
    committee.sign("s-1", digest(1), &[0, 1]);
    let words = committee.exported(under.path());
    fs::write(under.path().join("party-2/checkpoints.jsonl"), "").unwrap();
    let words: Vec<&str> = ["reconcile", "--json"].into_iter().chain(words.iter().map(String::as_str)).collect();
    let answer = audit(&words).ends(1);
    assert_eq!(amiss(&answer), ["no_checkpoint"]);
    let answer = audit(&[&words[..], &["--without-checkpoints"]].concat()).ends(0);
    assert!(answer.out.contains("no_checkpoint"), "{}", answer.out);
}

fn of(t: u16, n: u16) -> Threshold {
    Threshold::new(t, n).unwrap()
}

#[test]
fn signatures_need_what_their_key_needed_when_they_were_made() {
    let (mut committee, under) = (Committee::new(), folder());
    committee.sign("s-1", digest(1), &[0, 1]);
    let all = |epoch, threshold| [0, 1, 2].map(|number| (number, epoch, threshold));
    committee.rotate("r-1", &all(1, of(3, 3)));
    committee.sign("s-2", digest(2), &[0, 1, 2]);
    let found = reconcile(&mut committee, under.path(), &[]).ends(0).json();
    let needed: Vec<_> =
        found["findings"]["signatures"].as_array().unwrap().iter().map(|s| s["needed"].clone()).collect();
    assert_eq!(needed, [2, 3]);
    // The certificate of the later epoch says what the later epoch needs.
    let threshold = format!("{}=3-of-3", committee.key());
    reconcile(&mut committee, under.path(), &["--threshold", &threshold]).ends(0);
    committee.sign("s-3", digest(3), &[0, 1]);
    let answer = reconcile(&mut committee, under.path(), &[]).ends(1);
    assert_eq!(amiss(&answer), ["too_few_decisions"]);
}

/// Who deals and leaves takes part as well.
#[test]
fn a_party_may_leave_in_a_rotation() {
    let (mut committee, under) = (Committee::new(), folder());
    committee.rotate("r-1", &[0, 1, 2].map(|number| (number, 1, of(2, 2))));
    reconcile(&mut committee, under.path(), &[]).ends(0);
    committee.rotate("r-2", &[0, 1].map(|number| (number, 2, of(2, 3))));
    let answer = reconcile(&mut committee, under.path(), &[]).ends(1);
    assert_eq!(amiss(&answer), ["participants_differ"]);
}

#[test]
fn parties_that_tell_a_rotation_differently_are_found() {
    for (ends, kinds) in [
        (vec![(0, 1, of(2, 3)), (1, 2, of(2, 3)), (2, 1, of(2, 3))], vec!["story_differs"]),
        (vec![(0, 1, of(2, 3)), (1, 1, of(3, 3)), (2, 1, of(2, 3))], vec!["story_differs"]),
        (vec![(0, 1, of(2, 3))], vec!["known_to_one", "participants_differ"]),
    ] {
        let (mut committee, under) = (Committee::new(), folder());
        committee.rotate("r-1", &ends);
        let answer = reconcile(&mut committee, under.path(), &[]).ends(1);
        assert_eq!(amiss(&answer), kinds, "{ends:?}");
    }
}

#[test]
fn two_rotations_to_one_epoch_are_found() {
    let (mut committee, under) = (Committee::new(), folder());
    for session in ["r-1", "r-2"] {
        committee.rotate(session, &[0, 1, 2].map(|number| (number, 1, of(2, 3))));
    }
    let answer = reconcile(&mut committee, under.path(), &[]).ends(1);
    assert_eq!(amiss(&answer), ["epoch_twice"]);
}
