//! A proxy between the operator and the API server that answers some requests itself, and breaks others.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};

use crate::Failure;

type Answer = Response<UnsyncBoxBody<bytes::Bytes, kube::Error>>;

/// Percentages of the requests about policies and what they compile to.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Writes answered by 409.
    pub conflict: u8,
    /// Answered by 429, with a second of `Retry-After` one time in ten.
    pub throttled: u8,
    /// Answered by 500.
    pub error: u8,
    /// The connection breaks: before the API server has the request, or after it has answered.
    pub reset: u8,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passed,
    Answered(StatusCode),
    /// Whether the API server gets it first.
    Broken(bool),
}

impl Rates {
    fn fate(self, method: &Method) -> Fate {
        let mut lot = fastrand::u8(0..100);
        let mut falls_to = |share: u8| {
            let falls = lot < share;
            lot = lot.saturating_sub(share);
            falls
        };
        // Those that remain have to pass: the shares are of all.
        if falls_to(self.throttled) {
            return Fate::Answered(StatusCode::TOO_MANY_REQUESTS);
        }
        if falls_to(self.error) {
            return Fate::Answered(StatusCode::INTERNAL_SERVER_ERROR);
        }
        if falls_to(self.reset) {
            return Fate::Broken(fastrand::bool());
        }
        if *method != Method::GET && falls_to(self.conflict) {
            return Fate::Answered(StatusCode::CONFLICT);
        }
        Fate::Passed
    }
}

/// The proxy. Dropped, it ends, and its connections with it.
#[derive(Debug)]
pub struct Faults {
    address: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    active: AtomicBool,
    rates: Rates,
    struck: AtomicU64,
}

impl Faults {
    /// Starts a proxy that asks the API server as the account of a kubeconfig does. It passes everything until
    /// [`strike`](Self::strike).
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub async fn before(kubeconfig: &Path, rates: Rates) -> Result<Self, Failure> {
        let read = Kubeconfig::read_from(kubeconfig).map_err(io::Error::other)?;
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
        let mut config = config.map_err(io::Error::other)?;
        config.default_retry = false;
        config.read_timeout = None;
        let client = Client::try_from(config)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            active: AtomicBool::new(false),
            rates,
            struck: AtomicU64::new(0),
        });
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, client, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            _serving: serving,
        })
    }

    /// Begins to make faults, or stops.
    pub fn strike(&self, active: bool) {
        self.shared.active.store(active, Ordering::Relaxed);
    }

    /// How many faults there were.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.shared.struck.load(Ordering::Relaxed)
    }

    /// Writes a kubeconfig that leads here.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write_kubeconfig(&self, path: &Path) -> io::Result<()> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "faults", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "operator", "user": {}}],
            "contexts": [{"name": "faults", "context": {"cluster": "faults", "user": "operator"}}],
            "current-context": "faults",
        });
        testkit::kubeconfig::write_private(path, config.to_string())
    }
}

async fn serve(listener: TcpListener, client: Client, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (client, shared) = (client.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            let service = service_fn(move |request| pass(client.clone(), Arc::clone(&shared), request));
            // A connection that breaks is what this is about.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// An error ends the connection without an answer.
async fn pass(client: Client, shared: Arc<Shared>, request: Request<Incoming>) -> Result<Answer, io::Error> {
    let path = request.uri().path();
    let concerned = path.contains("leanserve.dev") || path.contains("admissionregistration.k8s.io");
    let fate = if concerned && shared.active.load(Ordering::Relaxed) {
        shared.rates.fate(request.method())
    } else {
        Fate::Passed
    };
    if fate != Fate::Passed {
        shared.struck.fetch_add(1, Ordering::Relaxed);
    }
    match fate {
        Fate::Answered(code) => return Ok(refusal(code)),
        Fate::Broken(false) => return Err(io::ErrorKind::ConnectionReset.into()),
        Fate::Passed | Fate::Broken(true) => {}
    }
    let (mut head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let path = head.uri.path_and_query().cloned();
    head.uri = http::Uri::from(path.ok_or_else(|| io::Error::other("no path"))?);
    head.headers.remove(header::HOST);
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(header::ACCEPT_ENCODING);
    let answer = client.send(Request::from_parts(head, Body::from(body.to_vec()))).await;
    let mut answer = answer.map_err(io::Error::other)?;
    if fate == Fate::Broken(true) {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    answer.headers_mut().remove(header::TRANSFER_ENCODING);
    answer.headers_mut().remove(header::CONTENT_LENGTH);
    Ok(answer.map(BodyExt::boxed_unsync))
}

fn refusal(code: StatusCode) -> Answer {
    let reason = code.canonical_reason().unwrap_or_default();
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("injected: {reason}"), "reason": reason, "code": code.as_u16(),
    });
    let body = Full::new(bytes::Bytes::from(status.to_string()));
    let mut answer = Response::new(body.map_err(|never: Infallible| match never {}).boxed_unsync());
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    if code == StatusCode::TOO_MANY_REQUESTS && fastrand::u8(0..10) == 0 {
        headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    answer
}
