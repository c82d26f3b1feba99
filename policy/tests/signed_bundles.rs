//! Who may sign a bundle, what of it is signed, and which bundle may follow on which. Keys and signatures are `ssh-keygen`'s.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::Path;

use casemate_policy::bundle::{self, Newest, TrustError};
use casemate_policy::{AllowedSigners, Bundle, BundleError, SignedBundle, TrustAnchors};
use common::ssh::{APPROVAL, Key, POLICY};
use common::*;
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

/// A bundle, and who may sign it.
struct Staff {
    dir: TempDir,
    allowed: String,
    quorum: &'static str,
}

impl Staff {
    fn new(quorum: &'static str, allowed: String) -> Self {
        Self { dir: folder(&[("all.cedar", ALLOW_ALL), ("tests/a.json", ONE_ALLOWED)]), allowed, quorum }
    }

    fn manifest(&self) -> Vec<u8> {
        fs::read(self.dir.path().join("manifest.toml")).unwrap()
    }

    fn put(&self, name: &str, signature: &str) {
        write(self.dir.path(), &format!("manifest.toml.sig-{name}"), signature);
    }

    fn signed_by(self, name: &str, key: &Key) -> Self {
        self.put(name, &key.sign(POLICY, &self.manifest()));
        self
    }

    fn load_after(&self, newest: Option<Newest>) -> Result<SignedBundle, BundleError> {
        self.load_at(newest, noon())
    }

    fn load_at(&self, newest: Option<Newest>, now: Timestamp) -> Result<SignedBundle, BundleError> {
        let signers = AllowedSigners::parse(&self.allowed).unwrap();
        let anchors = TrustAnchors::new(signers, self.quorum.parse().unwrap()).unwrap();
        Bundle::load_signed(self.dir.path(), &clients(), &anchors, newest, now)
    }

    fn load(&self) -> Result<SignedBundle, BundleError> {
        self.load_after(None)
    }

    fn why(&self) -> String {
        self.load().unwrap_err().to_string()
    }
}

fn names(bundle: &SignedBundle) -> Vec<&str> {
    bundle.signers().iter().map(|signer| signer.as_str()).collect()
}

/// One key of Alice's, and a bundle that needs her alone.
fn alice() -> (Key, Staff) {
    let key = Key::new("ed25519");
    let staff = Staff::new("1 of 1", key.line("alice@acme"));
    (key, staff)
}

#[test]
fn every_key_type_that_is_taken_signs_a_bundle() {
    for kind in ["ed25519", "ecdsa", "ecdsa-384", "ed25519-sk", "ecdsa-sk"] {
        let key = Key::new(kind);
        let staff = Staff::new("1 of 1", key.line("alice@acme")).signed_by("alice", &key);
        assert_eq!(names(&staff.load().unwrap()), ["alice@acme"], "{kind}");
    }
}

#[test]
fn both_hashes_of_ssh_keygen_are_taken() {
    for hash in ["sha256", "sha512"] {
        let (key, staff) = alice();
        staff.put("alice", &key.sign_with(POLICY, &staff.manifest(), &["-O", &format!("hashalg={hash}")]));
        staff.load().unwrap();
    }
}

#[test]
fn a_bundle_needs_as_many_people_as_the_quorum_says() {
    let (a, b, c) = (Key::new("ed25519"), Key::new("ecdsa"), Key::new("ed25519"));
    let allowed = a.line("alice@acme") + &b.line("bob@globex") + &c.line("carol@acme");
    let staff = Staff::new("2 of 3", allowed);
    assert!(staff.why().contains("0 of 2 needed people"), "{}", staff.why());
    assert!(staff.why().contains("casemate policy sign"));
    let staff = staff.signed_by("a", &a);
    assert!(staff.why().contains("1 of 2 needed people have signed it (alice@acme)"), "{}", staff.why());
    let staff = staff.signed_by("b", &b);
    let loaded = staff.load().unwrap();
    assert_eq!(names(&loaded), ["alice@acme", "bob@globex"]);
    assert_eq!(loaded.bundle().digest(), loaded.as_newest().digest);
}

#[test]
fn one_person_with_two_keys_counts_once() {
    let (a, again, b) = (Key::new("ed25519"), Key::new("ecdsa"), Key::new("ed25519"));
    let allowed = a.line("alice@acme") + &again.line("alice@acme") + &b.line("bob@acme");
    let staff = Staff::new("2 of 2", allowed).signed_by("1", &a).signed_by("2", &again).signed_by("3", &a);
    assert!(staff.why().contains("1 of 2 needed people have signed it (alice@acme)"), "{}", staff.why());
}

