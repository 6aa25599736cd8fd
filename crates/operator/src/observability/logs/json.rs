//! Log lines as JSON, one object a line, with the keys of operators written in Go.
//!
//! Source of `ts`, `level`, `logger`, `msg` and `error`: the log lines of sigs.k8s.io/controller-runtime. All keys are in
//! `docs/logs.md`.

use std::fmt;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// Where an event keeps its text.
const MESSAGE: &str = "message";

/// Writes events as lines of JSON.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let meta = event.metadata();
        let head = [
            ("ts", now()),
            ("level", level(*meta.level()).to_owned()),
            ("logger", logger(meta.target())),
            ("msg", fields.message),
        ];
        // One by one, because the order of the first four is part of what readers of raw lines are used to.
        let head = head.map(|(key, value)| (key.to_owned(), Value::String(value)));
        let mut separator = '{';
        for (key, value) in head.into_iter().chain(fields.rest) {
            write!(writer, "{separator}{}:{value}", Value::String(key))?;
            separator = ',';
        }
        writer.write_str("}\n")
    }
}

/// RFC 3339, in UTC and to the millisecond.
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

const fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// The module, with dots as other operators have them.
fn logger(target: &str) -> String {
    target.replace("::", ".")
}

/// The fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    rest: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            (MESSAGE, Value::String(text)) => self.message = text,
            (name, value) => {
                self.rest.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}
