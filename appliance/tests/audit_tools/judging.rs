//! `verify` and `show`.

use std::fs;

use casemate_attest::{Act, Entry, Outcome, Tx};
use casemate_policy::intent::Signer;
use casemate_wire::certificate::{IdentitySignature, KeyStatement};
use casemate_wire::{IdentityKey, KeyCertificate, Member, Roster, ShareType};
use k256::ecdsa::SigningKey;
use p256::ecdsa::signature::Signer as _;
use p256::pkcs8::EncodePublicKey;
use sha2::{Digest, Sha512};

use super::committee::{Committee, digest, public, signature};
use super::{audit, text};

fn signed() -> Committee {
    let mut committee = Committee::new();
    committee.sign("s-1", digest(1), &[0, 1]);
    committee.parties[0].refuse("s-2");
    committee
}

#[test]
fn a_good_log_verifies_and_the_answer_says_what_was_not_checked() {
    let (mut committee, folder) = (signed(), tempfile::tempdir().unwrap());
    let party = &mut committee.parties[0];
    party.note();
    party.refuse("s-3");
    let export = party.export(folder.path());
    let log = export.join("log.jsonl");
    let bare = audit(&["verify", text(&log)]).ends(0).says("not checked: that this is the whole log");
    bare.says("not checked: 3 details, which were withheld");
    audit(&["verify", text(&export)]).ends(0).says("1 checkpoints that lie beside the log: give the audit key");
    let key = party.key().to_string();
    let known = audit(&["verify", text(&export), "--audit-key", &key, "--json"]).ends(0).json();
    assert_eq!(known["valid"], true);
    assert_eq!(known["report"]["checkpoints"], 1);
    assert_eq!(known["report"]["signatures"]["verified"], 1);
    assert_eq!(known["report"]["details"]["disclosed"], 3);
    let rest = known["not_checked"].as_array().unwrap();
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert!(rest[0].as_str().unwrap().contains("the last 1 leaves are beyond the newest checkpoint"));
}

#[test]
fn a_data_folder_says_what_its_export_says() {
    let (mut committee, folder) = (signed(), tempfile::tempdir().unwrap());
    let party = &mut committee.parties[0];
    party.note();
    let (data, export) = (party.database(folder.path()), party.export(folder.path()));
    let key = party.key().to_string();
    let from_data = audit(&["verify", "--data-dir", text(&data), "--audit-key", &key, "--json"]).ends(0).json();
    assert_eq!(from_data, audit(&["verify", text(&export), "--audit-key", &key, "--json"]).ends(0).json());
    assert_eq!(from_data, audit(&["verify", text(&data), "--audit-key", &key, "--format", "json"]).ends(0).json());
}

#[test]
fn segments_are_one_log_in_their_order_only() {
    let (committee, folder) = (signed(), tempfile::tempdir().unwrap());
    let lines = committee.parties[0].log_text();
    let cut = lines.match_indices('\n').nth(2).unwrap().0 + 1;
    let (first, second) = (folder.path().join("1.jsonl"), folder.path().join("2.jsonl"));
    fs::write(&first, &lines[..cut]).unwrap();
    fs::write(&second, &lines[cut..]).unwrap();
    audit(&["verify", text(&first), text(&second)]).ends(0);
    audit(&["verify", text(&second), text(&first)]).ends(1).says("NOT VALID");
    audit(&["verify", text(&second)]).ends(1);
    audit(&["verify", text(&first), text(&first)]).ends(1);
}

#[test]
fn a_log_that_was_cut_off_or_written_anew_falls_to_a_checkpoint() {
    let (mut committee, folder) = (signed(), tempfile::tempdir().unwrap());
    let party = &mut committee.parties[0];
    let (note, key) = (folder.path().join("note"), party.key().to_string());
    fs::write(&note, party.note()).unwrap();
    let whole = party.log_text();
    let log = folder.path().join("log.jsonl");
    let verify = || audit(&["verify", text(&log), "--checkpoint", text(&note), "--audit-key", &key]);
    fs::write(&log, &whole).unwrap();
    verify().ends(0).says("as signed in 1 checkpoints");
    let cut = whole.trim_end().rfind('\n').unwrap() + 1;
    fs::write(&log, &whole[..cut]).unwrap();
    verify().ends(1).says("its end was cut off");
    audit(&["verify", text(&log)]).ends(0);
    // Root of the host writes another history under the same name.
    let mut forged = signed();
    forged.parties[0].refuse("s-9");
    fs::write(&log, forged.parties[0].log_text().replace("s-2", "s-8")).unwrap();
    verify().ends(1);
    let mut other = Committee::new();
    for session in ["a", "b", "c", "d"] {
        other.parties[0].refuse(session);
    }
    fs::write(&log, other.parties[0].log_text()).unwrap();
    verify().ends(1).says("the log was rewritten");
    audit(&["verify", text(&log)]).ends(0);
}

