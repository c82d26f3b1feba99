//! A leaf in plain words, on one line, for people who read histories.

use std::fmt::Write;

use crate::detail::Detail;
use crate::leaf::{Decision, Effect, Leaf, Outcome, Verdict};
use crate::text::Text;

/// One line of plain ASCII, with the leaf's detail where it is at hand; nothing in it can act on a terminal, whatever the
/// leaf holds.
pub fn describe(leaf: &Leaf, detail: Option<&Detail>) -> String {
    let mut text = format!("{:>6}  {}  {:<7}  {:<6}", leaf.seq, leaf.at, leaf.phase.as_str(), leaf.op.as_str());
    let mut add = |word: &str, value: Option<&dyn std::fmt::Display>| {
        if let Some(value) = value {
            // Writing into a String cannot fail.
            let _ = write!(text, "  {word} {value}");
        }
    };
    add("session", leaf.session.as_ref().map(|v| v as _));
    add("by", leaf.actor.as_ref().map(|v| v as _));
    add("key", leaf.key.as_ref().map(|v| v as _));
    add("digest", leaf.tx.as_ref().map(|tx| &tx.digest as _));
    add("path", leaf.tx.as_ref().and_then(|tx| tx.path.as_ref()).map(|v| v as _));
    let decoded = detail.and_then(|detail| detail.decoded.as_ref()).map(|decoded| ascii(&decoded.to_string()));
    add("of", decoded.as_ref().map(|v| v as _));
    let decision = leaf.decision.as_ref().map(decision);
    add("policy", decision.as_ref().map(|v| v as _));
    for approval in &leaf.approvals {
        add("approved by", Some(&format!("{} of {}", approval.name, approval.org)));
    }
    let outcome = leaf.outcome.as_ref().map(outcome);
    add("->", outcome.as_ref().map(|v| v as _));
    let rewrap = leaf.rewrap.as_ref().map(crate::rewrap::describe);
    add("run", rewrap.as_ref().map(|v| v as _));
    let reason = detail.and_then(|detail| detail.reason.as_deref()).map(ascii);
    add("because", reason.as_ref().map(|v| v as _));
    for change in &leaf.guards {
        let to = change.to.as_ref().map_or("gone", |to| to.as_str());
        let what = format!("{} {} is {to}", change.guard.as_str(), change.id);
        add("guard:", Some(&what));
    }
    add("start", (leaf.boot > 0).then_some(&leaf.boot as _));
    text
}

/// Text with everything but printable ASCII escaped.
fn ascii(foreign: &str) -> String {
    let mut text = String::new();
    for c in foreign.chars() {
        if c.is_ascii() && !c.is_ascii_control() {
            text.push(c);
        } else {
            text.extend(c.escape_unicode());
        }
    }
    text
}

fn decision(decision: &Decision) -> String {
    let policies: Vec<_> = decision.policies.iter().map(Text::as_str).collect();
    let effect = match decision.effect {
        Effect::Allow => "allows",
        Effect::Deny => "denies",
    };
    format!("{effect} by [{}]", policies.join(", "))
}

fn outcome(outcome: &Outcome) -> String {
    let mut text = match outcome.result {
        Verdict::Completed => "completed",
        Verdict::Failed => "failed",
        Verdict::Refused => "refused",
    }
    .to_owned();
    for part in [&outcome.code, &outcome.detail].into_iter().flatten() {
        let _ = write!(text, ": {part}");
    }
    if let Some(epoch) = outcome.epoch {
        let _ = write!(text, " (epoch {epoch})");
    }
    if let Some(party) = &outcome.party {
        let _ = write!(text, " (caused by {party})");
    }
    text
}
