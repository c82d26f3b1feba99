//! A refused caller keeps the receipt: it proves what was refused, and nothing that anybody makes of it proves more.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_wrap, clippy::similar_names)]

mod common;

use casemate_attest::{AuditKey, Disclosure, Entry, Line, Op, Receipt, ReceiptError, SignedReceipt};
use casemate_wire::PartyId;
use common::{allow, deny, key, origin, sample, time, tx};
use p256::ecdsa::{Signature, SigningKey, signature::Signer};
use p256::pkcs8::{EncodePublicKey, LineEnding};
use proptest::prelude::*;
use serde_json::{Value, json};

fn signer(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).unwrap()
}

fn audit_key(signer: &SigningKey) -> AuditKey {
    AuditKey::from_spki(signer.verifying_key().to_public_key_der().unwrap().as_bytes()).unwrap()
}

fn sign(signer: &SigningKey, text: &str) -> [u8; 64] {
    let signature: Signature = signer.sign(text.as_bytes());
    signature.to_bytes().into()
}

fn party() -> PartyId {
    "party-1".parse().unwrap()
}

/// The refusal of the sample log, its receipt, and the receipt's text.
fn refused() -> (Line, Receipt, String) {
    let line = sample().lines[5].clone();
    let receipt = Receipt::of(&party(), &line).unwrap();
    let text = receipt.to_text().unwrap();
    (line, receipt, text)
}

#[test]
fn a_receipt_says_what_the_leaf_says_in_one_known_text() {
    let (line, _, text) = refused();
    let expected = format!(
        concat!(
            r#"{{"at":"2025-11-20T12:30:05.123Z","bundle":"{bundle}","code":"policy_denied","detail":"{detail}","#,
            r#""domain":"casemate/refusal/v1","key":"{key}","leaf":"{leaf}","log":"casemate/party-1/sample","#,
            r#""message_hash":"{hash}","party":"party-1","policies":["small-transfers"],"request":"req-s-1","seq":5,"#,
            r#""session":"s-1"}}"#
        ),
        bundle = "b0".repeat(32),
        key = common::KEY,
        leaf = line.hash(),
        hash = "d1".repeat(32),
        detail = common::reason("over the limit").commitment().unwrap(),
    );
    assert_eq!(text, expected);
}

#[test]
fn a_signed_receipt_verifies_under_its_key_and_against_its_log() {
    let (line, receipt, text) = refused();
    let signer = signer(7);
    let disclosure = Some(common::reason("over the limit"));
    let signed = SignedReceipt { signature: sign(&signer, &text), receipt: text, disclosure };
    let handed_over = serde_json::to_value(&signed).unwrap();
    assert_eq!(handed_over["signature"].as_str().unwrap().len(), 128);
    let received: SignedReceipt = serde_json::from_value(handed_over).unwrap();
    let verified = received.verify(&audit_key(&signer)).unwrap();
    assert_eq!(verified, receipt);
    assert_eq!(verified.check_against(&line), Ok(()));
    let mut other = received.clone();
    other.disclosure = Some(common::reason("over another limit"));
    assert_eq!(other.verify(&audit_key(&signer)), Err(ReceiptError::OtherDetail));
    other.disclosure = Some(Disclosure { salt: [0; 32], ..common::reason("over the limit") });
    assert_eq!(other.verify(&audit_key(&signer)), Err(ReceiptError::OtherDetail));
}

#[test]
fn every_altered_byte_and_every_other_key_is_found() {
    let (_, _, text) = refused();
    let (signer, other) = (signer(7), signer(8));
    let signature = sign(&signer, &text);
    let key = audit_key(&signer);
    for place in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[place] ^= 1;
        let altered = String::from_utf8(bytes).unwrap();
        assert_eq!(Receipt::verify(&altered, &signature, &key), Err(ReceiptError::BadSignature), "byte {place}");
    }
    for place in 0..signature.len() {
        let mut altered = signature;
        altered[place] ^= 1;
        assert_eq!(Receipt::verify(&text, &altered, &key), Err(ReceiptError::BadSignature), "byte {place}");
    }
    assert_eq!(Receipt::verify(&text, &signature, &audit_key(&other)), Err(ReceiptError::BadSignature));
    assert_eq!(Receipt::verify(&text, &[0; 64], &key), Err(ReceiptError::BadSignature));
}

