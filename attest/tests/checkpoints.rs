//! Checkpoints: read by a verifier that was written from the C2SP texts alone, and every way in which one is no checkpoint.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::cast_possible_wrap)]

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use casemate_attest::{AuditKey, Checkpoint, CheckpointError, SignedCheckpoint};
use casemate_wire::Digest32;
use common::sample;
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

fn checkpoint() -> Checkpoint {
    Checkpoint::of(&sample().head)
}

fn note(seed: u8, checkpoint: Checkpoint) -> String {
    let signature: Signature = signer(seed).sign(checkpoint.text().as_bytes());
    checkpoint.signed(&audit_key(&signer(seed)), &signature.to_bytes().into()).unwrap().note().to_owned()
}

fn verify(note: &str) -> Result<Checkpoint, CheckpointError> {
    SignedCheckpoint::verify(note, &audit_key(&signer(7))).map(|signed| signed.checkpoint().clone())
}

/// Reads a note as c2sp.org/signed-note and c2sp.org/tlog-checkpoint say, with Python's own library, and has openssl check
/// the signature: none of our code. Gives `null` for what is to be refused.
const READER: &str = r#"
import base64, binascii, hashlib, json, os, subprocess, sys, tempfile
given = json.load(sys.stdin)
def opened(note, name, spki):
    raw = note.encode()
    if any(byte < 0x20 and byte != 0x0a for byte in raw): return None
    text, blank, lines = note.rpartition("\n\n")
    if not blank or not lines.endswith("\n"): return None
    text += "\n"
    key_id = hashlib.sha256(spki).digest()[:4]
    good = False
    for line in lines[:-1].split("\n"):
        if not line.startswith("\u2014 "): return None
        parts = line[2:].split(" ")
        if len(parts) != 2 or not parts[0] or "+" in parts[0]: return None
        try: signature = base64.b64decode(parts[1], validate=True)
        except binascii.Error: return None
        if len(signature) < 5: return None
        if parts[0] != name or signature[:4] != key_id: continue
        with tempfile.TemporaryDirectory() as folder:
            for file, content in (("key", spki), ("signature", signature[4:]), ("text", text.encode())):
                with open(os.path.join(folder, file), "wb") as output: output.write(content)
            command = "openssl dgst -sha256 -keyform DER -verify key -signature signature text"
            done = subprocess.run(command.split(), cwd=folder, capture_output=True)
        if done.returncode != 0: return None
        good = True
    if not good: return None
    lines = text[:-1].split("\n")
    if len(lines) < 3 or not all(lines): return None
    if not lines[1].isascii() or not lines[1].isdigit() or str(int(lines[1])) != lines[1]: return None
    root = base64.b64decode(lines[2], validate=True)
    return {"origin": lines[0], "size": int(lines[1]), "root": root.hex()}
answers = [opened(one["note"], one["name"], bytes.fromhex(one["spki"])) for one in given]
json.dump(answers, sys.stdout)
"#;

