//! `casemate audit verify`: everything that one log can be held to, offline.

use std::error::Error;
use std::path::{Path, PathBuf};

use casemate_attest::verify::{Audit, Auditor};
use casemate_attest::{AuditKey, Fault, FaultKind, Leaf, Line, Verifier};
use clap::Args;
use serde_json::{Value, json};

use super::super::{CommandResult, exit, say};
use super::certificates::Certificates;
use super::mandate::{MandateArguments, Mandated};
use super::notes::{self, NoteArguments};
use super::source::{LogArguments, Source};
use super::{Shape, plain};

#[derive(Args)]
pub(in super::super) struct VerifyArguments {
    #[command(flatten)]
    log: LogArguments,
    #[command(flatten)]
    notes: NoteArguments,
    /// The details that leaves only commit to, if they do not lie beside the log; repeated for segments, in their order.
    #[arg(long, value_name = "FILE")]
    details: Vec<PathBuf>,
    /// What the lines rest on, if the log's first lines were pruned and it does not lie beside them.
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,
    /// A key's certificate: shows that child keys are that key's; may be repeated.
    #[arg(long = "certificate", value_name = "FILE")]
    certificates: Vec<PathBuf>,
    #[command(flatten)]
    mandate: MandateArguments,
    #[command(flatten)]
    shape: Shape,
}

/// What was found of one log.
pub(super) enum Verdict {
    /// All of it holds.
    Good(Box<Good>),
    /// Something is bad: the first thing that was found.
    Bad(Fault),
}

/// What holds, and what was not looked at.
pub(super) struct Good {
    pub(super) audit: Audit,
    /// Checkpoints that lay beside the log, and were passed over for want of an audit key.
    pub(super) notes_unchecked: usize,
    /// By what right it takes another log's place, if it does.
    mandated: Option<Mandated>,
}

/// How a log is to be audited.
pub(super) struct Terms<'a> {
    /// Notes that were kept elsewhere, each with its name.
    pub(super) notes: Vec<(String, String)>,
    /// Who may have signed them.
    pub(super) keys: Vec<AuditKey>,
    pub(super) details: &'a [PathBuf],
    pub(super) snapshot: Option<&'a Path>,
    pub(super) certificates: &'a Certificates,
    pub(super) mandate: &'a MandateArguments,
}

pub(in super::super) fn run(arguments: &VerifyArguments) -> CommandResult {
    let source = arguments.log.open()?;
    let certificates = Certificates::read(&arguments.certificates)?;
    let terms = Terms {
        notes: arguments.notes.notes()?,
        keys: arguments.notes.keys()?,
        details: &arguments.details,
        snapshot: arguments.snapshot.as_deref(),
        certificates: &certificates,
        mandate: &arguments.mandate,
    };
    let verdict = audit(&source, &terms, |_, _| ())?;
    if arguments.shape.is_json() {
        say(to_json(&verdict));
    } else {
        tell(&verdict);
    }
    Ok(match verdict {
        Verdict::Good(_) => exit::OK,
        Verdict::Bad(_) => exit::fails(),
    })
}

/// Audits a log, showing each good leaf and its hash to `each`.
pub(super) fn audit(
    source: &Source,
    terms: &Terms<'_>,
    mut each: impl FnMut(&Leaf, casemate_wire::Digest32),
) -> Result<Verdict, Box<dyn Error>> {
    let (verifier, notes_unchecked) = match begin(source, terms)? {
        Ok(begun) => begun,
        Err(fault) => return Ok(Verdict::Bad(fault)),
    };
    let mut auditor = Auditor::new(verifier, terms.certificates);
    let mut details = source.details(terms.details)?;
    let mut genesis = None;
    let broken = source.each_line(|bytes| {
        let seq = auditor.verifier().head().map_or(0, casemate_attest::Head::size);
        let disclosed = details.of(seq).map_err(Stop::Unreadable)?;
        let leaf = auditor.feed(bytes, disclosed.as_ref().map(|found| &found.disclosure)).map_err(Stop::Bad)?;
        if leaf.seq == 0 {
            genesis = Some(leaf.clone());
        }
        let hash = auditor.verifier().head().map(casemate_attest::Head::hash);
        each(&leaf, hash.unwrap_or_else(|| casemate_attest::line::leaf_hash(bytes)));
        Ok(())
    })?;
    match broken {
        Some(Stop::Unreadable(error)) => return Err(error),
        Some(Stop::Bad(fault)) => return Ok(Verdict::Bad(fault)),
        None => {}
    }
    if let Some(stray) = details.rest()? {
        let what = format!("a detail was given for leaf {}, which these lines do not hold in that order", stray.seq);
        let line = stray.seq.saturating_add(1);
        return Ok(Verdict::Bad(Fault { seq: stray.seq, line, kind: FaultKind::Detail, what }));
    }
    let audit = match auditor.finish() {
        Ok(audit) => audit,
        Err(fault) => return Ok(Verdict::Bad(fault)),
    };
    Ok(match terms.mandate.judge(source, genesis.as_ref())? {
        Ok(mandated) => Verdict::Good(Box::new(Good { audit, notes_unchecked, mandated })),
        Err(fault) => Verdict::Bad(fault),
    })
}

enum Stop {
    Bad(Fault),
    Unreadable(Box<dyn Error>),
}