#[test]
fn an_altered_manifest_is_refused_before_it_is_parsed() {
    let (key, staff) = alice();
    let staff = staff.signed_by("alice", &key);
    staff.load().unwrap();
    for text in [
        String::from_utf8(staff.manifest()).unwrap().replace("version = 1", "version = 9"),
        String::from_utf8(staff.manifest()).unwrap() + "\n",
        "this is no TOML at all [".to_owned(),
    ] {
        write(staff.dir.path(), "manifest.toml", &text);
        let Err(BundleError::Trust(TrustError::Quorum { ignored, .. })) = staff.load() else { panic!("{text}") };
        assert!(ignored[0].to_string().contains("does not fit what it is said to sign"));
    }
}

#[test]
fn an_altered_missing_or_added_file_is_refused_though_the_manifest_is_signed() {
    let (key, staff) = alice();
    let staff = staff.signed_by("alice", &key);
    write(staff.dir.path(), "all.cedar", &ALLOW_ALL.replace("all", "any"));
    assert!(staff.why().contains("all.cedar: its SHA-256"), "{}", staff.why());
    write(staff.dir.path(), "all.cedar", ALLOW_ALL);
    write(staff.dir.path(), "more.cedar", "");
    assert!(staff.why().contains("more.cedar: the manifest does not list it"), "{}", staff.why());
}

#[test]
fn files_are_not_parsed_while_signatures_are_missing() {
    let (key, staff) = alice();
    write(staff.dir.path(), "all.cedar", "((((((");
    assert!(matches!(staff.load(), Err(BundleError::Trust(TrustError::Quorum { .. }))));
    bundle::seal(staff.dir.path(), noon()).unwrap();
    let staff = staff.signed_by("alice", &key);
    assert!(!matches!(staff.load(), Err(BundleError::Trust(_)) | Ok(_)));
}

#[test]
fn a_signed_bundle_that_fails_its_own_tests_is_refused() {
    let (key, staff) = alice();
    write(staff.dir.path(), "tests/a.json", &ONE_ALLOWED.replace("\"allow\"", "\"deny\""));
    bundle::seal(staff.dir.path(), noon()).unwrap();
    assert!(matches!(staff.signed_by("alice", &key).load(), Err(BundleError::Case { .. })));
}

#[test]
fn a_signature_for_another_use_does_not_count() {
    for namespace in [APPROVAL, "file", "casemate-policy "] {
        let (key, staff) = alice();
        staff.put("alice", &key.sign(namespace, &staff.manifest()));
        assert!(staff.why().contains("not for `casemate-policy`"), "{}", staff.why());
    }
}

#[test]
fn a_strangers_signature_does_not_count() {
    let (_, staff) = alice();
    let staff = staff.signed_by("mallory", &Key::new("ed25519"));
    assert!(staff.why().contains("is nobody's who may sign here"), "{}", staff.why());
}

#[test]
fn stale_signatures_beside_good_ones_are_ignored_and_named() {
    let (key, staff) = alice();
    staff.put("old", &key.sign(POLICY, b"another manifest"));
    staff.put("torn", "-----BEGIN SSH SIGNATURE-----\nU1NIU0lH");
    let loaded = staff.signed_by("alice", &key).load().unwrap();
    let files: Vec<&str> = loaded.ignored().iter().map(|ignored| ignored.file.as_str()).collect();
    assert_eq!(files, ["manifest.toml.sig-old", "manifest.toml.sig-torn"]);
}

#[test]
fn keys_count_only_while_their_line_is_valid() {
    let key = Key::new("ed25519");
    for (options, refusal) in [
        ("valid-after=\"20250602120000Z\"", None),
        ("valid-before=\"202506021200Z\"", None),
        ("valid-after=\"20250602120001Z\"", Some("is valid from 2025-06-02T12:00:01Z on only")),
        ("valid-before=\"20250602Z\"", Some("was valid until 2025-06-02T00:00:00Z")),
        ("namespaces=\"git,casemate-policy\",valid-before=\"20260101Z\"", None),
    ] {
        let staff = Staff::new("1 of 1", key.line(&format!("alice@acme {options}"))).signed_by("alice", &key);
        match refusal {
            None => assert_eq!(names(&staff.load().unwrap()), ["alice@acme"]),
            Some(text) => assert!(staff.why().contains(text), "{}", staff.why()),
        }
    }
}

#[test]
fn a_key_for_approvals_signs_no_bundle() {
    let (approver, signer) = (Key::new("ed25519"), Key::new("ed25519"));
    let allowed = approver.line("bob@acme namespaces=\"casemate-approval\"") + &signer.line("alice@acme");
    let staff = Staff::new("1 of 1", allowed).signed_by("bob", &approver);
    assert!(staff.why().contains("the key of bob@acme is not allowed for `casemate-policy`"), "{}", staff.why());
}

#[test]
fn a_fido_key_that_nobody_touched_does_not_count() {
    for kind in ["ed25519-sk", "ecdsa-sk"] {
        let key = Key::with(kind, &["-O", "no-touch-required"]);
        let staff = Staff::new("1 of 1", key.line("alice@acme")).signed_by("alice", &key);
        assert!(staff.why().contains("without anyone touching it"), "{}", staff.why());
    }
}

