"""Chart and kustomizations on a real API server."""

import base64
import json
import pathlib
import shutil
import tempfile
import unittest

import manifests
from cluster import cluster
from manifests import CHART, NAMESPACE, run, tool

# Everything the chart can make, at once.
EVERYTHING = {
    "replicas": 3,
    "leaderElection": {"enabled": True, "leaseDuration": "20s", "renewDeadline": "15s", "retryPeriod": "3s"},
    "watchNamespaces": ["models", "more-models"],
    "inferenceServiceSelector": "team in (a, b),stage!=test",
    "platformNamespace": "kserve",
    "clusterDomain": "cluster.example",
    "log": {"format": "json", "level": "info,leanserve=debug"},
    "config": {
        "secretAccessMode": "lru",
        "secretAccessMaxSecrets": 1000000,
        "secretAccessMaxBytes": "32Mi",
        "secretAccessMaxAge": "30s",
        "storageInjection": "annotations",
        "maxConcurrentReconciles": 4,
        "memoryLimit": "48Mi",
        "memoryShrinkPercent": 60,
    },
    "secretAccess": {"watch": True},
    "networkPolicy": {"enabled": True, "metricsFrom": [{"namespaceSelector": {"matchLabels": {"team": "watchers"}}}]},
    "flowControl": {"enabled": True},
    "policies": {"enabled": True},
    "audit": {"enabled": True, "interval": "1h", "qps": 50},
    "webhook": {"enabled": True, "enforcementAction": "deny", "maxServingThreads": 16, "annotations": {"team": "a"}},
    "monitoring": {
        "podMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}},
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True, "namespace": "models", "annotations": {"grafana_folder": "Serving"}},
    },
    "priorityClassName": "system-cluster-critical",
    "commonLabels": {"team": "serving"},
    "podLabels": {"zone": "a"},
    "podAnnotations": {"example.com/note": "1"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "extraArgs": ["--resync-period=1h"],
    "extraEnv": [{"name": "LEANSERVE_REQUEST_TIMEOUT", "value": "5s"}],
    "image": {"registry": "registry.example.com", "digest": "sha256:" + 64 * "0", "pullSecrets": [{"name": "pull"}]},
    "serviceAccount": {"annotations": {"example.com/role": "serving"}},
    "fullnameOverride": "serving",
}

KUSTOMIZATIONS = [
    ["base"],
    ["overlays/ha"],
    ["overlays/watch"],
    [
        "base",
        *(f"components/network-policy{role}" for role in ("", "/audit", "/webhook")),
        *(f"components/{name}" for name in ("flow-control", "policies", "audit", "webhook")),
        "../observability",
    ],
]

# https://kubernetes.io/docs/concepts/configuration/secret/#restriction-data-size
MOST_OF_A_SECRET = 1024 * 1024


def helm(*arguments, **more):
    return run(tool("helm"), *arguments, env=cluster().environment(), **more)


