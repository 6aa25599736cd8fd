//! The core Container, in the variations the serving kinds use.

mod probe;
mod security;

use super::schema::{
    Field, Schema, boolean, field, int32, item, list, object, quantities, quantity, required, string, string_map,
    strings,
};
use probe::{Probed, lifecycle, probe, restart_rule};
use security::security_context;
pub(super) use security::shared_security_fields;

/// Which of a Container's fields are demanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContainerShape {
    /// As Kubernetes has it: `name` and the ports of probes are needed.
    Core,
    /// A container of a component: the server may leave its name, and an HTTP probe its port, to the operator.
    Component,
    /// Inlined into `model` and its like, where the runtime's container gives the name.
    Inlined,
}

/// The fields of a container.
pub(super) fn fields(shape: ContainerShape) -> Vec<Field> {
    let name = match shape {
        ContainerShape::Core => required("name", string("Name of the container, unique in the Pod.")),
        ContainerShape::Component => field(
            "name",
            string("Name of the container; kserve-container is the server, and the first one if it has no name."),
        ),
        ContainerShape::Inlined => field("name", string("Leave empty: the runtime's container gives the name.")),
    };
    let mut all = vec![
        name,
        field("image", string("Image to run.")),
        field(
            "imagePullPolicy",
            string("When to pull the image: Always, IfNotPresent or Never."),
        ),
        field("command", strings("Entry point; replaces that of the image.").atomic()),
        field("args", strings("Arguments of the entry point.").atomic()),
        field("workingDir", string("Working directory of the entry point.")),
        field("env", list("Environment variables.", env_var()).keyed_by(&["name"])),
        field(
            "envFrom",
            list(
                "ConfigMaps and Secrets whose keys become environment variables.",
                env_source(),
            )
            .atomic(),
        ),
        field(
            "ports",
            list("Ports the container listens on.", port()).keyed_by(&["containerPort", "protocol"]),
        ),
        field("resources", resources("Compute resources of the container.")),
        field(
            "resizePolicy",
            list(
                "What a resize of resources in place does to the container.",
                resize_policy(),
            )
            .atomic(),
        ),
        field(
            "volumeMounts",
            list("Volumes mounted as directories or files.", volume_mount()).keyed_by(&["mountPath"]),
        ),
        field(
            "volumeDevices",
            list("Volumes attached as block devices.", volume_device()).keyed_by(&["devicePath"]),
        ),
        field("securityContext", security_context()),
        field("stdin", boolean("Keep a buffer for standard input.")),
        field(
            "stdinOnce",
            boolean("Close standard input after the first attach ends."),
        ),
        field("tty", boolean("Allocate a terminal; needs stdin.")),
    ];
    all.extend(life(shape));
    all
}

/// What is watched while the container runs, and what follows from it.
fn life(shape: ContainerShape) -> Vec<Field> {
    vec![
        field(
            "livenessProbe",
            probe("Failing it restarts the container.", Probed::Running(shape)),
        ),
        field(
            "readinessProbe",
            probe("Passing it lets Services send traffic.", Probed::Running(shape)),
        ),
        field(
            "startupProbe",
            probe("Holds the other probes back until it passes.", Probed::Starting),
        ),
        field("lifecycle", lifecycle()),
        field(
            "restartPolicy",
            string("Restart policy of this container; Always makes an init container a sidecar."),
        ),
        field(
            "restartPolicyRules",
            list("Restart decisions by exit code, first match wins.", restart_rule()).atomic(),
        ),
        field(
            "terminationMessagePath",
            string("File the container's last words are read from."),
        ),
        field(
            "terminationMessagePolicy",
            string("File, or FallbackToLogsOnError to use the log's end."),
        ),
    ]
}

/// A reference to an object of the same namespace by name.
pub(super) fn local_reference(description: &str) -> Schema {
    object(description, [field("name", string("Name of the object.").default(""))]).atomic()
}

