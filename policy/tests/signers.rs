//! `allowed_signers` files, quorums, and what happens to bytes that only resemble a signature.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::LazyLock;

use casemate_policy::approval::Statement;
use casemate_policy::signers::{Namespace, SignatureError, fingerprint_of_signer, verify};
use casemate_policy::{AllowedSigners, Quorum, TrustAnchors};
use common::noon;
use common::ssh::{Key, POLICY};
use proptest::prelude::*;
use ssh_key::public::{Ed25519PublicKey, KeyData, SkEd25519};

fn why(line: &str) -> String {
    AllowedSigners::parse(line).unwrap_err().to_string()
}

fn public(key: KeyData) -> String {
    ssh_key::PublicKey::from(key).to_openssh().unwrap()
}

/// The base point of Ed25519 as somebody's key.
const POINT: [u8; 32] = [
    0x58, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
    0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
];

fn ed25519() -> String {
    public(KeyData::Ed25519(Ed25519PublicKey(POINT)))
}

#[test]
fn comments_blank_lines_and_comments_of_keys_are_passed_over() {
    let text = format!("# staff\n\n  \t\r\nalice@acme\t {}   Alice's key, \"at work\n", ed25519());
    let signers = AllowedSigners::parse(&text).unwrap();
    let people: Vec<&str> = signers.principals(Namespace::Policy).iter().map(|person| person.as_str()).collect();
    assert_eq!(people, ["alice@acme"]);
    assert_eq!(signers.keys().next().unwrap().principal().org(), "acme");
    assert!(signers.keys().next().unwrap().fingerprint().starts_with("SHA256:"));
    assert_eq!(AllowedSigners::parse("").unwrap().keys().count(), 0);
}

#[test]
fn principals_that_nobody_can_count_are_refused() {
    for (principal, reason) in [
        ("*", "pattern"),
        ("*@acme", "pattern"),
        ("alic?@acme", "pattern"),
        ("!mallory@acme", "pattern"),
        ("alice@acme,bob@acme", "list of principals"),
        ("alice", "name@org"),
        ("@acme", "lower case"),
        ("alice@", "lower case"),
        ("alice@acme@globex", "lower case"),
        ("Alice@acme", "lower case"),
        ("аlice@acme", "lower case"),
        ("\"alice@acme\"", "lower case"),
        (&format!("{}@acme", "a".repeat(65)), "lower case"),
    ] {
        let text = why(&format!("# one\n{principal} {}", ed25519()));
        assert!(text.starts_with("allowed_signers, line 2: ") && text.contains(reason), "{principal}: {text}");
    }
}

#[test]
fn certificate_authorities_are_refused_however_they_are_spelled() {
    for options in
        ["cert-authority", "CERT-AUTHORITY", "namespaces=\"x\",cert-authority", "cert-authority,namespaces=\"x\""]
    {
        assert!(why(&format!("alice@acme {options} {}", ed25519())).contains("cert-authority"), "{options}");
    }
}

#[test]
fn options_with_anything_odd_are_refused() {
    for options in [
        "namespaces=casemate-policy",
        "namespaces=\"\"",
        "namespaces=\"casemate-*\"",
        "namespaces=\"a\",namespaces=\"b\"",
        "namespaces",
        "no-touch-required",
        "valid-after=\"20250101\"",
        "valid-after=\"2025-01-01Z\"",
        "valid-after=\"20251301Z\"",
        "valid-after=\"20250230Z\"",
        "valid-after=\"2025010125Z\"",
        "valid-after=\"202501012500Z\"",
        "valid-before=\"Z\"",
        "valid-after=\"20260101Z\",valid-before=\"20260101Z\"",
        "valid-before=\"20260101Z",
        "ssh_ed25519",
    ] {
        assert!(AllowedSigners::parse(&format!("alice@acme {options} {}", ed25519())).is_err(), "{options}");
    }
}

