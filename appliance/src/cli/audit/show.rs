//! `casemate audit show`: a log in plain words.

use std::collections::HashSet;
use std::error::Error;
use std::path::PathBuf;

use casemate_attest::describe::describe;
use casemate_attest::{DisclosedLeaf, Fault, FaultKind, Leaf, Verifier};
use casemate_wire::{PublicKey, SessionId};
use clap::Args;
use serde_json::json;

use super::super::{CommandResult, exit, say};
use super::source::{LogArguments, Source};
use super::{Shape, plain};

#[derive(Args)]
pub(in super::super) struct ShowArguments {
    #[command(flatten)]
    log: LogArguments,
    /// Only this session.
    #[arg(long, value_name = "ID", conflicts_with = "key")]
    session: Option<SessionId>,
    /// Only what was done, or asked to be done, with this key (hex).
    #[arg(long, value_name = "HEX")]
    key: Option<PublicKey>,
    /// The details that leaves only commit to, if they do not lie beside the log; repeated for segments, in their order.
    #[arg(long, value_name = "FILE")]
    details: Vec<PathBuf>,
    /// What the lines rest on, if the log's first lines were pruned and it does not lie beside them.
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,
    #[command(flatten)]
    shape: Shape,
}

/// Which leaves are shown.
enum Wanted {
    All,
    Session(SessionId),
    /// Of a key, with all sessions that used or made it.
    Key(PublicKey, HashSet<SessionId>),
}

impl Wanted {
    fn of(arguments: &ShowArguments, source: &Source) -> Result<Self, Box<dyn Error>> {
        match (&arguments.session, arguments.key) {
            (Some(session), _) => Ok(Self::Session(session.clone())),
            (None, Some(key)) => Ok(Self::Key(key, sessions_of(source, key)?)),
            (None, None) => Ok(Self::All),
        }
    }

    fn holds(&self, leaf: &Leaf) -> bool {
        match self {
            Self::All => true,
            Self::Session(session) => leaf.session.as_ref() == Some(session),
            Self::Key(key, sessions) => {
                leaf.key == Some(*key) || leaf.session.as_ref().is_some_and(|one| sessions.contains(one))
            }
        }
    }
}

pub(in super::super) fn run(arguments: &ShowArguments) -> CommandResult {
    let source = arguments.log.open()?;
    let wanted = Wanted::of(arguments, &source)?;
    let mut details = source.details(&arguments.details)?;
    let mut verifier = match source.snapshot(arguments.snapshot.as_deref())? {
        None => Ok(Verifier::new()),
        Some(snapshot) => Verifier::resume(snapshot),
    };
    let mut shown = 0u64;
    let broken = source.each_line(|bytes| {
        let verifier = verifier.as_mut().map_err(|fault| Stop::Bad(fault.clone()))?;
        let leaf = verifier.feed(bytes).map_err(Stop::Bad)?;
        let disclosed = details.of(leaf.seq).map_err(Stop::Unreadable)?;
        if wanted.holds(&leaf) {
            shown += 1;
            print(&leaf, disclosed.as_ref(), arguments.shape.is_json()).map_err(Stop::Bad)?;
        }
        Ok(())
    })?;
    match broken {
        None if shown == 0 => {
            Err("nothing of that stands in this log; look for the session or key with another spelling".into())
        }
        None => Ok(exit::OK),
        Some(Stop::Unreadable(error)) => Err(error),
        Some(Stop::Bad(fault)) => {
            let fault = plain(&fault.to_string());
            eprintln!("casemate: the log is NOT VALID: {fault}; what was shown stands before it");
            Ok(exit::fails())
        }
    }
}

enum Stop {
    Bad(Fault),
    Unreadable(Box<dyn Error>),
}

/// A detail is shown only if it is the one that the leaf commits to.
fn print(leaf: &Leaf, disclosed: Option<&DisclosedLeaf>, as_json: bool) -> Result<(), Fault> {
    let detail = disclosed.map(|disclosed| &disclosed.disclosure);
    if let Some(detail) = detail
        && detail.commitment().ok() != leaf.detail
    {
        let what = "its detail was changed: it is not the one that the leaf commits to".into();
        let (seq, line) = (leaf.seq, leaf.seq.saturating_add(1));
        return Err(Fault { seq, line, kind: FaultKind::Detail, what });
    }
    let detail = detail.map(|disclosure| &disclosure.detail);
    if as_json {
        say(json!({"leaf": leaf, "detail": detail}));
    } else {
        say(describe(leaf, detail));
    }
    Ok(())
}

/// The sessions that used a key, or made it: a keygen's intent does not know its key yet.
fn sessions_of(source: &Source, key: PublicKey) -> Result<HashSet<SessionId>, Box<dyn Error>> {
    let mut sessions = HashSet::new();
    let _ = source.each_line(|bytes| {
        let leaf: Leaf = serde_json::from_slice(bytes).map_err(|_| ())?;
        if leaf.key == Some(key) {
            sessions.extend(leaf.session);
        }
        Ok::<(), ()>(())
    })?;
    Ok(sessions)
}
