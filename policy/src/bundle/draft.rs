//! A bundle in the making: valid in itself, but perhaps not sealed and perhaps failing its own test cases.

use std::path::Path;

use casemate_wire::Digest32;

use super::case_request::CaseRequest;
use super::cases::{self, CaseReport, Cases};
use super::error::BundleError;
use super::files::Files;
use super::manifest::Manifest;
use super::policies::Source;
use super::recipients::Recipients;
use super::tables::Tables;
use super::{Bundle, Client, Rules, policies};
use crate::stack::on_large_stack;
use crate::verdict::Verdict;

/// A bundle for the tools of those who write it. It decides nothing but its own test cases and single requests of the same
/// form; only [`Bundle`] serves a daemon.
pub struct Draft {
    manifest: Manifest,
    rules: Rules,
    cases: Cases,
    recipients: Recipients,
}

impl Draft {
    /// Reads and checks a bundle from its folder as [`Bundle::load`] does, except that the manifest may be missing or not
    /// fit the files (they are being edited), and that test cases may fail.
    ///
    /// # Errors
    /// [`BundleError`] names the file, and line and column where they are known.
    pub fn read(dir: &Path, clients: &[Client]) -> Result<Self, BundleError> {
        let files = Files::read(dir)?;
        let (manifest, digest) = Manifest::of_draft(&files)?;
        Self::compile(&files, manifest, digest, clients)
    }

    /// Everything after the manifest.
    pub(super) fn compile(
        files: &Files,
        manifest: Manifest,
        digest: Digest32,
        clients: &[Client],
    ) -> Result<Self, BundleError> {
        let time_zone = manifest.time_zone()?;
        let tables = Tables::parse(files.entities())?;
        let recipients = Recipients::parse(files.recipients())?;
        let sources = files
            .policies()?
            .into_iter()
            .map(|(path, text)| Source::within_bounds(path, text))
            .collect::<Result<Vec<_>, BundleError>>()?;
        let rules = on_large_stack(|| policies::compile(&sources, tables, clients, time_zone, digest))
            .map_err(|error| BundleError::Evaluator(error.to_string()))??;
        let cases = Cases::parse(files)?;
        Ok(Self { manifest, rules, cases, recipients })
    }

    /// The bundle, if all of its cases pass and suffice.
    pub(super) fn tested(self) -> Result<Bundle, BundleError> {
        cases::check(&self.run_cases(), &self.rules)?;
        Ok(Bundle { manifest: self.manifest, rules: self.rules, recipients: self.recipients })
    }

    /// Runs every test case, in the order of the files.
    pub fn run_cases(&self) -> Vec<CaseReport> {
        self.cases.run(&self.rules, self.manifest.not_before)
    }

    /// What the cases leave untested, in words: there must be one that is allowed, and a refusal by each forbid. Empty if
    /// they suffice.
    pub fn untested(&self) -> Vec<String> {
        cases::untested(&self.run_cases(), &self.rules)
    }

    /// Judges one request in the form of a test case's `request`.
    ///
    /// # Errors
    /// Says, with line and column, why the text is not such a request.
    pub fn explain(&self, request_json: &str) -> Result<Verdict, String> {
        explain(&self.rules, &self.manifest, request_json)
    }
}

impl Bundle {
    /// Judges one request in the form of a test case's `request`, for people who ask what would happen.
    ///
    /// # Errors
    /// Says, with line and column, why the text is not such a request.
    pub fn explain(&self, request_json: &str) -> Result<Verdict, String> {
        explain(&self.rules, &self.manifest, request_json)
    }
}

fn explain(rules: &Rules, manifest: &Manifest, request_json: &str) -> Result<Verdict, String> {
    let request: CaseRequest =
        serde_json::from_str(request_json).map_err(|error| format!("the request cannot be read: {error}"))?;
    request.judge(rules, manifest.not_before)
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft").field("name", &self.manifest.name).finish_non_exhaustive()
    }
}
