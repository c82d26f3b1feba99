//! What every anchor must do: the suite runs against the one in memory and, in `softhsm-tests`, against a real token.

use casemate_appliance::store::{Anchor, AnchorError};
use casemate_attest::{Anchored, Place};
use casemate_wire::Digest32;

/// A place of one of two logs.
pub fn place(log: &str, size: u64, root: u8) -> Place {
    Place { log: format!("casemate/contract/{log}").parse().unwrap(), size, root: Digest32([root; 32]) }
}

/// Runs the suite; `open` gives another handle to the same anchor, which holds nothing at first.
pub fn holds<A: Anchor>(mut open: impl FnMut() -> A) {
    let mut anchor = open();
    assert_eq!(anchor.place().unwrap(), Anchored::Nothing);
    let stands = |anchor: &mut A, place: &Place| assert_eq!(anchor.place().unwrap(), Anchored::At(place.clone()));

    let first = place("a", 1, 1);
    anchor.put(None, &first).unwrap();
    stands(&mut anchor, &first);
    for expected in [None, Some(&first)] {
        anchor.put(expected, &first).unwrap();
        stands(&mut open(), &first);
    }

    let later = place("a", 70, 2);
    anchor.put(Some(&first), &later).unwrap();
    // As after a lost answer.
    anchor.put(Some(&first), &later).unwrap();
    let conflict = |put: Result<(), AnchorError>| matches!(put, Err(AnchorError::Conflict(_)));
    for refused in [place("a", 69, 2), place("a", 1, 1), place("a", 70, 3), place("b", 71, 4), place("b", 70, 2)] {
        assert!(conflict(anchor.put(Some(&later), &refused)), "{refused:?}");
        stands(&mut anchor, &later);
    }
    // Whoever believes that something else stands there is a second writer, or the token was restored.
    for expected in [None, Some(&first), Some(&place("a", 70, 3)), Some(&place("a", 71, 2)), Some(&place("b", 70, 2))] {
        assert!(conflict(open().put(expected, &place("a", 72, 6))), "{expected:?}");
        stands(&mut anchor, &later);
    }
    let mut other = open();
    for replacing in [place("b", 1, 7), place("b", 1, 7), place("a", 70, 2)] {
        other.replace(&replacing).unwrap();
        stands(&mut anchor, &replacing);
    }
    let mut last = later;
    for size in 71..90 {
        let next = place("a", size, 5);
        other.put(Some(&last), &next).unwrap();
        assert!(conflict(anchor.put(Some(&last), &place("a", size + 1, 6))), "the other handle was first");
        stands(&mut anchor, &next);
        last = next;
    }
}
