//! The calls that the coordinator makes to an appliance (API contract, section 1).

use std::time::Duration;

use bytes::Bytes;
use casemate_attest::attestation::{MAX_TOKEN, Nonce};
use casemate_wire::api::{
    BASE_PATH, KeyProgress, KeygenRequest, MAX_BODY, RotationRequest, SettleAnswer, SettleRequest, SigningRequest,
};
use casemate_wire::frame::{Frame, FrameReader};
use casemate_wire::{Code, PartyId, Problem, PublicKey, SessionId};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::connection::{Connection, NoAnswer, RequestBody};
use super::queue::Waiting;
use super::unreachable;
use crate::config::ApplianceConfig;

/// Deciding, recording and anchoring take a while on a slow HSM.
const PARTICIPATE_LIMIT: Duration = Duration::from_secs(30);
const ATTACH_LIMIT: Duration = Duration::from_secs(20);
/// An HSM signs the attestation, and a TPM may have to be asked.
const ATTESTATION_LIMIT: Duration = Duration::from_secs(20);
const HEALTH_LIMIT: Duration = Duration::from_secs(2);
/// An HSM may have to sign.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);
const PROGRESS_LIMIT: Duration = Duration::from_secs(5);

/// What one party is asked to take part in.
#[derive(Debug, Clone)]
pub(crate) enum Invitation {
    /// A new key.
    Keygen(Box<KeygenRequest>),
    /// A signature.
    Sign(Box<SigningRequest>),
    /// New shares of a key.
    Rotate(Box<RotationRequest>),
}

/// The frames that a party sends.
pub(crate) struct FrameStream {
    party: PartyId,
    body: Incoming,
    reader: FrameReader,
}

impl Connection {
    /// Asks the party to take part. Repeating the call starts nothing twice, so it is repeated once if the connection
    /// breaks.
    ///
    /// # Errors
    /// The appliance's own problem with `party` added, or `party_unreachable`.
    pub(crate) async fn participate(&self, invitation: &Invitation) -> Result<(), Problem> {
        let (path, body) = match invitation {
            Invitation::Keygen(body) => ("keygen/participate", json(body)?),
            Invitation::Sign(body) => ("signing/participate", json(body)?),
            Invitation::Rotate(body) => ("rotation/participate", json(body)?),
        };
        let request = || self.request(Method::POST, path, "application/json", Full::new(body.clone()).boxed_unsync());
        let mut answer = self.send(request()?, PARTICIPATE_LIMIT).await;
        if let Err(NoAnswer::Broken(_)) = answer {
            answer = self.send(request()?, PARTICIPATE_LIMIT).await;
        }
        let answer = answer.map_err(|why| self.unreachable("asked to take part", &why))?;
        self.accepted("asked to take part", answer).await.map(drop)
    }

    /// Asks the party for an attestation that answers `nonce`.
    ///
    /// # Errors
    /// As [`Self::participate`].
    pub(crate) async fn attestation(&self, nonce: &Nonce) -> Result<Bytes, Problem> {
        let what = "asked for its attestation";
        let path = format!("attestation?nonce={nonce}");
        let request = self.request(Method::GET, &path, "application/json", Full::default().boxed_unsync())?;
        let answer = self.send(request, ATTESTATION_LIMIT).await.map_err(|why| self.unreachable(what, &why))?;
        let answer = self.accepted(what, answer).await?;
        self.whole(what, answer, MAX_TOKEN, ATTESTATION_LIMIT).await
    }

    /// Tells the party what a rotation has proven. It adopts, steps back and destroys by that, and may be told often.
    ///
    /// # Errors
    /// As [`Self::participate`].
    pub(crate) async fn settle(&self, told: &SettleRequest) -> Result<SettleAnswer, Problem> {
        let what = "told that a key has moved on";
        let body = Full::new(json(told)?).boxed_unsync();
        let request = self.request(Method::POST, "rotation/settle", "application/json", body)?;
        let answer = self.send(request, SETTLE_LIMIT).await.map_err(|why| self.unreachable(what, &why))?;
        let answer = self.accepted(what, answer).await?;
        self.read(what, &self.whole(what, answer, MAX_BODY, SETTLE_LIMIT).await?)
    }

