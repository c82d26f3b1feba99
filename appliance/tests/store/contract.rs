//! What every anchor must do: the suite runs against the one in memory and, in `softhsm-tests`, against a real token.

use casemate_appliance::store::Anchor;
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
    anchor.put(&first).unwrap();
    stands(&mut anchor, &first);
    anchor.put(&first).unwrap();
    stands(&mut open(), &first);

    let later = place("a", 70, 2);
    anchor.put(&later).unwrap();
    for refused in [place("a", 69, 2), place("a", 1, 1), place("a", 70, 3), place("b", 71, 4), place("b", 70, 2)] {
        assert!(anchor.put(&refused).is_err(), "{refused:?}");
        stands(&mut anchor, &later);
    }
    let mut other = open();
    for replacing in [place("b", 1, 7), place("b", 1, 7), place("a", 70, 2)] {
        other.replace(&replacing).unwrap();
        stands(&mut anchor, &replacing);
    }
    for size in 71..90 {
        let next = place("a", size, 5);
        other.put(&next).unwrap();
        stands(&mut anchor, &next);
    }
}
