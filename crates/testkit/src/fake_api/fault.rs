//! Faults: what goes wrong, with which requests, how often.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use tokio::sync::watch;

use super::request::RecordedRequest;

/// Which requests a fault is for. Unset parts match anything.
#[derive(Clone, Debug, Default)]
pub struct RequestMatch {
    verb: Option<String>,
    resource: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    metadata_only: Option<bool>,
    with_resource_version: Option<bool>,
}

impl RequestMatch {
    /// Every request.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// Requests with this verb: `get`, `list`, `watch` or `create`.
    #[must_use]
    pub fn verb(verb: &str) -> Self {
        Self {
            verb: Some(verb.to_owned()),
            ..Self::default()
        }
    }

    /// Only for this resource, by its plural name.
    #[must_use]
    pub fn resource(self, resource: &str) -> Self {
        Self {
            resource: Some(resource.to_owned()),
            ..self
        }
    }

    /// Only in this namespace.
    #[must_use]
    pub fn namespace(self, namespace: &str) -> Self {
        Self {
            namespace: Some(namespace.to_owned()),
            ..self
        }
    }

    /// Only for the object of this name.
    #[must_use]
    pub fn named(self, namespace: &str, name: &str) -> Self {
        Self {
            name: Some(name.to_owned()),
            ..self.namespace(namespace)
        }
    }

    /// Only requests that ask for metadata (`true`) or for whole objects (`false`).
    #[must_use]
    pub fn metadata_only(self, metadata_only: bool) -> Self {
        Self {
            metadata_only: Some(metadata_only),
            ..self
        }
    }

    /// Only requests with (`true`) or without (`false`) a `resourceVersion` parameter.
    #[must_use]
    pub fn with_resource_version(self, present: bool) -> Self {
        Self {
            with_resource_version: Some(present),
            ..self
        }
    }

    fn matches(&self, request: &RecordedRequest) -> bool {
        self.verb.as_ref().is_none_or(|verb| *verb == request.verb)
            && self
                .resource
                .as_ref()
                .is_none_or(|resource| *resource == request.resource)
            && (self.namespace.is_none() || self.namespace == request.namespace)
            && (self.name.is_none() || self.name == request.name)
            && self
                .metadata_only
                .is_none_or(|wanted| wanted == request.metadata_only())
            && self
                .with_resource_version
                .is_none_or(|wanted| wanted == request.query("resourceVersion").is_some())
    }
}

/// How often a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// For this many matching requests.
    N(usize),
    /// Until [`clear_faults`](super::FakeApi::clear_faults).
    Always,
}

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// An answer of the test's own: see [`Fault::status`].
    Status {
        /// The status code.
        code: StatusCode,
        /// Further headers.
        headers: Vec<(String, String)>,
        /// The body; a `Status` object that fits the code when `None`.
        body: Option<String>,
    },
    /// No answer, ever.
    Hang,
    /// The request takes this long to arrive; the store is read then.
    Delay(Duration),
    /// The store is read at once; the answer takes this long to come back.
    DelayAnswer(Duration),
    /// The request waits at a gate before the store is read.
    HoldRequest(Gate),
    /// The answer, already computed, waits at a gate.
    HoldAnswer(Gate),
    /// The connection closes before an answer.
    Close,
    /// Half of the body, then the connection breaks.
    Truncated,
    /// Half of the body, then a regular end.
    CutShort,
    /// Half of the body, then silence.
    StalledBody,
    /// A Secret whose data makes the body this many bytes long, and more; produced as it is pulled.
    Oversized {
        /// The least size of the body.
        bytes: u64,
        /// Whether a `content-length` header announces it.
        declared: bool,
    },
    /// The right object under a foreign kind.
    WrongKind,
    /// 200 with a body that is not JSON.
    Garbage,
}

impl Fault {
    /// An answer with this code and a `Status` body that fits it.
    ///
    /// # Panics
    ///
    /// When `code` is no HTTP status code.
    #[must_use]
    pub fn status(code: u16) -> Self {
        let code = StatusCode::from_u16(code).expect("a fault's status code is between 100 and 999");
        Self::Status {
            code,
            headers: Vec::new(),
            body: None,
        }
    }

    /// Adds a header to a [`Fault::status`]; no effect on others.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Self::Status { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Replaces the body of a [`Fault::status`]; no effect on others.
    #[must_use]
    pub fn body(mut self, text: &str) -> Self {
        if let Self::Status { body, .. } = &mut self {
            *body = Some(text.to_owned());
        }
        self
    }
}

/// A planned fault.
pub(super) struct Plan {
    when: RequestMatch,
    left: Times,
    fault: Fault,
}

impl Plan {
    pub(super) fn new(when: RequestMatch, times: Times, fault: Fault) -> Self {
        Self {
            when,
            left: times,
            fault,
        }
    }

    /// The fault for this request, if it is meant; counts it.
    pub(super) fn strike(&mut self, request: &RecordedRequest) -> Option<Fault> {
        if !self.when.matches(request) {
            return None;
        }
        match &mut self.left {
            Times::N(0) => return None,
            Times::N(left) => *left -= 1,
            Times::Always => {}
        }
        Some(self.fault.clone())
    }
}

/// Holds requests or answers until the test lets them go.
#[derive(Clone, Debug)]
pub struct Gate {
    open: Arc<watch::Sender<bool>>,
    waiting: Arc<watch::Sender<usize>>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            open: Arc::new(watch::Sender::new(false)),
            waiting: Arc::new(watch::Sender::new(0)),
        }
    }

    /// How many requests have come to the gate so far, gone ones included.
    #[must_use]
    pub fn arrived(&self) -> usize {
        *self.waiting.borrow()
    }

    /// Waits until `count` requests have come to the gate. The caller sets the deadline.
    pub async fn wait_for(&self, count: usize) {
        let mut waiting = self.waiting.subscribe();
        // The sender lives in `self`, so this cannot end by closing.
        let _ = waiting.wait_for(|arrived| *arrived >= count).await;
    }

    /// Opens the gate for those that wait and those to come.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    pub(super) async fn pass(&self) {
        self.waiting.send_modify(|arrived| *arrived += 1);
        let mut open = self.open.subscribe();
        let _ = open.wait_for(|open| *open).await;
    }
}
