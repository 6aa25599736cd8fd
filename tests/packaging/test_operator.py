"""The operator with the flags and the rights that the chart gives it, over an upgrade and back.

Its binary runs beside the tests, because the control plane's nodes are simulated.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest
import urllib.request

import manifests
from cluster import cluster
from manifests import CHART, run, tool

NAMESPACE = "leanserve-scoped"
SERVED = "served"
VALUES = {
    "watchNamespaces": [SERVED],
    "config": {"secretAccessMaxAge": "5s"},
    "fullnameOverride": "scoped",
    "crds": {"keep": False},
}
# Reads that a watch has answered.
WATCHED = re.compile(r'leanserve_secret_reads_total\{[^}]*source="watch",result="found"[^}]*\} [1-9]')
# On a busy machine.
PATIENCE = 180

SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "s3", "annotations": {"serving.kserve.io/s3-endpoint": "s3.example.com"}},
    "stringData": {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
}
ACCOUNT = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "models"}, "secrets": [{"name": "s3"}]}


def service(name):
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://bucket/model"}
    predictor = {"serviceAccountName": "models", "minReplicas": 1, "maxReplicas": 3, "model": model}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"predictor": predictor},
    }


class Operator:
    """A process with the account and the flags of the installed Deployment."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        deployment = cluster().read("deployment", "scoped", "-n", NAMESPACE)
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
        token = cluster().kubectl("create", "token", account, "-n", NAMESPACE).strip()
        self.log = self.directory / "operator.log"
        environment = {
            "PATH": os.environ["PATH"],
            "POD_NAME": "operator",
            "POD_NAMESPACE": NAMESPACE,
            "KUBECONFIG": str(self.kubeconfig(token)),
        }
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.metrics = f"127.0.0.1:{free.getsockname()[1]}"
        flags = [f"--metrics-bind-address={self.metrics}", "--health-probe-bind-address=127.0.0.1:0", "--log-level=info"]
        with self.log.open("ab") as log:
            log.write(b"--- starts ---\n")
            log.flush()
            command = [binary(), *container["args"], *flags]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def kubeconfig(self, token):
        whole = json.loads(cluster().kubectl("config", "view", "--raw", "--minify", "--output=json"))
        whole["users"][0]["user"] = {"token": token}
        path = self.directory / "operator.kubeconfig"
        path.write_text(json.dumps(whole))
        return path

    def text(self):
        return self.log.read_text(errors="replace")

    def watched(self):
        """Whether a watch has answered reads of Secrets."""
        try:
            with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as page:
                return WATCHED.search(page.read().decode())
        except OSError:
            return False

    def stop(self):
        """Tells it to stop; it has to end well."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def binary():
    """The operator's binary; OPERATOR may name it, which is built otherwise."""
    named = os.environ.get("OPERATOR")
    if named:
        return named
    cargo = os.environ.get("CARGO", "cargo")
    told = run(cargo, "build", "--quiet", "--package", "leanserve", "--message-format=json", timeout=3600, cwd=manifests.ROOT)
    artifacts = [json.loads(line) for line in told.splitlines()]
    return next(one["executable"] for one in artifacts if one.get("executable") and one["target"]["name"] == "leanserve")


