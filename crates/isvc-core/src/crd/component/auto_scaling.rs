//! Autoscaling of a component.

use crate::crd::schema::{Schema, field, int32, item, list, object, quantity, required, string, strings};

/// The `autoScaling` block.
pub(super) fn auto_scaling() -> Schema {
    let rules = |description: &str| {
        object(
            description,
            [
                field(
                    "stabilizationWindowSeconds",
                    int32("Seconds of past advice that are looked at."),
                ),
                field("selectPolicy", string("Max, Min or Disabled.")),
                field("tolerance", quantity("Deviation from the target that is let pass.")),
                field(
                    "policies",
                    list(
                        "Steps that are allowed.",
                        item([
                            required("type", string("Pods or Percent.")),
                            required("value", int32("Size of the step.")),
                            required("periodSeconds", int32("Seconds the step is counted over.")),
                        ]),
                    )
                    .atomic(),
                ),
            ],
        )
    };
    object(
        "Metrics and pace of autoscaling.",
        [
            field("metrics", list("What to scale by.", metric())),
            field(
                "behavior",
                object(
                    "Pace of scaling.",
                    [
                        field("scaleUp", rules("Pace of growing.")),
                        field("scaleDown", rules("Pace of shrinking.")),
                    ],
                ),
            ),
        ],
    )
}

fn metric() -> Schema {
    item([
        required(
            "type",
            string("Which of the blocks counts.").one_of(&["Resource", "External", "PodMetric"]),
        ),
        field(
            "resource",
            object(
                "Use of a compute resource.",
                [
                    required("name", string("Resource.").one_of(&["cpu", "memory"])),
                    required("target", target()),
                ],
            ),
        ),
        field(
            "external",
            object(
                "A metric of a monitoring system (KEDA).",
                [
                    required(
                        "metric",
                        object(
                            "The metric.",
                            [
                                field(
                                    "backend",
                                    string("Monitoring system.").one_of(&["prometheus", "graphite"]),
                                ),
                                field("serverAddress", string("Address of the monitoring system.")),
                                field("query", string("Query that yields the value.")),
                                field(
                                    "namespace",
                                    string("Namespace to query in, for systems that have them."),
                                ),
                            ],
                        ),
                    ),
                    required("target", target()),
                    field(
                        "authenticationRef",
                        object(
                            "How to log in to the monitoring system.",
                            [
                                field("authModes", string("Ways of logging in, comma separated.")),
                                required(
                                    "authenticationRef",
                                    object("The TriggerAuthentication.", [required("name", string("Its name."))]),
                                ),
                            ],
                        ),
                    ),
                ],
            ),
        ),
        field(
            "podmetric",
            object(
                "A metric the Pods report (KEDA with OpenTelemetry).",
                [
                    required(
                        "metric",
                        object(
                            "The metric.",
                            [
                                field("backend", string("Where it is reported to.").one_of(&["opentelemetry"])),
                                field("serverAddress", string("Address of the scaler.")),
                                field("metricNames", strings("Metrics to collect.")),
                                field("query", string("Query that yields the value.")),
                                field("operationOverTime", string("How values over time are joined.")),
                            ],
                        ),
                    ),
                    required("target", target()),
                ],
            ),
        ),
    ])
}

fn target() -> Schema {
    object(
        "The value to keep.",
        [
            field(
                "type",
                string("Kind of the value.").one_of(&["Utilization", "Value", "AverageValue"]),
            ),
            field("value", quantity("The value itself.")),
            field("averageValue", quantity("The value per Pod.")),
            field(
                "averageUtilization",
                int32("Percentage of the requested amount, on average."),
            ),
        ],
    )
}
