//! The `PodSpec` that components inline, and its parts that runtimes have too.

mod placement;

use super::container::{self, ContainerShape, shared_security_fields};
use super::schema::{Field, boolean, field, int64, integers, item, list, object, required, string, strings};
use super::volume::volume;
use placement::placement;
pub(super) use placement::{affinity, resource_claims, scheduler_name, tolerations};

/// Where a `PodSpec` is inlined, and so what it demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PodShape {
    /// In predictor, transformer and explainer: no containers needed, and no ephemeral ones.
    Component,
    /// As Kubernetes has it, except that containers are not needed.
    Core,
}

/// All fields of a `PodSpec`.
pub(super) fn fields(shape: PodShape) -> Vec<Field> {
    let container = match shape {
        PodShape::Component => ContainerShape::Component,
        PodShape::Core => ContainerShape::Core,
    };
    let mut all = vec![
        field(
            "containers",
            list("Containers of the Pod.", item(container::fields(container))),
        ),
        field(
            "initContainers",
            list(
                "Containers that run to their end, in order, before the others start.",
                item(container::fields(ContainerShape::Core)),
            ),
        ),
    ];
    if shape == PodShape::Core {
        let mut ephemeral = container::fields(ContainerShape::Core);
        ephemeral.push(field(
            "targetContainerName",
            string("Container whose processes it sees."),
        ));
        all.push(field(
            "ephemeralContainers",
            list("Containers added for debugging.", item(ephemeral)),
        ));
    }
    all.push(volumes());
    all.extend(placement());
    all.extend(identity());
    all.extend(network());
    all.extend(life(shape));
    all
}

/// The volumes of a Pod.
pub(super) fn volumes() -> Field {
    field("volumes", list("Volumes that containers may mount.", volume()))
}

/// The Secrets images are pulled with.
pub(super) fn image_pull_secrets() -> Field {
    field(
        "imagePullSecrets",
        list(
            "Secrets to pull images with.",
            item([field("name", string("Name of the Secret.").default(""))]).atomic(),
        ),
    )
}

/// Use of the node's IPC namespace.
pub(super) fn host_ipc() -> Field {
    field("hostIPC", boolean("Share the node's IPC namespace."))
}

fn identity() -> Vec<Field> {
    let mut security = shared_security_fields();
    security.extend([
        field("fsGroup", int64("Group that owns the files of volumes.")),
        field(
            "fsGroupChangePolicy",
            string("When ownership is changed: OnRootMismatch or Always."),
        ),
        field(
            "seLinuxChangePolicy",
            string("How volumes are labelled: MountOption or Recursive."),
        ),
        field(
            "supplementalGroups",
            integers("More groups of the processes.", "int64").atomic(),
        ),
        field("supplementalGroupsPolicy", string("Merge or Strict.")),
        field(
            "sysctls",
            list(
                "Kernel parameters of the Pod.",
                item([
                    required("name", string("Parameter.")),
                    required("value", string("Its value.")),
                ]),
            )
            .atomic(),
        ),
    ]);
    vec![
        field(
            "serviceAccountName",
            string("ServiceAccount of the Pod; its Secrets give access to models."),
        ),
        field("serviceAccount", string("Old name of serviceAccountName.")),
        field(
            "automountServiceAccountToken",
            boolean("Mount a token of the ServiceAccount."),
        ),
        image_pull_secrets(),
        field("securityContext", object("Security settings of the Pod.", security)),
    ]
}

fn network() -> Vec<Field> {
    vec![
        field("hostNetwork", boolean("Share the node's network.")),
        host_ipc(),
        field("hostPID", boolean("Share the node's process ids.")),
        field("hostUsers", boolean("False gives the Pod a user namespace of its own.")),
        field("hostname", string("Host name of the Pod.")),
        field("hostnameOverride", string("Host name in full, past all other rules.")),
        field("subdomain", string("Subdomain of the host name.")),
        field("setHostnameAsFQDN", boolean("Use the full domain name as host name.")),
        field(
            "hostAliases",
            list(
                "Lines added to /etc/hosts.",
                item([
                    required("ip", string("Address.")),
                    field("hostnames", strings("Names of the address.").atomic()),
                ]),
            ),
        ),
        field(
            "dnsPolicy",
            string("ClusterFirst, ClusterFirstWithHostNet, Default or None."),
        ),
        field(
            "dnsConfig",
            object(
                "Resolver settings, added to those of the policy.",
                [
                    field("nameservers", strings("Addresses of name servers.").atomic()),
                    field("searches", strings("Search domains.").atomic()),
                    field(
                        "options",
                        list(
                            "Resolver options.",
                            item([field("name", string("Option.")), field("value", string("Its value."))]),
                        )
                        .atomic(),
                    ),
                ],
            ),
        ),
        field("enableServiceLinks", boolean("Add environment variables for Services.")),
    ]
}

fn life(shape: PodShape) -> Vec<Field> {
    let os_name = match shape {
        PodShape::Component => field,
        PodShape::Core => required,
    };
    vec![
        field(
            "restartPolicy",
            string("Always, OnFailure or Never; serving needs Always."),
        ),
        field(
            "terminationGracePeriodSeconds",
            int64("Seconds between being asked and being forced to stop."),
        ),
        field("activeDeadlineSeconds", int64("Seconds after which the Pod is failed.")),
        field(
            "shareProcessNamespace",
            boolean("Let containers see each other's processes."),
        ),
        field(
            "readinessGates",
            list(
                "Extra conditions of being ready.",
                item([required("conditionType", string("Type of the Pod condition."))]),
            ),
        ),
        field(
            "os",
            object(
                "Operating system of the Pod.",
                [os_name("name", string("linux or windows."))],
            ),
        ),
    ]
}
