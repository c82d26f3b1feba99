//! HTTP as the tests speak it: JSON calls to an appliance over mutual TLS, with any certificate or none.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use casemate_wire::Problem;
use casemate_wire::api::BASE_PATH;
use casemate_wire::problem::CONTENT_TYPE as PROBLEM;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// A request body; an error in it breaks the request off.
pub type RequestBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// The longest wait for a connection or for the head of an answer. The `-sync` calls answer when a session ends.
const LIMIT: Duration = Duration::from_secs(120);

/// What a client shows of itself in the TLS handshake.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Identity {
    /// Reads a certificate chain and its key, PEM files.
    pub fn read(certificate: &Path, key: &Path) -> Self {
        let chain = CertificateDer::pem_file_iter(certificate).unwrap().collect::<Result<_, _>>().unwrap();
        Self { chain, key: PrivateKeyDer::from_pem_file(key).unwrap() }
    }

    /// Takes them as PEM texts.
    pub fn from_pem(certificate: &str, key: &str) -> Self {
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().unwrap();
        Self { chain, key: PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap() }
    }
}

/// A client's TLS: the CA that it trusts, its certificate if it has one, and the versions that it offers.
pub fn tls(
    ca: &Path,
    identity: Option<&Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity.cloned() {
        Some(Identity { chain, key }) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// A client of one appliance. It connects when first used, and again after the connection broke.
pub struct ApplianceClient {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    connection: Mutex<Option<SendRequest<RequestBody>>>,
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// No answer came: the connection was refused, or broke.
#[derive(Debug, Clone)]
pub struct NoAnswer(pub String);

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn broken(error: &dyn std::error::Error) -> NoAnswer {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    NoAnswer(text)
}

impl ApplianceClient {
    /// A client that has not connected yet.
    pub fn new(address: SocketAddr, tls: Arc<ClientConfig>) -> Self {
        Self { address, tls, connection: Mutex::new(None) }
    }

    /// Reads a resource; `path` stands below the appliance's base path, or is absolute with a leading slash.
    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await.unwrap()
    }

    /// Reads a resource that must be there.
    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> T {
        self.get(path).await.json()
    }

    /// Sends a JSON body.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Answer {
        self.post_text(path, serde_json::to_string(body).unwrap()).await
    }

    /// Sends a body that need not be JSON.
    pub async fn post_text(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.call(Method::POST, path, Some(body.into())).await.unwrap()
    }

    /// Any call.
    ///
    /// # Errors
    /// No answer came.
    pub async fn call(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Answer, NoAnswer> {
        let full = body.map(Full::new).unwrap_or_default();
        let response = self.send(method, path, full.map_err(|never| match never {}).boxed_unsync()).await?;
        Answer::collect(response).await
    }

    /// Sends a request and returns once the head of the answer is there.
    ///
    /// # Errors
    /// No answer came.
    pub async fn send(&self, method: Method, path: &str, body: RequestBody) -> Result<Response<Incoming>, NoAnswer> {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("{BASE_PATH}/{path}") };
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.address))
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .unwrap();
        let exchange = async {
            let mut sender = self.sender().await?;
            sender.ready().await.map_err(|e| broken(&e))?;
            sender.send_request(request).await.map_err(|e| broken(&e))
        };
        timeout(LIMIT, exchange).await.map_err(|_| NoAnswer(format!("no answer to {path} within {LIMIT:?}")))?
    }

    async fn sender(&self) -> Result<SendRequest<RequestBody>, NoAnswer> {
        let mut connection = self.connection.lock().await;
        if let Some(sender) = connection.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let stream = TcpStream::connect(self.address).await.map_err(|e| broken(&e))?;
        stream.set_nodelay(true).map_err(|e| broken(&e))?;
        let name = ServerName::from(self.address.ip());
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await.map_err(|e| broken(&e))?;
        let io = TokioIo::new(stream);
        let (sender, running) =
            http2::Builder::new(TokioExecutor::new()).handshake(io).await.map_err(|e| broken(&e))?;
        // Its end shows in the sender.
        tokio::spawn(async move { drop(running.await) });
        *connection = Some(sender.clone());
        Ok(sender)
    }
}

impl Answer {
    /// Reads a response to its end.
    ///
    /// # Errors
    /// It broke off.
    pub async fn collect(response: Response<Incoming>) -> Result<Self, NoAnswer> {
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|e| broken(&e))?.to_bytes();
        Ok(Self { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// The body of a success.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        assert!((200..300).contains(&self.status), "{self}");
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self}"))
    }

    /// The body of a success, untyped.
    pub fn value(&self) -> Value {
        self.json()
    }

    /// The problem of an answer that must be one: with its media type, its status in the body, and a request id.
    pub fn problem(&self) -> Problem {
        assert!(self.status >= 400, "it should have been refused: {self}");
        assert_eq!(
            self.headers.get(CONTENT_TYPE).map(hyper::header::HeaderValue::as_bytes),
            Some(PROBLEM.as_bytes()),
            "{self}"
        );
        assert!(self.headers.get("x-request-id").is_some_and(|id| !id.is_empty()), "no request id: {self}");
        let problem: Problem = serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self}"));
        assert_eq!(problem.status, self.status, "{self}");
        assert_eq!(problem.code.status(), self.status, "{self}");
        problem
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, String::from_utf8_lossy(&self.body))
    }
}
