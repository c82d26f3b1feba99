//! An appliance that speaks the real protocol outside (TLS 1.3, HTTP/2, tokens, frames) and computes nothing inside.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use casemate_wire::api::{
    Accepted, BASE_PATH, KeyProgress, KeygenRequest, RotationRequest, SessionStatus, SettleAnswer, SettleRequest,
    SigningRequest,
};
use casemate_wire::envelope::{Checkpoint, Content, Hello, Introduction, SessionView, SignedHello, SignedMessage, To};
use casemate_wire::frame::{Frame, FrameReader, Outcome};
use casemate_wire::rotation::all_switched;
use casemate_wire::token::{Claims, PinnedKey, verify};
use casemate_wire::{Code, Digest32, PartyId, Problem, PublicKey, SessionId};
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use super::attester::{Attester, MEDIA_TYPE};
use super::held::Held;
use super::keys::{Keys, party};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How the appliance behaves in one session.
#[derive(Debug, Clone, Default)]
pub enum Behaviour {
    #[default]
    Honest,
    /// Refuses to take part.
    Refuse(Problem),
    /// Takes part, then fails.
    Fail(Problem),
    /// Attaches and says nothing.
    Silent,
    /// Attaches, says nothing, and takes nothing.
    Stall,
    /// Sends this many frames of 1 MiB to all, then waits.
    Flood(usize),
    /// Reports another key or a signature over another hash.
    Lie,
    /// Sends a message in another party's name.
    Impersonate,
    /// Announces a frame that is too large.
    Oversize,
    /// Ends its stream without a word.
    Vanish,
    /// Takes part to the end and ends its stream without a word.
    Mute,
}

/// What was seen of one session.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    pub hellos: Vec<PartyId>,
    pub bodies: Vec<Vec<u8>>,
    /// The coordinator ended the stream.
    pub ended: bool,
}

pub struct Appliance {
    pub address: Option<SocketAddr>,
    pub inside: Arc<Inside>,
    tls: TlsAcceptor,
    tasks: Option<JoinSet<()>>,
}

pub struct Inside {
    index: u16,
    keys: Arc<Keys>,
    pinned: PinnedKey,
    pub next: Mutex<VecDeque<Behaviour>>,
    pub healthy: AtomicBool,
    /// Whether it answers when a rotation is to be settled.
    pub settles: AtomicBool,
    pub connections: AtomicUsize,
    pub attester: Mutex<Attester>,
    pub seen: Mutex<HashMap<SessionId, Seen>>,
    pub requests: Mutex<HashMap<SessionId, serde_json::Value>>,
    accepted: Mutex<HashMap<SessionId, (Claims, Behaviour)>>,
    /// Claims of the tokens, by session.
    pub claims: Mutex<HashMap<SessionId, Claims>>,
    pub held: Mutex<HashMap<PublicKey, Held>>,
    /// What it says instead of what proves a key's epoch.
    pub pretends: Mutex<Option<KeyProgress>>,
}

impl Appliance {
    pub fn new(index: u16, keys: Arc<Keys>, pinned: PinnedKey, ca: &str, certificate: &str, key: &str) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let inside = Inside {
            index,
            keys,
            pinned,
            next: Mutex::default(),
            healthy: AtomicBool::new(true),
            settles: AtomicBool::new(true),
            connections: AtomicUsize::new(0),
            attester: Mutex::new(Attester::new(index)),
            seen: Mutex::default(),
            requests: Mutex::default(),
            accepted: Mutex::default(),
            claims: Mutex::default(),
            held: Mutex::default(),
            pretends: Mutex::default(),
        };
        let inside = Arc::new(inside);
        Self { address: None, inside, tls: Arc::new(tls).into(), tasks: None }
    }

    /// Serves until [`Self::crash`].
    pub fn serve(&mut self, listener: TcpListener) {
        let (tls, inside) = (self.tls.clone(), Arc::clone(&self.inside));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, inside) = (tls.clone(), Arc::clone(&inside));
                connections.spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    inside.connections.fetch_add(1, Ordering::SeqCst);
                    let service = service_fn(|request| {
                        let inside = Arc::clone(&inside);
                        async move { Ok::<_, Infallible>(inside.answer(request).await) }
                    });
                    let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    // So that one stream that is not read leaves room for the others.
                    server.initial_stream_window_size(1 << 18).initial_connection_window_size(1 << 24);
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        self.tasks = Some(tasks);
    }

    pub async fn serve_again(&mut self) {
        let listener = TcpListener::bind(self.address.unwrap()).await.unwrap();
        self.serve(listener);
    }

    /// Cuts all connections.
    pub async fn crash(&mut self) {
        self.tasks.take().unwrap().shutdown().await;
    }

    /// In the next session that it is asked to join.
    pub fn behave(&self, behaviour: Behaviour) {
        self.inside.next.lock().unwrap().push_back(behaviour);
    }

    pub fn seen(&self, session: &serde_json::Value) -> Seen {
        let id = session.as_str().unwrap().parse().unwrap();
        self.inside.seen.lock().unwrap().get(&id).cloned().unwrap_or_default()
    }
}

