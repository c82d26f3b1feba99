//! Why a bundle is refused.

use std::path::PathBuf;

use serde::Serialize;

use super::files::MANIFEST;

/// Why a bundle is refused. The texts are for the people who write policies.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The folder or a file in it could not be used.
    #[error("could not {doing} {}: {source}", path.display())]
    Io {
        /// For example `read`.
        doing: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file does not belong, is too large, or is not what it should be.
    #[error("{}: {why}{}", place(path, *position), advice(hint.as_ref()))]
    File {
        /// The path inside the bundle.
        path: String,
        /// Where in it.
        position: Option<Position>,
        /// What is wrong, and what to do.
        why: String,
        /// What Cedar suggests.
        hint: Option<String>,
    },
    /// The manifest is wrong, or does not fit the files.
    #[error("manifest.toml: {0}")]
    Manifest(String),
    /// It is not signed by enough people, or does not follow on the newest bundle.
    #[error("the bundle is not trusted: {0}")]
    Trust(#[from] super::signatures::TrustError),
    /// A policy is refused.
    #[error("{}: policy `{policy}`: {why}{}", place(path, *position), advice(hint.as_ref()))]
    Policy {
        /// The path inside the bundle.
        path: String,
        /// Where in it.
        position: Option<Position>,
        /// The policy's `@id`, or its place in the file.
        policy: String,
        /// What is wrong, and what to do.
        why: String,
        /// What Cedar suggests.
        hint: Option<String>,
    },
    /// A test case of the bundle fails.
    #[error("{path}: test `{case}`: {why}")]
    Case {
        /// The path inside the bundle.
        path: String,
        /// The test's name.
        case: String,
        /// Expected and actual verdict.
        why: String,
    },
    /// The bundle has too few test cases.
    #[error("the bundle's tests do not suffice: {0}")]
    Untested(String),
    /// The evaluator itself failed.
    #[error("{0}")]
    Evaluator(String),
}

impl BundleError {
    pub(crate) fn file(path: &str, why: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), position: None, why: why.into(), hint: None }
    }

    pub(crate) fn at(path: &str, position: Position, why: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), position: Some(position), why: why.into(), hint: None }
    }

    pub(crate) fn json(path: &str, error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let position = Position { line: error.line(), column: error.column().max(1) };
        if position.line == 0 {
            return Self::file(path, text);
        }
        // The position has a place of its own.
        let why = text.rsplit_once(" at line ").map_or(text.as_str(), |(why, _)| why);
        Self::at(path, position, why)
    }

    /// The error in parts, for programs.
    pub fn diagnostic(&self) -> Diagnostic {
        let mut diagnostic = Diagnostic { message: self.to_string(), ..Diagnostic::default() };
        match self {
            Self::File { path, position, why, hint } => {
                diagnostic.file = Some(path.clone());
                diagnostic.message.clone_from(why);
                diagnostic.set(*position, hint.as_ref());
            }
            Self::Policy { path, policy, position, why, hint } => {
                diagnostic.file = Some(path.clone());
                diagnostic.policy = Some(policy.clone());
                diagnostic.message.clone_from(why);
                diagnostic.set(*position, hint.as_ref());
            }
            Self::Case { path, case, why } => {
                diagnostic.file = Some(path.clone());
                diagnostic.message = format!("test `{case}`: {why}");
            }
            Self::Manifest(why) => {
                diagnostic.file = Some(MANIFEST.into());
                diagnostic.message.clone_from(why);
            }
            // What is not about a place in a file is its text alone.
            _ => {}
        }
        diagnostic
    }
}

/// A place in a file, counted from 1; columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Position {
    /// The place of a byte.
    pub(crate) fn of(text: &str, offset: usize) -> Self {
        let before = || text.char_indices().take_while(|(at, _)| *at < offset).map(|(_, character)| character);
        let line = before().filter(|character| *character == '\n').count();
        let column = before().fold(0, |column: usize, next| if next == '\n' { 0 } else { column.saturating_add(1) });
        Self { line: line.saturating_add(1), column: column.saturating_add(1) }
    }
}

/// Why a bundle is refused, in parts; what is not known is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The path inside the bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column, from 1, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The policy's `@id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Diagnostic {
    fn set(&mut self, position: Option<Position>, hint: Option<&String>) {
        self.line = position.map(|position| position.line);
        self.column = position.map(|position| position.column);
        self.hint = hint.cloned();
    }
}

fn place(path: &str, position: Option<Position>) -> String {
    position.map_or_else(|| path.to_owned(), |Position { line, column }| format!("{path}:{line}:{column}"))
}

fn advice(hint: Option<&String>) -> String {
    hint.map(|hint| format!(" ({hint})")).unwrap_or_default()
}