/// The folder changed and sealed again, and signed by Alice.
fn next(staff: &Staff, key: &Key, edit: impl FnOnce(String) -> String) {
    let file = staff.dir.path().join("all.cedar");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(file, text + "\n").unwrap();
    bundle::seal(staff.dir.path(), noon()).unwrap();
    let manifest = edit(String::from_utf8(staff.manifest()).unwrap());
    write(staff.dir.path(), "manifest.toml", &manifest);
    staff.put("alice", &key.sign(POLICY, manifest.as_bytes()));
}

#[test]
fn the_version_must_rise_and_the_same_bundle_may_be_loaded_again() {
    let (key, staff) = alice();
    let staff = staff.signed_by("alice", &key);
    let first = staff.load().unwrap().as_newest();
    assert_eq!(staff.load_after(Some(first)).unwrap().as_newest(), first);

    let old = tempfile::tempdir().unwrap();
    copy(staff.dir.path(), old.path());
    next(&staff, &key, |manifest| manifest);
    let second = staff.load_after(Some(first)).unwrap().as_newest();
    assert_eq!((first.version, second.version), (1, 2));

    let rolled_back = Staff { dir: old, ..staff };
    let error = rolled_back.load_after(Some(second)).unwrap_err();
    assert!(matches!(error, BundleError::Trust(TrustError::Version { version: 1, .. })), "{error}");
    rolled_back.load().unwrap();
}

#[test]
fn another_bundle_of_the_same_version_is_refused() {
    let (key, staff) = alice();
    let staff = staff.signed_by("alice", &key);
    let first = staff.load().unwrap().as_newest();
    next(&staff, &key, |manifest| manifest.replace("version = 2", "version = 1"));
    assert!(matches!(staff.load_after(Some(first)), Err(BundleError::Trust(TrustError::Version { .. }))));
}

#[test]
fn previous_must_be_the_newest_bundle_that_was_loaded() {
    let (key, staff) = alice();
    let staff = staff.signed_by("alice", &key);
    let first = staff.load().unwrap().as_newest();
    for wrong in [String::new(), "ab".repeat(32)] {
        next(&staff, &key, |manifest| manifest.replace(&first.digest.to_string(), &wrong));
        let error = staff.load_after(Some(first)).unwrap_err();
        assert!(matches!(error, BundleError::Trust(TrustError::Previous { .. })), "{error}");
        staff.load().unwrap();
        next(&staff, &key, |manifest| manifest);
    }
}

#[test]
fn a_bundle_is_not_loaded_before_it_is_in_force() {
    let (key, staff) = alice();
    next(&staff, &key, |manifest| manifest.replace("1970-01-01T00:00:00Z", "2025-06-02T12:00:01Z"));
    assert!(matches!(staff.load(), Err(BundleError::Trust(TrustError::NotYetInForce(_)))));
    staff.load_at(None, noon() + SignedDuration::from_secs(1)).unwrap();
}

#[test]
fn a_bundle_without_a_manifest_or_with_too_many_or_large_signatures_is_refused() {
    let (key, staff) = alice();
    for number in 0..32 {
        staff.put(&format!("{number}"), "");
    }
    assert!(matches!(staff.load(), Err(BundleError::Trust(_))));
    staff.put("alice", &key.sign(POLICY, &staff.manifest()));
    assert!(staff.why().contains("more than 32 signatures"), "{}", staff.why());

    let (_, staff) = alice();
    staff.put("large", &"x".repeat(4097));
    assert!(staff.why().contains("larger than 4096 bytes"), "{}", staff.why());

    let (_, staff) = alice();
    fs::remove_file(staff.dir.path().join("manifest.toml")).unwrap();
    assert!(staff.why().contains("casemate policy seal"));
}

#[test]
fn signatures_and_what_is_to_be_signed_can_be_looked_at_offline() {
    let (key, staff) = alice();
    let signed = bundle::to_be_signed(staff.dir.path()).unwrap();
    assert_eq!((signed.manifest, signed.version, signed.name.as_str()), (staff.manifest(), 1, "policy"));
    let staff = staff.signed_by("alice", &key);
    let signers = AllowedSigners::parse(&staff.allowed).unwrap();
    let anchors = TrustAnchors::new(signers, "1 of 1".parse().unwrap()).unwrap();
    let report = bundle::signatures(staff.dir.path(), &anchors, noon()).unwrap();
    assert_eq!((report.signers.len(), report.ignored.len()), (1, 0));
    write(staff.dir.path(), "all.cedar", "");
    assert!(bundle::to_be_signed(staff.dir.path()).unwrap_err().to_string().contains("all.cedar: its SHA-256"));
}

fn copy(from: &Path, to: &Path) {
    for path in ["all.cedar", "tests/a.json", "manifest.toml", "manifest.toml.sig-alice"] {
        write(to, path, &fs::read_to_string(from.join(path)).unwrap());
    }
}
