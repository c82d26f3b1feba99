//! The HTTP side: connections, routes, roles, bodies.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | accepting TLS connections, who is on the other end |
//! | `routes.rs` | every route with the roles that may call it |
//! | `participate.rs` | the participate calls, with and without waiting |
//! | `stream.rs` | the full-duplex message stream |
//! | `attestation.rs` | what this appliance says of itself |
//! | `audit.rs` | the audit log, its details, checkpoints and proofs |
//! | `backups.rs` | backups: made, listed, noted as verified |
//! | `peers.rs` | what is known of the peers' logs; accepting another one |
//! | `reads.rs` | sessions, health, metrics |
//! | `shares.rs` | shares, their certificates, their revocation |
//! | `reply.rs` | JSON in and out, problems, request ids |

mod attestation;
mod audit;
mod backups;
mod kek;
mod participate;
mod peers;
mod policy;
mod reads;
mod reply;
mod rotation;
mod routes;
mod shares;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::clients::Client;
use crate::daemon::Node;
use crate::tls;

/// The longest wait for a TLS handshake or for a request's header.
const GREETING_LIMIT: Duration = Duration::from_secs(10);
/// Requests and message streams that one connection may hold open at once.
const STREAMS_A_CONNECTION: u32 = 512;

/// What a stream may have under way unread, in bytes: one session that does not read must not hold up the others on
/// its connection, which together may have [`CONNECTION_WINDOW`].
const STREAM_WINDOW: u32 = 256 * 1024;
/// What a connection may have under way unread, in bytes.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// Handshakes that may be under way at once; further callers wait in the kernel's queue.
const GREETINGS: usize = 128;
/// How long somebody may stay whom the configuration does not name: long enough to be told so.
const STRANGER_LIMIT: Duration = Duration::from_secs(5);

/// Accepts connections for as long as the process runs. Each is greeted with the TLS material of its moment, and closed when other material
/// comes into use with which its client would be refused.
pub(crate) async fn serve(node: Arc<Node>, listener: TcpListener) {
    let greetings = Arc::new(Semaphore::new(GREETINGS));
    let places = Arc::new(Semaphore::new(node.config.limits.connections));
    let router = routes::router(node.clone());
    loop {
        let Ok(greeting) = greetings.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(event = "accept_failed", %error);
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (node, router, places) = (node.clone(), router.clone(), places.clone());
        node.clone().spawn("connection", async move {
            let mut material = node.tls.subscribe();
            let acceptor = TlsAcceptor::from(material.borrow_and_update().config());
            let Some((tls, client)) = greet(&node, stream, acceptor).await else { return };
            let name = client.as_ref().map(|client| client.name().to_owned());
            let shown = shown(&tls);
            let serving = connection(tls, router.layer(axum::Extension(Connected(client))));
            if let Some(name) = name {
                // Only who is named gets a lasting place; when none is left the connection is closed.
                let Ok(_place) = places.try_acquire_owned() else { return };
                drop(greeting);
                tokio::select! {
                    () = serving => {}
                    why = tls::distrusted(material, &shown) => {
                        node.metrics.auth_failed("tls_withdrawn");
                        tracing::warn!(event = "connection_withdrawn", client = name, why, "its certificate is good no longer");
                    }
                }
            } else {
                // Time out or not, a stranger is gone then.
                drop(timeout(STRANGER_LIMIT, serving).await);
            }
        });
    }
}

type Tls = BufReader<TlsStream<TcpStream>>;

/// The TLS handshake, who it is, and the first byte of what they want: all within the limit.
async fn greet(node: &Node, stream: TcpStream, acceptor: TlsAcceptor) -> Option<(Tls, Option<Client>)> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(event = "nodelay_failed", %error);
    }
    let greeted = timeout(GREETING_LIMIT, async {
        let tls = acceptor.accept(stream).await?;
        let mut tls = BufReader::new(tls);
        tls.fill_buf().await?;
        Ok::<_, std::io::Error>(tls)
    });
    match greeted.await {
        Ok(Ok(tls)) => {
            let client = shown(&tls).first().and_then(|certificate| node.config.clients.identify(certificate));
            Some((tls, client))
        }
        Ok(Err(error)) => {
            node.metrics.auth_failed("tls");
            tracing::info!(event = "connection_refused", %error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            node.metrics.auth_failed("tls_timeout");
            None
        }
    }
}

/// The chain that the client showed.
fn shown(tls: &Tls) -> Vec<CertificateDer<'static>> {
    tls.get_ref().get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default()
}

async fn connection(tls: Tls, router: Router) {
    let service = TowerToHyperService::new(router);
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(GREETING_LIMIT);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_A_CONNECTION)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .max_header_list_size(16 * 1024);
    if let Err(error) = server.serve_connection(TokioIo::new(tls), service).await {
        tracing::debug!(event = "connection_ended", %error);
    }
}

/// Who is on the other end of the connection: a configured client, or somebody whose certificate is not named.
#[derive(Clone)]
pub(crate) struct Connected(Option<Client>);
