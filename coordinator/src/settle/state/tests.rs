#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use crate::session::testing::{party, sign_as, succession};

fn settling(committee: &[u16], parties: &[u16]) -> Settling {
    let standing = |index: &u16| Standing { party: party(*index), word: None, done: false };
    Settling::new(succession(committee, &[0, 1], |_| ()), Vec::new(), parties.iter().map(standing).collect())
}

fn word(settling: &Settling, index: u16) -> Switched {
    let text = switched_text(&settling.succession.certificate, &party(index));
    Switched { party_id: party(index), signature: sign_as(index, &text) }
}

fn answer(index: u16, switched: Option<Switched>, old_shares: u32) -> SettleAnswer {
    SettleAnswer { party_id: party(index), switched, old_shares }
}

/// One round in which each of these answers what is so of an honest party.
fn round(settling: &mut Settling, honest: &[u16]) -> bool {
    let told = settling.request();
    let all = all_switched(&settling.succession.certificate, &told.switched).is_ok();
    let mut onward = false;
    let due = settling.due();
    for index in honest.iter().filter(|index| due.contains(&party(**index))) {
        let member = settling.succession.certificate.statement.roster.position(&party(*index)).is_some();
        let said = answer(*index, member.then(|| word(settling, *index)), u32::from(!all));
        onward |= settling.hear(&party(*index), &told, &Ok(said)) == Heard::Onward;
    }
    onward
}

#[test]
fn words_are_gathered_and_then_all_are_told_until_no_old_share_is_left() {
    let mut settling = settling(&[0, 1, 3], &[0, 1, 2, 3]);
    assert!(round(&mut settling, &[0, 1, 2, 3]));
    assert!(!settling.is_over(), "nobody knew yet that all have switched");
    assert_eq!(settling.request().switched.len(), 3, "who has left has no word to give");
    assert!(round(&mut settling, &[0, 1, 2, 3]));
    assert!(settling.is_over() && settling.due().is_empty());
}

#[test]
fn nothing_is_done_while_one_of_the_new_committee_is_away() {
    let mut settling = settling(&[0, 1, 3], &[0, 1, 2, 3]);
    assert!(round(&mut settling, &[0, 1, 2]));
    assert!(!round(&mut settling, &[0, 1, 2]), "there is nothing new without the last word");
    assert_eq!(settling.due().len(), 4);
    assert!(round(&mut settling, &[0, 1, 2, 3]));
    assert!(round(&mut settling, &[0, 1, 2, 3]));
    assert!(settling.is_over());
}

#[test]
fn only_who_has_left_and_is_away_is_asked_again_once_all_others_are_done() {
    let mut settling = settling(&[0, 1, 3], &[0, 1, 2, 3]);
    for _ in 0..2 {
        assert!(round(&mut settling, &[0, 1, 3]));
    }
    assert_eq!((settling.due(), settling.is_over()), (vec![party(2)], false));
    assert!(round(&mut settling, &[2]));
    assert!(settling.is_over());
}

#[test]
fn a_party_without_an_old_share_is_not_done_before_it_knows_that_all_have_switched() {
    let mut settling = settling(&[0, 1, 3], &[0, 1, 3]);
    let told = settling.request();
    let joined = answer(3, Some(word(&settling, 3)), 0);
    assert_eq!(settling.hear(&party(3), &told, &Ok(joined)), Heard::Onward);
    assert!(settling.due().contains(&party(3)));
}

#[test]
fn false_words_and_answers_in_anothers_name_count_for_nothing() {
    let mut settling = settling(&[0, 1, 2], &[0, 1, 2]);
    let told = settling.request();
    let (own, other) = (word(&settling, 0), word(&settling, 1));
    let forged = Switched { signature: other.signature, ..own.clone() };
    for lie in [answer(0, Some(other), 0), answer(0, Some(forged), 0), answer(1, Some(own), 0)] {
        let heard = settling.hear(&party(0), &told, &Ok(lie));
        assert!(matches!(heard, Heard::Stuck(_)), "{heard:?}");
    }
    assert!(settling.request().switched.is_empty() && settling.due().len() == 3);
}

#[test]
fn who_holds_nothing_of_the_key_is_done_only_if_it_has_left() {
    let mut settling = settling(&[0, 1, 3], &[0, 1, 2, 3]);
    let told = settling.request();
    let nothing = Err(Problem::new(Code::ShareNotFound, "no share"));
    assert_eq!(settling.hear(&party(2), &told, &nothing), Heard::Onward);
    assert!(matches!(settling.hear(&party(3), &told, &nothing), Heard::Stuck(_)));
    assert_eq!(settling.due(), [party(0), party(1), party(3)]);
}

#[test]
fn who_has_left_and_is_configured_no_more_is_waited_for_no_longer() {
    let mut settling = settling(&[0, 1, 3], &[0, 1, 2, 3]);
    let reachable = |out: &'static [u16]| move |name: &PartyId| !out.iter().any(|index| &party(*index) == name);
    assert_eq!(settling.dismiss(reachable(&[])), []);
    assert_eq!(settling.dismiss(reachable(&[3])), [], "the new committee must switch");
    assert_eq!(settling.dismiss(reachable(&[2, 3])), [party(2)]);
    assert_eq!(settling.due(), [party(0), party(1), party(3)]);
    assert_eq!(settling.dismiss(reachable(&[2])), []);
}
