//! The requests of the policy controller, each with a deadline. What `Retry-After` says is obeyed, in the header too, where
//! the API server's own flow control puts it.
//!
//! A pass is a chain of requests, and where every other one fails no chain comes to its end. So those of passes are repeated
//! a few times before the pass counts as failed: all of them may be carried out twice without harm.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, header::RETRY_AFTER};
use isvc_core::names::FIELD_MANAGER;
use kube::{
    Client,
    api::{
        DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions, Request, WatchEvent,
        WatchParams,
    },
    client::Body,
    core::Status,
};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    kinds::{Child, Kind, Meta, Page},
    lane::Lane,
};
use crate::error::{Fault, FaultKind};

/// Objects in one page of a list.
const PAGE_SIZE: u32 = 250;

/// Of those that people write as a whole: one may have hundreds of kilobytes.
const WRITTEN_PAGE_SIZE: u32 = 25;

/// Sends requests in a lane.
#[derive(Clone)]
pub(super) struct Requests {
    client: Client,
    lane: Arc<Lane>,
    /// How often one is repeated.
    repeats: u32,
}

/// The wait before a repetition is between nothing and this, doubled from try to try.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const MOST_WAIT: Duration = Duration::from_secs(2);

/// Whether whole objects are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Whole,
    Metadata,
}

impl Requests {
    pub(super) fn new(client: Client, lane: Arc<Lane>) -> Self {
        Self {
            client,
            lane,
            repeats: 0,
        }
    }

    /// Repeats what fails for reasons that may pass by themselves, so many times.
    pub(super) fn repeating(self, repeats: u32) -> Self {
        Self { repeats, ..self }
    }

