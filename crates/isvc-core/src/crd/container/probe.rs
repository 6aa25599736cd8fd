//! Probes, hooks and restart rules: what happens to a container while it runs.

use super::ContainerShape;
use crate::crd::schema::{
    Field, Schema, field, int_or_string, int32, int64, integers, item, list, object, required, string, strings,
};

/// Whether a field is demanded.
type FieldOf = fn(&'static str, Schema) -> Field;

/// When a probe runs, which decides whether its ports may be left to the operator.
#[derive(Clone, Copy)]
pub(super) enum Probed {
    /// Until it passes once.
    Starting,
    /// As long as a container of this shape runs.
    Running(ContainerShape),
}

impl Probed {
    fn http_port(self) -> FieldOf {
        match self {
            Self::Starting | Self::Running(ContainerShape::Core) => required,
            Self::Running(ContainerShape::Component | ContainerShape::Inlined) => field,
        }
    }

    fn tcp_port(self) -> FieldOf {
        match self {
            Self::Running(ContainerShape::Inlined) => field,
            Self::Starting | Self::Running(ContainerShape::Core | ContainerShape::Component) => required,
        }
    }
}

/// A probe.
pub(super) fn probe(description: &str, probed: Probed) -> Schema {
    object(
        description,
        [
            field("httpGet", http_get(probed.http_port())),
            field("tcpSocket", tcp_socket(probed.tcp_port())),
            field("exec", exec()),
            field(
                "grpc",
                object(
                    "Ask the gRPC health service.",
                    [
                        required("port", int32("Port number.")),
                        field("service", string("Service name in the health request.").default("")),
                    ],
                ),
            ),
            field("initialDelaySeconds", int32("Seconds from start to first probe.")),
            field("periodSeconds", int32("Seconds between probes.")),
            field("timeoutSeconds", int32("Seconds until a probe counts as failed.")),
            field("successThreshold", int32("Successes in a row to pass.")),
            field("failureThreshold", int32("Failures in a row to fail.")),
            field(
                "terminationGracePeriodSeconds",
                int64("Grace period of a restart after failure."),
            ),
        ],
    )
}

fn http_get(port: FieldOf) -> Schema {
    object(
        "Send an HTTP GET.",
        [
            port("port", int_or_string("Port number or name.")),
            field("path", string("Path to ask for.")),
            field("host", string("Host; the Pod's address if empty.")),
            field("scheme", string("HTTP or HTTPS.")),
            field(
                "httpHeaders",
                list(
                    "Headers to send.",
                    item([
                        required("name", string("Header name.")),
                        required("value", string("Header value.")),
                    ]),
                )
                .atomic(),
            ),
        ],
    )
}

fn tcp_socket(port: FieldOf) -> Schema {
    object(
        "Open a TCP connection.",
        [
            port("port", int_or_string("Port number or name.")),
            field("host", string("Host; the Pod's address if empty.")),
        ],
    )
}

fn exec() -> Schema {
    object(
        "Run a command in the container.",
        [field(
            "command",
            strings("Command and arguments, without a shell.").atomic(),
        )],
    )
}

/// Hooks.
pub(super) fn lifecycle() -> Schema {
    let hook = |description: &str| {
        object(
            description,
            [
                field("exec", exec()),
                field("httpGet", http_get(required)),
                field("tcpSocket", tcp_socket(required)),
                field(
                    "sleep",
                    object("Wait.", [required("seconds", int64("Seconds to wait."))]),
                ),
            ],
        )
    };
    object(
        "Hooks around the container's life.",
        [
            field("postStart", hook("Run right after the start.")),
            field("preStop", hook("Run before the container is told to stop.")),
            field("stopSignal", string("Signal that asks the container to stop.")),
        ],
    )
}

/// A restart decision.
pub(super) fn restart_rule() -> Schema {
    item([
        required("action", string("Restart, or RestartAllContainers.")),
        field(
            "exitCodes",
            object(
                "Exit codes the rule is about.",
                [
                    required("operator", string("In or NotIn.")),
                    field("values", integers("Exit codes.", "int32").set()),
                ],
            ),
        ),
    ])
}
