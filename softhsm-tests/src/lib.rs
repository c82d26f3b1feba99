//! What the whole-system tests and benches are made of: labs of real daemons on real SoftHSM tokens, clients, and a
//! coordinator that can lie.
//!
//! Test-only; nothing here is shipped, and all of it panics when something is not as it should be.
//!
//! | module | what it holds |
//! |---|---|
//! | [`programs`] | where the daemons' programs lie; builds them where they are missing |
//! | [`template`] | labs that are made once and copied for each test |
//! | [`lab`] | [`TestLab`]: one lab, its processes, its audit logs |
//! | [`http`], [`stream`] | an appliance's client: JSON calls, the message stream |
//! | [`convene`] | join tokens and participate bodies, whole or altered |
//! | [`relay`] | [`LyingCoordinator`]: convenes sessions itself and does to messages what a test wants |
//! | [`policy`] | bundles of a test's own |
//! | [`operator`] | what operators write and accept when a host has another HSM |
//! | [`mount`] | file systems to be filled and broken |
//! | [`service`] | a daemon under a systemd that the test plays |
//! | [`ethereum`] | transactions, their hashes and intents |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_errors_doc,
    reason = "test code: whatever is not as it should be fails the test"
)]

pub mod convene;
pub mod ethereum;
pub mod http;
pub mod lab;
pub mod mount;
pub mod operator;
pub mod policy;
pub mod programs;
pub mod relay;
pub mod service;
pub mod stream;
pub mod template;

pub use convene::{Convener, Invitation, Plan, Proposal};
pub use http::{Answer, ApplianceClient, Identity};
pub use lab::{Key, TestLab};
pub use relay::{End, LyingCoordinator, Parcel};
