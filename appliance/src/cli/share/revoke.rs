//! `casemate share revoke`: asks the running daemon, which alone may change a share.

use std::path::PathBuf;

use casemate_policy::approval::{Act, RevokeParameters};
use casemate_wire::api::{Approval, BASE_PATH, RevokeAnswer, RevokeRequest};
use clap::Args;
use serde_json::json;

use super::super::audit::{plain, read_text};
use super::super::call::{CallArguments, post};
use super::super::{CommandResult, exit, say};
use super::Format;
use super::reach::shown;

/// The largest approval that is read, in bytes.
const MAX_APPROVAL: u64 = 64 * 1024;

#[derive(Args)]
pub(in super::super) struct Arguments {
    /// The share's id.
    #[arg(value_name = "SHARE")]
    share: String,
    /// Why it is withdrawn. Approvals must name the same text.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// An approval, as `casemate approve` writes it; repeated for each person.
    #[arg(long, value_name = "FILE")]
    approval: Vec<PathBuf>,
    /// Withdraw nothing: print what people have to approve, for `casemate approve`.
    #[arg(long, conflicts_with = "approval")]
    show_act: bool,
    #[command(flatten)]
    call: CallArguments,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    let service = arguments.call.service()?;
    let share = shown(&service, &arguments.share)?;
    let reason = arguments.reason.trim().to_owned();
    if arguments.show_act {
        let parameters = RevokeParameters { party_id: share.party_id, reason };
        say(serde_json::to_string(&Act::Revoke { key: share.public_key, parameters })?);
        return Ok(exit::OK);
    }
    let mut approvals = Vec::with_capacity(arguments.approval.len());
    for path in &arguments.approval {
        let text = read_text("the approval", path, MAX_APPROVAL)?;
        let approval: Approval = serde_json::from_str(&text)
            .map_err(|e| format!("{} is no approval: {e}; `casemate approve` writes one", path.display()))?;
        approvals.push(approval);
    }
    let path = format!("{BASE_PATH}/shares/{}/revoke", arguments.share);
    let answer: RevokeAnswer = post(&service, &path, &json!(RevokeRequest { reason, approvals }))?;
    if arguments.format == Format::Json {
        say(json!(answer));
        return Ok(exit::OK);
    }
    let RevokeAnswer { share, revoked, sessions_stopped } = answer;
    if revoked.is_empty() {
        say(format!("share {} was {} before; nothing was changed", plain(&share.id), plain(&share.status)));
        return Ok(exit::OK);
    }
    say(format!("withdrawn at {}, of key {}:", share.party_id, share.public_key));
    for id in &revoked {
        say(format!("  {}", plain(id)));
    }
    say(format!("sessions that were stopped: {sessions_stopped}"));
    say(
        "next: rotate the key among the other parties, so that copies of this share are worth nothing (docs/runbook.md)",
    );
    Ok(exit::OK)
}