impl Inside {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().strip_prefix(BASE_PATH).unwrap().to_owned();
        match path.as_str() {
            "/health" if self.healthy.load(Ordering::SeqCst) => reply(200, "{}"),
            "/health" => reply(503, "{}"),
            "/attestation" => {
                let nonce = request.uri().query().unwrap().strip_prefix("nonce=").unwrap();
                let Some(token) = self.attester.lock().unwrap().answer(nonce) else {
                    let problem = Problem::new(Code::HsmUnavailable, "the token is away");
                    return reply(problem.status, &serde_json::to_string(&problem).unwrap());
                };
                let answer = Response::builder().header("content-type", MEDIA_TYPE);
                answer.body(Full::from(token).boxed_unsync()).unwrap()
            }
            "/keygen/participate" => {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let ask: KeygenRequest = serde_json::from_slice(&body).unwrap();
                self.join(&ask.session_id, &ask.party_id, &ask.join_token, &body)
            }
            "/signing/participate" => {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let ask: SigningRequest = serde_json::from_slice(&body).unwrap();
                self.join(&ask.session_id, &ask.party_id, &ask.join_token, &body)
            }
            "/rotation/participate" => {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let ask: RotationRequest = serde_json::from_slice(&body).unwrap();
                self.join(&ask.session_id, &ask.party_id, &ask.join_token, &body)
            }
            "/rotation/settle" if !self.settles.load(Ordering::SeqCst) => {
                let problem = Problem::new(Code::HsmUnavailable, "the token is away");
                reply(problem.status, &serde_json::to_string(&problem).unwrap())
            }
            "/rotation/settle" => {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                self.settle(serde_json::from_slice(&body).unwrap())
            }
            path if path.starts_with("/keys/") => {
                let key = path.strip_prefix("/keys/").unwrap().strip_suffix("/succession").unwrap();
                self.progress(&key.parse().unwrap())
            }
            stream => {
                let id = stream.strip_prefix("/sessions/").unwrap();
                let id: SessionId = id.strip_suffix("/messages").unwrap().parse().unwrap();
                let (claims, behaviour) = self.accepted.lock().unwrap()[&id].clone();
                let (send, receive) = mpsc::channel::<Bytes>(4);
                let body = stream::unfold(receive, |mut receive| async {
                    let bytes = receive.recv().await?;
                    Some((Ok(hyper::body::Frame::data(bytes)), receive))
                });
                tokio::spawn(self.play(claims, behaviour, request.into_body(), send));
                Response::new(StreamBody::new(body).boxed_unsync())
            }
        }
    }

    fn join(&self, session: &SessionId, asked: &PartyId, token: &str, body: &[u8]) -> Response<Body> {
        let me = party(self.index);
        assert_eq!(*asked, me);
        let now = jiff::Timestamp::now().as_second();
        let token = verify(token, std::slice::from_ref(&self.pinned), &me, now, 5).unwrap();
        assert_eq!(&token.claims().session_id, session);
        let request = serde_json::from_slice(body).unwrap();
        self.requests.lock().unwrap().insert(session.clone(), request);
        let behaviour = self.next.lock().unwrap().pop_front().unwrap_or_default();
        if let Behaviour::Refuse(problem) = behaviour {
            return reply(problem.status, &serde_json::to_string(&problem).unwrap());
        }
        if let Some(rotation) = &token.claims().rotation {
            let mut held = self.held.lock().unwrap();
            let held = held.entry(token.claims().public_key.unwrap()).or_default();
            if held.newest_epoch >= rotation.epoch {
                let problem = Problem::new(Code::EpochTaken, "taken").with("epoch", held.newest_epoch);
                return reply(problem.status, &serde_json::to_string(&problem).unwrap());
            }
            held.newest_epoch = rotation.epoch;
        }
        self.claims.lock().unwrap().insert(session.clone(), token.claims().clone());
        let place = (token.claims().clone(), behaviour);
        self.accepted.lock().unwrap().insert(session.clone(), place);
        let accepted = Accepted {
            session_id: session.clone(),
            party_id: me,
            message: "attach the stream".into(),
            status: SessionStatus::Accepted,
        };
        reply(202, &serde_json::to_string(&accepted).unwrap())
    }

    fn settle(&self, request: SettleRequest) -> Response<Body> {
        let SettleRequest { succession, switched, .. } = request;
        let (me, certificate) = (party(self.index), &succession.certificate);
        let mut held = self.held.lock().unwrap();
        let held = held.entry(certificate.statement.public_key).or_default();
        held.move_to(&succession);
        if all_switched(certificate, &switched).is_ok() {
            held.old_shares = 0;
        }
        let stays = certificate.statement.roster.position(&me).is_some();
        let switched = stays.then(|| self.keys.switched(self.index, certificate));
        let answer = SettleAnswer { party_id: me, switched, old_shares: held.old_shares };
        reply(200, &serde_json::to_string(&answer).unwrap())
    }

    fn progress(&self, key: &PublicKey) -> Response<Body> {
        if let Some(progress) = &*self.pretends.lock().unwrap() {
            return reply(200, &serde_json::to_string(progress).unwrap());
        }
        let held = self.held.lock().unwrap();
        let Some(Held { newest_epoch, succession, .. }) = held.get(key).cloned() else {
            let problem = Problem::new(Code::ShareNotFound, "no such key");
            return reply(problem.status, &serde_json::to_string(&problem).unwrap());
        };
        let progress = KeyProgress { party_id: party(self.index), newest_epoch, succession };
        reply(200, &serde_json::to_string(&progress).unwrap())
    }

    async fn play(self: Arc<Self>, claims: Claims, behaviour: Behaviour, frames: Incoming, send: mpsc::Sender<Bytes>) {
        let part = Part { inside: self, claims, send };
        match behaviour {
            Behaviour::Honest | Behaviour::Lie | Behaviour::Mute => {
                part.hello().await;
                if part.converse(frames).await {
                    if matches!(behaviour, Behaviour::Mute) {
                        drop(part.result(false));
                        return;
                    }
                    part.end(part.result(matches!(behaviour, Behaviour::Lie))).await;
                } else {
                    part.cut_off().await;
                }
            }
            Behaviour::Refuse(_) => unreachable!(),
            Behaviour::Fail(problem) => {
                part.hello().await;
                part.end(Outcome::Failed { problem }).await;
            }
            Behaviour::Silent => {
                part.listen(frames, |_| false).await;
                part.cut_off().await;
            }
            Behaviour::Stall => {
                part.send.closed().await;
                drop(frames);
            }
            Behaviour::Flood(count) => {
                for _ in 0..count {
                    part.message(part.position(), To::All, vec![9; 1 << 20]).await;
                    // At a pace that whoever reads at all keeps up with.
                    sleep(Duration::from_millis(20)).await;
                }
                part.listen(frames, |_| false).await;
                part.cut_off().await;
            }
            Behaviour::Impersonate => {
                part.message(part.position() ^ 1, To::All, vec![1]).await;
                part.listen(frames, |_| false).await;
            }
            Behaviour::Oversize => {
                part.send.send(Bytes::from_static(&[0xff; 4])).await.unwrap();
                part.listen(frames, |_| false).await;
            }
            Behaviour::Vanish => {}
        }
    }
}

