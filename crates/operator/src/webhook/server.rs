//! Connections: accepted up to a bound, secured, served in either version of HTTP, and brought to an end in order.

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use http::{HeaderValue, Request, Version, header};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{debug, warn};

use super::{
    limits::{CONNECTION_WINDOW, Limits, MOST_HEAD, MOST_STREAMS, STREAM_WINDOW},
    reviews::{Answered, Reviews},
    tls::Offers,
};
use crate::http::ListenError;

/// The longest a client may take to agree on how the connection is secured.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The longest a client may take to send the head of a request, the time between two requests included. Longer than API
/// servers keep a connection that is not used, which is 90 s: one that is closed here while they send on it is a review that
/// fails, for they do not send it again.
///
/// Source: `IdleConnTimeout` of Go's default transport, which client-go uses.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);

/// How often the other end of an HTTP/2 connection is asked whether it is still there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// What of an answer may wait to be sent on one stream.
const SEND_BUFFER: usize = 16 << 10;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Serving,
    /// Nobody should come any more, and who comes all the same is served. Who is there is told to go elsewhere.
    Leaving,
    /// Nobody is let in. What was begun is finished.
    Ending,
}

/// Serves connections.
pub(super) struct Server {
    listener: TcpListener,
    offers: Offers,
    reviews: Arc<Reviews>,
    phase: watch::Receiver<Phase>,
    connections: Arc<Semaphore>,
    most_connections: usize,
    http2: Arc<Semaphore>,
}

impl Server {
    /// Listens.
    pub(super) async fn new(
        address: SocketAddr,
        offers: Offers,
        reviews: Arc<Reviews>,
        limits: &Limits,
        phase: watch::Receiver<Phase>,
    ) -> Result<Self, ListenError> {
        Ok(Self {
            listener: crate::http::listen(address).await?,
            offers,
            reviews,
            phase,
            connections: Arc::new(Semaphore::new(limits.connections)),
            most_connections: limits.connections,
            http2: Arc::new(Semaphore::new(limits.http2_connections)),
        })
    }

    /// Serves until [`Phase::Ending`], and then until all connections have come to their end.
    pub(super) async fn serve(self) {
        let mut phase = self.phase.clone();
        loop {
            let permit = Arc::clone(&self.connections).acquire_owned().await;
            let permit = permit.expect("the semaphore is never closed");
            let accepted = tokio::select! {
                // Who has connected before the end is served.
                biased;
                accepted = self.listener.accept() => accepted,
                _ = phase.wait_for(|phase| *phase == Phase::Ending) => break,
            };
            match accepted {
                Ok((stream, _)) => self.begin(stream, permit),
                Err(error) => {
                    // Out of file descriptors, for one: trying at once would only burn the CPU.
                    warn!(%error, "cannot accept a connection");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
        let all = u32::try_from(self.most_connections).unwrap_or(u32::MAX);
        // The permit that was taken for the next one is given back by now.
        let _ = self.connections.acquire_many(all).await;
    }

    fn begin(&self, stream: TcpStream, permit: OwnedSemaphorePermit) {
        // Small answers are not to wait for more.
        let _ = stream.set_nodelay(true);
        let many = Arc::clone(&self.http2).try_acquire_owned().ok();
        let offer = if many.is_some() {
            &self.offers.both
        } else {
            &self.offers.http1
        };
        let connection = Connection {
            acceptor: TlsAcceptor::from(Arc::clone(offer)),
            reviews: Arc::clone(&self.reviews),
            phase: self.phase.clone(),
            // Where few are left, each serves one request, so that others have their turn.
            is_short: self.connections.available_permits() < self.most_connections / 4,
        };
        self.reviews.metrics.connections.inc();
        tokio::spawn(async move {
            let metrics = Arc::clone(&connection.reviews.metrics);
            connection.serve(stream, many).await;
            metrics.connections.dec();
            drop(permit);
        });
    }
}

struct Connection {
    acceptor: TlsAcceptor,
    reviews: Arc<Reviews>,
    phase: watch::Receiver<Phase>,
    is_short: bool,
}

impl Connection {
    async fn serve(self, stream: TcpStream, many: Option<OwnedSemaphorePermit>) {
        let secured = match timeout(HANDSHAKE, self.acceptor.accept(stream)).await {
            Ok(Ok(secured)) => secured,
            Ok(Err(error)) => {
                debug!(%error, "handshake failed");
                return;
            }
            Err(_) => return,
        };
        let is_http2 = secured.get_ref().1.alpn_protocol() == Some(b"h2");
        let ended = if is_http2 {
            self.http2(secured).await
        } else {
            drop(many);
            self.http1(secured).await
        };
        if let Err(error) = ended {
            debug!(%error, "connection ended");
        }
    }

    async fn http1(self, stream: TlsStream<TcpStream>) -> hyper::Result<()> {
        let (reviews, mut phase, is_short) = (self.reviews, self.phase, self.is_short);
        let seen = phase.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (reviews, seen) = (Arc::clone(&reviews), seen.clone());
            async move {
                let mut response = reviews.answer(request).await;
                if is_short || *seen.borrow() > Phase::Serving {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Answered::Ok(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MOST_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        // A connection that is not used may be about to be: it is left open until the end, and then nobody uses it.
        until_told(connection, phase.wait_for(|phase| *phase == Phase::Ending)).await
    }

    async fn http2(self, stream: TlsStream<TcpStream>) -> hyper::Result<()> {
        let (reviews, mut phase) = (self.reviews, self.phase);
        let began = *phase.borrow_and_update();
        let service = service_fn(move |request: Request<Incoming>| {
            let reviews = Arc::clone(&reviews);
            async move {
                debug_assert_eq!(request.version(), Version::HTTP_2);
                Answered::Ok(reviews.answer(request).await)
            }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MOST_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(MOST_HEAD).unwrap_or(u32::MAX))
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        // Clients are told which requests are still served, and send others elsewhere. Who comes while others leave has
        // nowhere else to go.
        until_told(connection, phase.wait_for(|phase| *phase > began)).await
    }
}

/// A connection that can be brought to its end.
trait Graceful: Future<Output = hyper::Result<()>> {
    /// No further requests; those that were begun are answered.
    fn end(self: Pin<&mut Self>);
}

impl<S> Graceful for http1::Connection<TokioIo<TlsStream<TcpStream>>, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = super::ResponseBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Graceful for http2::Connection<TokioIo<TlsStream<TcpStream>>, S, TokioExecutor>
where
    S: hyper::service::HttpService<Incoming, ResBody = super::ResponseBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

async fn until_told<C: Graceful>(connection: C, told: impl Future) -> hyper::Result<()> {
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = &mut connection => return ended,
        _ = told => connection.as_mut().end(),
    }
    connection.await
}
