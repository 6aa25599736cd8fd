"""What the tests of chart and kustomizations share: the pinned tools, and manifests as data."""

import functools
import json
import os
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/leanserve"
KUSTOMIZE = ROOT / "deploy/kustomize"
NAMESPACE = "leanserve-system"

# A build of the tools on a busy machine.
TOOLS_TIMEOUT = 3600
TIMEOUT = 300


def run(*command, timeout=TIMEOUT, **more):
    """Runs a command and returns what it printed; says what it complained about when it fails."""
    command = [str(part) for part in command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **more)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.stdout


@functools.cache
def tools():
    """The directory of the pinned tools; builds them if need be."""
    return pathlib.Path(run(ROOT / "scripts/packaging-tools", timeout=TOOLS_TIMEOUT).strip())


def tool(name):
    return tools() / name


# What monitors and rules are checked with. The sum is Go's, of the module's content.
PROMETHEUS_OPERATOR = (
    "github.com/prometheus-operator/prometheus-operator@v0.85.0",
    "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
)


@functools.cache
def go_module(name, checksum):
    """The directory of a Go module, downloaded if need be; its content is what the checksum says."""
    environment = {**os.environ, "GOWORK": "off", "GOFLAGS": "-mod=mod"}
    told = json.loads(run("go", "mod", "download", "-json", name, env=environment, cwd=tempfile.gettempdir()))
    if told["Sum"] != checksum:
        raise AssertionError(f"{name} has the checksum {told['Sum']}, not {checksum}")
    return pathlib.Path(told["Dir"])


def monitoring_definitions():
    """The CRDs of the kinds that deploy/observability has objects of."""
    folder = go_module(*PROMETHEUS_OPERATOR) / "example/prometheus-operator-crd"
    kinds = ("podmonitors", "prometheusrules", "servicemonitors")
    return [item for kind in kinds for item in documents((folder / f"monitoring.coreos.com_{kind}.yaml").read_text())]


def documents(text):
    """The objects in a YAML text."""
    printed = run(tool("yq"), "--output-format=json", "--indent=0", "eval-all", "[.]", "-", input=text)
    return [document for document in json.loads(printed) if document]


def chart_text(values=None, *options, chart=CHART, release="leanserve", namespace=NAMESPACE):
    """What `helm template` prints for these values."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values or {}, file)
        file.flush()
        return run(
            tool("helm"), "template", release, chart, "--namespace", namespace, "--values", file.name, *options
        )


def chart(values=None, *options, **more):
    return documents(chart_text(values, *options, **more))


def kustomization_text(*folders):
    """What kustomize makes of the first folder of deploy/kustomize and, as components, of the others."""
    if len(folders) == 1:
        return run(tool("kustomize"), "build", KUSTOMIZE / folders[0])
    with tempfile.TemporaryDirectory(dir=KUSTOMIZE.parent, prefix=".test-") as directory:
        relative = [os.path.relpath(KUSTOMIZE / folder, directory) for folder in folders]
        whole = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": relative[:1],
            "components": relative[1:],
        }
        (pathlib.Path(directory) / "kustomization.yaml").write_text(json.dumps(whole))
        return run(tool("kustomize"), "build", directory)


def kustomization(*folders):
    return documents(kustomization_text(*folders))


def key(item):
    metadata = item["metadata"]
    return item["apiVersion"], item["kind"], metadata.get("namespace", ""), metadata["name"]


def differences(left, right, path=""):
    """Where two values differ, as lines."""
    if isinstance(left, dict) and isinstance(right, dict):
        found = []
        for name in sorted(left.keys() | right.keys()):
            if name not in left:
                found.append(f"{path}.{name}: only on the right: {right[name]!r:.200}")
            elif name not in right:
                found.append(f"{path}.{name}: only on the left: {left[name]!r:.200}")
            else:
                found += differences(left[name], right[name], f"{path}.{name}")
        return found
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        return [
            line
            for index, pair in enumerate(zip(left, right))
            for line in differences(*pair, f"{path}[{index}]")
        ]
    # Types count: 1 is not "1" and not true.
    if type(left) is not type(right) or left != right:
        return [f"{path}: {left!r:.200} and {right!r:.200}"]
    return []
