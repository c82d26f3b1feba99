//! The join token's checks, each with the attack that it stops.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use casemate_wire::rotation::{Auxiliary, Rotation};
use casemate_wire::token::{Claims, PinnedKey, TokenAlgorithm, TokenError, TokenSigner, verify};
use casemate_wire::{IdentityKey, Member, SessionType, ShareType, Threshold};
use p256::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};

const NOW: i64 = 1_800_000_000;

fn secret(seed: u8) -> p256::SecretKey {
    p256::SecretKey::from_slice(&[seed; 32]).unwrap()
}

fn signer(seed: u8) -> TokenSigner {
    let pem = secret(seed).to_pkcs8_pem(LineEnding::LF).unwrap();
    TokenSigner::new("main".into(), TokenAlgorithm::Es256, pem.as_bytes()).unwrap()
}

fn pinned() -> Vec<PinnedKey> {
    let pem = secret(1).public_key().to_public_key_pem(LineEnding::LF).unwrap();
    vec![PinnedKey::new("main".into(), TokenAlgorithm::Es256, pem.as_bytes()).unwrap()]
}

fn members(count: u16) -> Vec<Member> {
    let member = |index: u16| {
        let key = secret(u8::try_from(index).unwrap() + 10).public_key();
        Member {
            party_id: format!("party-{index}").parse().unwrap(),
            party_index: index,
            identity: IdentityKey::from_spki(key.to_public_key_der().unwrap().as_bytes()).unwrap(),
        }
    };
    (0..count).map(member).collect()
}

fn keygen() -> Claims {
    Claims {
        iss: "main".into(),
        aud: "party-1".parse().unwrap(),
        jti: "one".into(),
        iat: NOW,
        nbf: NOW,
        exp: NOW + 600,
        session_id: "s1".parse().unwrap(),
        session_type: SessionType::Keygen,
        threshold_t: 2,
        threshold_n: 3,
        participants: members(3),
        share_type: Some(ShareType::Wallet),
        label: None,
        public_key: None,
        message_hash: None,
        derivation_path: None,
        rotation: None,
    }
}

fn sign() -> Claims {
    let point = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    Claims {
        session_type: SessionType::Sign,
        participants: members(2),
        share_type: None,
        public_key: Some(point.parse().unwrap()),
        message_hash: Some("ab".repeat(32).parse().unwrap()),
        ..keygen()
    }
}

fn rotate() -> Claims {
    let rotation = Rotation {
        epoch: 2,
        from_epoch: 1,
        from_threshold: Threshold::new(2, 3).unwrap(),
        from_roster: members(3).try_into().unwrap(),
        dealers: vec!["party-0".parse().unwrap(), "party-1".parse().unwrap()],
        auxiliary: Auxiliary::Keep,
    };
    Claims {
        session_type: SessionType::Rotate,
        participants: members(3),
        share_type: Some(ShareType::Wallet),
        message_hash: None,
        rotation: Some(rotation),
        ..sign()
    }
}

fn outcome(claims: &Claims) -> Result<(), TokenError> {
    let token = signer(1).sign(claims).unwrap();
    verify(&token, &pinned(), &"party-1".parse().unwrap(), NOW, 30).map(|_| ())
}

fn refused_claim(claims: &Claims) -> &'static str {
    match outcome(claims) {
        Err(TokenError::Claim { claim, .. }) => claim,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn good_tokens_are_accepted() {
    assert_eq!(outcome(&keygen()), Ok(()));
    assert_eq!(outcome(&sign()), Ok(()));
    assert_eq!(outcome(&rotate()), Ok(()));
}

#[test]
fn a_rotation_names_its_key_and_its_dealers_and_nothing_else_names_them() {
    assert_eq!(refused_claim(&Claims { rotation: None, ..rotate() }), "rotation");
    assert_eq!(refused_claim(&Claims { rotation: rotate().rotation, ..sign() }), "rotation");
    assert_eq!(refused_claim(&Claims { rotation: rotate().rotation, ..keygen() }), "rotation");
    assert_eq!(refused_claim(&Claims { public_key: None, ..rotate() }), "session_type");
    assert_eq!(refused_claim(&Claims { message_hash: sign().message_hash, ..rotate() }), "session_type");
    let mut few = rotate();
    few.rotation.as_mut().unwrap().dealers.pop();
    assert_eq!(refused_claim(&few), "rotation");
}

#[test]
fn a_token_by_another_key_is_refused() {
    let token = signer(2).sign(&keygen()).unwrap();
    let result = verify(&token, &pinned(), &"party-1".parse().unwrap(), NOW, 30);
    assert_eq!(result.unwrap_err(), TokenError::BadSignature);
}

#[test]
fn a_token_with_any_altered_character_is_refused() {
    let token = signer(1).sign(&keygen()).unwrap();
    let audience = "party-1".parse().unwrap();
    for place in 0..token.len() {
        let mut altered = token.clone().into_bytes();
        altered[place] = if altered[place] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        assert!(verify(&altered, &pinned(), &audience, NOW, 30).is_err(), "character {place}");
    }
}

#[test]
fn the_algorithm_is_the_pinned_keys_and_no_other() {
    let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&keygen()).unwrap());
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS256","typ":"JWT"}"#, r#"{"alg":"EdDSA","typ":"JWT"}"#] {
        let token = format!("{}.{claims}.AAAA", URL_SAFE_NO_PAD.encode(header));
        let result = verify(&token, &pinned(), &"party-1".parse().unwrap(), NOW, 30);
        assert_eq!(result.unwrap_err(), TokenError::WrongAlgorithm, "{header}");
    }
    let with_key = r#"{"alg":"ES256","jwk":{"kty":"EC"}}"#;
    let token = format!("{}.{claims}.AAAA", URL_SAFE_NO_PAD.encode(with_key));
    let result = verify(&token, &pinned(), &"party-1".parse().unwrap(), NOW, 30);
    assert!(matches!(result, Err(TokenError::Malformed(_))));
}

