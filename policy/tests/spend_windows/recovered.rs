//! Windows count as full after the audit log was begun anew, until they have passed.

use casemate_policy::Bundle;
use jiff::Timestamp;

use super::common::*;
use super::{Party, dollars, limits, transfer};

/// A bundle of one permit with the id `all`.
fn only(permit: &str) -> Bundle {
    let entities = include_str!("../data/starter/entities.json");
    load(&folder(&[("all.cedar", permit), ("entities.json", entities), ("tests/a.json", ONE_ALLOWED)])).unwrap()
}

/// The log of this party is begun anew at the party's present time.
fn recovered(party: &mut Party) {
    party.ledger.fill_since(party.clock);
}

#[test]
fn after_a_recovery_each_window_refuses_until_it_has_passed() {
    let mut party = Party::new(limits());
    recovered(&mut party);
    // Amounts, fees and counts of an hour and a day; a group's week.
    assert_eq!(party.refused(&transfer(1, 0)), ["count-hour", "fees-day", "spent-hour"]);
    assert_eq!(party.refused(&dollars(2, 1)), ["count-hour", "fees-day", "group-week"]);
    party.clock += 3600;
    assert_eq!(party.refused(&transfer(1, 1)), ["fees-day"]);
    party.clock += 23 * 3600 - 1;
    assert_eq!(party.refused(&transfer(1, 1)), ["fees-day"]);
    party.clock += 1;
    party.sign(&transfer(1, 1)).unwrap();
    assert_eq!(party.refused(&dollars(2, 1)), ["group-week"]);
    party.clock += 6 * 86_400 - 1;
    assert_eq!(party.refused(&dollars(2, 1)), ["group-week"]);
    party.clock += 1;
    party.sign(&dollars(2, 1)).unwrap();
}

#[test]
fn after_a_clock_that_was_far_ahead_windows_are_full_by_the_ledgers_own_time() {
    let mut party = Party::new(limits());
    let real = party.clock;
    party.clock += 30 * 86_400;
    party.sign(&transfer(1, 1)).unwrap();
    // The clock is put right. Since the real moment alone no window would be full: the ledger's time is ahead of it.
    party.clock = real;
    party.ledger.fill_from(party.clock);
    assert_eq!(party.refused(&transfer(1, 0)), ["count-hour", "fees-day", "spent-hour"]);
    party.clock = real + 30 * 86_400 + 86_399;
    assert_eq!(party.refused(&transfer(1, 1)), ["fees-day"]);
    party.clock += 1;
    party.sign(&transfer(1, 1)).unwrap();
}

#[test]
fn a_refusal_by_a_full_window_says_so_and_until_when() {
    let mut party = Party::new(limits());
    recovered(&mut party);
    let denied = party.sign(&transfer(1, 1)).unwrap_err();
    let since = Timestamp::from_second(party.clock).unwrap();
    let until = Timestamp::from_second(party.clock + 86_400).unwrap();
    let sentence = format!(
        "what was spent before {since} is not known to this appliance, since its audit log was begun anew or a backup restored, \
         its clock was wrong, or the key came to it then: its windows of a day count as full until {until}"
    );
    assert!(denied.explanation().contains(&sentence), "{:?}", denied.explanation());
    assert!(denied.reason().ends_with(&sentence), "{}", denied.reason());
    // A refusal for another reason says nothing of it.
    party.clock += 86_400;
    let denied = party.sign(&transfer(1, 3001)).unwrap_err();
    assert_eq!(refused_by(&denied), ["spent-hour"]);
    assert!(!denied.reason().contains("anew"), "{}", denied.reason());
}

#[test]
fn a_permit_that_needs_room_in_a_full_window_does_not_match_and_the_refusal_says_why() {
    let permit = r#"@id("all") permit (principal, action, resource)
        when { action != Mpc::Action::"Sign" || context.count.day <= 100 };"#;
    let mut party = Party::new(only(permit));
    recovered(&mut party);
    let denied = party.sign(&transfer(1, 1)).unwrap_err();
    assert!(denied.policies().is_empty());
    assert!(denied.reason().contains("count as full until"), "{}", denied.reason());
    party.clock += 86_400;
    party.sign(&transfer(1, 1)).unwrap();
}

#[test]
fn a_policy_without_windows_is_judged_as_ever_after_a_recovery() {
    let mut party = Party::new(only(ALLOW_ALL));
    recovered(&mut party);
    party.sign(&transfer(1, 3_000_000)).unwrap();
}

#[test]
fn a_clock_that_is_set_back_keeps_the_windows_full() {
    let mut party = Party::new(limits());
    recovered(&mut party);
    party.clock -= 1_000_000;
    assert_eq!(party.refused(&transfer(1, 0)), ["count-hour", "fees-day", "spent-hour"]);
    // Nor does an earlier moment take the place of a later one.
    party.ledger.fill_since(party.clock - 1_000_000);
    party.clock += 1_000_000 + 3599;
    assert_eq!(party.refused(&transfer(1, 0)), ["count-hour", "fees-day", "spent-hour"]);
}

#[test]
fn a_key_that_came_later_has_full_windows_and_the_others_have_not() {
    let mut party = Party::new(limits());
    let mut other = Party::new(limits());
    other.ledger.fill_key_since(super::OTHER.parse().unwrap(), other.clock);
    other.sign(&transfer(1, 0)).unwrap();
    party.ledger.fill_key_since(KEY.parse().unwrap(), party.clock);
    assert_eq!(party.refused(&transfer(1, 0)), ["count-hour", "fees-day", "spent-hour"]);
    party.clock += 3600;
    assert_eq!(party.refused(&transfer(1, 1)), ["fees-day"]);
}
