//! Logs in memory, for unit tests.

#![allow(clippy::unwrap_used)]

use casemate_attest::{AuditKey, Checkpoint, Entry, Head, Line, SignedCheckpoint};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey;
use rusqlite::Connection;

use super::evidence::{begin_log, write_leaf};
use super::schema;

/// A log with this many leaves. Two of one name differ from their first leaf on.
pub(crate) fn log(name: &str, leaves: u64) -> (Connection, Head) {
    let connection = schema::empty().unwrap();
    let head = begin_log(&connection, &name.parse().unwrap()).unwrap();
    let head = grow(&connection, head, leaves - 1);
    (connection, head)
}

/// Adds one leaf; the line, and where the log stands then.
pub(crate) fn add(connection: &Connection, head: &Head, entry: Entry) -> (Line, Head) {
    let appended = head.append(entry, jiff::Timestamp::now()).unwrap();
    write_leaf(connection, &appended, None).unwrap();
    (appended.line, appended.head)
}

/// Adds leaves.
pub(crate) fn grow(connection: &Connection, mut head: Head, leaves: u64) -> Head {
    for _ in 0..leaves {
        head = add(connection, &head, Entry::boot()).1;
    }
    head
}

/// An audit key in software.
pub(crate) fn audit_key(seed: u8) -> (SigningKey, AuditKey) {
    let key = SigningKey::from_slice(&[seed; 32]).unwrap();
    let spki = key.verifying_key().to_public_key_der().unwrap();
    let public = AuditKey::from_spki(spki.as_bytes()).unwrap();
    (key, public)
}

/// Where a log stands, signed by that key.
pub(crate) fn signed(head: &Head, seed: u8) -> SignedCheckpoint {
    let (key, public) = audit_key(seed);
    let checkpoint = Checkpoint::of(head);
    let signature: Signature = key.sign(checkpoint.text().as_bytes());
    checkpoint.signed(&public, &signature.to_bytes().into()).unwrap()
}
