//! The file that holds the PIN.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use casemate_hsm::{Pin, PinSource};
use tempfile::TempDir;

fn file(content: impl AsRef<[u8]>, mode: u32) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hsm-pin");
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    (folder, path)
}

/// The refusal, which must name the file.
fn refused(source: &PinSource) -> String {
    let text = source.read().unwrap_err().to_string();
    assert!(text.contains(&source.path().display().to_string()), "{text}");
    text
}

#[test]
fn one_line_is_read_with_or_without_its_newline() {
    for content in ["1234", "1234\n", "pass phrase with spaces", "schlüssel\n"] {
        let (_folder, path) = file(content, 0o600);
        PinSource::file(&path).read().unwrap();
    }
}

#[test]
fn a_pin_prints_as_nothing() {
    let (_folder, path) = file("1234", 0o600);
    assert_eq!(format!("{:?}", PinSource::file(&path).read().unwrap()), "Pin([REDACTED])");
}

#[test]
fn a_plain_file_open_to_others_is_refused_with_the_command_that_closes_it() {
    for mode in [0o640, 0o604, 0o644, 0o700, 0o440, 0o666] {
        let (_folder, path) = file("1234", mode);
        let text = refused(&PinSource::file(&path));
        assert!(text.contains(&format!("chmod 600 {}", path.display())), "{text}");
    }
    for mode in [0o600, 0o400] {
        let (_folder, path) = file("1234", mode);
        PinSource::file(&path).read().unwrap();
    }
}

#[test]
fn a_credential_may_be_as_systemd_shows_it_and_no_wider() {
    for mode in [0o440, 0o400] {
        let (_folder, path) = file("1234", mode);
        PinSource::credential(&path).read().unwrap();
    }
    for mode in [0o600, 0o444, 0o460, 0o550] {
        let (_folder, path) = file("1234", mode);
        assert!(refused(&PinSource::credential(&path)).contains("chmod 0440"));
    }
}

#[test]
fn a_symbolic_link_is_not_followed() {
    let (folder, path) = file("1234", 0o600);
    let link = folder.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(refused(&PinSource::file(&link)).contains("not a regular file"));
}

#[test]
fn what_is_not_a_regular_file_is_refused_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    assert!(refused(&PinSource::file(folder.path())).contains("not a regular file"));
    let fifo = folder.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    assert!(refused(&PinSource::file(&fifo)).contains("not a regular file"));
}

#[test]
fn a_missing_file_is_named() {
    refused(&PinSource::file(Path::new("/nonexistent/hsm-pin")));
}

#[test]
fn an_empty_file_is_refused() {
    for content in ["", "\n"] {
        let (_folder, path) = file(content, 0o600);
        assert!(refused(&PinSource::file(&path)).contains("empty"));
    }
}

#[test]
fn anything_but_one_printable_line_is_refused() {
    let contents: [&[u8]; 6] = [b"12\n34", b"1234\n\n", b"1234\r\n", b"12\x0034", b"12\t34", b"\xff\xfe12"];
    for content in contents {
        let (_folder, path) = file(content, 0o600);
        assert!(refused(&PinSource::file(&path)).contains("one printable line"), "{content:?}");
    }
}

#[test]
fn a_file_too_long_for_a_pin_is_refused() {
    let (_folder, path) = file("1".repeat(255), 0o600);
    PinSource::file(&path).read().unwrap();
    for length in [256, 257, 100_000] {
        let (_folder, path) = file("1".repeat(length), 0o600);
        assert!(refused(&PinSource::file(&path)).contains("more than 255 bytes"));
    }
}

#[test]
fn a_refusal_shows_nothing_of_the_pin() {
    let (_folder, path) = file("geheim\ngeheim", 0o600);
    let error = PinSource::file(&path).read().unwrap_err();
    assert!(!format!("{error} {error:?}").contains("geheim"));
}

#[test]
fn a_file_of_another_user_is_refused() {
    let (_folder, path) = file("1234", 0o600);
    // Only root can give a file away; and only root could read it then.
    if chown(&path, Some(65534), None).is_ok() {
        assert!(refused(&PinSource::file(&path)).contains("belongs to user 65534"));
    }
}

#[test]
fn a_typed_pin_obeys_the_same_rules() {
    assert!(Pin::new("1234").is_some());
    for bad in ["", "12\n34", "1234\n"] {
        assert!(Pin::new(bad).is_none(), "{bad:?}");
    }
}
