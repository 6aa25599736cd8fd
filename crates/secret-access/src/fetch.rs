//! The only file that talks HTTP.
//!
//! `kube::Client::send` hands the response over untouched. Everything above it in kube (`request`, `request_text`,
//! `request_status`, `request_events`, hence `Api`) logs whole bodies when they do not decode, so none of it is used for
//! Secrets. What `send` itself traces, in kube 5.0: method, URL and status of a request, and the text of connection errors.

mod body;
mod budget;
mod decode;
mod named;
pub(crate) mod stream;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, RETRY_AFTER};
use http::{HeaderMap, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use tokio::time::Instant;
use zeroize::Zeroizing;

use self::body::BodyError;
use self::budget::InFlight;
pub(crate) use self::decode::event::{Ended, Event};
pub(crate) use self::decode::{Metadata, no_fields};
pub(crate) use self::named::{NamedEvent, NamedWatch};
use crate::answer::{Answer, Sent};
use crate::error::UnavailableCause;
pub(crate) use crate::failure::Failure;
use crate::options::FetchOptions;
use crate::plan::{Plan, Replied};
use crate::secret_ref::SecretRef;
use crate::snapshot::{ResourceVersion, SecretSnapshot};
use crate::squeeze::Bodies;
use crate::want::Fields;

/// Answers that are not Secrets are only looked at to tell whether the API server wrote them: a `Status` is some hundred
/// bytes.
const MAX_STATUS_BYTES: usize = 64 * 1024;

/// Makes a client that is fit for reading Secrets: it retries nothing.
///
/// kube's own default is a layer that repeats a request up to 15 times on 429, 503 and 504, waits as long as the server's
/// `Retry-After` says and thereby hides from the caller that the server asked for less. Here each read is one request,
/// [`ReadError`](crate::ReadError) tells what happened, and the caller decides.
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
    in_flight: InFlight,
}

impl Fetcher {
    pub(crate) fn new(client: Client, options: FetchOptions) -> Self {
        let in_flight = InFlight::new(&options);
        Self {
            client,
            options,
            in_flight,
        }
    }

    pub(crate) fn options(&self) -> &FetchOptions {
        &self.options
    }

    /// Takes these big bodies from now on.
    pub(crate) fn squeeze(&self, bodies: Bodies) {
        self.in_flight.squeeze(bodies);
    }

    /// Brings what `plan` says, by as few bytes as will do. Sent at `sent`, and over by `deadline`.
    pub(crate) async fn fetch(
        &self,
        secret: &SecretRef,
        sent: Sent,
        plan: &Plan,
        deadline: Instant,
    ) -> Result<Replied, Failure> {
        let within = tokio::time::timeout_at(deadline, async {
            if let Some(version) = plan.at_least {
                return self.at_least(secret, version, sent, &plan.fields).await;
            }
            match plan.worth_revalidating(self.options.revalidate_bytes) {
                Some(base) => self.revalidate(secret, base, sent, &plan.fields).await,
                None => self.quorum(secret, sent, &plan.fields).await,
            }
        });
        within.await.unwrap_or(Err(Failure::Timeout(self.options.deadline)))
    }

    /// A GET without `resourceVersion`, which the API server takes from etcd.
    async fn quorum(&self, secret: &SecretRef, sent: Sent, fields: &Fields) -> Result<Replied, Failure> {
        let found = self.object(secret, None, Some(sent), fields).await?;
        Ok(Replied {
            answer: Answer { found, sent },
            revalidated: false,
        })
    }

    /// A GET that the API server answers from its watch cache as soon as that has reached `version`. Kubernetes 1.36 waits
    /// 3 s for it and then answers 504; the next question is for a quorum.
    async fn at_least(
        &self,
        secret: &SecretRef,
        version: ResourceVersion,
        sent: Sent,
        fields: &Fields,
    ) -> Result<Replied, Failure> {
        match self.object(secret, Some(version), None, fields).await {
            Ok(found) => Ok(Replied {
                answer: Answer {
                    found,
                    sent: Sent::unproven(),
                },
                revalidated: false,
            }),
            Err(failure) if lags_behind(failure) => self.quorum(secret, sent, fields).await,
            Err(failure) => Err(failure),
        }
    }

