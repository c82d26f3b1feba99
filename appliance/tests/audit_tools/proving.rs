//! `prove`.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use super::committee::Party;
use super::{audit, text};

struct Desk {
    folder: TempDir,
    party: Party,
    early: PathBuf,
    late: PathBuf,
}

/// A log of eleven leaves with checkpoints at six and eleven.
fn desk() -> Desk {
    let (folder, mut party) = (tempfile::tempdir().unwrap(), Party::new(1));
    let (early, late) = (folder.path().join("early"), folder.path().join("late"));
    for number in 0..9 {
        if number == 4 {
            fs::write(&early, party.note()).unwrap();
        }
        party.refuse(&format!("s-{number}"));
    }
    fs::write(&late, party.note()).unwrap();
    Desk { folder, party, early, late }
}

#[test]
fn proofs_from_files_and_from_a_database_are_the_same_and_hold_against_checkpoints() {
    let Desk { folder, party, early, late } = desk();
    let (export, data) = (party.export(folder.path()), party.database(folder.path()));
    let (key, proof, line) = (party.key().to_string(), folder.path().join("proof"), folder.path().join("line"));
    let check = |more: &[&str]| {
        let words = ["prove", "check", text(&proof), "--audit-key", &key];
        audit(&[&words[..], more].concat())
    };
    let made = audit(&["prove", "inclusion", text(&export), "--seq", "3"]).ends(0);
    assert_eq!(made.out, audit(&["prove", "inclusion", text(&data), "--seq", "3"]).ends(0).out);
    fs::write(&proof, &made.out).unwrap();
    check(&["--checkpoint", text(&late)]).ends(0).says("stands at 3");
    check(&["--checkpoint", text(&early)]).ends(1).says("make the proof for that size");
    fs::write(&line, format!("{}\n", party.lines[3].as_str())).unwrap();
    check(&["--checkpoint", text(&late), "--line", text(&line)]).ends(0).says("that line");
    fs::write(&line, party.lines[4].as_str()).unwrap();
    check(&["--checkpoint", text(&late), "--line", text(&line)]).ends(1).says("another leaf");
    let mut forged: Value = serde_json::from_str(&made.out).unwrap();
    forged["seq"] = 4.into();
    fs::write(&proof, forged.to_string()).unwrap();
    check(&["--checkpoint", text(&late), "--json"]).ends(1).says("\"valid\":false");

    let early_size = audit(&["prove", "inclusion", text(&data), "--seq", "3", "--size", "6"]).ends(0);
    fs::write(&proof, &early_size.out).unwrap();
    check(&["--checkpoint", text(&early)]).ends(0);

    let made = audit(&["prove", "consistency", text(&export), "--from", "6", "--to", "11"]).ends(0);
    assert_eq!(made.out, audit(&["prove", "consistency", text(&data), "--from", "6"]).ends(0).out);
    fs::write(&proof, &made.out).unwrap();
    check(&["--checkpoint", text(&late), "--from-checkpoint", text(&early)])
        .ends(0)
        .says("begins with that of 6 leaves");
    check(&["--checkpoint", text(&late)]).ends(1).says("--from-checkpoint");
    check(&["--checkpoint", text(&early), "--from-checkpoint", text(&late)]).ends(1);
}

#[test]
fn nothing_is_proven_from_a_bad_log_or_beyond_its_end() {
    let Desk { folder, party, .. } = desk();
    let export = party.export(folder.path());
    audit(&["prove", "inclusion", text(&export), "--seq", "11"]).ends(2).says("nothing to prove");
    audit(&["prove", "inclusion", text(&export), "--seq", "1", "--size", "12"]).ends(2).says("the log has 11 leaves");
    audit(&["prove", "consistency", text(&export), "--from", "7", "--to", "6"]).ends(2);
    audit(&["prove", "consistency", text(&export), "--from", "0"]).ends(2);
    let log = export.join("log.jsonl");
    fs::write(&log, party.log_text().replacen("s-3", "s-x", 1)).unwrap();
    audit(&["prove", "inclusion", text(&export), "--seq", "1"]).ends(2).says("not valid");
}

#[test]
fn what_was_pruned_is_vouched_for_and_still_proven_from_the_data_folder() {
    let (folder, mut party) = (tempfile::tempdir().unwrap(), Party::new(1));
    for number in 0..5 {
        party.refuse(&format!("s-{number}"));
    }
    let whole = party.log_text();
    party.prune();
    party.refuse("s-9");
    let (note, proof, key) = (folder.path().join("note"), folder.path().join("proof"), party.key().to_string());
    fs::write(&note, party.note()).unwrap();
    let data = party.database(folder.path());
    audit(&["verify", text(&data), "--audit-key", &key]).ends(0).says("the 7 leaves before these lines");
    audit(&["show", text(&data), "--session", "s-9"]).ends(0);
    let made = audit(&["prove", "inclusion", text(&data), "--seq", "3"]).ends(0);
    fs::write(&proof, made.out).unwrap();
    audit(&["prove", "check", text(&proof), "--checkpoint", text(&note), "--audit-key", &key]).ends(0);
    // The segment that was kept elsewhere and what the appliance has are one log.
    let (first, export) = (folder.path().join("first.jsonl"), folder.path().join("export"));
    fs::write(&first, whole).unwrap();
    audit(&["export", text(&data), "--output", text(&export)]).ends(0).says("exported 2 leaves");
    audit(&["verify", text(&export), "--audit-key", &key]).ends(0);
    audit(&["verify", text(&first), text(&export.join("log.jsonl"))]).ends(0).says("valid: 9 leaves");
    let given = format!("party-1={key}={}", export.display());
    audit(&["reconcile", "--party", &given]).ends(2).says("give the exported segments");
    let snapshot = export.join("snapshot.json");
    // Somebody puts a share into the state that the lines rest on.
    let good = fs::read_to_string(&snapshot).unwrap();
    let other = good.replacen(r#""shares":{}"#, r#""shares":{"s":"active"}"#, 1);
    assert_ne!(other, good);
    fs::write(&snapshot, other).unwrap();
    audit(&["verify", text(&export)]).ends(1).says("snapshot");
}
