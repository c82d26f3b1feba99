//! What operators watch: log events, metrics, alert rules and the dashboard are what their documents say, and nothing else.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod alerts;
mod dashboard;
mod events;
mod metrics;
mod sources;

/// The rows of a document's tables, by the heading `## …` that they stand under: each row's cells, without its head.
fn tables<'a>(document: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let mut inside = false;
    let mut rows = Vec::new();
    for line in document.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            inside = title == heading;
        }
        let Some(row) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")).filter(|_| inside) else {
            continue;
        };
        rows.push(row.split(" | ").collect());
    }
    rows.retain(|row: &Vec<&str>| row[0].starts_with('`'));
    assert!(!rows.is_empty(), "{heading} has no table");
    rows
}

/// The words in backticks of a cell; "–" is none.
fn words(cell: &str) -> Vec<&str> {
    if cell == "–" {
        return Vec::new();
    }
    let read = |word| -> &str {
        let inner = str::strip_prefix(word, '`').and_then(|word| word.strip_suffix('`'));
        inner.unwrap_or_else(|| panic!("{word} is not in backticks: {cell}"))
    };
    cell.split(", ").map(read).collect()
}

/// The first cell of a row, which is one name.
fn name<'a>(row: &[&'a str]) -> &'a str {
    let [name] = words(row[0])[..] else { panic!("{row:?}") };
    name
}
