//! The alert rules: every metric that they name is measured, every paragraph that they link to is in the runbook.

use std::collections::{BTreeMap, BTreeSet};

use super::metrics::{named, series};

const ALERTS: &str = include_str!("../../../packaging/monitoring/alerts.yml");
const TESTS: &str = include_str!("../../../packaging/monitoring/alerts_test.yml");
const RUNBOOK: &str = include_str!("../../../docs/runbook.md");

/// Reads the part of YAML in which the file is written: nested `key: value` lines, lists of such, comments. Each rule becomes a map of
/// its fields, with the fields of `labels` and `annotations` by their own names. Anything else is refused.
fn rules(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut rules: Vec<BTreeMap<String, String>> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let refuse = |why: &str| -> ! { panic!("line {}: {why}: {line}", number + 1) };
        let indent = line.len() - content.len();
        let (item, field) = content.strip_prefix("- ").map_or((false, content), |field| (true, field));
        let Some((name, value)) = field.split_once(':') else { refuse("no field") };
        let value = value.strip_prefix(' ').unwrap_or(value);
        let quoted = value.len() > 1 && value.starts_with('"') && value.ends_with('"');
        let plain = !value.contains(": ")
            && !value.contains(" #")
            && !value.starts_with(['{', '[', '&', '*', '|', '"', '%', '@']);
        if indent % 2 != 0 || line.contains('\t') || !(quoted || plain) {
            refuse("not in the form that is read here");
        }
        match (indent, item) {
            (0 | 4, false) | (2, true) => {}
            (6, true) => rules.push(BTreeMap::from([(name.to_owned(), value.to_owned())])),
            (8 | 10, false) => {
                let Some(rule) = rules.last_mut() else { refuse("a field outside a rule") };
                if rule.insert(name.to_owned(), value.trim_matches('"').to_owned()).is_some() {
                    refuse("a field twice");
                }
            }
            _ => refuse("an indentation that is not known"),
        }
    }
    rules
}

/// A heading's anchor, as forges make it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_alert_names_metrics_that_are_measured() {
    let measured = series();
    for rule in rules(ALERTS) {
        let found = named(&rule["expr"]);
        assert!(!found.is_empty(), "{rule:?}");
        for metric in found {
            assert!(measured.contains_key(metric), "{metric} is not measured: {rule:?}");
        }
    }
}

/// What promtool runs; here it only stands that no rule is left out of it, in either direction.
#[test]
fn every_alert_is_shown_to_fire_and_to_be_silent() {
    for rule in rules(ALERTS) {
        let name = &rule["alert"];
        let asked = format!("ALERTS{{alertname=\"{name}\", alertstate=\"firing\"}})");
        let tests = TESTS.split(&asked).skip(1);
        let outcomes: BTreeSet<bool> =
            tests.map(|test| test.lines().nth(2).unwrap().ends_with("exp_samples: []")).collect();
        assert_eq!(outcomes.len(), 2, "{name}: alerts_test.yml shows it only one way");
    }
}

#[test]
fn every_alert_links_to_a_paragraph_of_the_runbook() {
    let anchors: BTreeSet<String> =
        RUNBOOK.lines().filter_map(|line| line.strip_prefix("## ").or(line.strip_prefix("### "))).map(anchor).collect();
    let mut names = BTreeSet::new();
    for rule in rules(ALERTS) {
        for field in ["alert", "expr", "for", "severity", "summary", "description", "runbook_url"] {
            assert!(rule.get(field).is_some_and(|value| !value.is_empty()), "{field} is missing: {rule:?}");
        }
        let anchor = rule["runbook_url"].strip_prefix("docs/runbook.md#").unwrap();
        assert!(anchors.contains(anchor), "{anchor} is no heading of the runbook");
        assert!(names.insert(rule["alert"].clone()), "{} stands twice", rule["alert"]);
    }
    // The runbook's own links too.
    for link in RUNBOOK.split("](#").skip(1) {
        let (anchor, _) = link.split_once(')').unwrap();
        assert!(anchors.contains(anchor), "{anchor} is no heading of the runbook");
    }
}
