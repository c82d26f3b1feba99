//! The coordinator from outside: its real program or its real server on a real socket, among appliances that speak
//! real TLS, HTTP/2 and frames, but compute nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub
)]

mod attestations;
mod front_door;
mod processes;
mod relay;
mod rotations;
mod sessions;
mod support;
mod trouble;