    /// An object as it is now; none where there is none.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        kind: Kind,
        name: &str,
        form: Form,
    ) -> Result<Option<T>, Fault> {
        let (path, parameters) = (Request::new(kind.path()), GetParams::default());
        let request = match form {
            Form::Whole => path.get(name, &parameters),
            Form::Metadata => path.get_metadata(name, &parameters),
        };
        match self.send(request).await {
            Ok(object) => Ok(Some(object)),
            Err(fault) if fault.kind == FaultKind::NotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// One page of a list that is as new as the moment its first page was asked for; `token` is where it goes on.
    pub(super) async fn page<T: DeserializeOwned>(
        &self,
        kind: Kind,
        labels: &str,
        token: &str,
        form: Form,
    ) -> Result<Page<T>, Fault> {
        let limit = match (kind, form) {
            (Kind::InferencePolicy | Kind::InferencePolicyTemplate, Form::Whole) => WRITTEN_PAGE_SIZE,
            _ => PAGE_SIZE,
        };
        self.page_of(kind, labels, token, limit, form).await
    }

    /// At most `limit` objects.
    pub(super) async fn page_of<T: DeserializeOwned>(
        &self,
        kind: Kind,
        labels: &str,
        token: &str,
        limit: u32,
        form: Form,
    ) -> Result<Page<T>, Fault> {
        let mut parameters = ListParams::default().limit(limit);
        if !labels.is_empty() {
            parameters = parameters.labels(labels);
        }
        if !token.is_empty() {
            parameters = parameters.continue_token(token);
        }
        let path = Request::new(kind.path());
        let request = match form {
            Form::Whole => path.list(&parameters),
            Form::Metadata => path.list_metadata(&parameters),
        };
        self.send(request).await
    }

    /// Makes an object what it should be by server-side apply, taking over whatever others have written there.
    pub(super) async fn apply<T: DeserializeOwned>(
        &self,
        kind: Kind,
        object: &Value,
        dry_run: bool,
    ) -> Result<T, Fault> {
        let mut parameters = PatchParams::apply(FIELD_MANAGER).force();
        parameters.dry_run = dry_run;
        let request = Request::new(kind.path()).patch(name(object), &parameters, &Patch::Apply(object));
        self.send(request).await
    }

    /// As [`apply`](Self::apply), of the status.
    pub(super) async fn apply_status(&self, kind: Kind, object: &Value) -> Result<Meta, Fault> {
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let path = Request::new(kind.path());
        let request = path.patch_subresource("status", name(object), &parameters, &Patch::Apply(object));
        self.send::<Child>(request).await.map(|object| object.metadata)
    }

    /// Puts an object in the place of the one with the same name, if that has not changed since.
    pub(super) async fn replace<T: DeserializeOwned>(&self, kind: Kind, object: &Value) -> Result<T, Fault> {
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            dry_run: false,
        };
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        self.send(Request::new(kind.path()).replace(name(object), &parameters, body))
            .await
    }

    /// Deletes exactly the version of an object that was seen: neither another one of the same name nor a later version,
    /// which may belong to somebody else.
    pub(super) async fn delete(&self, kind: Kind, seen: &Meta) -> Result<(), Fault> {
        let parameters = DeleteParams::background().preconditions(Preconditions {
            uid: Some(seen.uid.to_string()),
            resource_version: Some(seen.resource_version.to_string()),
        });
        let request = Request::new(kind.path()).delete(&seen.name, &parameters);
        self.send::<IgnoredAny>(request).await.map(drop)
    }

    /// Deletes all objects with these labels.
    pub(super) async fn delete_collection(&self, kind: Kind, labels: &str) -> Result<(), Fault> {
        let selected = ListParams::default().labels(labels);
        let request = Request::new(kind.path()).delete_collection(&DeleteParams::background(), &selected);
        self.send::<IgnoredAny>(request).await.map(drop)
    }

    /// Any other request.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, Fault> {
        let request = request.map_err(kube::Error::BuildRequest)?;
        let mut tries = 0;
        loop {
            let permit = self.lane.enter().await;
            let sent = Instant::now();
            let answer = self.exchange(request.clone()).await;
            self.lane.left(sent, answer.as_ref().err().map(|fault| fault.kind));
            drop(permit);
            match answer {
                Err(fault) if tries < self.repeats && may_pass(&fault, request.method()) => {
                    let most = FIRST_WAIT.saturating_mul(1 << tries.min(10)).min(MOST_WAIT);
                    let wait = most.mul_f64(fastrand::f64()).max(fault.retry_after.unwrap_or_default());
                    sleep(wait.min(MOST_WAIT)).await;
                    tries += 1;
                }
                answer => return Ok(serde_json::from_slice(&answer?).map_err(kube::Error::SerdeError)?),
            }
        }
    }

    async fn exchange(&self, request: http::Request<Vec<u8>>) -> Result<Bytes, Fault> {
        let answer = self.client.send(request.map(Body::from)).await?;
        let (head, body) = answer.into_parts();
        let body = body.collect_bytes().await?;
        if head.status.is_success() {
            return Ok(body);
        }
        // The API server's flow control answers in plain text.
        let status = serde_json::from_slice::<Status>(&body).unwrap_or_else(|_| {
            let text = String::from_utf8_lossy(&body);
            Status::failure(text.trim(), head.status.canonical_reason().unwrap_or_default())
        });
        let fault = Fault::from(kube::Error::Api(status.with_code(head.status.as_u16()).boxed()));
        Err(Fault {
            retry_after: fault.retry_after.max(retry_after(&head.headers)),
            ..fault
        })
    }

    /// What happens to objects with these labels from a version on.
    pub(super) async fn watch<T: DeserializeOwned + Clone>(
        &self,
        kind: Kind,
        labels: &str,
        version: &str,
        form: Form,
    ) -> Result<impl futures::Stream<Item = Result<WatchEvent<T>, kube::Error>> + use<T>, Fault> {
        let mut parameters = WatchParams::default().timeout(WATCH_SECONDS);
        if !labels.is_empty() {
            parameters = parameters.labels(labels);
        }
        let path = Request::new(kind.path());
        let request = match form {
            Form::Whole => path.watch(&parameters, version),
            Form::Metadata => path.watch_metadata(&parameters, version),
        };
        let request = request.map_err(kube::Error::BuildRequest)?;
        Ok(self.client.request_events(request).await?)
    }
}

/// How long the API server keeps a watch; kube refuses 295 s and more.
pub(super) const WATCH_SECONDS: u32 = 290;

/// Whether the same request may succeed a moment later. A patch is an apply here, which overrides what others have written.
fn may_pass(fault: &Fault, method: &Method) -> bool {
    match fault.kind {
        FaultKind::Throttled | FaultKind::Timeout | FaultKind::Unavailable => true,
        FaultKind::Conflict => *method == Method::PATCH,
        FaultKind::NotFound
        | FaultKind::Forbidden
        | FaultKind::Invalid
        | FaultKind::Expired
        | FaultKind::Unauthorized
        | FaultKind::Malformed
        | FaultKind::NotLeading => false,
    }
}

/// Seconds, as the API server writes them. The other form of the header, a date, is not obeyed.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// The name of an object of ours.
pub(super) fn name(object: &Value) -> &str {
    object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}
