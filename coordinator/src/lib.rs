//! The coordinator: front door, sessions and message router.
//!
//! It convenes sessions among appliances and carries their messages. It holds no share, reads no message that is for
//! one party, and no appliance trusts it for authorization: what it may do at worst is delay, drop and ask.
//!
//! | module | what it holds |
//! |---|---|
//! | `cli` | the command line |
//! | `config` | the checked configuration |
//! | `server` | start, sockets, sweep, orderly stop |
//! | `front` | HTTP for business services: authentication, bodies, answers |
//! | `convene` | who takes part in a session, and what they are told |
//! | `conduct` | one running session: invite, relay, conclude, record |
//! | `session` | the life of a session, its results and its routing, without input or output |
//! | `invitation` | join tokens |
//! | `dial` | one HTTP/2 connection over mutual TLS to each appliance |
//! | `settle` | what follows a rotation until no old share is left |
//! | `account`, `api_key` | what they are |
//! | `derivation` | child keys |
//! | `store` | SQLite |
//! | `metrics` | Prometheus |
//!
//! The life of a request: `front` → `convene` → (`store`) → `conduct` ⇄ `dial` → `session` → (`store`) → `front`.

mod account;
mod api_key;
mod cli;
mod conduct;
mod config;
mod convene;
mod derivation;
mod dial;
mod front;
mod invitation;
mod metrics;
mod server;
mod session;
mod settle;
mod store;

pub use cli::{Command, CommandError};
pub use config::{Config, ConfigError, FileError, LogFormat, SAMPLE};
pub use server::{ServeError, Server, serve};
pub use store::StoreError;
