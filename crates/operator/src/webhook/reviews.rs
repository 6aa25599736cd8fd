//! Serves reviews: lets them in, reads them, checks them, and answers, within the time the API server waits.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use isvc_core::references::{Finding, References, Severity};
use k8s_openapi::jiff::SignedDuration;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use super::{
    check::Checker,
    gate::{Gate, Turn},
    limits::MOST_BODY,
    platform::PlatformSettings,
    review::{PREFIX, RETRY_AFTER, Received, Verdict, uid_of_prefix},
};
use crate::{
    args::EnforcementAction,
    observability::metrics::{Outcome, Shed, Times, WebhookMetrics},
};

/// Where reviews are posted to.
pub(crate) const PATH: &str = "/validate-inferenceservice-references";

/// What the API server waits where it does not say, which is its own default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// What it may ask for. Source: validation of `timeoutSeconds` in `admissionregistration.k8s.io/v1`.
const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30);

/// How long what is not looked at may take to come.
const DISCARD: Duration = Duration::from_secs(2);

/// Serves reviews.
pub(crate) struct Reviews {
    pub(super) gate: Arc<Gate>,
    pub(super) checker: Checker,
    pub(super) platform: Arc<PlatformSettings>,
    pub(super) action: EnforcementAction,
    /// The longest wait for a turn. A review that waits takes one of the API server's requests in flight all the while.
    pub(super) max_wait: Duration,
    pub(super) metrics: Arc<WebhookMetrics>,
}

/// Until when things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Deadlines {
    /// The end of the wait for a turn. What is left is for the check.
    turn: Instant,
    /// The answer, so that it arrives before the API server gives up.
    answer: Instant,
}

/// Why a review that was let in has no verdict of a check.
enum Unchecked {
    Shed(Shed),
    /// It cannot be read.
    NoReview,
    /// The API server does not tell.
    Lookup(&'static str),
    /// The time is up.
    Late,
}

impl Reviews {
    /// Answers one request.
    pub(super) async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if request.uri().path() != PATH {
            return text(StatusCode::NOT_FOUND, "no such page\n");
        }
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only POST is served\n");
        }
        let arrived = Instant::now();
        let deadlines = Deadlines::of(request.uri().query().unwrap_or_default(), self.max_wait, arrived);
        let turn = self.gate.enter(deadlines.turn).await;
        // Those that wait are many, and hold nothing of what follows.
        match turn {
            Ok(turn) => Box::pin(self.serve(request, turn, arrived, deadlines.answer)).await,
            Err(shed) => Box::pin(self.turn_away(request, shed)).await,
        }
    }

    async fn serve<B>(
        &self,
        request: Request<B>,
        turn: Turn<'_>,
        arrived: Instant,
        until: Instant,
    ) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (version, length) = (request.version(), content_length(&request));
        let mut body = request.into_body();
        if length.is_some_and(|length| length > MOST_BODY) {
            drop(turn);
            return self.turn_away_body(body, version, Shed::TooLarge).await;
        }
        let mut times = Times {
            wait: turn.waited,
            ..Times::default()
        };
        let mut uid = None;
        let checked = timeout_at(until, self.check(&mut body, length, &mut uid, &mut times)).await;
        drop(turn);
        times.total = arrived.elapsed();
        let outcome = checked.unwrap_or(Err(Unchecked::Late));
        let (outcome, verdict) = match outcome {
            Ok(findings) => self.verdict(findings),
            Err(Unchecked::Shed(shed)) => return self.answer_shed(uid, shed),
            Err(Unchecked::NoReview) => {
                self.metrics.ended(Outcome::Invalid);
                return text(StatusCode::BAD_REQUEST, "this is no AdmissionReview\n");
            }
            Err(Unchecked::Lookup(kind)) => {
                warn!(error = kind, "a review was not checked: a look-up failed");
                (
                    Outcome::Unchecked,
                    self.not_checked("the API server did not answer", true),
                )
            }
            Err(Unchecked::Late) => (Outcome::Unchecked, self.not_checked("it took too long", true)),
        };
        self.metrics.ended(outcome);
        self.metrics.took(times);
        debug!(outcome = ?outcome, "review answered");
        match uid {
            Some(uid) => json(verdict.answer(&uid)),
            None => busy(),
        }
    }

    /// Reads and checks a review; the uid is there as soon as it is known.
    async fn check<B>(
        &self,
        body: &mut B,
        length: Option<usize>,
        uid: &mut Option<String>,
        times: &mut Times,
    ) -> Result<Vec<Finding>, Unchecked>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let room = self.gate.body(length.unwrap_or(MOST_BODY)).await;
        let received = read(body, length.unwrap_or_default(), uid).await?;
        let received = Received::new(received).map_err(|_| Unchecked::NoReview)?;
        *uid = Some(received.uid.clone());
        let Some((namespace, weight)) = received.review(|review| (review.namespace.to_owned(), review.weight())) else {
            return Ok(Vec::new());
        };
        let parsed = self.gate.parsed(weight).await.map_err(Unchecked::Shed)?;
        let service = received.review(|review| review.service()).flatten();
        drop((received, room));
        let references = service.and_then(|service| References::of(service, self.platform.now()));
        let Some(mut references) = references else {
            return Ok(Vec::new());
        };
        let began = Instant::now();
        let found = self.checker.check(&namespace, &mut references).await;
        times.lookup = began.elapsed();
        drop(parsed);
        found.map_err(|error| Unchecked::Lookup(error.kind()))
    }

    fn verdict(&self, findings: Vec<Finding>) -> (Outcome, Verdict) {
        let refused = |finding: &Finding| finding.severity == Severity::Missing;
        let denies = self.action == EnforcementAction::Deny && findings.iter().any(refused);
        if findings.is_empty() {
            return (Outcome::Allowed, Verdict::Allow(Vec::new()));
        }
        if !denies {
            let warnings = findings.into_iter().map(|finding| finding.message).collect();
            return (Outcome::Warned, Verdict::Allow(warnings));
        }
        let (missing, others): (Vec<_>, Vec<_>) = findings.into_iter().partition(refused);
        let missing: Vec<_> = missing.into_iter().map(|finding| finding.message).collect();
        let verdict = Verdict::Deny {
            message: missing.join("; "),
            warnings: others.into_iter().map(|finding| finding.message).collect(),
        };
        (Outcome::Denied, verdict)
    }

    /// What is answered where nothing was checked: that it was not.
    fn not_checked(&self, why: &str, retriable: bool) -> Verdict {
        let message =
            format!("ServiceAccounts and Secrets that this InferenceService refers to were not checked: {why}");
        match self.action {
            EnforcementAction::Warn => Verdict::Allow(vec![message]),
            EnforcementAction::Deny if retriable => Verdict::Later(format!("{message}; try again")),
            EnforcementAction::Deny => Verdict::Deny {
                message,
                warnings: Vec::new(),
            },
        }
    }

    async fn turn_away<B>(&self, request: Request<B>, shed: Shed) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let version = request.version();
        self.turn_away_body(request.into_body(), version, shed).await
    }

    /// Reads no more than the uid, without which no answer is taken.
    async fn turn_away_body<B>(&self, mut body: B, version: Version, shed: Shed) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let uid = timeout(DISCARD, async {
            let uid = uid_of(&mut body).await;
            if version < Version::HTTP_2 {
                // A connection that is closed while its client still sends loses the answer.
                discard(&mut body).await;
            }
            uid
        });
        let uid = uid.await.ok().flatten();
        self.answer_shed(uid, shed)
    }

    fn answer_shed(&self, uid: Option<String>, shed: Shed) -> Response<Full<Bytes>> {
        self.metrics.ended(Outcome::Shed);
        self.metrics.shed(shed);
        let why = match shed {
            Shed::Memory => "memory is short",
            Shed::QueueFull => "too many reviews wait",
            Shed::TooLarge => "the object is too large",
            Shed::Waited => "its turn did not come in time",
        };
        match uid {
            Some(uid) => {
                // Trying again does not make it smaller.
                let retriable = shed != Shed::TooLarge;
                json(self.not_checked(why, retriable).answer(&uid))
            }
            None => busy(),
        }
    }
}

