//! By what right a log takes the place of another: its genesis against the statement that the policy's signers signed.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};

use casemate_attest::recovery::{MAX_STATEMENT, Statement};
use casemate_attest::{Fault, FaultKind, Leaf, Line, Recovery, Text};
use casemate_policy::signers::{GivenSignature, Principal};
use clap::Args;
use serde_json::{Value, json};

use super::super::policy::signers::SignerArguments;
use super::recover::{read, signature};
use super::source::Source;

/// The statement's file in an archive, and what its signatures' files begin with.
const STATEMENT: &str = "recovery.json";
const SIGNATURE: &str = "recovery.json.sig-";

/// What was signed before the log was begun.
#[derive(Args, Default)]
pub(super) struct MandateArguments {
    /// For a log that replaces another: the recovery statement, if it does not lie in the data folder's archive.
    #[arg(long, value_name = "FILE")]
    statement: Option<PathBuf>,
    /// A signature under that statement, as it lies beside it in the archive; repeated for each.
    #[arg(long = "signature", value_name = "FILE", requires = "statement")]
    signatures: Vec<PathBuf>,
    #[command(flatten)]
    signers: SignerArguments,
}

/// How far the mandate of a log was checked.
pub(super) struct Mandated {
    recovery: Recovery,
    /// Who signed, by the log itself.
    named: Vec<Text>,
    checked: Checked,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Checked {
    /// The statement is not at hand.
    Nothing,
    /// The log was begun as the statement says.
    Statement,
    /// And the quorum signed it, with everybody whom the log names.
    Signatures,
}

impl MandateArguments {
    /// Judges the genesis of a log; `None` for a log that replaces no other.
    ///
    /// # Errors
    /// What was given cannot be looked at, or says nothing about this log. What is wrong with the log is a fault.
    pub(super) fn judge(
        &self,
        source: &Source,
        genesis: Option<&Leaf>,
    ) -> Result<Result<Option<Mandated>, Fault>, Box<dyn Error>> {
        let anchors = self.signers.anchors()?;
        let demanded = self.statement.is_some() || anchors.is_some();
        let Some((genesis, recovery)) = genesis.and_then(|genesis| Some((genesis, genesis.recovery.clone()?))) else {
            return if demanded {
                Err("nobody signed for this log: its first line is not here, or it takes no other log's place; \
                     leave --statement and --allowed-signers out"
                    .into())
            } else {
                Ok(Ok(None))
            };
        };
        let named = genesis.approvals.iter().map(|approval| approval.name.clone()).collect();
        let mandated = |checked| Ok(Ok(Some(Mandated { recovery: recovery.clone(), named, checked })));
        let wrong = |what: String| Ok(Err(Fault { seq: 0, line: 1, kind: FaultKind::Mandate, what }));
        let Some(Found { text, signatures }) = self.find(source, &recovery)? else {
            return if demanded {
                Err(format!("the statement {} is not at hand: give it (--statement)", recovery.statement).into())
            } else {
                mandated(Checked::Nothing)
            };
        };
        if let Err(error) = Statement::of_genesis(&text, genesis) {
            return wrong(format!("it was not begun as the signed statement says: {error}"));
        }
        let Some(anchors) = anchors else { return mandated(Checked::Statement) };
        if signatures.is_empty() {
            return Err("no signature under the statement is at hand: give each (--signature)".into());
        }
        // Keys may have been withdrawn since; what counts is the moment at which the log was begun.
        let endorsed = match anchors.endorse_recovery(&text, &signatures, genesis.at.timestamp()) {
            Ok(endorsed) => endorsed,
            Err(error) => return wrong(error.to_string()),
        };
        let signed: BTreeSet<Text> = endorsed.signers().iter().map(Principal::as_str).map(Text::fitted).collect();
        match genesis.approvals.iter().find(|approval| !signed.contains(&approval.name)) {
            Some(missing) => {
                wrong(format!("it names {} as a signer, whose signature is not under the statement", missing.name))
            }
            None => mandated(Checked::Signatures),
        }
    }

    /// The statement that was given, or the one in the archive that the log names.
    fn find(&self, source: &Source, recovery: &Recovery) -> Result<Option<Found>, Box<dyn Error>> {
        if let Some(path) = &self.statement {
            let signatures = self.signatures.iter().map(|path| signature(path)).collect::<Result<_, _>>()?;
            return Ok(Some(Found { text: read(path, MAX_STATEMENT)?, signatures }));
        }
        let Some(folder) = source.folder() else { return Ok(None) };
        let archived = entries(&folder.join("archive"));
        for place in archived.into_iter().chain([folder]) {
            let path = place.join(STATEMENT);
            if !path.is_file() {
                continue;
            }
            let text = read(&path, MAX_STATEMENT)?;
            if Statement::digest(&text) == recovery.statement {
                let is_signature =
                    |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SIGNATURE));
                let signatures = entries(&place).into_iter().filter(is_signature);
                return Ok(Some(Found {
                    text,
                    signatures: signatures.map(|path| signature(&path)).collect::<Result<_, _>>()?,
                }));
            }
        }
        Ok(None)
    }
}

/// A statement and the signatures under it.
pub(super) struct Found {
    text: Vec<u8>,
    signatures: Vec<GivenSignature>,
}

impl Found {
    /// What lies beside a log for whoever is to check by what right it replaces another.
    pub(super) fn beside(source: &Source) -> Result<Option<Self>, Box<dyn Error>> {
        let mut first = None;
        let _ = source.each_line(|bytes| {
            first = Line::read(bytes).ok();
            Err::<(), ()>(())
        })?;
        let recovery = first.as_ref().and_then(|line| line.leaf().recovery.as_ref());
        recovery.map_or(Ok(None), |recovery| MandateArguments::default().find(source, recovery))
    }

    /// The names and contents of its files.
    pub(super) fn files(&self) -> impl Iterator<Item = (String, &[u8])> {
        let signatures = self.signatures.iter().enumerate();
        let signatures = signatures.map(|(number, one)| (format!("{SIGNATURE}{number}"), one.armored.as_slice()));
        [(STATEMENT.to_owned(), self.text.as_slice())].into_iter().chain(signatures)
    }
}

/// What stands in a folder, in order; nothing where it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

impl Mandated {
    pub(super) fn to_json(&self) -> Value {
        let Self { recovery, named, checked } = self;
        json!({
            "recovery": recovery, "signers": named, "statement_checked": *checked != Checked::Nothing,
            "signatures_checked": *checked == Checked::Signatures,
        })
    }

    /// In words.
    pub(super) fn tell(&self) -> String {
        let Self { recovery, named, .. } = self;
        let old = recovery.found.as_ref().or(recovery.anchored.as_ref());
        let old = old
            .map_or_else(|| "one of which nothing is known".into(), |old| format!("{} ({} leaves)", old.log, old.size));
        let names: Vec<&str> = named.iter().map(Text::as_str).collect();
        format!("takes the place of {old}: {}; by its word signed for by {}", recovery.verdict, names.join(", "))
    }

    /// What a reader might take for checked, and was not.
    pub(super) fn unchecked(&self) -> Option<String> {
        match self.checked {
            Checked::Nothing => Some(format!(
                "whether the policy's signers let this log take another's place: give the statement {} and its signatures \
                 (--statement, --signature), and who may sign (--allowed-signers, --quorum)",
                self.recovery.statement
            )),
            Checked::Statement => Some(
                "the signatures under the statement by which this log takes another's place: say who may sign \
                 (--allowed-signers, --quorum)"
                    .into(),
            ),
            Checked::Signatures => None,
        }
    }
}
