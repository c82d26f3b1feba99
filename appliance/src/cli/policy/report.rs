//! How the errors of a bundle are shown.

use casemate_policy::BundleError;
use casemate_policy::bundle::{CaseReport, Diagnostic};
use serde_json::{Value, json};

/// An error for programs: `file`, `line`, `column`, `policy`, `message` and `hint`, as far as they are known.
pub(super) fn error_json(error: &BundleError) -> Value {
    json!(error.diagnostic())
}

/// An error for people: where and what, then what to do.
pub(super) fn error_lines(error: &BundleError) -> Vec<String> {
    let Diagnostic { file, line, column, policy, message, hint } = error.diagnostic();
    let place: Vec<String> =
        file.into_iter().chain([line, column].into_iter().flatten().map(|number| number.to_string())).collect();
    let policy = policy.map(|id| format!("policy `{id}`"));
    let head = [Some(place.join(":")), policy].into_iter().flatten().filter(|part| !part.is_empty());
    let text = head.chain([message]).collect::<Vec<_>>().join(": ");
    std::iter::once(text).chain(hint.map(|hint| format!("    hint: {hint}"))).collect()
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