#[test]
fn options_say_what_a_key_is_for_and_when() {
    let options = "Namespaces=\"git,casemate-policy\",valid-after=\"20250102Z\",valid-before=\"202512312359Z\"";
    let signers = AllowedSigners::parse(&format!("alice@acme {options} {}", ed25519())).unwrap();
    let key = signers.keys().next().unwrap();
    assert!(key.is_for(Namespace::Policy) && !key.is_for(Namespace::Approval));
    assert_eq!(signers.principals(Namespace::Approval).len(), 0);
    assert_eq!(key.valid_after().unwrap().to_string(), "2025-01-02T00:00:00Z");
    assert_eq!(key.valid_before().unwrap().to_string(), "2025-12-31T23:59:00Z");
}

#[test]
fn keys_of_other_types_are_refused_with_advice() {
    for kind in ["rsa", "ecdsa-521"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let (kind, bits) = kind.split_once('-').unwrap_or((kind, "2048"));
        let mut command = std::process::Command::new("ssh-keygen");
        command.args(["-q", "-t", kind, "-b", bits, "-N", "", "-f"]).arg(&path);
        assert!(command.status().unwrap().success());
        let text = why(&format!("alice@acme {}", std::fs::read_to_string(path.with_extension("pub")).unwrap()));
        assert!(text.contains("are not taken") && text.contains("ed25519"), "{text}");
    }
    let torn = ed25519();
    assert!(why(&format!("alice@acme {}", &torn[..torn.len() - 9])).contains("copy the whole line"));
    assert!(why("alice@acme").contains("no key follows the principal"));
    assert!(why("alice@acme ssh-ed25519").contains("copy the whole line"));
}

#[test]
fn fido_keys_for_web_sites_and_points_that_anyone_can_sign_for_are_refused() {
    let sk = |application: &str| public(KeyData::SkEd25519(SkEd25519::new(Ed25519PublicKey(POINT), application)));
    assert!(why(&format!("alice@acme {}", sk("https://example.com"))).contains("https://example.com"));
    AllowedSigners::parse(&format!("alice@acme {}", sk("ssh:work"))).unwrap();
    let mut identity = [0; 32];
    identity[0] = 1;
    let weak = public(KeyData::Ed25519(Ed25519PublicKey(identity)));
    assert!(why(&format!("alice@acme {weak}")).contains("not a point that can be trusted"));
}

#[test]
fn one_key_under_two_names_is_refused_whatever_it_is_dressed_as() {
    let sk = |application: &str| public(KeyData::SkEd25519(SkEd25519::new(Ed25519PublicKey(POINT), application)));
    for second in [ed25519(), sk("ssh:"), sk("ssh:other")] {
        for name in ["bob@acme", "alice@acme"] {
            let text = why(&format!("alice@acme {}\n{name} {second}\n", ed25519()));
            assert!(text.contains("line 2: the key stands on line 1 already"), "{text}");
        }
    }
}

#[test]
fn files_are_bounded() {
    assert!(why(&"#\n".repeat(131_073)).contains("more than 262144 bytes"));
}

#[test]
fn a_quorum_needs_someone_and_no_more_than_there_are() {
    let quorum: Quorum = "2 of 3".parse().unwrap();
    assert_eq!((quorum.needed(), quorum.of(), quorum.to_string().as_str()), (2, 3, "2 of 3"));
    for bad in [
        "",
        "2",
        "0 of 3",
        "4 of 3",
        "0 of 0",
        "2  of 3",
        "2 of 3 ",
        "+2 of 3",
        "-1 of 3",
        "2/3",
        "1 of 33",
        " of ",
        "2 of 70000",
    ] {
        assert!(bad.parse::<Quorum>().is_err(), "{bad:?}");
        assert!(serde_json::from_value::<Quorum>(bad.into()).is_err(), "{bad:?}");
    }
}

#[test]
fn a_quorum_that_does_not_fit_the_file_is_a_mistake() {
    let other = public(KeyData::Ecdsa(
        "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHwf2HMM5TRXvo2SQJjsNkiDD5KqiiNjrGVv3UUh+mMT5RHxiRtOnlqvjhQtBq0VpmpCV/PwUdhOig4vkbqAcEc="
            .parse::<ssh_key::PublicKey>()
            .unwrap()
            .key_data()
            .ecdsa()
            .unwrap()
            .clone(),
    ));
    let anchors = |second: &str, quorum: &str| {
        let signers = AllowedSigners::parse(&format!("alice@acme {}\n{second} {other}\n", ed25519())).unwrap();
        TrustAnchors::new(signers, quorum.parse().unwrap())
    };
    anchors("bob@acme", "1 of 2").unwrap();
    anchors("alice@acme", "1 of 1").unwrap();
    anchors("bob@acme namespaces=\"casemate-approval\"", "1 of 1").unwrap();
    let text = anchors("alice@acme", "2 of 2").unwrap_err().to_string();
    assert!(text.contains("names 1 people"), "{text}");
    assert!(anchors("bob@acme", "2 of 3").is_err() && anchors("bob@acme", "1 of 1").is_err());
}

