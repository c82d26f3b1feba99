//! Bundles in temporary folders, and requests to judge by them.
#![allow(missing_docs, unreachable_pub, dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::panic)]

pub mod ssh;

use std::fs;
use std::path::Path;

use casemate_policy::{
    Action, Approvals, Bundle, BundleError, Client, Denied, KeyFacts, Ledger, Request, Resource, SessionFacts, Signing,
    SlotFacts, Understood, Verdict, bundle, intent,
};
use casemate_wire::{Digest32, Intent, ShareType};
use jiff::Timestamp;
use tempfile::TempDir;

/// The starter bundle.
pub const STARTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/starter");
/// The generator of secp256k1.
pub const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
/// A token of the starter bundle's asset table.
pub const USDC: &str = "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48";
/// A permit for everything, so that only what a test adds can refuse.
pub const ALLOW_ALL: &str = r#"@id("all") permit (principal, action, resource);"#;
/// One allowed request, so that a bundle's tests suffice.
pub const ONE_ALLOWED: &str = r#"[{
    "name": "allowed",
    "request": {
        "principal": { "name": "coordinator" }, "action": "Backup", "resource": { "appliance": {} }
    },
    "expect": { "verdict": "allow", "policies": ["all"] }
}]"#;

pub fn clients() -> Vec<Client> {
    vec![Client { name: "coordinator".into(), roles: ["coordinator".to_owned()].into(), org: "acme".into() }]
}

pub fn noon() -> Timestamp {
    "2025-06-02T12:00:00Z".parse().unwrap()
}

/// A folder with these files, sealed.
pub fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        write(dir.path(), path, text);
    }
    bundle::seal(dir.path(), Timestamp::UNIX_EPOCH).unwrap();
    dir
}

pub fn write(dir: &Path, path: &str, text: &str) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

pub fn load(dir: &TempDir) -> Result<Bundle, BundleError> {
    Bundle::load(dir.path(), &clients())
}

/// Loads a bundle that permits everything, with one more Cedar file and test file.
pub fn load_with(cedar: &str, tests: &str) -> Result<Bundle, BundleError> {
    load(&folder(&[
        ("all.cedar", ALLOW_ALL),
        ("more.cedar", cedar),
        ("entities.json", include_str!("../data/starter/entities.json")),
        ("tests/allowed.json", ONE_ALLOWED),
        ("tests/more.json", tests),
    ]))
}

/// Why a bundle with one more Cedar file is refused.
pub fn refusal(cedar: &str) -> String {
    load_with(cedar, "[]").unwrap_err().to_string()
}

pub fn starter() -> Bundle {
    Bundle::load(Path::new(STARTER), &clients()).unwrap()
}

pub fn wallet() -> SlotFacts {
    SlotFacts { kind: ShareType::Wallet, threshold_t: 2, threshold_n: 3, label: None }
}

pub fn key(slot: SlotFacts) -> Resource {
    Resource::Key(KeyFacts { public_key: KEY.parse().unwrap(), slot, age_days: 3, restored: false })
}

/// A request by the coordinator to sign with a 2-of-3 wallet key.
pub fn to_sign(understood: Option<&Understood>) -> Request<'_> {
    Request {
        principal: clients().remove(0),
        action: Action::Sign,
        resource: key(wallet()),
        understood,
        spent: None,
        approvals: Approvals::none(),
        time: noon(),
        session: SessionFacts {
            participants: ["party-1".to_owned(), "party-2".to_owned()].into(),
            threshold_t: 2,
            devices: [].into(),
            new_roster: None,
        },
        derivation_path: None,
        peers_attested: false,
    }
}

/// What a bundle says to a request before which nothing was signed.
pub fn judge(bundle: &Bundle, request: &Request<'_>) -> Verdict {
    let Resource::Key(key) = &request.resource else { return bundle.decide(request) };
    if request.action != Action::Sign {
        return bundle.decide(request);
    }
    let signing = Signing {
        session: "session-1".parse().unwrap(),
        key: key.public_key,
        label: key.slot.label.as_deref(),
        derivation_path: request.derivation_path.as_deref(),
        message_hash: request.understood.map_or(Digest32([7; 32]), Understood::digest),
        understood: request.understood,
    };
    let reserved = bundle.reserve(&mut Ledger::default(), &signing, request.time).unwrap();
    bundle.decide(&Request { spent: Some(reserved.totals()), ..request.clone() })
}

/// An unsigned EIP-1559 transaction, decoded.
pub fn transaction(edit: impl FnOnce(&mut alloy_consensus::TxEip1559)) -> Understood {
    use alloy_consensus::SignableTransaction;
    let mut tx = alloy_consensus::TxEip1559 {
        chain_id: 1,
        gas_limit: 21_000,
        max_fee_per_gas: 20_000_000_000,
        to: alloy_primitives::Address::repeat_byte(0x35).into(),
        ..Default::default()
    };
    edit(&mut tx);
    let intent = Intent {
        kind: "ethereum_transaction".into(),
        payload: hex::encode(tx.encoded_for_signing()),
        input_index: None,
    };
    let generator = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798".parse().unwrap();
    intent::decode(&intent, &tx.signature_hash().0, &intent::Signer::alone(&generator).unwrap()).unwrap()
}

/// The ids of the policies that allowed.
pub fn allowed_by(verdict: &Verdict) -> Vec<&str> {
    match verdict {
        Verdict::Allow(allowed) => allowed.policies().iter().map(|note| note.id.as_str()).collect(),
        Verdict::Deny(denied) => panic!("denied: {}", denied.reason()),
    }
}

pub fn denied(verdict: Verdict) -> Denied {
    match verdict {
        Verdict::Deny(denied) => denied,
        Verdict::Allow(_) => panic!("allowed"),
    }
}

/// The ids of the policies that refused.
pub fn refused_by(denied: &Denied) -> Vec<&str> {
    denied.policies().iter().map(|note| note.id.as_str()).collect()
}
