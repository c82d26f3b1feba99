//! `casemate session`: what an appliance was asked to take part in, and what became of it.

use std::error::Error;
use std::path::{Path, PathBuf};

use casemate_wire::SessionId;
use casemate_wire::api::{BASE_PATH, SessionStatus, SessionView};
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use rusqlite::Connection;
use serde::Serialize;
use serde_json::json;

use super::audit::plain;
use super::call::{CallArguments, get};
use super::since::since;
use super::{CommandResult, Format, exit, say};
use crate::config::Config;
use crate::store::{SessionRow, open_read_only};

#[derive(Subcommand)]
pub(super) enum SessionCommand {
    /// List the sessions that began last, from the data folder: what for, who asked, how they ended. Ended sessions leave it
    /// when the log is pruned; the log's segments keep them.
    List(ListArguments),
    /// Show one session.
    Show(ShowArguments),
}

#[derive(Args)]
pub(super) struct ListArguments {
    /// The configuration that names the data folder, which is read as it is; the daemon may run.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only those that stand so.
    #[arg(long, value_enum)]
    status: Option<Stored>,
    /// The most that are listed.
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Args)]
pub(super) struct ShowArguments {
    /// The session's id, as the coordinator, the audit log and receipts name it.
    #[arg(value_name = "SESSION")]
    session: SessionId,
    /// The configuration that names the data folder, which is read as it is; the daemon may run.
    #[arg(long, value_name = "FILE", conflicts_with = "url", required_unless_present = "url")]
    config: Option<PathBuf>,
    #[command(flatten)]
    call: CallArguments,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// How a session can stand in the data folder; whether one that was accepted runs by now only the daemon knows.
#[derive(Clone, Copy, ValueEnum)]
enum Stored {
    /// Committed, and without an end.
    Accepted,
    /// It ended with a result.
    Completed,
    /// It was refused, or ended without a result.
    Failed,
    /// Nobody attached in time.
    Expired,
}

impl From<Stored> for SessionStatus {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Accepted => Self::Accepted,
            Stored::Completed => Self::Completed,
            Stored::Failed => Self::Failed,
            Stored::Expired => Self::Expired,
        }
    }
}

/// What is known of one session.
#[derive(Serialize)]
struct Known {
    #[serde(flatten)]
    view: SessionView,
    /// What the data folder alone tells.
    #[serde(flatten)]
    record: Option<Record>,
}

/// What stands of a session in the data folder, and is not answered to clients.
#[derive(Serialize)]
struct Record {
    /// The client that asked.
    asked_by: String,
    /// The id of its request, by which the daemon's log names it.
    request: String,
    /// Whether it was refused before it began.
    refused: bool,
    /// The leaf of the audit log that its intent is; a session that was refused has none.
    intent: Option<u64>,
}

impl From<&SessionRow> for Known {
    fn from(row: &SessionRow) -> Self {
        let SessionRow { actor, request, refused, intent, .. } = row;
        let record = Record { asked_by: actor.clone(), request: request.clone(), refused: *refused, intent: *intent };
        Self { view: row.view(0), record: Some(record) }
    }
}

pub(super) fn run(command: &SessionCommand) -> CommandResult {
    match command {
        SessionCommand::List(arguments) => list(arguments),
        SessionCommand::Show(arguments) => show(arguments),
    }
}

fn list(arguments: &ListArguments) -> CommandResult {
    let (_, store) = open(&arguments.config)?;
    let (rows, total) = SessionRow::newest(&store, arguments.status.map(Into::into), arguments.limit)?;
    let sessions: Vec<Known> = rows.iter().map(Known::from).collect();
    if arguments.format == Format::Json {
        say(json!({"sessions": sessions, "total": total}));
        return Ok(exit::OK);
    }
    let now = Timestamp::now();
    for session in &sessions {
        lines(session, now).into_iter().for_each(say);
        say("");
    }
    say(format!("{} of {total} sessions", sessions.len()));
    Ok(exit::OK)
}

