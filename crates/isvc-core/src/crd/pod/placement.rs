//! Where a Pod may run, and on what.

use crate::crd::container::{self, atomic_string_map};
use crate::crd::schema::{
    Field, Schema, field, int32, int64, item, list, object, quantities, required, string, strings,
};
use crate::crd::volume::{label_selector, requirements};

/// Node affinity and affinity to other Pods.
pub(in crate::crd) fn affinity() -> Field {
    let preference = |name, description: &str, what: Schema| {
        list(
            description,
            item([required(name, what), required("weight", int32("Weight from 1 to 100."))]),
        )
        .atomic()
    };
    let node = object(
        "Rules about nodes.",
        [
            field(
                "requiredDuringSchedulingIgnoredDuringExecution",
                object(
                    "Rules a node must meet.",
                    [required(
                        "nodeSelectorTerms",
                        list("Terms, one of which must hold.", node_term()).atomic(),
                    )],
                )
                .atomic(),
            ),
            field(
                "preferredDuringSchedulingIgnoredDuringExecution",
                preference(
                    "preference",
                    "Rules that make a node more welcome.",
                    node_term().describe("The term."),
                ),
            ),
        ],
    );
    let pods = |description: &str| {
        object(
            description,
            [
                field(
                    "requiredDuringSchedulingIgnoredDuringExecution",
                    list("Rules that must hold.", pod_term()).atomic(),
                ),
                field(
                    "preferredDuringSchedulingIgnoredDuringExecution",
                    preference(
                        "podAffinityTerm",
                        "Rules that are wished for.",
                        pod_term().describe("The term."),
                    ),
                ),
            ],
        )
    };
    field(
        "affinity",
        object(
            "Rules on where the Pod may run.",
            [
                field("nodeAffinity", node),
                field("podAffinity", pods("Rules about Pods to be near to.")),
                field("podAntiAffinity", pods("Rules about Pods to be away from.")),
            ],
        ),
    )
}

fn node_term() -> Schema {
    item([
        field("matchExpressions", requirements("Requirements on node labels.")),
        field("matchFields", requirements("Requirements on node fields.")),
    ])
    .atomic()
}

fn pod_term() -> Schema {
    item([
        field("labelSelector", label_selector("Which Pods.")),
        field("matchLabelKeys", strings("Own labels the Pods must share.").atomic()),
        field(
            "mismatchLabelKeys",
            strings("Own labels the Pods must not share.").atomic(),
        ),
        field(
            "namespaces",
            strings("Namespaces of the Pods; the own one if empty.").atomic(),
        ),
        field("namespaceSelector", label_selector("Namespaces of the Pods, by label.")),
        required("topologyKey", string("Node label that says what near means.")),
    ])
}

/// The taints a Pod puts up with.
pub(in crate::crd) fn tolerations() -> Field {
    field(
        "tolerations",
        list(
            "Taints the Pod puts up with.",
            item([
                field("key", string("Key of the taint; all if empty.")),
                field("operator", string("Equal, Exists, Lt or Gt.")),
                field("value", string("Value to compare with.")),
                field(
                    "effect",
                    string("NoSchedule, PreferNoSchedule, NoExecute, or all if empty."),
                ),
                field("tolerationSeconds", int64("How long NoExecute is put up with.")),
            ]),
        ),
    )
}

/// The claims on devices.
pub(in crate::crd) fn resource_claims() -> Field {
    field(
        "resourceClaims",
        list(
            "Claims on devices that containers may use.",
            item([
                required("name", string("Name containers refer to.")),
                field("resourceClaimName", string("An existing ResourceClaim.")),
                field(
                    "resourceClaimTemplateName",
                    string("Template of a claim made for the Pod."),
                ),
            ]),
        )
        .keyed_by(&["name"]),
    )
}

/// The scheduler that places the Pod.
pub(in crate::crd) fn scheduler_name() -> Field {
    field("schedulerName", string("Scheduler that places the Pod."))
}

/// All of it.
pub(super) fn placement() -> Vec<Field> {
    vec![
        affinity(),
        tolerations(),
        resource_claims(),
        scheduler_name(),
        field("nodeSelector", atomic_string_map("Labels the node must have.")),
        field("nodeName", string("Node to run on, past the scheduler.")),
        field("priority", int32("Priority; set from the class.")),
        field("priorityClassName", string("Priority class.")),
        field("preemptionPolicy", string("PreemptLowerPriority or Never.")),
        field("runtimeClassName", string("RuntimeClass to run with.")),
        field("overhead", quantities("Cost of the runtime itself, by resource.")),
        field("resources", container::resources("Compute resources of the whole Pod.")),
        field(
            "schedulingGates",
            list(
                "Gates that hold scheduling back.",
                item([required("name", string("Name of the gate."))]),
            )
            .keyed_by(&["name"]),
        ),
        field(
            "topologySpreadConstraints",
            list("How Pods are spread over zones, nodes and the like.", spread())
                .keyed_by(&["topologyKey", "whenUnsatisfiable"]),
        ),
    ]
}

fn spread() -> Schema {
    item([
        required("topologyKey", string("Node label that names the domain.")),
        required("maxSkew", int32("Largest difference between domains.")),
        required("whenUnsatisfiable", string("DoNotSchedule or ScheduleAnyway.")),
        field("labelSelector", label_selector("Which Pods are counted.")),
        field(
            "matchLabelKeys",
            strings("Own labels that narrow the selector.").atomic(),
        ),
        field("minDomains", int32("Domains there must be at least.")),
        field("nodeAffinityPolicy", string("Honor or Ignore node affinity.")),
        field("nodeTaintsPolicy", string("Honor or Ignore node taints.")),
    ])
}
