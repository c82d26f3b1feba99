//! `casemate audit` as auditors use it: the program itself, on files of three parties that were never theirs.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../program/answer.rs"]
mod answer;
mod committee;
mod exporting;
mod judging;
mod mandates;
mod proving;
mod reconciling;

use std::path::Path;

use answer::{Answer, casemate};

fn audit(words: &[&str]) -> Answer {
    casemate("audit", words)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
