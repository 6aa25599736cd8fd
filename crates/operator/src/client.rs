//! The client every request goes through: a deadline and a size limit on each, a count of all, and no write by a replica that
//! may no longer lead.

use std::{
    fmt,
    future::{poll_fn, ready},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{self, Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use kube::{
    Client, Config as KubeConfig,
    client::{Body, ClientBuilder},
    config::{KubeConfigOptions, Kubeconfig},
};
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tower::{BoxError, Layer, Service};

use crate::{
    concurrency::Concurrency,
    config::Common,
    health::Health,
    leader::{
        Unfenced,
        fence::{Fence, NotLeading},
    },
    observability::{metrics::RequestMetrics, spans},
    pace,
};

/// The longest line of a watch that is taken, and so the biggest object: etcd holds at most 1.5 MiB of one by default, and
/// as JSON it is no more than a few times that.
const MOST_LINE: usize = 16 * 1024 * 1024;

/// The biggest answer to anything else: a page of a list.
const MOST_ANSWER: usize = 64 * 1024 * 1024;

/// How long a connection may take to be made. Until kube-proxy knows where the API server is again, most of what asks for one
/// gets no answer; TCP asks again after 1, 3, 7 and 15 s (RFC 6298, section 2), so the longer one waits, the later one is through.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// No answer came in time.
#[derive(Debug, Error)]
#[error("the API server has not answered in time")]
pub(crate) struct DeadlineExceeded;

/// An answer, or a line of a watch, is bigger than the operator takes.
#[derive(Debug, Error)]
#[error("the API server's answer is too large")]
pub(crate) struct TooLarge;

/// Why there is no client.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    #[error("cannot read the kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    #[error("no kubeconfig and not in a Pod: {0}")]
    Infer(#[from] kube::config::InferConfigError),
    #[error("cannot build a client: {0}")]
    Build(#[from] kube::Error),
}

/// What holds requests back, and who is told of them.
#[derive(Clone)]
pub(crate) struct Oversight {
    pub(crate) fence: Arc<Fence>,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<RequestMetrics>,
    /// Told how the API server bears the requests.
    pub(crate) concurrency: Option<Arc<Concurrency>>,
}

/// Makes the client from a kubeconfig, or from what the environment offers. The Pod's name tells this replica's requests
/// from those of others in the API server's audit log.
pub(crate) async fn connect(common: &Common, oversight: Oversight) -> Result<Client, ConnectError> {
    let request_timeout = common.request_timeout;
    let mut config = match &common.kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(path)?;
            KubeConfig::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?
        }
        None => KubeConfig::infer().await?,
    };
    if let Some(host) = config.cluster_url.authority() {
        oversight.metrics.host_is(host.as_str());
    }
    // Passes are tried again as a whole, with the backoff of their object; hidden retries would hold up the others.
    config.default_retry = false;
    config.connect_timeout = Some(request_timeout.min(CONNECT_TIMEOUT));
    config.write_timeout = Some(request_timeout);
    if let Ok(agent) = user_agent(common.pod_name.as_deref()).parse() {
        config.headers.push((header::USER_AGENT, agent));
    }
    let guard = Guard {
        request_timeout,
        oversight,
    };
    Ok(ClientBuilder::try_from(config)?.with_layer(&guard).build())
}

fn user_agent(name: Option<&str>) -> String {
    let program = concat!("leanserve/", env!("CARGO_PKG_VERSION"));
    name.map_or_else(|| program.to_owned(), |name| format!("{program} ({name})"))
}

/// Puts limits on requests and counts them.
#[derive(Clone)]
struct Guard {
    request_timeout: Duration,
    oversight: Oversight,
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            inner,
            guard: self.clone(),
        }
    }
}

struct Guarded<S> {
    inner: S,
    guard: Guard,
}

