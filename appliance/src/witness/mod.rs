//! Peers as witnesses of each other's audit logs.
//!
//! Hellos say where each log stands and what each party has seen of the others'. Before the first protocol message every
//! party answers with a fresh signed checkpoint and with proofs that its log begins with all of that. A peer whose log shrank
//! or forked is refused before a share is opened; the fact is on record, counted, and shown until the peer gives a good
//! checkpoint again or an operator accepts its new log.
//!
//! | file | what it holds |
//! |---|---|
//! | `book.rs` | what is known of each peer's log, and which peers are refused |
//! | `restart.rs` | what of that is read from the own log at a start |
//! | `testimony.rs` | what a party says of its own log: made, read, bounded |
//! | `hearing.rs` | what is asked in a hello, what is answered, and the judgement of all peers |

mod book;
mod hearing;
mod restart;
mod testimony;

pub(crate) use book::Unbelieved;
pub(crate) use book::refused_before;
pub use book::{Book, Refusal};
pub(crate) use hearing::{Hearing, Question, Seen, judge, to_stated};
pub(crate) use restart::side_by_side;
pub(crate) use testimony::Testimony;

#[cfg(test)]
mod tests;