/// One session at one appliance.
struct Part {
    inside: Arc<Inside>,
    claims: Claims,
    send: mpsc::Sender<Bytes>,
}

impl Part {
    fn position(&self) -> u16 {
        let me = party(self.inside.index);
        let place = self.claims.participants.iter().position(|member| member.party_id == me);
        u16::try_from(place.unwrap()).unwrap()
    }

    fn others(&self) -> usize {
        self.claims.participants.len() - 1
    }

    async fn frame(&self, frame: Frame) {
        // The coordinator may have cut the stream.
        let _ = self.send.send(frame.encode().unwrap().into()).await;
    }

    async fn hello(&self) {
        let claims = &self.claims;
        let view = SessionView {
            session_id: claims.session_id.clone(),
            session_type: claims.session_type,
            share_type: claims.share_type,
            label: claims.label.clone(),
            key: claims.public_key,
            epoch: 1,
            threshold: (claims.threshold_t, claims.threshold_n).try_into().unwrap(),
            roster: claims.participants.clone().try_into().unwrap(),
            message_hash: claims.message_hash,
            derivation_path: None,
            rotation: None,
        };
        let own = Introduction {
            party: party(self.inside.index),
            kem_key: [1; 32],
            signing_key: [2; 32],
            nonce: [3; 32],
            time: 0,
            checkpoint: Checkpoint { log: "l".into(), size: 0, root: Digest32([0; 32]) },
            witnessed: Vec::new(),
            attest: false,
        };
        let signed = SignedHello { hello: Hello { view, own }.into(), signature: [5; 64] };
        self.frame(Frame::Hello(signed)).await;
    }

