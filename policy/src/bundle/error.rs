//! Why a bundle is refused.

use std::path::PathBuf;

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
    #[error("{path}: {why}")]
    File {
        /// The path inside the bundle.
        path: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The manifest is wrong, or does not fit the files.
    #[error("manifest.toml: {0}")]
    Manifest(String),
    /// It is not signed by enough people, or does not follow on the newest bundle.
    #[error("the bundle is not trusted: {0}")]
    Trust(#[from] super::signatures::TrustError),
    /// A policy is refused.
    #[error("{path}: policy `{policy}`: {why}")]
    Policy {
        /// The path inside the bundle.
        path: String,
        /// The policy's `@id`, or its place in the file.
        policy: String,
        /// What is wrong, and what to do.
        why: String,
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
        Self::File { path: path.to_owned(), why: why.into() }
    }

    pub(crate) fn json(path: &str, error: &serde_json::Error) -> Self {
        Self::file(path, error.to_string())
    }
}