class OverAnUpgrade(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        for name in (NAMESPACE, SERVED, "not-served"):
            self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, None)
            self.addCleanup(cluster().kubectl, "delete", "namespace", name, "--wait=false")

    def apply(self, item, namespace=SERVED):
        options = ["--namespace", namespace] if namespace else []
        cluster().kubectl("apply", "--server-side", *options, "-f", "-", input=json.dumps(item))

    def helm(self, *arguments):
        return run(tool("helm"), *arguments, "--namespace", NAMESPACE, env=cluster().environment())

    def ready(self, name):
        found = cluster().read("inferenceservice", name, "-n", SERVED)
        conditions = {one["type"]: one["status"] for one in found.get("status", {}).get("conditions", [])}
        return conditions.get("Ready") == "True"

    def objects(self):
        """What the service is made of: who it is, and what was asked of it. Status and its versions are others' business."""
        kinds = "deployments,replicasets,pods,services,horizontalpodautoscalers,ingresses"
        found = cluster().read(kinds, "-n", SERVED)["items"]
        return {
            (item["kind"], item["metadata"]["name"]): (
                item["metadata"]["uid"],
                item["metadata"].get("generation"),
                json.dumps(item["spec"], sort_keys=True),
                json.dumps(item["metadata"].get("labels"), sort_keys=True),
                [one["time"] for one in item["metadata"].get("managedFields", []) if one["manager"] == "leanserve"],
            )
            for item in found
        }

    def leader(self):
        lease = cluster().read("lease", "leanserve-controller", "-n", NAMESPACE)
        return lease["spec"].get("holderIdentity")

    @contextlib.contextmanager
    def running(self):
        operator = Operator(self.directory)
        try:
            yield operator
            code = operator.stop()
            self.assertEqual(code, 0, operator.text()[-4000:])
        except BaseException:
            operator.process.kill()
            operator.process.wait()
            print(operator.text()[-6000:])
            raise

    def until(self, what, condition):
        return cluster().wait_until(what, condition, PATIENCE)

    def test_a_running_service_does_not_notice(self):
        values = pathlib.Path(self.directory) / "values.json"
        values.write_text(json.dumps(VALUES))
        self.helm("install", "scoped", CHART, "--values", values)
        self.addCleanup(self.helm, "uninstall", "scoped", "--wait")
        own = [item["metadata"]["name"] for item in manifests.chart() if item["kind"] == "CustomResourceDefinition"]
        cluster().kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", *own)
        cluster().kubectl("apply", "--server-side", "-k", manifests.KUSTOMIZE / "runtimes")
        for item in (SECRET, ACCOUNT, service("first")):
            self.apply(item)
        self.apply(service("elsewhere"), "not-served")

        with self.running():
            self.until("the first service is ready", lambda: self.ready("first"))
            before = self.objects()
        kinds = {kind for kind, _ in before}
        self.assertGreaterEqual(kinds, {"Deployment", "ReplicaSet", "Pod", "Service", "HorizontalPodAutoscaler"})

        with tempfile.TemporaryDirectory() as directory:
            newer = pathlib.Path(directory) / "leanserve"
            shutil.copytree(CHART, newer)
            chart = newer / "Chart.yaml"
            chart.write_text(chart.read_text().replace("version: 0.1.0", "version: 0.1.1"))
            file = newer / "files/crds/serving.kserve.io_inferenceservices.json"
            definition = json.loads(file.read_text())
            definition["spec"]["names"]["shortNames"] = ["newer"]
            file.write_text(json.dumps(definition))
            self.helm("upgrade", "scoped", newer, "--values", values, "--set", "resources.limits.memory=96Mi")
        for step, name in (("upgrade", "second"), ("rollback", "third")):
            if step == "rollback":
                self.helm("rollback", "scoped")
            with self.running() as operator:
                self.until("the operator leads again", self.leader)
                # It has seen everything once it has made a service that is new to it.
                self.apply(service(name))
                self.until(f"the {name} service is ready", lambda name=name: self.ready(name))
                after = {key: value for key, value in self.objects().items() if key in before}
                self.assertEqual(after, before, step)
                self.assertTrue(self.ready("first"))
        # With the right to watch in this namespace alone, Secrets are watched in it and nothing is asked beyond it.
        self.helm("upgrade", "scoped", CHART, "--values", values, "--set", "secretAccess.watch=true")
        with self.running() as operator:
            self.apply(service("watched"))
            self.until("the service is ready that was made meanwhile", lambda: self.ready("watched"))
            self.until("a watch answers reads of Secrets", operator.watched)
            self.assertNotIn("watch_denied", operator.text().rsplit("--- starts ---", 1)[1])
        log = operator.text()
        # The rights in the namespace that is served, and the few in the cluster, are enough.
        self.assertNotRegex(log.lower(), "forbidden")
        self.assertEqual(cluster().read("deployments", "-n", "not-served")["items"], [])
        for name in ("first", "elsewhere"):
            namespace = SERVED if name == "first" else "not-served"
            cluster().kubectl("delete", "inferenceservice", name, "-n", namespace, "--wait=false")


if __name__ == "__main__":
    unittest.main()
