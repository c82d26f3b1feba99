//! Dials the appliances: one HTTP/2 connection over mutual TLS to each, kept alive and made again when it breaks.

mod calls;
mod connection;
mod queue;

use std::collections::BTreeMap;
use std::sync::Arc;

use casemate_wire::{Code, PartyId, Problem};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

pub(crate) use calls::{Invitation, reported_by};
pub(crate) use connection::Connection;
pub(crate) use queue::{Queue, Waiting, queue};

use crate::config::{Address, Config};
use crate::metrics::Metrics;
use crate::settle::Bell;

/// Connections to all configured appliances.
pub(crate) struct Dialer {
    connections: BTreeMap<PartyId, Arc<Connection>>,
}

impl Dialer {
    /// Begins to dial every appliance, until `end`. The bell rings whenever one is there again.
    pub(crate) fn start(config: &Config, metrics: &Arc<Metrics>, bell: &Arc<Bell>, end: &CancellationToken) -> Self {
        let connect = |appliance: &crate::config::ApplianceConfig| {
            let tls = Arc::clone(&config.appliance_tls);
            let connection =
                Connection::start(appliance.clone(), tls, (Arc::clone(metrics), Arc::clone(bell)), end.clone());
            (appliance.party_id.clone(), Arc::new(connection))
        };
        Self { connections: config.appliances.iter().map(connect).collect() }
    }

    /// The connection to a party, if it is a configured appliance.
    pub(crate) fn to(&self, party: &PartyId) -> Option<&Arc<Connection>> {
        self.connections.get(party)
    }

    /// The connections to all appliances.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.connections.values()
    }

    /// Appliances that are not connected now, and since when.
    pub(crate) fn down(&self) -> Vec<(&PartyId, Timestamp)> {
        let down = self.connections.iter().filter_map(|(party, connection)| Some((party, connection.down_since()?)));
        down.collect()
    }
}

/// What the front door says of an appliance that does not answer as one.
fn unreachable(party: &PartyId, address: &Address, what: &str, why: impl std::fmt::Display) -> Problem {
    let detail = format!(
        "{party} at {address} could not be {what}: {why}; check that casemated runs there and that both sides' certificates fit"
    );
    Problem::new(Code::PartyUnreachable, detail).with("party", party.as_str()).with("url", address.to_string())
}

/// An error with everything that caused it, on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
