//! A TPM's quote inside a token.

use casemate_attest::attestation::{Claims, Nonces, Quote, QuoteError, TokenError};
use casemate_wire::Digest32;

use super::support::*;

fn refused(quote: Quote) -> QuoteError {
    match check(&token(&Claims { quote: Some(quote), ..claims() })) {
        Err(TokenError::Quote(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn resigned(attested: Vec<u8>) -> Quote {
    let signature = sign(&key(5), &attested);
    Quote { attested, signature, ..quote(&claims().nonces) }
}

#[test]
fn a_good_quote_tells_how_often_the_host_was_started() {
    let token = verified(&Claims { quote: Some(quote(&claims().nonces)), ..claims() });
    let info = token.quote().unwrap();
    assert_eq!((info.resets, info.restarts, info.clock_safe, info.firmware), (5, 1, true, 0x1234));
    assert!(verified(&claims()).quote().is_none());
}

#[test]
fn a_quote_for_other_nonces_or_another_order_is_refused() {
    assert_eq!(refused(quote(&nonce(2).into())), QuoteError::OtherNonce);
    let (one, two) = (nonce(1), nonce(2));
    let order = Nonces::new(vec![one.clone(), two.clone()]).unwrap();
    let reversed = Nonces::new(vec![two, one]).unwrap();
    let token = token(&Claims { nonces: order, quote: Some(quote(&reversed)), ..claims() });
    assert_eq!(check(&token).unwrap_err(), TokenError::Quote(QuoteError::OtherNonce));
}

#[test]
fn a_quote_of_a_token_by_another_attest_key_is_refused() {
    let claims = Claims { quote: Some(quote(&claims().nonces)), ..claims() };
    let (other, party, nonce) = (public(&key(2)), party(), nonce(1));
    let expected = casemate_attest::attestation::Expected {
        party: &party,
        key: &other,
        nonce: &nonce,
        now: time(NOW),
        skew: std::time::Duration::ZERO,
    };
    let checked = casemate_attest::attestation::Verified::check(&token_by(&claims, &key(2)), &expected);
    assert_eq!(checked.unwrap_err(), TokenError::Quote(QuoteError::OtherNonce));
}

#[test]
fn values_or_indexes_that_the_tpm_did_not_sign_are_refused() {
    let good = quote(&claims().nonces);
    let mut other = good.clone();
    other.pcrs[1].1 = Digest32([0; 32]);
    assert_eq!(refused(other), QuoteError::OtherValues);
    let mut fewer = good.clone();
    fewer.pcrs.pop();
    assert_eq!(refused(fewer), QuoteError::OtherSelection);
    let mut moved = good.clone();
    moved.pcrs[1].0 = 8;
    assert_eq!(refused(moved), QuoteError::OtherSelection);
    assert_eq!(refused(Quote { signature: [1; 64], ..good }), QuoteError::Signature);
}

#[test]
fn what_a_tpm_would_not_call_a_quote_is_refused_even_if_its_key_signed_it() {
    let good = attested(&claims().nonces, &pcrs());
    for length in 0..good.len() {
        assert!(matches!(refused(resigned(good[..length].to_vec())), QuoteError::Malformed(_)), "{length}");
    }
    let change = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        refused(resigned(bytes))
    };
    assert_eq!(change(0, 0), QuoteError::Malformed("no TPM made it"));
    assert_eq!(change(5, 0x17), QuoteError::Malformed("it attests something else than PCRs"));
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(refused(resigned(longer)), QuoteError::Malformed("there are bytes after its end"));
}

#[test]
fn every_changed_bit_of_a_signed_quote_shows_or_changes_only_what_it_says() {
    // Signer's name, clock and firmware are the TPM's own words: bytes 8-9, 44-60 and 61-68. All else is compared.
    let good = attested(&claims().nonces, &pcrs());
    for at in (0..good.len()).filter(|at| !(8..10).contains(at) && !(44..69).contains(at)) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        refused(resigned(bytes));
    }
}

#[test]
fn a_quote_that_no_pc_makes_is_not_put_into_a_token() {
    let key = public(&key(1));
    for pcrs in [vec![], vec![(24, Digest32([0; 32]))], vec![(3, Digest32([0; 32])), (3, Digest32([0; 32]))]] {
        let quote = Quote { pcrs, ..quote(&claims().nonces) };
        assert!(Claims { quote: Some(quote), ..claims() }.unsigned(&key).is_err());
    }
}