/// One environment variable.
pub(super) fn env_var() -> Schema {
    let key = |description: &str, what: &str| {
        object(
            description,
            [
                required("key", string("Key to read.")),
                field("name", string(what).default("")),
                field("optional", boolean("Absence is no error.")),
            ],
        )
        .atomic()
    };
    item([
        required("name", string("Name of the variable.")),
        field("value", string("Literal value; $(NAME) refers to earlier variables.")),
        field(
            "valueFrom",
            object(
                "Where the value comes from, if not literal.",
                [
                    field(
                        "configMapKeyRef",
                        key("A key of a ConfigMap.", "Name of the ConfigMap."),
                    ),
                    field("secretKeyRef", key("A key of a Secret.", "Name of the Secret.")),
                    field("fieldRef", field_reference()),
                    field("resourceFieldRef", resource_reference()),
                    field(
                        "fileKeyRef",
                        object(
                            "A variable of an env file in a volume.",
                            [
                                required("key", string("Variable to read.")),
                                required("path", string("File, relative to the volume.")),
                                required("volumeName", string("Volume that holds the file.")),
                                field("optional", boolean("Absence is no error.").default(false)),
                            ],
                        )
                        .atomic(),
                    ),
                ],
            ),
        ),
    ])
}

/// A field of the Pod itself.
pub(super) fn field_reference() -> Schema {
    object(
        "A field of the Pod.",
        [
            field("apiVersion", string("Schema the path is written for; v1 if empty.")),
            required("fieldPath", string("Path of the field.")),
        ],
    )
    .atomic()
}

/// A resource amount of a container.
pub(super) fn resource_reference() -> Schema {
    object(
        "A resource amount of a container.",
        [
            field("containerName", string("Container; needed in volumes.")),
            field("divisor", quantity("Unit the amount is given in.")),
            required("resource", string("Resource, such as limits.memory.")),
        ],
    )
    .atomic()
}

fn env_source() -> Schema {
    let all_of = |description: &str, what: &str| {
        object(
            description,
            [
                field("name", string(what).default("")),
                field("optional", boolean("Absence is no error.")),
            ],
        )
        .atomic()
    };
    item([
        field("prefix", string("Put before every key.")),
        field(
            "configMapRef",
            all_of("All keys of a ConfigMap.", "Name of the ConfigMap."),
        ),
        field("secretRef", all_of("All keys of a Secret.", "Name of the Secret.")),
    ])
}

fn port() -> Schema {
    item([
        required("containerPort", int32("Port number in the Pod.")),
        field("protocol", string("TCP, UDP or SCTP.").default("TCP")),
        field("name", string("Name Services and probes may use.")),
        field("hostPort", int32("Port opened on the node.")),
        field("hostIP", string("Node address to bind the host port to.")),
    ])
}

/// Requests, limits and claims.
pub(super) fn resources(description: &str) -> Schema {
    object(
        description,
        [
            field("requests", quantities("Amounts reserved, by resource.")),
            field("limits", quantities("Upper bounds, by resource.")),
            field(
                "claims",
                list(
                    "Resource claims of the Pod that are used here.",
                    item([
                        required("name", string("Name in the Pod's resourceClaims.")),
                        field("request", string("One request of the claim; all if empty.")),
                    ]),
                )
                .keyed_by(&["name"]),
            ),
        ],
    )
}

fn resize_policy() -> Schema {
    item([
        required("resourceName", string("Resource: cpu or memory.")),
        required("restartPolicy", string("NotRequired or RestartContainer.")),
    ])
}

fn volume_mount() -> Schema {
    item([
        required("name", string("Name of the volume.")),
        required("mountPath", string("Path in the container.")),
        field("subPath", string("Path in the volume; its root if empty.")),
        field("subPathExpr", string("Like subPath, with $(NAME) expanded.")),
        field("readOnly", boolean("Mount read-only.")),
        field(
            "recursiveReadOnly",
            string("Read-only for submounts too: Disabled, IfPossible or Enabled."),
        ),
        field(
            "mountPropagation",
            string("How mounts travel between node and container."),
        ),
    ])
}

fn volume_device() -> Schema {
    item([
        required("name", string("Name of the persistent volume claim's volume.")),
        required("devicePath", string("Device path in the container.")),
    ])
}

/// A map of names to strings that is replaced as a whole.
pub(super) fn atomic_string_map(description: &str) -> Schema {
    string_map(description).atomic()
}
