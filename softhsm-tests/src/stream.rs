//! The message stream of one session at one appliance, from the coordinator's end.

use bytes::Bytes;
use casemate_wire::frame::{Frame, FrameReader};
use casemate_wire::{Problem, SessionId};
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::Method;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use crate::http::{Answer, ApplianceClient, NoAnswer};

/// Frames that may wait on their way to the party.
const QUEUE: usize = 64;

/// Where frames to the party go; the stream ends when this is dropped.
pub struct ToParty(mpsc::Sender<std::io::Result<Bytes>>);

/// Where frames from the party come out.
pub struct FromParty {
    body: Incoming,
    reader: FrameReader,
}

/// Both directions of a stream.
pub type Stream = (ToParty, FromParty);

/// Why a stream was not attached.
#[derive(Debug)]
pub enum NotAttached {
    /// The answer that refuses it.
    Refused(Box<Answer>),
    /// There is no answer.
    Unreachable(NoAnswer),
}

impl NotAttached {
    /// The problem of the answer that refuses it.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused(answer) => answer.problem(),
            Self::Unreachable(why) => panic!("no answer: {why}"),
        }
    }
}

impl std::fmt::Display for NotAttached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(answer) => answer.fmt(f),
            Self::Unreachable(why) => why.fmt(f),
        }
    }
}

/// Attaches to a session.
///
/// # Errors
/// The answer that refuses, or that there is none.
pub async fn attach(client: &ApplianceClient, session: &SessionId) -> Result<Stream, NotAttached> {
    let (send, receive) = mpsc::channel(QUEUE);
    let body = stream::unfold(receive, |mut receive: mpsc::Receiver<std::io::Result<Bytes>>| async {
        let item = receive.recv().await?;
        Some((item.map(hyper::body::Frame::data), receive))
    });
    let path = format!("sessions/{session}/messages");
    let response = client.send(Method::POST, &path, StreamBody::new(body).boxed_unsync()).await;
    let response = response.map_err(NotAttached::Unreachable)?;
    if response.status() == hyper::StatusCode::OK {
        return Ok((ToParty(send), FromParty { body: response.into_body(), reader: FrameReader::default() }));
    }
    let answer = Answer::collect(response).await.map_err(NotAttached::Unreachable)?;
    Err(NotAttached::Refused(Box::new(answer)))
}

impl ToParty {
    /// Sends a frame. A party that has ended takes no more, which is no error here.
    pub async fn frame(&self, frame: &Frame) {
        self.bytes(frame.encode().unwrap()).await;
    }

    /// Sends bytes as they are.
    pub async fn bytes(&self, bytes: impl Into<Bytes>) {
        drop(self.0.send(Ok(bytes.into())).await);
    }

    /// Breaks the stream off, as a lost connection would.
    pub async fn break_off(&self) {
        drop(self.0.send(Err(std::io::ErrorKind::ConnectionReset.into())).await);
    }
}

impl FromParty {
    /// The next frame; `None` at the end of the stream.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn next(&mut self) -> Result<Option<Frame>, NoAnswer> {
        loop {
            if let Some(frame) = self.reader.next_frame().map_err(|e| NoAnswer(e.to_string()))? {
                return Ok(Some(frame));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(NoAnswer(error.to_string())),
                Some(Ok(part)) => {
                    if let Ok(bytes) = part.into_data() {
                        self.reader.push(&bytes);
                    }
                }
            }
        }
    }
}