fn by_the_text_alone(notes: &[Value]) -> Vec<Value> {
    let mut python = Command::new("python3")
        .args(["-c", READER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 and openssl are needed: the independent reader of checkpoints runs on them");
    python.stdin.take().unwrap().write_all(&serde_json::to_vec(notes).unwrap()).unwrap();
    let done = python.wait_with_output().unwrap();
    assert!(done.status.success());
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Notes that were published with ECDSA keys, from transparency-dev/formats: Rekor's and Pixel's.
const PUBLISHED: [[&str; 5]; 2] = [
    [
        "Rekor\n798034\nf+7CoKgXKE/tNys9TTXcr/ad6U/K3xvznmzew9y6SP0=\n\n\u{2014} rekor.sigstore.dev wNI9ajBEAiARInWIWyCdyG27CO6LPnPekyw20qO0YJfoaPaowGp/XgIgc+qEHS3+GKVClgqq20uDLet7MCoTURUCRdxwWBHHufk=\n",
        "rekor.sigstore.dev",
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE2G2Y+2tabdTV5BcGiBIx0a9fAFwrkBbmLSGtks4L3qX6yYY0zufBnhC8Ur/iy55GhWP/9A/bY2LhC30M9+RYtw==",
        "798034",
        "f+7CoKgXKE/tNys9TTXcr/ad6U/K3xvznmzew9y6SP0=",
    ],
    [
        "DEFAULT\n10\nbsWRucJU5xJPHb5eBdOm6+DM+VelCZBuvtI3sHERJ9Y=\n\n\u{2014} pixel6_transparency_log kcFuMDBFAiEAhqMAP8P6qf6QxtUJhzMhbN+MbZ9dwfUHzGQJmffJHtoCIGD0cNe47dHWBoPwYdgBCepB06/+g5O1FmYjXl06owL4\n",
        "pixel6_transparency_log",
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE37jHQmTXJPC8sUj0Dg0N0ZlxfRqJZV1YzlclXLQzhVYPcC/JblDoez0DSZwOSlShiCf4oo83MULQfec3erolDw==",
        "10",
        "bsWRucJU5xJPHb5eBdOm6+DM+VelCZBuvtI3sHERJ9Y=",
    ],
];

#[test]
fn a_reader_written_from_the_c2sp_texts_alone_accepts_ours_and_the_published_ones() {
    let spki = |seed| hex::encode(signer(seed).verifying_key().to_public_key_der().unwrap().as_bytes());
    let (ours, name) = (note(7, checkpoint()), checkpoint().log.to_string());
    let mut given: Vec<Value> = PUBLISHED
        .iter()
        .map(|[note, name, spki, ..]| json!({"note": note, "name": name, "spki": hex::encode(STANDARD.decode(spki).unwrap())}))
        .collect();
    given.push(json!({"note": ours, "name": name, "spki": spki(7)}));
    given.push(json!({"note": ours, "name": name, "spki": spki(8)}));
    given.push(json!({"note": ours.replacen("\n12\n", "\n13\n", 1), "name": name, "spki": spki(7)}));
    given.push(json!({"note": ours, "name": "casemate/other", "spki": spki(7)}));
    let found = by_the_text_alone(&given);
    for ([_, _, _, size, root], found) in PUBLISHED.iter().zip(&found) {
        assert_eq!(found["size"].to_string(), *size);
        assert_eq!(found["root"], hex::encode(STANDARD.decode(root).unwrap()));
    }
    let Checkpoint { log, size, root } = checkpoint();
    assert_eq!(size, 12);
    assert_eq!(found[2], json!({"origin": log, "size": size, "root": root}));
    assert!(found[3..].iter().all(Value::is_null), "{found:?}");
}

/// What others published is well formed, and is not our log's: its key's name is not the log's.
#[test]
fn published_notes_are_read_and_are_not_ours() {
    for [note, _, spki, ..] in PUBLISHED {
        let key = AuditKey::from_spki(&STANDARD.decode(spki).unwrap()).unwrap();
        assert_eq!(SignedCheckpoint::verify(note, &key).map(drop), Err(CheckpointError::Unsigned));
    }
    let sofa = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";
    assert_eq!(verify(sofa), Err(CheckpointError::Unsigned));
    let poem = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned \u{e8} subito sera.\n\n\u{2014} quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
    assert!(matches!(verify(poem), Err(CheckpointError::Malformed(_))));
}

#[test]
fn openssl_checks_a_checkpoint_against_the_key_in_pem() {
    let folder = std::env::temp_dir().join(format!("casemate-checkpoint-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let whole = note(7, checkpoint());
    let (text, line) = whole.split_once("\n\n").unwrap();
    let signature = STANDARD.decode(line.trim().rsplit(' ').next().unwrap()).unwrap();
    let pem = signer(7).verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
    assert_eq!(signature[..4], audit_key(&signer(7)).fingerprint().0[..4]);
    for (name, content) in
        [("text", format!("{text}\n").into_bytes()), ("key", pem.into_bytes()), ("signature", signature[4..].to_vec())]
    {
        std::fs::write(folder.join(name), content).unwrap();
    }
    let words = ["dgst", "-sha256", "-verify", "key", "-signature", "signature", "text"];
    let done = Command::new("openssl").args(words).current_dir(&folder).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn no_altered_byte_makes_another_checkpoint() {
    let (good, whole) = (checkpoint(), note(7, checkpoint()));
    assert_eq!(verify(&whole), Ok(good.clone()));
    for place in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone().into_bytes();
            bytes[place] ^= 1 << bit;
            let Ok(altered) = String::from_utf8(bytes) else { continue };
            assert!(verify(&altered).is_err(), "byte {place} bit {bit}: {altered}");
        }
    }
}

#[test]
fn another_key_name_size_or_root_is_not_what_was_signed() {
    let whole = note(7, checkpoint());
    assert_eq!(verify(&note(8, checkpoint())), Err(CheckpointError::Unsigned));
    assert_eq!(verify(&whole.replacen("\n12\n", "\n13\n", 1)), Err(CheckpointError::BadSignature));
    assert_eq!(verify(&whole.replace("sample", "Sample")), Err(CheckpointError::BadSignature));
    let signature: Signature = signer(8).sign(checkpoint().text().as_bytes());
    let by_other = checkpoint().signed(&audit_key(&signer(7)), &signature.to_bytes().into());
    assert_eq!(by_other.map(drop), Err(CheckpointError::BadSignature));
}

#[test]
fn other_forms_of_a_note_are_refused_and_other_signatures_ignored() {
    let whole = note(7, checkpoint());
    let (text, line) = whole.split_once("\n\n").unwrap();
    let line = line.trim_end();
    let other = note(8, checkpoint());
    let other = other.split_once("\n\n").unwrap().1.trim_end().to_owned();
    let witness = format!("\u{2014} witness.example/w1 {}", STANDARD.encode([9; 76]));
    for more in [format!("{line}\n{other}\n"), format!("{witness}\n{line}\n"), format!("{line}\n{line}\n")] {
        assert_eq!(verify(&format!("{text}\n\n{more}")), Ok(checkpoint()));
    }
    let many = |count: usize| format!("{text}\n\n{}\n{line}\n", vec![witness.clone(); count].join("\n"));
    assert_eq!(verify(&many(16)), Ok(checkpoint()));
    assert!(verify(&many(64)).is_err());
    let large = format!("\u{2014} witness.example/pq {}", STANDARD.encode([9; 4900]));
    let large = format!("{text}\n\n{}\n{line}\n", vec![large; 15].join("\n"));
    assert_eq!(verify(&large), Ok(checkpoint()), "16 signatures of 5 kB must be read");
    let bad = [
        String::new(),
        "\n\n".into(),
        whole.trim_end().to_owned(),
        text.to_owned(),
        format!("{text}\n\n"),
        format!("{text}\n\n\n"),
        format!("{text}\n{line}\n"),
        format!("{text}\nextension\n\n{line}\n"),
        format!("{}\n\n{line}\n", text.replace('\n', "\r\n")),
        format!("{text}\n\n- {}\n", &line[4..]),
        format!("{text}\n\n\u{2014}  {}\n{line}\n", STANDARD.encode([9; 76])),
        format!("{text}\n\n\u{2014} a+b {}\n{line}\n", STANDARD.encode([9; 76])),
        format!("{text}\n\n{line}=\n"),
        format!("{text}\n\n{line}\n{line}"),
        format!("{}\n\n{line}\n", text.replacen("\n12\n", "\n012\n", 1)),
        format!("{}\n\n{line}\n", text.replacen("\n12\n", "\n+12\n", 1)),
        format!("{}\n\n{line}\n", text.replacen("\n12\n", "\n99999999999999999999\n", 1)),
        format!("{}\n\n{line}\n", text.replacen("\n12\n", "\n9007199254740992\n", 1)),
        format!("{text}\n\n\u{2014} {} {}\n", checkpoint().log, STANDARD.encode([1, 2, 3])),
        "x".repeat(200_000),
    ];
    for note in bad {
        assert!(verify(&note).is_err(), "{note:?}");
    }
}

proptest! {
    #[test]
    fn no_text_panics_or_is_a_checkpoint(text in "(?s).{0,300}", cut in any::<prop::sample::Index>(), put in "(?s).{0,4}") {
        prop_assert!(verify(&text).is_err());
        let mut whole = note(7, checkpoint());
        let places: Vec<usize> = whole.char_indices().map(|(place, _)| place).collect();
        let place = places[cut.index(places.len())];
        whole.insert_str(place, &put);
        if let Ok(found) = verify(&whole) {
            prop_assert_eq!(found, checkpoint());
        }
    }

    #[test]
    fn every_checkpoint_is_read_as_it_was_signed(size in 0u64..(1 << 53), root in any::<[u8; 32]>(), log in "[A-Za-z0-9._/-]{1,128}") {
        let checkpoint = Checkpoint { log: log.parse().unwrap(), size, root: Digest32(root) };
        prop_assert_eq!(verify(&note(7, checkpoint.clone())), Ok(checkpoint));
    }
}
