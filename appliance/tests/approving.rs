//! `casemate approve` and `casemate policy sign` as people use them: the program itself, with keys of the real ssh-keygen.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use alloy_consensus::{SignableTransaction, TxEip1559};
use casemate_policy::approval::{Act, Counted, Expected, SignParameters, count};
use casemate_policy::{AllowedSigners, Bundle, TrustAnchors};
use casemate_wire::Digest32;
use casemate_wire::api::Approval;
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

/// The generator of secp256k1.
const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
const BUNDLE: &str = "0505050505050505050505050505050505050505050505050505050505050505";

/// A folder with two people's keys and a transaction.
struct Desk {
    folder: TempDir,
    hash: Digest32,
}

struct Answer {
    code: i32,
    out: String,
    err: String,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tx = TxEip1559 {
            chain_id: 1,
            gas_limit: 21_000,
            max_fee_per_gas: 20_000_000_000,
            to: alloy_primitives::Address::repeat_byte(0x35).into(),
            value: alloy_primitives::U256::from(1234),
            ..Default::default()
        };
        let payload: String = tx.encoded_for_signing().iter().map(|byte| format!("{byte:02x}")).collect();
        let intent = serde_json::json!({"type": "ethereum_transaction", "payload": payload});
        fs::write(folder.path().join("intent.json"), intent.to_string()).unwrap();
        let desk = Self { folder, hash: Digest32(tx.signature_hash().0) };
        for name in ["alice", "bob"] {
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(desk.path(name));
            assert!(command.status().unwrap().success());
        }
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn allowed(&self) -> AllowedSigners {
        let line =
            |name: &str| format!("{name}@acme {}", fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap());
        AllowedSigners::parse(&(line("alice") + &line("bob"))).unwrap()
    }

    /// Runs `casemate` in the folder, with `input` typed in.
    fn casemate(&self, words: &[&str], input: &str) -> Answer {
        let mut child = Command::new(env!("CARGO_BIN_EXE_casemate"))
            .args(words)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that asks nothing may have ended before.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let ended = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Answer { code: ended.status.code().unwrap(), out: text(ended.stdout), err: text(ended.stderr) }
    }

    fn approve(&self, more: &[&str], input: &str) -> Answer {
        let words = ["approve", "intent.json", "--bundle", BUNDLE, "--ssh-key", "alice", "--key", KEY];
        self.casemate(&[&words[..], more].concat(), input)
    }

    fn counted(&self, approval: &str, act: &Act) -> Counted {
        let item: Approval = serde_json::from_str(approval).unwrap();
        let expected = Expected { act, bundle: BUNDLE.parse().unwrap(), now: Timestamp::now() };
        count(&[item], &expected, &self.allowed(), |_| false)
    }
}

fn sign(message_hash: Digest32, path: Option<&str>) -> Act {
    let parameters = SignParameters { message_hash, derivation_path: path.map(str::to_owned) };
    Act::Sign { key: KEY.parse().unwrap(), parameters }
}

fn names(counted: &Counted) -> Vec<&str> {
    counted.counted.iter().map(|one| one.approver.as_str()).collect()
}

#[test]
fn a_transaction_is_shown_then_approved_for_its_own_hash_alone() {
    let desk = Desk::new();
    let answer = desk.approve(&[], "yes\n");
    assert_eq!(answer.code, 0, "{}", answer.err);
    for shown in ["3535353535353535353535353535353535353535", "1234", KEY, &desk.hash.to_string(), BUNDLE, "Type `yes`"]
    {
        assert!(answer.err.contains(shown), "{shown} is not in:\n{}", answer.err);
    }
    assert_eq!(names(&desk.counted(&answer.out, &sign(desk.hash, None))), ["alice@acme"]);
    assert!(names(&desk.counted(&answer.out, &sign(Digest32([1; 32]), None))).is_empty());
    assert!(names(&desk.counted(&answer.out, &sign(desk.hash, Some("m/0")))).is_empty());
}

#[test]
fn nothing_is_signed_without_a_yes() {
    let desk = Desk::new();
    for input in ["", "no\n", "y\n", "YES\n"] {
        let answer = desk.approve(&["--output", "approval.json"], input);
        assert_eq!((answer.code, answer.out.as_str()), (1, ""), "{}", answer.err);
        assert!(!desk.path("approval.json").exists());
    }
}

#[test]
fn path_life_and_output_are_as_asked() {
    let desk = Desk::new();
    let more = ["--path", "m/0/7", "--expires-in", "7d", "--output", "approval.json", "--yes"];
    let answer = desk.approve(&more, "");
    assert_eq!((answer.code, answer.out.as_str()), (0, ""), "{}", answer.err);
    let approval = fs::read_to_string(desk.path("approval.json")).unwrap();
    assert_eq!(names(&desk.counted(&approval, &sign(desk.hash, Some("m/0/7")))), ["alice@acme"]);
}

#[test]
fn an_approval_of_another_hash_than_agreed_is_not_made() {
    let desk = Desk::new();
    let agreed = desk.approve(&["--yes", "--message-hash", &desk.hash.to_string()], "");
    assert_eq!(agreed.code, 0, "{}", agreed.err);
    let other = desk.approve(&["--yes", "--message-hash", BUNDLE], "");
    assert_eq!((other.code, other.out.as_str()), (1, ""), "{}", other.err);
    assert!(other.err.contains("NOT APPROVED"));
}

