//! What differs between two bundles, thing by thing: policies by their `@id`, addresses by book, test cases by name. Where
//! a thing stands in its file makes no difference, and neither does its layout.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::outline::{ManifestOutline, Outline};

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What kind of thing it is.
    pub section: Section,
    /// Its name: a policy's `@id`, an address in its book, a manifest's field.
    pub name: String,
    /// What became of it.
    pub change: ChangeKind,
    /// What it was; absent for one that was added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// What it is; absent for one that was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

/// The parts of a bundle, in the order in which a reviewer reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Section {
    /// A field of the manifest.
    Manifest,
    /// A policy.
    Policy,
    /// An asset of the asset table.
    Asset,
    /// An address book, whatever stands in it.
    AddressBook,
    /// An address in a book.
    Address,
    /// A key group, whatever stands in it.
    KeyGroup,
    /// A label or public key in a group.
    GroupMember,
    /// A calendar, whatever days stand in it.
    Calendar,
    /// A day in a calendar.
    CalendarDay,
    /// A recipient beside the host's own HSM, or how many custodians open a backup.
    Recipient,
    /// A test case.
    Test,
}

/// What became of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another now.
    Changed,
}

/// Everything that differs from `old` to `new`, by section and name. Empty for bundles that say the same.
pub fn difference(old: &Outline, new: &Outline) -> Vec<Change> {
    let (old, new) = (things(old), things(new));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let changes = names.into_iter().filter_map(|key| {
        let (was, is) = (old.get(key), new.get(key));
        let change = match (was, is) {
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            (was, is) if was == is => return None,
            _ => ChangeKind::Changed,
        };
        let (section, name) = key.clone();
        Some(Change { section, name, change, old: was.cloned(), new: is.cloned() })
    });
    changes.collect()
}

type Things = BTreeMap<(Section, String), String>;

fn things(outline: &Outline) -> Things {
    let mut things = Things::new();
    let mut add = |section, name: String, text: String| things.insert((section, name), text);
    for (name, text) in outline.manifest.iter().flat_map(fields) {
        add(Section::Manifest, name.to_owned(), text);
    }
    for (id, policy) in &outline.policies {
        add(Section::Policy, id.clone(), policy.text.clone());
    }
    for (id, asset) in &outline.entities.assets {
        add(Section::Asset, id.clone(), asset.clone());
    }
    for (book, addresses) in &outline.entities.address_books {
        add(Section::AddressBook, book.clone(), String::new());
        for (address, note) in addresses {
            add(Section::Address, format!("{book}: {address}"), note.clone());
        }
    }
    for (group, members) in &outline.entities.key_groups {
        add(Section::KeyGroup, group.clone(), String::new());
        for member in members {
            add(Section::GroupMember, format!("{group}: {member}"), String::new());
        }
    }
    for (calendar, days) in &outline.entities.calendars {
        add(Section::Calendar, calendar.clone(), String::new());
        for day in days {
            add(Section::CalendarDay, format!("{calendar}: {day}"), String::new());
        }
    }
    for (name, recipient) in &outline.recipients {
        add(Section::Recipient, name.clone(), recipient.clone());
    }
    for (name, case) in &outline.tests {
        add(Section::Test, name.clone(), case.clone());
    }
    things
}

fn fields(manifest: &ManifestOutline) -> [(&'static str, String); 6] {
    [
        ("name", manifest.name.clone()),
        ("version", manifest.version.to_string()),
        ("schema", manifest.schema.to_string()),
        ("not_before", manifest.not_before.to_string()),
        ("previous", manifest.previous.map(|digest| digest.to_string()).unwrap_or_default()),
        ("time_zone", manifest.time_zone.clone()),
    ]
}
