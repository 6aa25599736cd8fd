//! `/livez`, `/readyz` and `/metrics`: few connections, small requests, short waits.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tracing::{debug, warn};

use crate::{health::Health, observability::metrics::Format};

/// What `/livez` and `/readyz` answer when something is wrong. Not 503, of which `kubectl get --raw` shows no text: Kubernetes' own
/// components answer so too.
const NOT_WELL: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;

/// Connections served at once by one endpoint; further ones wait in the kernel's backlog.
const MOST_CONNECTIONS: usize = 16;

/// The longest a client may take to send the head of a request, the time between two requests included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest a connection lives; scrapers and kubelets open another.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);

/// The biggest head of a request.
const MOST_HEAD: usize = 16 * 1024;

/// An address that cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {source}")]
pub(crate) struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// What the endpoints answer from.
pub(crate) struct Pages {
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<dyn MetricsPage>,
}

/// Whoever writes the page for scrapers.
pub(crate) trait MetricsPage: Send + Sync {
    /// The page, as things are now.
    fn page(&self, format: Format) -> String;
}

/// Which pages an address serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    Probes,
    Metrics,
}

/// Starts to listen.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError { address, source })
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, site: Site, pages: Arc<Pages>) {
    let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let permit = Arc::clone(&connections)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = Arc::clone(&pages);
                tokio::spawn(async move {
                    serve_connection(stream, site, &pages).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, for one: trying at once would only burn the CPU.
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, site: Site, pages: &Pages) {
    let service = service_fn(|request: Request<Incoming>| {
        let accept = request
            .headers()
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok());
        let response = answer(site, pages, request.method(), request.uri().path(), accept);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MOST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(CONNECTION_TIMEOUT, connection).await {
        debug!(%error, "connection ended");
    }
}

fn answer(site: Site, pages: &Pages, method: &Method, path: &str, accept: Option<&str>) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served\n");
    }
    match (site, path) {
        (Site::Probes, "/livez" | "/healthz") => match pages.health.live() {
            Ok(()) => text(StatusCode::OK, "ok\n"),
            Err(problem) => text(NOT_WELL, format!("{problem}\n")),
        },
        (Site::Probes, "/readyz") => match pages.health.ready() {
            Ok(()) => text(StatusCode::OK, "ok\n"),
            Err(missing) => text(NOT_WELL, format!("{}\n", missing.join("\n"))),
        },
        (Site::Metrics, "/metrics") => {
            let format = Format::accepted(accept);
            let mut response = text(StatusCode::OK, pages.metrics.page(format));
            let content_type = header::HeaderValue::from_static(format.content_type());
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            response
        }
        _ => text(StatusCode::NOT_FOUND, "no such page\n"),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let format = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, format);
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Written;

    impl MetricsPage for Written {
        fn page(&self, format: Format) -> String {
            format!("workqueue_depth 3 {}\n", format == Format::Prometheus)
        }
    }

    fn pages() -> Arc<Pages> {
        Arc::new(Pages {
            health: Arc::new(Health::new()),
            metrics: Arc::new(Written),
        })
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        answer
    }

    #[tokio::test]
    async fn pages_are_served_where_they_belong() {
        let any = "127.0.0.1:0".parse().expect("valid");
        let (probes, metrics) = (listen(any).await.expect("free"), listen(any).await.expect("free"));
        let (at_probes, at_metrics) = (
            probes.local_addr().expect("bound"),
            metrics.local_addr().expect("bound"),
        );
        let pages = pages();
        tokio::spawn(serve(probes, Site::Probes, Arc::clone(&pages)));
        tokio::spawn(serve(metrics, Site::Metrics, Arc::clone(&pages)));
        assert!(get(at_probes, "/livez").await.starts_with("HTTP/1.1 200"));
        let ready = get(at_probes, "/readyz").await;
        assert!(
            ready.starts_with("HTTP/1.1 500") && ready.contains("API server has not answered"),
            "{ready}"
        );
        pages.health.settings(None);
        pages.health.contact();
        assert!(get(at_probes, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(at_probes, "/metrics").await.starts_with("HTTP/1.1 404"));
        let page = get(at_metrics, "/metrics").await;
        assert!(
            page.contains("version=0.0.4") && page.contains("workqueue_depth 3 true"),
            "{page}"
        );
    }

    #[test]
    fn other_methods_are_refused() {
        let answer = answer(Site::Metrics, &pages(), &Method::POST, "/metrics", None);
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let first = listen("127.0.0.1:0".parse().expect("valid")).await.expect("free");
        let address = first.local_addr().expect("bound");
        let error = listen(address).await.expect_err("in use");
        assert!(error.to_string().contains(&address.to_string()));
    }
}
