//! The connection to one appliance.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::with_causes;
use crate::config::{Address, ApplianceConfig};
use crate::metrics::Metrics;

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
}

/// The connection itself; it moves bytes for as long as it is polled.
type Running = http2::Connection<TokioIo<TlsStream<TcpStream>>, RequestBody, TokioExecutor>;

/// Why a request got no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// It never left.
    NotSent(String),
    /// It may have arrived.
    Broken(String),
}

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSent(why) | Self::Broken(why) => f.write_str(why),
        }
    }
}

impl Connection {
    /// Begins to connect, and goes on doing so until `end`.
    pub(super) fn start(
        appliance: ApplianceConfig,
        tls: Arc<rustls::ClientConfig>,
        metrics: Arc<Metrics>,
        end: CancellationToken,
    ) -> Self {
        let (publish, state) = watch::channel(State { attempts: 0, sender: Err("it has not been tried yet".into()) });
        let wanted = Arc::new(Notify::new());
        let keeper =
            Keeper { appliance: appliance.clone(), tls: tls.into(), metrics, publish, wanted: Arc::clone(&wanted) };
        tokio::spawn(async move { end.run_until_cancelled(keeper.keep()).await });
        Self { appliance, state, wanted }
    }

    /// Whether the connection stands.
    pub(super) fn is_up(&self) -> bool {
        self.state.borrow().sender.is_ok()
    }

    /// Sends a request, on a new connection if need be, and waits for the head of the answer.
    pub(super) async fn send(
        &self,
        request: Request<RequestBody>,
        limit: Duration,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let exchange = async {
            let mut sender = self.sender().await.map_err(NoAnswer::NotSent)?;
            let closed = |e: hyper::Error| NoAnswer::NotSent(with_causes(&e));
            sender.ready().await.map_err(closed)?;
            sender.try_send_request(request).await.map_err(|mut failed| {
                let unsent = failed.take_message().is_some();
                let why = with_causes(failed.error());
                if unsent { NoAnswer::NotSent(why) } else { NoAnswer::Broken(why) }
            })
        };
        let late = |_| NoAnswer::Broken(format!("no answer within {} s", limit.as_secs()));
        timeout(limit, exchange).await.map_err(late)?
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
                    self.publish.send_modify(|state| {
                        state.attempts += 1;
                        state.sender = Err(why.clone());
                    });
                    why
                }
                Ok((sender, connection)) => {
                    self.publish.send_modify(|state| {
                        state.attempts += 1;
                        state.sender = Ok(sender);
                    });
                    self.metrics.node_up(party, true);
                    tracing::info!(event = "appliance_connected", %party, url);
                    known.clear();
                    let why = match connection.await {
                        Ok(()) => "the appliance closed the connection".to_owned(),
                        Err(error) => with_causes(&error),
                    };
                    self.metrics.node_up(party, false);
                    self.publish.send_modify(|state| state.sender = Err(why.clone()));
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
