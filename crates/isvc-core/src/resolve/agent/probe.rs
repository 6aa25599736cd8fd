//! The server's readiness probe as the agent is told it: JSON in the order and form of Go's encoder, defaults filled in.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{api::Object, json::as_go_writes};

/// A core/v1 Probe that the agent can carry out: by HTTP or by opening a connection.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Probe {
    #[serde(skip_serializing_if = "Option::is_none")]
    http_get: Option<HttpGet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_socket: Option<TcpSocket>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initial_delay_seconds: Option<i64>,
    #[serde(default)]
    timeout_seconds: i64,
    #[serde(default)]
    period_seconds: i64,
    #[serde(default)]
    success_threshold: i64,
    #[serde(default)]
    failure_threshold: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    termination_grace_period_seconds: Option<i64>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct HttpGet {
    #[serde(default)]
    path: String,
    #[serde(default)]
    port: Value,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    host: String,
    #[serde(default)]
    scheme: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    http_headers: Vec<Header>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Header {
    #[serde(default)]
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct TcpSocket {
    #[serde(default)]
    port: Value,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    host: String,
}

impl Probe {
    /// The readiness probe of a container, if it is one the agent can carry out.
    ///
    /// A server without one has the probe that every server gets. One that cannot be read is left to the API server to
    /// refuse.
    pub(super) fn of(container: &Object) -> Option<Self> {
        let mut probe: Self = match container.get("readinessProbe") {
            Some(given) => serde_json::from_value(given.clone()).ok()?,
            None => serde_json::from_value(super::super::pod::default_probe(container)).ok()?,
        };
        if probe.http_get.is_none() && probe.tcp_socket.is_none() {
            return None;
        }
        probe.initial_delay_seconds = probe.initial_delay_seconds.filter(|seconds| *seconds != 0);
        // The defaults of the API server.
        for (field, default) in [
            (&mut probe.timeout_seconds, 1),
            (&mut probe.period_seconds, 10),
            (&mut probe.success_threshold, 1),
            (&mut probe.failure_threshold, 3),
        ] {
            if *field == 0 {
                *field = default;
            }
        }
        if let Some(http) = &mut probe.http_get {
            if http.path.is_empty() {
                "/".clone_into(&mut http.path);
            }
            if http.scheme.is_empty() {
                "HTTP".clone_into(&mut http.scheme);
            }
        }
        Some(probe)
    }

    /// Where the agent itself is asked whether it is ready.
    pub(super) fn path(&self) -> &str {
        self.http_get.as_ref().map_or("/", |http| &http.path)
    }

    /// The text the agent reads.
    pub(super) fn text(&self) -> String {
        let json = serde_json::to_string(self).expect("numbers and text are JSON");
        as_go_writes(&json)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Probe;

    #[track_caller]
    fn check(probe: &Value, expected: Option<(&str, &str)>) {
        let Value::Object(container) = json!({"name": "kserve-container", "readinessProbe": probe}) else {
            unreachable!("it is an object");
        };
        let found = Probe::of(&container);
        let found = found.as_ref().map(|probe| (probe.path(), probe.text()));
        let expected = expected.map(|(path, text)| (path, text.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn defaults_are_filled_in_and_fields_keep_their_order() {
        check(
            &json!({"failureThreshold": 5, "initialDelaySeconds": 2, "tcpSocket": {"port": "http"}}),
            Some((
                "/",
                r#"{"tcpSocket":{"port":"http"},"initialDelaySeconds":2,"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":5}"#,
            )),
        );
        check(
            &json!({"httpGet": {"httpHeaders": [{"name": "A", "value": "b<c"}], "port": 8085, "path": "/ok?a=1&b=2"},
                "timeoutSeconds": 4, "terminationGracePeriodSeconds": 0}),
            Some((
                "/ok?a=1&b=2",
                r#"{"httpGet":{"path":"/ok?a=1\u0026b=2","port":8085,"scheme":"HTTP","httpHeaders":[{"name":"A","value":"b\u003cc"}]},"timeoutSeconds":4,"periodSeconds":10,"successThreshold":1,"failureThreshold":3,"terminationGracePeriodSeconds":0}"#,
            )),
        );
    }

    #[test]
    fn the_agent_cannot_run_commands_nor_speak_grpc() {
        check(&json!({"exec": {"command": ["true"]}}), None);
        check(&json!({"grpc": {"port": 9000}}), None);
        check(&json!("nonsense"), None);
    }
}
