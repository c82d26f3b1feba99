//! `casemate audit reconcile`: the logs of all parties, compared with each other and with signatures.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::str::FromStr;

use casemate_attest::reconcile::{
    Account, Findings, Given, Recorder, Unwitnessed, Verdict as Reconciled, Weight, reconcile,
};
use casemate_attest::{AuditKey, Fault};
use casemate_wire::{PartyId, PublicKey, Threshold};
use clap::Args;
use serde_json::{Value, json};

use super::super::{CommandResult, exit, say};
use super::certificates::Certificates;
use super::mandate::MandateArguments;
use super::notes;
use super::source::Source;
use super::verify::{Good, Terms, Verdict, audit, not_checked};
use super::{Shape, plain, released};

#[derive(Args)]
pub(in super::super) struct ReconcileArguments {
    /// A party, its audit key (hex or a PEM file) and its log: files of lines (segments, with commas), the folder of an export,
    /// or a data folder. Repeated for each party; a party whose log was begun anew is given once for each log.
    #[arg(long = "party", value_name = "NAME=AUDITKEY=LOG[,LOG...]", required = true)]
    parties: Vec<PartyLog>,
    /// A signed checkpoint of one of these logs that was kept elsewhere; may be repeated.
    #[arg(long = "checkpoint", value_name = "NOTE_FILE")]
    checkpoints: Vec<PathBuf>,
    /// Signatures that are known outside the logs, as JSON lines; may be repeated.
    #[arg(long = "signature", value_name = "FILE", num_args = 1..)]
    signatures: Vec<PathBuf>,
    /// Signed raw Ethereum transactions in hex, one a line; may be repeated.
    #[arg(long = "ethereum-tx", value_name = "FILE", num_args = 1..)]
    transactions: Vec<PathBuf>,
    /// A key's certificate: says how many parties it needs, and shows its child keys; may be repeated.
    #[arg(long = "certificate", value_name = "FILE")]
    certificates: Vec<PathBuf>,
    /// How many parties a key needs, where neither the logs tell of its keygen nor a certificate is at hand; may be repeated.
    #[arg(long = "threshold", value_name = "KEY=T-of-N")]
    thresholds: Vec<KeyThreshold>,
    /// Take a log of which no signed checkpoint is at hand for what it says: otherwise that is amiss, since its end may have
    /// been cut off.
    #[arg(long)]
    without_checkpoints: bool,
    #[command(flatten)]
    shape: Shape,
}

#[derive(Clone)]
struct PartyLog {
    party: PartyId,
    key: String,
    logs: Vec<PathBuf>,
}

impl FromStr for PartyLog {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.splitn(3, '=');
        let (Some(party), Some(key), Some(logs)) = (words.next(), words.next(), words.next()) else {
            return Err(
                "it looks like party-1=AUDITKEY=LOG; `casemate hsm status` shows the audit key on that host".into()
            );
        };
        let party = party.parse().map_err(|e| format!("{e}"))?;
        Ok(Self { party, key: key.into(), logs: logs.split(',').map(PathBuf::from).collect() })
    }
}

#[derive(Clone)]
struct KeyThreshold(PublicKey, Threshold);

impl FromStr for KeyThreshold {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "it looks like KEY=2-of-3".to_owned();
        let (key, threshold) = text.split_once('=').ok_or_else(form)?;
        let (t, n) = threshold.split_once("-of-").ok_or_else(form)?;
        let threshold = Threshold::new(t.parse().map_err(|_| form())?, n.parse().map_err(|_| form())?);
        Ok(Self(key.parse().map_err(|e| format!("{e}"))?, threshold.map_err(|e| e.to_string())?))
    }
}

/// A log of a party as it was found.
struct Looked {
    party: PartyId,
    verdict: Verdict,
}

pub(in super::super) fn run(arguments: &ReconcileArguments) -> CommandResult {
    let certificates = Certificates::read(&arguments.certificates)?;
    let unwitnessed = if arguments.without_checkpoints { Unwitnessed::Noted } else { Unwitnessed::Amiss };
    let mut given = Given { thresholds: thresholds(arguments, &certificates)?, unwitnessed, ..Given::default() };
    if !arguments.signatures.is_empty() || !arguments.transactions.is_empty() {
        let mut all = Vec::new();
        for path in &arguments.signatures {
            all.extend(released::signatures(path)?);
        }
        for path in &arguments.transactions {
            all.extend(released::transactions(path)?);
        }
        given.released = Some(all);
    }
    let mut looked = Vec::new();
    let mut notes = Vec::new();
    for path in &arguments.checkpoints {
        notes.extend(notes::read(path)?.into_iter().map(|note| (path.display().to_string(), note)));
    }
    let mut keys = Vec::new();
    for party in &arguments.parties {
        let key = notes::key("--party", &party.key)?;
        let (verdict, account) = look(party, &key, &notes, &certificates)?;
        given.accounts.extend(account);
        looked.push(Looked { party: party.party.clone(), verdict });
        keys.push(key);
    }
    // A checkpoint that is nobody's would be passed over in silence.
    let strays: Vec<String> = notes.iter().filter_map(|(name, note)| notes::verify(name, note, &keys).err()).collect();
    let findings = reconcile(&given);
    let good = strays.is_empty() && looked.iter().all(|one| matches!(one.verdict, Verdict::Good(_)));
    let verdict = if good { findings.verdict() } else { Reconciled::Amiss };
    if arguments.shape.is_json() {
        say(to_json(verdict, &looked, &strays, &findings));
    } else {
        tell(verdict, &looked, &strays, &findings, given.released.as_ref().map(Vec::len));
    }
    Ok(match verdict {
        Reconciled::Reconciled => exit::OK,
        Reconciled::Amiss => exit::fails(),
    })
}

