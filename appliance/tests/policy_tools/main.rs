//! `casemate policy` as staff use it: the program itself, on folders.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../program/answer.rs"]
mod answer;
mod comparing;
mod deciding;
mod writing;

use std::fs;
use std::path::{Path, PathBuf};

use answer::{Answer, casemate};
use tempfile::TempDir;

fn policy(words: &[&str]) -> Answer {
    casemate("policy", words)
}

/// A starter bundle in a folder of its own.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { folder: tempfile::tempdir().unwrap() };
        policy(&["init", &desk.dir()]).ends(0);
        desk
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("policy")
    }

    fn dir(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path().join(path)).unwrap()
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.path().join(path), text).unwrap();
    }

    fn replace(&self, path: &str, from: &str, to: &str) {
        let text = self.read(path);
        assert!(text.contains(from), "{from:?} is not in {path}");
        self.write(path, &text.replacen(from, to, 1));
    }

    /// A file beside the bundle.
    fn beside(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// Copies the files of a bundle.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("tests")).unwrap();
    for folder in ["", "tests"] {
        for entry in fs::read_dir(from.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, to.join(folder).join(path.file_name().unwrap())).unwrap();
            }
        }
    }
}
