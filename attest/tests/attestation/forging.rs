//! Attempts to pass a token off as another one.

use std::time::Duration;

use casemate_attest::attestation::{Claims, Expected, TokenError, Verified};

use super::support::*;

#[test]
fn no_byte_of_a_token_can_be_changed() {
    let whole = token(&claims());
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(check(&changed).is_err(), "byte {at}");
    }
}

#[test]
fn a_token_for_another_nonce_is_refused() {
    let other = token(&Claims { nonces: nonce(2).into(), ..claims() });
    assert_eq!(check(&other).unwrap_err(), TokenError::OtherNonce(nonce(1)));
}

#[test]
fn a_token_is_good_from_its_making_to_its_end_and_no_longer_than_the_skew_around_it() {
    let token = token(&claims());
    for good in [NOW - 30, NOW, NOW + 299, NOW + 329] {
        assert!(check_at(&token, good).is_ok(), "{good}");
    }
    assert!(matches!(check_at(&token, NOW - 31), Err(TokenError::FromTheFuture { .. })));
    assert!(matches!(check_at(&token, NOW + 330), Err(TokenError::Expired { .. })));
    assert!(matches!(check_at(&token, NOW + 86_400), Err(TokenError::Expired { .. })));
}

#[test]
fn a_token_of_another_key_is_refused_even_under_the_right_key_id() {
    let foreign = token_by(&claims(), &key(2));
    assert!(matches!(check(&foreign), Err(TokenError::OtherKey { .. })));
    // Key 2 signs a token that names key 1.
    let unsigned = claims().unsigned(&public(&key(1))).unwrap();
    let mut forged = token(&claims());
    let start = forged.len() - 64;
    forged[start..].copy_from_slice(&sign(&key(2), unsigned.to_sign()));
    assert_eq!(check(&forged).unwrap_err(), TokenError::Signature);
}

#[test]
fn another_partys_token_is_refused() {
    let other = token(&Claims { party: "party-2".parse().unwrap(), ..claims() });
    assert!(matches!(check(&other), Err(TokenError::OtherParty { .. })));
}

#[test]
fn a_token_of_several_nonces_answers_each_of_them_and_no_other() {
    let nonces = casemate_attest::attestation::Nonces::new(vec![nonce(2), nonce(3)]).unwrap();
    let token = token(&Claims { nonces, ..claims() });
    let (key, party) = (public(&key(1)), party());
    let ask = |nonce| {
        let (now, skew) = (time(NOW), Duration::ZERO);
        Verified::check(&token, &Expected { party: &party, key: &key, nonce: &nonce, now, skew }).is_ok()
    };
    assert!(ask(nonce(2)) && ask(nonce(3)));
    assert!(!ask(nonce(1)) && !ask(casemate_attest::attestation::Nonce::new(vec![2; 31]).unwrap()));
}

#[test]
fn what_the_key_signs_elsewhere_is_no_token_and_a_token_is_nothing_else() {
    // The Sig_structure of COSE begins with an array of four and its context.
    let unsigned = claims().unsigned(&public(&key(1))).unwrap();
    assert!(unsigned.to_sign().starts_with(b"\x84\x6aSignature1"));
}