static SIGNED: LazyLock<(AllowedSigners, Vec<String>)> = LazyLock::new(|| {
    let keys =
        [Key::new("ed25519"), Key::new("ecdsa"), Key::new("ecdsa-384"), Key::new("ed25519-sk"), Key::new("ecdsa-sk")];
    let lines: String = keys.iter().map(|key| key.line("alice@acme")).collect();
    (AllowedSigners::parse(&lines).unwrap(), keys.iter().map(|key| key.sign(POLICY, b"message")).collect())
});

fn check(armored: &[u8]) -> Result<(), SignatureError> {
    let _ = fingerprint_of_signer(armored, b"message", Namespace::Policy);
    verify(armored, b"message", Namespace::Policy, &SIGNED.0, noon()).map(|_| ())
}

/// The bytes inside an armored signature, and armored again.
fn bytes_of(armored: &str) -> Vec<u8> {
    use base64::Engine;
    let body: String = armored.lines().filter(|line| !line.starts_with('-')).collect();
    base64::engine::general_purpose::STANDARD.decode(body).unwrap()
}

fn armored(bytes: &[u8]) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(bytes);
    let lines: Vec<&str> = body.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", lines.join("\n"))
}

#[test]
fn a_signature_with_a_reserved_field_or_another_version_is_refused() {
    for signature in &SIGNED.1 {
        let bytes = bytes_of(signature);
        check(armored(&bytes).as_bytes()).unwrap();
        let mut version = bytes.clone();
        version[9] = 0;
        assert!(matches!(check(armored(&version).as_bytes()), Err(SignatureError::Malformed(_))));
        let namespace = bytes.windows(POLICY.len()).position(|part| part == POLICY.as_bytes()).unwrap();
        let reserved = namespace + POLICY.len();
        let mut filled = bytes.clone();
        filled[reserved + 3] = 1;
        filled.insert(reserved + 4, 0);
        assert!(matches!(check(armored(&filled).as_bytes()), Err(SignatureError::Malformed(_))));
    }
    assert_eq!(check(&[b'-'; 4097]), Err(SignatureError::TooLong));
}

#[test]
fn a_signature_under_another_key_or_type_does_not_count() {
    for (at, signature) in SIGNED.1.iter().enumerate() {
        for other in SIGNED.1.iter().skip(at + 1) {
            let (bytes, donor) = (bytes_of(signature), bytes_of(other));
            let end = |bytes: &[u8]| 14 + usize::from(u16::from_be_bytes([bytes[12], bytes[13]]));
            let mixed = [&bytes[..end(&bytes)], &donor[end(&donor)..]].concat();
            assert!(matches!(
                check(armored(&mixed).as_bytes()),
                Err(SignatureError::Malformed(_) | SignatureError::Wrong)
            ));
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), text in "\\PC{0,200}") {
        prop_assert!(check(&bytes).is_err());
        prop_assert!(check(armored(&bytes).as_bytes()).is_err());
        let _ = AllowedSigners::parse(&text);
        let _ = AllowedSigners::parse(&format!("alice@acme {text} {}", ed25519()));
        let _ = AllowedSigners::parse(&format!("alice@acme ssh-ed25519 {text}"));
        let _ = text.parse::<Quorum>();
        prop_assert!(Statement::parse(&text).is_err());
    }

    #[test]
    fn a_changed_signature_never_counts(which in 0..5usize, at in any::<prop::sample::Index>(), bit in 0..8u8, cut in any::<bool>()) {
        let mut bytes = bytes_of(&SIGNED.1[which]);
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << bit;
        }
        prop_assert!(check(armored(&bytes).as_bytes()).is_err());
    }
}