#[test]
fn times_are_judged_with_the_skew() {
    let with = |iat: i64, nbf: i64, exp: i64| outcome(&Claims { iat, nbf, exp, ..keygen() });
    assert_eq!(with(NOW - 600, NOW - 600, NOW - 29), Ok(()));
    assert!(matches!(with(NOW - 600, NOW - 600, NOW - 30), Err(TokenError::Time(_))));
    assert_eq!(with(NOW + 30, NOW + 30, NOW + 600), Ok(()));
    assert!(matches!(with(NOW, NOW + 31, NOW + 600), Err(TokenError::Time(_))));
    assert!(matches!(with(NOW + 31, NOW, NOW + 600), Err(TokenError::Time(_))));
    assert!(matches!(with(NOW, NOW, NOW + 901), Err(TokenError::Time(_))));
    assert!(matches!(with(NOW, NOW, NOW), Err(TokenError::Time(_))));
    assert!(matches!(with(i64::MIN, NOW, NOW + 1), Err(TokenError::Time(_))));
}

#[test]
fn claims_that_disagree_with_themselves_are_refused() {
    let elsewhere = Claims { aud: "party-2".parse().unwrap(), ..keygen() };
    assert_eq!(refused_claim(&elsewhere), "aud");
    // In the audit log a token goes by its name alone, so that no two may look alike there.
    for jti in [String::new(), "a".repeat(129), "caf\u{e9}".into(), "a b".into(), "a\n".into()] {
        assert_eq!(refused_claim(&Claims { jti, ..keygen() }), "jti");
    }
    assert_eq!(refused_claim(&Claims { threshold_t: 1, ..keygen() }), "threshold");
    assert_eq!(refused_claim(&Claims { threshold_t: 4, ..keygen() }), "threshold");
    assert_eq!(refused_claim(&Claims { participants: members(2), ..keygen() }), "participants");
    let twice = [members(2), members(2)].concat();
    assert_eq!(refused_claim(&Claims { participants: twice, ..keygen() }), "participants");
    let without_us = members(3).into_iter().filter(|m| m.party_index != 1).collect();
    assert_eq!(refused_claim(&Claims { participants: without_us, ..sign() }), "participants");
    assert_eq!(refused_claim(&Claims { share_type: None, ..keygen() }), "share_type");
    assert_eq!(refused_claim(&Claims { message_hash: None, ..sign() }), "session_type");
    assert_eq!(refused_claim(&Claims { participants: members(3), ..sign() }), "participants");
    let outside = Claims { threshold_n: 2, participants: members(3)[1..].to_vec(), ..sign() };
    assert_eq!(refused_claim(&outside), "participants");
}

#[test]
fn unknown_and_repeated_claims_are_refused() {
    let good = serde_json::to_string(&keygen()).unwrap();
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","typ":"JWT"}"#);
    for text in [good.replacen('{', r#"{"admin":true,"#, 1), good.replacen('{', r#"{"iss":"main","#, 1)] {
        let token = format!("{header}.{}.AAAA", URL_SAFE_NO_PAD.encode(&text));
        let result = verify(&token, &pinned(), &"party-1".parse().unwrap(), NOW, 30);
        assert!(matches!(result, Err(TokenError::Malformed(_))), "{text}");
    }
}
