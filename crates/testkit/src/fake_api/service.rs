//! The server as a tower service.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::Service;

use super::{
    Shared,
    answer::{self, Answer, Reaction},
    body::{self, Ending, FakeBody},
    fault::Fault,
    request::RecordedRequest,
    store::Source,
    watch,
};

/// How long kube-apiserver waits for its watch cache before it gives up on a resourceVersion.
const CACHE_WAIT: Duration = Duration::from_secs(3);
/// The most of a request body that is read.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// [`FakeApi`](super::FakeApi) as a tower service; clones share one server.
#[derive(Clone)]
pub struct FakeService {
    shared: Arc<Shared>,
}

impl FakeService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

/// Counts a request while its answer is awaited.
struct InFlight {
    shared: Arc<Shared>,
    answered: bool,
}

impl InFlight {
    fn new(shared: &Arc<Shared>) -> Self {
        let now = shared.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        shared.peak_in_flight.fetch_max(now, Ordering::SeqCst);
        Self {
            shared: Arc::clone(shared),
            answered: false,
        }
    }

    /// Ends the count; dropped without this, the client went away.
    fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.shared.in_flight.fetch_sub(1, Ordering::SeqCst);
        if !self.answered {
            self.shared.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Service<Request<kube::client::Body>> for FakeService {
    type Response = Response<FakeBody>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        // Recorded at arrival, not at the first poll: a request that is never polled was still sent.
        let recorded = RecordedRequest::parse(&request);
        let fault = {
            let mut state = self.shared.state();
            state.requests.push(recorded.clone());
            state.plans.iter_mut().find_map(|plan| plan.strike(&recorded))
        };
        let in_flight = InFlight::new(&self.shared);
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let response = serve(&shared, recorded, request, fault).await;
            in_flight.answered();
            response
        })
    }
}

async fn serve(
    shared: &Arc<Shared>,
    recorded: RecordedRequest,
    request: Request<kube::client::Body>,
    fault: Option<Fault>,
) -> io::Result<Response<FakeBody>> {
    let Some(fault) = fault else {
        return Ok(respond(shared, &recorded, request).await);
    };
    match fault {
        Fault::Status { code, headers, body } => {
            let mut answer = answer::status_for(code);
            answer.headers.extend(headers);
            Ok(match body {
                Some(text) => response(
                    &answer,
                    body::whole(shared, text.clone().into_bytes()),
                    Some(text.len() as u64),
                ),
                None => complete(shared, &answer),
            })
        }
        Fault::Hang => std::future::pending().await,
        Fault::Delay(time) => {
            tokio::time::sleep(time).await;
            Ok(respond(shared, &recorded, request).await)
        }
        Fault::DelayAnswer(time) => {
            let response = respond(shared, &recorded, request).await;
            tokio::time::sleep(time).await;
            Ok(response)
        }
        Fault::HoldRequest(gate) => {
            gate.pass().await;
            Ok(respond(shared, &recorded, request).await)
        }
        Fault::HoldAnswer(gate) => {
            let response = respond(shared, &recorded, request).await;
            gate.pass().await;
            Ok(response)
        }
        Fault::Close => Err(io::Error::new(
            io::ErrorKind::ConnectionReset,
            "connection reset by peer",
        )),
        Fault::Truncated => Ok(broken(shared, &recorded, request, Ending::Broken).await),
        Fault::CutShort => Ok(broken(shared, &recorded, request, Ending::Early).await),
        Fault::StalledBody => Ok(broken(shared, &recorded, request, Ending::Silent).await),
        Fault::Oversized { bytes, declared } => Ok(oversized(shared, &recorded, bytes, declared)),
        Fault::WrongKind => {
            let mut answer = answered(shared, &recorded, request).await;
            answer.body["kind"] = json!("Ingress");
            answer.body["apiVersion"] = json!("networking.k8s.io/v1");
            Ok(complete(shared, &answer))
        }
        Fault::Garbage => {
            let text = "<html>a proxy answered</html>";
            let ok = Answer {
                code: StatusCode::OK,
                headers: Vec::new(),
                body: Value::Null,
            };
            Ok(response(&ok, body::whole(shared, text.into()), Some(text.len() as u64)))
        }
    }
}

/// The regular answer.
async fn respond(
    shared: &Arc<Shared>,
    recorded: &RecordedRequest,
    request: Request<kube::client::Body>,
) -> Response<FakeBody> {
    if recorded.resource == "selfsubjectaccessreviews" {
        return complete(shared, &access_review(shared, request).await);
    }
    match settled(shared, recorded).await {
        Reaction::Watch {
            from,
            selector,
            initial,
        } => {
            let ok = Answer {
                code: StatusCode::OK,
                headers: Vec::new(),
                body: Value::Null,
            };
            response(
                &ok,
                body::streamed(shared, watch::lines(shared, recorded, from, selector, initial)),
                None,
            )
        }
        Reaction::Answer(answer) => complete(shared, &answer),
        Reaction::WaitFor(_) => complete(shared, &answer::status_for(StatusCode::GATEWAY_TIMEOUT)),
    }
}

