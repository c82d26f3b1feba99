//! `export`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use p256::pkcs8::EncodePublicKey;

use super::committee::{Committee, digest};
use super::{audit, text};

fn signed() -> Committee {
    let mut committee = Committee::new();
    committee.sign("s-1", digest(1), &[0, 1]);
    committee.parties[0].refuse("s-2");
    committee.parties[0].note();
    committee
}

#[test]
fn an_export_holds_the_lines_as_hashed_with_details_checkpoints_and_instructions() {
    let (committee, folder) = (signed(), tempfile::tempdir().unwrap());
    let party = &committee.parties[0];
    let (data, export) = (party.database(folder.path()), folder.path().join("export"));
    audit(&["export", "--data-dir", text(&data), "--output", text(&export)])
        .ends(0)
        .says("exported 7 leaves, 2 details and 1 checkpoints");
    assert_eq!(fs::read_to_string(export.join("log.jsonl")).unwrap(), party.log_text());
    assert_eq!(fs::read_to_string(export.join("checkpoint")).unwrap(), party.notes[0]);
    assert!(fs::read_to_string(export.join("README.txt")).unwrap().contains("openssl"));
    assert_eq!(fs::metadata(&export).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(export.join("details.jsonl")).unwrap().permissions().mode() & 0o777, 0o600);
    let key = party.key().to_string();
    let whole = audit(&["verify", text(&export), "--audit-key", &key, "--json"]).ends(0).json();
    assert_eq!(whole["report"]["details"]["withheld"], 0);
    audit(&["export", text(&data), "--output", text(&export)]).ends(2).says("not there yet");
}

#[test]
fn a_redacted_export_verifies_and_tells_no_amount() {
    let (committee, folder) = (signed(), tempfile::tempdir().unwrap());
    let party = &committee.parties[0];
    let (data, key) = (party.database(folder.path()), party.key().to_string());
    let redacted = folder.path().join("redacted");
    audit(&["export", text(&data), "--output", text(&redacted), "--redact"]).ends(0);
    assert!(!redacted.join("details.jsonl").exists());
    let all: String =
        fs::read_dir(&redacted).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    assert!(!all.contains("over the limit") && !all.contains("\"100\""));
    audit(&["verify", text(&redacted), "--audit-key", &key]).ends(0).says("2 details, which were withheld");
    let some = folder.path().join("some");
    audit(&["export", text(&data), "--output", text(&some), "--redact-seq", "6"]).ends(0).says("1 details");
    let report = audit(&["verify", text(&some), "--audit-key", &key, "--json"]).ends(0).json();
    assert_eq!(report["report"]["details"]["withheld"], 1);
}

#[test]
fn exported_segments_are_the_whole_log_again() {
    let (committee, folder) = (signed(), tempfile::tempdir().unwrap());
    let data = committee.parties[0].database(folder.path());
    let (first, second) = (folder.path().join("1"), folder.path().join("2"));
    audit(&["export", text(&data), "--output", text(&first), "--to", "3"]).ends(0).says("exported 3 leaves");
    audit(&["export", text(&data), "--output", text(&second), "--from", "3"]).ends(0).says("exported 4 leaves");
    let (one, two) = (first.join("log.jsonl"), second.join("log.jsonl"));
    audit(&["verify", text(&one), text(&two)]).ends(0).says("valid: 7 leaves");
    audit(&["export", text(&data), "--output", text(&folder.path().join("3")), "--from", "3", "--to", "3"]).ends(2);
    audit(&["export", text(&data), "--output", text(&folder.path().join("4")), "--from", "30"])
        .ends(2)
        .says("none of them");
}

#[test]
fn a_broken_log_is_exported_as_it_is_and_called_broken() {
    let (committee, folder) = (signed(), tempfile::tempdir().unwrap());
    let data = committee.parties[0].database(folder.path());
    let db = rusqlite::Connection::open(data.join("casemate.db")).unwrap();
    db.execute("UPDATE leaves SET line = replace(line, 'small-transfers', 'large-transfers') WHERE seq = 4", [])
        .unwrap();
    let export = folder.path().join("export");
    audit(&["export", text(&data), "--output", text(&export)]).ends(1).says("NOT VALID, exported all the same");
    assert!(fs::read_to_string(export.join("log.jsonl")).unwrap().contains("large-transfers"));
    audit(&["verify", text(&export)]).ends(1);
}

/// The commands of README.txt, with nothing but a shell, coreutils and openssl.
#[test]
fn the_written_instructions_check_chain_and_checkpoint_by_hand() {
    let (committee, folder) = (signed(), tempfile::tempdir().unwrap());
    let party = &committee.parties[0];
    let (data, export) = (party.database(folder.path()), folder.path().join("export"));
    audit(&["export", text(&data), "--output", text(&export)]).ends(0);
    let pem = p256::ecdsa::SigningKey::from_slice(&[1; 32]).unwrap();
    let pem = pem.verifying_key().to_public_key_pem(p256::pkcs8::LineEnding::LF).unwrap();
    fs::write(export.join("audit-key.pem"), pem).unwrap();
    let readme = fs::read_to_string(export.join("README.txt")).unwrap();
    let commands: Vec<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| !line.starts_with("casemate"))
        .collect();
    assert_eq!(commands.len(), 5, "{commands:?}");
    let run = |command: &str| {
        let done =
            Command::new("sh").arg("-c").arg(command).current_dir(&export).stdin(Stdio::null()).output().unwrap();
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let (hash, prev) = (run(commands[0]), run(commands[1]));
    assert_eq!(hash.split_whitespace().next().unwrap(), prev.trim().trim_start_matches("\"prev\":").trim_matches('"'));
    run(commands[2]);
    run(commands[3]);
    assert!(run(commands[4]).contains("Verified OK"));
    let altered = fs::read_to_string(export.join("text")).unwrap().replace("\n7\n", "\n8\n");
    fs::write(export.join("text"), altered).unwrap();
    let done = Command::new("sh").arg("-c").arg(commands[4]).current_dir(&export).output().unwrap();
    assert!(!done.status.success());
}
