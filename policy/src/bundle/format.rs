//! One form for all Cedar files, so that reviews show what changed and nothing else.

use cedar_policy_formatter::{Config, policies_str_to_pretty};

use super::error::BundleError;
use super::policies::{self, Source};
use crate::stack::on_large_stack;

/// Columns of a line, where the text can be broken.
const LINE_WIDTH: usize = 120;
/// Columns that each level is indented by.
const INDENT: isize = 2;

/// The text of a Cedar file in the form that reviews expect; comments and annotations stay. Formatting it again changes
/// nothing. `path` is for the error.
///
/// # Errors
/// [`BundleError`] if the text is beyond the bounds of a bundle or is not Cedar.
pub fn format(path: &str, text: &str) -> Result<String, BundleError> {
    let source = Source::within_bounds(path, text)?;
    let (header, statements) = header(text);
    let formatted = on_large_stack(|| {
        // Errors of this parser say where and what to do, those of the formatter do not.
        policies::parse(&source)?;
        pretty(path, statements)
    });
    let formatted = formatted.map_err(|error| BundleError::Evaluator(error.to_string()))??;
    Ok(format!("{header}{formatted}"))
}

/// The comment that opens a file, with the empty line under it, and the rest. The formatter would take away the empty line
/// and so give the file's comment to its first policy.
fn header(text: &str) -> (String, &str) {
    let mut header = String::new();
    let mut rest = text;
    while let Some((line, after)) = rest.split_once('\n') {
        let line = line.trim_end();
        if line.is_empty() && !header.is_empty() {
            header.push('\n');
            return (header, after);
        }
        if !line.starts_with("//") {
            break;
        }
        header.push_str(line);
        header.push('\n');
        rest = after;
    }
    (String::new(), text)
}

/// Formats text that was checked, on a large stack already.
pub(super) fn pretty(path: &str, text: &str) -> Result<String, BundleError> {
    // The formatter breaks no line twice alike where a comment follows it, so it runs until nothing changes.
    let mut last = once(path, text)?;
    for _ in 0..4 {
        let next = once(path, &last)?;
        if next == last {
            return Ok(last);
        }
        last = next;
    }
    Err(BundleError::file(path, "the formatter finds no stable form for it; move its comments to lines of their own"))
}

fn once(path: &str, text: &str) -> Result<String, BundleError> {
    let config = Config { line_width: LINE_WIDTH, indent_width: INDENT };
    let formatted = policies_str_to_pretty(text, &config).map_err(|error| {
        let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
        BundleError::file(path, causes.join(": "))
    })?;
    // Without any policy it begins with an empty line.
    Ok(formatted.trim_start_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn formatting_twice_changes_nothing_and_comments_stay() {
        let text = "// Of the file.\n\n@id(\"a\")   // beside\npermit(principal,action,resource)when{ // why\n\
                    context.blind&&true // second\n};// after\n\n// At the end.";
        let once = format("a.cedar", text).unwrap();
        for comment in ["// Of the file.", "// beside", "// why", "// second", "// after", "// At the end."] {
            assert!(once.contains(comment), "{comment} is lost in:\n{once}");
        }
        assert_eq!(format("a.cedar", &once).unwrap(), once);
        assert!(once.starts_with("// Of the file.\n\n@id"), "the file's comment is not the first policy's:\n{once}");
        assert!(once.ends_with('\n'));
    }

    #[test]
    fn a_comment_without_an_empty_line_belongs_to_its_policy() {
        let text = "// Why.\n@id(\"a\")\npermit (principal, action, resource);\n";
        assert!(format("a.cedar", text).unwrap().starts_with("// Why.\n@id"));
        assert_eq!(format("a.cedar", "// Nothing yet.\n").unwrap(), "// Nothing yet.\n");
    }

    #[test]
    fn what_is_no_cedar_is_not_formatted() {
        let why = format("a.cedar", "permit (principal, action").unwrap_err().to_string();
        assert!(why.starts_with("a.cedar:1:26: "), "{why}");
        assert!(format("a.cedar", &"(".repeat(10_000)).is_err());
    }
}
