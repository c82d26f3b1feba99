//! What an auditor reads of the log beside a running daemon: checkpoints, lines exactly as hashed, details, proofs.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use casemate_attest::proof::ProveError;
use casemate_attest::tree::root_at;
use casemate_attest::{ConsistencyProof, InclusionProof, Line, ProofError};
use casemate_wire::{Code, Problem};
use rusqlite::Connection;
use serde::Deserialize;

use super::reply::{Failed, ok};
use crate::daemon::Node;
use crate::store::{self, StoreError, TreeNodes, audit_lines, newest_checkpoint};

type Reply = Result<Response, Failed>;
type Asked<T> = Result<Query<T>, QueryRejection>;

/// Lines in one answer, and bytes after which no further line is begun.
const MAX_LINES: u64 = 1000;
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The newest signed checkpoint, at most a second behind the log; signed now if there is none. In quarantine nothing is
/// signed, and what was signed last is evidence.
pub(super) async fn checkpoint(State(node): State<Arc<Node>>) -> Reply {
    let signed = match (node.checkpoints.newest(), node.store.quarantine()) {
        (Some(signed), _) => signed,
        (None, Some(_)) => {
            let key = node.audit.clone();
            let last = node.store.read(move |store| newest_checkpoint(store, &key)).await?;
            let unsigned = || Failed(Problem::new(Code::NotFound, "no checkpoint of this log was ever signed"));
            last.map(Arc::new).ok_or_else(unsigned)?
        }
        (None, None) => node
            .checkpoints
            .at_least(node.store.audit_head().size())
            .await
            .map_err(|trouble| Failed(Problem::new(Code::AuditUnavailable, trouble.to_string())))?,
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], signed.note().to_owned()).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    #[serde(default)]
    from: u64,
    #[serde(default = "page_size")]
    limit: u64,
}

fn page_size() -> u64 {
    100
}

impl Range {
    fn read(asked: Asked<Self>) -> Result<Self, Failed> {
        let Query(range) = asked.map_err(|e| bad(e.body_text()))?;
        if range.limit == 0 || range.limit > MAX_LINES {
            return Err(bad(format!("limit is 1 to {MAX_LINES}; ask again from the last line's seq + 1 for more")));
        }
        Ok(range)
    }
}

/// The log's lines, each exactly as it is hashed. An answer may hold fewer than were asked for; none are left after an empty
/// one.
pub(super) async fn entries(State(node): State<Arc<Node>>, asked: Asked<Range>) -> Reply {
    let Range { from, limit } = Range::read(asked)?;
    let lines = node.store.read(move |store| audit_lines(store, from, limit)).await?;
    if let Some(first) = first_seq(&lines)?
        && first != from
    {
        let detail =
            format!("the lines before {first} were exported and pruned; they are in the segments kept elsewhere");
        return Err(Failed(Problem::new(Code::NotFound, detail)));
    }
    Ok(json_lines(lines))
}

fn first_seq(lines: &[String]) -> Result<Option<u64>, Failed> {
    let read = |line: &String| {
        let line = Line::read(line.as_bytes()).map_err(|e| StoreError::corrupt("an audit log")(e.to_string()))?;
        Ok(line.leaf().seq)
    };
    lines.first().map(read).transpose()
}

/// What leaves commit to, with the salts, for whoever may see decoded transactions.
pub(super) async fn details(State(node): State<Arc<Node>>, asked: Asked<Range>) -> Reply {
    let Range { from, limit } = Range::read(asked)?;
    let details = node.store.read(move |connection| store::audit_details(connection, from, limit)).await?;
    let lines = details.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>();
    Ok(json_lines(lines.map_err(|e| Problem::new(Code::Internal, e.to_string()))?))
}

fn json_lines(lines: Vec<String>) -> Response {
    let mut body = String::new();
    for line in lines {
        if body.len() >= MAX_BYTES {
            break;
        }
        body.push_str(&line);
        body.push('\n');
    }
    ([(header::CONTENT_TYPE, "application/jsonl")], body).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InclusionQuery {
    seq: u64,
    size: u64,
}

/// That a leaf stands in the log of `size` leaves.
pub(super) async fn inclusion(State(node): State<Arc<Node>>, asked: Asked<InclusionQuery>) -> Reply {
    let Query(InclusionQuery { seq, size }) = asked.map_err(|e| bad(e.body_text()))?;
    within(&node, size)?;
    let proof = node.store.read(move |store| Ok(prove_inclusion(store, seq, size))).await?;
    Ok(ok(StatusCode::OK, &proof?))
}

fn prove_inclusion(store: &Connection, seq: u64, size: u64) -> Result<InclusionProof, Failed> {
    let nodes = TreeNodes(store);
    let proof = InclusionProof::make(seq, size, &nodes).map_err(unproven)?;
    // What is served has been checked: a damaged tree gives no proof instead of a wrong one.
    proof.verify(&root_at(size, &nodes)?).map_err(|why| damaged(&why))?;
    Ok(proof)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConsistencyQuery {
    from: u64,
    to: u64,
}

/// That the log of `to` leaves begins with the log of `from` leaves.
pub(super) async fn consistency(State(node): State<Arc<Node>>, asked: Asked<ConsistencyQuery>) -> Reply {
    let Query(ConsistencyQuery { from, to }) = asked.map_err(|e| bad(e.body_text()))?;
    within(&node, to)?;
    if from == 0 {
        return Err(bad("from counts from 1: every log continues an empty one".into()));
    }
    let proof = node.store.read(move |store| Ok(prove_consistency(store, from, to))).await?;
    Ok(ok(StatusCode::OK, &proof?))
}

fn prove_consistency(store: &Connection, from: u64, to: u64) -> Result<ConsistencyProof, Failed> {
    let nodes = TreeNodes(store);
    let proof = ConsistencyProof::make(from, to, &nodes).map_err(unproven)?;
    let (from_root, to_root) = (root_at(from, &nodes)?, root_at(to, &nodes)?);
    proof.verify(&from_root, &to_root).map_err(|why| damaged(&why))?;
    Ok(proof)
}

/// No proof is given beyond the durable log.
fn within(node: &Node, size: u64) -> Result<(), Failed> {
    let held = node.store.audit_head().size();
    if size <= held { Ok(()) } else { Err(bad(format!("the log has {held} leaves, not {size}"))) }
}

fn unproven(error: ProveError<StoreError>) -> Failed {
    match error {
        ProveError::Range(why) => bad(format!("there is nothing to prove: {why}")),
        ProveError::Nodes(error) => error.into(),
    }
}

fn damaged(why: &ProofError) -> Failed {
    let detail =
        format!("the stored tree does not verify ({why}): restore the store, or recover it as the runbook says");
    Failed(Problem::new(Code::AuditUnavailable, detail))
}

fn bad(detail: String) -> Failed {
    Failed(Problem::new(Code::BadRequest, detail))
}