fn show(arguments: &ShowArguments) -> CommandResult {
    let known = known(arguments)?;
    if arguments.format == Format::Json {
        say(json!({"session": known}));
        return Ok(exit::OK);
    }
    lines(&known, Timestamp::now()).into_iter().for_each(say);
    if let Some(signature) = &known.view.signature {
        say(format!("  signature    r {}", hex::encode(signature.r)));
        say(format!("               s {}, v {}", hex::encode(signature.s), signature.v));
    }
    Ok(exit::OK)
}

fn known(arguments: &ShowArguments) -> Result<Known, Box<dyn Error>> {
    let session = &arguments.session;
    let Some(config) = &arguments.config else {
        let view = get(&arguments.call.service()?, &format!("{BASE_PATH}/sessions/{session}"))?;
        return Ok(Known { view, record: None });
    };
    let (data_dir, store) = open(config)?;
    let row = SessionRow::find(&store, session)?.ok_or_else(|| {
        format!(
            "there is no session {session} in {}; `session list` shows what is there; `audit show --session` \
             finds one that was pruned",
            data_dir.display()
        )
    })?;
    Ok(Known::from(&row))
}

/// The data folder that a configuration names, and its store.
fn open(config: &Path) -> Result<(PathBuf, Connection), Box<dyn Error>> {
    let data_dir = Config::load(config)?.data_dir;
    let store = open_read_only(&data_dir)?;
    Ok((data_dir, store))
}

fn lines(Known { view, record }: &Known, now: Timestamp) -> Vec<String> {
    let standing = match (&view.error, record) {
        (Some(problem), Some(Record { refused: true, .. })) => format!("refused, {}: {}", problem.code, problem.detail),
        (Some(problem), _) => format!("{}, {}: {}", view.status.as_str(), problem.code, problem.detail),
        (None, _) if view.status == SessionStatus::Running => format!("running, round {}", view.round),
        (None, _) => view.status.as_str().to_owned(),
    };
    let mut lines = vec![
        view.session_id.to_string(),
        format!("  for          {}", view.session_type),
        format!("  state        {}", plain(&standing)),
    ];
    if let Some(key) = &view.public_key {
        lines.push(format!("  key          {key}"));
    }
    if let Some(Record { asked_by, request, intent, .. }) = record {
        lines.push(format!("  asked by     {}, request {}", plain(asked_by), plain(request)));
        lines.extend(intent.map(|seq| format!("  intent       leaf {seq} of the audit log")));
    }
    lines.push(format!("  began        {}", since(&view.started_at, now)));
    lines.extend(view.completed_at.as_deref().map(|time| format!("  ended        {}", since(time, now))));
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use casemate_wire::{Code, Problem, SessionType};

    use super::*;

    fn view(status: SessionStatus, error: Option<Problem>) -> SessionView {
        SessionView {
            session_id: "s-1".parse().unwrap(),
            session_type: SessionType::Sign,
            status,
            round: 3,
            error,
            public_key: None,
            signature: None,
            certificate: None,
            started_at: "2026-11-21T12:00:00Z".into(),
            completed_at: None,
        }
    }

    fn told(view: SessionView, record: Option<Record>) -> String {
        lines(&Known { view, record }, "2026-11-21T12:05:00Z".parse().unwrap()).join("\n")
    }

    #[test]
    fn nothing_that_came_from_outside_reaches_the_terminal_as_it_is() {
        let record = |refused| {
            Some(Record { asked_by: "co\u{1b}[2Jordinator".into(), request: "r\n9".into(), refused, intent: None })
        };
        let problem = || Some(Problem::new(Code::PeerLogRefused, "party-2 says\u{1b}]0;\u{7} \u{202e}no"));
        for refused in [true, false] {
            let told = told(view(SessionStatus::Failed, problem()), record(refused));
            assert!(told.chars().all(|c| c == '\n' || c == ' ' || c.is_ascii_graphic()), "{told:?}");
            assert_eq!(told.contains("refused, peer_log_refused: party-2 says"), refused, "{told}");
            assert!(told.contains("request r?9"), "{told}");
        }
    }

    #[test]
    fn a_session_that_runs_shows_its_round() {
        let told = told(view(SessionStatus::Running, None), None);
        assert!(told.contains("running, round 3") && told.contains("(5 minutes ago)"), "{told}");
    }
}
