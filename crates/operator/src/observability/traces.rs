//! Traces, sent by OTLP over HTTP to where the standard environment variables say.
//!
//! Sources: "OpenTelemetry Protocol Exporter" and "Environment Variable Specification" of `OpenTelemetry`.

use std::{env, fmt, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError, hyper::HyperClient};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tokio::runtime::Handle;
use tracing_subscriber::{Layer, Registry, filter::filter_fn};

use super::spans;
use crate::stopping::SPANS;

const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const DISABLED: &str = "OTEL_SDK_DISABLED";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";

/// The longest a request to the collector may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends spans until it is ended.
pub(crate) struct Traces {
    provider: SdkTracerProvider,
}

/// Starts to send spans if an endpoint is configured. `runtime` does the sending.
pub(crate) fn start(runtime: &Handle) -> Result<Option<Traces>, ExporterBuildError> {
    let is_set = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let disabled = env::var(DISABLED).is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    if disabled || !ENDPOINTS.iter().any(is_set) {
        return Ok(None);
    }
    Traces::new(runtime, None).map(Some)
}

impl Traces {
    /// `endpoint` in place of the environment's.
    fn new(runtime: &Handle, endpoint: Option<&str>) -> Result<Self, ExporterBuildError> {
        let client = OnRuntime {
            client: HyperClient::with_default_connector(REQUEST_TIMEOUT, None),
            runtime: runtime.clone(),
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary);
        let exporter = match endpoint {
            Some(endpoint) => exporter.with_endpoint(endpoint),
            None => exporter,
        };
        let resource = Resource::builder().with_attribute(opentelemetry::KeyValue::new(
            "service.version",
            env!("CARGO_PKG_VERSION"),
        ));
        let resource = if env::var_os(SERVICE_NAME).is_some() {
            resource
        } else {
            resource.with_service_name("leanserve")
        };
        let provider = SdkTracerProvider::builder()
            // A bounded queue: spans that do not fit are dropped.
            .with_batch_exporter(exporter.build()?)
            .with_resource(resource.build())
            .build();
        Ok(Self { provider })
    }

    /// Takes in spans: ours, and nothing of other crates.
    pub(crate) fn layer(&self) -> Box<dyn Layer<Registry> + Send + Sync> {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("leanserve"))
            .with_location(false)
            .with_threads(false)
            .with_filter(filter_fn(|meta| meta.target() == spans::TARGET))
            .boxed()
    }

    /// Sends what is left, for as long as the end of the process may take.
    pub(crate) async fn end(self) {
        // The runtime does the sending, so its thread must not wait.
        let ending = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(SPANS));
        if !matches!(tokio::time::timeout(SPANS, ending).await, Ok(Ok(Ok(())))) {
            tracing::warn!("some spans were not sent");
        }
    }
}

/// Sends requests on the operator's runtime: the exporter has a thread without one.
struct OnRuntime {
    client: HyperClient,
    runtime: Handle,
}

#[async_trait::async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sending = self.runtime.spawn(async move { client.send_bytes(request).await });
        sending.await?
    }
}

impl fmt::Debug for OnRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnRuntime").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http_body_util::{BodyExt, Full};
    use hyper::{body::Incoming, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;
    use tracing::Instrument;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::key::ObjectKey;

    type Received = Arc<Mutex<Vec<(String, Bytes)>>>;

    /// A collector: keeps path and body of each request.
    async fn collector() -> (String, Received) {
        let received = Received::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let kept = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                let answer = service_fn(move |request: Request<Incoming>| {
                    let kept = Arc::clone(&kept);
                    async move {
                        let path = request.uri().path().to_owned();
                        let body = request.into_body().collect().await?.to_bytes();
                        kept.lock().expect("no panic while it is held").push((path, body));
                        Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::new())))
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        (format!("http://{address}/v1/traces"), received)
    }

    #[tokio::test]
    async fn the_spans_of_a_pass_arrive_and_nothing_else() {
        let (endpoint, received) = collector().await;
        let traces = Traces::new(&Handle::current(), Some(&endpoint)).expect("a valid endpoint");
        let subscriber = tracing_subscriber::registry().with(traces.layer());
        let guard = tracing::subscriber::set_default(subscriber);
        let pass = spans::pass(&ObjectKey::new("models", "iris"));
        async {
            let request = Request::get("https://10.0.0.1/apis/apps/v1/deployments?labelSelector=left-out");
            let span = spans::request(&request.body(()).expect("valid"));
            spans::answered(&span, Some(http::StatusCode::OK));
            tracing::info_span!("of_another_target").in_scope(|| tracing::warn!("a line of the log"));
        }
        .instrument(pass.clone())
        .await;
        spans::ended(&pass, "success");
        drop(pass);
        drop(guard);
        traces.end().await;
        let received = received.lock().expect("no panic while it is held");
        assert!(!received.is_empty() && received.iter().all(|(path, _)| path == "/v1/traces"));
        let bodies: Vec<u8> = received.iter().flat_map(|(_, body)| body.to_vec()).collect();
        // Texts are in protobuf as they are.
        let text = String::from_utf8_lossy(&bodies);
        let there = [
            "pass",
            "models",
            "iris",
            "success",
            "GET",
            "/apis/apps/v1/deployments",
            "leanserve",
        ];
        for part in there {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        for part in ["left-out", "of_another_target", "a line of the log"] {
            assert!(!text.contains(part), "{part} is in {text}");
        }
    }
}