    async fn message(&self, from: u16, to: To, body: Vec<u8>) {
        let content = Content {
            session: self.claims.session_id.clone(),
            transcript: Digest32([0; 32]),
            from,
            to,
            round: 1,
            seq: 0,
            encapsulated: None,
            body,
        };
        self.frame(Frame::Message(SignedMessage { content, signature: [4; 64] })).await;
    }

    /// Exchanges hellos, then one message to all and one large message to the next party. `false` if cut off.
    async fn converse(&self, mut frames: Incoming) -> bool {
        let mut reader = FrameReader::default();
        let others = self.others();
        if !self.hear(&mut frames, &mut reader, |seen| seen.hellos.len() == others).await {
            return false;
        }
        let position = self.position();
        let next = (position + 1) % (others as u16 + 1);
        self.message(position, To::All, format!("all from {position}").into_bytes()).await;
        self.message(position, To::Party(next), vec![position as u8; 100_000]).await;
        self.hear(&mut frames, &mut reader, |seen| seen.bodies.len() == others + 1).await
    }

    async fn listen(&self, mut frames: Incoming, enough: impl Fn(&Seen) -> bool) -> bool {
        self.hear(&mut frames, &mut FrameReader::default(), enough).await
    }

    async fn hear(&self, frames: &mut Incoming, reader: &mut FrameReader, enough: impl Fn(&Seen) -> bool) -> bool {
        loop {
            {
                let mut all = self.inside.seen.lock().unwrap();
                let seen = all.entry(self.claims.session_id.clone()).or_default();
                while let Some(frame) = reader.next_frame().unwrap() {
                    match frame {
                        Frame::Hello(signed) => seen.hellos.push(signed.hello.own.party.clone()),
                        Frame::Message(signed) => seen.bodies.push(signed.content.body),
                        Frame::Outcome(_) => panic!("an outcome was sent to a party"),
                    }
                }
                if enough(seen) {
                    return true;
                }
            }
            match frames.frame().await {
                Some(Ok(part)) => reader.push(&part.into_data().unwrap()),
                Some(Err(_)) => return false,
                None => {
                    let mut all = self.inside.seen.lock().unwrap();
                    all.entry(self.claims.session_id.clone()).or_default().ended = true;
                    return false;
                }
            }
        }
    }

    fn result(&self, lie: bool) -> Outcome {
        let keys = &self.inside.keys;
        if self.claims.rotation.is_some() {
            let succession = keys.rotate(&self.claims, u64::from(lie));
            if !lie {
                let mut held = self.inside.held.lock().unwrap();
                held.entry(self.claims.public_key.unwrap()).or_default().move_to(&succession);
            }
            return Outcome::Rotate { succession: Box::new(succession) };
        }
        if let Some(key) = &self.claims.public_key {
            let child = self.claims.derivation_path.as_deref().map(|path| keys.child(key, path));
            let key = child.as_ref().unwrap_or(key);
            let hash = if lie { Digest32([1; 32]) } else { self.claims.message_hash.unwrap() };
            return Outcome::Sign { signature: keys.sign(key, &hash) };
        }
        let certificate = keys.make(&self.claims, if lie { "lie" } else { "" });
        Outcome::Keygen { public_key: certificate.statement.public_key, certificate }
    }

    async fn cut_off(&self) {
        let problem = Problem::new(Code::TransportFault, "the stream ended");
        self.end(Outcome::Failed { problem }).await;
    }

    async fn end(&self, outcome: Outcome) {
        self.frame(Frame::Outcome(Box::new(outcome))).await;
    }
}

fn reply(status: u16, body: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_owned())).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}
