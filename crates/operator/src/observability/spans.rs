//! Spans of passes and requests, for traces. Without the feature `otlp` there are none.

use tracing::Span;

use crate::key::ObjectKey;

/// The target of all spans, by which they are told from those of other crates.
#[cfg(feature = "otlp")]
pub(crate) const TARGET: &str = "leanserve::span";

/// A pass over a service.
#[cfg(feature = "otlp")]
pub(crate) fn pass(key: &ObjectKey) -> Span {
    tracing::info_span!(
        target: TARGET,
        "pass",
        k8s.namespace.name = key.namespace(),
        leanserve.inferenceservice.name = key.name(),
        leanserve.result = tracing::field::Empty,
    )
}

/// A request to the API server. The query is left out: it may be long, and says nothing about what was asked for.
#[cfg(feature = "otlp")]
pub(crate) fn request<B>(request: &http::Request<B>) -> Span {
    tracing::info_span!(
        target: TARGET,
        "request",
        otel.kind = "client",
        http.request.method = request.method().as_str(),
        url.path = request.uri().path(),
        http.response.status_code = tracing::field::Empty,
        error.type = tracing::field::Empty,
    )
}

#[cfg(not(feature = "otlp"))]
pub(crate) fn pass(_: &ObjectKey) -> Span {
    Span::none()
}

#[cfg(not(feature = "otlp"))]
pub(crate) fn request<B>(_: &http::Request<B>) -> Span {
    Span::none()
}

/// How the pass of a span has ended.
pub(crate) fn ended(span: &Span, result: &'static str) {
    span.record("leanserve.result", result);
}

/// What the request of a span was answered with; none where no answer came.
pub(crate) fn answered(span: &Span, status: Option<http::StatusCode>) {
    match status {
        Some(status) => span.record("http.response.status_code", status.as_u16()),
        None => span.record("error.type", "no_answer"),
    };
}
