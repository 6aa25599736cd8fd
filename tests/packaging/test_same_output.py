"""The chart and the kustomizations install the same."""

import copy
import unittest

import manifests

# What only Helm says, about itself.
HELM_LABELS = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
}
HELM_ANNOTATIONS = {"helm.sh/resource-policy"}

CASES = {
    "as it comes": ({}, ["base"]),
    "two replicas": ({"replicas": 2}, ["overlays/ha"]),
    "Secrets watched": ({"secretAccess": {"watch": True}}, ["overlays/watch"]),
    "network policy and flow control": (
        {"networkPolicy": {"enabled": True}, "flowControl": {"enabled": True}},
        ["base", "components/network-policy", "components/flow-control"],
    ),
    "policies": ({"policies": {"enabled": True}}, ["base", "components/policies"]),
    "policies and their audit": (
        {"policies": {"enabled": True}, "audit": {"enabled": True}},
        ["base", "components/policies", "components/audit"],
    ),
    "network policies of all roles": (
        {name: {"enabled": True} for name in ("policies", "audit", "webhook", "podDisruptionBudget", "networkPolicy")},
        [
            "base",
            *(f"components/{role}" for role in ("policies", "audit", "webhook")),
            *(f"components/network-policy{role}" for role in ("", "/audit", "/webhook")),
        ],
    ),
    "webhook": (
        {"webhook": {"enabled": True}, "podDisruptionBudget": {"enabled": True}},
        ["base", "components/webhook"],
    ),
    "monitoring": (
        {"monitoring": {name: {"enabled": True} for name in ("podMonitor", "prometheusRule", "dashboard")}},
        ["base", "../observability"],
    ),
}


def normalised(objects):
    """Objects by their key, without what the ways of installing say about themselves."""
    by_key = {}
    for item in copy.deepcopy(objects):
        # Helm makes the namespace when asked to, outside of the chart.
        if item["kind"] == "Namespace":
            continue
        metadata = item["metadata"]
        for field, own in (("labels", HELM_LABELS), ("annotations", HELM_ANNOTATIONS)):
            rest = {name: value for name, value in (metadata.pop(field, None) or {}).items() if name not in own}
            if rest:
                metadata[field] = rest
        key = manifests.key(item)
        assert key not in by_key, f"{key} is there twice"
        by_key[key] = item
    return by_key


class SameOutput(unittest.TestCase):
    maxDiff = None

    def test_chart_and_kustomization_are_equal(self):
        for name, (values, folders) in CASES.items():
            with self.subTest(name):
                chart = normalised(manifests.chart(values))
                kustomization = normalised(manifests.kustomization(*folders))
                self.assertEqual(sorted(chart), sorted(kustomization))
                found = [
                    f"{' '.join(key)}: {line}"
                    for key in sorted(chart)
                    for line in manifests.differences(chart[key], kustomization[key])
                ]
                self.assertEqual(found, [], "left is the chart's, right the kustomization's")

    def test_the_service_monitor_is_that_of_the_folder(self):
        # No kustomization has it, because beside the PodMonitor it would have everything scraped twice.
        values = {"monitoring": {"serviceMonitor": {"enabled": True}}}
        made = [item for item in manifests.chart(values) if item["kind"] == "ServiceMonitor"]
        file = manifests.documents((manifests.ROOT / "deploy/observability/service-monitor.yaml").read_text())
        file[0]["metadata"]["namespace"] = manifests.NAMESPACE
        self.assertEqual(normalised(made), normalised(file))

    def test_a_difference_is_found(self):
        left = {"a": [{"b": 1}], "c": "x"}
        self.assertEqual(manifests.differences(left, copy.deepcopy(left)), [])
        for right in (
            {"a": [{"b": "1"}], "c": "x"},
            {"a": [{"b": True}], "c": "x"},
            {"a": [{"b": 1}, {}], "c": "x"},
            {"a": [{"b": 1}]},
            {"a": [{"b": 1, "d": None}], "c": "x"},
        ):
            self.assertEqual(len(manifests.differences(left, right)), 1, right)


if __name__ == "__main__":
    unittest.main()
