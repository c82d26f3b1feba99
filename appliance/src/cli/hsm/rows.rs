//! The rows on each KEK and recovery key, for `casemate hsm status`.

use std::path::Path;

use casemate_hsm::HsmStatus;
use serde_json::{Value, json};

use super::super::say;
use crate::config::load_data_dir;
use crate::kek::{Holders, holders};
use crate::store::open_read_only;

/// What the database says, beside a running daemon or without one; in words, why it says nothing.
pub(super) struct Rows(Result<Holders, String>);

impl Rows {
    /// Counts them in the data folder that the configuration names, if it names one.
    pub(super) fn of(config: &Path) -> Self {
        let counted = || -> Result<Holders, Box<dyn std::error::Error>> {
            let folder = load_data_dir(config)?.ok_or("the configuration names no [party] data_dir")?;
            Ok(holders(&open_read_only(&folder)?)?)
        };
        Self(counted().map_err(|error| error.to_string()))
    }

    pub(super) fn to_json(&self) -> Value {
        match &self.0 {
            Ok(holders) => json!(holders),
            Err(why) => json!({"error": why}),
        }
    }

    pub(super) fn show(&self, status: &HsmStatus) {
        let holders = match &self.0 {
            Ok(holders) => holders,
            Err(why) => return say(format!("rows      not known: {why}")),
        };
        say(format!("rows      {} sealed in the database", holders.rows));
        let here = status.keys.iter().map(|key| key.id.as_str()).filter(|id| id.starts_with("kek/"));
        for kek in here.clone() {
            let count = holders.keks.get(kek).copied().unwrap_or(0);
            let state = if kek == status.kek_id { "wraps" } else { "only opens" };
            say(format!("          {kek:<9} {state}, {count} rows"));
        }
        for (kek, count) in &holders.keks {
            if here.clone().all(|id| id != kek) {
                say(format!("          {kek:<9} NOT on this token, {count} rows"));
            }
        }
        for (key, count) in &holders.recovery {
            say(format!("          recovery key {key}: {count} rows"));
        }
        if holders.unreadable > 0 {
            say(format!("          {} rows have wrapped keys that cannot be read", holders.unreadable));
        }
    }
}