#[test]
fn nothing_else_that_the_audit_key_signs_is_a_receipt() {
    let (line, _, text) = refused();
    let signer = signer(7);
    let fields: Value = serde_json::from_str(&text).unwrap();
    let with = |name: &str, value: Value| {
        let mut fields = fields.clone();
        fields[name] = value;
        serde_json_canonicalizer::to_string(&fields).unwrap()
    };
    let without = |name: &str| {
        let mut fields = fields.clone();
        fields.as_object_mut().unwrap().remove(name).unwrap();
        serde_json_canonicalizer::to_string(&fields).unwrap()
    };
    let checkpoint = format!("casemate/party-1/sample\n12\n{}\n\n", "a".repeat(44));
    for (case, other) in [
        ("a checkpoint", checkpoint),
        ("a leaf", line.as_str().to_owned()),
        ("another domain", with("domain", json!("casemate/hello/v1"))),
        ("the next version of it", with("domain", json!("casemate/refusal/v2"))),
        ("without a domain", without("domain")),
        ("without a leaf", without("leaf")),
        ("without its policies", without("policies")),
        ("with a field that means nothing here", with("amount", json!("1"))),
        ("with terminal escapes", with("detail", json!("\u{1b}[2J"))),
        ("with a place that no log has", with("seq", json!(1u64 << 53))),
        ("nothing", String::new()),
        ("brackets", "[".repeat(10_000)),
        ("too long", format!("{text}{}", " ".repeat(64 * 1024))),
    ] {
        let found = Receipt::verify(&other, &sign(&signer, &other), &audit_key(&signer));
        assert!(matches!(found, Err(ReceiptError::NotAReceipt(_))), "{case}: {found:?}");
        let told = found.unwrap_err().to_string();
        assert!(told.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{case}: {told:?}");
    }
    for (case, other) in [
        ("spaces", text.replace(',', ", ")),
        (
            "order",
            format!(
                "{{\"domain\":\"casemate/refusal/v1\",{}",
                text[1..].replace(r#""domain":"casemate/refusal/v1","#, "")
            ),
        ),
        ("a line break after it", format!("{text}\n")),
        ("an explicit null", with("session", Value::Null)),
        ("upper-case hex", text.replace("d1d1", "D1D1")),
    ] {
        assert_ne!(other, text, "{case}");
        let found = Receipt::verify(&other, &sign(&signer, &other), &audit_key(&signer));
        assert_eq!(found, Err(ReceiptError::NotCanonical), "{case}");
    }
}

#[test]
fn only_a_refusal_by_policy_has_a_receipt() {
    let log = sample();
    for line in &log.lines {
        let refused = line.leaf().decision.as_ref().is_some_and(|decision| *decision == deny());
        assert_eq!(Receipt::of(&party(), line).is_some(), refused, "{}", line.as_str());
    }
    let bad_token = Entry::refusal(Op::Sign, origin("s-9"), "invalid_join_token".parse().unwrap());
    let line = log.head.append(bad_token, time(20)).unwrap().line;
    assert_eq!(Receipt::of(&party(), &line), None);
}

#[test]
fn a_receipt_is_borne_out_by_its_own_leaf_alone() {
    let (line, receipt, _) = refused();
    let log = sample();
    for other in log.lines.iter().filter(|other| **other != line) {
        assert!(matches!(receipt.check_against(other), Err(ReceiptError::OtherLeaf(_))), "{}", other.as_str());
    }
    let mut elsewhere = receipt.clone();
    elsewhere.log = "casemate/party-1/other".parse().unwrap();
    assert!(elsewhere.check_against(&line).is_err());
    // An appliance that signs something else than it logged is caught by its own log.
    let mut milder = receipt.clone();
    milder.policies.clear();
    assert_eq!(
        milder.check_against(&line),
        Err(ReceiptError::OtherLeaf("the leaf says something else than the receipt"))
    );
    let mut elsewhere = receipt;
    elsewhere.seq += 1;
    assert!(elsewhere.check_against(&line).is_err());
}

#[test]
fn a_refusal_cannot_say_that_policy_allowed() {
    let entry = Entry::refusal(Op::Sign, origin("s-9"), "x".parse().unwrap());
    let entry = entry.about(Some(key()), Some(tx()));
    assert!(sample().head.append(entry.clone().decided(deny()), time(20)).is_ok());
    let found = sample().head.append(entry.decided(allow()), time(20));
    assert!(found.unwrap_err().to_string().contains("a denial"));
}

#[test]
fn audit_keys_are_read_as_hex_and_as_pem_and_nothing_else() {
    let signer = signer(7);
    let key = audit_key(&signer);
    let pem = signer.verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
    for text in [key.to_string(), format!("{key}\n"), pem.clone(), pem.replace('\n', "\r\n")] {
        assert_eq!(text.parse::<AuditKey>().unwrap(), key, "{text}");
    }
    for bad in ["", "zz", "00", &key.to_string()[2..], &pem.replace("PUBLIC", "PRIVATE"), "-----BEGIN PUBLIC KEY-----"]
    {
        assert!(bad.parse::<AuditKey>().is_err(), "{bad}");
    }
}

proptest! {
    /// Whatever the key may have signed: only the text of a receipt is one, and it has one form.
    #[test]
    fn no_signed_text_but_a_receipts_own_is_taken(start in 0usize..400, cut in 0usize..40, put in "\\PC{0,40}") {
        let (_, _, text) = refused();
        let start = start.min(text.len());
        let altered = format!("{}{put}{}", &text[..start], &text[(start + cut).min(text.len())..]);
        let signer = signer(7);
        if let Ok(receipt) = Receipt::verify(&altered, &sign(&signer, &altered), &audit_key(&signer)) {
            prop_assert_eq!(receipt.to_text().unwrap(), altered);
        }
    }

    /// What was never signed is refused, however it looks.
    #[test]
    fn nothing_unsigned_is_taken(text in "\\PC{0,200}", signature in prop::array::uniform32(any::<u8>())) {
        let signature: [u8; 64] = [signature, signature].concat().try_into().unwrap();
        prop_assert!(Receipt::verify(&text, &signature, &audit_key(&signer(7))).is_err());
    }
}
