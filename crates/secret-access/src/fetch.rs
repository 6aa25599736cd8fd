//! The only file that talks HTTP.
//!
//! `kube::Client::send` hands the response over untouched. Everything above it in kube (`request`, `request_text`,
//! `request_status`, `request_events`, hence `Api`) logs whole bodies when they do not decode, so none of it is used for
//! Secrets. What `send` itself traces, in kube 5.0: method, URL and status of a request, and the text of connection errors.

mod body;
mod decode;

use std::io;
use std::time::Duration;

use http::header::{ACCEPT, RETRY_AFTER};
use http::{HeaderMap, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use zeroize::Zeroizing;

use self::body::BodyError;
use crate::answer::{Answer, Sent};
use crate::error::{ReadError, UnavailableCause};
use crate::options::FetchOptions;
use crate::secret_ref::SecretRef;

/// Answers that are not Secrets are only looked at to tell whether the API server wrote them: a `Status` is some hundred
/// bytes.
const MAX_STATUS_BYTES: usize = 64 * 1024;

/// The media type that turns a list of objects into a list of their metadata.
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// Makes a client that is fit for reading Secrets: it retries nothing.
///
/// kube's own default is a layer that repeats a request up to 15 times on 429, 503 and 504, waits as long as the server's
/// `Retry-After` says and thereby hides from the caller that the server asked for less. Here each read is one request,
/// [`ReadError`] tells what happened, and the caller decides.
///
/// Any other [`Client`] can be used as well if it has no retry layer.
///
/// # Errors
///
/// Those of `kube::Client::try_from`: unusable TLS material or proxy settings, or an `https` address in a build that has
/// neither of kube's features `rustls-tls` and `openssl-tls`.
pub fn client(mut config: kube::Config) -> Result<Client, kube::Error> {
    config.default_retry = false;
    Client::try_from(config)
}

/// Sends single requests and decodes their answers.
pub(crate) struct Fetcher {
    client: Client,
    options: FetchOptions,
}

/// Why a request brought no answer; [`Failure::named`] makes a [`ReadError`] of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    NotFound,
    Forbidden,
    Unauthorized,
    Throttled(Option<Duration>),
    TooLarge(usize),
    Malformed(&'static str),
    Unavailable(UnavailableCause, Option<Duration>),
    Timeout(Duration),
}

impl Failure {
    pub(crate) fn named(self, secret: SecretRef) -> ReadError {
        match self {
            Self::NotFound => ReadError::NotFound { secret },
            Self::Forbidden => ReadError::Forbidden { secret },
            Self::Unauthorized => ReadError::Unauthorized { secret },
            Self::Throttled(retry_after) => ReadError::Throttled { secret, retry_after },
            Self::TooLarge(limit) => ReadError::TooLarge { secret, limit },
            Self::Malformed(problem) => ReadError::Malformed { secret, problem },
            Self::Unavailable(cause, retry_after) => ReadError::Unavailable {
                secret,
                cause,
                retry_after,
            },
            Self::Timeout(deadline) => ReadError::Timeout { secret, deadline },
        }
    }
}

impl Fetcher {
    pub(crate) fn new(client: Client, options: FetchOptions) -> Self {
        Self { client, options }
    }

    pub(crate) fn options(&self) -> &FetchOptions {
        &self.options
    }

    /// One quorum read: a GET without `resourceVersion`, which the API server takes from etcd. Sent now.
    pub(crate) async fn fetch(&self, secret: &SecretRef, sent: Sent) -> Result<Answer, ReadError> {
        let path = format!("/api/v1/namespaces/{}/secrets/{}", secret.namespace(), secret.name());
        let body = match self.within_deadline(&path, "application/json").await {
            Ok(body) => body,
            Err(Failure::NotFound) => return Ok(Answer { found: None, sent }),
            Err(failure) => return Err(failure.named(secret.clone())),
        };
        let snapshot = decode::secret(&body, secret)
            .map_err(|problem| Failure::Malformed(problem).named(secret.clone()))?
            .build_validated_at(sent.at);
        Ok(Answer {
            found: Some(snapshot.into()),
            sent,
        })
    }

    /// How many Secrets the cluster has, by one request for the metadata of a single one: the answer says how many follow.
    pub(crate) async fn count(&self) -> Result<u64, Failure> {
        let body = self.within_deadline("/api/v1/secrets?limit=1", METADATA_LIST).await?;
        decode::count(&body).map_err(Failure::Malformed)
    }

    async fn within_deadline(&self, path: &str, accept: &'static str) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let deadline = self.options.deadline;
        tokio::time::timeout(deadline, self.body_of(path, accept))
            .await
            .unwrap_or(Err(Failure::Timeout(deadline)))
    }

    async fn body_of(&self, path: &str, accept: &'static str) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let request = Request::get(path)
            .header(ACCEPT, accept)
            .body(Body::empty())
            .expect("a checked SecretRef has only characters that are valid in a path");
        let response = self.client.send(request).await.map_err(|error| connection(&error))?;
        match response.status() {
            StatusCode::OK => {
                let limit = self.options.max_body_bytes;
                body::collect(response, limit).await.map_err(|error| match error {
                    BodyError::TooLarge => Failure::TooLarge(limit),
                    BodyError::Broken(error) => connection(&error),
                })
            }
            status => Err(self.refusal(status, response).await),
        }
    }

    /// What an answer without the Secret means. Bodies are not passed on: proxies on the way may put anything there.
    async fn refusal(&self, status: StatusCode, response: Response<Body>) -> Failure {
        let retry_after = self.retry_after(response.headers());
        match status {
            StatusCode::UNAUTHORIZED => Failure::Unauthorized,
            StatusCode::FORBIDDEN => Failure::Forbidden,
            StatusCode::TOO_MANY_REQUESTS => Failure::Throttled(retry_after),
            // Only the API server itself can say that there is no such Secret. A 404 without its `Status` comes from
            // somewhere else, such as a load balancer with no backend, and must not pass for an absence.
            StatusCode::NOT_FOUND => match body::collect(response, MAX_STATUS_BYTES).await {
                Ok(body) if decode::is_not_found_status(&body) => Failure::NotFound,
                Ok(_) | Err(BodyError::TooLarge) => {
                    Failure::Unavailable(UnavailableCause::Status(status.as_u16()), retry_after)
                }
                Err(BodyError::Broken(error)) => connection(&error),
            },
            other => Failure::Unavailable(UnavailableCause::Status(other.as_u16()), retry_after),
        }
    }

    /// `Retry-After` in seconds, the form the API server sends. Dates and garbage count as no header.
    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        // A number too big for u64 is still a number: the cap applies to it as to any other.
        let digits = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| {
            let wait = seconds.parse().map_or(Duration::MAX, Duration::from_secs);
            wait.min(self.options.max_retry_after)
        })
    }
}

/// What is safe to keep of a failed request: the kind of the I/O error at the bottom. The texts in between come from
/// plug-ins and proxies and may hold anything.
fn connection(error: &kube::Error) -> Failure {
    if matches!(error, kube::Error::Auth(_)) {
        return Failure::Unavailable(UnavailableCause::Credentials, None);
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut kind = None;
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            kind = Some(error.kind());
        }
        cause = error.source();
    }
    Failure::Unavailable(UnavailableCause::Connection(kind), None)
}
