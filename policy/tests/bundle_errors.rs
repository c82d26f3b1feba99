//! Where an error stands: file, line and column, with a hint where Cedar has one.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use casemate_policy::bundle::Diagnostic;
use common::*;

/// The diagnostic of a bundle with this Cedar file.
fn diagnostic(cedar: &str) -> Diagnostic {
    load_with(cedar, "[]").unwrap_err().diagnostic()
}

fn place(cedar: &str) -> (String, usize, usize) {
    let diagnostic = diagnostic(cedar);
    (diagnostic.file.clone().unwrap(), diagnostic.line.unwrap(), diagnostic.column.unwrap())
}

fn at(line: usize, column: usize) -> (String, usize, usize) {
    ("more.cedar".into(), line, column)
}

#[test]
fn syntax_errors_show_where_the_parser_stopped() {
    assert_eq!(place("@id(\"p\")\npermit (principal, action, resource)\nwhen { context.blind && };"), at(3, 25));
    assert_eq!(place("// Größe: ü\n  @id(\"p\") permit (principal action, resource);"), at(2, 30));
}

#[test]
fn characters_and_depth_are_refused_where_they_stand() {
    assert_eq!(place("@id(\"p\")\npermit (principal, action, resource)\n  when { \"é\" == \"e\" };"), at(3, 11));
    let deep = format!("@id(\"p\")\npermit (principal, action, resource) when {{\n{}true }};", "(".repeat(100));
    assert_eq!(place(&deep), at(3, 64));
}

#[test]
fn type_errors_show_the_expression_and_what_to_do() {
    let cedar = "@id(\"fine\") permit (principal, action, resource);\n\n@id(\"p\")\nforbid (principal, action, resource)\n\
                 when { context.approvals.cuont < 2 };";
    let found = diagnostic(cedar);
    assert_eq!((found.line, found.column), (Some(5), Some(8)), "{found:?}");
    assert_eq!(found.policy.as_deref(), Some("p"));
    assert!(found.hint.as_ref().is_some_and(|hint| hint.contains("count")), "{found:?}");
    let text = load_with(cedar, "[]").unwrap_err().to_string();
    assert!(text.starts_with("more.cedar:5:8: policy `p`: "), "{text}");
    assert_eq!(
        serde_json::to_value(&found).unwrap()["line"],
        5,
        "programs get the parts as they stand in the diagnostic"
    );
}

#[test]
fn an_optional_attribute_that_is_not_asked_for_gets_a_hint() {
    let found = diagnostic(
        "@id(\"p\") forbid (principal, action == Mpc::Action::\"Sign\", resource)\n  when { context.tx.kind == \"x\" };",
    );
    assert_eq!((found.line, found.column), (Some(2), Some(10)), "{found:?}");
    assert!(found.hint.unwrap().contains("has"));
}

#[test]
fn what_cedar_accepts_and_this_refuses_shows_the_policy() {
    let second =
        |policy: &str| place(&format!("@id(\"fine\") permit (principal, action, resource);\n// next\n\n {policy}"));
    assert_eq!(second("permit (principal, action, resource);"), at(4, 2));
    assert_eq!(second("@id(\"fine\") permit (principal, action, resource);"), at(4, 2));
    assert_eq!(second("@id(\"p\") @why(\"x\") permit (principal, action, resource);"), at(4, 2));
    assert_eq!(second("@id(\"p\") permit (principal == Mpc::Client::\"nobody\", action, resource);"), at(4, 2));
}

#[test]
fn positions_count_policies_in_their_order_however_many_there_are() {
    let permits: Vec<String> =
        (0..25).map(|n| format!("@id(\"p{n}\") permit (principal, action, resource);\n")).collect();
    let mut cedar = permits.concat();
    cedar.push_str("permit (principal, action, resource);");
    assert_eq!(place(&cedar), at(26, 1));
}

#[test]
fn json_errors_show_line_and_column() {
    let found = |path: &str, text: &str| {
        let files = [("all.cedar", ALLOW_ALL), ("tests/a.json", ONE_ALLOWED), (path, text)];
        load(&folder(&files)).unwrap_err().diagnostic()
    };
    let entities = found("entities.json", "{\n  \"assets\": [],\n  \"adress_books\": []\n}");
    assert_eq!((entities.file.as_deref(), entities.line, entities.column), (Some("entities.json"), Some(3), Some(16)));
    assert!(entities.message.contains("adress_books") && !entities.message.contains("line"), "{}", entities.message);
    let tests = found("tests/b.json", "[\n  {\"name\": }\n]");
    assert_eq!((tests.file.as_deref(), tests.line, tests.column), (Some("tests/b.json"), Some(2), Some(12)));
}

#[test]
fn failed_tests_and_manifests_name_their_file() {
    let failing = ONE_ALLOWED.replace("allow\"", "deny\"").replace(r#"["all"]"#, "[]");
    let found = load_with("", &failing).unwrap_err().diagnostic();
    assert_eq!((found.file.as_deref(), found.line), (Some("tests/more.json"), None));
    let dir = folder(&[("all.cedar", ALLOW_ALL)]);
    write(dir.path(), "manifest.toml", "version = x");
    assert_eq!(load(&dir).unwrap_err().diagnostic().file.as_deref(), Some("manifest.toml"));
}
