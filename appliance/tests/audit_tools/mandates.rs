//! By what right a log takes the place of another, as an auditor checks it.

use std::fs;
use std::path::{Path, PathBuf};

use casemate_attest::recovery::{Cause, Restored, Situation, Statement};
use casemate_attest::{Approval, At, Entry, Guard, GuardChange, Op, Place, Snapshot, State};
use casemate_wire::Digest32;
use jiff::SignedDuration;
use rand::rngs::OsRng;
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey};
use tempfile::TempDir;

use super::committee::{Party, time};
use super::{Answer, audit, text};

const LOG: &str = "casemate/party-1/anew";

/// A log that takes the place of another, and all that was signed for it.
struct Recovered {
    folder: TempDir,
    people: Vec<PrivateKey>,
    snapshot: String,
    statement: String,
}

fn at(minutes: i64) -> At {
    At::new(time(0) + SignedDuration::from_mins(minutes)).unwrap()
}

fn verify(log: &Path, more: &[&str]) -> Answer {
    audit(&[&["verify", "--json", text(log)], more].concat())
}

impl Recovered {
    fn new() -> Self {
        let mut state = State::default();
        state.shares.insert("share-1".parse().unwrap(), "revoked".parse().unwrap());
        let snapshot = Snapshot::before_first(LOG.parse().unwrap(), state, at(-5)).to_text().unwrap();
        let found = Place { log: "casemate/party-1/old".parse().unwrap(), size: 9, root: Digest32([9; 32]) };
        let situation = Situation {
            party: "party-1".parse().unwrap(),
            cause: Cause::Declared(Restored::Restored),
            anchored: Some(found.clone()),
            found: Some(found),
            tables: Snapshot::digest(&snapshot),
        };
        let statement = Statement::new(situation, LOG.parse().unwrap(), at(-5), at(60)).unwrap().to_text().unwrap();
        let people = (0..3).map(|_| PrivateKey::random(&mut OsRng, Algorithm::Ed25519).unwrap()).collect();
        let made = Self { folder: tempfile::tempdir().unwrap(), people, snapshot, statement };
        let line = |(number, key): (usize, &PrivateKey)| {
            format!("signer-{number}@security {}\n", key.public_key().to_openssh().unwrap())
        };
        made.put("allowed_signers", &made.people.iter().enumerate().map(line).collect::<String>());
        made
    }

    fn put(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// The log's first line, which names these people.
    fn genesis(&self, names: &[usize]) -> Entry {
        let statement = Statement::read(self.statement.as_bytes()).unwrap();
        let recovery = statement.recovery(self.statement.as_bytes());
        let signer = |number: &usize| Approval {
            name: format!("signer-{number}@security").parse().unwrap(),
            org: "security".parse().unwrap(),
            statement: recovery.statement,
        };
        let signers = names.iter().map(signer).collect();
        Entry::genesis().recovering(recovery, signers).guarding(vec![Snapshot::guard(&self.snapshot)])
    }

    fn party(&self, log: &str, names: &[usize]) -> Party {
        Party::begun(1, log, self.genesis(names), Some(self.snapshot.clone()))
    }

    fn signature(&self, person: usize) -> String {
        let signed = self.people[person].sign("casemate-recovery", HashAlg::Sha512, self.statement.as_bytes()).unwrap();
        signed.to_pem(LineEnding::LF).unwrap()
    }

    /// The statement and these people's signatures, as they lie in the archive of a data folder or beside an export.
    fn lay(&self, under: &Path, signers: &[usize]) {
        fs::create_dir_all(under).unwrap();
        fs::write(under.join("recovery.json"), &self.statement).unwrap();
        for (number, person) in signers.iter().enumerate() {
            fs::write(under.join(format!("recovery.json.sig-{number}")), self.signature(*person)).unwrap();
        }
    }

    /// The words that say who may sign.
    fn signers(&self) -> [String; 4] {
        let file = self.folder.path().join("allowed_signers");
        ["--allowed-signers".into(), text(&file).into(), "--quorum".into(), "2 of 3".into()]
    }

    fn verify_signed(&self, log: &Path) -> Answer {
        let words = self.signers();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        verify(log, &words)
    }
}

#[test]
fn the_mandate_of_a_log_is_checked_from_the_data_folder_and_from_its_export() {
    let site = Recovered::new();
    let data = site.party(LOG, &[0, 2]).database(site.folder.path());
    let bare = verify(&data, &[]).ends(0).json();
    assert_eq!(bare["mandate"]["statement_checked"], false);
    assert_eq!(bare["mandate"]["signers"][1], "signer-2@security");
    assert!(bare["not_checked"].to_string().contains("whether the policy's signers let this log take another's place"));
    // Somebody else's statement beside it says nothing.
    let other = data.join("archive/another");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("recovery.json"), "{}").unwrap();
    site.lay(&data.join("archive/one"), &[0, 2]);
    let found = verify(&data, &[]).ends(0).json();
    assert_eq!(found["mandate"]["statement_checked"], true);
    assert_eq!(found["mandate"]["signatures_checked"], false);
    assert!(found["not_checked"].to_string().contains("--allowed-signers"));
    let known = site.verify_signed(&data).ends(0).json();
    assert_eq!(known["mandate"]["signatures_checked"], true);
    assert!(!known["not_checked"].to_string().contains("statement"), "{known}");
    audit(&["verify", text(&data)]).ends(0).says("takes the place of casemate/party-1/old (9 leaves): restored");

