//! The form of a token: what is signed, and that there is one form only.

use casemate_attest::attestation::{InvalidClaims, MAX_TOKEN, Nonces, TokenError, Unverified, describe};
use ciborium::Value;
use coset::{CborSerializable, CoseSign1, TaggedCborSerializable};
use proptest::prelude::*;

use super::support::*;

#[test]
fn a_token_says_what_went_into_it() {
    let with_quote = {
        let c = claims();
        let quote = quote(&c.nonces);
        casemate_attest::attestation::Claims { quote: Some(quote), ..c }
    };
    for claims in [claims(), with_quote] {
        let token = token(&claims);
        assert_eq!(*check(&token).unwrap().claims(), claims);
        let read = Unverified::read(&token).unwrap();
        assert_eq!((read.claims, read.key_id), (claims.clone(), public(&key(1)).fingerprint()));
        assert!(describe(&claims).iter().any(|claim| *claim == ("audit.size", "41".to_owned())));
    }
}

#[test]
fn registered_claims_stand_under_their_numbers_in_deterministic_order() {
    let message = CoseSign1::from_tagged_slice(&token(&claims())).unwrap();
    let payload = message.payload.unwrap();
    let Value::Map(entries) = ciborium::from_reader(payload.as_slice()).unwrap() else { panic!() };
    let numbers: Vec<i128> = entries.iter().map(|(key, _)| key.as_integer().unwrap().into()).collect();
    assert_eq!(numbers, [4, 6, 10, 256, 258, 259, 265, 267, 270, 271, 273, -70_000]);
    let private: Vec<&str> = entries[11].1.as_map().unwrap().iter().map(|(key, _)| key.as_text().unwrap()).collect();
    assert_eq!(private, ["kek", "audit", "party", "token", "tls_spki"]);
    // swversion = [version, scheme semver]; measurements = [[258 (application/swid+cbor), bytes]].
    assert_eq!(entries[9].1, Value::Array(vec!["0.1.0".into(), 16_384.into()]));
    assert_eq!(entries[10].1.as_array().unwrap()[0].as_array().unwrap()[0], Value::from(258));
}

#[test]
fn one_nonce_stands_alone_and_several_in_an_array() {
    let several = Nonces::new(vec![nonce(4), nonce(1), nonce(8)]).unwrap();
    let token = token(&casemate_attest::attestation::Claims { nonces: several.clone(), ..claims() });
    assert_eq!(check(&token).unwrap().claims().nonces, several);
    let in_array = |nonces: Value| altered(|entries| entries[2].1 = nonces);
    let one = |byte| Value::Bytes(vec![byte; 32]);
    assert!(check(&in_array(Value::Array(vec![one(1), one(2)]))).is_ok());
    // RFC 9711, section 4.1: an array has two or more.
    assert!(matches!(check(&in_array(Value::Array(vec![one(1)]))), Err(TokenError::Malformed(_))));
    assert!(matches!(check(&in_array(Value::Array(Vec::new()))), Err(TokenError::Malformed(_))));
    assert!(matches!(check(&in_array(Value::Array(vec![one(1); 17]))), Err(TokenError::Malformed(_))));
    assert!(matches!(check(&in_array(Value::Bytes(vec![1; 7]))), Err(TokenError::Malformed(_))));
}

/// The token of the usual claims with a payload changed by `change`, signed by the right key.
fn altered(change: impl FnOnce(&mut Vec<(Value, Value)>)) -> Vec<u8> {
    let mut message = CoseSign1::from_tagged_slice(&token(&claims())).unwrap();
    let mut payload: Value = ciborium::from_reader(message.payload.as_deref().unwrap()).unwrap();
    change(payload.as_map_mut().unwrap());
    let mut bytes = Vec::new();
    ciborium::into_writer(&payload, &mut bytes).unwrap();
    message.payload = Some(bytes);
    message.signature = sign(&key(1), &message.tbs_data(&[])).to_vec();
    message.to_tagged_vec().unwrap()
}

