//! A small HTTP client: how a business service calls the coordinator, and how operators' tools call appliances.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, version};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// The longest wait for an answer where nothing else is said.
const LIMIT: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Certificate or key cannot be used.
    #[error("cannot call with the certificate {path}: {why}")]
    Certificate {
        /// The certificate, key or CA file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The address is none.
    #[error("{url:?} cannot be called: {why}; write https://host:port")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The connection or the exchange failed.
    #[error("{method} {url} failed: {why}")]
    Exchange {
        /// The method.
        method: Method,
        /// The whole address.
        url: String,
        /// Why.
        why: String,
    },
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The JSON body; text that is not JSON is a JSON string.
    pub body: Value,
}

/// One service, and how to call it. Every call has a connection of its own.
#[derive(Clone)]
pub struct Service {
    address: SocketAddr,
    headers: Vec<(&'static str, String)>,
    tls: Option<Arc<ClientConfig>>,
    /// What the server's certificate must name.
    name: ServerName<'static>,
    /// The largest answer that is read, in bytes.
    largest: usize,
    /// The longest wait for an answer.
    patience: Duration,
}

impl Service {
    /// Plain HTTP on loopback, with an API key.
    pub fn with_api_key(address: SocketAddr, api_key: &str) -> Self {
        Self {
            address,
            headers: vec![("x-api-key", api_key.to_owned())],
            tls: None,
            name: address.ip().into(),
            largest: MAX_ANSWER,
            patience: LIMIT,
        }
    }

    /// TLS 1.3 with a client certificate. The server's certificate must name the address.
    ///
    /// # Errors
    /// Names the PEM file that cannot be used.
    pub fn with_certificate(
        address: SocketAddr,
        ca: &Path,
        certificate: &Path,
        key: &Path,
    ) -> Result<Self, ClientError> {
        let wrong = |path: &Path, why: &dyn std::fmt::Display| ClientError::Certificate {
            path: path.display().to_string(),
            why: why.to_string(),
        };
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(ca).map_err(|e| wrong(ca, &e))? {
            roots.add(root.map_err(|e| wrong(ca, &e))?).map_err(|e| wrong(ca, &e))?;
        }
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect)
            .map_err(|e| wrong(certificate, &e))?;
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(key, &e))?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(chain, secret))
            .map_err(|e| wrong(certificate, &e))?;
        Ok(Self {
            address,
            headers: Vec::new(),
            tls: Some(Arc::new(config)),
            name: address.ip().into(),
            largest: MAX_ANSWER,
            patience: LIMIT,
        })
    }

    /// As [`Self::with_certificate`], for a server that is known by `https://host:port`, which its certificate must name.
    ///
    /// # Errors
    /// The host is not found, or as [`Self::with_certificate`].
    pub fn at(url: &str, ca: &Path, certificate: &Path, key: &Path) -> Result<Self, ClientError> {
        let wrong = |why: &str| ClientError::Url { url: url.to_owned(), why: why.to_owned() };
        let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        if uri.scheme_str() != Some("https") || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("it is not https without a path"));
        }
        let host = uri.host().ok_or_else(|| wrong("it names no host"))?;
        let port = uri.port_u16().ok_or_else(|| wrong("it names no port"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|e| wrong(&e.to_string()))?;
        let mut found = (host, port).to_socket_addrs().map_err(|e| wrong(&e.to_string()))?;
        let address = found.next().ok_or_else(|| wrong("the host has no address"))?;
        Ok(Self { name, ..Self::with_certificate(address, ca, certificate, key)? })
    }

    /// Takes larger answers, and waits longer for them.
    #[must_use]
    pub fn expecting(mut self, largest: usize, patience: Duration) -> Self {
        self.largest = largest;
        self.patience = patience;
        self
    }

    /// Reads a resource.
    ///
    /// # Errors
    /// There is no answer; an answer that refuses is not an error here.
    pub async fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.call(Method::GET, path, None, None).await
    }

    /// Reads a resource that is not JSON: the status and the body.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_bytes(&self, path: &str) -> Result<(u16, Bytes), ClientError> {
        self.exchange_bytes(Method::GET, path, None, None).await
    }

    /// Sends a JSON body; with `wait`, asks the service to answer only when the outcome is there (`Prefer: wait`).
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post(&self, path: &str, body: &Value, wait: Option<Duration>) -> Result<Answer, ClientError> {
        self.call(Method::POST, path, Some(body), wait).await
    }

    /// Sends a JSON body; the answer is not JSON: the status and the body.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post_for_bytes(&self, path: &str, body: &Value) -> Result<(u16, Bytes), ClientError> {
        self.exchange_bytes(Method::POST, path, Some(body), None).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        wait: Option<Duration>,
    ) -> Result<Answer, ClientError> {
        let (status, bytes) = self.exchange_bytes(method, path, body, wait).await?;
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(Answer { status, body })
    }

    async fn exchange_bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        wait: Option<Duration>,
    ) -> Result<(u16, Bytes), ClientError> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}{path}", self.address);
        let failed = |why: String| ClientError::Exchange { method: method.clone(), url: url.clone(), why };
        let mut request = Request::builder().method(&method).uri(path).header(HOST, self.address.to_string());
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(wait) = wait {
            request = request.header("prefer", format!("wait={}", wait.as_secs()));
        }
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = request.body(Full::new(bytes)).map_err(|e| failed(e.to_string()))?;
        let limit = self.patience + wait.unwrap_or_default();
        match timeout(limit, self.exchange(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("no answer within {} s", limit.as_secs()))),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(u16, Bytes), Failure> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => converse(stream, request, self.largest).await,
            Some(tls) => {
                let stream = TlsConnector::from(tls.clone()).connect(self.name.clone(), stream).await?;
                converse(stream, request, self.largest).await
            }
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    largest: usize,
) -> Result<(u16, Bytes), Failure> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let bytes = Limited::new(response.into_body(), largest).collect().await?.to_bytes();
        Ok((status, bytes))
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = connection => match ended {
            // The last bytes may have come with the end.
            Ok(()) => exchange.await,
            Err(error) => Err(error.into()),
        },
    }
}