/// The regular answer as a value; an empty one for a watch.
async fn answered(shared: &Arc<Shared>, recorded: &RecordedRequest, request: Request<kube::client::Body>) -> Answer {
    if recorded.resource == "selfsubjectaccessreviews" {
        return access_review(shared, request).await;
    }
    match settled(shared, recorded).await {
        Reaction::Answer(answer) => answer,
        Reaction::Watch { .. } | Reaction::WaitFor(_) => Answer {
            code: StatusCode::OK,
            headers: Vec::new(),
            body: json!({}),
        },
    }
}

/// Reacts, after waiting for the watch cache where the request asks for more than it has seen.
async fn settled(shared: &Arc<Shared>, recorded: &RecordedRequest) -> Reaction {
    let deadline = tokio::time::Instant::now() + CACHE_WAIT;
    let mut wake = shared.wake.subscribe();
    loop {
        wake.borrow_and_update();
        let reaction = answer::react(&mut shared.state(), recorded);
        let Reaction::WaitFor(wanted) = reaction else {
            return reaction;
        };
        if tokio::time::timeout_at(deadline, wake.changed()).await.is_err() {
            let seen = shared.state().store.seen(Source::Cache);
            return Reaction::Answer(answer::too_large(wanted, seen));
        }
    }
}

async fn broken(
    shared: &Arc<Shared>,
    recorded: &RecordedRequest,
    request: Request<kube::client::Body>,
    ending: Ending,
) -> Response<FakeBody> {
    let answer = answered(shared, recorded, request).await;
    let bytes = body::json(&answer.body).into_bytes();
    // An early end goes unnoticed only without a length, as behind a proxy that re-chunks.
    let length = match ending {
        Ending::Early => None,
        Ending::Broken | Ending::Silent => Some(bytes.len() as u64),
    };
    response(&answer, body::half(shared, bytes, ending), length)
}

fn oversized(shared: &Arc<Shared>, recorded: &RecordedRequest, bytes: u64, declared: bool) -> Response<FakeBody> {
    let prefix = format!(
        r#"{{"kind":"Secret","apiVersion":"v1","metadata":{{"namespace":"{}","name":"{}","uid":"oversized","resourceVersion":"{}"}},"data":{{"filler":""#,
        recorded.namespace.as_deref().unwrap_or_default(),
        recorded.name.as_deref().unwrap_or_default(),
        shared.state().store.revision(),
    );
    let (body, length) = body::oversized(shared, prefix, r#""}}"#, bytes);
    let ok = Answer {
        code: StatusCode::OK,
        headers: Vec::new(),
        body: Value::Null,
    };
    response(&ok, body, declared.then_some(length))
}

async fn access_review(shared: &Arc<Shared>, request: Request<kube::client::Body>) -> Answer {
    let body = http_body_util::Limited::new(request.into_body(), MAX_REQUEST_BYTES)
        .collect()
        .await;
    let body = body.map_or_else(|_| Bytes::new(), http_body_util::Collected::to_bytes);
    let Ok(mut review) = serde_json::from_slice::<Value>(&body) else {
        return answer::status_for(StatusCode::BAD_REQUEST);
    };
    let asked = &review["spec"]["resourceAttributes"];
    let word = |field: &str| asked[field].as_str().unwrap_or_default().to_owned();
    let forbidden = shared.state().forbidden.contains(&(word("verb"), word("resource")));
    review["status"] = json!({"allowed": !forbidden});
    Answer {
        code: StatusCode::CREATED,
        headers: Vec::new(),
        body: review,
    }
}

fn complete(shared: &Arc<Shared>, answer: &Answer) -> Response<FakeBody> {
    let bytes = body::json(&answer.body).into_bytes();
    let length = bytes.len() as u64;
    response(answer, body::whole(shared, bytes), Some(length))
}

fn response(answer: &Answer, body: FakeBody, length: Option<u64>) -> Response<FakeBody> {
    let mut builder = Response::builder()
        .status(answer.code)
        .header("content-type", "application/json");
    if let Some(length) = length {
        builder = builder.header("content-length", length);
    }
    for (name, value) in &answer.headers {
        builder = builder.header(name, value);
    }
    builder.body(body).expect("a test's headers are valid HTTP")
}
