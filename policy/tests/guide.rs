//! Every example of docs/policy-guide.md is a bundle that loads, and whose cases end as the guide says.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;

use casemate_policy::bundle;
use common::*;
use tempfile::TempDir;

const GUIDE: &str = include_str!("../../docs/policy-guide.md");

/// The fenced blocks of one section.
#[derive(Default)]
struct Section {
    title: String,
    cedar: String,
    entities: Option<String>,
    tests: Option<String>,
}

fn sections() -> Vec<Section> {
    let mut sections = vec![Section::default()];
    let mut lines = GUIDE.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            sections.push(Section { title: title.to_owned(), ..Section::default() });
        }
        let Some(language) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let text = block.join("\n") + "\n";
        let section = sections.last_mut().unwrap();
        let place = match (language, text.starts_with('[')) {
            ("cedar", _) if section.cedar.is_empty() => {
                section.cedar = text;
                continue;
            }
            ("json", true) => &mut section.tests,
            ("json", false) => &mut section.entities,
            ("", _) => continue,
            _ => panic!("{}: a second block of {language}", section.title),
        };
        assert!(place.replace(text).is_none(), "{}: a second block of its kind", section.title);
    }
    sections
}

fn shared() -> Section {
    sections().into_iter().find(|section| section.title == "What the examples share").unwrap()
}

fn examples() -> Vec<Section> {
    sections().into_iter().filter(|section| section.title.starts_with("Example ")).collect()
}

fn folder_of(example: &Section) -> TempDir {
    let shared = shared();
    folder(&[
        ("entities.json", example.entities.as_deref().or(shared.entities.as_deref()).unwrap()),
        ("shared.cedar", &shared.cedar),
        ("example.cedar", &example.cedar),
        ("tests/shared.json", shared.tests.as_deref().unwrap()),
        ("tests/example.json", example.tests.as_deref().unwrap()),
    ])
}

#[test]
fn there_are_ten_examples_each_with_policies_and_cases() {
    let examples = examples();
    assert_eq!(examples.len(), 10);
    for (number, example) in (1..).zip(&examples) {
        assert!(example.title.starts_with(&format!("Example {number}: ")), "{}", example.title);
        assert!(!example.cedar.is_empty() && example.tests.is_some(), "{}", example.title);
    }
}

#[test]
fn every_example_loads_and_decides_as_it_says() {
    for example in examples() {
        let bundle = load(&folder_of(&example));
        assert!(bundle.is_ok(), "{}: {}", example.title, bundle.unwrap_err());
    }
}

#[test]
fn every_example_would_fail_without_its_rules() {
    for example in examples() {
        let dir = folder_of(&example);
        fs::remove_file(dir.path().join("example.cedar")).unwrap();
        bundle::seal(dir.path(), noon()).unwrap();
        assert!(load(&dir).is_err(), "{}: its cases pass without it", example.title);
    }
}

#[test]
fn every_example_is_formatted() {
    for Section { title, cedar, .. } in examples().into_iter().chain([shared()]) {
        assert_eq!(bundle::format(&title, &cedar).unwrap(), cedar, "{title}");
    }
}
