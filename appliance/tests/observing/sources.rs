//! The sources of a program, read as text: what stands in a macro's or a call's parentheses.

use std::fs;
use std::path::{Path, PathBuf};

/// The crates of which the appliance's daemon is made, by their folders.
pub(crate) const APPLIANCE: &[&str] =
    &["appliance/src", "appliance/tpm/src", "hsm/src", "mpc/src", "policy/src", "attest/src", "wire/src"];
/// Those of the coordinator that are not in the appliance's list.
pub(crate) const COORDINATOR: &[&str] = &["coordinator/src"];

/// The project's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All source files below these folders, with their text.
pub(crate) fn files(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let mut waiting: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    assert!(!found.is_empty(), "{folders:?}");
    found
}

/// The arguments in the parentheses that `text` begins after, up to the one that closes them, split by commas.
pub(crate) fn arguments(text: &str) -> Vec<String> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let mut found = vec![String::new()];
    for letter in text.chars() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(String::new());
                continue;
            }
            _ => {}
        }
        found.last_mut().unwrap().push(letter);
    }
    let found = found.into_iter().map(|one| one.trim().to_owned());
    found.filter(|one| !one.is_empty()).collect()
}

#[test]
fn arguments_are_split_where_a_compiler_splits_them() {
    let read = arguments("event = \"a, b)\", n = f(1, g[2]), %error, \"{}\\\", {}\", x); more()");
    assert_eq!(read, ["event = \"a, b)\"", "n = f(1, g[2])", "%error", "\"{}\\\", {}\"", "x"]);
}