    let export = site.folder.path().join("export");
    audit(&["export", "--data-dir", text(&data), "--output", text(&export)]).ends(0);
    let exported = site.verify_signed(&export).ends(0).json();
    assert_eq!(exported["mandate"], known["mandate"]);
    // Or with all of it given.
    let lines = site.put("lines.jsonl", &fs::read_to_string(export.join("log.jsonl")).unwrap());
    let [statement, one, two] = [
        site.put("statement", &site.statement),
        site.put("one", &site.signature(0)),
        site.put("two", &site.signature(2)),
    ];
    let words = site.signers();
    let given = ["--statement", text(&statement), "--signature", text(&one), "--signature", text(&two)];
    let all: Vec<&str> = words.iter().map(String::as_str).chain(given).collect();
    let given = verify(&lines, &all).ends(0).json();
    assert_eq!(given["mandate"]["signatures_checked"], true);
    assert!(given["not_checked"].to_string().contains("their snapshot is not at hand"));
}

#[test]
fn a_log_that_was_begun_without_the_quorum_is_not_valid() {
    for (names, signed, words) in [
        // One of two that are needed.
        (vec![0], vec![0], "1 of 2 needed people"),
        // It names somebody who did not sign.
        (vec![0, 1, 2], vec![0, 2], "names signer-1@security"),
    ] {
        let site = Recovered::new();
        let data = site.party(LOG, &names).database(site.folder.path());
        site.lay(&data.join("archive/one"), &signed);
        let answer = site.verify_signed(&data).ends(1);
        assert_eq!(answer.json()["kind"], "mandate");
        assert!(answer.out.contains(words), "{}", answer.out);
    }
    // People whom nobody allowed.
    let (site, strangers) = (Recovered::new(), Recovered::new());
    let data = site.party(LOG, &[0, 2]).database(site.folder.path());
    site.lay(&data.join("archive/one"), &[]);
    for (number, person) in [0, 2].into_iter().enumerate() {
        let signed = strangers.people[person].sign("casemate-recovery", HashAlg::Sha512, site.statement.as_bytes());
        let file = data.join(format!("archive/one/recovery.json.sig-{number}"));
        fs::write(file, signed.unwrap().to_pem(LineEnding::LF).unwrap()).unwrap();
    }
    assert_eq!(site.verify_signed(&data).ends(1).json()["kind"], "mandate");
}

#[test]
fn a_statement_about_another_log_or_another_state_gives_no_mandate() {
    let site = Recovered::new();
    let statement = site.put("statement", &site.statement);
    // A log of another name, begun with the statement of this one.
    let other = site.party("casemate/party-1/other", &[0, 2]);
    let log = site.put("other.jsonl", &other.log_text());
    let answer = verify(&log, &["--statement", text(&statement)]).ends(1);
    assert!(answer.out.contains("another `log` than the statement"), "{}", answer.out);
    // Another statement than the one that it names.
    let log = site.put("log.jsonl", &site.party(LOG, &[0, 2]).log_text());
    let wrong = site.put("wrong", &Recovered::new().statement.replace("restored", "rollback"));
    let answer = verify(&log, &["--statement", text(&wrong)]).ends(1);
    assert!(answer.out.contains("another `statement`"), "{}", answer.out);
    // Other guards than were signed for.
    let mut forged = Recovered::new();
    forged.statement.clone_from(&site.statement);
    forged.snapshot = Snapshot::before_first(LOG.parse().unwrap(), State::default(), at(-5)).to_text().unwrap();
    let log = site.put("guards.jsonl", &forged.party(LOG, &[0, 2]).log_text());
    let answer = verify(&log, &["--statement", text(&statement)]).ends(1);
    assert!(answer.out.contains("another `tables`"), "{}", answer.out);
}

#[test]
fn what_cannot_be_looked_at_is_no_verdict() {
    let site = Recovered::new();
    let data = site.party(LOG, &[0, 2]).database(site.folder.path());
    site.verify_signed(&data).ends(2).says("is not at hand: give it (--statement)");
    site.lay(&data.join("archive/one"), &[]);
    site.verify_signed(&data).ends(2).says("no signature under the statement is at hand");
    let first = site.put("first.jsonl", &Party::new(2).log_text());
    site.verify_signed(&first).ends(2).says("nobody signed for this log");
}

#[test]
fn what_a_log_took_over_binds_it_where_the_snapshot_is_at_hand() {
    let site = Recovered::new();
    let mut party = site.party(LOG, &[0, 2]);
    let back = GuardChange { guard: Guard::Share, id: "share-1".parse().unwrap(), to: Some("active".parse().unwrap()) };
    party.add(Entry::admin(Op::Share).guarding(vec![back]));
    let log = site.put("log.jsonl", &party.log_text());
    verify(&log, &[]).ends(0);
    let snapshot = site.put("snapshot.json", &site.snapshot);
    let answer = verify(&log, &["--snapshot", text(&snapshot)]).ends(1);
    assert_eq!(answer.json()["kind"], "guard");
    let data = party.database(site.folder.path());
    assert!(verify(&data, &[]).ends(1).out.contains("goes from revoked to active"));
}