#[test]
fn checkpoints_of_other_keys_prove_nothing() {
    let (mut committee, folder) = (signed(), tempfile::tempdir().unwrap());
    let note = folder.path().join("note");
    fs::write(&note, committee.parties[0].note()).unwrap();
    let export = committee.parties[0].export(folder.path());
    let other = committee.parties[1].key().to_string();
    audit(&["verify", text(&export), "--checkpoint", text(&note), "--audit-key", &other])
        .ends(1)
        .says("another key signed it");
    audit(&["verify", text(&export), "--checkpoint", text(&note)]).ends(2).says("--checkpoint needs --audit-key");
    audit(&["verify", text(&export), "--audit-key", "nonsense"]).ends(2).says("casemate hsm status");
    fs::write(&note, fs::read_to_string(&note).unwrap().replace("party-1/1\n", "party-1/2\n")).unwrap();
    let key = committee.parties[0].key().to_string();
    audit(&["verify", text(&export), "--checkpoint", text(&note), "--audit-key", &key]).ends(1);
}

#[test]
fn a_changed_detail_and_a_signature_that_does_not_verify_are_found() {
    let (mut committee, folder) = (signed(), tempfile::tempdir().unwrap());
    let export = committee.parties[0].export(folder.path());
    let details = export.join("details.jsonl");
    let good = fs::read_to_string(&details).unwrap();
    for (from, to, says) in [
        (r#""value":"100""#, r#""value":"101""#, "its detail was changed"),
        ("\"seq\":4", "\"seq\":5", "commits to none"),
        ("\"seq\":4", "\"seq\":99", "a detail was given for leaf"),
    ] {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good, "{from}");
        fs::write(&details, changed).unwrap();
        audit(&["verify", text(&export)]).ends(1).says(says);
    }
    audit(&["show", text(&export)]).ends(0);
    fs::write(&details, good.replacen("over the limit of 1 ETH", "he asked nicely", 1)).unwrap();
    audit(&["show", text(&export)]).ends(1).says("its detail was changed");

    // The appliance's own host can log a signature that never was; it then does not verify.
    let act = committee.act(digest(7));
    let false_one = signature(&committee.signer, &digest(8));
    let intent = committee.parties[0].intend(act, "s-7");
    committee.parties[0].add(Entry::outcome(intent, Outcome::signed(false_one)));
    let export = committee.parties[0].export(folder.path());
    let found = audit(&["verify", text(&export), "--json"]).ends(1).json();
    assert_eq!((&found["valid"], &found["kind"]), (&false.into(), &"signature".into()), "{found}");
}

/// BIP-32's non-hardened child of a private key, by hand.
fn child(parent: &SigningKey, chain_code: [u8; 32], index: u32) -> (SigningKey, [u8; 32]) {
    let hmac = |message: &[u8]| {
        let pad = |byte: u8| -> Vec<u8> { (0..128).map(|i| chain_code.get(i).copied().unwrap_or(0) ^ byte).collect() };
        let inner = Sha512::new().chain_update(pad(0x36)).chain_update(message).finalize();
        Sha512::new().chain_update(pad(0x5c)).chain_update(inner).finalize()
    };
    let out = hmac(&[&public(parent).as_bytes()[..], &index.to_be_bytes()].concat());
    let tweak = k256::SecretKey::from_slice(&out[..32]).unwrap();
    let scalar = *parent.as_nonzero_scalar().as_ref() + *tweak.to_nonzero_scalar().as_ref();
    let secret = k256::SecretKey::from_bytes(&scalar.to_bytes()).unwrap();
    (SigningKey::from(secret), out[32..].try_into().unwrap())
}

const CHAIN_CODE: [u8; 32] = [0xcc; 32];

fn certificate(committee: &Committee, t: u16) -> KeyCertificate {
    let keys: Vec<_> = (11..14u8).map(|seed| p256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap()).collect();
    let members = keys.iter().zip(0u16..).map(|(key, party_index)| Member {
        party_id: format!("party-{}", party_index + 1).parse().unwrap(),
        party_index,
        identity: IdentityKey::from_spki(key.verifying_key().to_public_key_der().unwrap().as_bytes()).unwrap(),
    });
    let statement = KeyStatement {
        public_key: committee.key(),
        chain_code: CHAIN_CODE,
        scheme: "cggmp21-secp256k1".into(),
        threshold_t: t,
        threshold_n: 3,
        roster: Roster::try_from(members.collect::<Vec<_>>()).unwrap(),
        epoch: 1,
        share_type: ShareType::Wallet,
        label: None,
        confirmation: digest(0xcf),
    };
    let sign = |key: &p256::ecdsa::SigningKey| {
        let signature: p256::ecdsa::Signature = key.sign(&statement.to_sign());
        IdentitySignature(signature.to_bytes().into())
    };
    let signatures = keys.iter().map(sign).collect();
    KeyCertificate { statement, signatures }
}

