//! `docs/metrics.md` lists every metric of both programs as Prometheus shows it, with its labels, and lists nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use casemate_appliance::metrics::Metrics;

use super::sources::{arguments, root};
use super::{name, tables, words};

const DOCUMENT: &str = include_str!("../../../docs/metrics.md");
const PROGRAMS: [(&str, &str); 2] =
    [("Appliance", "appliance/src/metrics.rs"), ("Coordinator", "coordinator/src/metrics.rs")];

/// A metric's kind and labels.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    kind: &'static str,
    labels: BTreeSet<String>,
}

/// What follows `before` in a source, up to `end`.
fn between<'a>(text: &'a str, before: &str, end: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(end).map(|(found, _)| found)
}

/// The metrics that a source registers, by the names under which they are scraped.
fn registered(path: &str) -> BTreeMap<String, Shape> {
    let text = fs::read_to_string(root().join(path)).unwrap();
    let mut metrics = BTreeMap::new();
    for call in text.split(".register(").skip(1) {
        let arguments = arguments(call);
        let [metric, help, place] = &arguments[..] else { continue };
        assert!(help.len() > 2, "{metric} has no help");
        let place = place.strip_suffix(".clone()").unwrap_or(place);
        let field = place.split('.').rfind(|part| *part != "0").unwrap();
        let declared = between(&text, &format!("    {field}: "), ",\n").unwrap_or_else(|| panic!("{field}"));
        // A metric in a type of its own.
        let declared = between(&text, &format!("pub struct {declared}("), ");").unwrap_or(declared);
        let labels = between(declared, "Family<", ",").map_or_else(BTreeSet::new, |labels| {
            let fields = between(&text, &format!("struct {labels} {{\n"), "}").unwrap();
            let label = |line: &str| line.trim().split(':').next().unwrap().trim_start_matches("r#").to_owned();
            fields.lines().map(label).filter(|label| !label.is_empty()).collect()
        });
        let (kind, ending) = if declared.contains("Counter") {
            ("counter", "_total")
        } else if declared.contains("Histogram") {
            ("histogram", "")
        } else {
            assert!(declared.contains("Gauge"), "{declared}");
            ("gauge", "")
        };
        let name = format!("{}{ending}", metric.trim_matches('"'));
        assert!(metrics.insert(name.clone(), Shape { kind, labels }).is_none(), "{name} is registered twice");
    }
    metrics
}

fn listed(heading: &str) -> BTreeMap<String, Shape> {
    let mut metrics = BTreeMap::new();
    for row in tables(DOCUMENT, heading) {
        let [_, kind, labels, unit, meaning] = row[..] else { panic!("{row:?}") };
        assert!(!unit.is_empty() && !meaning.is_empty(), "{row:?}");
        let kind = ["counter", "gauge", "histogram"].into_iter().find(|known| *known == kind);
        let labels = words(labels).into_iter().map(str::to_owned).collect();
        let shape = Shape { kind: kind.unwrap_or_else(|| panic!("{row:?}")), labels };
        assert!(metrics.insert(name(&row).to_owned(), shape).is_none(), "{} stands twice", name(&row));
    }
    metrics
}

/// What an expression may name: each series of both programs, with all its labels.
pub(crate) fn series() -> BTreeMap<String, BTreeSet<String>> {
    let mut series: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, shape) in PROGRAMS.iter().flat_map(|(_, path)| registered(path)) {
        let endings: &[&str] = if shape.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        for ending in endings {
            series.entry(format!("{name}{ending}")).or_default().extend(shape.labels.iter().cloned());
        }
    }
    series
}

/// The words of an expression that look like our metrics.
pub(crate) fn named(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("mpc_")).collect()
}

#[test]
fn every_metric_is_listed_with_its_labels_and_no_other() {
    for (heading, path) in PROGRAMS {
        assert_eq!(listed(heading), registered(path), "docs/metrics.md, {heading}");
    }
}

/// A family shows nothing before its first event, so this holds for metrics without labels alone.
#[test]
fn what_is_read_of_the_source_is_what_is_scraped() {
    let text = Metrics::new().text(0, 0);
    let scraped: BTreeSet<(&str, &str)> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let read = registered("appliance/src/metrics.rs");
    let single = read.iter().filter(|(_, shape)| shape.labels.is_empty());
    let single: BTreeSet<(&str, &str)> =
        single.map(|(name, shape)| (name.strip_suffix("_total").unwrap_or(name), shape.kind)).collect();
    assert_eq!(single, scraped);
}
