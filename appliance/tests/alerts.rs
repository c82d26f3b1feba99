//! The alert rules: every metric that they name is measured, every paragraph that they link to is in the runbook.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;

use casemate_appliance::config::TlsFiles;
use casemate_appliance::metrics::Metrics;
use casemate_appliance::tls::{Material, TlsSlot};
use jiff::Timestamp;

const ALERTS: &str = include_str!("../../packaging/monitoring/alerts.yml");
const RUNBOOK: &str = include_str!("../../docs/runbook.md");

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

/// The words of an expression that look like our metrics.
fn metrics(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("mpc_")).collect()
}

/// A heading's anchor, as forges make it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// What a daemon measures that has TLS files.
fn measured() -> String {
    let folder = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
    let path = |name: &str| folder.path().join(name);
    let files = TlsFiles { ca: path("pem"), certificate: path("pem"), key: path("key"), crl: None };
    fs::write(&files.ca, certificate.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
    let metrics = Metrics::new();
    let material = Material::load(&files, Timestamp::now()).unwrap();
    metrics.tls(&TlsSlot::new(files, material), Timestamp::now());
    metrics.text(0, 0)
}

#[test]
fn every_alert_names_metrics_that_are_measured() {
    let measured = measured();
    let rules = rules(ALERTS);
    assert_eq!(rules.len(), 7);
    let mut named = BTreeSet::new();
    for rule in &rules {
        let found = metrics(&rule["expr"]);
        assert!(!found.is_empty(), "{rule:?}");
        for metric in &found {
            let family = metric.strip_suffix("_total").unwrap_or(metric);
            assert!(measured.contains(&format!("# TYPE {family} ")), "{metric} is not measured");
        }
        named.extend(found);
    }
    for metric in [
        "mpc_backup_age_seconds",
        "mpc_backup_missing",
        "mpc_rotation_age_seconds",
        "mpc_old_shares",
        "mpc_tls_expiry_seconds",
        "mpc_tls_refused_seconds",
    ] {
        assert!(named.contains(metric), "nobody is alerted by {metric}");
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
