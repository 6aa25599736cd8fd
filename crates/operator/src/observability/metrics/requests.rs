//! Requests to the API server, by the names that dashboards for client-go know.
//!
//! Source of names, labels and buckets: `metrics/prometheus/restclient` of k8s.io/component-base.

use std::{sync::OnceLock, time::Duration};

use super::catalog::{Catalog, CounterBy, HistogramBy, Label};

/// Upper bounds of the buckets for the time an answer takes, in seconds.
const SECONDS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];

/// In place of a status where no answer came.
const NO_ANSWER: &str = "<error>";

/// What an API server answers with. Other codes are counted by their class.
const CODES: [(u16, &str); 24] = [
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (204, "204"),
    (304, "304"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (406, "406"),
    (408, "408"),
    (409, "409"),
    (410, "410"),
    (412, "412"),
    (413, "413"),
    (415, "415"),
    (422, "422"),
    (429, "429"),
    (500, "500"),
    (501, "501"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

const METHODS: [&str; 6] = ["DELETE", "GET", "OTHER", "PATCH", "POST", "PUT"];

const CODE: Label = Label::closed("code", || {
    let codes = CODES.iter().map(|(_, name)| *name);
    codes.chain(CLASSES).chain([NO_ANSWER]).collect()
});
const METHOD: Label = Label::closed("method", || METHODS.to_vec());
const VERB: Label = Label::closed("verb", || METHODS.to_vec());
const HOST: Label = Label::constant("host", "host and port of the API server");

/// Counts and times requests.
pub(crate) struct RequestMetrics {
    requests: CounterBy<3>,
    seconds: HistogramBy<2>,
    host: OnceLock<&'static str>,
}

impl RequestMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        Self {
            requests: catalog.counter_by(
                "rest_client_requests_total",
                "Requests to the API server, by status code (<error> where no answer came) and method",
                [CODE, METHOD, HOST],
            ),
            seconds: catalog.histogram_by(
                "rest_client_request_duration_seconds",
                "Time until the head of the API server's answer, of those that came",
                [VERB, HOST],
                &SECONDS,
            ),
            host: OnceLock::new(),
        }
    }

    /// Where the API server is. The first one is that of all requests.
    pub(crate) fn host_is(&self, host: &str) {
        // Labels are static texts; this is the only one that is not known at compile time, and a process has one.
        self.host.get_or_init(|| Box::leak(Box::from(host)));
    }

    /// A request has ended; `code` is none where no answer came.
    pub(crate) fn ended(&self, method: &http::Method, code: Option<http::StatusCode>, took: Duration) {
        let host = self.host.get().copied().unwrap_or_default();
        let method = method_name(method);
        self.requests
            .with([code.map_or(NO_ANSWER, code_name), method, host])
            .inc();
        if code.is_some() {
            self.seconds.with([method, host]).observe(took.as_secs_f64());
        }
    }
}

fn code_name(code: http::StatusCode) -> &'static str {
    let code = code.as_u16();
    let known = CODES.iter().find(|(known, _)| *known == code).map(|(_, name)| *name);
    known.unwrap_or_else(|| {
        let class = usize::from(code / 100).saturating_sub(1);
        CLASSES.get(class).copied().unwrap_or(NO_ANSWER)
    })
}

fn method_name(method: &http::Method) -> &'static str {
    let name = method.as_str();
    METHODS.into_iter().find(|known| *known == name).unwrap_or("OTHER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_a_closed_set() {
        for (code, expected) in [(200, "200"), (409, "409"), (507, "5xx"), (418, "4xx"), (999, NO_ANSWER)] {
            let status = http::StatusCode::from_u16(code).expect("valid");
            assert_eq!(code_name(status), expected);
        }
        assert!(CODES.iter().all(|(code, name)| code.to_string() == *name));
    }

    #[test]
    fn methods_are_a_closed_set() {
        assert_eq!(method_name(&http::Method::PATCH), "PATCH");
        assert_eq!(method_name(&http::Method::TRACE), "OTHER");
    }
}