fn thresholds(
    arguments: &ReconcileArguments,
    certificates: &Certificates,
) -> Result<BTreeMap<PublicKey, Threshold>, Box<dyn Error>> {
    let mut known: BTreeMap<_, _> = certificates.thresholds().collect();
    for KeyThreshold(key, threshold) in &arguments.thresholds {
        if known.insert(*key, *threshold).is_some_and(|before| before != *threshold) {
            return Err(format!(
                "--threshold says {threshold} for {key}, and its certificate says otherwise; give one"
            )
            .into());
        }
    }
    Ok(known)
}

/// Audits one party's log, with the checkpoints that its key has signed.
fn look(
    party: &PartyLog,
    key: &AuditKey,
    notes: &[(String, String)],
    certificates: &Certificates,
) -> Result<(Verdict, Option<Account>), Box<dyn Error>> {
    let source = Source::open(&party.logs)?;
    let keys = vec![key.clone()];
    let log = first_log(&source)?;
    let is_own = |note: &str| {
        let checkpoint = notes::verify("", note, &keys).ok();
        checkpoint.is_some_and(|checkpoint| Some(checkpoint.log.as_str()) == log.as_deref())
    };
    let notes = notes.iter().filter(|(_, note)| is_own(note)).cloned().collect();
    let mandate = MandateArguments::default();
    let terms = Terms { notes, keys: keys.clone(), details: &[], snapshot: None, certificates, mandate: &mandate };
    let mut recorder = Recorder::new(party.party.clone());
    let verdict = audit(&source, &terms, |leaf, hash| recorder.take(leaf, hash))?;
    let account = match &verdict {
        Verdict::Good(good) if good.audit.report.rests_on.as_ref().is_some_and(|rest| rest.size > 0) => {
            let why = "its first lines were pruned; give the exported segments from the first on instead";
            return Err(format!("the log of {} cannot be compared: {why}", party.party).into());
        }
        Verdict::Good(good) => Some(recorder.finish(&good.audit)),
        Verdict::Bad(_) => None,
    };
    Ok((verdict, account))
}

/// The name of the log, as its first line has it.
fn first_log(source: &Source) -> Result<Option<String>, Box<dyn Error>> {
    let mut log = None;
    let _ = source.each_line(|bytes| {
        log = serde_json::from_slice::<Value>(bytes).ok().and_then(|leaf| leaf.get("log")?.as_str().map(str::to_owned));
        Err::<(), ()>(())
    })?;
    Ok(log)
}

fn to_json(verdict: Reconciled, looked: &[Looked], strays: &[String], findings: &Findings) -> Value {
    let logs: Vec<Value> = looked
        .iter()
        .map(|Looked { party, verdict }| {
            let mut log = super::verify::to_json(verdict);
            if let Value::Object(fields) = &mut log {
                fields.insert("party".into(), json!(party));
            }
            log
        })
        .collect();
    json!({"verdict": verdict, "logs": logs, "bad_checkpoints": strays, "findings": findings})
}

fn tell(verdict: Reconciled, looked: &[Looked], strays: &[String], findings: &Findings, listed: Option<usize>) {
    for Looked { party, verdict } in looked {
        match verdict {
            Verdict::Good(good) => tell_good(party, good),
            Verdict::Bad(Fault { seq, what, .. }) => say(format!("{party}: NOT VALID at leaf {seq}: {}", plain(what))),
        }
    }
    for justified in &findings.signatures {
        let needed = justified.needed.map_or_else(|| "an unknown number".into(), |needed| needed.to_string());
        say(format!("signature over {} by {} in {}", justified.message_hash, justified.signer, justified.session));
        say(format!("  {} allowed decisions, {needed} needed", justified.decisions.len()));
        for allowed in &justified.decisions {
            let bundle = allowed.bundle.map_or_else(|| "none".into(), |bundle| bundle.to_string());
            let policies: Vec<&str> = allowed.policies.iter().map(casemate_attest::Text::as_str).collect();
            say(format!("  {} in leaf {}: [{}] of bundle {bundle}", allowed.party, allowed.seq, policies.join(", ")));
        }
    }
    say(format!(
        "{} sessions compared, {} checkpoints found where others saw them, {}",
        findings.sessions,
        findings.checkpoints_found,
        listed.map_or_else(|| "no list of signatures given".into(), |count| format!("{count} signatures in the list"))
    ));
    for stray in strays {
        say(format!("AMISS: {}", plain(stray)));
    }
    for finding in &findings.findings {
        let weight = if finding.weight == Weight::Amiss { "AMISS" } else { "note" };
        let session = finding.session.as_ref().map_or_else(String::new, |session| format!("{session}: "));
        say(format!("{weight}: {session}{}", plain(&finding.what)));
    }
    say(match verdict {
        Reconciled::Reconciled => "reconciled: nothing is amiss",
        Reconciled::Amiss => "NOT RECONCILED",
    });
}

fn tell_good(party: &PartyId, good: &Good) {
    let report = &good.audit.report;
    say(format!("{party}: valid, {} leaves of {}, {} checkpoints", report.size, report.log, report.checkpoints));
    for what in not_checked(good) {
        say(format!("  not checked: {what}"));
    }
}
