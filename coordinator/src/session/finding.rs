//! What the parties report, and what of it the coordinator may pass on.

use casemate_wire::frame::Outcome;
use casemate_wire::{Code, Digest32, EcdsaSignature, IdentityKey, KeyCertificate, Member, PartyId, Problem, PublicKey};
use serde::{Deserialize, Serialize};

use super::{Purpose, Session};

/// A result that has been proven against pinned identities, or against the key. Only [`Tally::conclude`] makes one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Finding(Proven);

/// The two kinds of result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Proven {
    /// All n parties stand behind this key.
    Key(Box<KeyCertificate>),
    /// The signature verifies against the account's key and the message hash that was asked for.
    Signature(EcdsaSignature),
}

impl Finding {
    /// The certificate of a new key.
    pub(crate) fn certificate(&self) -> Option<&KeyCertificate> {
        match &self.0 {
            Proven::Key(certificate) => Some(certificate),
            Proven::Signature(_) => None,
        }
    }

    /// The signature.
    pub(crate) fn signature(&self) -> Option<&EcdsaSignature> {
        match &self.0 {
            Proven::Key(_) => None,
            Proven::Signature(signature) => Some(signature),
        }
    }
}

/// How it ended at one party.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) party: PartyId,
    pub(crate) outcome: Result<Outcome, Problem>,
}

/// The reports of one session, in the order in which they came; the first failure is the one that is passed on.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    reports: Vec<Report>,
}

impl Tally {
    /// Takes a report.
    pub(crate) fn add(&mut self, report: Report) {
        let outcome = match report.outcome {
            Ok(Outcome::Failed { problem }) => Err(problem),
            other => other,
        };
        self.reports.push(Report { outcome, ..report });
    }

    /// How many have reported.
    pub(crate) fn len(&self) -> usize {
        self.reports.len()
    }

    /// Whether this party has reported.
    pub(crate) fn has(&self, party: &PartyId) -> bool {
        self.reports.iter().any(|report| &report.party == party)
    }

    /// Whether somebody has failed.
    pub(crate) fn has_failure(&self) -> bool {
        self.reports.iter().any(|report| report.outcome.is_err())
    }

    /// Weighs the reports of a session that runs no more.
    ///
    /// A key counts if all n parties report it and its certificate holds against the `pinned` identities. A signature
    /// counts where it verifies, even if another party broke off: it exists, and whoever asked for it must know.
    ///
    /// # Errors
    /// The first failure, or who contradicts whom.
    pub(crate) fn conclude(
        &self,
        session: &Session,
        pinned: impl Fn(&Member) -> Option<IdentityKey>,
    ) -> Result<Finding, Problem> {
        match session.purpose() {
            Purpose::Keygen(_) => self.key(session, pinned),
            Purpose::Sign { public_key, message_hash, .. } => self.signature(session, public_key, message_hash),
        }
    }

    fn key(&self, session: &Session, pinned: impl Fn(&Member) -> Option<IdentityKey>) -> Result<Finding, Problem> {
        let mut agreed: Option<(&PartyId, &KeyCertificate)> = None;
        for report in &self.reports {
            let party = &report.party;
            let Outcome::Keygen { public_key, certificate } = report.outcome.as_ref().map_err(Clone::clone)? else {
                return Err(fault(party, "reported another result than a key"));
            };
            check_key(session, public_key, certificate, &pinned).map_err(|why| fault(party, &why))?;
            match agreed {
                None => agreed = Some((party, certificate)),
                Some((first, key)) if key.statement != certificate.statement => {
                    return Err(contradiction(session, first, party));
                }
                Some(_) => {}
            }
        }
        let all = session.participants().len();
        match agreed {
            Some((_, certificate)) if self.reports.len() == all => {
                Ok(Finding(Proven::Key(Box::new(certificate.clone()))))
            }
            _ => Err(silent(session, self)),
        }
    }

    fn signature(&self, session: &Session, key: &PublicKey, hash: &Digest32) -> Result<Finding, Problem> {
        // A signature that verifies exists, whatever another party says: to hide it would invite signing twice.
        let mut faulty = None;
        for report in &self.reports {
            let party = &report.party;
            match &report.outcome {
                Ok(Outcome::Sign { signature }) if signature.verifies(key, hash) => {
                    return Ok(Finding(Proven::Signature(*signature)));
                }
                Ok(Outcome::Sign { .. }) => faulty = Some(fault(party, "reported a signature that does not verify")),
                Ok(_) => faulty = Some(fault(party, "reported another result than a signature")),
                Err(_) => {}
            }
        }
        if let Some(problem) = faulty {
            return Err(problem);
        }
        let failure = self.reports.iter().find_map(|report| report.outcome.as_ref().err());
        Err(failure.cloned().unwrap_or_else(|| silent(session, self)))
    }
}

fn check_key(
    session: &Session,
    public_key: &PublicKey,
    certificate: &KeyCertificate,
    pinned: impl Fn(&Member) -> Option<IdentityKey>,
) -> Result<(), String> {
    certificate.verify(pinned).map_err(|e| format!("reported a key whose certificate does not hold: {e}"))?;
    let statement = &certificate.statement;
    let threshold = session.threshold();
    let invited: Vec<&Member> = session.participants().iter().map(|p| &p.member).collect();
    let roster: Vec<&Member> = statement.roster.members().iter().collect();
    let Purpose::Keygen(asked) = session.purpose() else {
        return Err("reported a key in a session that makes none".into());
    };
    let difference = [
        ("public key", statement.public_key != *public_key),
        ("share type", statement.share_type != asked.share_type),
        ("label", statement.label != asked.label),
        ("threshold", (statement.threshold_t, statement.threshold_n) != (threshold.t(), threshold.n())),
        ("roster", roster != invited),
        ("epoch", statement.epoch != 1),
    ]
    .into_iter()
    .find_map(|(name, differs)| differs.then_some(name));
    match difference {
        Some(name) => Err(format!("reported a certificate with another {name} than this session's")),
        None => Ok(()),
    }
}

fn fault(party: &PartyId, why: &str) -> Problem {
    let detail = format!("{party} {why}; the result is not passed on");
    Problem::new(Code::PeerFault, detail).with("party", party.as_str())
}

fn contradiction(session: &Session, first: &PartyId, second: &PartyId) -> Problem {
    let detail =
        format!("{} failed: {first} and {second} report different results; none is passed on", session.session_type());
    Problem::new(Code::ProtocolAborted, detail).with("parties", vec![first.as_str(), second.as_str()])
}

fn silent(session: &Session, tally: &Tally) -> Problem {
    let absent: Vec<&str> = session
        .participants()
        .iter()
        .map(|p| &p.member.party_id)
        .filter(|party| !tally.has(party))
        .map(PartyId::as_str)
        .collect();
    let detail = format!("{} failed: no report from {}", session.session_type(), absent.join(", "));
    Problem::new(Code::ProtocolAborted, detail).with("parties", absent)
}

#[cfg(test)]
mod tests;