impl<S, B> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes, Error = BoxError> + Send + Unpin + 'static,
{
    type Response = Response<Limited<B>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let began = Instant::now();
        let fence = is_write(&request).then(|| Arc::clone(&self.guard.oversight.fence));
        let most = match fence.as_deref().map_or(Ok(None), Fence::check) {
            // Late enough, it could arrive when another leads.
            Ok(most) => most.map_or(self.guard.request_timeout, |most| most.min(self.guard.request_timeout)),
            Err(closed) => return Box::pin(ready(Err(closed.into()))),
        };
        let deadline = began + most;
        let watch = is_watch(&request);
        let limit = if watch { Limit::Line(0) } else { Limit::whole(deadline) };
        let span = spans::request(&request);
        let method = request.method().clone();
        let oversight = self.guard.oversight.clone();
        let answer = fenced(fence, self.inner.call(request));
        Box::pin(async move {
            let answer = timeout_at(deadline, answer)
                .await
                .unwrap_or_else(|_| Err(DeadlineExceeded.into()));
            let code = answer.as_ref().ok().map(Response::status);
            oversight.metrics.ended(&method, code, began.elapsed());
            spans::answered(&span, code);
            // A request that was never sent says nothing, and how long a watch takes to begin depends on what it is about.
            let sent = !answer.as_ref().is_err_and(|error| error.is::<NotLeading>());
            if let Some(concurrency) = oversight.concurrency.as_ref().filter(|_| sent && !watch) {
                concurrency.answered(began, Instant::now(), borne(code));
            }
            let answer = answer?;
            oversight.health.contact();
            Ok(answer.map(|body| Limited {
                body,
                limit,
                health: oversight.health,
            }))
        })
    }
}

/// Whether a request changes anything but the Lease.
fn is_write<B>(request: &Request<B>) -> bool {
    !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
        && request.extensions().get::<Unfenced>().is_none()
}

