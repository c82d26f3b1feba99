//! `docs/events.md` lists every log event of both programs, with its level and fields, and lists nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::{APPLIANCE, COORDINATOR, arguments, files};
use super::{name, tables, words};

const DOCUMENT: &str = include_str!("../../../docs/events.md");
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// An event's levels and fields, over all places that log it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    levels: BTreeSet<String>,
    fields: BTreeSet<String>,
}

type Events = BTreeMap<String, Event>;

/// The events of one source. Whatever is logged in another way than `tracing::LEVEL!(event = "name", …)` is refused.
fn logged(place: &str, text: &str, into: &mut Events) {
    for unnamed in ["use tracing:", "tracing::event!", "_span!", "tracing::instrument", "use log", "dbg!"] {
        assert!(!text.contains(unnamed), "{place}: {unnamed}: its lines would have no event");
    }
    for level in LEVELS {
        for after in text.split(&format!("tracing::{level}!(")).skip(1) {
            let arguments = arguments(after);
            let named = arguments.first().and_then(|first| first.strip_prefix("event = \""));
            let Some(event) = named.and_then(|named| named.strip_suffix('"')) else {
                panic!("{place}: a line without an event: {arguments:?}");
            };
            let entry = into.entry(event.to_owned()).or_default();
            entry.levels.insert(level.to_owned());
            // The text ends the fields; what follows it only fills its gaps.
            let fields = arguments.iter().skip(1).take_while(|argument| !argument.starts_with('"'));
            let bare = |field: &String| {
                let (name, _) = field.split_once(" = ").unwrap_or((field, ""));
                name.trim_start_matches(['%', '?']).to_owned()
            };
            entry.fields.extend(fields.map(bare));
        }
    }
}

fn logged_by(folders: &[&str]) -> Events {
    let mut events = Events::new();
    for (path, text) in files(folders) {
        logged(&path.display().to_string(), &text, &mut events);
    }
    events
}

fn listed(heading: &str) -> Events {
    let mut events = Events::new();
    for row in tables(DOCUMENT, heading) {
        let [_, levels, fields, meaning, advice] = row[..] else { panic!("{row:?}") };
        assert!(!meaning.is_empty() && !advice.is_empty(), "{row:?}");
        let event = Event {
            levels: levels.split(", ").map(str::to_owned).collect(),
            fields: words(fields).into_iter().map(str::to_owned).collect(),
        };
        assert!(events.insert(name(&row).to_owned(), event).is_none(), "{} stands twice", name(&row));
    }
    events
}

#[test]
fn every_log_event_is_listed_with_its_level_and_fields_and_no_other() {
    for (heading, folders) in [("Appliance", APPLIANCE), ("Coordinator", COORDINATOR)] {
        let (logged, listed) = (logged_by(folders), listed(heading));
        assert!(logged.len() > 20, "{heading}: the sources are not read");
        for (event, found) in &logged {
            assert_eq!(listed.get(event), Some(found), "docs/events.md, {heading}: {event} is not as it is logged");
        }
        for event in listed.keys() {
            assert!(logged.contains_key(event), "docs/events.md, {heading}: nobody logs {event}");
        }
    }
}

#[test]
fn a_line_is_read_with_its_name_level_and_fields() {
    let mut events = Events::new();
    let text = "tracing::warn!(\n event = \"lost\", %error, seen = beside.len(), why, \"{}, {detail}\", x);\n\
                tracing::debug!(event = \"lost\", ?more);";
    logged("here", text, &mut events);
    let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
    let expected = Event { levels: set(&["warn", "debug"]), fields: set(&["error", "seen", "why", "more"]) };
    assert_eq!(events, BTreeMap::from([("lost".to_owned(), expected)]));
}

#[test]
#[should_panic(expected = "a line without an event")]
fn a_line_without_a_name_is_refused() {
    logged("here", "tracing::info!(\"hello\");", &mut Events::new());
}
