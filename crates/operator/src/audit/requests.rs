//! Requests of the auditor: at a rate, tried again while that can help, and with headers in the answer.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use thiserror::Error;
use tokio::time::{Instant, sleep, sleep_until};

use super::answer::{self, Status};
use crate::backoff::MOST_RETRY_AFTER;

/// How often a request is sent at most.
const TRIES: u32 = 5;
/// The first pause after a failure; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// No answer, after all tries, or one that is of no use.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct Fault(String);

impl Fault {
    pub(super) fn new(problem: String) -> Self {
        Self(problem)
    }
}

/// An answer, whatever its code.
pub(super) struct Answer {
    pub(super) code: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// What the API server says in words, where this is no success.
    pub(super) fn said(&self) -> Fault {
        let status: Status = serde_json::from_slice(&self.body).unwrap_or_default();
        Fault(answer::said(self.code, &status.message))
    }
}

/// Sends one request after the other.
pub(super) struct Requests {
    client: Client,
    /// Between the beginnings of two requests.
    apart: Duration,
    next: Instant,
}

impl Requests {
    pub(super) fn new(client: Client, qps: u32) -> Self {
        Self {
            client,
            apart: Duration::from_secs(1) / qps.max(1),
            next: Instant::now(),
        }
    }

    /// Sends a request, again where the API server has too much to do or fails; the last answer is given back whatever it
    /// is, so a fault means silence. `make` makes the request anew each time.
    pub(super) async fn send(
        &mut self,
        make: impl Fn() -> Result<Request<Vec<u8>>, http::Error>,
    ) -> Result<Answer, Fault> {
        let mut pause = FIRST_PAUSE;
        let mut tries = 0;
        loop {
            tries += 1;
            let request = make().map_err(|error| Fault(error.to_string()))?;
            let answer = self.once(request).await;
            let wait = match &answer {
                Ok(answer) if is_final(answer.code) => None,
                Ok(answer) => Some(retry_after(&answer.headers).unwrap_or(pause)),
                Err(_) => Some(pause),
            };
            match wait.filter(|_| tries < TRIES) {
                Some(wait) => sleep(wait).await,
                None => return answer,
            }
            pause *= 2;
        }
    }

    async fn once(&mut self, request: Request<Vec<u8>>) -> Result<Answer, Fault> {
        sleep_until(self.next).await;
        self.next = Instant::now() + self.apart;
        let answer = self.client.send(request.map(Body::from)).await;
        let (head, body) = answer.map_err(|error| Fault(error.to_string()))?.into_parts();
        let body = body.collect().await.map_err(|error| Fault(error.to_string()))?;
        Ok(Answer {
            code: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }
}

/// Whether the same request would be answered the same way.
fn is_final(code: StatusCode) -> bool {
    !code.is_server_error() && !matches!(code, StatusCode::TOO_MANY_REQUESTS | StatusCode::CONFLICT)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MOST_RETRY_AFTER))
}