class OnACluster(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        for name in [NAMESPACE, *EVERYTHING["watchNamespaces"]]:
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            if name == NAMESPACE:
                # What overlays/base asks for: Pods that break it are refused, and Deployments warned about.
                level = "pod-security.kubernetes.io/"
                namespace["metadata"]["labels"] = {level + "enforce": "restricted", level + "warn": "restricted"}
            cluster().kubectl("apply", "--server-side", "-f", "-", input=json.dumps(namespace))
        foreign = {"apiVersion": "v1", "kind": "List", "items": manifests.monitoring_definitions()}
        cluster().kubectl("apply", "--server-side", "-f", "-", input=json.dumps(foreign))
        names = [f"crd/{item['metadata']['name']}" for item in foreign["items"]]
        cluster().kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)

    def dry_run(self, text):
        """The server's answer; warnings fail."""
        return cluster().kubectl(
            "apply",
            "--dry-run=server",
            "--server-side",
            "--validate=strict",
            "--warnings-as-errors",
            "--force-conflicts",
            "-f",
            "-",
            input=text,
        )

    def test_the_server_accepts_everything_strictly(self):
        for name, values in {"as it comes": {}, "everything": EVERYTHING}.items():
            with self.subTest(chart=name):
                answer = self.dry_run(manifests.chart_text(values))
                self.assertEqual(answer.count("(server dry run)"), len(manifests.chart(values)))
        for folders in KUSTOMIZATIONS:
            with self.subTest(kustomization=folders):
                self.dry_run(manifests.kustomization_text(*folders))
        # The runtimes need definitions, which a dry run does not make: they are applied in the test of an installation.

    def test_a_field_that_does_not_exist_is_refused(self):
        with self.assertRaisesRegex(AssertionError, "field not declared in schema"):
            self.dry_run(manifests.chart_text().replace("enableServiceLinks:", "enableServiceLink:"))

    def test_install_upgrade_roll_back_uninstall(self):
        helm("install", "leanserve", CHART, "--namespace", NAMESPACE)
        own = [item["metadata"]["name"] for item in manifests.chart() if item["kind"] == "CustomResourceDefinition"]
        self.addCleanup(lambda: cluster().kubectl("delete", "crd", *own))
        (secret,) = cluster().read("secrets", "-n", NAMESPACE, "-l", "owner=helm")["items"]
        size = sum(len(base64.b64decode(value)) for value in secret["data"].values())
        print(f"the release takes {size} of {MOST_OF_A_SECRET} bytes")
        self.assertLess(size, MOST_OF_A_SECRET / 2)
        cluster().kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", *own)
        cluster().kubectl("apply", "--server-side", "-k", manifests.KUSTOMIZE / "runtimes")
        service = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "kept", "namespace": "models"},
            "spec": {"predictor": {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "gs://a/b"}}},
        }
        cluster().kubectl("apply", "--server-side", "-f", "-", input=json.dumps(service))

        # What is set in the cluster stays; what is set by values is the chart's.
        patch = json.dumps({"data": {"secretAccessMode": "direct"}})
        cluster().kubectl("patch", "configmap", "leanserve-config", "-n", NAMESPACE, "--type=merge", "-p", patch)

        def upgrade(*options):
            helm("upgrade", "leanserve", CHART, "--namespace", NAMESPACE, *options)
            return cluster().read("configmap", "leanserve-config", "-n", NAMESPACE).get("data")

        self.assertEqual(upgrade("--set", "config.secretAccessMaxAge=30s"),
                         {"secretAccessMode": "direct", "secretAccessMaxAge": "30s"})
        self.assertEqual(upgrade("--set", "config.secretAccessMaxAge=20s", "--set", "resources.limits.memory=100Mi"),
                         {"secretAccessMode": "direct", "secretAccessMaxAge": "20s"})
        helm("rollback", "leanserve", "2", "--namespace", NAMESPACE)
        self.assertEqual(cluster().read("configmap", "leanserve-config", "-n", NAMESPACE)["data"],
                         {"secretAccessMode": "direct", "secretAccessMaxAge": "30s"})

        # A definition follows the chart, as it would not from the folder crds/.
        with tempfile.TemporaryDirectory() as directory:
            newer = pathlib.Path(directory) / "leanserve"
            shutil.copytree(CHART, newer)
            file = newer / "files/crds/serving.kserve.io_inferenceservices.json"
            definition = json.loads(file.read_text())
            definition["spec"]["names"]["shortNames"] = ["newer"]
            file.write_text(json.dumps(definition))
            helm("upgrade", "leanserve", newer, "--namespace", NAMESPACE)
        crd = "inferenceservices.serving.kserve.io"
        self.assertEqual(cluster().read("crd", crd)["spec"]["names"]["shortNames"], ["newer"])
        helm("rollback", "leanserve", "--namespace", NAMESPACE)
        self.assertNotEqual(cluster().read("crd", crd)["spec"]["names"].get("shortNames"), ["newer"])

        helm("uninstall", "leanserve", "--namespace", NAMESPACE, "--wait")
        self.assertEqual(cluster().read("inferenceservice", "-n", "models")["items"][0]["metadata"]["name"], "kept")
        left = cluster().read("deployments,configmaps,services,roles,rolebindings,serviceaccounts", "-n", NAMESPACE)
        names = sorted(item["metadata"]["name"] for item in left["items"])
        self.assertEqual(names, ["default", "kube-root-ca.crt"])
        # The definitions left behind are no hindrance.
        helm("install", "leanserve", CHART, "--namespace", NAMESPACE)
        helm("uninstall", "leanserve", "--namespace", NAMESPACE, "--wait")

    def test_values_that_make_no_sense_are_refused(self):
        for expected, values in {
            "replicas": {"replicas": 2, "leaderElection": {"enabled": False}},
            "additional properties 'secretAcces'": {"secretAcces": {"watch": True}},
            "additional properties 'secretAccessmode'": {"config": {"secretAccessmode": "lru"}},
            "secretAccessMode": {"config": {"secretAccessMode": "none"}},
            "watchNamespaces": {"watchNamespaces": ["A"]},
            "extraArgs": {"extraArgs": ["run"]},
        }.items():
            with self.subTest(expected):
                with self.assertRaisesRegex(AssertionError, expected):
                    manifests.chart_text(values)


if __name__ == "__main__":
    unittest.main()