#[test]
fn what_cannot_be_shown_or_does_not_fit_is_not_approved() {
    let desk = Desk::new();
    let write = |text: &str| fs::write(desk.path("intent.json"), text).unwrap();
    for more in [["--path", "0/1"], ["--path", "m/0'"], ["--expires-in", "8d"], ["--expires-in", "0s"]] {
        let answer = desk.approve(&[&more[..], &["--yes"]].concat(), "");
        assert_eq!((answer.code, answer.out.as_str()), (2, ""), "{more:?} {}", answer.err);
    }
    let signing = format!(r#"{{"action":"sign","key":"{KEY}","parameters":{{"message_hash":"{BUNDLE}"}}}}"#);
    for text in
        ["", "{}", r#"{"type":"raw","payload":""}"#, r#"{"type":"ethereum_transaction","payload":"02"}"#, &signing]
    {
        write(text);
        let answer = desk.approve(&["--yes"], "");
        assert_eq!((answer.code, answer.out.as_str()), (2, ""), "{text} {}", answer.err);
        assert!(answer.err.contains("intent.json cannot be approved"), "{}", answer.err);
    }
}

#[test]
fn other_acts_are_approved_from_their_own_file() {
    let desk = Desk::new();
    let text = format!(
        r#"{{"action":"revoke","key":"{KEY}","parameters":{{"party_id":"party-1","reason":"lost\u001b[2J\u202e"}}}}"#
    );
    fs::write(desk.path("revoke.json"), &text).unwrap();
    let words = ["approve", "revoke.json", "--bundle", BUNDLE, "--ssh-key", "bob.pub", "--yes"];
    let answer = desk.casemate(&words, "");
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert!(answer.err.contains("destroy the share of party-1"));
    assert!(!answer.err.contains('\u{1b}') && !answer.err.contains('\u{202e}'), "{:?}", answer.err);
    let act: Act = serde_json::from_str(&text).unwrap();
    assert_eq!(names(&desk.counted(&answer.out, &act)), ["bob@acme"]);

    fs::write(desk.path("revoke.json"), text.replace("\"reason\"", "\"reason\":\"x\",\"reason\"")).unwrap();
    assert_eq!(desk.casemate(&words, "").code, 2);
}

fn sealed(desk: &Desk) -> PathBuf {
    assert_eq!(desk.casemate(&["policy", "init", "policy"], "").code, 0);
    desk.path("policy")
}

fn digest(dir: &Path) -> Digest32 {
    casemate_policy::bundle::to_be_signed(dir).unwrap().digest
}

#[test]
fn a_bundle_signed_by_two_people_loads_for_use() {
    let desk = Desk::new();
    let dir = sealed(&desk);
    let agreed = digest(&dir).to_string();
    let alice = desk.casemate(&["policy", "sign", "policy", "--ssh-key", "alice", "--name", "alice"], "");
    assert_eq!(alice.code, 0, "{}", alice.err);
    assert!(alice.err.contains(&agreed) && alice.out.contains("manifest.toml.sig-alice"), "{}{}", alice.err, alice.out);
    let load = || {
        let anchors = TrustAnchors::new(desk.allowed(), "2 of 2".parse().unwrap()).unwrap();
        let now = Timestamp::now() + SignedDuration::from_hours(1);
        Bundle::load_signed(&dir, &starter_clients(), &anchors, None, now)
    };
    assert!(load().unwrap_err().to_string().contains("1 of 2 needed people have signed it (alice@acme)"));
    let words = ["policy", "sign", "policy", "--ssh-key", "bob", "--digest", &agreed, "--format", "json"];
    let bob = desk.casemate(&words, "");
    let answer: serde_json::Value = serde_json::from_str(&bob.out).unwrap();
    assert_eq!((bob.code, &answer["digest"]), (0, &agreed.as_str().into()));
    assert!(answer["file"].as_str().unwrap().contains("manifest.toml.sig-SHA256"));
    assert_eq!(load().unwrap().signers().len(), 2);
}

/// The client that the starter bundle names.
fn starter_clients() -> Vec<casemate_policy::Client> {
    let client =
        |name: &str| casemate_policy::Client { name: name.into(), roles: [name.to_owned()].into(), org: String::new() };
    vec![client("coordinator")]
}

#[test]
fn only_what_lies_there_and_was_agreed_on_is_signed() {
    let desk = Desk::new();
    let dir = sealed(&desk);
    let sign = |more: &[&str]| desk.casemate(&[&["policy", "sign", "policy", "--ssh-key", "alice"], more].concat(), "");
    assert_eq!(sign(&["--digest", BUNDLE]).code, 1);
    assert_eq!(sign(&["--name", "../alice"]).code, 2);
    let changed = dir.join("entities.json");
    fs::write(&changed, fs::read_to_string(&changed).unwrap() + "\n").unwrap();
    let answer = sign(&[]);
    assert_eq!(answer.code, 2);
    assert!(answer.err.contains("entities.json: its SHA-256"), "{}", answer.err);
    let signatures = fs::read_dir(&dir)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("manifest.toml.sig"));
    assert_eq!(signatures.count(), 0);
}