/// Goes on with a request only as long as the fence is open. A connection may have to be made first, and the process may be
/// stopped meanwhile; so this is asked before every step and not only before the first.
async fn fenced<T>(
    fence: Option<Arc<Fence>>,
    request: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, BoxError> {
    let Some(fence) = fence else {
        return request.await;
    };
    let mut request = pin!(request);
    poll_fn(|context| match fence.check() {
        Ok(_) => request.as_mut().poll(context),
        Err(closed @ NotLeading) => Poll::Ready(Err(closed.into())),
    })
    .await
}

/// What an answer, or none, says of the API server's load.
fn borne(code: Option<StatusCode>) -> pace::Answer {
    match code {
        Some(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => pace::Answer::Throttled,
        Some(StatusCode::GATEWAY_TIMEOUT) | None => pace::Answer::Missing,
        Some(_) => pace::Answer::Given,
    }
}

/// Whether a request asks for a watch, whose answer has no end.
fn is_watch<B>(request: &Request<B>) -> bool {
    let mut parameters = request.uri().query().unwrap_or_default().split('&');
    parameters.any(|parameter| matches!(parameter, "watch=true" | "watch=1" | "watch"))
}

/// A body within limits.
struct Limited<B> {
    body: B,
    limit: Limit,
    health: Arc<Health>,
}

enum Limit {
    /// The whole body comes within a time and a size.
    Whole { deadline: Pin<Box<Sleep>>, received: usize },
    /// Each line stays within a size; how much of the present one has come. A watch that falls silent is ended by kube.
    Line(usize),
}

impl Limit {
    fn whole(deadline: Instant) -> Self {
        Self::Whole {
            deadline: Box::pin(sleep_until(deadline)),
            received: 0,
        }
    }

    fn take(&mut self, data: &[u8]) -> Result<(), TooLarge> {
        let (size, most) = match self {
            Self::Whole { received, .. } => {
                *received += data.len();
                (*received, MOST_ANSWER)
            }
            Self::Line(length) => {
                *length = match data.iter().rposition(|byte| *byte == b'\n') {
                    Some(newline) => data.len() - newline - 1,
                    None => *length + data.len(),
                };
                (*length, MOST_LINE)
            }
        };
        if size > most { Err(TooLarge) } else { Ok(()) }
    }
}

impl<B> HttpBody for Limited<B>
where
    B: HttpBody<Data = Bytes, Error = BoxError> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Limit::Whole { deadline, .. } = &mut this.limit
            && deadline.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Some(Err(DeadlineExceeded.into())));
        }
        let Some(frame) = task::ready!(Pin::new(&mut this.body).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        let frame = frame.and_then(|frame| {
            this.health.contact();
            let data = frame.data_ref().map_or(&[][..], |data| data);
            this.limit.take(data).map(|()| frame).map_err(BoxError::from)
        });
        Poll::Ready(Some(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("request_timeout", &self.request_timeout)
            .finish_non_exhaustive()
    }
}

impl From<TooLarge> for io::Error {
    fn from(error: TooLarge) -> Self {
        Self::other(error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::stream;
    use http_body_util::{BodyExt, Full, StreamBody};
    use prometheus_client::metrics::gauge::Gauge;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::{
        leader::clock::Clock,
        observability::metrics::{Metrics, tests::page},
    };

    fn guarded<S>(inner: S) -> Guarded<S> {
        let fence = Arc::new(Fence::open(Clock::boot()));
        fenced_by(fence, inner)
    }

    fn fenced_by<S>(fence: Arc<Fence>, inner: S) -> Guarded<S> {
        guarded_with(fence, Metrics::new().requests, inner)
    }

    fn guarded_with<S>(fence: Arc<Fence>, metrics: Arc<RequestMetrics>, inner: S) -> Guarded<S> {
        let guard = Guard {
            request_timeout: Duration::from_secs(10),
            oversight: Oversight {
                fence,
                health: Arc::new(Health::new()),
                metrics,
                concurrency: Some(Arc::new(Concurrency::new(8, Gauge::default()))),
            },
        };
        guard.layer(inner)
    }

    fn get(uri: &str) -> Request<Body> {
        Request::get(uri).body(Body::empty()).expect("valid")
    }

    type Boxed = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

    fn empty() -> Boxed {
        Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_answer_ends_at_its_deadline() {
        let metrics = Metrics::new();
        let silent = service_fn(|_: Request<Body>| futures::future::pending::<Result<Response<Boxed>, BoxError>>());
        let fence = Arc::new(Fence::open(Clock::boot()));
        let service = guarded_with(fence, Arc::clone(&metrics.requests), silent);
        let Err(error) = service.oneshot(get("/api/v1/pods")).await else {
            panic!("nothing answers")
        };
        assert!(error.is::<DeadlineExceeded>());
        assert!(page(&metrics).contains("rest_client_requests_total{code=\"<error>\",method=\"GET\",host=\"\"} 1"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_cut_unless_it_is_a_watch() {
        let endless = service_fn(|_: Request<Body>| async {
            let first = stream::once(async { Ok(Frame::data(Bytes::from_static(b"{}\n"))) });
            let body: Boxed = StreamBody::new(futures::StreamExt::chain(first, stream::pending())).boxed_unsync();
            Ok::<_, BoxError>(Response::new(body))
        });
        let answer = guarded(endless)
            .oneshot(get("/api/v1/pods?limit=5"))
            .await
            .expect("a head");
        let error = answer.into_body().collect().await.expect_err("it never ends");
        assert!(error.is::<DeadlineExceeded>());
        let watch = guarded(endless)
            .oneshot(get("/api/v1/pods?limit=5&watch=true&x=y"))
            .await
            .expect("a head");
        let mut body = watch.into_body();
        assert!(body.frame().await.expect("the first line").is_ok());
        let more = tokio::time::timeout(Duration::from_secs(3600), body.frame()).await;
        assert!(more.is_err(), "a watch may be silent for long");
    }

    #[tokio::test]
    async fn nothing_is_written_behind_a_closed_fence_but_the_lease() {
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let server = service_fn(move |_: Request<Body>| {
            count.fetch_add(1, Ordering::Relaxed);
            async { Ok::<_, BoxError>(Response::new(empty())) }
        });
        let service = || fenced_by(Arc::new(Fence::closed(Clock::boot())), server.clone());
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let request = || {
                Request::builder()
                    .method(&method)
                    .uri("/")
                    .body(Body::empty())
                    .expect("valid")
            };
            let Err(error) = service().oneshot(request()).await else {
                panic!("{method} was sent")
            };
            assert!(error.is::<NotLeading>(), "{error}");
            assert_eq!(sent.load(Ordering::Relaxed), 0, "{method}");
            let mut of_the_lease = request();
            of_the_lease.extensions_mut().insert(Unfenced);
            service().oneshot(of_the_lease).await.expect("an answer");
            assert_eq!(sent.swap(0, Ordering::Relaxed), 1, "{method}");
        }
        service().oneshot(get("/")).await.expect("an answer");
        assert_eq!(sent.load(Ordering::Relaxed), 1, "reading is no writing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_goes_no_further_once_the_fence_is_closed() {
        let clock = Clock::of_the_runtime();
        let fence = Arc::new(Fence::closed(clock));
        fence.renewed(
            clock.now() + Duration::from_secs(3),
            clock.now() + Duration::from_secs(5),
        );
        let (connected, connecting) = tokio::sync::oneshot::channel::<()>();
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let connecting = std::sync::Mutex::new(Some(connecting));
        let service = fenced_by(
            Arc::clone(&fence),
            service_fn(move |_: Request<Body>| {
                let connecting = connecting.lock().expect("no panic").take().expect("one request");
                let count = Arc::clone(&count);
                async move {
                    connecting.await?;
                    count.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, BoxError>(Response::new(empty()))
                }
            }),
        );
        let write = Request::put("/").body(Body::empty()).expect("valid");
        let writing = tokio::spawn(service.oneshot(write));
        tokio::task::yield_now().await;
        // As of a process that is stopped while it connects: no timer fires, and then everything is ready at once.
        tokio::time::advance(Duration::from_secs(4)).await;
        connected.send(()).expect("it is waited for");
        let Err(error) = writing.await.expect("no panic") else {
            panic!("it was sent")
        };
        assert!(error.is::<NotLeading>(), "{error}");
        assert_eq!(sent.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_given_up_before_another_may_lead() {
        let clock = Clock::of_the_runtime();
        let fence = Arc::new(Fence::closed(clock));
        fence.renewed(
            clock.now() + Duration::from_secs(3),
            clock.now() + Duration::from_secs(5),
        );
        let service = fenced_by(
            fence,
            service_fn(|_: Request<Body>| futures::future::pending::<Result<Response<Boxed>, BoxError>>()),
        );
        let started = Instant::now();
        let write = Request::put("/").body(Body::empty()).expect("valid");
        assert!(service.oneshot(write).await.is_err());
        assert_eq!(started.elapsed().as_secs(), 5);
    }

    #[test]
    fn replicas_are_told_apart_in_the_audit_log() {
        assert!(user_agent(None).starts_with("leanserve/"));
        assert!(user_agent(Some("leanserve-0")).ends_with(" (leanserve-0)"));
    }

    #[tokio::test]
    async fn contact_is_noticed() {
        let service = guarded(service_fn(|_: Request<Body>| async {
            Ok::<_, BoxError>(Response::new(empty()))
        }));
        let health = Arc::clone(&service.guard.oversight.health);
        assert!(health.ready().expect_err("not ready").join("\n").contains("API server"));
        service.oneshot(get("/")).await.expect("an answer");
        assert!(!health.ready().expect_err("not ready").join("\n").contains("API server"));
    }

    /// Signs of overload reach who decides how many passes run; a slow start of a watch is none.
    #[tokio::test(start_paused = true)]
    async fn the_api_server_is_spared_when_it_says_so() {
        let answering = |status: StatusCode, after: Duration| {
            service_fn(move |_: Request<Body>| async move {
                tokio::time::sleep(after).await;
                let body: Boxed = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
                let mut response = Response::new(body);
                *response.status_mut() = status;
                Ok::<_, BoxError>(response)
            })
        };
        let (soon, late) = (Duration::from_millis(1), Duration::from_secs(2));
        for (status, after, uri, allowed) in [
            (StatusCode::OK, soon, "/", 8),
            (StatusCode::NOT_FOUND, soon, "/", 8),
            (StatusCode::TOO_MANY_REQUESTS, soon, "/", 4),
            (StatusCode::SERVICE_UNAVAILABLE, soon, "/", 4),
            (StatusCode::GATEWAY_TIMEOUT, soon, "/", 4),
            (StatusCode::OK, late, "/", 4),
            (StatusCode::OK, Duration::from_secs(60), "/", 4),
            (StatusCode::OK, late, "/?watch=true", 8),
        ] {
            let service = guarded(answering(status, after));
            let concurrency = service.guard.oversight.concurrency.clone().expect("it has one");
            let _ = service.oneshot(get(uri)).await;
            assert_eq!(concurrency.allowed(), allowed, "{status} after {after:?} to {uri}");
        }
    }

    #[test]
    fn lines_are_limited_one_by_one() {
        let mut limit = Limit::Line(0);
        let half = vec![b'x'; MOST_LINE / 2 + 1];
        assert!(limit.take(&half).is_ok());
        assert!(limit.take(b"\n").is_ok());
        assert!(limit.take(&half).is_ok());
        assert!(limit.take(&half).is_err());
    }

    #[test]
    fn watches_are_told_from_names_that_look_like_one() {
        for (uri, expected) in [
            ("/api/v1/pods?watch=true", true),
            ("/api/v1/pods?&watch=true&timeoutSeconds=1", true),
            ("/api/v1/pods?watch=1", true),
            ("/api/v1/pods?watch=false", false),
            ("/api/v1/pods?fieldSelector=watch%3Dtrue", false),
            ("/api/v1/pods", false),
        ] {
            assert_eq!(is_watch(&get(uri)), expected, "{uri}");
        }
    }
}
