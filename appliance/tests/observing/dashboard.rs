//! The dashboard: Grafana can read it, its expressions name what is measured, and every metric is to be seen on it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::metrics::{named, series};

const DASHBOARD: &str = include_str!("../../../packaging/monitoring/dashboard.json");
/// The oldest form of dashboards that is written.
const SCHEMA: u64 = 36;
/// Grafana's grid is this wide.
const WIDTH: u64 = 24;

fn dashboard() -> Value {
    serde_json::from_str(DASHBOARD).unwrap()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().unwrap().clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value}"))
}

/// The expressions of all panels and variables.
fn expressions() -> Vec<String> {
    let dashboard = dashboard();
    let targets = list(&dashboard["panels"]).into_iter().filter(|panel| panel["type"] != "row");
    let shown = targets.flat_map(|panel| list(&panel["targets"])).map(|target| text(&target["expr"]).to_owned());
    let asked = list(&dashboard["templating"]["list"]).into_iter().filter(|variable| variable["type"] == "query");
    shown.chain(asked.map(|variable| text(&variable["query"]["query"]).to_owned())).collect()
}

#[test]
fn it_has_the_form_that_grafana_reads() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= SCHEMA);
    assert!(!text(&dashboard["title"]).is_empty() && !text(&dashboard["uid"]).is_empty());
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in list(&dashboard["panels"]) {
        let title = text(&panel["title"]).to_owned();
        assert!(!title.is_empty() && ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(x + w <= WIDTH && w > 0 && h > 0, "{title}: beyond the grid");
        for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line))) {
            assert!(cells.insert(cell), "{title}: it lies on another panel");
        }
        if text(&panel["type"]) == "row" {
            continue;
        }
        assert!(!text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(), "{title}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}: whoever loads it chooses the data source");
        let letters: BTreeSet<String> =
            list(&panel["targets"]).iter().map(|target| text(&target["refId"]).to_owned()).collect();
        assert_eq!(letters.len(), list(&panel["targets"]).len(), "{title}");
        assert!(!letters.is_empty(), "{title}");
    }
}

#[test]
fn every_variable_of_an_expression_is_defined() {
    let defined: BTreeSet<String> =
        list(&dashboard()["templating"]["list"]).iter().map(|one| text(&one["name"]).to_owned()).collect();
    for expression in expressions() {
        for after in expression.split('$').skip(1) {
            let name: String = after.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            assert!(name == "__rate_interval" || defined.contains(&name), "${name}: {expression}");
        }
    }
}

#[test]
fn it_names_what_is_measured_and_every_metric_is_on_it() {
    let measured = series();
    let mut shown = BTreeSet::new();
    for expression in expressions() {
        for metric in named(&expression) {
            let labels = measured.get(metric).unwrap_or_else(|| panic!("{metric} is not measured: {expression}"));
            // What Prometheus adds to every series, and to histograms.
            let added = ["job", "instance", "le"];
            for grouped in expression.split("by (").skip(1).filter_map(|after| after.split(')').next()) {
                for label in grouped.split(", ") {
                    assert!(added.contains(&label) || labels.contains(label), "{label}: {expression}");
                }
            }
            shown.insert(metric.to_owned());
        }
    }
    let family = |name: &str| {
        let ending = ["_bucket", "_sum", "_count"].into_iter().find_map(|ending| name.strip_suffix(ending));
        ending.unwrap_or(name).to_owned()
    };
    let shown: BTreeSet<String> = shown.iter().map(|name| family(name)).collect();
    for metric in measured.keys().map(|name| family(name)) {
        assert!(shown.contains(&metric), "{metric} is on no panel");
    }
}
