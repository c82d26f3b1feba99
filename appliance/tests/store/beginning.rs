//! How a log begins: both, once, and never by the daemon.

use casemate_appliance::store::{Anchor, StoreError};
use casemate_attest::Refusal;

use super::site::{MemoryAnchor, Mood, Site};

#[test]
fn a_store_is_never_made_by_opening_it() {
    let site = Site::new();
    let error = site.try_open().err().unwrap();
    assert!(matches!(error, StoreError::NotBegun(_)) && error.to_string().contains("casemate audit init"), "{error}");
    assert!(!site.database().exists() && site.anchor.standing().is_none());
}

#[test]
fn the_beginning_makes_database_and_anchor_and_both_agree() {
    let site = Site::new();
    let place = site.begin("casemate/party-1/test").unwrap();
    assert_eq!((place.size, site.anchor.standing()), (1, Some(place)));
    let store = site.open();
    assert_eq!((store.verdict(), store.audit_head().size()), ("equal", 1));
}

#[test]
fn a_second_beginning_is_refused_on_either() {
    let site = Site::begun();
    let (database, anchored) = (site.copy(), site.anchor.standing());
    let refused = || match site.begin("casemate/party-1/second") {
        Err(StoreError::Begun(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(refused().contains("casemate.db is there already"));
    std::fs::remove_file(site.database()).unwrap();
    assert!(refused().contains("casemate/party-1/test"));
    assert!(!site.database().exists());
    site.anchor.replace(None);
    site.restore(&database);
    assert!(refused().contains("casemate.db is there already"));
    site.anchor.spoil("two of one size");
    std::fs::remove_file(site.database()).unwrap();
    assert!(refused().contains("two of one size"));
    assert_eq!(anchored.unwrap().size, 1);
}

#[test]
fn a_beginning_that_was_cut_off_anywhere_is_done_again() {
    for mood in [Mood::Refuses, Mood::LosesAnswers] {
        let site = Site::new();
        site.anchor.mood(mood);
        assert!(matches!(site.begin("casemate/party-1/first"), Err(StoreError::Anchor(_))));
        assert!(!site.database().exists());
        match (mood, site.try_open()) {
            (Mood::Refuses, Err(StoreError::NotBegun(_))) => {}
            (Mood::LosesAnswers, Ok(store)) => {
                let finding = &store.quarantine().unwrap().finding;
                assert_eq!(finding.verdict, Refusal::AnchorWithoutDatabase);
            }
            (_, other) => panic!("{:?}", other.err()),
        }
        site.anchor.mood(Mood::Works);
        let place = site.begin("casemate/party-1/second").unwrap();
        assert_eq!(site.anchor.standing().as_ref(), Some(&place));
        let finished = place.log.as_str() == "casemate/party-1/first";
        assert_eq!(finished, mood == Mood::LosesAnswers, "what the anchor knows already is brought to its end");
        assert_eq!(site.open().audit_head().root(), place.root);
    }
}

#[test]
fn what_is_left_of_another_beginning_is_not_taken_for_this_one() {
    let (site, other) = (Site::new(), Site::new());
    site.anchor.mood(Mood::Refuses);
    assert!(site.begin("casemate/party-1/first").is_err());
    site.anchor.mood(Mood::Works);
    let mut foreign = MemoryAnchor::default();
    other.begin("casemate/party-1/first").unwrap();
    foreign.put(None, &other.anchor.standing().unwrap()).unwrap();
    site.anchor.replace(foreign.standing());
    assert!(matches!(site.begin("casemate/party-1/first"), Err(StoreError::Begun(_))));
}