impl Deadlines {
    /// By the parameter `timeout` that API servers send: a duration as Go writes it.
    fn of(query: &str, max_wait: Duration, arrived: Instant) -> Self {
        let given = query
            .split('&')
            .find_map(|parameter| parameter.strip_prefix("timeout="));
        let given = given.and_then(|text| text.parse::<SignedDuration>().ok());
        let timeout = given.and_then(|duration| Duration::try_from(duration).ok());
        let timeout = timeout
            .unwrap_or(DEFAULT_TIMEOUT)
            .clamp(*TIMEOUTS.start(), *TIMEOUTS.end());
        Self {
            turn: arrived + max_wait.min(timeout / 2),
            answer: arrived + timeout - timeout / 5,
        }
    }
}

fn content_length<B>(request: &Request<B>) -> Option<usize> {
    request
        .headers()
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Reads a body whose room is reserved.
async fn read<B>(body: &mut B, length: usize, uid: &mut Option<String>) -> Result<Vec<u8>, Unchecked>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut received = Vec::with_capacity(length);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Unchecked::NoReview)?;
        let data = frame.data_ref().map_or(&[][..], |data| data);
        if received.len() + data.len() > MOST_BODY {
            return Err(Unchecked::Shed(Shed::TooLarge));
        }
        received.extend_from_slice(data);
        if uid.is_none() {
            *uid = uid_of_prefix(&received[..received.len().min(PREFIX)]);
        }
    }
    Ok(received)
}

/// Reads until the uid is there, and no more than where it has to be.
async fn uid_of<B>(body: &mut B) -> Option<String>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut prefix = Vec::new();
    while prefix.len() < PREFIX {
        let frame = body.frame().await?.ok()?;
        let data = frame.data_ref().map_or(&[][..], |data| data);
        prefix.extend_from_slice(&data[..data.len().min(PREFIX - prefix.len())]);
        if let Some(uid) = uid_of_prefix(&prefix) {
            return Some(uid);
        }
    }
    None
}

/// Takes what still comes, and keeps nothing.
async fn discard<B>(body: &mut B)
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut received = 0;
    while let Some(Ok(frame)) = body.frame().await {
        received += frame.data_ref().map_or(0, Bytes::len);
        if received > MOST_BODY {
            return;
        }
    }
}

fn json(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    let format = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, format);
    response
}

/// No answer is possible without a uid; API servers ask again within their own time.
fn busy() -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::TOO_MANY_REQUESTS, "busy\n");
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
    response
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    let format = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, format);
    response
}

/// For hyper, to which no answer is an error.
pub(super) type Answered = Result<Response<Full<Bytes>>, Infallible>;

#[cfg(test)]
mod tests;
