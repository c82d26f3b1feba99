//! The full-duplex message stream: frames in the request body, frames in the response body.

use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use casemate_wire::frame::{Frame, FrameReader};
use casemate_wire::{Code, Problem, SessionId};
use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use super::reads::{own_session, session_id};
use super::reply::Failed;
use crate::clients::Client;
use crate::daemon::Node;
use crate::session::{StreamEnd, max_body};

/// What a frame holds beside the body of its message: addresses, seal, signature; or a whole hello.
const FRAME_OVERHEAD: usize = 16 * 1024;

/// Attaches the caller to a session that waits for its stream.
pub(super) async fn messages(
    State(node): State<Arc<Node>>,
    Extension(client): Extension<Client>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Failed> {
    let session = session_id(&id)?;
    let view = own_session(&node, &client, &session).await?;
    let ended = || {
        let detail = format!("session {session} is {}; it takes no message stream any more", view.status.as_str());
        Problem::new(if view.status.is_final() { Code::SessionExpired } else { Code::SessionConflict }, detail)
    };
    let StreamEnd { incoming, outgoing } = node.sessions.attach(&session).ok_or_else(ended)??;
    let reader = FrameReader::with_limit(max_body(view.session_type) + FRAME_OVERHEAD);
    node.spawn("message stream", pump(body.into_data_stream(), reader, incoming, session.clone()));
    let frames = stream::unfold(outgoing, |mut outgoing| async move {
        let frame = outgoing.recv().await?;
        Some((frame.encode(), outgoing))
    });
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(frames)).into_response())
}

/// Carries frames from the request body to the session, until either ends.
async fn pump(
    mut body: BodyDataStream,
    mut reader: FrameReader,
    session: mpsc::Sender<Result<Frame, String>>,
    id: SessionId,
) {
    loop {
        let chunk = tokio::select! {
            () = session.closed() => return,
            chunk = body.next() => chunk,
        };
        let broken = match chunk {
            None if reader.is_empty() => return,
            None => "it ended inside a frame".to_owned(),
            Some(Err(error)) => error.to_string(),
            Some(Ok(chunk)) => {
                reader.push(&chunk);
                match forward(&mut reader, &session).await {
                    Ok(()) => continue,
                    Err(why) => why,
                }
            }
        };
        tracing::debug!(event = "message_stream_broke", session = %id, why = broken);
        // A session that has ended does not mind.
        drop(session.send(Err(broken)).await);
        return;
    }
}

async fn forward(reader: &mut FrameReader, session: &mpsc::Sender<Result<Frame, String>>) -> Result<(), String> {
    while let Some(frame) = reader.next_frame().map_err(|e| e.to_string())? {
        session.send(Ok(frame)).await.map_err(|_| "the session has ended".to_owned())?;
    }
    Ok(())
}
