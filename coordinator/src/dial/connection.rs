//! The connection to one appliance.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::with_causes;
use crate::config::{Address, ApplianceConfig};
use crate::metrics::Metrics;
use crate::settle::Bell;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection that lasted this long was a good one: the next pause is the first again.
const GOOD: Duration = Duration::from_secs(10);

pub(super) type RequestBody = UnsyncBoxBody<Bytes, Infallible>;

/// A connection that heals itself. Requests share it.
pub(crate) struct Connection {
    pub(super) appliance: ApplianceConfig,
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
}

struct State {
    /// How often a connection has been tried.
    attempts: u64,
    /// The way to send requests, or why there is none.
    sender: Result<SendRequest<RequestBody>, String>,
    /// Since when there has been a connection, or none.
    since: Timestamp,
}

/// The connection itself; it moves bytes for as long as it is polled.
type Running = http2::Connection<TokioIo<TlsStream<TcpStream>>, RequestBody, TokioExecutor>;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// There is no connection, and none could be made.
    #[error("{0}")]
    Down(String),
    /// The connection broke.
    #[error("{0}")]
    Broken(String),
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// It answered, but not as an appliance does.
    #[error("it answered {0} without saying why")]
    Odd(StatusCode),
}

impl Connection {
    /// Begins to connect, and goes on doing so until `end`.
    pub(super) fn start(
        appliance: ApplianceConfig,
        tls: Arc<rustls::ClientConfig>,
        (metrics, bell): (Arc<Metrics>, Arc<Bell>),
        end: CancellationToken,
    ) -> Self {
        let untried = Err("it has not been tried yet".into());
        let (publish, state) = watch::channel(State { attempts: 0, sender: untried, since: Timestamp::now() });
        let wanted = Arc::new(Notify::new());
        let keeper = Keeper {
            appliance: appliance.clone(),
            tls: tls.into(),
            metrics,
            bell,
            publish,
            wanted: Arc::clone(&wanted),
        };
        tokio::spawn(async move { end.run_until_cancelled(keeper.keep()).await });
        Self { appliance, state, wanted }
    }

    /// Since when there has been no connection; `None` if there is one.
    pub(super) fn down_since(&self) -> Option<Timestamp> {
        let state = self.state.borrow();
        state.sender.is_err().then_some(state.since)
    }

    /// Sends a request, on a new connection if need be, and waits for the head of the answer.
    pub(super) async fn send(
        &self,
        request: Request<RequestBody>,
        limit: Duration,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let broken = |error: hyper::Error| NoAnswer::Broken(with_causes(&error));
        let exchange = async {
            let mut sender = self.sender().await.map_err(NoAnswer::Down)?;
            sender.ready().await.map_err(broken)?;
            sender.send_request(request).await.map_err(broken)
        };
        timeout(limit, exchange).await.map_err(|_| NoAnswer::Late(limit))?
    }

    async fn sender(&self) -> Result<SendRequest<RequestBody>, String> {
        let mut state = self.state.clone();
        let seen = state.borrow_and_update().attempts;
        loop {
            {
                let now = state.borrow_and_update();
                match &now.sender {
                    Ok(sender) if !sender.is_closed() => return Ok(sender.clone()),
                    Err(why) if now.attempts > seen => return Err(why.clone()),
                    _ => self.wanted.notify_one(),
                }
            }
            if state.changed().await.is_err() {
                return Err("the coordinator is shutting down".into());
            }
        }
    }
}

/// Makes the connection, again and again.
struct Keeper {
    appliance: ApplianceConfig,
    tls: TlsConnector,
    metrics: Arc<Metrics>,
    bell: Arc<Bell>,
    publish: watch::Sender<State>,
    wanted: Arc<Notify>,
}

impl Keeper {
    async fn keep(self) {
        let party = &self.appliance.party_id;
        let url = self.appliance.address.to_string();
        let mut pause = FIRST_PAUSE;
        let mut known = String::new();
        self.metrics.node_up(party, false);
        loop {
            let begun = Instant::now();
            let why = match self.attempt().await {
                Err(why) => {
                    self.note(Err(why.clone()), 1);
                    why
                }
                Ok((sender, connection)) => {
                    self.note(Ok(sender), 1);
                    self.bell.ring();
                    tracing::info!(event = "appliance_connected", %party, url);
                    known.clear();
                    let why = match connection.await {
                        Ok(()) => "the appliance closed the connection".to_owned(),
                        Err(error) => with_causes(&error),
                    };
                    self.note(Err(why.clone()), 0);
                    why
                }
            };
            if begun.elapsed() > GOOD {
                pause = FIRST_PAUSE;
            }
            if why != known {
                tracing::warn!(event = "appliance_unreachable", %party, url, why);
                known = why;
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.wanted.notified() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn note(&self, sender: Result<SendRequest<RequestBody>, String>, attempts: u64) {
        self.metrics.node_up(&self.appliance.party_id, sender.is_ok());
        self.publish.send_modify(|state| {
            if state.sender.is_ok() != sender.is_ok() {
                state.since = Timestamp::now();
            }
            state.attempts += attempts;
            state.sender = sender;
        });
    }

    async fn attempt(&self) -> Result<(SendRequest<RequestBody>, Running), String> {
        let late = |_| format!("no connection within {} s", CONNECT_LIMIT.as_secs());
        timeout(CONNECT_LIMIT, self.connect()).await.map_err(late)?
    }

    async fn connect(&self) -> Result<(SendRequest<RequestBody>, Running), String> {
        let Address { host, port } = &self.appliance.address;
        let tcp = TcpStream::connect((host.as_str(), *port)).await.map_err(|e| e.to_string())?;
        tcp.set_nodelay(true).map_err(|e| e.to_string())?;
        let name = self.appliance.server_name.clone();
        let tls = self.tls.connect(name, tcp).await.map_err(|e| format!("TLS: {}", with_causes(&e)))?;
        if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err("it does not speak HTTP/2".into());
        }
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(tls))
            .await
            .map_err(|e| with_causes(&e))
    }
}