    /// Asks for the metadata, and for the content only if that moved. The content is then asked for at the version that the
    /// metadata showed: a quorum said that this was current after `sent`, so any server that has reached it will do.
    async fn revalidate(
        &self,
        secret: &SecretRef,
        base: &Arc<SecretSnapshot>,
        sent: Sent,
        fields: &Fields,
    ) -> Result<Replied, Failure> {
        let Some(metadata) = self.current_metadata(secret).await? else {
            return Ok(Replied {
                answer: Answer { found: None, sent },
                revalidated: false,
            });
        };
        if *metadata.uid == *base.uid() && metadata.version == base.resource_version() {
            return Ok(Replied {
                answer: Answer {
                    found: Some(Arc::new(base.validated(sent.at))),
                    sent,
                },
                revalidated: true,
            });
        }
        match self.object(secret, Some(metadata.version), Some(sent), fields).await {
            Ok(found) => Ok(Replied {
                answer: Answer { found, sent },
                revalidated: false,
            }),
            Err(failure) if lags_behind(failure) => self.quorum(secret, sent, fields).await,
            Err(failure) => Err(failure),
        }
    }

    /// The metadata of a Secret as of now, or that there is none.
    pub(crate) async fn metadata(&self, secret: &SecretRef, deadline: Instant) -> Result<Option<Metadata>, Failure> {
        let within = tokio::time::timeout_at(deadline, self.current_metadata(secret));
        within.await.unwrap_or(Err(Failure::Timeout(self.options.deadline)))
    }

    async fn current_metadata(&self, secret: &SecretRef) -> Result<Option<Metadata>, Failure> {
        let body = match self.body_of(&path(secret, None), decode::METADATA).await {
            Ok(body) => body,
            Err(Failure::NotFound) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        decode::metadata(&body, secret).map(Some).map_err(Failure::Malformed)
    }

    async fn object(
        &self,
        secret: &SecretRef,
        at_least: Option<ResourceVersion>,
        sent: Option<Sent>,
        fields: &Fields,
    ) -> Result<Option<Arc<SecretSnapshot>>, Failure> {
        let body = match self.body_of(&path(secret, at_least), decode::OBJECT).await {
            Ok(body) => body,
            Err(Failure::NotFound) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let builder = decode::secret(&body, secret, fields).map_err(Failure::Malformed)?;
        let snapshot = builder
            .fields(fields.clone())
            .build_validated_at(sent.map(|sent| sent.at));
        Ok(Some(snapshot.into()))
    }

    /// How many Secrets the cluster has, by one request for the metadata of a single one: the answer says how many follow.
    pub(crate) async fn count(&self) -> Result<u64, Failure> {
        let deadline = self.options.deadline;
        let within = tokio::time::timeout(deadline, self.body_of("/api/v1/secrets?limit=1", decode::METADATA_LIST));
        let body = within.await.unwrap_or(Err(Failure::Timeout(deadline)))?;
        decode::count(&body).map_err(Failure::Malformed)
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
                let collected = body::collect(response, limit, &mut self.in_flight.lease()).await;
                collected.map_err(|error| match error {
                    BodyError::TooLarge => Failure::TooLarge(limit),
                    BodyError::MemoryShort => Failure::Unavailable(UnavailableCause::MemoryShort, None),
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
            StatusCode::NOT_FOUND => match body::collect(response, MAX_STATUS_BYTES, &mut self.in_flight.lease()).await
            {
                Ok(body) if decode::is_not_found_status(&body) => Failure::NotFound,
                Ok(_) | Err(BodyError::TooLarge | BodyError::MemoryShort) => {
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

fn path(secret: &SecretRef, at_least: Option<ResourceVersion>) -> String {
    let (namespace, name) = (secret.namespace(), secret.name());
    match at_least {
        None => format!("/api/v1/namespaces/{namespace}/secrets/{name}"),
        Some(version) => format!("/api/v1/namespaces/{namespace}/secrets/{name}?resourceVersion={version}"),
    }
}

/// Whether a server has not reached the version yet that it was asked for.
fn lags_behind(failure: Failure) -> bool {
    is_status(failure, StatusCode::GATEWAY_TIMEOUT)
}

/// Whether the answer was this status, of those that no other failure stands for.
fn is_status(failure: Failure, status: StatusCode) -> bool {
    matches!(failure, Failure::Unavailable(UnavailableCause::Status(code), _) if code == status.as_u16())
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
