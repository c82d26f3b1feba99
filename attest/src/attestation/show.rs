//! Claims as words that people read and compare.

use super::claims::Claims;

/// Each claim's name, as `docs/attestation.md` has it, and its value in words. A name may stand more than once.
pub fn describe(claims: &Claims) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    let mut say = |name: &'static str, value: String| lines.push((name, value));
    say("party", claims.party.to_string());
    say("iat", claims.issued_at.to_string());
    say("exp", claims.expires_at.to_string());
    for nonce in claims.nonces.all() {
        say("eat_nonce", nonce.to_string());
    }
    say("ueid", hex::encode(claims.ueid.as_bytes()));
    say("hwmodel", hex::encode(claims.hwmodel));
    say("swversion", format!("casemated {}", claims.version));
    say("bootcount", claims.boots.to_string());
    say("binary", claims.measurements.binary.to_string());
    say("config", claims.measurements.config.to_string());
    let policy = claims.measurements.policy.map_or_else(|| "none is active".to_owned(), |digest| digest.to_string());
    say("policy", policy);
    say("audit.origin", claims.audit.origin.to_string());
    say("audit.size", claims.audit.size.to_string());
    say("audit.root", claims.audit.root.to_string());
    say("token.model", claims.token.model.to_string());
    say("token.serial", claims.token.serial.to_string());
    say("token.firmware", claims.token.firmware.to_string());
    say("kek", format!("{} (epoch {})", claims.kek.label, claims.kek.epoch));
    say("tls_spki", claims.tls_spki.to_string());
    match &claims.quote {
        None => say("tpm", "no quote".to_owned()),
        Some(quote) => {
            say("tpm.ak", quote.ak.fingerprint().to_string());
            for (index, value) in &quote.pcrs {
                say("tpm.pcrs", format!("{index} {value}"));
            }
        }
    }
    lines
}
