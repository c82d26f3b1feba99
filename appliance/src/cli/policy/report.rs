//! How the errors of a bundle are shown.

use casemate_policy::BundleError;
use casemate_policy::bundle::CaseReport;
use serde_json::{Value, json};

/// An error for programs.
pub(super) fn error_json(error: &BundleError) -> Value {
    json!({"message": error.to_string()})
}

/// An error for people: where and what, then what to do.
pub(super) fn error_lines(error: &BundleError) -> Vec<String> {
    vec![error.to_string()]
}

/// Refuses a bundle as the loader does: at the first test that fails, or if the tests leave something out.
///
/// # Errors
/// The loader's own.
pub(super) fn failed_tests(reports: &[CaseReport], untested: &[String]) -> Result<(), BundleError> {
    if let Some(failed) = reports.iter().find(|report| !report.passed()) {
        return Err(BundleError::Case {
            path: failed.file.clone(),
            case: failed.name.clone(),
            why: failed.difference(),
        });
    }
    untested.first().map_or(Ok(()), |missing| Err(BundleError::Untested(missing.clone())))
}