fn why(token: &[u8]) -> String {
    match check(token) {
        Err(TokenError::Malformed(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_signed_token_of_another_form_is_refused() {
    assert!(check(&altered(|_| {})).is_ok());
    assert!(why(&altered(|entries| entries.push((70.into(), 1.into())))).contains("unknown claim 70"));
    assert!(why(&altered(|entries| entries.push(("x".into(), 1.into())))).contains("unknown claim \"x\""));
    assert!(why(&altered(|entries| entries.swap(0, 1))).contains("deterministic"));
    assert!(why(&altered(|entries| entries.push(entries[7].clone()))).contains("unknown claim 267"));
    assert!(why(&altered(|entries| entries[6].1 = "urn:uuid:other".into())).contains("eat_profile"));
    assert!(why(&altered(|entries| drop(entries.remove(8)))).contains("no swname"));
    assert!(why(&altered(|entries| entries[1].1 = Value::Float(1.79e9))).contains("iat"));
    assert!(why(&altered(|entries| entries[1].1 = (-1).into())).contains("iat"));
    assert!(why(&altered(|entries| entries[0].1 = (NOW + 301).into())).contains("300 s"));
    assert!(why(&altered(|entries| entries[0].1 = NOW.into())).contains("300 s"));
    assert!(why(&altered(|entries| entries[3].1 = Value::Bytes(vec![2; 33]))).contains("RAND"));
    let private = |entries: &mut Vec<(Value, Value)>| entries[11].1.as_map_mut().unwrap().push(("zz".into(), 1.into()));
    assert!(why(&altered(private)).contains("unknown claim \"zz\""));
}

#[test]
fn only_es256_with_nothing_beside_it_is_a_token() {
    let change = |change: &dyn Fn(&mut CoseSign1)| {
        let mut message = CoseSign1::from_tagged_slice(&token(&claims())).unwrap();
        message.protected.original_data = None;
        change(&mut message);
        message.signature = sign(&key(1), &message.tbs_data(&[])).to_vec();
        message.to_tagged_vec().unwrap()
    };
    assert!(check(&change(&|_| {})).is_ok());
    let es384 = Some(coset::RegisteredLabelWithPrivate::Assigned(coset::iana::Algorithm::ES384));
    assert!(why(&change(&|message| message.protected.header.alg = es384.clone())).contains("ES256"));
    assert!(why(&change(&|message| message.protected.header.alg = None)).contains("ES256"));
    assert!(why(&change(&|message| message.protected.header.rest.clear())).contains("typ"));
    assert!(why(&change(&|message| message.protected.header.key_id.clear())).contains("kid"));
    assert!(why(&change(&|message| message.unprotected.key_id = vec![1])).contains("header"));
    assert!(why(&change(&|message| message.protected.header.iv = vec![1])).contains("header"));
    let untagged = CoseSign1::from_tagged_slice(&token(&claims())).unwrap().to_vec().unwrap();
    assert!(why(&untagged).contains("COSE_Sign1"));
    let without_payload = change(&|message| message.payload = None);
    assert!(check(&without_payload).is_err());
}

#[test]
fn what_is_cut_off_or_too_long_is_refused() {
    let whole = token(&claims());
    for length in 0..whole.len() {
        assert!(check(&whole[..length]).is_err() && Unverified::read(&whole[..length]).is_err(), "{length}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(matches!(check(&longer), Err(TokenError::Malformed(_))));
    assert_eq!(check(&vec![0; MAX_TOKEN + 1]).unwrap_err(), TokenError::TooLong);
    // A byte string that says it has 2^62 bytes, and arrays nested without end.
    for hostile in [hex::decode("d284405b4000000000000000").unwrap(), vec![0x81; MAX_TOKEN], vec![0xd2; MAX_TOKEN]] {
        assert!(matches!(check(&hostile), Err(TokenError::Malformed(_))));
    }
}

#[test]
fn claims_that_no_verifier_would_take_are_not_signed() {
    let key = public(&key(1));
    for (from, to) in [(NOW, NOW), (NOW, NOW + 301), (NOW, NOW - 1), (-5, 10)] {
        let claims = casemate_attest::attestation::Claims { issued_at: time(from), expires_at: time(to), ..claims() };
        assert_eq!(claims.unsigned(&key).unwrap_err(), InvalidClaims::Times);
    }
    let foreign = claims().unsigned(&key).unwrap();
    let signature = sign(&super::support::key(2), foreign.to_sign());
    assert_eq!(foreign.signed(&signature).unwrap_err(), InvalidClaims::Signature);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Unverified::read(&bytes);
    }

    #[test]
    fn no_mutation_makes_the_reader_panic_or_the_verifier_agree(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..8),
    ) {
        let whole = token(&claims());
        let mut bytes = whole.clone();
        for (place, byte, kind) in changes {
            let at = place.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        let _ = Unverified::read(&bytes);
        prop_assert!(bytes == whole || check(&bytes).is_err());
    }
}
