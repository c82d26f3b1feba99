//! `casemate audit` as auditors use it: the program itself, on files of three parties that were never theirs.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod committee;
mod exporting;
mod judging;
mod proving;
mod reconciling;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What a command answered.
struct Answer {
    code: i32,
    out: String,
    err: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("no JSON ({e}): {}{}", self.out, self.err))
    }

    /// The exit code must be this one.
    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        self
    }

    fn says(self, part: &str) -> Self {
        assert!(self.out.contains(part) || self.err.contains(part), "{part:?} is not in:\n{}{}", self.out, self.err);
        self
    }
}

fn audit(words: &[&str]) -> Answer {
    let ended = Command::new(env!("CARGO_BIN_EXE_casemate")).arg("audit").args(words).output().unwrap();
    Answer {
        code: ended.status.code().unwrap(),
        out: String::from_utf8(ended.stdout).unwrap(),
        err: String::from_utf8(ended.stderr).unwrap(),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
