//! What each appliance of the main job says of itself, verified as a peer or an auditor would.

use std::ffi::OsStr;
use std::time::Duration;

use casemate_attest::attestation::{Appraisal, Expected, Nonce, Reference, Verified};
use casemate_wire::api::BASE_PATH;
use casemate_wire::{Digest32, PartyId};
use jiff::Timestamp;
use rand::RngCore;
use rand::rngs::OsRng;
use serde::Serialize;
use serde_json::Value;

use super::{DemoError, wrong};
use crate::clients::Role;
use crate::lab::{Lab, LabError, Party};

const DOING: &str = "verifying the attestations";
/// The clock difference that is tolerated: it is one clock.
const SKEW: Duration = Duration::from_secs(5);

/// One attestation that holds.
#[derive(Debug, Clone, Serialize)]
pub struct Attested {
    /// The appliance.
    pub party: PartyId,
    /// `affirming`: signed by the HSM's attest key, fresh, and as the reference says.
    pub verdict: &'static str,
    /// SHA-256 of the program that runs.
    pub binary: Digest32,
    /// The digest of the policy bundle that it obeys.
    pub policy: Option<Digest32>,
    /// The size of its audit log at that moment.
    pub audit_size: u64,
}

/// Asks every appliance with a fresh nonce, and compares with what the same host's files and HSM say.
pub(super) async fn check(lab: &Lab) -> Result<Vec<Attested>, DemoError> {
    let mut all = Vec::new();
    for party in &lab.parties {
        all.push(one(lab, party).await?);
    }
    Ok(all)
}

async fn one(lab: &Lab, party: &Party) -> Result<Attested, DemoError> {
    let failed = |why: String| wrong(DOING, &format!("{}: {why}", party.party_id));
    let program = lab.bin_dir.join("casemated");
    let arguments: [&OsStr; 6] = [
        "attest".as_ref(),
        "reference".as_ref(),
        "--config".as_ref(),
        party.config.as_ref(),
        "--program".as_ref(),
        program.as_ref(),
    ];
    let reference = Reference::parse(&lab.casemate(party, &arguments)?).map_err(|e| failed(e.to_string()))?;
    let mut bytes = [0; 32];
    OsRng.try_fill_bytes(&mut bytes).map_err(|e| failed(e.to_string()))?;
    let nonce = Nonce::new(bytes).map_err(|e| failed(e.to_string()))?;
    let service = lab.appliance(party, Role::Auditor)?;
    let answer = service.get_bytes(&format!("{BASE_PATH}/attestation?nonce={nonce}")).await.map_err(LabError::from)?;
    let (200, token) = answer else {
        let body = Value::String(String::from_utf8_lossy(&answer.1).into_owned());
        return Err(DemoError::Answer { doing: DOING, status: answer.0, body });
    };
    let (key, now) = (&reference.attest_key, Timestamp::now());
    let expected = Expected { party: &party.party_id, key, nonce: &nonce, now, skew: SKEW };
    let verified = Verified::check(&token, &expected).map_err(|e| failed(e.to_string()))?;
    match reference.appraise(&verified) {
        Appraisal::Affirming => {
            let claims = verified.claims();
            Ok(Attested {
                party: party.party_id.clone(),
                verdict: "affirming",
                binary: claims.measurements.binary,
                policy: claims.measurements.policy,
                audit_size: claims.audit.size,
            })
        }
        Appraisal::Contraindicated(findings) => {
            let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
            Err(failed(lines.join("; ")))
        }
    }
}

impl Attested {
    /// The attestation in one line.
    pub(super) fn line(&self) -> String {
        let Self { party, binary, audit_size, .. } = self;
        format!("{party}: affirming; runs the program {binary}, its log has {audit_size} leaves")
    }
}
