//! Attestations that the configuration demands before a party is asked to take part in anything.

use std::time::Duration;

use casemate_attest::attestation::{Appraisal, Expected, Nonce, Reference, Verified};
use casemate_wire::{Code, Problem};
use futures::future::try_join_all;
use jiff::Timestamp;
use rand::RngCore;
use rand::rngs::OsRng;

use crate::conduct::Player;
use crate::dial::Connection;

/// The clock difference that is tolerated.
const SKEW: Duration = Duration::from_secs(30);

/// Asks every player for whom a reference is configured, all at once, each with a nonce of its own.
///
/// # Errors
/// `attestation_failed` with the party and what differs, or why the party did not answer.
pub(super) async fn demand(players: &[Player]) -> Result<(), Problem> {
    let demands = players.iter().filter_map(|player| {
        let reference = player.connection.appliance().reference.as_deref()?;
        Some(one(&player.connection, reference))
    });
    try_join_all(demands).await.map(drop)
}

async fn one(connection: &Connection, reference: &Reference) -> Result<(), Problem> {
    let party = &connection.appliance().party_id;
    let refused = |why: String| {
        tracing::warn!(event = "attestation_refused", %party, why);
        let detail = format!("{party} is not asked to take part, since its attestation is refused: {why}");
        Problem::new(Code::AttestationFailed, detail).with("party", party.as_str())
    };
    let nonce = fresh()?;
    let token = connection.attestation(&nonce).await?;
    let (key, now) = (&reference.attest_key, Timestamp::now());
    let expected = Expected { party, key, nonce: &nonce, now, skew: SKEW };
    let verified = Verified::check(&token, &expected).map_err(|error| refused(error.to_string()))?;
    match reference.appraise(&verified) {
        Appraisal::Affirming => Ok(()),
        Appraisal::Contraindicated(findings) => {
            let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
            Err(refused(lines.join("; ")).with("findings", serde_json::to_value(&findings).unwrap_or_default()))
        }
    }
}

fn fresh() -> Result<Nonce, Problem> {
    let failed = |why: String| Problem::new(Code::Internal, format!("a nonce could not be drawn: {why}"));
    let mut bytes = [0; 32];
    OsRng.try_fill_bytes(&mut bytes).map_err(|e| failed(e.to_string()))?;
    Nonce::new(bytes).map_err(|e| failed(e.to_string()))
}