    /// Asks how far a key has come at the party; `None` if it knows nothing of the key.
    ///
    /// # Errors
    /// As [`Self::participate`].
    pub(crate) async fn progress(&self, key: &PublicKey) -> Result<Option<KeyProgress>, Problem> {
        let what = "asked how far a key has come";
        let path = format!("keys/{key}/succession");
        let request = self.request(Method::GET, &path, "application/json", Full::default().boxed_unsync())?;
        let answer = self.send(request, PROGRESS_LIMIT).await.map_err(|why| self.unreachable(what, &why))?;
        match self.accepted(what, answer).await {
            Ok(answer) => self.read(what, &self.whole(what, answer, MAX_BODY, PROGRESS_LIMIT).await?).map(Some),
            Err(problem) if problem.code == Code::ShareNotFound => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    /// The whole body of an answer.
    async fn whole(
        &self,
        what: &str,
        answer: Response<Incoming>,
        most: usize,
        limit: Duration,
    ) -> Result<Bytes, Problem> {
        match timeout(limit, Limited::new(answer.into_body(), most).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(self.unreachable(what, &NoAnswer::Broken(error.to_string()))),
            Err(_) => Err(self.unreachable(what, &NoAnswer::Late(limit))),
        }
    }

    fn read<T: DeserializeOwned>(&self, what: &str, body: &[u8]) -> Result<T, Problem> {
        serde_json::from_slice(body).map_err(|error| self.unreachable(what, &NoAnswer::Broken(error.to_string())))
    }

    /// The party at the other end.
    pub(crate) fn appliance(&self) -> &ApplianceConfig {
        &self.appliance
    }

    /// Attaches the message stream of a session: `frames` go to the party, the answer brings its own.
    ///
    /// # Errors
    /// As [`Self::participate`].
    pub(crate) async fn attach(&self, session: &SessionId, frames: Waiting) -> Result<FrameStream, Problem> {
        let path = format!("sessions/{session}/messages");
        let request = self.request(Method::POST, &path, "application/octet-stream", frames.boxed_unsync())?;
        let answer =
            self.send(request, ATTACH_LIMIT).await.map_err(|why| self.unreachable("sent its messages", &why))?;
        let body = self.accepted("sent its messages", answer).await?.into_body();
        Ok(FrameStream { party: self.appliance.party_id.clone(), body, reader: FrameReader::default() })
    }

    /// Whether the appliance says that it can serve.
    pub(crate) async fn is_healthy(&self) -> bool {
        let Ok(request) = self.request(Method::GET, "health", "application/json", Full::default().boxed_unsync())
        else {
            return false;
        };
        self.send(request, HEALTH_LIMIT).await.is_ok_and(|answer| answer.status().is_success())
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, Problem> {
        let uri = format!("{}{BASE_PATH}/{path}", self.appliance.address);
        Request::builder()
            .method(method)
            .uri(uri)
            .header(CONTENT_TYPE, HeaderValue::from_static(content_type))
            .body(body)
            .map_err(|e| Problem::new(Code::Internal, format!("a request to an appliance could not be made: {e}")))
    }

    fn unreachable(&self, what: &str, why: &NoAnswer) -> Problem {
        unreachable(&self.appliance.party_id, &self.appliance.address, what, why)
    }

    async fn accepted(&self, what: &str, answer: Response<Incoming>) -> Result<Response<Incoming>, Problem> {
        let status = answer.status();
        if matches!(status, StatusCode::OK | StatusCode::ACCEPTED) {
            return Ok(answer);
        }
        let party = &self.appliance.party_id;
        let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
        let problem = body.ok().and_then(|body| serde_json::from_slice::<Problem>(&body.to_bytes()).ok());
        Err(match problem {
            Some(problem) => reported_by(problem, party),
            None => self.unreachable(what, &NoAnswer::Odd(status)),
        })
    }
}

impl FrameStream {
    /// The party's next frame; `None` once the stream has ended.
    ///
    /// # Errors
    /// The stream broke, or what came is no frame.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, Problem> {
        loop {
            if let Some(frame) = self.reader.next_frame().map_err(|e| self.fault(Code::PeerFault, &e))? {
                return Ok(Some(frame));
            }
            match self.body.frame().await {
                Some(Ok(part)) => {
                    if let Ok(bytes) = part.into_data() {
                        self.reader.push(&bytes);
                    }
                }
                Some(Err(error)) => {
                    return Err(self.fault(Code::PartyUnreachable, &super::with_causes(&error)));
                }
                None if self.reader.is_empty() => return Ok(None),
                None => return Err(self.fault(Code::TransportFault, &"it ended inside a frame")),
            }
        }
    }

    fn fault(&self, code: Code, why: &dyn std::fmt::Display) -> Problem {
        let detail = format!("the message stream of {} broke: {why}", self.party);
        Problem::new(code, detail).with("party", self.party.as_str())
    }
}

/// A party's problem, marked as that party's. Where it blames a peer under `party`, that stays.
pub(crate) fn reported_by(mut problem: Problem, party: &PartyId) -> Problem {
    problem.more.entry("party").or_insert_with(|| party.as_str().into());
    problem.with("reported_by", party.as_str())
}

fn json(body: &impl Serialize) -> Result<Bytes, Problem> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(|e| Problem::new(Code::Internal, format!("an invitation could not be written: {e}")))
}