#[test]
fn a_child_key_is_proven_by_its_certificate_and_a_stranger_is_found() {
    let (mut committee, folder) = (Committee::new(), tempfile::tempdir().unwrap());
    let (first, code) = child(&committee.signer, CHAIN_CODE, 0);
    let (second, _) = child(&first, code, 7);
    let derived = Signer::derive(&committee.key(), CHAIN_CODE, &[0, 7]).unwrap();
    assert_eq!(derived.public_key(), *public(&second).as_bytes());
    let path = folder.path().join("certificate.json");
    fs::write(&path, serde_json::to_string(&certificate(&committee, 2)).unwrap()).unwrap();
    let act = |child: &SigningKey| Act::Sign {
        key: public(&SigningKey::from_slice(&[9; 32]).unwrap()),
        tx: Tx { digest: digest(1), path: Some("m/0/7".parse().unwrap()), child: Some(public(child)) },
    };
    committee.complete("s-1", &act(&second), signature(&second, &digest(1)), &[0, 1]);
    let export = committee.parties[0].export(folder.path());
    audit(&["verify", text(&export)]).ends(0).says("that 1 child keys are their key's: give its certificate");
    let proven = audit(&["verify", text(&export), "--certificate", text(&path), "--json"]).ends(0).json();
    assert_eq!(proven["report"]["signatures"]["by_proven_children"], 1);
    let words = committee.exported(folder.path());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    audit(&[&["reconcile", "--certificate", text(&path)], &words[..]].concat()).ends(0);

    let stranger = SigningKey::from_slice(&[44; 32]).unwrap();
    committee.complete("s-2", &act(&stranger), signature(&stranger, &digest(1)), &[0, 1]);
    let export = committee.parties[0].export(folder.path());
    audit(&["verify", text(&export)]).ends(0);
    audit(&["verify", text(&export), "--certificate", text(&path)]).ends(1).says("as its intent says");

    let mut forged = certificate(&committee, 2);
    forged.statement.threshold_t = 3;
    fs::write(&path, serde_json::to_string(&forged).unwrap()).unwrap();
    audit(&["verify", text(&export), "--certificate", text(&path)]).ends(2).says("does not verify");
}

#[test]
fn what_cannot_be_read_is_neither_good_nor_bad() {
    let folder = tempfile::tempdir().unwrap();
    audit(&["verify"]).ends(2);
    audit(&["verify", "/nowhere/log.jsonl"]).ends(2).says("cannot read the log");
    audit(&["verify", text(folder.path())]).ends(2).says("give a data folder");
    audit(&["verify", text(folder.path()), "/nowhere"]).ends(2).says("segments of one log");
    let file = folder.path().join("log.jsonl");
    fs::write(&file, vec![0u8; 300_000]).unwrap();
    audit(&["verify", text(&file)]).ends(1);
    fs::write(&file, "").unwrap();
    audit(&["verify", text(&file)]).ends(1).says("no line");
}

#[test]
fn a_session_or_a_key_is_shown_in_plain_words() {
    let (mut committee, folder) = (signed(), tempfile::tempdir().unwrap());
    committee.parties[0].refuse("s-3");
    let export = committee.parties[0].export(folder.path());
    let session = audit(&["show", text(&export), "--session", "s-1"]).ends(0);
    assert_eq!(session.out.lines().count(), 2, "{}", session.out);
    session.says("small-transfers").says(r#""value":"100""#).says("completed");
    audit(&["show", text(&export), "--session", "s-2"]).ends(0).says("over the limit of 1 ETH");
    let key = committee.key().to_string();
    let of_key = audit(&["show", text(&export), "--key", &key, "--json"]).ends(0);
    assert_eq!(of_key.out.lines().count(), 4, "keygen's intent as well: {}", of_key.out);
    audit(&["show", text(&export), "--session", "s-77"]).ends(2).says("nothing of that");
    assert_eq!(audit(&["show", text(&export)]).ends(0).out.lines().count(), committee.parties[0].lines.len());
}

#[test]
fn a_line_that_is_longer_than_any_detail_is_no_detail() {
    let (committee, folder) = (signed(), tempfile::tempdir().unwrap());
    let export = committee.parties[0].export(folder.path());
    fs::write(export.join("details.jsonl"), "{".repeat(1 << 20)).unwrap();
    audit(&["verify", text(&export)]).ends(2).says("holds a line that is no detail");
}
