//! The program `casemate`, and what it answered.

use std::process::Command;

use serde_json::Value;

/// What a command answered.
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("no JSON ({e}): {}{}", self.out, self.err))
    }

    /// The exit code must be this one.
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        self
    }

    pub(crate) fn says(self, part: &str) -> Self {
        assert!(self.out.contains(part) || self.err.contains(part), "{part:?} is not in:\n{}{}", self.out, self.err);
        self
    }
}

/// Runs `casemate COMMAND WORDS...`.
pub(crate) fn casemate(command: &str, words: &[&str]) -> Answer {
    let ended = Command::new(env!("CARGO_BIN_EXE_casemate")).arg(command).args(words).output().unwrap();
    Answer {
        code: ended.status.code().unwrap(),
        out: String::from_utf8(ended.stdout).unwrap(),
        err: String::from_utf8(ended.stderr).unwrap(),
    }
}
