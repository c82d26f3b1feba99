//! All that an auditor checks of one log: what the [`Verifier`] does, the details beside it, and the signatures in it.

use serde::Serialize;

use super::signatures::{Checks, ChildKeys, Signatures};
use super::{Fault, FaultKind, Report, Verifier};
use crate::detail::Disclosure;
use crate::leaf::Leaf;

/// What an audit of one log found, once nothing of it was found bad.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// What the log holds.
    #[serde(flatten)]
    pub report: Report,
    /// The signatures.
    pub signatures: Signatures,
    /// The details.
    pub details: Withheld,
}

/// How many details were at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Withheld {
    /// Details that are the ones that their leaves commit to.
    pub disclosed: u64,
    /// Details that were not at hand.
    pub withheld: u64,
}

/// Audits one log, line by line, with the details where they are at hand.
pub struct Auditor<C> {
    verifier: Verifier,
    children: C,
    signatures: Checks,
    details: Withheld,
}

impl<C: ChildKeys> Auditor<C> {
    /// An auditor with a verifier that knows the checkpoints.
    pub fn new(verifier: Verifier, children: C) -> Self {
        Self { verifier, children, signatures: Checks::default(), details: Withheld::default() }
    }

    /// Takes the next line, without its newline, and what was disclosed of it.
    ///
    /// # Errors
    /// Names this line and what is wrong with it; every later call repeats it.
    pub fn feed(&mut self, bytes: &[u8], disclosure: Option<&Disclosure>) -> Result<Leaf, Fault> {
        let leaf = self.verifier.feed(bytes)?;
        let judged = self.detail(&leaf, disclosure).and_then(|()| self.signatures.take(&leaf, &self.children));
        judged.map_err(|(kind, what)| self.verifier.condemn_last(kind, what))?;
        Ok(leaf)
    }

    fn detail(&mut self, leaf: &Leaf, disclosure: Option<&Disclosure>) -> Result<(), (FaultKind, String)> {
        let wrong = |what: String| Err((FaultKind::Detail, what));
        match (leaf.detail, disclosure) {
            (None, None) => {}
            (Some(_), None) => self.details.withheld += 1,
            (None, Some(_)) => return wrong("a detail was given for it, but it commits to none".into()),
            (Some(commitment), Some(disclosure)) => match disclosure.commitment() {
                Ok(found) if found == commitment => self.details.disclosed += 1,
                Ok(_) => return wrong("its detail was changed: it is not the one that the leaf commits to".into()),
                Err(error) => return wrong(error.to_string()),
            },
        }
        Ok(())
    }

    /// The verifier, for the guards and the head so far.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Ends the log.
    ///
    /// # Errors
    /// As [`Verifier::finish`]; and if the lines rest on a snapshot that no leaf of them names.
    pub fn finish(mut self) -> Result<Audit, Fault> {
        if let Some(rest) = self.verifier.rests_on.as_ref().filter(|rest| rest.named_by.is_none()) {
            let what = format!(
                "no leaf names the snapshot {} that these lines rest on, so nothing vouches for it",
                rest.digest
            );
            return Err(self.verifier.condemn(FaultKind::Snapshot, what));
        }
        let report = self.verifier.finish()?;
        Ok(Audit { report, signatures: self.signatures.found, details: self.details })
    }
}
