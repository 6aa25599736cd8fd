//! Everything that is logged, at TRACE, to search for what must not be there.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tracing::{Subscriber, level_filters::LevelFilter, subscriber::DefaultGuard};
use tracing_subscriber::{
    Layer,
    fmt::{MakeWriter, format::FmtSpan},
    layer::SubscriberExt,
    registry::LookupSpan,
};

/// The most that is kept. A test that logs more has to look before it gets there.
const LIMIT: usize = 256 << 20;

/// Records events and spans of every target (kube, hyper and tower included) with all their fields.
#[derive(Clone, Debug, Default)]
pub struct CapturedLogs {
    buffer: Arc<Mutex<Buffer>>,
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl CapturedLogs {
    /// An empty record that nothing writes to yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records the whole process, every thread and runtime of it, from now on; the same record for every caller. Records
    /// of the `log` crate are included.
    ///
    /// # Panics
    ///
    /// When something else in the process has set a global subscriber.
    pub fn of_process() -> &'static Self {
        static LOGS: OnceLock<CapturedLogs> = OnceLock::new();
        LOGS.get_or_init(|| {
            let logs = Self::new();
            tracing_log::LogTracer::init().expect("nobody else takes the records of the log crate");
            tracing::subscriber::set_global_default(logs.subscriber()).expect("nobody else sets a global subscriber");
            logs
        })
    }

    /// Records the current thread until the guard is dropped; enough for a test on a current-thread runtime.
    #[must_use = "recording ends when the guard is dropped"]
    pub fn of_thread(&self) -> DefaultGuard {
        tracing::subscriber::set_default(self.subscriber())
    }

    /// The recording layer, for a subscriber of the test's own.
    #[must_use]
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_target(true)
            // A field may be recorded on a span that has no event inside.
            .with_span_events(FmtSpan::FULL)
            .with_writer(self.clone())
            .with_filter(LevelFilter::TRACE)
    }

    fn subscriber(&self) -> impl Subscriber + Send + Sync + use<> {
        tracing_subscriber::registry().with(self.layer())
    }

    /// Everything so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.buffer().bytes).into_owned()
    }

    /// Whether `needle` was logged.
    ///
    /// # Panics
    ///
    /// When so much was logged that some of it is not here: "not found" would mean nothing.
    #[must_use]
    pub fn contains(&self, needle: &str) -> bool {
        let buffer = self.buffer();
        assert!(
            !buffer.overflowed,
            "more than {LIMIT} bytes were logged; look earlier, or clear"
        );
        String::from_utf8_lossy(&buffer.bytes).contains(needle)
    }

    /// Forgets everything so far.
    pub fn clear(&self) {
        *self.buffer() = Buffer::default();
    }

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for CapturedLogs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut buffer = self.buffer();
        if buffer.bytes.len() + bytes.len() > LIMIT {
            buffer.overflowed = true;
        } else {
            buffer.bytes.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for CapturedLogs {
    type Writer = Self;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::CapturedLogs;
    use crate::fake_api::{FakeApi, Fault, RequestMatch, Times};

    #[test]
    fn events_and_fields_of_spans_are_recorded_while_the_guard_lives() {
        let logs = CapturedLogs::new();
        let guard = logs.of_thread();
        tracing::trace!(target: "hyper::proto", needle = "in-an-event", "message");
        tracing::trace_span!("lonely", needle = "in-a-span").in_scope(|| {});
        drop(guard);
        tracing::error!("after");
        assert!(logs.contains("in-an-event") && logs.contains("in-a-span") && logs.contains("hyper::proto"));
        assert!(!logs.contains("after"));
        logs.clear();
        assert!(!logs.contains("in-an-event"));
    }

    #[tokio::test]
    async fn what_kube_logs_is_recorded() {
        use k8s_openapi::api::core::v1::Secret;

        // kube logs a body it cannot decode: the very leak that this module is there to find.
        let logs = CapturedLogs::new();
        let _guard = logs.of_thread();
        let api = FakeApi::new();
        let body = r#"{"kind":"Secret","metadata":{"name":7},"stringData":"planted-value"}"#;
        api.inject(RequestMatch::any(), Times::Always, Fault::status(200).body(body));
        let secrets: kube::Api<Secret> = kube::Api::namespaced(api.client(), "a");
        assert!(secrets.get("x").await.is_err());
        assert!(logs.contains("planted-value"), "{}", logs.text());
    }
}
