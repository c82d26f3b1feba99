//! Starts everything, serves the front door, and stops in order.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::conduct::Stage;
use crate::config::Config;
use crate::convene::Coordinator;
use crate::dial::Dialer;
use crate::front;
use crate::metrics::Metrics;
use crate::session::Table;
use crate::settle::Bell;
use crate::store::{Claim, Store, StoreError, claim};

/// Connections of callers at the same time; more wait to be accepted.
const CONNECTIONS: usize = 1024;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const HEADER_LIMIT: Duration = Duration::from_secs(15);
const SWEEP: Duration = Duration::from_secs(1);
/// How long running sessions may go on once the process is told to stop, and how long their end may then take.
const FINISH_LIMIT: Duration = Duration::from_secs(10);
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// By then a session that should have expired has long been told so.
const OVERDUE: SignedDuration = SignedDuration::from_secs(60);

/// Why the coordinator does not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("the coordinator could not listen on {address}: {source}; free the port or change listen.address")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A coordinator that listens but does not serve yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    coordinator: Arc<Coordinator>,
    /// Ends the connections to the appliances.
    end: CancellationToken,
    _claim: Claim,
}

/// Runs a coordinator until `shutdown` is ready, then stops it in order.
///
/// # Errors
/// It could not start, or its store failed for good.
pub async fn serve(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
    Server::bind(config).await?.run(shutdown).await
}

impl Server {
    /// Claims the data folder, fails what a crash left behind, begins to dial the appliances, and listens.
    ///
    /// # Errors
    /// The folder, the store or the address cannot be used.
    pub async fn bind(config: Config) -> Result<Self, ServeError> {
        let folder = claim(&config.data_dir)?;
        let store = Store::open(&config.data_dir)?;
        let interrupted = store.interrupt_sessions(Timestamp::now()).await?;
        if interrupted > 0 {
            tracing::warn!(event = "sessions_interrupted", count = interrupted);
        }
        if store.keys().await?.iter().all(|key| key.revoked_at.is_some()) {
            tracing::warn!(
                event = "no_api_key",
                advice = "casemate-coordinator api-key create --config FILE --name NAME"
            );
        }
        let listen = |source| ServeError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let end = CancellationToken::new();
        let metrics = Metrics::new();
        let bell = Arc::new(Bell::default());
        let dialer = Dialer::start(&config, &metrics, &bell, &end);
        let table = Table::new(config.limits.sessions);
        let stage = Stage { config: Arc::new(config), store: Arc::new(store), metrics, bell };
        let coordinator = Coordinator { stage: Arc::new(stage), dialer, table };
        Ok(Self { listener, address, coordinator: Arc::new(coordinator), end, _claim: folder })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is ready, then lets running sessions end, fails the rest as `interrupted`, and returns.
    ///
    /// # Errors
    /// The store failed for good.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let config = &self.coordinator.stage.config;
        tracing::info!(
            event = "started",
            version = env!("CARGO_PKG_VERSION"),
            address = %self.address,
            tls = config.tls.is_some(),
            appliances = config.appliances.len(),
            data_dir = %config.data_dir.display(),
        );
        let connections = GracefulShutdown::new();
        let broken = tokio::select! {
            () = shutdown => false,
            () = self.coordinator.stage.store.stopped() => true,
            never = self.accept(&connections) => match never {},
            never = self.sweep() => match never {},
            never = self.coordinator.settle_all() => match never {},
        };
        tracing::info!(event = "stopping", sessions = self.coordinator.table.len());
        self.finish_sessions().await;
        // Callers that wait have their answer by now; who still holds a connection open is cut off.
        let closed = timeout(CLOSE_LIMIT, connections.shutdown()).await;
        self.end.cancel();
        tracing::info!(event = "stopped", in_order = closed.is_ok());
        if broken { Err(StoreError::Stopped.into()) } else { Ok(()) }
    }

    async fn finish_sessions(&self) {
        let table = &self.coordinator.table;
        table.close();
        let running = async || {
            while table.len() > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(FINISH_LIMIT, running()).await.is_err() {
            table.interrupt();
            // Those that do not end even now are failed when the store is opened again.
            let _: Result<(), _> = timeout(CLOSE_LIMIT, running()).await;
        }
    }

    /// Tells sessions whose time is up.
    async fn sweep(&self) -> Infallible {
        let mut tick = interval(SWEEP);
        let mut last_look = Instant::now();
        loop {
            tick.tick().await;
            let now = Timestamp::now();
            self.coordinator.table.sweep(now);
            if last_look.elapsed().as_secs() < OVERDUE.as_secs().unsigned_abs() {
                continue;
            }
            last_look = Instant::now();
            match self.coordinator.stage.store.expire_sessions(now - OVERDUE, now).await {
                Ok(0) => {}
                Ok(count) => tracing::warn!(event = "overdue_sessions_expired", count),
                Err(error) => tracing::error!(event = "store_failed", %error),
            }
        }
    }

    async fn accept(&self, connections: &GracefulShutdown) -> Infallible {
        let router = front::router(Arc::clone(&self.coordinator));
        let tls = self.coordinator.stage.config.tls.clone().map(TlsAcceptor::from);
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely; it passes.
                    tracing::warn!(event = "accept_failed", %error);
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (router, tls, watcher) = (router.clone(), tls.clone(), connections.watcher());
            tokio::spawn(async move {
                welcome(stream, tls, router, watcher).await;
                drop(place);
            });
        }
    }
}

/// Serves one caller's connection.
async fn welcome(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router, watcher: Watcher) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Some(tls) = tls else {
        return converse(stream, router, watcher).await;
    };
    match timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await {
        Ok(Ok(stream)) => converse(stream, router, watcher).await,
        Ok(Err(error)) => tracing::debug!(event = "tls_refused", %error),
        Err(_) => tracing::debug!(event = "tls_refused", error = "no handshake in time"),
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router, watcher: Watcher) {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT);
    server.http2().timer(TokioTimer::new()).keep_alive_interval(HEADER_LIMIT).max_concurrent_streams(200);
    let service = TowerToHyperService::new(router);
    let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(event = "connection_broke", error);
    }
}