/// A verifier that knows what the lines rest on and every checkpoint whose signature verifies.
fn begin(source: &Source, terms: &Terms<'_>) -> Result<Result<(Verifier, usize), Fault>, Box<dyn Error>> {
    let verifier = match source.snapshot(terms.snapshot)? {
        None => Ok(Verifier::new()),
        Some(snapshot) => Verifier::resume(snapshot),
    };
    let beside = source.notes()?;
    let unchecked = if terms.keys.is_empty() { beside.len() } else { 0 };
    let beside = beside.into_iter().filter(|_| unchecked == 0).map(|note| ("the log's own folder".to_owned(), note));
    let notes = terms.notes.iter().cloned().chain(beside);
    let begun = notes.fold(verifier, |verifier, (name, note)| {
        let unsigned = |what: String| Fault { seq: 0, line: 1, kind: FaultKind::Head, what };
        let checkpoint = notes::verify(&name, &note, &terms.keys).map_err(unsigned);
        verifier.and_then(|verifier| verifier.against(checkpoint?))
    });
    Ok(begun.map(|verifier| (verifier, unchecked)))
}

pub(super) fn to_json(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Good(good) => json!({
            "valid": true, "report": good.audit, "checkpoints_unchecked": good.notes_unchecked,
            "mandate": good.mandated.as_ref().map(Mandated::to_json), "not_checked": not_checked(good),
        }),
        Verdict::Bad(fault) => {
            json!({"valid": false, "fault": fault.to_string(), "kind": fault.kind, "seq": fault.seq})
        }
    }
}

fn tell(verdict: &Verdict) {
    let good = match verdict {
        Verdict::Good(good) => good,
        Verdict::Bad(fault) => return say(format!("NOT VALID: {}", plain(&fault.to_string()))),
    };
    let Audit { report, signatures, details } = &good.audit;
    say(format!("valid: {} leaves of {}, {} to {}", report.size, report.log, report.first, report.last));
    say(format!(
        "  {} intents, {} outcomes, {} refusals, {} changes, {} starts",
        report.intents, report.outcomes, report.refusals, report.admin, report.boots
    ));
    for open in &report.open_intents {
        let session = open.session.as_ref().map_or("no session", casemate_wire::SessionId::as_str);
        say(format!("  leaf {} ({session}) has no outcome: it runs still, or was cut off", open.seq));
    }
    if let Some(open) = &report.open_rewrap {
        say(format!("  leaf {}: the re-wrapping of {} rows runs still, or was cut off", open.seq, open.rows));
    }
    if report.clock_set_back > 0 {
        say(format!("  the host's clock was set back {} times between leaves", report.clock_set_back));
    }
    say(format!(
        "  {} signatures verify, {} details are the ones committed to",
        signatures.verified, details.disclosed
    ));
    say(format!("  last leaf hash {}", report.head));
    say(format!("  root           {}", report.root));
    if report.checkpoints > 0 {
        say(format!("  as signed in {} checkpoints, up to leaf {}", report.checkpoints, report.checkpointed));
    }
    if let Some(mandated) = &good.mandated {
        say(format!("  {}", plain(&mandated.tell())));
    }
    for what in not_checked(good) {
        say(format!("  not checked: {what}"));
    }
}

/// What a reader might take for checked, and was not.
pub(super) fn not_checked(good: &Good) -> Vec<String> {
    let Audit { report, signatures, details } = &good.audit;
    let mut list = Vec::new();
    let mut add = |applies: bool, what: String| {
        if applies {
            list.push(what);
        }
    };
    add(
        report.checkpoints == 0,
        "that this is the whole log, and the one that was written: with no signed checkpoint (--checkpoint, --audit-key) an end that was cut off does not show, nor does a log written anew".into(),
    );
    let after = report.size.saturating_sub(report.checkpointed);
    add(
        report.checkpoints > 0 && after > 0,
        format!(
            "whether anything came after: the last {after} leaves are beyond the newest checkpoint, and rest on the chain alone"
        ),
    );
    add(
        good.notes_unchecked > 0,
        format!(
            "{} checkpoints that lie beside the log: give the audit key that must have signed them (--audit-key)",
            good.notes_unchecked
        ),
    );
    add(
        report.checkpoints_before > 0,
        format!("{} checkpoints of lines that are not here: give the segments before", report.checkpoints_before),
    );
    let rests_on = report.rests_on.as_ref().map_or(0, |rest| rest.size);
    add(
        rests_on > 0,
        format!("the {rests_on} leaves before these lines; leaf and checkpoints vouch for a snapshot of them"),
    );
    if let Some(unchecked) = good.mandated.as_ref().and_then(Mandated::unchecked) {
        add(true, unchecked);
    }
    add(
        good.mandated.is_some() && report.rests_on.is_none(),
        "the guards that it took over from the log before: their snapshot is not at hand (--snapshot)".into(),
    );
    add(details.withheld > 0, format!("{} details, which were withheld", details.withheld));
    add(
        signatures.by_claimed_children > 0,
        format!(
            "that {} child keys are their key's: give its certificate (--certificate)",
            signatures.by_claimed_children
        ),
    );
    add(
        signatures.without_intent > 0,
        format!("{} signatures whose intents are not among these lines", signatures.without_intent),
    );
    list
}

/// A log as its verifier finds it.
type Judged = Result<casemate_attest::Report, Fault>;

/// The verdict on a log and one of its lines, for receipts.
pub(super) fn line_of(source: &Source, seq: u64) -> Result<(Judged, Option<Line>), Box<dyn Error>> {
    let mut verifier = match source.snapshot(None)? {
        None => Verifier::new(),
        Some(snapshot) => match Verifier::resume(snapshot) {
            Ok(verifier) => verifier,
            Err(fault) => return Ok((Err(fault), None)),
        },
    };
    let mut found = None;
    let broken = source.each_line(|bytes| {
        if verifier.feed(bytes)?.seq == seq {
            found = Line::read(bytes).ok();
        }
        Ok::<_, Fault>(())
    })?;
    let report = match broken {
        Some(fault) => Err(fault),
        None => verifier.finish(),
    };
    Ok((report, found))
}
